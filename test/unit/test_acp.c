/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_acp.c
 *	  The conversation with an ACP agent.  Takes the place of agent.c: the test
 *	  is the agent, and sees what the runner would do.
 */
#include "unit.h"

#include <unistd.h>

#include "capture.h"
#include "runner/agent.h"
#include "runner/buf.h"

static json_t *order;
static json_t *result;
static json_t *sent;			/* messages to the agent, not yet taken */
static json_int_t deadline;		/* ms, 0: none */
static const char *deadline_reason;
static char *outcome;			/* "outcome reason" */
static char *outcome_message;
static bool is_cancelled;

const json_t *
bc_agent_order(void)
{
	return order;
}

json_int_t
bc_agent_limit(const char *name)
{
	return json_integer_value(json_object_get(json_object_get(order, "limits"), name));
}

void
bc_agent_write(const char *bytes, size_t len)
{
	json_error_t error;
	json_t	   *message = json_loadb(bytes, len, 0, &error);

	if (outcome != NULL)
		return;
	assert_int_equal(bytes[len - 1], '\n');
	if (message == NULL)
		fail_msg("sent to the agent: %.*s: %s", (int) len, bytes, error.text);
	json_array_append_new(sent, message);
}

void
bc_agent_expect(json_int_t within_ms, const char *reason, const char *message)
{
	deadline = within_ms;
	deadline_reason = reason;
	if (within_ms > 0)
		assert_non_null(message);
}

void
bc_agent_finish(const char *what, const char *why, const char *message)
{
	if (outcome != NULL)
		return;
	outcome = bc_asprintf("%s %s", what, why != NULL ? why : "-");
	outcome_message = message != NULL ? bc_strdup(message) : NULL;
	bc_transport_acp.settled(what);
}

bool
bc_agent_finished(void)
{
	return outcome != NULL;
}

bool
bc_agent_cancelled(void)
{
	return is_cancelled;
}

void
bc_agent_report(const char *key, json_t *value)
{
	json_object_set_new(result, key, value);
}

/* --- the agent --- */

static int
end(void **state)
{
	(void) state;
	json_decref(order);
	json_decref(result);
	json_decref(sent);
	free(outcome);
	free(outcome_message);
	order = result = sent = NULL;
	outcome = outcome_message = NULL;
	is_cancelled = false;
	return 0;
}

static int
begin(void **state)
{
	end(state);
	capture_reset();
	order = json_of("{'cwd':'/w','input':'do it',"
					"'limits':{'handshake_ms':30000,'max_line':100000}}");
	result = json_object();
	sent = json_array();
	return 0;
}

/* The agent says one line; ' stands for ". */
static void
say(const char *text)
{
	char	   *line = bc_asprintf("%s\n", text);

	for (char *at = line; *at != '\0'; at++)
		if (*at == '\'')
			*at = '"';
	bc_transport_acp.output(line, strlen(line));
	free(line);
}

/* What the runner sent next must be this. */
static void
expect(const char *message)
{
	json_t	   *next = json_incref(json_array_get(sent, 0));

	assert_json(next, message);
	json_array_remove(sent, 0);
	json_decref(next);
}

static void
expect_nothing(void)
{
	assert_int_equal(json_array_size(sent), 0);
}

static void
expect_end(const char *expected)
{
	assert_non_null(outcome);
	assert_string_equal(outcome, expected);
}

static void
expect_initialize(void)
{
	expect("{'jsonrpc':'2.0','id':1,'method':'initialize','params':{'protocolVersion':1,'clientCapabilities':"
		   "{'fs':{'readTextFile':true,'writeTextFile':true},'terminal':false,'session':{'configOptions':{'boolean':{}}},'elicitation':{'form':{}}},"
		   "'clientInfo':{'name':'boocoder','version':'test'}}}");
}

static void
to_session(void)
{
	bc_transport_acp.start();
	expect_initialize();
	assert_int_equal(deadline, 30000);
	assert_string_equal(deadline_reason, "handshake_timeout");
	say("{'jsonrpc':'2.0','id':1,'result':{'protocolVersion':1,'agentInfo':{'name':'a','version':'2'}}}");
	expect("{'jsonrpc':'2.0','id':2,'method':'session/new','params':{'cwd':'/w','mcpServers':[]}}");
	assert_int_equal(deadline, 30000);
}

