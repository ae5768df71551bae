/* SPDX-License-Identifier: PostgreSQL */
/*
 * db.c
 *	  The dispatcher's transactions.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "extension/compat.h"
#include "extension/db.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/syncrep.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define MAX_ARGS 5
#define RETRY_MS 50
#define RETRY_FAILED_MS 2000

typedef enum DbQuery
{
	Q_VERSION,
	Q_START,
	Q_NEXT_ACTIONS,
	Q_PREPARED,
	Q_APPEND,
	Q_SETTLE,
	Q_JOB_DONE,
	Q_BACKEND_STARTED,
	Q_BACKEND_ENDED,
	Q_SERVER_TOLD,
	Q_SERVER_ENDED,
	Q_COUNT
} DbQuery;

typedef struct QueryText
{
	const char *sql;
	int			nargs;
	Oid			types[MAX_ARGS];
	bool		async;			/* its commit does not wait until it is on disk */
} QueryText;

static const QueryText queries[Q_COUNT] = {
	[Q_VERSION] = {
		"SELECT e.extversion FROM pg_catalog.pg_extension e "
		"WHERE e.extname OPERATOR(pg_catalog.=) 'boocoder'", 0, {0}
	},
	[Q_START] = {
		"SELECT boocoder._start($1)", 1, {INT4OID}
	},
	[Q_NEXT_ACTIONS] = {
		"SELECT kind, task_id, fence, job_id, prepare, agent, diff, delay_ms, git_prefix, agent_prefix, "
		"backend, server, server_order "
		"FROM boocoder._next_actions($1, $2, $3)", 3, {INT4OID, INT4OID, BOOLOID}, true
	},
	[Q_PREPARED] = {
		"SELECT agent, diff, server, server_order, server_ends FROM boocoder._prepared($1, $2, $3::pg_catalog.jsonb)", 3,
		{INT8OID, INT8OID, TEXTOID}, true
	},
	[Q_APPEND] = {
		"SELECT boocoder._append($1, $2, $3::pg_catalog.jsonb[])", 3,
		{INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID}, true
	},
	[Q_SETTLE] = {
		"SELECT boocoder._settle($1, $2, $3::pg_catalog.jsonb OPERATOR(pg_catalog.||) $4::pg_catalog.jsonb, "
		"$5::pg_catalog.jsonb)", 5,
		{INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID}
	},
	[Q_JOB_DONE] = {
		"SELECT boocoder._job_done($1, $2::pg_catalog.jsonb)", 2, {INT8OID, TEXTOID}
	},
	[Q_BACKEND_STARTED] = {
		"SELECT boocoder._backend_started($1, $2)", 2, {INT8OID, INT4OID}, true
	},
	[Q_BACKEND_ENDED] = {
		"SELECT boocoder._backend_ended($1)", 1, {INT8OID}
	},
	[Q_SERVER_TOLD] = {
		"SELECT boocoder._server_told($1, $2::pg_catalog.jsonb)", 2, {INT8OID, TEXTOID}
	},
	[Q_SERVER_ENDED] = {
		"SELECT boocoder._server_ended($1)", 1, {INT8OID}
	},
};

/* Reads the result set of a query, in SPI's memory; copies what is to stay. */
typedef void (*Reader) (MemoryContext caller, void *result);

static SPIPlanPtr plans[Q_COUNT];
static char last_error[256];

const char *
bc_db_error(void)
{
	return last_error;
}

TimestampTz
bc_db_retry_at(BcDbStatus status)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									   status == BC_DB_BUSY ? RETRY_MS : RETRY_FAILED_MS);
}

static void
execute(DbQuery query, Datum *values, const char *nulls, Reader reader, MemoryContext caller,
		void *result)
{
	int			code;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (queries[query].async)
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, queries[query].sql);

	if (plans[query] == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(queries[query].sql, queries[query].nargs,
									   (Oid *) queries[query].types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\": %s", queries[query].sql,
				 SPI_result_code_string(SPI_result));
		plans[query] = plan;
	}
	code = SPI_execute_plan(plans[query], values, nulls, false, 0);
	if (code != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\": %s", queries[query].sql,
			 SPI_result_code_string(code));
	if (reader != NULL)
		reader(caller, result);

	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
}

static BcDbStatus
classify(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_QUERY_CANCELED:
			return BC_DB_BUSY;
		default:
			return BC_DB_FAILED;
	}
}

