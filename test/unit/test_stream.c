/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_stream.c
 *	  Events as they happen, parts when they are finished.
 */
#include "unit.h"

#include "capture.h"
#include "runner/stream.h"

static int
reset(void **state)
{
	(void) state;
	capture_reset();
	return 0;
}

static void
say(BcTextKind kind, const char *message, const char *text)
{
	bc_stream_text(kind, message, text, strlen(text));
}

static void
a_run_of_deltas_is_one_part(void **state)
{
	(void) state;
	say(BC_TEXT, NULL, "one ");
	say(BC_TEXT, NULL, "two ");
	say(BC_TEXT, NULL, "three");
	assert_int_equal(capture_count(capture_events(), "text"), 3);
	assert_int_equal(json_array_size(capture_parts()), 0);
	bc_stream_end_text();
	bc_stream_end_text();
	assert_json(capture_parts(), "[{'kind': 'text', 'payload': {'text': 'one two three'}}]");
	assert_string_equal(bc_stream_summary(), "one two three");
}

static void
another_kind_or_message_begins_a_part(void **state)
{
	(void) state;
	say(BC_REASONING, NULL, "hm");
	say(BC_TEXT, "a", "A");
	say(BC_TEXT, "a", "A");
	say(BC_TEXT, NULL, "A");	/* an agent that does not say which goes on */
	say(BC_TEXT, "b", "B");
	bc_stream_part("tool_call", json_of("{'id': 't'}"));
	say(BC_TEXT, "b", "B");
	bc_stream_end_text();
	assert_json(capture_parts(), "[{'kind': 'reasoning', 'payload': {'text': 'hm'}},"
				"{'kind': 'text', 'payload': {'text': 'AAA'}}, {'kind': 'text', 'payload': {'text': 'B'}},"
				"{'kind': 'tool_call', 'payload': {'id': 't'}}, {'kind': 'text', 'payload': {'text': 'B'}}]");
	/* Reasoning is no answer. */
	assert_string_equal(bc_stream_summary(), "B");
}