static void
to_prompt(void)
{
	to_session();
	say("{'id':2,'result':{'sessionId':'s1'}}");
	expect("{'jsonrpc':'2.0','id':3,'method':'session/prompt','params':{'sessionId':'s1','prompt':[{'type':'text','text':'do it'}]}}");
	assert_int_equal(deadline, 0);
	assert_null(outcome);
}

/* --- tests --- */

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
answer_with(const char *text)
{
	json_t	   *answer = json_of(text);

	bc_transport_acp.answer(answer);
	json_decref(answer);
}

static void
permissions_wait_for_their_answers(void **state)
{
	(void) state;
	to_prompt();
	assert_false(bc_transport_acp.waiting());
	say("{'id':'p1','method':'session/request_permission','params':{'toolCall':{'toolCallId':'t','title':'T','kind':'edit'},"
		"'options':[{'optionId':'y','name':'Yes','kind':'allow_once'},{'optionId':'n','name':'No','kind':'reject_once'}]}}");
	say("{'id':2,'method':'session/request_permission','params':{'toolCall':{'toolCallId':'u'},'options':[{'optionId':'y','kind':'allow_once'}]}}");
	say("{'id':null,'method':'session/request_permission'}");
	expect_nothing();
	assert_true(bc_transport_acp.waiting());
	assert_true(bc_transport_acp.working());
	assert_json(capture_find(capture_events(), "permission_request", 0),
				"{'request':'1','kind':'permission','tool_call':{'id':'t','title':'T','kind':'edit'},"
				"'options':[{'optionId':'y','name':'Yes','kind':'allow_once'},{'optionId':'n','name':'No','kind':'reject_once'}],"
				"'message':null,'schema':null}");

	/* in any order; what is not known is ignored */
	answer_with("{'request':'7','option':'y'}");
	answer_with("{'request':2,'option':'y'}");
	answer_with("{}");
	expect_nothing();
	answer_with("{'request':'2','option':'y','content':null,'rule':'rule 5'}");
	expect("{'jsonrpc':'2.0','id':2,'result':{'outcome':{'outcome':'selected','optionId':'y'}}}");
	answer_with("{'request':'2','option':'y'}");
	expect_nothing();
	answer_with("{'request':'1','option':'n','content':null,'rule':null}");
	expect("{'jsonrpc':'2.0','id':'p1','result':{'outcome':{'outcome':'selected','optionId':'n'}}}");
	assert_true(bc_transport_acp.waiting());
	answer_with("{'request':'3','option':null}");
	expect("{'jsonrpc':'2.0','id':null,'result':{'outcome':{'outcome':'cancelled'}}}");
	assert_false(bc_transport_acp.waiting());
	assert_json(capture_find(capture_parts(), "permission", 0),
				"{'request':{'tool_call':{'id':'u'},'options':[{'optionId':'y','kind':'allow_once'}]},"
				"'key':'2','outcome':'selected','option':'y','rule':'rule 5'}");
	assert_json(capture_find(capture_events(), "permission", 1),
				"{'request':{'tool_call':{'id':'t','title':'T','kind':'edit'},"
				"'options':[{'optionId':'y','name':'Yes','kind':'allow_once'},{'optionId':'n','name':'No','kind':'reject_once'}]},"
				"'key':'1','outcome':'selected','option':'n','rule':null}");
	assert_json(capture_find(capture_parts(), "permission", 2),
				"{'request':{'tool_call':{},'options':[]},'key':'3','outcome':'cancelled','option':null,'rule':null}");
}

static void
an_option_nobody_offered_is_none(void **state)
{
	(void) state;
	to_prompt();
	say("{'id':1,'method':'session/request_permission','params':{'options':[{'optionId':'y','kind':'allow_once'},7,{'optionId':3}]}}");
	answer_with("{'request':'1','option':'z'}");
	expect("{'jsonrpc':'2.0','id':1,'result':{'outcome':{'outcome':'cancelled'}}}");
}

