/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_place.h
 *	  Where worktrees may lie, and file operations that stay there.
 *
 * Everything below a worktree root or a checkout is reached one component at a
 * time from an open directory and never through a symbolic link, so that what
 * an agent left there (or swaps in meanwhile) cannot lead elsewhere.
 */
#ifndef BC_RUNNER_GIT_PLACE_H
#define BC_RUNNER_GIT_PLACE_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "runner/git_problem.h"

/* Real name of "path", of which a tail need not exist yet.  "out" of PATH_MAX. */
extern bool bc_git_place_real(const char *path, char *out);

/* Is one of these the other, or inside the other?  Absolute real names. */
extern bool bc_git_place_nested(const char *a, const char *b);

/*
 * Checks that worktrees may lie below "root": not inside one of the forbidden
 * directories (JSON strings, may be NULL) or the project (may be NULL), nor
 * the other way round.  "real" (PATH_MAX) gets its real name.  Creates nothing.
 */
extern bool bc_git_place_check_root(const char *root, const json_t *forbidden,
									const char *project, char *real, BcGitProblem *problem);

/*
 * Opens the root, made with mode 0700 when it is missing.  It must be the server
 * user's own and not writable by others.  Descriptor, or -1 and a problem.
 */
extern int	bc_git_place_open_root(const char *real_root, BcGitProblem *problem);

/*
 * The part of "path" below the root, which is given by the two names it has.
 * NULL with worktree_root_unsafe when path is not below it.
 */
extern const char *bc_git_place_below(const char *path, const char *root,
									  const char *real_root, BcGitProblem *problem);

/*
 * Opens the directory that holds the last component of "path" (relative to the
 * directory "base"), and points "*name" at that component.  Components that
 * are missing are made when "make_mode" is not 0; "made" counts them (may be
 * NULL).  Returns -1 with errno: ELOOP or ENOTDIR for what is not a directory.
 */
extern int	bc_git_place_parent(int base, const char *path, mode_t make_mode,
								const char **name, unsigned *made);

/* Opens the directory "name" in "base" itself, never a symbolic link. */
extern int	bc_git_place_dir(int base, const char *name);

/*
 * Removes the directory "name" in "parent" with all it holds: any depth, no
 * symbolic link followed, no other file system entered.  True when it is gone.
 */
extern bool bc_git_place_remove(int parent, const char *name, BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_PLACE_H */