/* Runs one query in one transaction; the heart of this file. */
static BcDbStatus
run(DbQuery query, Datum *values, const char *nulls, Reader reader, void *result)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile BcDbStatus status = BC_DB_OK;

	PG_TRY();
	{
		execute(query, values, nulls, reader, caller, result);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		AbortCurrentTransaction();
		FlushErrorState();
		status = classify(error);
		if (status == BC_DB_FAILED)
		{
			strlcpy(last_error, error->message, sizeof(last_error));
			ereport(LOG,
					(errmsg("boocoder: \"%s\" failed: %s", queries[query].sql, error->message),
					 error->context ? errcontext("%s", error->context) : 0));
		}
		FreeErrorData(error);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	/* The end of a transaction leaves another context current, which one depends on the version. */
	MemoryContextSwitchTo(caller);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	return status;
}

static char *
column_text(MemoryContext caller, uint64 row, int column)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return value == NULL ? NULL : MemoryContextStrdup(caller, value);
}

static int64
column_int(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
									  &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

/* A text[] without NULLs as an array of strings that ends in NULL; NULL for NULL. */
static char **
column_strings(MemoryContext caller, uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
									  &isnull);
	Datum	   *elements;
	int			n;
	char	  **strings;

	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  NULL, &n);
	strings = MemoryContextAlloc(caller, (n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		strings[i] = MemoryContextStrdup(caller, TextDatumGetCString(elements[i]));
	strings[n] = NULL;
	return strings;
}

Oid
bc_db_extension(void)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			extension;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	extension = get_extension_oid("boocoder", true);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return extension;
}

static void
read_text(MemoryContext caller, void *result)
{
	if (SPI_processed > 0)
		*(char **) result = column_text(caller, 0, 1);
}

BcDbStatus
bc_db_version(bool *matches, char **version)
{
	BcDbStatus	status;

	*version = NULL;
	status = run(Q_VERSION, NULL, NULL, read_text, version);
	*matches = *version != NULL && strcmp(*version, BC_VERSION) == 0;
	return status;
}

BcDbStatus
bc_db_start(void)
{
	Datum		values[1] = {Int32GetDatum(MyProcPid)};

	return run(Q_START, values, NULL, NULL, NULL);
}

static BcActionKind
action_kind(const char *name)
{
	static const char *const names[] = {
		[BC_DO_TASK] = "task",
		[BC_DO_CANCEL] = "cancel",
		[BC_DO_ANSWER] = "answer",
		[BC_DO_BLOCK] = "blocked",
		[BC_DO_UNBLOCK] = "unblocked",
		[BC_DO_EVICT] = "evict",
		[BC_DO_END_SERVER] = "end_server",
		[BC_DO_JOB] = "job",
		[BC_DO_WAIT] = "due"
	};

	for (int i = 0; name != NULL && i < (int) lengthof(names); i++)
		if (strcmp(name, names[i]) == 0)
			return (BcActionKind) i;
	elog(ERROR, "unknown action \"%s\"", name ? name : "(null)");
}

static void
read_actions(MemoryContext caller, void *result)
{
	List	  **actions = result;

	for (uint64 row = 0; row < SPI_processed; row++)
	{
		BcDbAction *action = MemoryContextAllocZero(caller, sizeof(BcDbAction));
		MemoryContext old;

		action->kind = action_kind(column_text(caller, row, 1));
		action->task_id = column_int(row, 2);
		action->fence = column_int(row, 3);
		action->job_id = column_int(row, 4);
		action->prepare = column_text(caller, row, 5);
		action->agent = column_text(caller, row, 6);
		action->diff = column_text(caller, row, 7);
		action->delay_ms = column_int(row, 8);
		action->git_prefix = column_strings(caller, row, 9);
		action->agent_prefix = column_strings(caller, row, 10);
		action->backend = column_int(row, 11);
		action->server = column_int(row, 12);
		action->server_order = column_text(caller, row, 13);
		old = MemoryContextSwitchTo(caller);
		*actions = lappend(*actions, action);
		MemoryContextSwitchTo(old);
	}
}

/*
 * What was claimed is seen from its commit on, but nothing is begun on it before it would survive a
 * crash, or a switch to a synchronous standby: it would be begun again.
 */
static void
await_durability(void)
{
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		return;
	XLogFlush(XactLastCommitEnd);
	HOLD_INTERRUPTS();
	SyncRepWaitForLSN(XactLastCommitEnd, true);
	RESUME_INTERRUPTS();
}

