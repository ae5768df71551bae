/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_dcp.c
 *	  Any text loses the same however it is cut, only what begins and ends as a
 *	  mark does, and little is ever held back.
 */
#include "fuzz.h"

#include "runner/dcp.h"

static BcBuf
strip(const char *text, size_t len, size_t step)
{
	BcDcp		dcp = BC_DCP_INIT;
	BcBuf		out = BC_BUF_INIT;

	for (size_t i = 0; i < len; i += step)
	{
		bc_dcp_feed(&dcp, text + i, len - i < step ? len - i : step, &out);
		REQUIRE(dcp.held.len < 512);
	}
	bc_dcp_end(&dcp, &out);
	bc_dcp_free(&dcp);
	return out;
}

static size_t
count(const char *text, size_t len, const char *what)
{
	size_t		n = 0;

	for (const char *at = text; len > 0 && (at = memmem(at, len - (size_t) (at - text), what, strlen(what))) != NULL; at++)
		n++;
	return n;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *) data;
	BcBuf		whole = strip(text, size, size > 0 ? size : 1);
	BcBuf		cut = strip(text, size, 1);

	REQUIRE(whole.len == cut.len && whole.len <= size);
	REQUIRE(whole.len == 0 || memcmp(whole.data, cut.data, whole.len) == 0);
	if (count(text, size, "</dcp-message-id>") == 0)
		REQUIRE(whole.len == size);
	REQUIRE(size - whole.len <= 512 * count(text, size, "</dcp-message-id>"));
	bc_buf_free(&whole);
	bc_buf_free(&cut);
	return 0;
}