static void
a_request_tells_what_is_known_of_its_call(void **state)
{
	(void) state;
	to_prompt();
	say("{'method':'session/update','params':{'update':{'sessionUpdate':'tool_call','toolCallId':'t','title':'make','kind':'execute',"
		"'rawInput':{'command':'make'},'status':'in_progress'}}}");
	say("{'id':1,'method':'session/request_permission','params':{'toolCall':{'toolCallId':'t','status':'pending'},'options':[]}}");
	assert_json(json_object_get(capture_find(capture_events(), "permission_request", 0), "tool_call"),
				"{'id':'t','title':'make','kind':'execute','raw_input':{'command':'make'},'status':'pending'}");
}

static void
too_many_requests_at_once_are_not_passed_on(void **state)
{
	(void) state;
	to_prompt();
	for (int i = 0; i < 70; i++)
	{
		char		line[200];

		snprintf(line, sizeof(line), "{'id':%d,'method':'session/request_permission','params':{'options':[{'optionId':'y','kind':'allow_once'}]}}", i);
		say(line);
	}
	assert_int_equal(capture_count(capture_events(), "permission_request"), 64);
	assert_int_equal(json_array_size(sent), 6);
	expect("{'jsonrpc':'2.0','id':64,'result':{'outcome':{'outcome':'cancelled'}}}");
}

static void
a_request_can_be_withdrawn(void **state)
{
	(void) state;
	to_prompt();
	say("{'id':'\\u00e9','method':'session/request_permission','params':{'options':[{'optionId':'y','kind':'allow_once'}]}}");
	say("{'id':4,'method':'session/request_permission','params':{'options':[{'optionId':'y','kind':'allow_once'}]}}");
	say("{'method':'$/cancel_request','params':{'requestId':77}}");
	say("{'method':'$/cancel_request'}");
	expect_nothing();
	say("{'method':'$/cancel_request','params':{'requestId':'\\u00e9'}}");
	expect("{'jsonrpc':'2.0','id':'\\u00e9','result':{'outcome':{'outcome':'cancelled'}}}");
	assert_json(capture_find(capture_events(), "permission_withdrawn", 0), "{'request':'1'}");
	answer_with("{'request':'1','option':'y'}");
	expect_nothing();
	assert_true(bc_transport_acp.waiting());
	/* The end of the turn withdraws the rest. */
	say("{'id':3,'result':{'stopReason':'end_turn'}}");
	expect_end("completed -");
	expect_nothing();
	assert_json(capture_find(capture_events(), "permission_withdrawn", 1), "{'request':'2'}");
	assert_int_equal(capture_count(capture_events(), "permission"), 0);
	assert_false(bc_transport_acp.waiting());
}

static void
a_turn_that_ends_for_want_of_a_permission_has_failed(void **state)
{
	static const char *const answers[][2] = {
		{"{'request':'1','option':'n'}", "failed permission_rejected"},
		{"{'request':'1','option':null}", "failed permission_rejected"},
		{"{'request':'1','option':'y'}", "cancelled cancelled"},
	};

	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
	{
		begin(state);
		to_prompt();
		say("{'id':1,'method':'session/request_permission','params':{'options':[{'optionId':'y','kind':'allow_once'},{'optionId':'n','kind':'reject_always'}]}}");
		answer_with(answers[i][0]);
		say("{'id':3,'result':{'stopReason':'cancelled'}}");
		expect_end(answers[i][1]);
	}
	/* A model that goes on without it has done its work. */
	begin(state);
	to_prompt();
	say("{'id':1,'method':'session/request_permission','params':{'options':[{'optionId':'n','kind':'reject_once'}]}}");
	answer_with("{'request':'1','option':'n'}");
	say("{'id':3,'result':{'stopReason':'end_turn'}}");
	expect_end("completed -");
}

