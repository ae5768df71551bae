/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_ansi.c
 *	  What a program writes to a terminal: any bytes make the same valid text,
 *	  without control characters, however they are cut.
 */
#include "fuzz.h"

#include "runner/ansi.h"
#include "runner/text.h"

static BcBuf
plain(const char *bytes, size_t len, size_t step)
{
	BcAnsi	   *ansi = bc_ansi_new();
	BcBuf		text = BC_BUF_INIT;

	for (size_t i = 0; i < len; i += step)
		bc_ansi_feed(ansi, bytes + i, len - i < step ? len - i : step, &text);
	bc_ansi_end(ansi, &text);
	bc_ansi_free(ansi);
	return text;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	BcBuf		whole = plain((const char *) data, size, size > 0 ? size : 1);
	BcBuf		cut = plain((const char *) data, size, 1);
	BcBuf		clean = BC_BUF_INIT;

	REQUIRE(whole.len == cut.len);
	REQUIRE(whole.len == 0 || memcmp(whole.data, cut.data, whole.len) == 0);
	for (size_t i = 0; i < whole.len; i++)
		REQUIRE((unsigned char) whole.data[i] >= 0x20 || whole.data[i] == '\n');
	/* Text that is clean already stays as it is. */
	if (whole.len > 0)
		bc_text_clean(&clean, whole.data, whole.len);
	REQUIRE(clean.len == whole.len);
	bc_buf_free(&whole);
	bc_buf_free(&cut);
	bc_buf_free(&clean);
	return 0;
}
