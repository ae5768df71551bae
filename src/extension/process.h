/* SPDX-License-Identifier: PostgreSQL */
/*
 * process.h
 *	  Starting and reaping boocoder-runner: the only place of the extension
 *	  that makes processes.
 */
#ifndef BC_EXTENSION_PROCESS_H
#define BC_EXTENSION_PROCESS_H

#include <sys/types.h>

/* How a runner of ours is called; a launch prefix may name one of another place. */
#define BC_RUNNER_NAME "boocoder-runner"

/*
 * Starts a runner whose stdin and stdout are the other end of a new stream
 * socket; its stderr is the server's log.  The socket returned in *fd is
 * non-blocking and closed on exec; the caller closes it, which makes the
 * runner end.  Returns the pid, or -1 with errno set.
 *
 * "prefix" is a command that runs another one, and ends in NULL; or NULL.  The
 * runner's path is appended unless the prefix names a runner already.  Behind it
 * stands "tag" unless NULL, by which leftovers.c knows the runners of a dispatcher.
 */
extern pid_t bc_process_start(char *const *prefix, const char *tag, int *fd);

/* The path of our runner's program; in a buffer of its own. */
extern const char *bc_process_path(void);

/*
 * Reaps the runner "pid" if it has ended: true then, with the wait status in
 * *status (0 when it is no child of ours any more).
 */
extern bool bc_process_reap(pid_t pid, int *status);

#endif							/* BC_EXTENSION_PROCESS_H */
