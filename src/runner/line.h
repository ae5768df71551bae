/* SPDX-License-Identifier: PostgreSQL */
/*
 * line.h
 *	  Cuts a stream of bytes into lines.
 *
 * A line ends at a newline; a carriage return before it belongs to the ending.
 * What is in a line is not looked at: NULs and invalid text pass through.
 */
#ifndef BC_RUNNER_LINE_H
#define BC_RUNNER_LINE_H

#include <stdbool.h>
#include <stddef.h>

#include "runner/buf.h"

typedef struct BcLines
{
	BcBuf		partial;		/* the line under way */
	size_t		max;			/* bytes of a line; 0: no limit */
	bool		skipping;		/* the rest of a line that was too long */
} BcLines;

/* "line" is not NUL-terminated and valid only during the call. */
typedef void (*BcLineHandler) (const char *line, size_t len, void *arg);

extern void bc_lines_init(BcLines *lines, size_t max);
extern void bc_lines_free(BcLines *lines);

/*
 * Takes bytes and calls "handler" for each line that is complete, in order.
 * False when a line was longer than allowed: it was dropped, and lines behind
 * it are served as usual.
 */
extern bool bc_lines_feed(BcLines *lines, const char *bytes, size_t len,
						  BcLineHandler handler, void *arg);

/* The stream has ended: a last line without a newline counts. */
extern void bc_lines_end(BcLines *lines, BcLineHandler handler, void *arg);

#endif							/* BC_RUNNER_LINE_H */
