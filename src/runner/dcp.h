/* SPDX-License-Identifier: PostgreSQL */
/*
 * dcp.h
 *	  Takes the marks of opencode's plugin "dynamic context pruning" out of text
 *	  that comes in pieces.  Pure.
 *
 * The plugin numbers the messages it shows to the model, and models repeat that:
 * <dcp-message-id>m0042</dcp-message-id>, also with attributes, with the number
 * of a block (b7), with both, or with BLOCKED in its place.  Such a mark is
 * removed; whatever is not exactly one stays, so that text about the marks does
 * not lose any of its own.
 */
#ifndef BC_RUNNER_DCP_H
#define BC_RUNNER_DCP_H

#include <stddef.h>

#include "runner/buf.h"

typedef struct BcDcp
{
	BcBuf		held;			/* the beginning of what may be a mark */
	int			part;			/* of a mark, that is under way */
	size_t		at;				/* how far in it */
} BcDcp;

#define BC_DCP_INIT {BC_BUF_INIT, 0, 0}

extern void bc_dcp_free(BcDcp *dcp);

/* Takes text; appends to "out" what is known not to be of a mark. */
extern void bc_dcp_feed(BcDcp *dcp, const char *text, size_t len, BcBuf *out);

/* The text has ended: what was held back is no mark. */
extern void bc_dcp_end(BcDcp *dcp, BcBuf *out);

#endif							/* BC_RUNNER_DCP_H */