BcDbStatus
bc_db_next_actions(int free_slots, int free_jobs, bool everything, List **actions)
{
	Datum		values[3] = {
		Int32GetDatum(free_slots), Int32GetDatum(free_jobs), BoolGetDatum(everything)
	};
	XLogRecPtr	before = XactLastCommitEnd;
	BcDbStatus	status;

	*actions = NIL;
	status = run(Q_NEXT_ACTIONS, values, NULL, read_actions, actions);
	/* A cancel, say, writes nothing, and is not to wait for what others wrote. */
	if (status == BC_DB_OK && *actions != NIL && XactLastCommitEnd != before)
		await_durability();
	return status;
}

static void
read_orders(MemoryContext caller, void *result)
{
	BcDbOrders *orders = result;

	if (SPI_processed == 0)
		return;
	orders->agent = column_text(caller, 0, 1);
	orders->diff = column_text(caller, 0, 2);
	orders->server = column_int(0, 3);
	orders->server_order = column_text(caller, 0, 4);
	orders->server_ends = column_int(0, 5);
}

BcDbStatus
bc_db_prepared(int64 task_id, int64 fence, const char *result, BcDbOrders *orders)
{
	Datum		values[3] = {
		Int64GetDatum(task_id), Int64GetDatum(fence), CStringGetTextDatum(result)
	};

	memset(orders, 0, sizeof(*orders));
	return run(Q_PREPARED, values, NULL, read_orders, orders);
}

static void
read_seq(MemoryContext caller, void *result)
{
	if (SPI_processed > 0)
		*(int64 *) result = column_int(0, 1);
}

BcDbStatus
bc_db_append(int n, const int64 *task_ids, const int64 *fences, char *const *payloads,
			 int64 *last_seq)
{
	Datum	   *elements = palloc(sizeof(Datum) * n);
	Datum		values[3];

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(task_ids[i]);
	values[0] = PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(fences[i]);
	values[1] = PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(payloads[i]);
	values[2] = PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
	*last_seq = 0;
	return run(Q_APPEND, values, NULL, read_seq, last_seq);
}

/* The functions that end something return NULL when a lock kept them from it. */
static void
read_done(MemoryContext caller, void *result)
{
	*(bool *) result = SPI_processed > 0 && column_text(caller, 0, 1) != NULL;
}

BcDbStatus
bc_db_settle(int64 task_id, int64 fence, const char *result, const char *over, const char *diff)
{
	Datum		values[5] = {
		Int64GetDatum(task_id), Int64GetDatum(fence), CStringGetTextDatum(result),
		CStringGetTextDatum(over != NULL ? over : "{}"),
		diff != NULL ? CStringGetTextDatum(diff) : (Datum) 0
	};
	bool		done = false;
	BcDbStatus	status = run(Q_SETTLE, values, diff != NULL ? "     " : "    n", read_done, &done);

	return status == BC_DB_OK && !done ? BC_DB_BUSY : status;
}

BcDbStatus
bc_db_job_done(int64 job_id, const char *result)
{
	Datum		values[2] = {Int64GetDatum(job_id), CStringGetTextDatum(result)};
	bool		done = false;
	BcDbStatus	status = run(Q_JOB_DONE, values, NULL, read_done, &done);

	return status == BC_DB_OK && !done ? BC_DB_BUSY : status;
}

BcDbStatus
bc_db_backend_started(int64 backend, pid_t pid)
{
	Datum		values[2] = {Int64GetDatum(backend), Int32GetDatum((int32) pid)};

	return run(Q_BACKEND_STARTED, values, NULL, NULL, NULL);
}

BcDbStatus
bc_db_backend_ended(int64 backend)
{
	Datum		values[1] = {Int64GetDatum(backend)};

	return run(Q_BACKEND_ENDED, values, NULL, NULL, NULL);
}

BcDbStatus
bc_db_server_told(int64 server, const char *message, char **decision)
{
	Datum		values[2] = {Int64GetDatum(server), CStringGetTextDatum(message)};

	*decision = NULL;
	return run(Q_SERVER_TOLD, values, NULL, read_text, decision);
}

BcDbStatus
bc_db_server_ended(int64 server)
{
	Datum		values[1] = {Int64GetDatum(server)};

	return run(Q_SERVER_ENDED, values, NULL, NULL, NULL);
}
