/* SPDX-License-Identifier: PostgreSQL */
/*
 * program.h
 *	  The one program that a runner runs at a time: its pipes, and the stages
 *	  of its end.  What the bytes mean, and when the end comes, is the owner's.
 */
#ifndef BC_RUNNER_PROGRAM_H
#define BC_RUNNER_PROGRAM_H

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runner/sandbox.h"

/* Descriptors bc_program_fds() needs room for */
#define BC_PROGRAM_FDS 4

/* Who started the program, and hears of it; called by bc_program_serve() */
typedef struct BcProgramOwner
{
	/* Bytes of its standard output, or of its terminal */
	void		(*output) (const char *bytes, size_t len);

	/* It closed that, or has ended. */
	void		(*output_closed) (void);

	/* Bytes of its standard error */
	void		(*errors) (const char *bytes, size_t len);

	/*
	 * It has ended, nothing of it is left, and all it wrote was passed on.
	 * "code" is its exit status, or -1 and "signal" the signal.  May start
	 * another program.
	 */
	void		(*ended) (int code, int signal);
} BcProgramOwner;

/*
 * Starts "command" (a JSON array) as the order's environment and sandbox say,
 * with "extra" as one more argument unless NULL.  False: *failure says why;
 * its message is the caller's to free.
 */
extern bool bc_program_start(const BcProgramOwner *owner, const json_t *order, const json_t *command,
							 const char *extra, bool terminal, BcFailure *failure);

/* Is there a program, be it one that is ending? */
extern bool bc_program_exists(void);

/* Its process: that of the sandbox or the guard, where there is one.  -1: it has ended. */
extern pid_t bc_program_pid(void);

/* Is there one that nobody has asked to end? */
extern bool bc_program_runs(void);

/* Queues bytes for its input.  False: it does not read what it was sent before. */
extern bool bc_program_write(const char *bytes, size_t len);

/* As bc_spawn_reads_lines(). */
extern bool bc_program_reads_lines(void);

/* Closes its input once everything queued is written. */
extern void bc_program_close_input(void);

/* Closes its input; if it does not end by that, it is terminated; and if not by that, killed. */
extern void bc_program_quit(json_int_t term_grace_ms);
extern void bc_program_terminate(json_int_t term_grace_ms);

/* Kills it and everything below it at once, and waits until they are gone.  Nobody hears of it. */
extern void bc_program_kill(void);

/* What it last wrote to its standard error; valid until the next call. */
extern const char *bc_program_stderr(void);

/* Forgets that. */
extern void bc_program_forget_stderr(void);

/*
 * Is what it ended with the failure of the sandbox to start it?  For the owner's
 * ended().  True: *failure says why, as that of bc_program_start().
 */
extern bool bc_program_sandbox_failed(int code, BcFailure *failure);

/*
 * The event loop: what to wait for (BC_PROGRAM_FDS entries), when to come back
 * at the latest (0: not by time), and what to do after the wait.  Without
 * "reading" its output is left in the pipes.
 */
extern void bc_program_fds(struct pollfd *fds, bool reading);
extern int64_t bc_program_due(void);
extern void bc_program_serve(const struct pollfd *fds, bool reading);

#endif							/* BC_RUNNER_PROGRAM_H */
