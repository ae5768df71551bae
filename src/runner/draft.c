/* SPDX-License-Identifier: PostgreSQL */
/*
 * draft.c
 *	  Finds where an agent says its text again.
 */
#include <string.h>

#include "runner/draft.h"

/* Within a message a repetition is only believed if it is not a short one. */
#define MIN_WITHIN 24

void
bc_draft_reset(BcDraft *draft, int kind)
{
	draft->segments[0] = (BcSegment) {0, kind};
	draft->n = 1;
	draft->again = 0;
}

bool
bc_draft_segment(BcDraft *draft, size_t start, int kind)
{
	if (draft->n >= BC_DRAFT_SEGMENTS)
		return false;
	draft->segments[draft->n++] = (BcSegment) {start, kind};
	return true;
}

void
bc_draft_drop(BcDraft *draft, BcBuf *text)
{
	if (text->len > draft->segments[draft->n - 1].start)
	{
		text->len = draft->segments[draft->n - 1].start;
		text->data[text->len] = '\0';
	}
	if (draft->n > 1)
		draft->n--;
	draft->again = 0;
}

/* Is everything in [start, end) of this kind? */
static bool
is_kind(const BcDraft *draft, size_t start, size_t end, int kind)
{
	for (size_t i = 0; i < draft->n && draft->segments[i].start < end; i++)
	{
		bool		last = i + 1 == draft->n;

		if ((last || draft->segments[i + 1].start > start) && draft->segments[i].kind != kind)
			return false;
	}
	return true;
}

/* Do the n bytes at "from" repeat those at "at"? */
static bool
repeats(const BcDraft *draft, const BcBuf *text, size_t from, size_t at, size_t n)
{
	return memcmp(text->data + from, text->data + at, n) == 0 &&
		is_kind(draft, at, at + n, draft->segments[draft->n - 1].kind);
}

/* Takes [start, end) out; what follows moves up. */
static void
cut(BcDraft *draft, BcBuf *text, size_t start, size_t end)
{
	size_t		kept = 0;

	memmove(text->data + start, text->data + end, text->len - end);
	text->len -= end - start;
	text->data[text->len] = '\0';
	for (size_t i = 0; i < draft->n; i++)
	{
		BcSegment	segment = draft->segments[i];
		bool		last = i + 1 == draft->n;

		/* One that has nothing left goes. */
		if (segment.start >= start && !last && draft->segments[i + 1].start <= end)
			continue;
		if (segment.start > end)
			segment.start -= end - start;
		else if (segment.start > start)
			segment.start = start;
		draft->segments[kept++] = segment;
	}
	draft->n = kept;
}

static size_t
min(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* The text goes on as its beginning did: has it all been said again? */
static bool
completed(BcDraft *draft, BcBuf *text)
{
	if (text->len < 2 * draft->again)
		return false;
	cut(draft, text, 0, draft->again);
	draft->again = 0;
	return true;
}

bool
bc_draft_add(BcDraft *draft, BcBuf *text, size_t from)
{
	bool		fresh = draft->segments[draft->n - 1].start == from;
	size_t		len = text->len - from;
	size_t		again = draft->again;
	bool		dropped = false;

	if (again > 0 && repeats(draft, text, from, from - again, min(len, 2 * again - from)))
		return completed(draft, text);

	/* It began again, but was cut off before it got as far as the first time; and now once more? */
	if (again > 0 && (from - again >= MIN_WITHIN || (fresh && draft->again_fresh)) &&
		repeats(draft, text, from, 0, min(len, again)))
	{
		cut(draft, text, again, from);
		from = again;
		dropped = true;
	}
	draft->again = 0;
	if (from > 0 && (fresh || from >= MIN_WITHIN) && repeats(draft, text, from, 0, min(len, from)))
	{
		draft->again = from;
		draft->again_fresh = fresh;
		dropped |= completed(draft, text);
	}
	return dropped;
}
