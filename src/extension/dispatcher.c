/* SPDX-License-Identifier: PostgreSQL */
/*
 * dispatcher.c
 *	  The event loop of the worker that serves one database.
 *
 * It waits for its latch (commits, signals) and for its runners, asks the
 * database what to do next, and writes back what the runners sent.  It holds
 * no transaction while it waits, and waits for nothing else.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "access/xact.h"
#include "extension/backends.h"
#include "extension/compat.h"
#include "extension/db.h"
#include "extension/dispatcher.h"
#include "extension/guc.h"
#include "extension/jobs.h"
#include "extension/leftovers.h"
#include "extension/runners.h"
#include "extension/servers.h"
#include "extension/shmem.h"
#include "extension/sink.h"
#include "extension/tasks.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define AFTER_FAILURE_MS 1000
#define MAX_WAIT_EVENTS 64

static BcDatabase *slot;

/* Waiting */
static WaitEventSet *wait_set;
static uint64 wait_set_version;
static bool wait_set_reads;

/* When to ask the database next: the poll, or earlier when a task is due */
static TimestampTz next_poll;

static void
at_exit(int code, Datum arg)
{
	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	slot->pid = 0;
	slot->latch = NULL;
	slot->turns = slot->jobs = slot->spares = 0;
	bc_shmem_wake_launcher();
	LWLockRelease(bc_shared->lock);
}

/* Takes the database's slot; false when there is nothing to take. */
static bool
take_slot(Oid database)
{
	bool		taken = false;

	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	slot = bc_shmem_find(database, false);
	if (slot != NULL && slot->pid == 0 && slot->holds == 0)
	{
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		slot->recheck = false;
		slot->started_at = GetCurrentTimestamp();
		bc_shmem_wake_launcher();
		taken = true;
	}
	else if (slot != NULL && slot->pid == 0)
	{
		/* Who holds the database is not to wait for us. */
		slot->state = BC_DB_PROBE;
		slot->next_start = 0;
	}
	LWLockRelease(bc_shared->lock);
	return taken;
}

/* Leaves for good, or until pg_extension changes: there is nothing to serve. */
static void
leave_absent(void)
{
	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	slot->state = slot->recheck ? BC_DB_PROBE : BC_DB_ABSENT;
	slot->next_start = 0;
	slot->failures = 0;
	LWLockRelease(bc_shared->lock);
	proc_exit(0);
}

/* Somebody needs the database without us; the launcher comes back to it. */
static void
leave_if_held(void)
{
	bool		held;

	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	held = slot->holds > 0;
	if (held)
	{
		slot->state = BC_DB_PROBE;
		slot->next_start = 0;
		slot->failures = 0;
	}
	LWLockRelease(bc_shared->lock);
	if (held)
		proc_exit(0);
}

static void
note_failure(const char *message)
{
	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	strlcpy(slot->last_error, message, sizeof(slot->last_error));
	LWLockRelease(bc_shared->lock);
}

static void
publish_status(void)
{
	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	slot->turns = bc_tasks_count();
	slot->jobs = bc_jobs_count();
	slot->spares = bc_runners_spare_count();
	slot->events = bc_sink_last_seq();
	slot->failures = 0;
	LWLockRelease(bc_shared->lock);
}

/* Those who wait for a change look again. */
static void
announce_commit(void)
{
	pg_atomic_fetch_add_u64(&slot->generation, 1);
	ConditionVariableBroadcast(&slot->changed);
}

static void
setting(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_USERSET, PGC_S_OVERRIDE);
}

static void
connect_database(Oid database)
{
	Oid			role;

	memcpy(&role, MyBgworkerEntry->bgw_extra, sizeof(role));
	BackgroundWorkerInitializeConnectionByOid(database, role, 0);
	pgstat_report_appname("boocoder dispatcher");

	/* Whatever the database or the role is set to: what we rely on. */
	setting("search_path", "pg_catalog, pg_temp");
	setting("default_transaction_read_only", "off");
	setting("default_transaction_isolation", "read committed");
	setting("statement_timeout", "0");
	setting("idle_in_transaction_session_timeout", "0");
#ifdef BC_HAS_TRANSACTION_TIMEOUT
	setting("transaction_timeout", "0");
#endif
	setting("lock_timeout", "50ms");
	setting("client_min_messages", "error");
	setting("row_security", "on");
	setting("standard_conforming_strings", "on");

	/*
	 * Every query of ours is a short walk of an index.  Plans are kept, and one
	 * that was made while a table was empty would read all of it when it is
	 * full; such forced plans look so costly that they would be compiled.
	 */
	setting("enable_seqscan", "off");
	setting("enable_bitmapscan", "off");
	setting("enable_sort", "off");
	setting("plan_cache_mode", "force_generic_plan");
	setting("jit", "off");
}

static void
rebuild_wait_set(void)
{
	dlist_iter	iter;

	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = bc_create_wait_event_set(bc_runners_count() + 2);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	dlist_foreach(iter, bc_runners_all())
	{
		BcRunner   *runner = dlist_container(BcRunner, node, iter.cur);

		if (runner->interest != 0)
			AddWaitEventToSet(wait_set, runner->interest, runner->channel.fd, NULL, runner);
	}
	wait_set_version = bc_runners_version();
}

