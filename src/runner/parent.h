/* SPDX-License-Identifier: PostgreSQL */
/*
 * parent.h
 *	  The end of the process that started the runner.
 *
 * Whoever adopts a runner then may be a postmaster that is process 1 of its
 * container.  It takes a process it does not know for a server process, and one
 * that a signal ended for a crash: it would restart the whole cluster.  So the
 * runner is told by a signal, but ends by itself, with status 0, and after all
 * it started, which nobody else could reap either.
 */
#ifndef BC_RUNNER_PARENT_H
#define BC_RUNNER_PARENT_H

/* From now on the runner ends when its parent does, or when it gets SIGTERM. */
extern void bc_parent_watch(void);

/*
 * Before a role starts processes: it reads the pipe while it works, and when
 * that ends, it ends them.  Now the end of the parent is the end of the pipe; a
 * role that is stuck elsewhere has 1.5 s.
 */
extern void bc_parent_is_pipe(void);

#endif							/* BC_RUNNER_PARENT_H */
