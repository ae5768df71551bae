/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_stream_map.c
 *	  From the lines of one-shot agents to events, parts and outcomes: the golden
 *	  turns of test/golden/stream, and what no golden turn has.
 */
#include "unit.h"

#include <glob.h>

#include "capture.h"
#include "runner/acp_map.h"
#include "runner/stream_apply.h"
#include "runner/stream_map.h"
#include "runner/text.h"

static BcStreamTurn *turn;
static BcAcpMap *map;
static int64_t now;

static void
begin_turn(const char *kind)
{
	bc_stream_turn_free(turn);
	bc_acp_map_free(map);
	capture_reset();
	turn = bc_stream_turn_new(kind);
	map = bc_acp_map_new();
	now = 0;
}

static int
begin(void **state)
{
	(void) state;
	begin_turn(NULL);
	return 0;
}

static int
end(void **state)
{
	(void) state;
	bc_stream_turn_free(turn);
	bc_acp_map_free(map);
	turn = NULL;
	map = NULL;
	return 0;
}

static bool
take(const json_t *line)
{
	bool		understood = bc_stream_turn_line(turn, line);

	bc_stream_apply(turn, map, ++now);
	return understood;
}

static bool
say(const char *text)
{
	json_t	   *line = json_of(text);
	bool		understood = take(line);

	json_decref(line);
	return understood;
}

static json_t *
outcome(void)
{
	static const char *const ends[] = {"open", "completed", "failed", "cancelled"};

	return json_pack("{s:s, s:s?, s:s?, s:i, s:b, s:s?, s:s?, s:s?}",
					 "end", ends[turn->end], "reason", turn->reason, "error", turn->error,
					 "status", turn->status, "over", turn->over, "session", turn->session_id,
					 "model", turn->model, "stop", turn->stop_reason);
}

/* --- golden turns --- */

typedef struct Golden
{
	const char *path;
	size_t		line;
	size_t		parts;			/* compared so far */
	bool		ended;
	json_t	   *usage;
} Golden;

static void
compare(const Golden *golden, json_t *have, const json_t *want)
{
	if (have == NULL || !json_equal(have, want))
		fail_msg("%s:%zu: have %s", golden->path, golden->line,
				 have != NULL ? json_dumps(have, JSON_ENCODE_ANY) : "nothing");
}

/* What comes after the lines of the agent is what is expected of them. */
static void
end_golden(Golden *golden)
{
	if (golden->ended)
		return;
	golden->ended = true;
	golden->usage = bc_acp_map_end(map, false, ++now);
	if (golden->usage == NULL)
		golden->usage = json_null();
}

static void
play(Golden *golden, const json_t *entry)
{
	const char *key = json_object_iter_key(json_object_iter((json_t *) entry));
	json_t	   *value = json_object_get(entry, key);
	json_t	   *have;

	if (strcmp(key, "kind") == 0)
		begin_turn(json_string_value(value));
	else if (strcmp(key, "line") == 0)
		take(value);
	else if (strcmp(key, "exit") == 0)
		bc_stream_turn_exited(turn, (int) json_integer_value(value),
							  json_string_value(json_object_get(entry, "errors")));
	else if (strcmp(key, "outcome") == 0)
	{
		end_golden(golden);
		have = outcome();
		compare(golden, have, value);
		json_decref(have);
	}
	else if (strcmp(key, "part") == 0)
		compare(golden, json_array_get(capture_parts(), golden->parts++), value);
	else if (strcmp(key, "usage") == 0)
		compare(golden, golden->usage, value);
	else
		fail_msg("%s:%zu: unknown member %s", golden->path, golden->line, key);
}

/* What the lines of a file come to, in the form of the file */
static void
print(Golden *golden)
{
	json_t	   *have;
	size_t		i;
	json_t	   *part;

	end_golden(golden);
	have = outcome();
	printf("{\"outcome\":%s}\n", json_dumps(have, JSON_COMPACT));
	json_array_foreach((json_t *) capture_parts(), i, part)
		printf("{\"part\":%s}\n", json_dumps(part, JSON_COMPACT));
	printf("{\"usage\":%s}\n", json_dumps(golden->usage, JSON_COMPACT | JSON_ENCODE_ANY));
	json_decref(have);
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
	if (getenv("STREAM_GOLDEN") != NULL)
		print(&golden);
	else if (json_array_size(capture_parts()) != golden.parts || !golden.ended)
		fail_msg("%s: %zu parts, not %zu", path, json_array_size(capture_parts()), golden.parts);
	json_decref(golden.usage);
	free(line);
	fclose(file);
}

/* STREAM_GOLDEN=FILE prints what a file without expectations comes to. */
static void
golden_turns(void **state)
{
	const char *one = getenv("STREAM_GOLDEN");
	glob_t		found;

	(void) state;
	assert_int_equal(glob(one != NULL ? one : "test/golden/stream/*.jsonl", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++)
		play_file(found.gl_pathv[i]);
	assert_true(one != NULL || found.gl_pathc >= 14);
	globfree(&found);
}

/* --- what no golden turn has --- */

static void
nothing_is_known_of_other_objects(void **state)
{
	(void) state;
	assert_false(say("{'level':'info','msg':'starting'}"));
	assert_false(say("['x']"));
	assert_false(say("'x'"));
	assert_null(turn->dialect);
	assert_true(say("{'type':'thread.started','thread_id':'t'}"));
	assert_string_equal(turn->dialect->name, "codex");
	/* It is recognised once. */
	assert_true(say("{'type':'system','subtype':'init','session_id':'s'}"));
	assert_string_equal(turn->dialect->name, "codex");
	assert_json(capture_find(capture_events(), "raw", 0), "{'type':'system','subtype':'init','session_id':'s'}");
}

static void
the_program_decides_the_dialect(void **state)
{
	static const char *const known[][2] = {{"claude", "claude"}, {"qwen", "claude"}, {"pi", "pi"},
	{"codex", "codex"}, {"gemini", "gemini"}, {"goose", "goose"}, {"opencode", "opencode"}};

	(void) state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		begin_turn(known[i][0]);
		assert_string_equal(turn->dialect->name, known[i][1]);
	}
	begin_turn("formatter");
	assert_null(turn->dialect);
}

