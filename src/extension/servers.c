/* SPDX-License-Identifier: PostgreSQL */
/*
 * servers.c
 *	  Agents of which one program serves many chats.
 */
#include "postgres.h"

#include "extension/db.h"
#include "extension/runners.h"
#include "extension/servers.h"
#include "extension/tasks.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_NEWS 100			/* messages that wait for the database */
#define GIVE_UP "give_up "

typedef struct BcServer
{
	dlist_node	node;
	MemoryContext context;
	int64		id;
	char	   *order;
	char	  **prefix;			/* NULL: none */
	BcRunner   *runner;			/* NULL: it has ended */
	pid_t		pid;			/* of the last runner */
	bool		ending;			/* for good; its runner may not be reaped yet */
	char	   *address;		/* what its runner said when it was ready; NULL: it is not */
	char	   *failure;		/* why it is given up, JSON text; NULL: nobody said */
	char	   *news[MAX_NEWS];	/* not told to the database yet */
	int			nnews;
	TimestampTz due;			/* of the next try or look; 0: none */
} BcServer;

static dlist_head servers;

static void
tell_later(BcServer *server, const char *message)
{
	/* Looks that nobody could store are no news when there are newer ones. */
	if (server->nnews == MAX_NEWS)
	{
		pfree(server->news[0]);
		memmove(server->news, server->news + 1, (MAX_NEWS - 1) * sizeof(char *));
		server->nnews--;
	}
	server->news[server->nnews++] = MemoryContextStrdup(server->context, message);
	server->due = GetCurrentTimestamp();
}

static void
forget_address(BcServer *server)
{
	if (server->address != NULL)
		pfree(server->address);
	server->address = NULL;
}

/* Its runner has ended: "result" is what it said at last, JSON text, or NULL. */
static void
ended(BcServer *server, const char *result, const char *why)
{
	StringInfoData message;

	server->runner = NULL;
	forget_address(server);
	initStringInfo(&message);
	appendStringInfoString(&message, "{\"state\":\"ended\",\"result\":");
	if (result != NULL)
		appendStringInfoString(&message, result);
	else
	{
		appendStringInfoString(&message, "{\"message\":");
		escape_json(&message, why);
		appendStringInfoChar(&message, '}');
	}
	appendStringInfoChar(&message, '}');
	tell_later(server, message.data);
	pfree(message.data);
}

static void
on_message(void *owner, BcRunner *runner, BcFrameType type, const StringInfoData *payload)
{
	BcServer   *server = owner;

	if (type == BC_FRAME_SERVER)
		tell_later(server, payload->data);
	else if (type == BC_FRAME_RESULT)
	{
		bc_runners_retire(runner);
		ended(server, payload->data, NULL);
	}
}

static void
on_gone(void *owner, BcRunner *runner, const char *why)
{
	ended(owner, NULL, why);
}

static const BcRunnerOwner server_owner = {on_message, on_gone};

void
bc_servers_init(void)
{
	dlist_init(&servers);
}

static BcServer *
find(int64 id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &servers)
	{
		BcServer   *server = dlist_container(BcServer, node, iter.cur);

		if (server->id == id)
			return server;
	}
	return NULL;
}

static void
launch(BcServer *server)
{
	server->runner = bc_runners_order(&server_owner, server, server->prefix, server->order);
	if (server->runner == NULL)
		ended(server, NULL, psprintf("could not start a runner: %m"));
	else
		server->pid = server->runner->pid;
}

