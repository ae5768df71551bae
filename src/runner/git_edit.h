/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_edit.h
 *	  One file that a person wrote, in a tree.
 */
#ifndef BC_RUNNER_GIT_EDIT_H
#define BC_RUNNER_GIT_EDIT_H

#include <git2.h>
#include <stdbool.h>

#include "runner/git_problem.h"

/*
 * The tree "from" with "content" at "path", which keeps its exec bit; NULL:
 * without that file.  Refuses unsafe paths, what is not a regular file, and a
 * path below a file.
 */
extern bool bc_git_edit_tree(git_repository *repo, git_tree *from, const char *path,
							 const char *content, git_oid *tree, BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_EDIT_H */
