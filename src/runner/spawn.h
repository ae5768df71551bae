/* SPDX-License-Identifier: PostgreSQL */
/*
 * spawn.h
 *	  Starting the process of an agent.
 *
 * The child leads a session of its own, has pipes on descriptors 0 to 2 and
 * nothing else open, default signals, no core dumps, and is the first choice
 * of the kernel when memory runs out.  It dies with this process.
 *
 * With "guarded", a second process of ours stands between: a subreaper that
 * kills everything below it when the agent ends, or when this process does.
 * Without the sandbox's PID namespace that is what catches grandchildren.
 *
 * What the sandbox is to mount it gets as descriptors, too, from
 * BC_LAUNCH_FIRST_MOUNT on; bubblewrap closes them before the program starts.
 *
 * With a terminal, descriptors 0 to 2 are a pseudo-terminal that nobody else
 * has.  With "guarded" it controls the child's session; otherwise it controls
 * none yet, and standard error is a pipe: the child is the sandbox, and what
 * runs inside takes it (sandbox.c).
 */
#ifndef BC_RUNNER_SPAWN_H
#define BC_RUNNER_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "runner/sandbox.h"

typedef struct BcChild
{
	pid_t		pid;			/* of the agent, the sandbox or the guard; -1 once reaped */
	int			pidfd;			/* readable when it has ended; -1 if the kernel has none */
	int			in;				/* our ends; -1 when closed */
	int			out;
	int			err;
	int			control;		/* of the guard; -1 without */
} BcChild;

typedef struct BcTerminal
{
	unsigned short rows;
	unsigned short columns;
} BcTerminal;

/*
 * Starts argv[0] of "launch", which is a path, in its directory.  "terminal" may
 * be NULL: pipes; otherwise a read of child->out fails with EIO at the end.
 * Returns 0, or the errno of the call that failed, in which case nothing is left
 * behind.  The descriptors of "child" are non-blocking; one that there is not is -1.
 */
extern int	bc_spawn(const BcLaunch *launch, const BcTerminal *terminal, BcChild *child);

/*
 * Is the child on a terminal that collects lines for it?  The kernel then cuts
 * a line at BC_SPAWN_LINE bytes.  A program that edits its line itself has
 * changed that.
 */
#define BC_SPAWN_LINE 4095
extern bool bc_spawn_reads_lines(const BcChild *child);

/*
 * Reads once from a descriptor of a child; closes it at its end.  The number
 * of bytes, 0 when there are none, now or ever.
 */
extern size_t bc_spawn_read(int *fd, char *buffer, size_t size);

/* Closes one descriptor of a child if it is open. */
extern void bc_spawn_close(int *fd);

/* Has it ended?  Reaps it then, with its wait status. */
extern bool bc_spawn_ended(BcChild *child, int *status);

/* Asks everything in the child's tree to terminate. */
extern void bc_spawn_terminate(const BcChild *child);

/* Kills the child and everything below it; waits until they are gone. */
extern void bc_spawn_kill(BcChild *child);

#endif							/* BC_RUNNER_SPAWN_H */
