/* SPDX-License-Identifier: PostgreSQL */
/*
 * sandbox.h
 *	  How an agent is started: its program, its environment, its sandbox.
 */
#ifndef BC_RUNNER_SANDBOX_H
#define BC_RUNNER_SANDBOX_H

#include <jansson.h>
#include <stdbool.h>

typedef struct BcLaunch
{
	char	  **argv;
	char	  **envp;
	bool		guarded;		/* no sandbox: a guard is needed */
	bool		terminal;		/* set by the caller: it will run on one */
} BcLaunch;

typedef struct BcFailure
{
	const char *reason;			/* of the closed list; static */
	char	   *message;		/* the caller's to free */
	const char *hint;			/* static, may be NULL */
} BcFailure;

/*
 * Builds the command line and environment of "command" (a JSON array) for an
 * agent's order.  "extra" is one more argument, or NULL.  False with *failure
 * set when the program or the sandbox can't be had.
 */
extern bool bc_sandbox_launch(const json_t *order, const json_t *command, const char *extra,
							  BcLaunch *launch, BcFailure *failure);

extern void bc_sandbox_free(BcLaunch *launch);

/* The path of a program on a colon-separated path, or NULL; the caller frees. */
extern char *bc_sandbox_find(const char *program, const char *path);

/* The homes that an order names: that of its session, and a lasting one if it has one. */
extern bool bc_sandbox_make_homes(const json_t *order);

/* A directory of the agent's own, made with its parents if missing; 0 or errno. */
extern int	bc_sandbox_mkdir(const char *path);

#endif							/* BC_RUNNER_SANDBOX_H */
