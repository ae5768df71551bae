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
		bc_ansi_feed(ansi, bytes + i, len - i < step ? len - i : step, &text, NULL);
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
	/* sequences for other kinds of terminals, and of other makers */
	check("\033[?1049;25h\033[>4;2m\033[>1u\033[2 q\033[?2026$p\033#8x\n", "x\n");
}

static void
test_c1_characters(void **state)
{
	(void) state;
	check("\xc2\x9b" "31mred\xc2\x9b" "0m\n", "red\n");
	check("\xc2\x9d" "0;title\xc2\x9ctext\n", "text\n");
	check("\xc2\x9d" "0;title\007text\xc2\x85next\n", "text\nnext\n");
	check("\xc2\x90q\033\\a\xc2\x80\xc2\x9c" "b\n", "ab\n");
	/* a byte alone is none in UTF-8 */
	check("\x9b" "31mred\n", "\xef\xbf\xbd" "31mred\n");
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
	check("abcdef\033[4D\033[2X\n", "ab  ef\n");
	check("abef\033[2D\033[2@cd\n", "abcdef\n");
	check("-\033[4b\n", "-----\n");
	check("\033[4bx\n", "x\n");
	/* what is saved is a place in this line */
	check("ab\0337cd\0338X\n", "abXd\n");
	check("ab\033[scd\033[uX\n", "abXd\n");
	check("abc\033[s\n\033[ux\n", "abc\nx\n");
}

/* Feeds the pieces with a pause behind each; the text up to the last pause, and all of it. */
static void
check_pauses(const char *const *pieces, const char *paused, const char *all)
{
	BcAnsi	   *ansi = bc_ansi_new();
	BcBuf		text = BC_BUF_INIT;

	bc_buf_str(&text, "");
	for (; *pieces != NULL; pieces++)
	{
		bc_ansi_feed(ansi, *pieces, strlen(*pieces), &text, NULL);
		bc_ansi_pause(ansi, &text);
		bc_ansi_pause(ansi, &text);
	}
	assert_string_equal(text.data, paused);
	bc_ansi_end(ansi, &text);
	assert_string_equal(text.data, all);
	bc_ansi_free(ansi);
	bc_buf_free(&text);
}

#define PIECES(...) ((const char *const[]) {__VA_ARGS__, NULL})

static void
test_pauses(void **state)
{
	(void) state;
	/* a question is said before it is answered, and once */
	check_pauses(PIECES("Sure? [y/N] "), "Sure? [y/N]", "Sure? [y/N]");
	check_pauses(PIECES("Sure? ", "yes\r\n", "then"), "Sure? yes\nthen", "Sure? yes\nthen");
	check_pauses(PIECES("a", "b", "\033[31", "mc"), "abc", "abc");
	check_pauses(PIECES("gr\xc3", "\xbc"), "gr\xc3\xbc", "gr\xc3\xbc");
	/* what was said stays, what takes its place is below it */
	check_pauses(PIECES("Sure? ", "\r\033[Kdone\n"), "Sure?\ndone\n", "Sure?\ndone\n");
	check_pauses(PIECES("Sure? ", "\r\033[K", "\n"), "Sure?\n", "Sure?\n");
	check_pauses(PIECES("Sure? ", "\033[2J\033[H"), "Sure?\n", "Sure?\n");
	/* spinners are no questions */
	check_pauses(PIECES("\r- working", "\r/ working", "\r\033[Kdone"), "", "done");
	check_pauses(PIECES("x\b", "y\b", "z"), "", "z");
}

static void
test_pictures(void **state)
{
	(void) state;
	/* what is painted again and again is said once */
	check("\033[2J\033[Hstatus\033[Hstatus\033[Hstatus\033[Hready\n", "status\nready\n");
	/* lines that repeat are kept */
	check("ok\r\nok\r\n", "ok\nok\n");
	/* the alternate screen is another picture */
	check("before\033[?1049hinside\033[?1049lafter\n", "before\ninside\nafter\n");
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
	static const char *const makers[] = {"\033[9999Gx\n", "x\033[9999b\n", "\033[9999Cx\n", "x\r\033[9999@x\n"};
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
	/* little makes no flood */
	for (size_t i = 0; i < sizeof(makers) / sizeof(makers[0]); i++)
	{
		text = plain(makers[i], strlen(makers[i]), 1);
		assert_true(strlen(text) <= 600);
		free(text);
	}
}

static void
test_questions(void **state)
{
	static const char asks[] = "\033[6n\033[c\033[6n\033[0c\xc2\x9b" "6n";
	static const char others[] = "\033[5n\033[?6n\033[>c\033[=c\033[?1;2c\033[1;1R\033]0;[6n\007";

	(void) state;
	for (size_t step = 1; step <= strlen(asks); step++)
	{
		BcAnsi	   *ansi = bc_ansi_new();
		BcBuf		text = BC_BUF_INIT;
		BcBuf		answers = BC_BUF_INIT;

		for (size_t i = 0; i < strlen(asks); i += step)
			bc_ansi_feed(ansi, asks + i, strlen(asks) - i < step ? strlen(asks) - i : step, &text, &answers);
		/* every one, in its order */
		assert_string_equal(answers.data, "\033[1;1R\033[?1;2c\033[1;1R\033[?1;2c\033[1;1R");
		bc_buf_clear(&answers);
		bc_ansi_feed(ansi, others, strlen(others), &text, &answers);
		assert_int_equal(answers.len, 0);
		bc_ansi_free(ansi);
		bc_buf_free(&text);
		bc_buf_free(&answers);
	}
}

static void
test_bracketed_paste(void **state)
{
	static const struct
	{
		const char *bytes;
		bool		after;
	}			steps[] = {
		{"text", false}, {"\033[?2004h", true}, {"\033[?25l\033[2004l", true}, {"\033[?1004;2004l", false},
		{"\033[?25;2004h", true}, {"\033[?20040l", true}, {"\033[?2004l", false}, {"\033[2004h", false},
	};
	BcAnsi	   *ansi = bc_ansi_new();
	BcBuf		text = BC_BUF_INIT;

	(void) state;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
	{
		bc_ansi_feed(ansi, steps[i].bytes, strlen(steps[i].bytes), &text, NULL);
		assert_int_equal(bc_ansi_brackets_paste(ansi), steps[i].after);
	}
	bc_ansi_free(ansi);
	bc_buf_free(&text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sequences_leave_nothing),
		cmocka_unit_test(test_c1_characters),
		cmocka_unit_test(test_a_line_is_what_it_was_last),
		cmocka_unit_test(test_pauses),
		cmocka_unit_test(test_pictures),
		cmocka_unit_test(test_characters),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_questions),
		cmocka_unit_test(test_bracketed_paste),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