static void
forms_wait_for_their_answers(void **state)
{
	static const char form[] = "'method':'elicitation/create','params':{'sessionId':'s1','mode':'form','message':'Which?','toolCallId':'t',"
		"'requestedSchema':{'type':'object','properties':{'name':{'type':'string'}}}}}";
	static const char *const cases[][3] = {
		{"{'request':'1','content':{'name':'x'},'option':null}", "{'action':'accept','content':{'name':'x'}}", "'selected','option':null"},
		{"{'request':'1','content':null,'option':'decline'}", "{'action':'decline'}", "'selected','option':'decline'"},
		{"{'request':'1','content':null,'option':null}", "{'action':'cancel'}", "'cancelled','option':null"},
		{"{'request':'1','content':'x'}", "{'action':'cancel'}", "'cancelled','option':null"},
	};
	char	   *line;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		begin(state);
		to_prompt();
		line = bc_asprintf("{'id':8,%s", form);
		say(line);
		free(line);
		expect_nothing();
		assert_true(bc_transport_acp.waiting());
		assert_json(capture_find(capture_events(), "permission_request", 0),
					"{'request':'1','kind':'elicitation','tool_call':{'id':'t'},'options':[],'message':'Which?',"
					"'schema':{'type':'object','properties':{'name':{'type':'string'}}}}");
		answer_with(cases[i][0]);
		line = bc_asprintf("{'jsonrpc':'2.0','id':8,'result':%s}", cases[i][1]);
		expect(line);
		free(line);
		line = bc_asprintf("{'request':{'tool_call':{'id':'t'},'options':[],'message':'Which?'},'key':'1','outcome':%s,'rule':null}",
						   cases[i][2]);
		assert_json(capture_find(capture_parts(), "permission", 0), line);
		free(line);
	}
	begin(state);
	to_prompt();
	say("{'id':8,'method':'elicitation/create','params':{'mode':'url','url':'http://x/','elicitationId':'e'}}");
	say("{'id':9,'method':'elicitation/create','params':{'mode':'form'}}");
	say("{'id':10,'method':'elicitation/create'}");
	expect("{'jsonrpc':'2.0','id':8,'error':{'code':-32602,'message':'only forms are supported'}}");
	expect("{'jsonrpc':'2.0','id':9,'error':{'code':-32602,'message':'only forms are supported'}}");
	expect("{'jsonrpc':'2.0','id':10,'error':{'code':-32602,'message':'only forms are supported'}}");
	assert_false(bc_transport_acp.waiting());
}

static void
a_cancel_answers_what_is_pending_first(void **state)
{
	(void) state;
	to_prompt();
	say("{'id':1,'method':'session/request_permission','params':{'options':[{'optionId':'y','kind':'allow_once'}]}}");
	say("{'id':2,'method':'elicitation/create','params':{'requestedSchema':{}}}");
	is_cancelled = true;
	bc_transport_acp.cancel();
	assert_int_equal(json_array_size(sent), 3);
	assert_json(json_object_get(json_array_get(sent, 2), "method"), "'session/cancel'");
	expect("{'jsonrpc':'2.0','id':2,'result':{'action':'cancel'}}");
	expect("{'jsonrpc':'2.0','id':1,'result':{'outcome':{'outcome':'cancelled'}}}");
	assert_json(json_object_get(capture_find(capture_parts(), "permission", 1), "rule"), "'cancel'");
	assert_false(bc_transport_acp.waiting());
	/* It is our cancel that ends the turn, not the permission. */
	say("{'id':3,'result':{'stopReason':'cancelled'}}");
	expect_end("cancelled cancelled");
}

/* --- modes and models --- */

static void
what_is_offered_is_told(void **state)
{
	(void) state;
	to_session();
	say("{'id':2,'result':{'sessionId':'s1','models':{'currentModelId':'m1','availableModels':[{'modelId':'m1','name':'M 1'},{'modelId':'m2'}]},"
		"'modes':{'currentModeId':'ask','availableModes':[{'id':'ask','name':'Ask','description':'asks'},{'id':'auto','name':'Auto'}]}}}");
	assert_json(capture_find(capture_events(), "models", 0),
				"{'models':[{'id':'m1','name':'M 1'},{'id':'m2','name':'m2'}],'current':'m1'}");
	assert_json(capture_find(capture_events(), "modes", 0),
				"{'modes':[{'id':'ask','name':'Ask','description':'asks'},{'id':'auto','name':'Auto','description':null}],'current':'ask'}");
	assert_int_equal(capture_count(capture_events(), "mode"), 0);

	/* nothing offered, nothing told */
	begin(state);
	to_prompt();
	assert_int_equal(capture_count(capture_events(), "models"), 0);
	assert_int_equal(capture_count(capture_events(), "modes"), 0);
}

