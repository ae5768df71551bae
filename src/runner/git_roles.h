/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_roles.h
 *	  The one-shot git work of a runner: one function a role.
 *
 * Each takes an ORDER and returns its RESULT, a new reference, never NULL;
 * doc/protocol.md has their fields.  No hook, filter or other program of a
 * repository is ever run.
 */
#ifndef BC_RUNNER_GIT_ROLES_H
#define BC_RUNNER_GIT_ROLES_H

#include <jansson.h>

/* Makes sure the worktree of a session is there. */
extern json_t *bc_git_worktree(const json_t *order);

/* What changed in a worktree since its base. */
extern json_t *bc_git_diff(const json_t *order);

/* Applies changes to the project's checkout: all of them or none. */
extern json_t *bc_git_apply(const json_t *order);

/* Removes a worktree, its content saved under a ref before. */
extern json_t *bc_git_remove(const json_t *order);

/* Is that path a repository we can work with? */
extern json_t *bc_git_inspect(const json_t *order);

#endif							/* BC_RUNNER_GIT_ROLES_H */
