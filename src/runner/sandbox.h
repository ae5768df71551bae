/* SPDX-License-Identifier: PostgreSQL */
/*
 * sandbox.h
 *	  How an agent is started: its program, its environment, its sandbox.
 */
#ifndef BC_RUNNER_SANDBOX_H
#define BC_RUNNER_SANDBOX_H

#include <jansson.h>
#include <stdbool.h>

/* Descriptors of what is mounted get these numbers in the child; we have them from BC_LAUNCH_FDS on. */
#define BC_LAUNCH_FIRST_MOUNT 4
#define BC_LAUNCH_MOUNTS 32
#define BC_LAUNCH_FDS 64

typedef struct BcLaunch
{
	char	  **argv;
	char	  **envp;
	int			dir;			/* where it starts */
	int			mounts[BC_LAUNCH_MOUNTS];
	size_t		nmounts;
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
 * agent's order, and opens its places: what they are called may be something else
 * by the time it starts.  "extra" is one more argument, or NULL.  False with
 * *failure set when the program, its places or the sandbox can't be had.
 */
extern bool bc_sandbox_launch(const json_t *order, const json_t *command, const char *extra,
							  BcLaunch *launch, BcFailure *failure);

extern void bc_sandbox_free(BcLaunch *launch);

/* The path of a program on a colon-separated path, or NULL; the caller frees. */
extern char *bc_sandbox_find(const char *program, const char *path);

/*
 * Opens a place of an agent's own: the directory itself, through no symbolic link
 * below the worktree root, for an agent may have put one there that leads to what
 * it must not see.  -1 with errno: ENOTDIR or ELOOP for a link.
 */
extern int	bc_sandbox_open(const char *path);

/* Behind the name of a session's home: where its parts of a lasting home are. */
#define BC_SANDBOX_PRIVATE ".private"

/*
 * Notes that a server runs which has the folder of worktrees "path", until this
 * process ends.
 */
extern void bc_sandbox_serve(const char *path);

/* The homes that an order names: that of its session, and a lasting one if it has one. */
extern bool bc_sandbox_make_homes(const json_t *order);

/* A directory of the agent's own, made with its parents if missing; 0 or errno. */
extern int	bc_sandbox_mkdir(const char *path);

#endif							/* BC_RUNNER_SANDBOX_H */
