/* SPDX-License-Identifier: PostgreSQL */
/*
 * sse.h
 *	  Cuts a stream of bytes into server-sent events.  Pure.
 *
 * Of an event only its data is kept: the names and ids that the format has are
 * not used by those we listen to.  Lines end with a newline, or a carriage
 * return and a newline; a carriage return alone ends none.
 */
#ifndef BC_RUNNER_SSE_H
#define BC_RUNNER_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "runner/line.h"

typedef struct BcSse
{
	BcLines		lines;
	BcBuf		data;			/* of the event under way */
	size_t		max;			/* bytes of an event's data; 0: no limit */
	bool		has_data;
	bool		skipping;		/* the rest of an event that was too long */
	bool		begun;			/* a first line has been read */
} BcSse;

/* "data" is not NUL-terminated and valid only during the call. */
typedef void (*BcSseHandler) (const char *data, size_t len, void *arg);

extern void bc_sse_init(BcSse *sse, size_t max);
extern void bc_sse_free(BcSse *sse);

/* Another stream begins: what is under way is forgotten. */
extern void bc_sse_reset(BcSse *sse);

/*
 * Takes bytes and calls "handler" for each event that is complete, in order.
 * False when an event was longer than allowed: it was dropped, and events
 * behind it are served as usual.
 */
extern bool bc_sse_feed(BcSse *sse, const char *bytes, size_t len, BcSseHandler handler, void *arg);

#endif							/* BC_RUNNER_SSE_H */
