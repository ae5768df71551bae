/* SPDX-License-Identifier: PostgreSQL */
/*
 * runners.h
 *	  The runner processes of one dispatcher: spares, and those at work.
 *
 * A runner takes one order and ends, or keeps its agent for another order.
 * Spares have been started before there is an order for them.  Closing a runner's socket makes it kill what it
 * started and end; it is reaped later by bc_runners_reap().
 */
#ifndef BC_EXTENSION_RUNNERS_H
#define BC_EXTENSION_RUNNERS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "extension/channel.h"
#include "lib/ilist.h"

/* How often to look whether a runner that was closed has ended */
#define BC_REAP_INTERVAL_MS 20

typedef struct BcRunner BcRunner;

/* Who gave a runner its order, and hears of it */
typedef struct BcRunnerOwner
{
	/* A message of the runner.  "payload" belongs to the channel. */
	void		(*message) (void *owner, BcRunner *runner, BcFrameType type,
							const StringInfoData *payload);

	/*
	 * The runner has ended, with or without a result sent before; it is
	 * closed after the call.  "why" is a phrase for people.
	 */
	void		(*gone) (void *owner, BcRunner *runner, const char *why);
} BcRunnerOwner;

struct BcRunner
{
	dlist_node	node;
	pid_t		pid;			/* 0: it is reaped already */
	BcChannel	channel;
	MemoryContext context;
	uint64		turn;			/* generation of its order; 0: spare */
	const BcRunnerOwner *owner; /* NULL: spare, or retired */
	void	   *owner_data;
	bool		retired;
	bool		kept;			/* said so with its result */
	uint32		interest;		/* what the wait set waits for */
};

/* Sets up the pool; once in the life of the process. */
extern void bc_runners_init(void);

/*
 * Starts spares until there are "wanted"; no more than a few in one call, and
 * none right after an order.  When it is to be called again; 0: no need.
 */
extern TimestampTz bc_runners_fill(int wanted, TimestampTz now);

/*
 * Gives an order (JSON text) to a runner; to a spare one, unless a launch
 * prefix is given (see bc_process_start()).  NULL when none could be started;
 * errno is set.
 */
extern BcRunner *bc_runners_order(const BcRunnerOwner *owner, void *owner_data,
								  char *const *prefix, const char *order);

/* Another order, for a runner that kept its agent.  It may have a new owner. */
extern void bc_runners_order_again(BcRunner *runner, const BcRunnerOwner *owner, void *owner_data,
								   const char *order);

/* Somebody else hears of the runner from now on. */
extern void bc_runners_hand_over(BcRunner *runner, const BcRunnerOwner *owner, void *owner_data);

/* Sends a message; "payload" is text, "" for none. */
extern void bc_runners_send(BcRunner *runner, BcFrameType type, const char *payload);

/*
 * For the owner's message callback: the runner has done its work.  It is
 * closed after the callback, and the owner hears no more of it.
 */
extern void bc_runners_retire(BcRunner *runner);

/*
 * The text of a RESULT in the place of a runner that sent none, or whose can't
 * be stored; allocated in the current context.  "outcome" NULL: it has none.
 */
extern char *bc_runners_made_up(bool ok, const char *outcome, const char *reason,
								const char *message);

/* Closes the socket; the runner ends by itself.  No callback.  Not for use in a callback. */
extern void bc_runners_close(BcRunner *runner);

/* Kills the runner; its owner hears "gone" once the socket closes. */
extern void bc_runners_kill(BcRunner *runner);

/* Reads what a runner sent, up to a fair share, and calls its owner. */
extern void bc_runners_read(BcRunner *runner);

/* Reaps whatever has ended; true when closed runners are left to be reaped. */
extern bool bc_runners_reap(void);

/* Is the runner "pid", which was closed, not reaped yet? */
extern bool bc_runners_ending(pid_t pid);

/* All open runners, for the wait set. */
extern dlist_head *bc_runners_all(void);
extern int	bc_runners_count(void);
extern int	bc_runners_spare_count(void);

/*
 * How many runners the descriptors of a server process are enough for, and
 * how many of those are not at work, or kept.
 */
extern int	bc_runners_limit(void);
extern int	bc_runners_room(void);

/* Changes whenever a runner was added or closed. */
extern uint64 bc_runners_version(void);

#endif							/* BC_EXTENSION_RUNNERS_H */
