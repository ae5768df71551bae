/* SPDX-License-Identifier: PostgreSQL */
/*
 * db.h
 *	  What the dispatcher asks of the database: one C function for each SQL
 *	  function, one transaction for each call.  The only user of SPI.
 *
 * No call raises an error (other than FATAL): a failure is a status, and the
 * transaction is rolled back.  No call waits for a lock longer than the
 * session's lock_timeout.  Results are allocated in the caller's context.
 */
#ifndef BC_EXTENSION_DB_H
#define BC_EXTENSION_DB_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

typedef enum BcDbStatus
{
	BC_DB_OK,
	BC_DB_BUSY,					/* somebody else holds a lock; try again soon */
	BC_DB_FAILED				/* see bc_db_error() */
} BcDbStatus;

typedef enum BcActionKind
{
	BC_DO_TASK,					/* claimed: prepare, or agent and diff */
	BC_DO_CANCEL,				/* a running task is to be cancelled */
	BC_DO_ANSWER,				/* the agent of a running task is to be told: in prepare */
	BC_DO_BLOCK,				/* a running task waits for a person now */
	BC_DO_UNBLOCK,				/* and does so no more */
	BC_DO_EVICT,				/* the agent that is kept as "backend" is to end */
	BC_DO_END_SERVER,			/* nobody needs "server" any more */
	BC_DO_JOB,					/* a one-shot git job: its order is in prepare */
	BC_DO_WAIT					/* a task is due in delay_ms */
} BcActionKind;

typedef struct BcDbAction
{
	BcActionKind kind;
	int64		task_id;
	int64		fence;
	int64		job_id;
	int64		backend;		/* of a task: its agent is kept under that number; 0: is not */
	int64		server;			/* its agent is on that one; 0: on none */
	char	   *server_order;	/* which is to be started; NULL: it is there */
	int64		delay_ms;
	char	   *prepare;		/* orders, as JSON text; may be NULL */
	char	   *agent;
	char	   *diff;
	char	  **git_prefix;		/* launch prefixes, ending in NULL; NULL: none */
	char	  **agent_prefix;
} BcDbAction;

/* The message of the last BC_DB_FAILED. */
extern const char *bc_db_error(void);

/* When to call again what was not done: soon if somebody held a lock, later if it failed. */
extern TimestampTz bc_db_retry_at(BcDbStatus status);

/* OID of the extension in this database, InvalidOid when it is not there. */
extern Oid	bc_db_extension(void);

/*
 * Are the extension's objects those of this library?  "version" is that of the
 * objects.  Not so after the package was updated and the database was not.
 */
extern BcDbStatus bc_db_version(bool *matches, char **version);

/* Reconciles what an earlier dispatcher left.  See boocoder._start(). */
extern BcDbStatus bc_db_start(void);

/*
 * A list of BcDbAction; at most a task unless everything is asked for.  See boocoder._next_actions().
 * They are as durable as synchronous_commit asks for when this returns.
 */
extern BcDbStatus bc_db_next_actions(int free_slots, int free_jobs, bool everything,
									 List **actions);

/* What a task is to be run with; agent NULL: it is not to run. */
typedef struct BcDbOrders
{
	char	   *agent;
	char	   *diff;
	int64		server;			/* as in BcDbAction */
	char	   *server_order;
	int64		server_ends;	/* one that is to end; 0: none */
} BcDbOrders;

extern BcDbStatus bc_db_prepared(int64 task_id, int64 fence, const char *result,
								 BcDbOrders *orders);

/* What a server's runner told; *decision is what to do.  See boocoder._server_told(). */
extern BcDbStatus bc_db_server_told(int64 server, const char *message, char **decision);

/* It is gone for good. */
extern BcDbStatus bc_db_server_ended(int64 server);

/* Stores "n" EVENTS payloads; *last_seq is the newest event's number, or 0. */
extern BcDbStatus bc_db_append(int n, const int64 *task_ids, const int64 *fences,
							   char *const *payloads, int64 *last_seq);

/* Settles a turn.  The fields of "over", if any, go before those of "result"; "diff" may be NULL. */
extern BcDbStatus bc_db_settle(int64 task_id, int64 fence, const char *result, const char *over,
							   const char *diff);

/* A kept agent has the runner "pid" now; it has ended. */
extern BcDbStatus bc_db_backend_started(int64 backend, pid_t pid);
extern BcDbStatus bc_db_backend_ended(int64 backend);

extern BcDbStatus bc_db_job_done(int64 job_id, const char *result);

#endif							/* BC_EXTENSION_DB_H */
