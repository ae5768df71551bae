/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_acp_people.c
 *	  What people have to do with the turn of an ACP agent: permissions, forms,
 *	  modes, and the truth about its end.
 */
#include "acp_fixture.h"

/* --- permissions and forms --- */

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

/* gemini says nothing more of a call that it was refused. */
static void
a_refused_call_does_not_stay_open(void **state)
{
	static const char *const ends[] = {"failed", "pending", "pending", "completed", "failed"};

	(void) state;
	to_prompt();
	for (int i = 1; i <= 5; i++)
	{
		char		request[512];

		snprintf(request, sizeof(request), "{'id':%d,'method':'session/request_permission','params':{'toolCall':{'toolCallId':'t%d',"
				 "'status':'pending'},'options':[{'optionId':'y','kind':'allow_once'},{'optionId':'n','kind':'reject_once'}]}}", i, i);
		say(request);
	}
	answer_with("{'request':'1','option':'n'}");
	answer_with("{'request':'2','option':'y'}");
	/* asked again, and allowed */
	answer_with("{'request':'3','option':'n'}");
	say("{'id':6,'method':'session/request_permission','params':{'toolCall':{'toolCallId':'t3'},'options':[{'optionId':'y','kind':'allow_once'}]}}");
	assert_null(json_object_get(json_object_get(capture_find(capture_events(), "permission_request", 5), "tool_call"), "refused"));
	answer_with("{'request':'6','option':'y'}");
	/* done in another way */
	answer_with("{'request':'4','option':'n'}");
	say("{'method':'session/update','params':{'update':{'sessionUpdate':'tool_call_update','toolCallId':'t4','status':'completed'}}}");
	answer_with("{'request':'5','option':null}");
	bc_transport_acp.settled("completed");
	assert_int_equal(capture_count(capture_parts(), "tool_call"), 5);
	for (size_t i = 0; i < 5; i++)
	{
		const json_t *part = capture_find(capture_parts(), "tool_call", i);
		const char *id = json_string_value(json_object_get(part, "id"));

		assert_string_equal(json_string_value(json_object_get(part, "status")), ends[id[1] - '1']);
		assert_null(json_object_get(part, "refused"));
	}
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(permissions_wait_for_their_answers),
		TEST(an_option_nobody_offered_is_none),
		TEST(a_refused_call_does_not_stay_open),
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
	};

	return cmocka_run_group_tests_name("acp_people", tests, NULL, NULL);
}
