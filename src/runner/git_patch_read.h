/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_patch_read.h
 *	  Reads patches in git's format and applies them to contents in memory.
 *
 * libgit2 (up to 1.9 at least) applies a hunk only at the very line it names;
 * here it may have moved, as with "git apply", but never fits loosely.
 */
#ifndef BC_RUNNER_GIT_PATCH_READ_H
#define BC_RUNNER_GIT_PATCH_READ_H

#include <git2.h>
#include <stdbool.h>
#include <stddef.h>

/* A range of the patch's text, which must outlive it. */
typedef struct BcSpan
{
	const char *text;
	size_t		length;
} BcSpan;

typedef struct BcHunk
{
	BcSpan		header;			/* "@@ ... @@" */
	size_t		old_start;
	size_t		old_lines;
	size_t		new_lines;
	BcSpan		body;
} BcHunk;

/* Modes are 0 where the patch does not say, or where there is no file. */
typedef struct BcFilePatch
{
	char	   *old_path;		/* the same as new_path unless renamed */
	char	   *new_path;
	unsigned	old_mode;
	unsigned	new_mode;
	bool		is_new;
	bool		is_delete;
	bool		is_rename;
	BcSpan		binary;			/* from "GIT binary patch" on; empty: text */
	char		old_oid[GIT_OID_HEXSZ + 1];	/* of a binary patch */
	char		new_oid[GIT_OID_HEXSZ + 1];
	BcHunk	   *hunks;
	size_t		nhunks;
} BcFilePatch;

typedef struct BcPatch
{
	BcFilePatch *files;
	size_t		nfiles;
} BcPatch;

/* A byte string that the caller frees. */
typedef struct BcBytes
{
	char	   *data;
	size_t		length;
} BcBytes;

/*
 * Reads a patch.  NULL when it was read, else an English phrase for what is
 * wrong with it.  bc_git_patch_free() in either case.  Paths are not checked.
 */
extern const char *bc_git_patch_read(const char *text, size_t length, BcPatch *patch);
extern void bc_git_patch_free(BcPatch *patch);

/*
 * Applies the hunks (or the binary part) to "content".  NULL on success, with
 * "out" filled, else why not; "*failed" is then the hunk that did not fit, or
 * NULL.  "repo" is only used to store and read blobs of a binary patch.
 */
extern const char *bc_git_patch_apply(const BcFilePatch *file, git_repository *repo,
									  const BcSpan *content, BcBytes *out,
									  const BcHunk **failed);

#endif							/* BC_RUNNER_GIT_PATCH_READ_H */