static void
the_mode_changes_during_a_turn(void **state)
{
	(void) state;
	to_prompt();
	answer_with("{'mode':'auto','request':'m1'}");
	expect("{'jsonrpc':'2.0','id':4,'method':'session/set_mode','params':{'sessionId':'s1','modeId':'auto'}}");
	answer_with("{'mode':'wild','request':'m2'}");
	expect("{'jsonrpc':'2.0','id':5,'method':'session/set_mode','params':{'sessionId':'s1','modeId':'wild'}}");
	assert_int_equal(deadline, 0);
	say("{'id':5,'error':{'code':-32602,'message':'no such mode'}}");
	say("{'id':4,'result':{}}");
	assert_json(capture_find(capture_events(), "mode_failed", 0), "{'mode':'wild','request':'m2','message':'no such mode'}");
	assert_json(capture_find(capture_events(), "mode", 0), "{'mode':'auto','request':'m1'}");
	/* What the agent tells once more is no news. */
	say("{'method':'session/update','params':{'update':{'sessionUpdate':'current_mode_update','currentModeId':'auto'}}}");
	assert_int_equal(capture_count(capture_events(), "mode"), 1);
	answer_with("{'mode':'ask','request':'m3'}");
	say("{'id':3,'result':{'stopReason':'end_turn'}}");
	expect_end("completed -");
	assert_json(capture_find(capture_events(), "mode_failed", 1), "{'mode':'ask','request':'m3','message':'the turn has ended'}");
}

static void
a_mode_wanted_early_is_chosen_before_the_prompt(void **state)
{
	(void) state;
	bc_transport_acp.start();
	answer_with("{'mode':'auto','request':'m1'}");
	answer_with("{'mode':'ask','request':'m2'}");
	say("{'id':1,'result':{'protocolVersion':1}}");
	json_array_clear(sent);
	say("{'id':2,'result':{'sessionId':'s1','configOptions':[{'id':'how','category':'mode','currentValue':'ask','options':[{'value':'auto'},{'value':'ask'}]}]}}");
	expect("{'jsonrpc':'2.0','id':3,'method':'session/set_config_option','params':{'sessionId':'s1','configId':'how','value':'auto'}}");
	expect("{'jsonrpc':'2.0','id':4,'method':'session/set_config_option','params':{'sessionId':'s1','configId':'how','value':'ask'}}");
	assert_json(json_object_get(json_array_get(sent, 0), "method"), "'session/prompt'");
	say("{'id':3,'result':{'configOptions':[{'id':'how','category':'mode','currentValue':'auto'}]}}");
	assert_json(capture_find(capture_events(), "mode", 0), "{'mode':'auto','request':'m1'}");
	say("{'id':5,'result':{'stopReason':'end_turn'}}");
	expect_end("completed -");
}

static void
a_mode_the_agent_refuses_fails_the_turn(void **state)
{
	(void) state;
	json_object_set_new(order, "mode", json_string("wild"));
	to_session();
	say("{'id':2,'result':{'sessionId':'s1'}}");
	say("{'id':3,'error':{'code':-32602,'message':'unauthorized mode'}}");
	expect_end("failed agent_error");
	assert_string_equal(outcome_message, "the choice of the mode: unauthorized mode (error -32602)");
}

/* --- agents that are not what they seem --- */

static void
errors_of_the_model_have_their_reason(void **state)
{
	begin(state);
	to_prompt();
	say("{'id':3,'error':{'code':-32603,'message':'Internal error','data':{'details':'429 Too Many Requests'}}}");
	expect_end("failed rate_limited");
	assert_string_equal(outcome_message, "session/prompt: Internal error: 429 Too Many Requests (error -32603)");

	begin(state);
	bc_transport_acp.start();
	say("{'id':1,'result':{'protocolVersion':1,'authMethods':[{'id':'key','name':'API key','description':'a key of yours'},{'id':'login'}]}}");
	say("{'id':2,'error':{'code':401,'message':'who are you'}}");
	expect_end("failed auth_required");
	assert_json(json_object_get(result, "hint"),
				"'Sign the agent in, or give its provider the key it needs (env). It offers: API key (a key of yours), login.'");
}

