/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_drift.h
 *	  What lies where worktrees lie, and is none that the database knows.
 */
#ifndef BC_RUNNER_GIT_DRIFT_H
#define BC_RUNNER_GIT_DRIFT_H

#include <git2.h>
#include <jansson.h>
#include <stdbool.h>

/*
 * "known" are the paths of all worktrees of the database.  Gives new
 * {"entries": [{"name", "path"}], "directories": [path], "more": n}: the
 * repository's entries of ours for paths below "root", and, when "look" is set,
 * the directories there, that are not known; at most 20 of each, the others are
 * counted.  Touches nothing.
 */
extern json_t *bc_git_drift(git_repository *repo, const char *root, const json_t *known, bool look);

#endif							/* BC_RUNNER_GIT_DRIFT_H */
