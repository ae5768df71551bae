/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_acp.c
 *	  The conversation with an ACP agent, from initialize to the outcome.
 */
#include "acp_fixture.h"

#include <unistd.h>

static void
a_turn_from_beginning_to_end(void **state)
{
	(void) state;
	to_prompt();
	say("{'method':'session/update','params':{'sessionId':'s1','update':{'sessionUpdate':'agent_message_chunk','content':{'type':'text','text':'ok'}}}}");
	say("{'id':3,'result':{'stopReason':'end_turn','usage':{'inputTokens':5,'outputTokens':1,'totalTokens':6}}}");
	expect_end("completed -");
	expect_nothing();
	assert_json(result, "{'agent_info':{'name':'a','version':'2'},'agent_session_id':'s1','stop_reason':'end_turn','junk_lines':0,"
				"'usage':{'input_tokens':5,'output_tokens':1,'cached_tokens':0,'reasoning_tokens':0}}");
	assert_json(capture_parts(), "[{'kind':'text','payload':{'text':'ok'}},"
				"{'kind':'usage','payload':{'input_tokens':5,'output_tokens':1,'cached_tokens':0,'reasoning_tokens':0}}]");
	assert_json(capture_find(capture_events(), "status", 1), "{'phase':'prompted','agent_session_id':'s1'}");
	assert_json(capture_find(capture_events(), "status", 2), "{'phase':'ended','outcome':'completed'}");
}

