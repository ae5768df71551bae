/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_text.c
 *	  Repair of text and of JSON.
 */
#include "unit.h"

#include "capture.h"
#include "runner/text.h"

#define FFFD "\xEF\xBF\xBD"

static void
assert_clean(const char *in, size_t len, const char *expected)
{
	BcBuf		out = BC_BUF_INIT;

	bc_text_clean(&out, in, len);
	assert_string_equal(out.data, expected);
	assert_int_equal(out.len, strlen(expected));
	assert_true(bc_text_is_clean(out.data, out.len));
	bc_buf_free(&out);
}

static void
what_is_no_text_becomes_the_replacement_character(void **state)
{
	(void) state;
	assert_clean("", 0, "");
	assert_clean("plain", 5, "plain");
	assert_clean("h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80", 12, "h\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80");
	assert_clean("a\0b", 3, "a" FFFD "b");
	assert_clean("\xFF", 1, FFFD);
	assert_clean("a\xC3", 2, "a" FFFD);
	assert_clean("\xE2\x82z", 3, FFFD FFFD "z");
	/* overlong forms, surrogates, beyond the last character */
	assert_clean("\xC0\x80", 2, FFFD FFFD);
	assert_clean("\xE0\x80\x80", 3, FFFD FFFD FFFD);
	assert_clean("\xED\xA0\x80", 3, FFFD FFFD FFFD);
	assert_clean("\xF4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD);
}

static void
characters_are_never_cut_at_the_border_of_chunks(void **state)
{
	static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";
	size_t		len = sizeof(text) - 1;

	(void) state;
	for (size_t cut = 0; cut <= len; cut++)
	{
		size_t		complete = bc_text_complete(text, cut);
		BcBuf		out = BC_BUF_INIT;

		assert_true(complete <= cut && cut - complete <= 3);
		bc_text_clean(&out, text, complete);
		bc_text_clean(&out, text + complete, len - complete);
		assert_string_equal(out.data, text);
		bc_buf_free(&out);
	}
	/* what can't become a character doesn't wait */
	assert_int_equal(bc_text_complete("a\xFF", 2), 2);
	assert_int_equal(bc_text_complete("\x80\x80\x80\x80", 4), 4);
}

static void
texts_are_cut_between_characters(void **state)
{
	static const char text[] = "a\xE2\x82\xACz";

	(void) state;
	assert_int_equal(bc_text_cut(text, 5, 9), 5);
	assert_int_equal(bc_text_cut(text, 5, 4), 4);
	assert_int_equal(bc_text_cut(text, 5, 3), 1);
	assert_int_equal(bc_text_cut(text, 5, 2), 1);
	assert_int_equal(bc_text_cut(text, 5, 0), 0);
	assert_int_equal(bc_text_start(text, 5, 0), 0);
	assert_int_equal(bc_text_start(text, 5, 2), 4);
	assert_int_equal(bc_text_start(text, 5, 5), 5);
}

/* "in" is parsed and written again. */
static void
assert_round(const char *in, size_t len, const char *expected)
{
	json_t	   *value = bc_text_parse(in, len);
	BcBuf		out = BC_BUF_INIT;

	if (value == NULL)
		fail_msg("not parsed: %s", in);
	bc_text_json(&out, value, SIZE_MAX);
	assert_string_equal(out.data, expected);
	bc_buf_free(&out);
	json_decref(value);
}

#define ROUND(in, expected) assert_round(in, sizeof(in) - 1, expected)

static void
json_with_a_fault_is_not_lost(void **state)
{
	(void) state;
	ROUND("{\"a\":\"\\u0000\"}", "{\"a\":\"" FFFD "\"}");
	ROUND("{\"\\u0000k\":1}", "{\"" FFFD "k\":1}");
	ROUND("{\"a\":\"\\ud83d\\ude00\"}", "{\"a\":\"\xF0\x9F\x98\x80\"}");
	ROUND("{\"a\":\"\\ud83d\"}", "{\"a\":\"" FFFD "\"}");
	ROUND("{\"a\":\"\\ude00\\ud83d\"}", "{\"a\":\"" FFFD FFFD "\"}");
	ROUND("{\"a\":\"\\ud83d\\u0041\"}", "{\"a\":\"" FFFD "A\"}");
	ROUND("{\"a\":\"\xFF\"}", "{\"a\":\"" FFFD "\"}");
	ROUND("{\"a\":\"x\0y\"}", "{\"a\":\"x" FFFD "y\"}");
	ROUND("{\"a\":\"tab\tbell\x07\"}", "{\"a\":\"tab\\u0009bell\\u0007\"}");
	ROUND("{\"a\":\"C:\\x \\u12 \\\\u0000\"}", "{\"a\":\"C:\\\\x \\\\u12 \\\\u0000\"}");
	ROUND("\x1b\xEF\xBB\xBF{\"a\":1}", "{\"a\":1}");
	ROUND("{\"a\":NaN,\"b\":-Infinity,\"c\":1e999}", "{\"a\":null,\"b\":null,\"c\":null}");
	ROUND("{\"a\":9223372036854775807,\"b\":9223372036854775808}",
		  "{\"a\":9223372036854775807,\"b\":9.2233720368547758e+18}");
	ROUND("{\"a\":5,\"b\":\"\\ud800\"}", "{\"a\":5,\"b\":\"" FFFD "\"}");
}

static void
what_is_no_json_is_refused(void **state)
{
	static const char *const texts[] = {
		"", " ", "{", "{\"a\"", "{\"a\":", "{\"a\":\"", "{\"a\":\"\\", "{\"a\":\"\\u", "hello", "[1,]", "\xFF"
	};

	(void) state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_null(bc_text_parse(texts[i], strlen(texts[i])));
}

static void
nesting_without_end_is_harmless(void **state)
{
	size_t		n = 1000 * 1000;
	char	   *text = malloc(2 * n);
	json_t	   *value;
	BcBuf		out = BC_BUF_INIT;

	(void) state;
	memset(text, '[', n);
	memset(text + n, ']', n);
	assert_null(bc_text_parse(text, 2 * n));
	value = bc_text_parse(text + n - 1000, 2000);
	assert_non_null(value);
	bc_text_json(&out, value, SIZE_MAX);
	assert_int_equal(strspn(out.data, "["), 129);
	bc_buf_free(&out);
	json_decref(value);
	free(text);
}

static void
long_texts_are_cut_when_written(void **state)
{
	json_t	   *value = json_of("{'a': 'h\xC3\xA9llo'}");
	BcBuf		out = BC_BUF_INIT;

	(void) state;
	bc_text_json(&out, value, 4);
	assert_string_equal(out.data, "{\"a\":\"h\xC3\xA9l\xE2\x80\xA6\"}");
	bc_buf_free(&out);
	json_decref(value);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_text_becomes_the_replacement_character),
		cmocka_unit_test(characters_are_never_cut_at_the_border_of_chunks),
		cmocka_unit_test(texts_are_cut_between_characters),
		cmocka_unit_test(json_with_a_fault_is_not_lost),
		cmocka_unit_test(what_is_no_json_is_refused),
		cmocka_unit_test(nesting_without_end_is_harmless),
		cmocka_unit_test(long_texts_are_cut_when_written),
	};

	return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
