/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_found.h
 *	  What lies at a path of the project's checkout, compared with what git
 *	  holds: the checkout's form of a file may differ (line ends).
 */
#ifndef BC_RUNNER_GIT_FOUND_H
#define BC_RUNNER_GIT_FOUND_H

#include <git2.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "runner/git_plan.h"

typedef enum BcFoundKind
{
	BC_FOUND_NOTHING,
	BC_FOUND_FILE,				/* a regular file or a symbolic link */
	BC_FOUND_DIR,
	BC_FOUND_OTHER,				/* a socket, a device... */
	BC_FOUND_BLOCKED,			/* a component above it is a file */
	BC_FOUND_LINKED,			/* a component above it is a symbolic link */
	BC_FOUND_ERROR				/* errno says */
} BcFoundKind;

typedef struct BcFound
{
	BcFoundKind kind;
	char	   *blocker;		/* BLOCKED and LINKED: the component's path */
	struct stat st;
	BcBytes		raw;			/* as it lies there; a link's target */
	git_oid		clean;			/* id of the form that git stores */
} BcFound;

/* "root" is the open checkout.  Always bc_git_found_free() afterwards. */
extern void bc_git_found(git_repository *repo, int root, const char *path, BcFound *found);
extern void bc_git_found_free(BcFound *found);

/* Is it this state?  The exec bit counts only with "file_mode". */
extern bool bc_git_found_is(const BcFound *found, const BcFileState *state, bool file_mode);

/*
 * The content that makes the checkout hold "state".  "found" is what lies
 * there now: a file that was not converted is not converted either.  0, or
 * libgit2's error code; the caller frees "out".
 */
extern int	bc_git_found_form(git_repository *repo, const char *path, const BcFound *found,
							  const BcFileState *before, const BcFileState *state,
							  BcBytes *out);

#endif							/* BC_RUNNER_GIT_FOUND_H */
