/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_turns.h
 *	  The contents that a worktree had at the end of its turns.
 *
 * Each is kept as a commit on "base", so that git gc leaves it.
 */
#ifndef BC_RUNNER_GIT_TURNS_H
#define BC_RUNNER_GIT_TURNS_H

#include <git2.h>
#include <jansson.h>
#include <stdbool.h>

#include "runner/git_problem.h"

/* Keeps "tree" as the content that was reported last. */
extern bool bc_git_last_keep(git_repository *repo, const char *key, const git_oid *tree,
							 const git_oid *base, BcGitProblem *problem);

/* Keeps "tree" as the content of a turn, under the name that "ref" gets. */
extern bool bc_git_turn_keep(git_repository *repo, const char *key, json_int_t turn,
							 const git_oid *tree, const git_oid *base, char *ref, size_t size,
							 BcGitProblem *problem);

/*
 * Forgets all but "max" turns of a worktree: "turn" stays, and of the others
 * those of the highest numbers.  0: all stay.  What can't be forgotten now is when
 * the next turn ends.
 */
extern void bc_git_turns_prune(git_repository *repo, const char *key, json_int_t turn,
							   json_int_t max);

#endif							/* BC_RUNNER_GIT_TURNS_H */