/*
 * Makes the wait set say what we want: read from every runner, but not while
 * the database does not take what was read, so that a full pipe slows down the
 * agent instead of filling our memory.
 */
static void
update_wait_set(void)
{
	bool		stale = wait_set == NULL || wait_set_version != bc_runners_version();
	uint32		reads = bc_sink_full() ? 0 : WL_SOCKET_READABLE;
	dlist_iter	iter;

	dlist_foreach(iter, bc_runners_all())
	{
		BcRunner   *runner = dlist_container(BcRunner, node, iter.cur);
		uint32		interest = reads | (runner->channel.out.len > 0 ? WL_SOCKET_WRITEABLE : 0);

		if (runner->interest != interest)
		{
			runner->interest = interest;
			stale = true;
		}
	}
	wait_set_reads = reads != 0;
	if (stale)
		rebuild_wait_set();
}

static long
wait_time(TimestampTz now, const TimestampTz *times, int n)
{
	TimestampTz earliest = next_poll;

	for (int i = 0; i < n; i++)
		if (times[i] != 0 && times[i] < earliest)
			earliest = times[i];
	return TimestampDifferenceMilliseconds(now, earliest);
}

/* Waits, and serves the runners that have something for us. */
static void
wait_and_serve(long timeout_ms)
{
	static uint32 wait_event = 0;
	WaitEvent	events[MAX_WAIT_EVENTS];
	int			n;

	update_wait_set();
	n = WaitEventSetWait(wait_set, timeout_ms, events, lengthof(events),
						 bc_wait_event(wait_event, "BoocoderDispatcherMain"));
	ResetLatch(MyLatch);
	bc_serve_interrupts();
	for (int i = 0; i < n; i++)
	{
		dlist_iter	iter;

		if (!(events[i].events & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)))
			continue;
		/* Serving one runner may have closed another: is this one still there? */
		dlist_foreach(iter, bc_runners_all())
		{
			BcRunner   *runner = dlist_container(BcRunner, node, iter.cur);

			if (runner != events[i].user_data)
				continue;
			if (events[i].events & WL_SOCKET_WRITEABLE)
				(void) bc_channel_flush(&runner->channel);
			if (wait_set_reads && (events[i].events & WL_SOCKET_READABLE))
				bc_runners_read(runner);
			break;
		}
	}
}

/* How many tasks may be begun?  Each needs a runner, and each runner a descriptor of ours. */
static int
free_slots(void)
{
	return Max(Min(bc_max_running - bc_tasks_count(), bc_runners_room()), 0);
}

/* Asks the database what to do, or only for a task, and begins to do it. */
static void
next_actions(TimestampTz now, bool everything)
{
	List	   *actions;
	ListCell   *cell;

	if (everything)
		next_poll = TimestampTzPlusMilliseconds(now, bc_poll_interval_ms);
	switch (bc_db_next_actions(free_slots(),
							   BC_MAX_JOBS - bc_jobs_count(), everything, &actions))
	{
		case BC_DB_OK:
			break;
		case BC_DB_BUSY:
			next_poll = TimestampTzPlusMilliseconds(now, Min(bc_poll_interval_ms, 100));
			return;
		case BC_DB_FAILED:
			/* Is it that the extension is gone?  Then the loop finds out. */
			note_failure(bc_db_error());
			pg_atomic_fetch_or_u32(&slot->work, BC_WORK_RECHECK);
			next_poll = TimestampTzPlusMilliseconds(now, AFTER_FAILURE_MS);
			return;
	}
	if (actions != NIL)
		announce_commit();
	foreach(cell, actions)
	{
		const BcDbAction *action = lfirst(cell);

		switch (action->kind)
		{
			case BC_DO_TASK:
				bc_tasks_start(action);
				next_poll = now;	/* there may be more, and more than tasks */
				break;
			case BC_DO_CANCEL:
				bc_tasks_cancel(action->task_id, action->fence);
				break;
			case BC_DO_ANSWER:
				bc_tasks_answer(action->task_id, action->fence, action->prepare);
				break;
			case BC_DO_BLOCK:
			case BC_DO_UNBLOCK:
				bc_tasks_block(action->task_id, action->fence, action->kind == BC_DO_BLOCK);
				break;
			case BC_DO_EVICT:
				bc_backends_evict(action->backend);
				break;
			case BC_DO_END_SERVER:
				bc_servers_end(action->server);
				break;
			case BC_DO_JOB:
				bc_jobs_start(action);
				break;
			case BC_DO_WAIT:
				next_poll = Min(next_poll, TimestampTzPlusMilliseconds(now, action->delay_ms));
				break;
		}
	}
}

static void
flush_events(TimestampTz now)
{
	int64		task_id;

	if (bc_sink_due() != 0 && (bc_sink_due() <= now || bc_sink_full()))
	{
		(void) bc_sink_flush(now);
		announce_commit();
	}
	while ((task_id = bc_sink_refused()) != 0)
	{
		const char *error = bc_sink_take_refusal(task_id);

		note_failure(error);
		bc_tasks_break(task_id, error);
	}
}

