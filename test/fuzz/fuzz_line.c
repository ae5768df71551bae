/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_line.c
 *	  The lines of a stream do not depend on how it is cut.  The first byte of
 *	  the input is the size of the pieces, the second the limit of a line.
 */
#include "fuzz.h"

#include "runner/line.h"

static void
collect(const char *line, size_t len, void *arg)
{
	bc_buf_add(arg, line, len);
	bc_buf_add(arg, "\n", 1);
}

static bool
split(const uint8_t *data, size_t size, size_t piece, size_t max, BcBuf *out)
{
	BcLines		lines;
	bool		fits = true;

	bc_lines_init(&lines, max);
	for (size_t at = 0; at < size; at += piece)
		if (!bc_lines_feed(&lines, (const char *) data + at, size - at < piece ? size - at : piece, collect, out))
			fits = false;
	bc_lines_end(&lines, collect, out);
	bc_lines_free(&lines);
	return fits;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	BcBuf		whole = BC_BUF_INIT;
	BcBuf		pieces = BC_BUF_INIT;

	if (size < 3)
		return 0;
	REQUIRE(split(data + 2, size - 2, size, data[1], &whole) ==
			split(data + 2, size - 2, 1 + data[0] % 16, data[1], &pieces));
	REQUIRE(whole.len == pieces.len && (whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0));
	bc_buf_free(&whole);
	bc_buf_free(&pieces);
	return 0;
}
