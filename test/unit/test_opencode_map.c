/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_opencode_map.c
 *	  What opencode serve tells becomes events, parts and an end; what it tells
 *	  again, late, or of something else does not.
 */
#include "unit.h"

#include "capture.h"
#include "runner/acp_map.h"
#include "runner/opencode_map.h"
#include "runner/opencode_parts.h"
#include "runner/stream.h"
#include "runner/stream_apply.h"

#define PROMPT "msg_500"

static BcOpencodeMap *map;
static BcAcpMap *acp;

static int
begin(void **state)
{
	(void) state;
	capture_reset();
	bc_stream_reset();
	bc_stream_holds_text(true);
	map = bc_opencode_map_new();
	acp = bc_acp_map_new();
	bc_opencode_map_session(map, "ses_1");
	bc_opencode_map_begin(map, PROMPT);
	return 0;
}

static int
end(void **state)
{
	(void) state;
	bc_opencode_map_free(map);
	bc_acp_map_free(acp);
	return 0;
}

static BcOpencodeNews
event(const char *type, const char *properties)
{
	json_t	   *value = json_pack("{s:s, s:o}", "type", type, "properties", json_of(properties));
	BcOpencodeNews news = bc_opencode_map_event(map, value);

	bc_stream_apply(bc_opencode_map_turn(map), acp, 1000);
	json_decref(value);
	return news;
}

/* A part of a message of this session; "more" are its members. */
static void
part(const char *message, const char *id, const char *more)
{
	char		text[1000];

	snprintf(text, sizeof(text), "{'sessionID': 'ses_1', 'part': {'sessionID': 'ses_1', 'messageID': '%s', 'id': '%s', %s}}",
			 message, id, more);
	(void) event("message.part.updated", text);
}

static void
delta(const char *id, const char *piece)
{
	char		text[1000];

	snprintf(text, sizeof(text), "{'sessionID': 'ses_1', 'messageID': 'msg_501', 'partID': '%s', 'field': 'text', 'delta': '%s'}",
			 id, piece);
	(void) event("message.part.delta", text);
}

static void
assistant(const char *id, const char *parent, const char *more)
{
	char		text[1000];

	snprintf(text, sizeof(text), "{'sessionID': 'ses_1', 'info': {'id': '%s', 'role': 'assistant', 'parentID': '%s'%s}}",
			 id, parent, more);
	(void) event("message.updated", text);
}

static void
prompted(void)
{
	(void) event("message.updated", "{'sessionID': 'ses_1', 'info': {'id': '" PROMPT "', 'role': 'user'}}");
	assistant("msg_501", PROMPT, "");
	part("msg_501", "s1", "'type': 'step-start'");
}

static void
list(const char *text, bool at_rest)
{
	json_t	   *value = json_of(text);

	bc_opencode_map_messages(map, value, at_rest);
	bc_stream_apply(bc_opencode_map_turn(map), acp, 1000);
	json_decref(value);
}

static BcStreamTurn *
over(void)
{
	BcStreamTurn *turn = bc_opencode_map_turn(map);

	bc_opencode_map_end(map);
	bc_stream_apply(turn, acp, 1000);
	json_decref(bc_acp_map_end(acp, false, 1000));
	bc_stream_end_text();
	bc_stream_flush(true);
	return turn;
}

static void
assert_texts(const char *expected)
{
	const json_t *parts = capture_parts();
	json_t	   *texts = json_array();
	size_t		i;
	json_t	   *item;

	json_array_foreach((json_t *) parts, i, item)
	{
		const char *kind = json_string_value(json_object_get(item, "kind"));

		if (strcmp(kind, "text") == 0 || strcmp(kind, "reasoning") == 0)
			json_array_append(texts, json_object_get(json_object_get(item, "payload"), "text"));
	}
	assert_json(texts, expected);
	json_decref(texts);
}

/* All that was streamed, in one text */
static void
assert_streamed(const char *expected)
{
	char		all[1000] = "";
	size_t		i;
	json_t	   *item;

	json_array_foreach((json_t *) capture_events(), i, item)
		if (strcmp(json_string_value(json_object_get(item, "kind")), "text") == 0)
			strcat(all, json_string_value(json_object_get(json_object_get(item, "payload"), "delta")));
	assert_string_equal(all, expected);
}

/* --- usage --- */