/* A part says what came of it, events what was seen on the way. */
static void
what_is_dropped_was_an_event(void **state)
{
	(void) state;
	begin_turn("claude");
	say("{'type':'stream_event','event':{'type':'message_start','message':{'id':'a'}}}");
	say("{'type':'stream_event','event':{'type':'content_block_delta','delta':{'type':'text_delta','text':'draft'}}}");
	say("{'type':'system','subtype':'api_retry','error':'overloaded'}");
	say("{'type':'assistant','message':{'id':'b','content':[{'type':'text','text':'final'}]}}");
	json_decref(bc_acp_map_end(map, false, 9));
	assert_json(capture_events(),
				"[{'kind':'text','payload':{'delta':'draft'}},"
				"{'kind':'retry','payload':{'message':'overloaded'}},"
				"{'kind':'text','payload':{'delta':'final'}}]");
	assert_json(capture_parts(), "[{'kind':'text','payload':{'text':'final'}}]");
}

static void
errors_and_warnings(void **state)
{
	(void) state;
	begin_turn("codex");
	say("{'type':'item.completed','item':{'id':'i','type':'error','message':'odd model'}}");
	say("{'type':'error','message':'Reconnecting... 1/5'}");
	assert_null(turn->error);
	say("{'type':'error','message':'gone'}");
	assert_string_equal(turn->error, "gone");
	assert_json(capture_events(),
				"[{'kind':'error','payload':{'message':'odd model','severity':'warning'}},"
				"{'kind':'retry','payload':{'message':'Reconnecting... 1/5'}},"
				"{'kind':'error','payload':{'message':'gone'}}]");
	assert_json(capture_parts(), "[{'kind':'error','payload':{'message':'gone'}}]");
}

static void
a_step_of_opencode_may_be_silent(void **state)
{
	(void) state;
	begin_turn("opencode");
	assert_false(turn->busy);
	say("{'type':'step_start','sessionID':'s','part':{}}");
	assert_true(turn->busy);
	say("{'type':'step_finish','sessionID':'s','part':{'reason':'stop'}}");
	assert_false(turn->busy);
}

static void
facts_are_bounded(void **state)
{
	char	   *text = malloc(1000 * 1000 + 1);
	json_t	   *line = json_of("{'type':'thread.started'}");

	(void) state;
	memset(text, 'x', 1000 * 1000);
	text[1000 * 1000] = '\0';
	json_object_set_new(line, "thread_id", json_string(text));
	take(line);
	assert_int_equal(strlen(turn->session_id), 4000);
	json_decref(line);

	begin_turn("goose");
	for (int i = 0; i < 1000; i++)
		say("{'type':'message','message':{'role':'assistant','id':'a','content':[{'type':'text','text':'xxxxxxxxxxxxxxxxxxxx'}]}}");
	assert_true(strlen(turn->said) <= 4000);
	free(text);
}

/* Every member of every line of the dialects may be anything. */
static void
any_json_will_do(void **state)
{
	static const char *const values[] = {"null", "1", "'x'", "[]", "[{}]", "{}", "true", "-1.5e300", "[null,1,'x',[[]]]"};
	static const char *const kinds[] = {"claude", "pi", "codex", "gemini", "goose", "opencode"};
	static const char *const types[] = {"system", "stream_event", "assistant", "user", "result", "session",
		"message_update", "message_start", "message_end", "tool_execution_start", "tool_execution_end",
		"auto_retry_start", "extension_error", "agent_settled", "item.completed", "thread.started", "error",
		"turn.completed", "turn.failed", "init", "message", "tool_use", "tool_result", "model_change",
		"complete", "notification", "text", "reasoning", "step_start", "step_finish"};
	static const char *const keys[] = {"message", "event", "part", "item", "error", "usage", "result", "subtype",
		"assistantMessageEvent", "stats", "content", "session_id", "total_cost_usd"};

	(void) state;
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
		for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++)
			for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++)
			{
				json_t	   *line = json_object();

				begin_turn(kinds[k]);
				for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
					json_object_set_new(line, keys[i], json_of(values[v]));
				json_object_set_new(line, "type", json_string(types[t]));
				assert_true(take(line));
				json_decref(line);
				bc_stream_turn_exited(turn, 0, "");
				json_decref(bc_acp_map_end(map, false, 1));
			}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(golden_turns, begin, end),
		cmocka_unit_test_setup_teardown(nothing_is_known_of_other_objects, begin, end),
		cmocka_unit_test_setup_teardown(the_program_decides_the_dialect, begin, end),
		cmocka_unit_test_setup_teardown(what_is_dropped_was_an_event, begin, end),
		cmocka_unit_test_setup_teardown(errors_and_warnings, begin, end),
		cmocka_unit_test_setup_teardown(a_step_of_opencode_may_be_silent, begin, end),
		cmocka_unit_test_setup_teardown(facts_are_bounded, begin, end),
		cmocka_unit_test_setup_teardown(any_json_will_do, begin, end),
	};

	return cmocka_run_group_tests_name("stream_map", tests, NULL, NULL);
}
