/* SPDX-License-Identifier: PostgreSQL */
/*
 * line.c
 *	  Cuts a stream of bytes into lines.
 */
#include <string.h>

#include "runner/line.h"

void
bc_lines_init(BcLines *lines, size_t max)
{
	*lines = (BcLines) {.partial = BC_BUF_INIT, .max = max, .skipping = false};
}

void
bc_lines_free(BcLines *lines)
{
	bc_buf_free(&lines->partial);
}

static void
serve(const char *line, size_t len, BcLineHandler handler, void *arg)
{
	if (len > 0 && line[len - 1] == '\r')
		len--;
	handler(line, len, arg);
}

/* Would the line be too long with "extra" more bytes? */
static bool
exceeds(const BcLines *lines, size_t extra)
{
	return lines->max > 0 && extra > lines->max - lines->partial.len;
}

bool
bc_lines_feed(BcLines *lines, const char *bytes, size_t len, BcLineHandler handler, void *arg)
{
	bool		fits = true;

	while (len > 0)
	{
		const char *newline = memchr(bytes, '\n', len);
		size_t		n = newline != NULL ? (size_t) (newline - bytes) : len;

		if (!lines->skipping && exceeds(lines, n))
		{
			lines->skipping = true;
			bc_buf_clear(&lines->partial);
			fits = false;
		}
		if (newline == NULL)
		{
			if (!lines->skipping)
				bc_buf_add(&lines->partial, bytes, n);
			break;
		}
		if (lines->skipping)
			lines->skipping = false;
		else if (lines->partial.len == 0)
			serve(bytes, n, handler, arg);
		else
		{
			bc_buf_add(&lines->partial, bytes, n);
			serve(lines->partial.data, lines->partial.len, handler, arg);
			bc_buf_clear(&lines->partial);
		}
		bytes += n + 1;
		len -= n + 1;
	}
	return fits;
}

void
bc_lines_end(BcLines *lines, BcLineHandler handler, void *arg)
{
	if (lines->partial.len > 0)
		serve(lines->partial.data, lines->partial.len, handler, arg);
	bc_buf_clear(&lines->partial);
}
