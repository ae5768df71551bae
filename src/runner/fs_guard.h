/* SPDX-License-Identifier: PostgreSQL */
/*
 * fs_guard.h
 *	  Reads and writes text files for an agent, strictly inside its worktree.
 *
 * The runner is outside of the agent's sandbox, so a path must not lead it
 * elsewhere: not by "..", not by a symbolic link, not by what the agent swaps
 * in meanwhile.  Only regular files are touched, and nothing blocks on them.
 */
#ifndef BC_RUNNER_FS_GUARD_H
#define BC_RUNNER_FS_GUARD_H

#include <jansson.h>
#include <stddef.h>

#include "runner/buf.h"

#define BC_FS_MAX_FILE (16 * 1024 * 1024)	/* bytes of a file that is read or written */

typedef enum BcFsStatus
{
	BC_FS_OK = 0,
	BC_FS_NOT_FOUND = -1,
	BC_FS_REFUSED = -2,			/* not a path, or not a file, that we serve */
	BC_FS_FAILED = -3			/* the system said no */
} BcFsStatus;

/* "root" is the worktree; "path" is absolute, as the agent gave it. */
typedef struct BcFsProblem
{
	BcFsStatus	status;
	char		message[256];
} BcFsProblem;

/*
 * Appends the file's text to "out": "limit" lines from line "first" (1 is the
 * first one) on; a limit of 0 is no limit.  Files that are not text (UTF-8
 * without NUL) are refused.
 */
extern BcFsStatus bc_fs_read(const char *root, const char *path, json_int_t first,
							 json_int_t limit, BcBuf *out, BcFsProblem *problem);

/*
 * Makes "text" the content of the file.  Creates it and the directories above
 * it where missing.  Nothing below a git directory is written.
 */
extern BcFsStatus bc_fs_write(const char *root, const char *path, const char *text, size_t len,
							  BcFsProblem *problem);

#endif							/* BC_RUNNER_FS_GUARD_H */
