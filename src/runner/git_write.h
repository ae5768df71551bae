/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_write.h
 *	  Changes files of a checkout: all of them or none.
 *
 * New contents are written into a staging directory at the top of the checkout
 * and synced; then files are moved, each by one rename, and what they replace is
 * kept in the staging directory until all are done.  When one fails, those
 * before it are moved back.  A run that is killed midway leaves every file old
 * or new, never half, and the staging directory, which the next run removes.
 */
#ifndef BC_RUNNER_GIT_WRITE_H
#define BC_RUNNER_GIT_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "runner/git_problem.h"

typedef struct BcWrite
{
	const char *path;			/* relative to the checkout, checked before */
	unsigned	mode;			/* git's; 0: remove the file */
	const char *data;			/* content, or target of a symbolic link */
	size_t		length;

	/* the file that was looked at; st_nlink 0: there was none */
	struct stat seen;
} BcWrite;

/*
 * "root" is the open checkout, "staging" a name in it that is ours.  On failure
 * "*failed" is the number of the write that could not be done, with reason
 * conflict when the file is not the one that was seen any more.
 */
extern bool bc_git_write(int root, const char *staging, const BcWrite *writes, size_t nwrites,
						 size_t *failed, BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_WRITE_H */
