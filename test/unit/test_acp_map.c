/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_acp_map.c
 *	  From an agent's reports to events and parts: the golden conversations of
 *	  test/golden, and limits.
 */
#include "unit.h"

#include <glob.h>

#include "capture.h"
#include "runner/acp_agents.h"
#include "runner/acp_map.h"

static BcAcpMap *map;

static int
begin(void **state)
{
	(void) state;
	capture_reset();
	map = bc_acp_map_new();
	return 0;
}

static int
end(void **state)
{
	(void) state;
	bc_acp_map_free(map);
	map = NULL;
	return 0;
}

static void
update(const char *text, int64_t now)
{
	json_t	   *value = json_of(text);

	bc_acp_map_update(map, value, now);
	json_decref(value);
}

/* --- golden conversations --- */

typedef struct Golden
{
	const char *path;
	size_t		line;
	size_t		parts;			/* compared so far */
	json_t	   *usage;
} Golden;

static void
compare(const Golden *golden, const json_t *have, const json_t *want)
{
	if (have == NULL || !json_equal(have, want))
		fail_msg("%s:%zu: have %s", golden->path, golden->line,
				 have != NULL ? json_dumps(have, JSON_ENCODE_ANY) : "nothing");
}

static void
play(Golden *golden, const json_t *entry)
{
	int64_t		now = (int64_t) golden->line;
	const char *key = json_object_iter_key(json_object_iter((json_t *) entry));
	const json_t *value = json_object_get(entry, key);

	if (strcmp(key, "agent") == 0)
		bc_acp_map_agent(map, bc_acp_known(NULL, json_string_value(value)));
	else if (strcmp(key, "model") == 0)
		bc_acp_map_model(map, json_string_value(value));
	else if (strcmp(key, "update") == 0)
		bc_acp_map_update(map, value, now);
	else if (strcmp(key, "tool_call") == 0)
		bc_acp_map_tool_call(map, value, now);
	else if (strcmp(key, "result") == 0)
		bc_acp_map_result(map, value);
	else if (strcmp(key, "end") == 0)
		golden->usage = bc_acp_map_end(map, json_is_true(value), now);
	else if (strcmp(key, "part") == 0)
		compare(golden, json_array_get(capture_parts(), golden->parts++), value);
	else if (strcmp(key, "usage") == 0)
		compare(golden, golden->usage != NULL ? golden->usage : json_null(), value);
	else
		fail_msg("%s:%zu: unknown member %s", golden->path, golden->line, key);
}

static void
play_file(const char *path)
{
	Golden		golden = {.path = path};
	FILE	   *file = fopen(path, "r");
	char	   *line = NULL;
	size_t		size = 0;

	assert_non_null(file);
	while (getline(&line, &size, file) > 0)
	{
		json_error_t error;
		json_t	   *entry = json_loads(line, 0, &error);

		golden.line++;
		if (entry == NULL)
			fail_msg("%s:%zu: %s", path, golden.line, error.text);
		play(&golden, entry);
		json_decref(entry);
	}
	if (json_array_size(capture_parts()) != golden.parts)
		fail_msg("%s: %zu parts, not %zu", path, json_array_size(capture_parts()), golden.parts);
	json_decref(golden.usage);
	free(line);
	fclose(file);
}

