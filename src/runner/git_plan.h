/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_plan.h
 *	  What a patch makes of the files of a tree, in memory.
 */
#ifndef BC_RUNNER_GIT_PLAN_H
#define BC_RUNNER_GIT_PLAN_H

#include <git2.h>
#include <stdbool.h>

#include "runner/git_patch_read.h"

/* A file as git sees it; mode 0: there is none. */
typedef struct BcFileState
{
	unsigned	mode;
	BcBytes		content;
} BcFileState;

typedef struct BcPlanFile
{
	char	   *path;
	BcFileState before;
	BcFileState after;
} BcPlanFile;

/*
 * The files that a patch touches.  When it does not fit, "why" says so, "path"
 * names the file and "hunk" the hunk (or NULL); "before" is valid for those
 * files that were reached.
 */
typedef struct BcPlan
{
	BcPlanFile *files;
	size_t		nfiles;
	const char *why;
	const char *path;
	const BcHunk *hunk;
} BcPlan;

/* Always bc_git_plan_free() afterwards.  The patch must outlive the plan. */
extern void bc_git_plan_make(const BcPatch *patch, git_repository *repo, const git_tree *tree,
							 BcPlan *plan);
extern void bc_git_plan_free(BcPlan *plan);

/*
 * The tree that results when all plans are carried out on "tree".  0, or
 * libgit2's error code.
 */
extern int	bc_git_plan_tree(const BcPlan *plans, size_t nplans, git_repository *repo,
							 const git_tree *tree, git_oid *out);

#endif							/* BC_RUNNER_GIT_PLAN_H */
