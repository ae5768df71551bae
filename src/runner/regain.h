/* SPDX-License-Identifier: PostgreSQL */
/*
 * regain.h
 *	  Takes back what an agent's chmod took from the owner of its worktree.
 *
 * Agents run as the runner's own user, so their files are ours, whatever mode
 * they gave them: a mode is no reason to lose sight of them.  Only where the
 * system said no are bits given back, the owner's alone; never through a
 * symbolic link, and only of regular files and directories.
 */
#ifndef BC_RUNNER_REGAIN_H
#define BC_RUNNER_REGAIN_H

#include <stdbool.h>

/* Gives the owner of "name" in "base" reading and writing, of a directory entering, too. */
extern bool bc_regain(int base, const char *name);

/* openat() of a file, once more when bc_regain() could help. */
extern int	bc_regain_open(int base, const char *name, int flags);

/*
 * Opens the directory "name" in "base" itself, never a symbolic link, so that it
 * can be read and used as "access" says (X_OK, W_OK).  Where that is not to be had,
 * as it is; -1 when it cannot even be read.
 */
extern int	bc_regain_dir(int base, const char *name, int access);

/* The same for all directories above the last component of "path": each may be written. */
extern void bc_regain_above(int base, const char *path);

#endif							/* BC_RUNNER_REGAIN_H */
