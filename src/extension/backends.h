/* SPDX-License-Identifier: PostgreSQL */
/*
 * backends.h
 *	  The agents that are kept between turns, each with its runner.
 *
 * Which there are, and how long, the database decides (boocoder.backends);
 * here is what stands for those rows in this process.  A row is removed only
 * when nothing of its agent runs any more.
 */
#ifndef BC_EXTENSION_BACKENDS_H
#define BC_EXTENSION_BACKENDS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "extension/runners.h"

extern void bc_backends_init(void);

/*
 * Gives a turn's order to the agent kept under "id"; to a new runner when there
 * is none (any more), which is then kept under it.  As bc_runners_order().
 */
extern BcRunner *bc_backends_order(int64 id, const BcRunnerOwner *owner, void *owner_data,
								   char *const *prefix, const char *order);

/* The turn is over and the runner has kept its agent: it waits now. */
extern void bc_backends_rest(int64 id);

/* The turn is over, and the runner is not kept, or gone. */
extern void bc_backends_forget(int64 id);

/* The agent is to end: its row said so. */
extern void bc_backends_evict(int64 id);

/* Tells the database what is due.  When to be called again; 0: not by time. */
extern TimestampTz bc_backends_tick(TimestampTz now);

#endif							/* BC_EXTENSION_BACKENDS_H */
