/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_patch_write.h
 *	  One changed file as a patch in git's format.
 *
 * libgit2 computes hunks and binary deltas; the text around them is written
 * here, in the form "git apply" reads for any file name and any kind of change.
 */
#ifndef BC_RUNNER_GIT_PATCH_WRITE_H
#define BC_RUNNER_GIT_PATCH_WRITE_H

#include <git2.h>
#include <stdbool.h>
#include <stdio.h>

#include "runner/git_problem.h"

/* One side of a change; mode 0: the file does not exist on this side. */
typedef struct BcPatchSide
{
	const char *path;
	unsigned	mode;
	git_oid		oid;
} BcPatchSide;

typedef struct BcPatchStats
{
	bool		binary;
	size_t		additions;		/* lines */
	size_t		deletions;
} BcPatchStats;

/*
 * Appends the patch to "out" and adds to "stats".  A change of type (a file
 * becomes a link) is written as a deletion and an addition.  "similarity" is
 * in percent, for a rename.  Content that is not valid UTF-8 or holds a NUL makes a
 * binary patch, so that the text is always valid UTF-8.
 */
extern bool bc_git_patch_write(FILE *out, git_repository *repo, const BcPatchSide *old,
							   const BcPatchSide *new, unsigned similarity,
							   BcPatchStats *stats, BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_PATCH_WRITE_H */
