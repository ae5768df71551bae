/* SPDX-License-Identifier: PostgreSQL */
/*
 * sink.h
 *	  Collects the EVENTS messages of all runners and writes them in batches.
 */
#ifndef BC_EXTENSION_SINK_H
#define BC_EXTENSION_SINK_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

extern void bc_sink_init(void);

/* Takes a copy of one EVENTS payload. */
extern void bc_sink_add(int64 task_id, int64 fence, const StringInfoData *payload);

/*
 * Writes what is collected, in one or more short transactions.  False when
 * something is left because of a lock: call again at bc_sink_due().  A payload
 * the database refuses for itself is dropped, and its task is to be failed:
 * bc_sink_refused() tells of it.
 */
extern bool bc_sink_flush(TimestampTz now);

/* When to flush next; 0 when the sink is empty. */
extern TimestampTz bc_sink_due(void);

/* Is so much waiting that no runner should be read? */
extern bool bc_sink_full(void);

/* Has much gone through since the last time this was true, and is nothing left? */
extern bool bc_sink_flood_over(void);

/* Is anything of that task waiting? */
extern bool bc_sink_holds(int64 task_id, int64 fence);

/* A task of which a payload was refused, until somebody takes the reason; 0: none. */
extern int64 bc_sink_refused(void);

/* Why one of that task was refused, valid until the next call; NULL: none was, or it was taken. */
extern const char *bc_sink_take_refusal(int64 task_id);

/* The newest event's number */
extern int64 bc_sink_last_seq(void);

#endif							/* BC_EXTENSION_SINK_H */