static void
golden_conversations(void **state)
{
	glob_t		found;

	assert_int_equal(glob("test/golden/*.jsonl", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++)
	{
		end(state);
		begin(state);
		play_file(found.gl_pathv[i]);
	}
	assert_true(found.gl_pathc >= 12);
	globfree(&found);
}

/* --- events --- */

static void
every_report_is_an_event(void **state)
{
	const json_t *events;

	(void) state;
	bc_acp_map_session(map, "s1");
	update("{'sessionUpdate':'agent_message_chunk','content':{'type':'text','text':'hi'}}", 1);
	update("{'sessionUpdate':'tool_call','toolCallId':'t','title':'T','rawInput':{'a':1}}", 2);
	update("{'sessionUpdate':'tool_call_update','toolCallId':'t','status':'completed'}", 3);
	update("{'sessionUpdate':'tool_call_update','toolCallId':'t','title':'late'}", 4);
	update("{'sessionUpdate':'plan','entries':[{'content':'x'}]}", 5);
	update("{'sessionUpdate':'available_commands_update','availableCommands':[{'name':'c'}]}", 6);
	update("{'sessionUpdate':'available_commands_update','availableCommands':[{'name':'c'}]}", 7);
	update("{'sessionUpdate':'current_mode_update','currentModeId':'auto'}", 8);
	update("{'sessionUpdate':'config_option_update','configOptions':[]}", 9);
	update("{'sessionUpdate':'session_info_update','title':'T'}", 10);
	update("{'sessionUpdate':'usage_update','used':1,'size':2,'input_tokens':'evil','cost':{'amount':1.5,'currency':'USD'}}", 11);
	update("{'sessionUpdate':'what','x':1}", 12);
	events = capture_events();
	assert_json(events,
				"[{'kind':'text','payload':{'delta':'hi'}},"
				"{'kind':'tool_call','payload':{'id':'t','title':'T','raw_input':{'a':1},'phase':'start'}},"
				"{'kind':'tool_call','payload':{'id':'t','status':'completed','phase':'update'}},"
				"{'kind':'tool_call','payload':{'id':'t','title':'late','phase':'update'}},"
				"{'kind':'plan','payload':{'entries':[{'content':'x'}]}},"
				"{'kind':'command','payload':{'commands':[{'name':'c','description':null,'hint':null}]}},"
				"{'kind':'mode','payload':{'mode':'auto'}},"
				"{'kind':'config','payload':{'options':[]}},"
				"{'kind':'session_info','payload':{'title':'T'}},"
				"{'kind':'title','payload':{'title':'T'}},"
				"{'kind':'usage','payload':{'cost_total_usd':1.5,'agent_session_id':'s1','report':"
				"{'used':1,'size':2,'input_tokens':'evil','cost':{'amount':1.5,'currency':'USD'}}}},"
				"{'kind':'raw','payload':{'sessionUpdate':'what','x':1}}]");
}

static void
an_open_call_means_work(void **state)
{
	(void) state;
	assert_false(bc_acp_map_working(map));
	update("{'sessionUpdate':'tool_call','toolCallId':'t','title':'T','status':'in_progress'}", 1);
	assert_true(bc_acp_map_working(map));
	update("{'sessionUpdate':'tool_call_update','toolCallId':'t','status':'failed'}", 2);
	assert_false(bc_acp_map_working(map));
}

static void
calls_without_end_are_bounded(void **state)
{
	(void) state;
	for (int i = 0; i < 10000; i++)
	{
		char		text[200];

		snprintf(text, sizeof(text), "{'sessionUpdate':'tool_call','toolCallId':'t%d','title':'T'}", i);
		update(text, i);
		if (i % 100 == 0)
			capture_reset();
	}
	capture_reset();
	json_decref(bc_acp_map_end(map, false, 1));
	assert_int_equal(capture_count(capture_parts(), "tool_call"), 128);
}

static void
large_reports_are_cut(void **state)
{
	size_t		n = 3 * 1000 * 1000;
	char	   *text = malloc(n + 1);
	json_t	   *report = json_of("{'sessionUpdate':'tool_call','toolCallId':'t','status':'completed'}");
	const json_t *part;

	(void) state;
	memset(text, 'x', n);
	text[n] = '\0';
	json_object_set_new(report, "rawOutput", json_string(text));
	json_object_set_new(report, "title", json_string("T"));
	bc_acp_map_update(map, report, 1);
	part = capture_find(capture_parts(), "tool_call", 0);
	assert_json(json_object_get(part, "title"), "'T'");
	assert_json(json_object_get(part, "truncated"), "true");
	assert_true(json_string_length(json_object_get(part, "raw_output")) <= 256 * 1024);

	/* a text is not cut but divided */
	json_decref(report);
	capture_reset();
	report = json_of("{'sessionUpdate':'agent_message_chunk','content':{'type':'text'}}");
	json_object_set_new(json_object_get(report, "content"), "text", json_string(text));
	bc_acp_map_update(map, report, 1);
	json_decref(bc_acp_map_end(map, false, 1));
	n = 0;
	for (size_t i = 0; (part = capture_find(capture_parts(), "text", i)) != NULL; i++)
		n += json_string_length(json_object_get(part, "text"));
	assert_int_equal(n, strlen(text));
	json_decref(report);
	free(text);
}

static void
any_json_will_do(void **state)
{
	static const char *const values[] = {"null", "1", "'x'", "[]", "[{}]", "{}", "true", "1.5"};

	(void) state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
	{
		json_t	   *value = json_of(values[i]);

		bc_acp_map_update(map, value, 1);
		bc_acp_map_tool_call(map, value, 1);
		bc_acp_map_result(map, value);
		json_decref(value);
	}
	bc_acp_map_tool_call(map, NULL, 1);
	bc_acp_map_raw(NULL);
	assert_null(bc_acp_map_end(map, false, 1));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(golden_conversations, begin, end),
		cmocka_unit_test_setup_teardown(every_report_is_an_event, begin, end),
		cmocka_unit_test_setup_teardown(an_open_call_means_work, begin, end),
		cmocka_unit_test_setup_teardown(calls_without_end_are_bounded, begin, end),
		cmocka_unit_test_setup_teardown(large_reports_are_cut, begin, end),
		cmocka_unit_test_setup_teardown(any_json_will_do, begin, end),
	};

	return cmocka_run_group_tests_name("acp_map", tests, NULL, NULL);
}
