/* SPDX-License-Identifier: PostgreSQL */
/*
 * runners.c
 *	  The pool of runner processes.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "access/xact.h"
#include "extension/host.h"
#include "extension/jobs.h"
#include "extension/process.h"
#include "extension/runners.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Bytes read from one runner before the others have their turn */
#define FAIR_SHARE (512 * 1024)
/* After a spare that could not be started or did not live */
#define SPARE_RETRY_MS 1000
/* A runner that has just been given an order has the processors to itself, until it has started its agent */
#define REFILL_MS 20
#define STARTS_PER_CALL 2
/* The wait set, and what the server may want besides */
#define OTHER_FDS 2
/* A runner that was closed and is still there is killed */
#define HANGS_MS 30000
/* How long the end of the process waits for its children */
#define END_MS 2000
#define END_STEP_MS 5

static dlist_head runners;
static int	nrunners;
static int	nspares;
static uint64 version;
static uint64 last_turn;
static TimestampTz next_spare;	/* none is started before */

/* Those that have been closed but not reaped, and since when; 0: it was killed, too */
typedef struct Ended
{
	pid_t		pid;
	TimestampTz since;
} Ended;

static Ended *ended;
static int	nended;
static int	max_ended;

/*
 * At the end of the process.  No child is to outlive it: the postmaster may be
 * process 1 of a container, and takes a stranger that is killed for a backend
 * that crashed.
 */
static void
end_all(int code, Datum arg)
{
	dlist_iter	iter;

	/* Nobody is to wait meanwhile for what a transaction that is broken off has locked. */
	AbortOutOfAnyTransaction();
	dlist_foreach(iter, &runners)
	{
		BcRunner   *runner = dlist_container(BcRunner, node, iter.cur);

		(void) shutdown(runner->channel.fd, SHUT_RDWR);
	}
	for (int waited = 0; waited < END_MS; waited += END_STEP_MS)
	{
		pid_t		pid;

		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0 && errno == ECHILD)
			return;
		pg_usleep(END_STEP_MS * 1000L);
	}
}

void
bc_runners_init(void)
{
	dlist_init(&runners);
	/* What a runner leaves when it is killed becomes ours. */
	(void) prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	before_shmem_exit(end_all, (Datum) 0);
	max_ended = 16;
	ended = MemoryContextAlloc(TopMemoryContext, max_ended * sizeof(Ended));
}

static BcRunner *
start(char *const *prefix)
{
	MemoryContext context;
	MemoryContext old;
	BcRunner   *runner;
	pid_t		pid;
	int			fd;

	if (!AcquireExternalFD())
		return NULL;			/* errno is set */
	pid = bc_process_start(prefix, bc_host_origin(), &fd);
	if (pid < 0)
	{
		int			error = errno;

		ReleaseExternalFD();
		errno = error;
		return NULL;
	}
	context = AllocSetContextCreate(TopMemoryContext, "boocoder runner", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	runner = palloc0(sizeof(BcRunner));
	runner->pid = pid;
	runner->context = context;
	bc_channel_open(&runner->channel, fd);
	MemoryContextSwitchTo(old);
	dlist_push_tail(&runners, &runner->node);
	nrunners++;
	nspares++;
	version++;
	return runner;
}

TimestampTz
bc_runners_fill(int wanted, TimestampTz now)
{
	for (int i = 0; i < STARTS_PER_CALL && nspares < wanted && now >= next_spare; i++)
	{
		if (start(NULL) == NULL)
		{
			ereport(LOG,
					(errmsg("boocoder could not start a runner: %m"),
					 errhint("Check that boocoder-runner is installed beside the library.")));
			next_spare = TimestampTzPlusMilliseconds(now, SPARE_RETRY_MS);
		}
	}
	return nspares < wanted ? Max(next_spare, now) : 0;
}

BcRunner *
bc_runners_order(const BcRunnerOwner *owner, void *owner_data, char *const *prefix,
				 const char *order)
{
	BcRunner   *runner = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &runners)
	{
		BcRunner   *candidate = dlist_container(BcRunner, node, iter.cur);

		if (candidate->turn == 0 && prefix == NULL)
		{
			runner = candidate;
			break;
		}
	}
	if (runner == NULL)
		runner = start(prefix);
	else
	{
		TimestampTz now = GetCurrentTimestamp();

		if (next_spare <= now)
			next_spare = TimestampTzPlusMilliseconds(now, REFILL_MS);
	}
	if (runner == NULL)
		return NULL;
	nspares--;
	bc_runners_order_again(runner, owner, owner_data, order);
	return runner;
}

void
bc_runners_order_again(BcRunner *runner, const BcRunnerOwner *owner, void *owner_data,
					   const char *order)
{
	bc_runners_hand_over(runner, owner, owner_data);
	runner->kept = false;
	runner->turn = ++last_turn;
	bc_runners_send(runner, BC_FRAME_ORDER, order);
}

void
bc_runners_hand_over(BcRunner *runner, const BcRunnerOwner *owner, void *owner_data)
{
	runner->owner = owner;
	runner->owner_data = owner_data;
}

