/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_open.h
 *	  Opens the session of a chat on opencode serve: the earlier one that the
 *	  order names, if the server knows it, otherwise a new one and an event that
 *	  tells of the loss.
 */
#ifndef BC_RUNNER_OPENCODE_OPEN_H
#define BC_RUNNER_OPENCODE_OPEN_H

typedef void (*BcOpencodeOpened) (const char *id);

/*
 * "known" is a session that is ours already, or NULL.  Ends what a lost runner
 * left running in the worktree, where nothing else works now.  The turn fails
 * when no session can be had.
 */
extern void bc_opencode_open(const char *known, BcOpencodeOpened opened);

/* A new session instead of that one, for the same. */
extern void bc_opencode_open_new(const char *instead_of, const char *why);

#endif							/* BC_RUNNER_OPENCODE_OPEN_H */
