/* SPDX-License-Identifier: PostgreSQL */
/*
 * draft.h
 *	  Finds where an agent says its text again.  Pure.
 *
 * When the model is cut off, some agents ask it once more and pass on what it
 * says, from the beginning and without a word about it.  That shows only where
 * the new text repeats the old one to its end; then the old one was a draft.
 * Text that merely looks like its own beginning for a while stays.
 */
#ifndef BC_RUNNER_DRAFT_H
#define BC_RUNNER_DRAFT_H

#include <stdbool.h>
#include <stddef.h>

#include "runner/buf.h"

#define BC_DRAFT_SEGMENTS 64

/* A stretch of text of one kind and message, to the next one or the end */
typedef struct BcSegment
{
	size_t		start;
	int			kind;
} BcSegment;

typedef struct BcDraft
{
	BcSegment	segments[BC_DRAFT_SEGMENTS];
	size_t		n;
	size_t		again;			/* where the text may begin again; 0: nowhere */
	bool		again_fresh;	/* there a segment begins */
} BcDraft;

/* The text is empty; a segment of this kind begins. */
extern void bc_draft_reset(BcDraft *draft, int kind);

/* Another segment begins at "start".  False: there are too many. */
extern bool bc_draft_segment(BcDraft *draft, size_t start, int kind);

/* Takes what the last segment added out of the text; the segment too, unless it is the only one. */
extern void bc_draft_drop(BcDraft *draft, BcBuf *text);

/*
 * "text" has been added to, from "from" on, all of the last segment's kind.
 * True when something of it turned out to be a draft; that is gone from "text".
 */
extern bool bc_draft_add(BcDraft *draft, BcBuf *text, size_t from);

#endif							/* BC_RUNNER_DRAFT_H */
