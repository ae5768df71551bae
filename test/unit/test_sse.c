/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_sse.c
 *	  Cutting a stream into server-sent events.
 */
#include "unit.h"

#include "runner/sse.h"

static BcBuf seen;				/* each event in brackets */

static void
collect(const char *data, size_t len, void *arg)
{
	(void) arg;
	bc_buf_add(&seen, "[", 1);
	bc_buf_add(&seen, data, len);
	bc_buf_add(&seen, "]", 1);
}

static void
assert_seen(const char *expected)
{
	bc_buf_str(&seen, "");
	assert_string_equal(seen.data, expected);
	bc_buf_free(&seen);
}

static void
events_are_the_same_however_the_stream_is_cut(void **state)
{
	static const char stream[] =
		"\xef\xbb\xbf" "data: {\"a\":1}\n\n"
		": a comment\nevent: message\nid: 7\nretry: 10\ndata:two\r\ndata:  lines\r\n\r\n"
		"event: nothing\n\n\n"
		"data\ndata:\n\n"
		"database: no\ndata: last\n\n"
		"data: cut off";

	(void) state;
	for (size_t size = 1; size < sizeof(stream); size++)
	{
		BcSse		sse;

		bc_sse_init(&sse, 100);
		for (size_t at = 0; at < sizeof(stream) - 1; at += size)
		{
			size_t		n = sizeof(stream) - 1 - at;

			assert_true(bc_sse_feed(&sse, stream + at, n < size ? n : size, collect, NULL));
		}
		bc_sse_free(&sse);
		assert_seen("[{\"a\":1}][two\n lines][\n][last]");
	}
}

static void
an_event_over_the_limit_is_dropped_and_the_next_one_served(void **state)
{
	static const char *const streams[] = {
		"data: 123456789 0123456789 0123456789\n\ndata: ok\n\n",
		"data: 12345\ndata: 12345\ndata: 1\n\ndata: ok\n\n",
	};

	(void) state;
	for (size_t i = 0; i < 2; i++)
		for (size_t size = 1; size < 60; size++)
		{
			size_t		len = strlen(streams[i]);
			bool		fits = true;
			BcSse		sse;

			bc_sse_init(&sse, 12);
			for (size_t at = 0; at < len; at += size)
				fits &= bc_sse_feed(&sse, streams[i] + at, len - at < size ? len - at : size, collect, NULL);
			bc_sse_free(&sse);
			assert_false(fits);
			assert_seen("[ok]");
		}
}

static void
another_stream_begins_afresh(void **state)
{
	BcSse		sse;

	(void) state;
	bc_sse_init(&sse, 0);
	assert_true(bc_sse_feed(&sse, "data: old\nda", 12, collect, NULL));
	bc_sse_reset(&sse);
	assert_true(bc_sse_feed(&sse, "data: new\n\n", 11, collect, NULL));
	bc_sse_free(&sse);
	assert_seen("[new]");
}

static void
a_stream_without_end_takes_no_memory(void **state)
{
	static char block[65536];
	BcSse		sse;

	(void) state;
	memset(block, 'x', sizeof(block));
	for (size_t i = 0; i + 8 < sizeof(block); i += 1024)
		memcpy(block + i, "\ndata: ", 7);
	bc_sse_init(&sse, 1000 * 1000);
	for (int i = 0; i < 1600; i++)
	{
		(void) bc_sse_feed(&sse, block, sizeof(block), collect, NULL);
		assert_true(sse.data.cap <= 2 * 1000 * 1000 && sse.lines.partial.cap <= 2 * 1000 * 1000);
	}
	bc_sse_free(&sse);
	assert_seen("");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_are_the_same_however_the_stream_is_cut),
		cmocka_unit_test(an_event_over_the_limit_is_dropped_and_the_next_one_served),
		cmocka_unit_test(another_stream_begins_afresh),
		cmocka_unit_test(a_stream_without_end_takes_no_memory),
	};

	return cmocka_run_group_tests_name("sse", tests, NULL, NULL);
}