static void
every_stop_reason_has_its_outcome(void **state)
{
	static const char *const cases[][2] = {
		{"'end_turn'", "completed -"},
		{"'max_tokens'", "failed max_tokens"},
		{"'max_turn_requests'", "failed max_turn_requests"},
		{"'refusal'", "failed refusal"},
		{"'cancelled'", "cancelled cancelled"},
		{"'of_its_own'", "failed protocol_error"},
		{"7", "failed protocol_error"},
		{"null", "failed protocol_error"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char		line[100];

		begin(state);
		to_prompt();
		snprintf(line, sizeof(line), "{'id':3,'result':{'stopReason':%s}}", cases[i][0]);
		say(line);
		expect_end(cases[i][1]);
	}
	begin(state);
	to_prompt();
	say("{'id':3,'result':null}");
	expect_end("failed protocol_error");
}

static void
another_version_is_a_mismatch(void **state)
{
	static const char *const versions[] = {"2", "0", "'1'", "1.0", "null", "{}"};

	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
	{
		char		line[100];

		begin(state);
		bc_transport_acp.start();
		snprintf(line, sizeof(line), "{'id':1,'result':{'protocolVersion':%s}}", versions[i]);
		say(line);
		expect_end("failed protocol_mismatch");
	}
	begin(state);
	bc_transport_acp.start();
	say("{'id':1,'result':[]}");
	expect_end("failed protocol_mismatch");
}

static void
errors_have_their_reason(void **state)
{
	begin(state);
	bc_transport_acp.start();
	say("{'id':1,'error':{'code':-32000,'message':'Authentication required'}}");
	expect_end("failed auth_required");
	assert_string_equal(outcome_message, "initialize: Authentication required (error -32000)");
	assert_non_null(json_object_get(result, "hint"));

	begin(state);
	to_session();
	say("{'id':2,'error':{'code':-32000}}");
	expect_end("failed auth_required");

	begin(state);
	to_prompt();
	say("{'id':3,'error':{'code':-32603,'message':'Internal','data':{'why':'x'}}}");
	expect_end("failed agent_error");
	assert_string_equal(outcome_message, "session/prompt: Internal (error -32603)");
	assert_json(json_object_get(result, "detail"), "'{\\'why\\':\\'x\\'}'");

	begin(state);
	to_prompt();
	say("{'id':3,'error':'odd'}");
	expect_end("failed agent_error");

	begin(state);
	to_session();
	say("{'id':2,'result':{}}");
	expect_end("failed protocol_error");
}

static void
model_and_mode_are_options_where_there_are_any(void **state)
{
	(void) state;
	json_object_set_new(order, "model", json_string("Big"));
	json_object_set_new(order, "mode", json_string("auto"));
	to_session();
	say("{'id':2,'result':{'sessionId':'s1','configOptions':[{'id':'m1','category':'model','currentValue':'small',"
		"'options':[{'value':'big','name':'Big'}]},{'id':'mode','options':[]}],'modes':{},'models':{}}}");
	expect("{'jsonrpc':'2.0','id':3,'method':'session/set_config_option','params':{'sessionId':'s1','configId':'m1','value':'big'}}");
	assert_int_equal(deadline, 30000);
	say("{'id':3,'result':{'configOptions':[{'id':'m1','category':'model','currentValue':'big-1'}]}}");
	expect("{'jsonrpc':'2.0','id':4,'method':'session/set_config_option','params':{'sessionId':'s1','configId':'mode','value':'auto'}}");
	say("{'id':4,'result':{}}");
	say("{'id':5,'result':{'stopReason':'end_turn','usage':{'inputTokens':1}}}");
	assert_json(json_object_get(json_object_get(result, "usage"), "model"), "'big-1'");
}

static void
model_and_mode_are_set_the_older_way_otherwise(void **state)
{
	json_object_set_new(order, "model", json_string("big"));
	json_object_set_new(order, "mode", json_string("auto"));
	to_session();
	say("{'id':2,'result':{'sessionId':'s1','models':{'currentModelId':'small'}}}");
	expect("{'jsonrpc':'2.0','id':3,'method':'session/set_model','params':{'sessionId':'s1','modelId':'big'}}");
	say("{'id':3,'result':null}");
	expect("{'jsonrpc':'2.0','id':4,'method':'session/set_mode','params':{'sessionId':'s1','modeId':'auto'}}");
	say("{'id':4,'result':{}}");
	say("{'id':5,'result':{'stopReason':'end_turn','usage':{'inputTokens':1}}}");
	assert_json(json_object_get(json_object_get(result, "usage"), "model"), "'big'");

	/* What was asked for and can't be had is no detail. */
	begin(state);
	json_object_set_new(order, "model", json_string("big"));
	to_session();
	say("{'id':2,'result':{'sessionId':'s1'}}");
	say("{'id':3,'error':{'code':-32601,'message':'Method not found'}}");
	expect_end("failed agent_error");
}

static void
a_cancel_is_passed_on_and_any_answer_is_cancelled(void **state)
{
	static const char *const answers[] = {
		"{'id':3,'result':{'stopReason':'cancelled'}}", "{'id':3,'result':{'stopReason':'end_turn'}}",
		"{'id':3,'result':{'stopReason':'refusal'}}", "{'id':3,'error':{'code':-32603,'message':'aborted'}}",
		"{'id':3,'error':{'code':-32800}}", "{'id':3,'result':null}",
	};

	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
	{
		begin(state);
		to_prompt();
		say("{'method':'session/update','params':{'update':{'sessionUpdate':'tool_call','toolCallId':'t','title':'T','status':'in_progress'}}}");
		is_cancelled = true;
		bc_transport_acp.cancel();
		expect("{'jsonrpc':'2.0','method':'session/cancel','params':{'sessionId':'s1'}}");
		assert_null(outcome);
		/* updates still count, and permissions are not left pending */
		say("{'method':'session/update','params':{'update':{'sessionUpdate':'agent_message_chunk','content':{'type':'text','text':'bye'}}}}");
		say("{'id':9,'method':'session/request_permission','params':{'options':[{'optionId':'y','kind':'allow_once'}]}}");
		expect("{'jsonrpc':'2.0','id':9,'result':{'outcome':{'outcome':'cancelled'}}}");
		say(answers[i]);
		expect_end("cancelled cancelled");
		assert_json(capture_find(capture_parts(), "text", 0), "{'text':'bye'}");
		assert_json(json_object_get(capture_find(capture_parts(), "tool_call", 0), "status"), "'cancelled'");
		assert_json(json_object_get(capture_find(capture_parts(), "permission", 0), "rule"), "'cancel'");
	}
}

static void
a_cancel_before_the_prompt_ends_the_turn(void **state)
{
	(void) state;
	to_session();
	is_cancelled = true;
	bc_transport_acp.cancel();
	expect_nothing();
	expect_end("cancelled cancelled");
}

static void
requests_we_do_not_know_are_refused(void **state)
{
	(void) state;
	to_prompt();
	say("{'id':5,'method':'terminal/create','params':{}}");
	say("{'id':3,'method':'vendor/queue'}");
	expect("{'jsonrpc':'2.0','id':5,'error':{'code':-32601,'message':'method not found'}}");
	expect("{'jsonrpc':'2.0','id':3,'error':{'code':-32601,'message':'method not found'}}");
	assert_null(outcome);
}

static void
files_are_served_inside_the_worktree_only(void **state)
{
	char		root[] = "/tmp/boocoder-acp-XXXXXX";
	char		path[64];
	char	   *line;

	(void) state;
	assert_non_null(mkdtemp(root));
	snprintf(path, sizeof(path), "%s/a.txt", root);
	json_object_set_new(order, "cwd", json_string(root));
	bc_transport_acp.start();
	json_array_clear(sent);
	line = bc_asprintf("{'id':1,'method':'fs/write_text_file','params':{'path':'%s','content':'one\\ntwo\\n'}}", path);
	say(line);
	free(line);
	expect("{'jsonrpc':'2.0','id':1,'result':{}}");
	line = bc_asprintf("{'id':2,'method':'fs/read_text_file','params':{'path':'%s','line':2,'limit':1}}", path);
	say(line);
	free(line);
	expect("{'jsonrpc':'2.0','id':2,'result':{'content':'two\\n'}}");
	line = bc_asprintf("{'id':3,'method':'fs/read_text_file','params':{'path':'%s','line':null,'limit':0}}", path);
	say(line);
	free(line);
	expect("{'jsonrpc':'2.0','id':3,'result':{'content':''}}");
	line = bc_asprintf("{'id':4,'method':'fs/read_text_file','params':{'path':'%s2'}}", path);
	say(line);
	free(line);
	expect("{'jsonrpc':'2.0','id':4,'error':{'code':-32002,'message':'Resource not found: no such file'}}");
	say("{'id':5,'method':'fs/read_text_file','params':{'path':'/etc/passwd'}}");
	expect("{'jsonrpc':'2.0','id':5,'error':{'code':-32602,'message':'the path is not inside the worktree'}}");
	say("{'id':6,'method':'fs/write_text_file','params':{'path':'/w/x'}}");
	expect("{'jsonrpc':'2.0','id':6,'error':{'code':-32602,'message':'path or content is missing'}}");
	say("{'id':7,'method':'fs/read_text_file'}");
	expect("{'jsonrpc':'2.0','id':7,'error':{'code':-32602,'message':'path is missing'}}");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(root), 0);
}

