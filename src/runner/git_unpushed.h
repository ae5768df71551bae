/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_unpushed.h
 *	  Commits of a worktree that are nowhere else.
 */
#ifndef BC_RUNNER_GIT_UNPUSHED_H
#define BC_RUNNER_GIT_UNPUSHED_H

#include <git2.h>
#include <jansson.h>
#include <stdbool.h>

#include "runner/git_problem.h"
#include "runner/git_repo.h"

/* The commit that is checked out in the worktree, or its base when that can't be told. */
extern void bc_git_tip(git_repository *repo, const BcGitEntry *entry, git_oid *tip);

/*
 * Commits since the worktree's base that neither a remote-tracking branch nor
 * another branch of the project has, nor the same change under another id: one
 * by one (rebased, cherry-picked) or all in one (squashed).  "list" gets at
 * most 20 as {"commit", "summary"}; *count how many there are, at most 1000.
 */
extern bool bc_git_unpushed(git_repository *repo, const BcGitEntry *entry, json_t *list,
							size_t *count, BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_UNPUSHED_H */
