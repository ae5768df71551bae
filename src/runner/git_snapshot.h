/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_snapshot.h
 *	  The content of a worktree's directory as a tree in the repository.
 *
 * The directory is an agent's: every file is reached from an open directory
 * without following symbolic links, and nothing but regular files and symbolic
 * links is opened.  libgit2 never sees it.  The files that steer git
 * (.gitignore, .gitattributes) are copied into a scratch directory for it.
 */
#ifndef BC_RUNNER_GIT_SNAPSHOT_H
#define BC_RUNNER_GIT_SNAPSHOT_H

#include <git2.h>
#include <jansson.h>
#include <stdbool.h>

#include "runner/git_problem.h"
#include "runner/git_repo.h"

/* As max_file: where nothing is reported, a large file is no reason to fail. */
#define BC_GIT_ANY_FILE ((size_t) 2 << 30)

typedef struct BcSnapshotOptions
{
	const char *project;		/* path of the project */
	const char *path;			/* the worktree */
	const char *entry_dir;		/* its entry: index (cache) and scratch lie there */
	const git_tree *base;		/* what is tracked; its gitlinks stay */
	size_t		max_file;		/* bytes of one new file; more is diff_too_large */

	/* a submodule's directory with files in it becomes a plain directory */
	bool		unfold_gitlinks;

	/* what cannot be read, or is too large, is skipped */
	bool		leave_out;
} BcSnapshotOptions;

typedef struct BcSnapshot
{
	git_oid		tree;
	json_t	   *skipped;		/* ["path: why"], at most 100; owned */
	json_t	   *missed;			/* the paths of those that would be missed (not pipes, say), likewise; owned */
} BcSnapshot;

/*
 * Ignored files are left out unless they are tracked: in "base" or in the
 * worktree's index.  True: "snapshot" is filled, the tree written.
 */
extern bool bc_git_snapshot(const BcSnapshotOptions *options, BcSnapshot *snapshot,
							BcGitProblem *problem);

/* Frees what a snapshot owns. */
extern void bc_git_snapshot_free(BcSnapshot *snapshot);

#endif							/* BC_RUNNER_GIT_SNAPSHOT_H */