static void
usage_is_read_from_steps_of_either_kind(void **state)
{
	static const struct
	{
		const char *step;
		bool		told;
		bool		goes_on;
		BcStepUsage used;
	}			cases[] = {
		{"{'type': 'step-finish', 'reason': 'stop', 'cost': 0.00321, 'tokens': {'total': 1050, 'input': 800, 'output': 50,"
			" 'reasoning': 0, 'cache': {'read': 200, 'write': 0}}}", true, false, {800, 200, 0, 50, 0, 0.00321}},
		/* in the middle of a turn: it counts, and ends nothing */
		{"{'reason': 'tool-calls', 'cost': 1, 'tokens': {'input': 1, 'output': 2, 'reasoning': 3, 'cache': {'read': 4, 'write': 5}}}",
			true, true, {1, 4, 5, 5, 3, 1}},
		/* an event session.next.step.ended */
		{"{'sessionID': 's', 'finish': 'stop', 'cost': 0.5, 'tokens': {'input': 7, 'output': 8, 'reasoning': 0, 'cache': {'read': 0, 'write': 0}}}",
			true, false, {7, 0, 0, 8, 0, 0.5}},
		{"{'finish': 'length', 'tokens': {'input': 7}}", true, false, {7, 0, 0, 0, 0, 0}},
		{"{'reason': 'stop', 'cost': -1, 'tokens': {'input': -5, 'output': 'x', 'cache': []}}", true, false, {0, 0, 0, 0, 0, 0}},
		{"{'reason': 'unknown'}", false, true, {0, 0, 0, 0, 0, 0}},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		json_t	   *step = json_of(cases[i].step);
		BcStepUsage used;

		assert_int_equal(bc_opencode_usage(step, &used), cases[i].told);
		assert_memory_equal(&used, &cases[i].used, sizeof(used));
		assert_int_equal(bc_opencode_goes_on(bc_opencode_finish(step)), cases[i].goes_on);
		json_decref(step);
	}
}

static void
steps_add_up_and_count_once(void **state)
{
	static const char step[] = "'type': 'step-finish', 'reason': 'tool-calls', 'cost': 0.25, 'tokens': {'input': 10, 'output': 5,"
		" 'reasoning': 1, 'cache': {'read': 2, 'write': 0}}";
	json_t	   *usage;

	(void) state;
	prompted();
	part("msg_501", "f1", step);
	part("msg_501", "f1", step);
	assert_false(bc_opencode_map_answered(map));
	part("msg_501", "f2", step);
	part("msg_400", "f0", step);
	(void) event("session.created", "{'info': {'id': 'ses_2', 'parentID': 'ses_1'}}");
	(void) event("session.created", "{'info': {'id': 'ses_3', 'parentID': 'ses_2'}}");
	(void) event("message.part.updated", "{'part': {'sessionID': 'ses_3', 'messageID': 'msg_600', 'id': 'f3', 'type': 'step-finish', 'tokens': {'input': 100}}}");
	(void) event("message.part.updated", "{'part': {'sessionID': 'ses_9', 'messageID': 'msg_600', 'id': 'f4', 'type': 'step-finish', 'tokens': {'input': 100}}}");
	usage = bc_acp_map_end(acp, false, 1000);
	assert_json(usage, "{'input_tokens': 120, 'output_tokens': 12, 'cached_tokens': 4, 'reasoning_tokens': 2, 'cost_usd': 0.5}");
	json_decref(usage);
}

/* --- texts --- */

static void
a_text_counts_once_however_it_comes(void **state)
{
	(void) state;
	prompted();
	part("msg_501", "r1", "'type': 'reasoning', 'text': ''");
	delta("r1", "Hmm.");
	part("msg_501", "r1", "'type': 'reasoning', 'text': 'Hmm.', 'time': {'end': 1}");
	part("msg_501", "t1", "'type': 'text', 'text': ''");
	delta("t1", "Hel");
	delta("t1", "lo");
	part("msg_501", "t1", "'type': 'text', 'text': 'Hello', 'time': {'end': 1}");
	part("msg_501", "t1", "'type': 'text', 'text': 'Hello', 'time': {'end': 1}");
	delta("t1", " late");
	part("msg_501", "t2", "'type': 'text', 'text': 'At once', 'time': {'end': 1}");
	part("msg_501", "t3", "'type': 'text', 'text': 'Grow'");
	part("msg_501", "t3", "'type': 'text', 'text': 'Growing'");
	delta("unknown", "no");
	(void) over();
	assert_texts("['Hmm.', 'Hello', 'At once', 'Growing']");
}