static void
an_end_that_is_no_success(void **state)
{
#define RETRY ".\\n\\nPlease retry if you think this is a transient or recoverable error."
#define STATUS(type) "{'sessionUpdate':'session_info_update','_meta':{'codex':{'threadStatus':{'type':'" type "'}}}}"
	static const struct
	{
		const char *kind;
		const char *text;
		const char *update;		/* behind it */
		const char *outcome;
		const char *message;
	}			cases[] = {
		{"goose", "Ran into this error: Authentication error: 401 Unauthorized" RETRY,
		NULL, "failed auth_required", "Authentication error: 401 Unauthorized"},
		{"goose", "I begin.Ran into this error: Rate limit exceeded: x" RETRY, NULL, "failed rate_limited", "Rate limit exceeded: x"},
		{"goose", "Network error: no route\\n\\nPlease resend your message to try again.", NULL, "failed agent_error", "Network error: no route"},
		{"goose", "Ran into this error trying to compact: Context length exceeded: 9.\\n\\nPlease try again or create a new session",
		NULL, "failed context_exceeded", "Context length exceeded: 9"},
		{"goose", "Ran into this error: x. I solved it.", NULL, "completed -", NULL},
		{"goose", "Ran into this error: x" RETRY, "{'sessionUpdate':'tool_call','toolCallId':'t','title':'T'}", "completed -", NULL},
		{"mine", "Ran into this error: x" RETRY, NULL, "completed -", NULL},
		{"codex", "exceeded retry limit, last status: 429 Too Many Requests\\n\\n", STATUS("systemError"),
		"failed rate_limited", "exceeded retry limit, last status: 429 Too Many Requests"},
		{"codex", "all is well", STATUS("idle"), "completed -", NULL},
		{"mine", "x", STATUS("systemError"), "completed -", NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char	   *line = bc_asprintf("{'method':'session/update','params':{'update':{'sessionUpdate':'agent_message_chunk',"
									   "'content':{'type':'text','text':'%s'}}}}", cases[i].text);

		begin(state);
		json_object_set_new(order, "agent_kind", json_string(cases[i].kind));
		to_prompt();
		say(line);
		free(line);
		if (cases[i].update != NULL)
		{
			line = bc_asprintf("{'method':'session/update','params':{'update':%s}}", cases[i].update);
			say(line);
			free(line);
		}
		say("{'id':3,'result':{'stopReason':'end_turn'}}");
		expect_end(cases[i].outcome);
		if (cases[i].message != NULL)
			assert_string_equal(outcome_message, cases[i].message);
		assert_json(json_object_get(result, "stop_reason"), "'end_turn'");
	}
}

static void
only_before_it_has_answered_an_agent_is_unheard(void **state)
{
	(void) state;
	bc_transport_acp.start();
	assert_true(bc_transport_acp.unheard());
	say("junk");
	assert_true(bc_transport_acp.unheard());
	say("{'id':1,'result':{'protocolVersion':1}}");
	assert_false(bc_transport_acp.unheard());
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
	expect("{'jsonrpc':'2.0','id':4,'error':{'code':-32002,'message':'no such file'}}");
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
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
		TEST(a_turn_from_beginning_to_end),
		TEST(every_stop_reason_has_its_outcome),
		TEST(another_version_is_a_mismatch),
		TEST(errors_have_their_reason),
		TEST(model_and_mode_are_options_where_there_are_any),
		TEST(model_and_mode_are_set_the_older_way_otherwise),
		TEST(permissions_wait_for_their_answers),
		TEST(an_option_nobody_offered_is_none),
		TEST(a_request_tells_what_is_known_of_its_call),
		TEST(too_many_requests_at_once_are_not_passed_on),
		TEST(a_request_can_be_withdrawn),
		TEST(a_turn_that_ends_for_want_of_a_permission_has_failed),
		TEST(forms_wait_for_their_answers),
		TEST(a_cancel_answers_what_is_pending_first),
		TEST(what_is_offered_is_told),
		TEST(the_mode_changes_during_a_turn),
		TEST(a_mode_wanted_early_is_chosen_before_the_prompt),
		TEST(a_mode_the_agent_refuses_fails_the_turn),
		TEST(errors_of_the_model_have_their_reason),
		TEST(an_end_that_is_no_success),
		TEST(only_before_it_has_answered_an_agent_is_unheard),
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
#undef TEST
	};

	return cmocka_run_group_tests_name("acp", tests, NULL, NULL);
}
