/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_changes.h
 *	  The difference between two trees, as one patch per file.
 */
#ifndef BC_RUNNER_GIT_CHANGES_H
#define BC_RUNNER_GIT_CHANGES_H

#include <git2.h>
#include <jansson.h>
#include <stdbool.h>

#include "runner/git_problem.h"

/*
 * Appends to "changes" what leads from "base" to "tree": path, old_path, kind,
 * modes, binary, additions, deletions, diff.  Of some paths only, unless "paths"
 * is NULL.  diff_too_large when the patches have more than "max_bytes".
 */
extern bool bc_git_changes(git_repository *repo, git_tree *base, git_tree *tree, const json_t *paths,
						   json_int_t max_bytes, json_t *changes, BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_CHANGES_H */
