/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_line.c
 *	  Cutting an agent's output into lines.
 */
#include "unit.h"

#include "runner/line.h"

static BcBuf seen;				/* each line in brackets */

static void
collect(const char *line, size_t len, void *arg)
{
	(void) arg;
	bc_buf_add(&seen, "[", 1);
	bc_buf_add(&seen, line, len);
	bc_buf_add(&seen, "]", 1);
}

static void
assert_seen(const char *expected, size_t len)
{
	assert_int_equal(seen.len, len);
	assert_memory_equal(seen.data, expected, len);
	bc_buf_free(&seen);
}

static void
lines_are_the_same_however_the_stream_is_cut(void **state)
{
	static const char stream[] = "one\ntwo\r\n\nthr\0ee\n\xff\xfe\nlast";
	static const char expected[] = "[one][two][][thr\0ee][\xff\xfe][last]";

	(void) state;
	for (size_t size = 1; size < sizeof(stream); size++)
	{
		BcLines		lines;

		bc_lines_init(&lines, 100);
		for (size_t at = 0; at < sizeof(stream) - 1; at += size)
		{
			size_t		n = sizeof(stream) - 1 - at;

			assert_true(bc_lines_feed(&lines, stream + at, n < size ? n : size, collect, NULL));
		}
		bc_lines_end(&lines, collect, NULL);
		bc_lines_free(&lines);
		assert_seen(expected, sizeof(expected) - 1);
	}
}

static void
a_line_over_the_limit_is_dropped_and_the_next_one_served(void **state)
{
	(void) state;
	for (size_t size = 1; size <= 9; size++)
	{
		static const char stream[] = "12345\n123456\n12\n";
		BcLines		lines;
		bool		fits = true;

		bc_lines_init(&lines, 5);
		for (size_t at = 0; at < sizeof(stream) - 1; at += size)
		{
			size_t		n = sizeof(stream) - 1 - at;

			if (!bc_lines_feed(&lines, stream + at, n < size ? n : size, collect, NULL))
				fits = false;
		}
		bc_lines_free(&lines);
		assert_false(fits);
		assert_seen("[12345][12]", 11);
	}
}

static void
a_line_without_end_takes_no_memory(void **state)
{
	static char block[65536];
	BcLines		lines;
	int			reports = 0;

	(void) state;
	memset(block, 'x', sizeof(block));
	bc_lines_init(&lines, 1000 * 1000);
	for (int i = 0; i < 1600; i++)
	{
		if (!bc_lines_feed(&lines, block, sizeof(block), collect, NULL))
			reports++;
		assert_true(lines.partial.cap <= 2 * 1000 * 1000);
	}
	assert_int_equal(reports, 1);
	bc_lines_end(&lines, collect, NULL);
	assert_int_equal(seen.len, 0);
	bc_lines_free(&lines);
}

static void
a_last_line_needs_no_newline_but_nothing_is_no_line(void **state)
{
	BcLines		lines;

	(void) state;
	bc_lines_init(&lines, 0);
	assert_true(bc_lines_feed(&lines, "a\nb\r", 4, collect, NULL));
	bc_lines_end(&lines, collect, NULL);
	bc_lines_end(&lines, collect, NULL);
	bc_lines_free(&lines);
	assert_seen("[a][b]", 6);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_are_the_same_however_the_stream_is_cut),
		cmocka_unit_test(a_line_over_the_limit_is_dropped_and_the_next_one_served),
		cmocka_unit_test(a_line_without_end_takes_no_memory),
		cmocka_unit_test(a_last_line_needs_no_newline_but_nothing_is_no_line),
	};

	return cmocka_run_group_tests_name("line", tests, NULL, NULL);
}