static void
holes_are_filled(void **state)
{
	(void) state;
	prompted();
	part("msg_501", "t1", "'type': 'text', 'text': ''");
	delta("t1", "One ");
	bc_opencode_map_missed(map);
	delta("t1", "three ");
	list("[{'info': {'id': '" PROMPT "', 'role': 'user'}, 'parts': []},"
		 " {'info': {'id': 'msg_501', 'role': 'assistant', 'parentID': '" PROMPT "'}, 'parts': ["
		 "  {'id': 't1', 'messageID': 'msg_501', 'type': 'text', 'text': ''},"
		 "  {'id': 't2', 'messageID': 'msg_501', 'type': 'text', 'text': 'Mis'}]}]", false);
	delta("t2", "sed.");
	part("msg_501", "t1", "'type': 'text', 'text': 'One two three ', 'time': {'end': 1}");
	part("msg_501", "t2", "'type': 'text', 'text': 'Missed.', 'time': {'end': 1}");
	(void) over();
	assert_texts("['One two three ', 'Missed.']");
	assert_streamed("One two three Missed.");
}

static void
a_list_tells_what_events_did_not(void **state)
{
	static const char messages[] =
		"[{'info': {'id': 'msg_400', 'role': 'user'}, 'parts': [{'id': 'x', 'messageID': 'msg_400', 'type': 'text', 'text': 'old', 'time': {'end': 1}}]},"
		" {'info': {'id': 'msg_401', 'role': 'assistant', 'parentID': 'msg_400'}, 'parts': [{'id': 'y', 'messageID': 'msg_401', 'type': 'text', 'text': 'old', 'time': {'end': 1}}]},"
		" {'info': {'id': '" PROMPT "', 'role': 'user'}, 'parts': [{'id': 'z', 'messageID': '" PROMPT "', 'type': 'text', 'text': 'prompt'}]},"
		" {'info': {'id': 'msg_501', 'role': 'assistant', 'parentID': '" PROMPT "', 'finish': 'stop', 'time': {'completed': 1}}, 'parts': ["
		"  {'id': 's1', 'messageID': 'msg_501', 'type': 'step-start'},"
		"  {'id': 'r1', 'messageID': 'msg_501', 'type': 'reasoning', 'text': 'Draft', 'time': {'end': 1}},"
		"  {'id': 's2', 'messageID': 'msg_501', 'type': 'step-start'},"
		"  {'id': 'r2', 'messageID': 'msg_501', 'type': 'reasoning', 'text': 'Hmm', 'time': {'end': 1}},"
		"  {'id': 'c1', 'messageID': 'msg_501', 'type': 'tool', 'tool': 'bash', 'callID': 'k', 'state': {'status': 'completed', 'input': {'command': 'ls'}, 'output': 'a'}},"
		"  {'id': 't1', 'messageID': 'msg_501', 'type': 'text', 'text': 'Answer', 'time': {'end': 1}},"
		"  {'id': 'f1', 'messageID': 'msg_501', 'type': 'step-finish', 'reason': 'stop', 'tokens': {'input': 3}}]}]";

	(void) state;
	assert_false(bc_opencode_map_taken(map));
	for (int i = 0; i < 3; i++)
		list(messages, false);
	assert_true(bc_opencode_map_taken(map));
	assert_true(bc_opencode_map_answered(map));
	assert_int_equal(over()->end, BC_STREAM_COMPLETED);
	assert_texts("['Hmm', 'Answer']");
	assert_int_equal(capture_count(capture_parts(), "tool_call"), 1);
	assert_json(json_object_get(capture_find(capture_parts(), "usage", 0), "input_tokens"), "3");
}

