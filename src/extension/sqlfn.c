/* SPDX-License-Identifier: PostgreSQL */
/*
 * sqlfn.c
 *	  SQL-callable functions that reach the shared state: waking the
 *	  dispatcher, waiting for it, and seeing how it does.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "extension/compat.h"
#include "extension/hooks.h"
#include "extension/shmem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Without the preload there is nobody to wait for; callers poll at this pace. */
#define UNATTENDED_WAIT_MS 100

PG_FUNCTION_INFO_V1(bc_sql_wake);
PG_FUNCTION_INFO_V1(bc_sql_wake_now);
PG_FUNCTION_INFO_V1(bc_sql_preloaded);
PG_FUNCTION_INFO_V1(bc_sql_change_generation);
PG_FUNCTION_INFO_V1(bc_sql_wait_change);
PG_FUNCTION_INFO_V1(bc_sql_worker_status);

/* boocoder._wake(): trigger; at commit the dispatcher looks for tasks. */
Datum
bc_sql_wake(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("boocoder._wake() can only be called as a trigger")));
	bc_wake_at_commit(BC_WORK_TASKS);
	return PointerGetDatum(NULL);
}

/* boocoder._wake_now(): at commit the dispatcher looks for anything. */
Datum
bc_sql_wake_now(PG_FUNCTION_ARGS)
{
	bc_wake_at_commit(BC_WORK_TASKS | BC_WORK_REQUESTS);
	PG_RETURN_VOID();
}

/* boocoder._preloaded(): is the library in shared_preload_libraries? */
Datum
bc_sql_preloaded(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(bc_shared != NULL);
}

/* boocoder._change_generation(): grows whenever the dispatcher commits. */
Datum
bc_sql_change_generation(PG_FUNCTION_ARGS)
{
	BcDatabase *db = bc_shmem_my_database();

	PG_RETURN_INT64(db == NULL ? 0 : (int64) pg_atomic_read_u64(&db->generation));
}

/*
 * boocoder._wait_change(generation, timeout_ms): waits until the generation is
 * another one, and tells whether it is.
 */
Datum
bc_sql_wait_change(PG_FUNCTION_ARGS)
{
	static uint32 wait_event = 0;
	int64		generation = PG_GETARG_INT64(0);
	int32		timeout_ms = Max(PG_GETARG_INT32(1), 0);
	BcDatabase *db = bc_shmem_my_database();
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	bool		changed = true;

	if (db == NULL)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(timeout_ms, UNATTENDED_WAIT_MS),
						 bc_wait_event(wait_event, "BoocoderWaitChange"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		PG_RETURN_BOOL(true);
	}

	ConditionVariablePrepareToSleep(&db->changed);
	while ((int64) pg_atomic_read_u64(&db->generation) == generation)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		if (left <= 0 ||
			ConditionVariableTimedSleep(&db->changed, left,
										bc_wait_event(wait_event, "BoocoderWaitChange")))
		{
			changed = (int64) pg_atomic_read_u64(&db->generation) != generation;
			break;
		}
	}
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(changed);
}

/* boocoder._worker_status(): what the dispatcher of this database told of itself. */
Datum
bc_sql_worker_status(PG_FUNCTION_ARGS)
{
	enum
	{
		PID, STARTED, TURNS, JOBS, SPARES, EVENTS, LAST_ERROR, NCOLUMNS
	};
	TupleDesc	tupdesc;
	Datum		values[NCOLUMNS] = {0};
	bool		nulls[NCOLUMNS] = {false};
	BcDatabase *db = bc_shmem_my_database();

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (db == NULL)
		memset(nulls, true, sizeof(nulls));
	else
	{
		BcDatabase	copy;

		LWLockAcquire(bc_shared->lock, LW_SHARED);
		memcpy(&copy, db, sizeof(copy));
		LWLockRelease(bc_shared->lock);
		values[PID] = Int32GetDatum((int32) copy.pid);
		nulls[PID] = copy.pid == 0;
		values[STARTED] = TimestampTzGetDatum(copy.started_at);
		nulls[STARTED] = copy.pid == 0;
		values[TURNS] = Int32GetDatum(copy.turns);
		values[JOBS] = Int32GetDatum(copy.jobs);
		values[SPARES] = Int32GetDatum(copy.spares);
		values[EVENTS] = Int64GetDatum((int64) copy.events);
		nulls[LAST_ERROR] = copy.last_error[0] == '\0';
		if (!nulls[LAST_ERROR])
			values[LAST_ERROR] = CStringGetTextDatum(copy.last_error);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
