/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_content.h
 *	  Files of a worktree as blobs: read without trust, stored as git would.
 */
#ifndef BC_RUNNER_GIT_CONTENT_H
#define BC_RUNNER_GIT_CONTENT_H

#include <git2.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

#include "runner/git_problem.h"

/*
 * The repository's working directory is a scratch directory in the worktree's
 * entry: libgit2 opens .gitignore and .gitattributes by path, which in the
 * worktree itself could be pipes, or links to anywhere.
 */
typedef struct BcContent
{
	/* Settings */
	size_t		max_file;		/* bytes of a file that the base does not have */
	bool		file_mode;		/* the exec bit counts */

	/* Handles */
	git_repository *repo;
	git_odb    *odb;
	git_index  *index;			/* stat cache, and which files are tracked */
	int			entry;			/* directory of the worktree's entry */
	int			scratch;		/* directory */

	/* State */
	struct timespec index_time; /* files changed since are not looked up */
	bool		unread;			/* the last failure was of reading, not of storing */
	BcGitProblem *problem;		/* the caller's */
} BcContent;

/* Opens everything; bc_git_content_close() also when this fails. */
extern bool bc_git_content_open(BcContent *content, const char *project, const char *entry_dir,
								BcGitProblem *problem);
extern void bc_git_content_close(BcContent *content);

/*
 * The blob of the file or link "name" in "dir"; "path" is its name in the
 * worktree, "base" the blob that the base has there (NULL: none).
 */
extern bool bc_git_content_blob(BcContent *content, int dir, const char *name, const char *path,
								const struct stat *st, const git_oid *base, git_oid *oid);

/* Makes .gitignore and .gitattributes of a directory ("" or "a/b/") known. */
extern bool bc_git_content_steer(BcContent *content, int dir, const char *prefix);

/* Is "path" ignored?  A directory's ends with a slash. */
extern bool bc_git_content_ignored(BcContent *content, const char *path, bool *out);

#endif							/* BC_RUNNER_GIT_CONTENT_H */