void
bc_runners_send(BcRunner *runner, BcFrameType type, const char *payload)
{
	bc_channel_send(&runner->channel, type, runner->turn, payload, strlen(payload));
	(void) bc_channel_flush(&runner->channel);
}

void
bc_runners_retire(BcRunner *runner)
{
	runner->owner = NULL;
	runner->retired = true;
}

char *
bc_runners_made_up(bool ok, const char *outcome, const char *reason, const char *message)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"ok\":%s,", ok ? "true" : "false");
	if (outcome != NULL)
		appendStringInfo(&json, "\"outcome\":\"%s\",", outcome);
	appendStringInfo(&json, "\"reason\":\"%s\",\"message\":", reason);
	escape_json(&json, message);
	appendStringInfoChar(&json, '}');
	return json.data;
}

void
bc_runners_close(BcRunner *runner)
{
	if (nended == max_ended)
	{
		max_ended *= 2;
		ended = repalloc(ended, max_ended * sizeof(Ended));
	}
	if (runner->pid > 0)
	{
		ended[nended].pid = runner->pid;
		ended[nended++].since = GetCurrentTimestamp();
	}
	if (runner->turn == 0)
		nspares--;
	nrunners--;
	version++;
	dlist_delete(&runner->node);
	bc_channel_close(&runner->channel);
	ReleaseExternalFD();
	MemoryContextDelete(runner->context);
}

void
bc_runners_kill(BcRunner *runner)
{
	/* While it is not reaped the pid can't be anybody else's. */
	if (runner->pid > 0)
		(void) kill(runner->pid, SIGKILL);
	/* What a launch prefix started may be out of reach; the end of its input is not. */
	(void) shutdown(runner->channel.fd, SHUT_RDWR);
}

static void
runner_gone(BcRunner *runner)
{
	const BcRunnerOwner *owner = runner->owner;

	if (owner != NULL)
	{
		char	   *why = pstrdup(runner->channel.error != NULL ? runner->channel.error :
								  "its connection closed");

		owner->gone(runner->owner_data, runner, why);
	}
	else
		next_spare = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SPARE_RETRY_MS);
	bc_runners_close(runner);
}

void
bc_runners_read(BcRunner *runner)
{
	int			bytes = 0;

	for (;;)
	{
		BcFrame		frame;

		switch (bc_channel_receive(&runner->channel, &frame, bytes < FAIR_SHARE))
		{
			case BC_CHANNEL_AGAIN:
				return;
			case BC_CHANNEL_CLOSED:
				runner_gone(runner);
				return;
			case BC_CHANNEL_MESSAGE:
				bytes += runner->channel.message.len + BC_FRAME_HEADER;
				if (frame.type == BC_FRAME_HELLO)
					break;
				if (runner->owner == NULL || frame.turn != runner->turn)
				{
					runner->channel.error = "message of another turn";
					runner_gone(runner);
					return;
				}
				runner->kept = (frame.flags & BC_FRAME_KEPT) != 0;
				runner->owner->message(runner->owner_data, runner, frame.type,
									   &runner->channel.message);
				if (runner->retired)
				{
					bc_runners_close(runner);
					return;
				}
				break;
		}
	}
}

/* A child of ours is gone; or one that a runner left when it was killed. */
static void
reaped(pid_t pid)
{
	dlist_iter	iter;

	for (int i = 0; i < nended; i++)
	{
		if (ended[i].pid == pid)
		{
			ended[i] = ended[--nended];
			return;
		}
	}
	/* Its connection says the rest. */
	dlist_foreach(iter, &runners)
	{
		BcRunner   *runner = dlist_container(BcRunner, node, iter.cur);

		if (runner->pid == pid)
			runner->pid = 0;
	}
}

bool
bc_runners_reap(void)
{
	pid_t		pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		reaped(pid);
	/* none at all, so whatever is in the list is nobody */
	if (pid < 0 && errno == ECHILD)
		nended = 0;
	for (int i = 0; i < nended; i++)
	{
		if (ended[i].since != 0 && TimestampDifferenceExceeds(ended[i].since, GetCurrentTimestamp(), HANGS_MS))
		{
			(void) kill(ended[i].pid, SIGKILL);
			ended[i].since = 0;
		}
	}
	return nended > 0;
}

bool
bc_runners_ending(pid_t pid)
{
	for (int i = 0; i < nended; i++)
		if (ended[i].pid == pid)
			return true;
	return false;
}

dlist_head *
bc_runners_all(void)
{
	return &runners;
}

int
bc_runners_count(void)
{
	return nrunners;
}

int
bc_runners_limit(void)
{
	/* A third of the server's descriptors is for what it does not open as files; some of that is not for tasks. */
	return Max(max_safe_fds / 3 - BC_MAX_JOBS - OTHER_FDS, 1);
}

int
bc_runners_room(void)
{
	return bc_runners_limit() - nrunners + nspares;
}

int
bc_runners_spare_count(void)
{
	return nspares;
}

uint64
bc_runners_version(void)
{
	return version;
}