static void
what_a_failed_call_of_the_model_said_is_forgotten(void **state)
{
	(void) state;
	prompted();
	part("msg_501", "t1", "'type': 'text', 'text': 'Kept', 'time': {'end': 1}");
	part("msg_501", "f1", "'type': 'step-finish', 'reason': 'tool-calls'");
	part("msg_501", "s2", "'type': 'step-start'");
	part("msg_501", "r1", "'type': 'reasoning', 'text': 'Once', 'time': {'end': 1}");
	part("msg_501", "t2", "'type': 'text', 'text': ''");
	delta("t2", "Half");
	(void) event("session.status", "{'sessionID': 'ses_1', 'status': {'type': 'retry', 'message': 'overloaded'}}");
	part("msg_501", "s3", "'type': 'step-start'");
	part("msg_501", "r2", "'type': 'reasoning', 'text': 'Once', 'time': {'end': 1}");
	part("msg_501", "t3", "'type': 'text', 'text': 'Half and half', 'time': {'end': 1}");
	(void) over();
	assert_texts("['Kept', 'Once', 'Half and half']");
	assert_json(capture_find(capture_events(), "retry", 0), "{'message': 'overloaded'}");
}

/* --- whose it is --- */

static void
news_of_earlier_turns_change_nothing(void **state)
{
	(void) state;
	assert_int_equal(event("session.idle", "{'sessionID': 'ses_1'}"), BC_OPENCODE_IDLE);
	assert_false(bc_opencode_map_answered(map));
	assistant("msg_401", "msg_400", ", 'finish': 'stop', 'time': {'completed': 1}");
	part("msg_401", "t0", "'type': 'text', 'text': 'old', 'time': {'end': 1}");
	/* begun late, but by the turn before */
	assistant("msg_502", "msg_400", ", 'error': {'name': 'MessageAbortedError'}");
	part("msg_502", "t0", "'type': 'text', 'text': 'old', 'time': {'end': 1}");
	assert_false(bc_opencode_map_taken(map));
	prompted();
	assert_int_equal(event("session.idle", "{'sessionID': 'ses_1'}"), BC_OPENCODE_IDLE);
	assert_false(bc_opencode_map_answered(map));
	assistant("msg_501", PROMPT, ", 'finish': 'tool-calls', 'time': {'completed': 1}");
	assert_false(bc_opencode_map_answered(map));
	/* after a summary opencode prompts itself */
	assistant("msg_504", "msg_503", ", 'finish': 'stop', 'time': {'completed': 1}");
	part("msg_504", "t1", "'type': 'text', 'text': 'Ours', 'time': {'end': 1}");
	assert_true(bc_opencode_map_answered(map));
	assert_int_equal(over()->end, BC_STREAM_COMPLETED);
	assert_texts("['Ours']");
}

static void
other_sessions_are_no_news(void **state)
{
	(void) state;
	prompted();
	assert_int_equal(event("session.idle", "{'sessionID': 'ses_2'}"), BC_OPENCODE_NO_NEWS);
	assert_int_equal(event("server.heartbeat", "{}"), BC_OPENCODE_NO_NEWS);
	assert_int_equal(event("session.created", "{'info': {'id': 'ses_2', 'parentID': 'ses_1'}}"), BC_OPENCODE_NO_NEWS);
	assert_int_equal(event("session.idle", "{'sessionID': 'ses_2'}"), BC_OPENCODE_NEWS);
	assert_int_equal(event("session.idle", "{'sessionID': 'ses_1'}"), BC_OPENCODE_IDLE);
}

/* --- ends --- */

static void
errors_are_told_once(void **state)
{
	BcStreamTurn *turn;

	(void) state;
	prompted();
	(void) event("session.error", "{'sessionID': 'ses_1', 'error': {'name': 'APIError', 'data': {'message': 'no', 'statusCode': 401}}}");
	assert_true(bc_opencode_map_answered(map));
	assistant("msg_501", PROMPT, ", 'error': {'name': 'APIError', 'data': {'message': 'no', 'statusCode': 401}}");
	(void) event("session.error", "{'sessionID': 'ses_1', 'error': {'name': 'UnknownError', 'data': {'message': 'no\\n at'}}}");
	turn = over();
	assert_int_equal(turn->end, BC_STREAM_FAILED);
	assert_int_equal(turn->status, 401);
	assert_string_equal(turn->error, "no");
	assert_int_equal(capture_count(capture_events(), "error"), 1);
}

static void
an_error_that_was_overcome_is_none(void **state)
{
	(void) state;
	prompted();
	(void) event("session.error", "{'sessionID': 'ses_1', 'error': {'name': 'ContextOverflowError', 'data': {'message': 'too long'}}}");
	assistant("msg_504", "msg_503", ", 'finish': 'stop', 'time': {'completed': 1}");
	assert_int_equal(over()->end, BC_STREAM_COMPLETED);
}