static void
junk_is_counted_and_the_first_of_it_shown(void **state)
{
	(void) state;
	bc_transport_acp.start();
	expect_initialize();
	say("");
	for (int i = 0; i < 7; i++)
		say("Welcome!");
	say("{'id':99,'result':{}}");
	say("\xFF\xFE {");
	say("{'id':1,'result':{'protocolVersion':1}}");
	say("{'id':2,'error':{'code':1}}");
	expect_end("failed agent_error");
	assert_json(json_object_get(result, "junk_lines"), "9");
	assert_int_equal(capture_count(capture_events(), "log"), 5);
	assert_json(capture_find(capture_events(), "log", 0), "{'stream':'stdout','text':'Welcome!'}");
}

static void
other_notifications_are_raw_events(void **state)
{
	(void) state;
	to_prompt();
	say("{'method':'_vendor/status','params':{'a':1}}");
	say("{'method':'session/update','params':{'sessionId':'other','update':{'sessionUpdate':'agent_message_chunk','content':{'type':'text','text':'x'}}}}");
	say("{'method':'session/update'}");
	say("{'method':'session/update','params':{'update':5}}");
	say("{'method':'$/cancel_request','params':{'requestId':1}}");
	assert_int_equal(capture_count(capture_events(), "raw"), 4);
	assert_json(capture_find(capture_events(), "raw", 0), "{'method':'_vendor/status','params':{'a':1}}");
	assert_int_equal(capture_count(capture_events(), "text"), 0);
}

