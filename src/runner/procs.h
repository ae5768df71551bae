/* SPDX-License-Identifier: PostgreSQL */
/*
 * procs.h
 *	  The processes below this one.
 *
 * Whoever calls these functions is a child subreaper, so that a process whose
 * parent has ended, in whatever session it is, is still found below it.
 */
#ifndef BC_RUNNER_PROCS_H
#define BC_RUNNER_PROCS_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Sends a signal to every descendant of "root" (not to "root" itself), but not
 * to "except".  Returns how many there were.
 */
extern int	bc_procs_signal(pid_t root, pid_t except, int signal);

/*
 * Kills every descendant of this process and reaps them, until none is left or
 * "timeout_ms" have passed.  True when none is left.
 */
extern bool bc_procs_kill_all(int timeout_ms);

/*
 * Kills and reaps children for a moment, those that they leave included.  True
 * when none is left.  Allocates nothing: a handler of a signal may call it.
 */
extern bool bc_procs_kill_children(void);

#endif							/* BC_RUNNER_PROCS_H */