static void
an_error_before_the_prompt_is_doubted(void **state)
{
	(void) state;
	(void) event("session.error", "{'sessionID': 'ses_1', 'error': {'name': 'UnknownError', 'data': {'message': 'Agent not found'}}}");
	assert_true(bc_opencode_map_doubted(map));
	assert_false(bc_opencode_map_answered(map));
	assert_int_equal(over()->end, BC_STREAM_FAILED);
	assert_string_equal(bc_opencode_map_turn(map)->error, "Agent not found");
}

static void
ends_are_judged(void **state)
{
	static const struct
	{
		const char *finish;
		BcStreamEnd end;
		const char *reason;
	}			cases[] = {
		{"stop", BC_STREAM_COMPLETED, NULL},
		{"length", BC_STREAM_FAILED, "max_tokens"},
		{"content-filter", BC_STREAM_FAILED, "refusal"},
		{"tool-calls", BC_STREAM_FAILED, NULL},		/* and nothing more: cut off */
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char		more[100];
		BcStreamTurn *turn;

		bc_opencode_map_begin(map, PROMPT);
		prompted();
		snprintf(more, sizeof(more), ", 'finish': '%s', 'time': {'completed': 1}", cases[i].finish);
		assistant("msg_501", PROMPT, more);
		turn = over();
		assert_int_equal(turn->end, cases[i].end);
		assert_true((turn->reason == NULL) == (cases[i].reason == NULL));
		if (turn->reason != NULL)
			assert_string_equal(turn->reason, cases[i].reason);
	}
}

static void
prompts_have_ids_that_go_up(void **state)
{
	char	   *first = bc_opencode_prompt_id(INT64_C(1795455695564), 7);
	char	   *second = bc_opencode_prompt_id(INT64_C(1795455695565), 7);

	(void) state;
	assert_memory_equal(first, "msg_2097fbacc001", 16);
	assert_int_equal(strlen(first), 30);
	assert_true(strcmp(first, second) < 0);
	free(first);
	free(second);
}

static void
any_json_will_do(void **state)
{
	static const char *const types[] = {
		"session.created", "session.updated", "session.idle", "session.status", "session.error", "message.updated",
		"message.part.updated", "message.part.delta"
	};
	static const char *const values[] = {
		"{}", "[]", "7", "{'sessionID': 7}", "{'sessionID': 'ses_1'}", "{'sessionID': 'ses_1', 'info': 7, 'part': 7, 'status': 7, 'error': 7}",
		"{'sessionID': 'ses_1', 'info': {'id': 7, 'role': 'assistant'}, 'part': {'messageID': 'msg_501', 'type': 'text'}}",
		"{'sessionID': 'ses_1', 'part': {'messageID': 'msg_501', 'id': 'p', 'type': 'tool', 'state': 7}}",
		"{'sessionID': 'ses_1', 'part': {'messageID': 'msg_501', 'id': 'p', 'type': 'tool', 'state': {'status': 'completed'}}}",
	};

	(void) state;
	prompted();
	for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++)
		for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++)
			(void) event(types[t], values[v]);
	list("{}", false);
	list("[7, {}, {'info': 7, 'parts': 7}, {'info': {'id': 'msg_501', 'role': 'assistant'}, 'parts': [7, {}]}]", true);
	(void) over();
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(usage_is_read_from_steps_of_either_kind),
		TEST(steps_add_up_and_count_once),
		TEST(a_text_counts_once_however_it_comes),
		TEST(holes_are_filled),
		TEST(a_list_tells_what_events_did_not),
		TEST(what_a_failed_call_of_the_model_said_is_forgotten),
		TEST(news_of_earlier_turns_change_nothing),
		TEST(other_sessions_are_no_news),
		TEST(errors_are_told_once),
		TEST(an_error_that_was_overcome_is_none),
		TEST(an_error_before_the_prompt_is_doubted),
		TEST(ends_are_judged),
		TEST(prompts_have_ids_that_go_up),
		TEST(any_json_will_do),
	};

	return cmocka_run_group_tests_name("opencode_map", tests, NULL, NULL);
}
