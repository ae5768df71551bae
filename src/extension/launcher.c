/* SPDX-License-Identifier: PostgreSQL */
/*
 * launcher.c
 *	  Finds the databases with the extension and keeps one dispatcher in each.
 *
 * Only a connection to a database can tell whether the extension is in it, so
 * the launcher, which is connected to none, starts a dispatcher in every
 * database it has not heard of; that one looks, and leaves if there is nothing
 * to serve.  From then on commits that change pg_extension say when to look
 * again (hooks.c).  The loop compares what is with what should be, so a lost
 * message only costs time, and it runs no query while nothing changes.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "extension/compat.h"
#include "extension/dispatcher.h"
#include "extension/launcher.h"
#include "extension/shmem.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A registered worker that has not shown up by then did not start. */
#define START_TIMEOUT_MS 10000
#define BACKOFF_MIN_MS 500
#define BACKOFF_MAX_MS 60000
/* Probes of databases that may have nothing to serve, at the same time */
#define MAX_STARTING 3

/* Databases without the extension whose slots were given to others; hooks.c gets them one when it comes. */
static List *absent = NIL;

/* Are there databases that wait for a slot to be looked into? */
static bool crowded = false;

void
bc_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished; /* never on a standby */
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "boocoder", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "bc_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "boocoder launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "boocoder launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static void
at_exit(int code, Datum arg)
{
	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	bc_shared->launcher_latch = NULL;
	LWLockRelease(bc_shared->lock);
}

/* The databases a dispatcher could serve, as a list of OIDs in the caller's context. */
static List *
connectable_databases(Oid role)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *result = NIL;
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;

	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn && !form->datistemplate && bc_may_connect(form->oid, role))
		{
			MemoryContext old = MemoryContextSwitchTo(caller);

			result = lappend_oid(result, form->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	return result;
}

/*
 * A slot for a database that nobody has looked into.  False when all slots
 * are in use: the next one that turns out to be for nothing is taken.
 */
static bool
give_slot(Oid database)
{
	Oid			given_up;
	MemoryContext old;

	if (bc_shmem_find(database, false) != NULL || list_member_oid(absent, database) ||
		bc_shmem_find(database, true) != NULL)
		return true;
	if (bc_shmem_recycle(database, &given_up) == NULL)
		return false;
	old = MemoryContextSwitchTo(TopMemoryContext);
	absent = lappend_oid(absent, given_up);
	MemoryContextSwitchTo(old);
	return true;
}

/* Forgets what it knows of databases that are not there, or closed, now. */
static void
forget_absent(const List *databases)
{
	ListCell   *cell;

	foreach(cell, absent)
	{
		if (!list_member_oid(databases, lfirst_oid(cell)))
			absent = foreach_delete_current(absent, cell);
	}
}

/*
 * Makes the slots match pg_database.  Returns the role of the dispatchers;
 * without that role no database has the extension.
 */
static Oid
scan_databases(void)
{
	List	   *databases = NIL;
	ListCell   *cell;
	Oid			role;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	pgstat_report_activity(STATE_RUNNING, "looking for databases");
	role = get_role_oid(BC_WORKER_ROLE, true);
	if (OidIsValid(role))
		databases = connectable_databases(role);

	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < bc_shared->ndatabases; i++)
	{
		BcDatabase *db = &bc_shared->databases[i];

		if (OidIsValid(db->oid) && db->pid == 0 && db->holds == 0 &&
			!list_member_oid(databases, db->oid))
			db->oid = InvalidOid;
	}
	forget_absent(bc_shared->look_again ? NIL : databases);
	bc_shared->look_again = false;
	crowded = false;
	foreach(cell, databases)
		crowded |= !give_slot(lfirst_oid(cell));
	LWLockRelease(bc_shared->lock);

	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
	return role;
}

