/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_copy.h
 *	  Files that a new worktree gets from the project's checkout although git
 *	  does not know them: settings, secrets, caches.
 */
#ifndef BC_RUNNER_GIT_COPY_H
#define BC_RUNNER_GIT_COPY_H

#include <git2.h>
#include <jansson.h>

/*
 * Copies the ignored files of the checkout of "repo" that match one of
 * "patterns" (an array of strings, may be NULL) or a line of the checkout's
 * .worktreeinclude into the directory "worktree".  Ignored files only: others
 * would be taken for work of the agent.  Regular files only, and none that
 * lies behind a symbolic link.  A file that can't be copied is left out.
 *
 * A new object: "files", "bytes", "skipped" (the first ones, each with why).
 */
extern json_t *bc_git_copy_ignored(git_repository *repo, int worktree, const json_t *patterns);

#endif							/* BC_RUNNER_GIT_COPY_H */