void
bc_servers_start(int64 id, char *const *prefix, const char *order)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "boocoder server",
												  ALLOCSET_SMALL_SIZES);
	BcServer   *server = MemoryContextAllocZero(context, sizeof(BcServer));
	int			n = 0;

	server->context = context;
	server->id = id;
	server->order = MemoryContextStrdup(context, order);
	while (prefix != NULL && prefix[n] != NULL)
		n++;
	if (prefix != NULL)
		server->prefix = MemoryContextAllocZero(context, (n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		server->prefix[i] = MemoryContextStrdup(context, prefix[i]);
	dlist_push_tail(&servers, &server->node);
	launch(server);
}

char *
bc_servers_answer(int64 id)
{
	BcServer   *server = find(id);

	if (server != NULL && server->failure != NULL)
		return psprintf("{\"server_failed\":%s}", server->failure);
	if (server == NULL || server->ending)
		return pstrdup("{\"server_failed\":{\"reason\":\"agent_exited\",\"message\":"
					   "\"the agent's server has ended\"}}");
	return server->address != NULL ? psprintf("{\"server\":%s}", server->address) : NULL;
}

static void
close_runner(BcServer *server)
{
	BcRunner   *runner = server->runner;

	server->runner = NULL;
	forget_address(server);
	if (runner != NULL)
		bc_runners_close(runner);
}

/* Turns that are on it hear what bc_servers_answer() says now. */
static void
tell_chats(const BcServer *server)
{
	char	   *answer = bc_servers_answer(server->id);

	bc_tasks_server(server->id, answer);
	pfree(answer);
}

/* For good: whoever waits for it is told. */
static void
end(BcServer *server)
{
	server->ending = true;
	server->due = GetCurrentTimestamp();
	close_runner(server);
	tell_chats(server);
}

void
bc_servers_end(int64 id)
{
	BcServer   *server = find(id);

	if (server == NULL)
		(void) bc_db_server_ended(id);
	else if (!server->ending)
		end(server);
}

/* Does what the database decided on a message. */
static void
obey(BcServer *server, const char *decision, const char *message)
{
	if (strcmp(decision, "ready") == 0)
	{
		server->address = MemoryContextStrdup(server->context, message);
		tell_chats(server);
	}
	else if (strncmp(decision, "restart", 7) == 0)
	{
		ereport(LOG, (errmsg("boocoder: server " INT64_FORMAT " is started again", server->id)));
		close_runner(server);
		launch(server);
	}
	else if (strcmp(decision, "keep") != 0)
	{
		if (strncmp(decision, GIVE_UP, strlen(GIVE_UP)) == 0)
			server->failure = MemoryContextStrdup(server->context, decision + strlen(GIVE_UP));
		end(server);
	}
}

/* Tells what there is to tell, up to what the database takes. */
static void
tell(BcServer *server, TimestampTz now)
{
	server->due = 0;
	while (server->nnews > 0 && !server->ending)
	{
		char	   *message = server->news[0];
		char	   *decision;
		BcDbStatus	status = bc_db_server_told(server->id, message, &decision);

		if (status == BC_DB_BUSY)
		{
			server->due = bc_db_retry_at(status);
			return;
		}
		server->nnews--;
		memmove(server->news, server->news + 1, server->nnews * sizeof(char *));
		/* A message that can't be stored is the end of what is known. */
		obey(server, status == BC_DB_OK && decision != NULL ? decision : "end", message);
		pfree(message);
	}
}

/* False: it is gone, and "server" freed. */
static bool
look_after(BcServer *server, TimestampTz now)
{
	if (!server->ending)
	{
		tell(server, now);
		return true;
	}
	if (server->pid != 0 && bc_runners_ending(server->pid))
		server->due = TimestampTzPlusMilliseconds(now, BC_REAP_INTERVAL_MS);
	else
	{
		BcDbStatus	status = bc_db_server_ended(server->id);

		if (status == BC_DB_OK)
		{
			dlist_delete(&server->node);
			MemoryContextDelete(server->context);
			return false;
		}
		server->due = bc_db_retry_at(status);
	}
	return true;
}

TimestampTz
bc_servers_tick(TimestampTz now)
{
	dlist_mutable_iter iter;
	TimestampTz next = 0;

	dlist_foreach_modify(iter, &servers)
	{
		BcServer   *server = dlist_container(BcServer, node, iter.cur);

		if (server->due != 0 && server->due <= now && !look_after(server, now))
			continue;
		if (server->due != 0 && (next == 0 || server->due < next))
			next = server->due;
	}
	return next;
}