static bool
start_dispatcher(Oid database, Oid role)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;	/* the launcher does it */
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	memcpy(worker.bgw_extra, &role, sizeof(role));
	strlcpy(worker.bgw_library_name, "boocoder", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "bc_dispatcher_main", sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, BGW_MAXLEN, "boocoder dispatcher for database %u", database);
	strlcpy(worker.bgw_type, "boocoder dispatcher", BGW_MAXLEN);
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/* A dispatcher that ended or never came is to be started again; later each time. */
static void
back_off(BcDatabase *db, TimestampTz now)
{
	int			delay = BACKOFF_MIN_MS << Min(db->failures, 7);

	db->failures++;
	db->state = BC_DB_PROBE;
	db->next_start = TimestampTzPlusMilliseconds(now, Min(delay, BACKOFF_MAX_MS));
}

/*
 * One pass over the slots: starts what is due.  Returns the milliseconds until
 * something is due again, -1 when nothing is.
 */
static long
start_due(Oid role)
{
	static bool complained = false;
	long		wait = -1;
	int			starting = 0;
	int			index;

	for (index = 0; index < bc_shared->ndatabases; index++)
	{
		BcDatabase *db = &bc_shared->databases[index];
		TimestampTz now = GetCurrentTimestamp();
		Oid			to_start = InvalidOid;

		LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
		if (OidIsValid(db->oid) && db->pid == 0)
		{
			if (db->state == BC_DB_RUNNING)
				back_off(db, now);
			else if (db->state == BC_DB_STARTING && now >= db->next_start)
				back_off(db, now);
			if (db->state == BC_DB_PROBE && db->holds == 0 && now >= db->next_start &&
				starting < MAX_STARTING)
			{
				to_start = db->oid;
				db->state = BC_DB_STARTING;
				db->next_start = TimestampTzPlusMilliseconds(now, START_TIMEOUT_MS);
			}
			if (db->state == BC_DB_STARTING)
				starting++;
			/* one that is due already waits for those that start: they wake us */
			if (db->state == BC_DB_STARTING ||
				(db->state == BC_DB_PROBE && db->holds == 0 && now < db->next_start))
			{
				long		left = TimestampDifferenceMilliseconds(now, db->next_start);

				wait = wait < 0 ? left : Min(wait, left);
			}
		}
		LWLockRelease(bc_shared->lock);

		if (!OidIsValid(to_start))
			continue;
		if (start_dispatcher(to_start, role))
			complained = false;
		else
		{
			if (!complained)
				ereport(WARNING,
						(errmsg("boocoder could not start a dispatcher for database %u", to_start),
						 errhint("Increase max_worker_processes.")));
			complained = true;
			LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
			if (db->oid == to_start)
			{
				back_off(db, now);
				strlcpy(db->last_error, "no free background worker slot",
						sizeof(db->last_error));
			}
			LWLockRelease(bc_shared->lock);
			if (wait < 0 || wait > 1000)
				wait = 1000;
		}
	}
	return wait;
}

void
bc_launcher_main(Datum arg)
{
	static uint32 wait_event = 0;
	Oid			role = InvalidOid;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	before_shmem_exit(at_exit, (Datum) 0);
	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	bc_shared->launcher_latch = MyLatch;
	bc_shared->rescan = true;
	LWLockRelease(bc_shared->lock);

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname("boocoder launcher");

	for (;;)
	{
		MemoryContext scratch = AllocSetContextCreate(TopMemoryContext, "boocoder launcher",
													  ALLOCSET_DEFAULT_SIZES);
		MemoryContext old = MemoryContextSwitchTo(scratch);
		bool		rescan;
		long		wait;

		LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
		rescan = bc_shared->rescan;
		bc_shared->rescan = false;
		LWLockRelease(bc_shared->lock);

		/* Without the role nothing can be served; CREATE EXTENSION wakes us. */
		if (rescan || crowded || !OidIsValid(role))
			role = scan_databases();
		wait = OidIsValid(role) ? start_due(role) : -1;
		MemoryContextSwitchTo(old);
		MemoryContextDelete(scratch);

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (wait >= 0 ? WL_TIMEOUT : 0),
						 wait, bc_wait_event(wait_event, "BoocoderLauncherMain"));
		ResetLatch(MyLatch);
		bc_serve_interrupts();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}