static void
a_line_over_the_limit_fails_the_turn(void **state)
{
	char	   *line = malloc(200001);

	(void) state;
	to_prompt();
	memset(line, 'x', 200000);
	bc_transport_acp.output(line, 200000);
	expect_end("failed line_too_long");
	free(line);
}

static void
an_agent_that_ends_early_has_exited(void **state)
{
	begin(state);
	bc_transport_acp.start();
	bc_transport_acp.ended(127, 0);
	expect_end("failed agent_exited");
	assert_string_equal(outcome_message, "the agent ended (status 127) before it answered initialize");

	begin(state);
	to_prompt();
	bc_transport_acp.output("{\"method\":\"sess", 15);
	bc_transport_acp.ended(-1, 9);
	expect_end("failed agent_exited");
	assert_string_equal(outcome_message, "the agent ended (signal 9) before it answered session/prompt");
	assert_json(json_object_get(result, "junk_lines"), "1");

	/* the answer without its newline is an answer */
	begin(state);
	to_prompt();
	bc_transport_acp.output("{\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}", 44);
	bc_transport_acp.ended(0, 0);
	expect_end("completed -");
}

static void
what_comes_after_the_answer_is_ignored(void **state)
{
	static const char lines[] =
		"{\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}\n"
		"{\"method\":\"session/update\",\"params\":{\"update\":{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\"late\"}}}}\n"
		"{\"id\":8,\"method\":\"session/request_permission\"}\n";

	(void) state;
	to_prompt();
	bc_transport_acp.output(lines, sizeof(lines) - 1);
	expect_end("completed -");
	assert_int_equal(capture_count(capture_events(), "text"), 0);
	expect_nothing();
}

static void
the_turn_is_the_same_byte_by_byte(void **state)
{
	static const char lines[] =
		"noise\r\n{\"id\":1,\"result\":{\"protocolVersion\":1}}\r\n{\"id\":2,\"result\":{\"sessionId\":\"s\"}}\n"
		"{\"method\":\"session/update\",\"params\":{\"update\":{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\"\xF0\x9F\x98\x80\\ud83d\\ude00\"}}}}\n"
		"{\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}\n";

	(void) state;
	bc_transport_acp.start();
	for (size_t i = 0; i < sizeof(lines) - 1; i++)
		bc_transport_acp.output(lines + i, 1);
	expect_end("completed -");
	assert_json(capture_find(capture_parts(), "text", 0), "{'text':'\xF0\x9F\x98\x80\xF0\x9F\x98\x80'}");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_turn_from_beginning_to_end),
		TEST(every_stop_reason_has_its_outcome),
		TEST(another_version_is_a_mismatch),
		TEST(errors_have_their_reason),
		TEST(model_and_mode_are_options_where_there_are_any),
		TEST(model_and_mode_are_set_the_older_way_otherwise),
		TEST(a_cancel_is_passed_on_and_any_answer_is_cancelled),
		TEST(a_cancel_before_the_prompt_ends_the_turn),
		TEST(requests_we_do_not_know_are_refused),
		TEST(files_are_served_inside_the_worktree_only),
		TEST(junk_is_counted_and_the_first_of_it_shown),
		TEST(other_notifications_are_raw_events),
		TEST(a_line_over_the_limit_fails_the_turn),
		TEST(an_agent_that_ends_early_has_exited),
		TEST(what_comes_after_the_answer_is_ignored),
		TEST(the_turn_is_the_same_byte_by_byte),
	};

	return cmocka_run_group_tests_name("acp", tests, NULL, NULL);
}
