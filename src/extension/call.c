/* SPDX-License-Identifier: PostgreSQL */
/*
 * call.c
 *	  One order to a runner from an ordinary backend, and its result.
 *
 * For what an administrator wants to know at once: is that path a repository,
 * does the sandbox work.  Interruptible, and limited in time.
 */
#include "postgres.h"

#include <signal.h>

#include "catalog/pg_type.h"
#include "extension/channel.h"
#include "extension/compat.h"
#include "extension/host.h"
#include "extension/process.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define CALL_TIMEOUT_MS 30000
#define REAP_TRIES 200
#define MAX_UNREAPED 16

PG_FUNCTION_INFO_V1(bc_sql_inspect);
PG_FUNCTION_INFO_V1(bc_sql_check_host);

/* Waits for the RESULT; its payload stays in the channel. */
static void
await_result(BcChannel *channel)
{
	static uint32 wait_event = 0;
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CALL_TIMEOUT_MS);

	for (;;)
	{
		bool		written = bc_channel_flush(channel);
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
		BcFrame		frame;

		switch (bc_channel_receive(channel, &frame, true))
		{
			case BC_CHANNEL_MESSAGE:
				if (frame.type == BC_FRAME_RESULT)
					return;
				continue;
			case BC_CHANNEL_CLOSED:
				ereport(ERROR,
						(errcode(ERRCODE_SYSTEM_ERROR),
						 errmsg("boocoder-runner ended without a result"),
						 channel->error ? errdetail("It sent a %s.", channel->error) : 0,
						 errhint("See the server's log.")));
			case BC_CHANNEL_AGAIN:
				break;
		}
		if (left <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYSTEM_ERROR),
					 errmsg("boocoder-runner did not answer within %d seconds",
							CALL_TIMEOUT_MS / 1000)));
		(void) WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH |
								 WL_SOCKET_READABLE | (written ? 0 : WL_SOCKET_WRITEABLE),
								 channel->fd, left,
								 bc_wait_event(wait_event, "BoocoderRunnerCall"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Runners that are not ours to kill: a launch prefix led to another user.  The next call looks again. */
static pid_t unreaped[MAX_UNREAPED];
static int	nunreaped;

static void
reap_earlier(void)
{
	int			left = 0;
	int			status;

	for (int i = 0; i < nunreaped; i++)
		if (!bc_process_reap(unreaped[i], &status))
			unreaped[left++] = unreaped[i];
	nunreaped = left;
}

static bool
reaped_soon(pid_t pid)
{
	int			status;

	for (int i = 0; i < REAP_TRIES; i++)
	{
		if (bc_process_reap(pid, &status))
			return true;
		pg_usleep(i < 10 ? 200 : 5000);
	}
	return false;
}

/*
 * The runner ends when its socket closes; if not, or if there is no time, it
 * is asked to, so that it ends what it started first, and then made to.
 */
static void
end_runner(pid_t pid, bool hurry)
{
	int			status;

	if (!hurry && reaped_soon(pid))
		return;
	if (kill(pid, SIGTERM) == 0)
	{
		if (reaped_soon(pid))
			return;
		(void) kill(pid, SIGKILL);
		while (!bc_process_reap(pid, &status))
			pg_usleep(200);
	}
	else if (!bc_process_reap(pid, &status) && nunreaped < MAX_UNREAPED)
		unreaped[nunreaped++] = pid;
}

typedef struct Call
{
	pid_t		pid;
	BcChannel	channel;
} Call;

static void
break_off(int code, Datum arg)
{
	Call	   *call = (Call *) DatumGetPointer(arg);

	bc_channel_close(&call->channel);
	ReleaseExternalFD();
	end_runner(call->pid, true);
}

static Datum
call_runner(char *const *prefix, const char *order)
{
	Call		call;
	int			fd;
	Datum		result = (Datum) 0;

	reap_earlier();
	call.pid = bc_process_start(prefix, NULL, &fd);
	if (call.pid < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not start boocoder-runner: %m"),
				 errhint("Check that boocoder-runner is installed beside the library.")));
	ReserveExternalFD();
	bc_channel_open(&call.channel, fd);
	/* also when the backend is terminated */
	PG_ENSURE_ERROR_CLEANUP(break_off, PointerGetDatum(&call));
	{
		bc_channel_send(&call.channel, BC_FRAME_ORDER, 1, order, strlen(order));
		await_result(&call.channel);
		result = DirectFunctionCall1(jsonb_in, CStringGetDatum(call.channel.message.data));
	}
	PG_END_ENSURE_ERROR_CLEANUP(break_off, PointerGetDatum(&call));
	bc_channel_close(&call.channel);
	ReleaseExternalFD();
	end_runner(call.pid, false);
	return result;
}

/* Starts an order with what every order of this file has. */
static void
begin_order(StringInfo json, const char *role, const char *root)
{
	initStringInfo(json);
	appendStringInfo(json, "{\"role\":\"%s\",\"root\":", role);
	escape_json(json, root[0] != '\0' ? root : bc_host_worktree_root());
	appendStringInfoString(json, ",\"forbidden\":");
	bc_host_forbidden(json);
}

/* The elements of a text[], ending in NULL; NULL when there are none. */
static char **
strings_of(ArrayType *array)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	char	  **strings;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	if (n == 0)
		return NULL;
	strings = palloc((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		strings[i] = nulls[i] ? pstrdup("") : TextDatumGetCString(elements[i]);
	strings[n] = NULL;
	return strings;
}

/*
 * boocoder._inspect(path, prefix, root, drift): what is at that path, as the
 * user sees it that the runner runs as; compared with what the database knows.
 */
Datum
bc_sql_inspect(PG_FUNCTION_ARGS)
{
	StringInfoData json;
	/* objects of earlier versions have less */
	char	  **prefix = PG_NARGS() > 1 ? strings_of(PG_GETARG_ARRAYTYPE_P(1)) : NULL;
	char	   *root = PG_NARGS() > 2 ? text_to_cstring(PG_GETARG_TEXT_PP(2)) : "";

	begin_order(&json, "inspect", root);
	appendStringInfoString(&json, ",\"path\":");
	escape_json(&json, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (PG_NARGS() > 3)
	{
		Jsonb	   *drift = PG_GETARG_JSONB_P(3);

		appendStringInfoString(&json, ",\"drift\":");
		(void) JsonbToCString(&json, &drift->root, VARSIZE(drift));
	}
	appendStringInfoChar(&json, '}');
	return call_runner(prefix, json.data);
}

/* boocoder._check_host(): do the sandbox and the worktree root work? */
Datum
bc_sql_check_host(PG_FUNCTION_ARGS)
{
	StringInfoData json;

	begin_order(&json, "check", "");
	appendStringInfoString(&json, ",\"abstract_sockets\":");
	bc_host_abstract_sockets(&json);
	appendStringInfoString(&json, ",\"sandbox\":");
	bc_host_sandbox(&json);
	appendStringInfoChar(&json, '}');
	return call_runner(NULL, json.data);
}
