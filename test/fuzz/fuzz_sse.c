/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_sse.c
 *	  Any stream gives the same events however it is cut, and none is longer than
 *	  allowed.
 */
#include "fuzz.h"

#include "runner/sse.h"

#define MAX_EVENT 64

static void
collect(const char *data, size_t len, void *arg)
{
	BcBuf	   *seen = arg;

	REQUIRE(len <= MAX_EVENT);
	bc_buf_printf(seen, "%zu:", len);
	bc_buf_add(seen, data, len);
}

static BcBuf
events(const char *bytes, size_t len, size_t step)
{
	BcBuf		seen = BC_BUF_INIT;
	BcSse		sse;

	bc_sse_init(&sse, MAX_EVENT);
	for (size_t i = 0; i < len; i += step)
		(void) bc_sse_feed(&sse, bytes + i, len - i < step ? len - i : step, collect, &seen);
	bc_sse_free(&sse);
	return seen;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	BcBuf		whole = events((const char *) data, size, size > 0 ? size : 1);
	BcBuf		cut = events((const char *) data, size, 1);

	REQUIRE(whole.len == cut.len);
	REQUIRE(whole.len == 0 || memcmp(whole.data, cut.data, whole.len) == 0);
	bc_buf_free(&whole);
	bc_buf_free(&cut);
	return 0;
}
