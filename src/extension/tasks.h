/* SPDX-License-Identifier: PostgreSQL */
/*
 * tasks.h
 *	  Drives the turns of one dispatcher: from a claimed task to a settled one.
 */
#ifndef BC_EXTENSION_TASKS_H
#define BC_EXTENSION_TASKS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "extension/db.h"

extern void bc_tasks_init(void);

/* Starts the turn of a task that was just claimed; copies what it keeps. */
extern void bc_tasks_start(const BcDbAction *action);

/* A cancel was requested.  Harmless when repeated, or when the turn is over. */
extern void bc_tasks_cancel(int64 task_id, int64 fence);

/* Tells the agent of a running task something: an answer, or a mode to go into (JSON text). */
extern void bc_tasks_answer(int64 task_id, int64 fence, const char *answer);

/* The server that turns are on has come, gone, or moved: an ANSWER for their agents (JSON text). */
extern void bc_tasks_server(int64 server, const char *answer);

/* The task waits for a person, or does so no more: meanwhile it holds no slot. */
extern void bc_tasks_block(int64 task_id, int64 fence, bool blocked);

/* The database refused an event of the task: it fails, its agent is ended. */
extern void bc_tasks_break(int64 task_id, const char *error);

/*
 * Does what is due: deadlines, database calls to try again, settling.  Returns
 * the time when something is due next, 0 when nothing is.
 */
extern TimestampTz bc_tasks_tick(TimestampTz now);

/* Turns under way that hold a slot */
extern int	bc_tasks_count(void);

/* Turns that gave their slot back since the last call. */
extern int	bc_tasks_ended(void);

#endif							/* BC_EXTENSION_TASKS_H */
