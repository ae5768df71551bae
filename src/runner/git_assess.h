/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_assess.h
 *	  What would be lost with a worktree, beside what the database knows of.
 */
#ifndef BC_RUNNER_GIT_ASSESS_H
#define BC_RUNNER_GIT_ASSESS_H

#include <git2.h>
#include <jansson.h>
#include <stdbool.h>

#include "runner/git_problem.h"
#include "runner/git_repo.h"

/*
 * Facts about a worktree whose content is "tree": "dirty" and "dirty_count",
 * the files that are not as in the tree "known" (hex id; what the database was
 * last told) and the "missed" ones (paths) that no tree can hold, "unpushed" and "unpushed_count", its commits that are nowhere
 * else.  A new object; NULL and a problem when they can't be found.
 */
extern json_t *bc_git_assess_facts(git_repository *repo, const BcGitEntry *entry,
								   const git_oid *tree, const json_t *missed, const char *known,
								   BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_ASSESS_H */
