/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_roles.h
 *	  The git roles of the runner: one synchronous function per role.
 *
 * Each takes the ORDER (borrowed) and returns a new RESULT object that the
 * caller owns: {"ok":true,...}, or {"ok":false,"reason","message"} with
 * "detail" (libgit2's or the system's words) and "hint" (what to do) where
 * there is something to say.  NULL only when memory ran out.
 *
 * None of them runs a program: no hook, no filter driver, no fsmonitor.
 * Paths and texts in a result are valid UTF-8.  A file name that is not is
 * written as git quotes it ("caf\351.txt", quotes included), and read back
 * the same way by bc_git_apply; a name that begins with a quote is quoted too,
 * so that the form is unambiguous.
 *
 * The git_*.c files are the only users of libgit2.
 */
#ifndef BC_RUNNER_GIT_ROLES_H
#define BC_RUNNER_GIT_ROLES_H

#include <jansson.h>
#include <stdbool.h>

/*
 * Sets libgit2 up; false when it is unusable.  Every role does this by itself,
 * once, so calling it is only needed to learn the answer early.  Afterwards only
 * a repository's own configuration counts: the system's and the user's are not
 * read, and owners are always checked.
 */
extern bool bc_git_init(void);

/*
 * Ensures that the worktree exists at its path on its own branch.  Safe to
 * repeat, also after a run that was killed midway.
 */
extern json_t *bc_git_worktree(const json_t *order);

/* Difference between diff_base and what lies in the worktree now. */
extern json_t *bc_git_diff(const json_t *order);

/* Writes changes into the project's checkout: all of them or none. */
extern json_t *bc_git_apply(const json_t *order);

/* Archives what the worktree holds, then removes it. */
extern json_t *bc_git_remove(const json_t *order);

/* What would be missed if a worktree were removed, and how large it is. */
extern json_t *bc_git_assess(const json_t *order);

/* Gives a worktree another content, that it had before; keeps the present one. */
extern json_t *bc_git_rewrite(const json_t *order);

/* What a path is, before it becomes a project. */
extern json_t *bc_git_inspect(const json_t *order);

#endif							/* BC_RUNNER_GIT_ROLES_H */