static void
a_character_is_never_torn(void **state)
{
	static const char sample[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";

	(void) state;
	for (size_t i = 0; i < sizeof(sample) - 1; i++)
		bc_stream_text(BC_TEXT, NULL, sample + i, 1);
	bc_stream_end_text();
	assert_int_equal(capture_count(capture_events(), "text"), 5);
	assert_string_equal(json_string_value(json_object_get(capture_find(capture_parts(), "text", 0), "text")), sample);
}

static void
half_a_character_at_the_end_is_replaced(void **state)
{
	(void) state;
	bc_stream_text(BC_TEXT, NULL, "x\0y\xE2\x82", 5);
	bc_stream_end_text();
	/* What is before it does not wait. */
	assert_json(capture_find(capture_events(), "text", 0), "{'delta': 'x\\uFFFDy'}");
	assert_int_equal(strncmp(json_string_value(json_object_get(capture_find(capture_parts(), "text", 0), "text")),
							 "x\xEF\xBF\xBDy\xEF\xBF\xBD", 8), 0);
	/* And what follows begins anew. */
	say(BC_TEXT, NULL, "\xAC");
	bc_stream_end_text();
	assert_json(capture_find(capture_parts(), "text", 1), "{'text': '\\uFFFD'}");
}

static void
long_text_goes_on_in_another_part(void **state)
{
	size_t		len = 3 * 1024 * 1024;
	char	   *text = malloc(len);
	size_t		total = 0;
	size_t		i;
	json_t	   *entry;

	(void) state;
	for (i = 0; i + 1 < len; i += 2)
		memcpy(text + i, "\xC3\xA9", 2);
	bc_stream_text(BC_TEXT, NULL, text, len);
	bc_stream_end_text();
	json_array_foreach(capture_events(), i, entry)
		assert_true(json_string_length(json_object_get(json_object_get(entry, "payload"), "delta")) <= 256 * 1024);
	json_array_foreach(capture_parts(), i, entry)
	{
		size_t		n = json_string_length(json_object_get(json_object_get(entry, "payload"), "text"));

		assert_true(n <= 1024 * 1024);
		assert_int_equal(n % 2, 0);
		total += n;
	}
	assert_int_equal(total, len);
	assert_true(strlen(bc_stream_summary()) <= 4000);
	free(text);
}

static void
events_wait_a_little_for_company(void **state)
{
	int64_t		due;

	(void) state;
	assert_int_equal(bc_stream_due(), 0);
	bc_stream_event("status", json_of("{'phase': 'spawned'}"));
	due = bc_stream_due();
	assert_true(due > 0 && due <= bc_now() + 5);
	bc_stream_event("status", json_of("{'phase': 'ended'}"));
	assert_true(bc_stream_due() == due || bc_stream_due() == 0);
	bc_stream_flush(true);
	assert_int_equal(bc_stream_due(), 0);
	assert_int_equal(capture_count(capture_events(), "status"), 2);
}

static void
logs_are_events_only(void **state)
{
	(void) state;
	say(BC_TEXT, NULL, "a");
	bc_stream_log("stderr", "x\0\xFF\"\\\n", 6);
	say(BC_TEXT, NULL, "b");
	bc_stream_end_text();
	assert_json(capture_find(capture_events(), "log", 0), "{'stream': 'stderr', 'text': 'x\\uFFFD\\uFFFD\\u0022\\\\\\n'}");
	assert_json(capture_parts(), "[{'kind': 'text', 'payload': {'text': 'ab'}}]");
}

static void
logs_have_a_limit(void **state)
{
	static const char line[] = "x";
	json_int_t	left_out = 0;
	size_t		kept = 0;
	size_t		i;
	json_t	   *entry;

	(void) state;
	for (i = 0; i < 100000; i++)
		bc_stream_log("stderr", line, 1);
	bc_stream_log("setup", "done", 4);
	assert_string_equal(json_string_value(json_object_get(capture_find(capture_events(), "log",
																	   capture_count(capture_events(), "log") - 1), "text")), "done");
	bc_stream_finish();
	json_array_foreach(capture_events(), i, entry)
	{
		const json_t *payload = json_object_get(entry, "payload");

		if (strcmp(json_string_value(json_object_get(payload, "stream")), "stderr") == 0)
			kept += json_string_length(json_object_get(payload, "text"));
		left_out += json_integer_value(json_object_get(payload, "left_out"));
	}
	assert_true(kept > 10000 && kept < 40000);
	assert_int_equal(kept + (size_t) left_out, 100000);
	/* the next turn has it all again */
	capture_reset();
	bc_stream_log("stderr", line, 1);
	bc_stream_finish();
	assert_json(capture_events(), "[{'kind': 'log', 'payload': {'stream': 'stderr', 'text': 'x'}}]");
}

static void
a_draft_is_the_last_message_only(void **state)
{
	(void) state;
	for (int again = 0; again < 2; again++)
	{
		bc_stream_says_again(again);
		bc_stream_drop_text();
		say(BC_REASONING, "a", "Thought.");
		say(BC_TEXT, "b", "Kept.");
		say(BC_TEXT, "c", "Half an ans");
		bc_stream_drop_text();
		say(BC_TEXT, "d", "Whole.");
		bc_stream_end_text();
		assert_json(capture_parts(), "[{'kind': 'reasoning', 'payload': {'text': 'Thought.'}},"
					"{'kind': 'text', 'payload': {'text': 'Kept.'}}, {'kind': 'text', 'payload': {'text': 'Whole.'}}]");
		capture_reset();
	}
	bc_stream_says_again(false);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_run_of_deltas_is_one_part, reset),
		cmocka_unit_test_setup(another_kind_or_message_begins_a_part, reset),
		cmocka_unit_test_setup(a_character_is_never_torn, reset),
		cmocka_unit_test_setup(half_a_character_at_the_end_is_replaced, reset),
		cmocka_unit_test_setup(long_text_goes_on_in_another_part, reset),
		cmocka_unit_test_setup(events_wait_a_little_for_company, reset),
		cmocka_unit_test_setup(logs_are_events_only, reset),
		cmocka_unit_test_setup(logs_have_a_limit, reset),
		cmocka_unit_test_setup(a_draft_is_the_last_message_only, reset),
	};

	return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
