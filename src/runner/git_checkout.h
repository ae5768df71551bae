/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_checkout.h
 *	  Filling a worktree's directory with the content of a tree.
 */
#ifndef BC_RUNNER_GIT_CHECKOUT_H
#define BC_RUNNER_GIT_CHECKOUT_H

#include <git2.h>
#include <stdbool.h>

#include "runner/git_problem.h"
#include "runner/git_repo.h"

/*
 * Writes "tree" into the directory "path" and the entry's index.  Files that
 * are there already are overwritten.  Only for a directory that no agent has
 * seen yet: libgit2 works by path.
 */
extern bool bc_git_checkout(const char *project, const BcGitEntry *entry, const char *path,
							const git_tree *tree, BcGitProblem *problem);

/*
 * Makes <path>/.git name the entry, unless an agent put a directory there.
 * "fd" is the open directory.
 */
extern bool bc_git_checkout_link(int fd, const BcGitEntry *entry, BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_CHECKOUT_H */
