/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_text.c
 *	  Clean text is clean, cut at no character, and what is parsed can be
 *	  written as JSON that a strict parser takes.
 */
#include "fuzz.h"

#include "runner/text.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *in = (const char *) data;
	BcBuf		clean = BC_BUF_INIT;
	BcBuf		json = BC_BUF_INIT;
	size_t		complete = bc_text_complete(in, size);
	json_t	   *value = bc_text_parse(in, size);

	REQUIRE(complete <= size && size - complete <= 3);
	bc_text_clean(&clean, in, size);
	REQUIRE(bc_text_is_clean(clean.data, clean.len));
	for (size_t max = 0; max <= clean.len && max < 8; max++)
		REQUIRE(bc_text_is_clean(clean.data, bc_text_cut(clean.data, clean.len, max)));
	if (value != NULL)
	{
		json_t	   *again;

		bc_text_json(&json, value, 64);
		again = json_loadb(json.data, json.len, JSON_DECODE_ANY, NULL);
		REQUIRE(again != NULL);
		REQUIRE(json_typeof(again) == json_typeof(value) || (json_is_number(again) && json_is_real(value)));
		json_decref(again);
		json_decref(value);
	}
	bc_buf_free(&clean);
	bc_buf_free(&json);
	return 0;
}
