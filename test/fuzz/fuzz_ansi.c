/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_ansi.c
 *	  What a program writes to a terminal: any bytes make the same valid text
 *	  and the same answers, without control characters, however they are cut;
 *	  and with pauses in between, valid text.
 */
#include "fuzz.h"

#include "runner/ansi.h"
#include "runner/text.h"

static BcBuf
plain(const char *bytes, size_t len, size_t step, bool pauses, BcBuf *answers)
{
	BcAnsi	   *ansi = bc_ansi_new();
	BcBuf		text = BC_BUF_INIT;

	for (size_t i = 0; i < len; i += step)
	{
		bc_ansi_feed(ansi, bytes + i, len - i < step ? len - i : step, &text, answers);
		if (pauses)
			bc_ansi_pause(ansi, &text);
	}
	bc_ansi_end(ansi, &text);
	bc_ansi_free(ansi);
	return text;
}

static bool
same(const BcBuf *a, const BcBuf *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* Text that is clean already stays as it is. */
static void
require_clean(const BcBuf *text)
{
	BcBuf		clean = BC_BUF_INIT;

	for (size_t i = 0; i < text->len; i++)
		REQUIRE(((unsigned char) text->data[i] >= 0x20 && text->data[i] != 0x7F) || text->data[i] == '\n');
	if (text->len > 0)
		bc_text_clean(&clean, text->data, text->len);
	REQUIRE(clean.len == text->len);
	bc_buf_free(&clean);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *) data;
	BcBuf		answers = BC_BUF_INIT;
	BcBuf		answers_cut = BC_BUF_INIT;
	BcBuf		whole = plain(bytes, size, size > 0 ? size : 1, false, &answers);
	BcBuf		cut = plain(bytes, size, 1, false, &answers_cut);
	BcBuf		paused = plain(bytes, size, 3, true, NULL);

	REQUIRE(same(&whole, &cut));
	REQUIRE(same(&answers, &answers_cut));
	require_clean(&whole);
	require_clean(&paused);
	bc_buf_free(&whole);
	bc_buf_free(&cut);
	bc_buf_free(&paused);
	bc_buf_free(&answers);
	bc_buf_free(&answers_cut);
	return 0;
}