/* One pass of the loop. */
static void
serve(Oid extension)
{
	TimestampTz times[7];
	TimestampTz now;
	uint32		work;
	bool		slots_freed;
	bool		everything;

	now = GetCurrentTimestamp();
	flush_events(now);
	times[0] = bc_tasks_tick(now);
	times[1] = bc_jobs_tick(now);
	slots_freed = bc_tasks_ended() + bc_jobs_ended() > 0;
	if (slots_freed)
		announce_commit();

	/*
	 * Inserted tasks are of no interest while no slot is free.  Their bit then
	 * stays, so that the commits that follow do not even wake us.
	 */
	work = pg_atomic_fetch_and_u32(&slot->work,
								   free_slots() > 0 ? 0 : BC_WORK_TASKS);
	if ((work & BC_WORK_RECHECK) && bc_db_extension() != extension)
		leave_absent();
	everything = (work & BC_WORK_REQUESTS) || slots_freed || now >= next_poll;
	if (everything || ((work & BC_WORK_TASKS) && free_slots() > 0))
	{
		next_actions(now, everything);
		times[0] = bc_tasks_tick(now);
		times[1] = bc_jobs_tick(now);
	}

	times[6] = bc_runners_fill(bc_spare_runners, now);
	publish_status();
	leave_if_held();

	times[2] = bc_sink_due();
	times[4] = bc_backends_tick(now);
	times[5] = bc_servers_tick(now);
	times[3] = bc_runners_reap() ? TimestampTzPlusMilliseconds(now, BC_REAP_INTERVAL_MS) : 0;
	wait_and_serve(wait_time(GetCurrentTimestamp(), times, lengthof(times)));
}

/* Waits a moment between two tries to begin; leaves when there is nothing to serve any more. */
static void
pause_before_start(void)
{
	static uint32 wait_event = 0;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 AFTER_FAILURE_MS, bc_wait_event(wait_event, "BoocoderReconcile"));
	ResetLatch(MyLatch);
	bc_serve_interrupts();
	leave_if_held();
	if (!OidIsValid(bc_db_extension()))
		leave_absent();
}

/* The functions we call are those of the extension's objects, which may be older than this library. */
static void
await_version(void)
{
	bool		told = false;

	for (;;)
	{
		char	   *version;
		bool		matches;

		if (bc_db_version(&matches, &version) == BC_DB_OK && matches)
			break;
		if (!told)
		{
			ereport(LOG,
					(errmsg("boocoder %s waits: the objects in this database are of version %s",
							BC_VERSION, version != NULL ? version : "(unknown)"),
					 errhint("Run ALTER EXTENSION boocoder UPDATE in it.")));
			note_failure("the library is of version " BC_VERSION ", the objects in this database are "
						 "not: run ALTER EXTENSION boocoder UPDATE");
		}
		told = true;
		pause_before_start();
	}
	if (told)
		note_failure("");
}

/* Nothing is claimed before the rows of an earlier dispatcher are in order. */
static void
reconcile(void)
{
	while (bc_db_start() != BC_DB_OK)
	{
		note_failure(bc_db_error());
		pause_before_start();
	}
	announce_commit();
}

/*
 * What a flood of events took is given back.  By default the C library raises
 * its thresholds with use and keeps it.
 */
static void
keep_memory_small(void)
{
#ifdef __GLIBC__
	(void) mallopt(M_MMAP_THRESHOLD, 128 * 1024);
	(void) mallopt(M_TRIM_THRESHOLD, 256 * 1024);
#endif
}

/* What lies between pieces that are still in use is given back when a flood is over. */
static void
give_memory_back(void)
{
#ifdef __GLIBC__
	if (bc_tasks_count() == 0 && bc_sink_flood_over())
		(void) malloc_trim(0);
#endif
}

void
bc_dispatcher_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	Oid			extension;
	MemoryContext scratch;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!take_slot(database))
		proc_exit(0);
	before_shmem_exit(at_exit, (Datum) 0);
	connect_database(database);
	keep_memory_small();

	extension = bc_db_extension();
	if (!OidIsValid(extension))
		leave_absent();
	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	slot->state = BC_DB_RUNNING;
	LWLockRelease(bc_shared->lock);
	ereport(LOG, (errmsg("%s started", MyBgworkerEntry->bgw_name)));

	bc_runners_init();
	bc_sink_init();
	bc_tasks_init();
	bc_jobs_init();
	bc_backends_init();
	bc_servers_init();
	scratch = AllocSetContextCreate(TopMemoryContext, "boocoder scratch",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(scratch);
	await_version();
	bc_leftovers_kill();
	(void) bc_runners_fill(bc_spare_runners, GetCurrentTimestamp());
	reconcile();

	for (;;)
	{
		Assert(CurrentMemoryContext == scratch);
		MemoryContextReset(scratch);
		give_memory_back();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		serve(extension);
	}
}
