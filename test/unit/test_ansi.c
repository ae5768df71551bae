/* SPDX-License-Identifier: PostgreSQL */
/* Tests of ansi.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runner/ansi.h"

/* Feeds "bytes" in pieces of "step"; the text, the caller's to free. */
static char *
plain(const char *bytes, size_t len, size_t step)
{
	BcAnsi	   *ansi = bc_ansi_new();
	BcBuf		text = BC_BUF_INIT;

	bc_buf_str(&text, "");
	for (size_t i = 0; i < len; i += step)
		bc_ansi_feed(ansi, bytes + i, len - i < step ? len - i : step, &text);
	bc_ansi_end(ansi, &text);
	bc_ansi_free(ansi);
	return text.data;
}

static void
check(const char *bytes, const char *expected)
{
	size_t		len = strlen(bytes);

	for (size_t step = 1; step <= len; step++)
	{
		char	   *text = plain(bytes, len, step);

		assert_string_equal(text, expected);
		free(text);
	}
}

static void
test_sequences_leave_nothing(void **state)
{
	(void) state;
	check("\033[1;31mred\033[0m\r\n", "red\n");
	check("\033]0;title\007text\n", "text\n");
	check("\033]8;;http://x\033\\link\033]8;;\033\\\n", "link\n");
	check("\033P1$r0m\033\\a\033(Bb\033=c\n", "abc\n");
	check("\033[?25lx\033[?25h\n", "x\n");
	check("a\033", "a");
	check("a\033[3", "a");
	check("a\033]0;never ended", "a");
	check("\033]0;broken\033[32moff\n", "off\n");
	check("bell\007 nul\n", "bell nul\n");
}

static void
test_a_line_is_what_it_was_last(void **state)
{
	(void) state;
	check("| working\r/ working\r\033[Kdone\r\n", "done\n");
	check("10%\r100%\n", "100%\n");
	check("abcdef\rxy\n", "xycdef\n");
	check("abc\b\bX\n", "aXc\n");
	check("abc\033[2D\033[Pz\n", "az\n");
	check("one\033[10Gtwo\n", "one      two\n");
	check("a\tb\n", "a       b\n");
	check("abc\033[1K\rx\n", "x\n");
	check("blanks   \r\n", "blanks\n");
	check("no newline", "no newline");
}

static void
test_pictures(void **state)
{
	(void) state;
	/* what is painted again and again is said once */
	check("\033[2J\033[Hstatus\033[Hstatus\033[Hstatus\033[Hready\n", "status\nready\n");
	/* lines that repeat are kept */
	check("ok\r\nok\r\n", "ok\nok\n");
}

static void
test_characters(void **state)
{
	(void) state;
	check("gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\n", "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\n");
	check("\xc3\n", "\xef\xbf\xbd\n");
	check("\xff\xfe\n", "\xef\xbf\xbd\xef\xbf\xbd\n");
	check("\xe2\x82\n", "\xef\xbf\xbd\n");
	check("\xed\xa0\x80\n", "\xef\xbf\xbd\n");
	check("\xc0\xaf\n", "\xef\xbf\xbd\xef\xbf\xbd\n");
	check("\xc3\033[0mx\n", "\xef\xbf\xbdx\n");
	check("\033[3\xc3\xbcx\n", "\xc3\xbcx\n");
	/* one cell a character: a carriage return counts them */
	check("\xc3\xbc\xc3\xbc\rx\n", "x\xc3\xbc\n");
}

static void
test_bounds(void **state)
{
	static const char far[] = "\033[999999999999999999999Cx\033[99999999Dy\n";
	size_t		len = 1 << 20;
	char	   *bytes = malloc(len);
	char	   *text;

	(void) state;
	memset(bytes, 'x', len);
	text = plain(bytes, len, 4096);
	assert_int_equal(strspn(text, "x\n"), strlen(text));
	assert_int_equal(strlen(text) >= len, 1);
	free(text);
	/* a string without end gives the rest back some time */
	memcpy(bytes, "\033]0;", 4);
	text = plain(bytes, len, 4096);
	assert_int_equal(strlen(text) > len / 2, 1);
	free(text);
	free(bytes);
	text = plain(far, strlen(far), 7);
	assert_int_equal(text[0], 'y');
	assert_int_equal(text[strlen(text) - 2], 'x');
	free(text);
}

static void
test_questions(void **state)
{
	static const char opens[] = "\033[?2004h\033[6n\033[c";
	static const char closes[] = "\033[?2004l\033[5n";
	BcAnsi	   *ansi = bc_ansi_new();
	BcBuf		text = BC_BUF_INIT;

	(void) state;
	assert_false(bc_ansi_brackets_paste(ansi));
	bc_ansi_feed(ansi, opens, strlen(opens), &text);
	assert_true(bc_ansi_brackets_paste(ansi));
	assert_int_equal(bc_ansi_questions(ansi), BC_ANSI_ASKS_CURSOR | BC_ANSI_ASKS_ATTRIBUTES);
	assert_int_equal(bc_ansi_questions(ansi), 0);
	bc_ansi_feed(ansi, closes, strlen(closes), &text);
	assert_false(bc_ansi_brackets_paste(ansi));
	assert_int_equal(bc_ansi_questions(ansi), 0);
	bc_ansi_free(ansi);
	bc_buf_free(&text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sequences_leave_nothing),
		cmocka_unit_test(test_a_line_is_what_it_was_last),
		cmocka_unit_test(test_pictures),
		cmocka_unit_test(test_characters),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_questions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
