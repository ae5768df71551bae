/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_llm_error.c
 *	  What the errors of models mean, in the words of agents and services.
 */
#include "unit.h"

#include "capture.h"
#include "runner/llm_error.h"

static void
a_status_says_it(void **state)
{
	(void) state;
	assert_string_equal(bc_llm_error(401, NULL), "auth_required");
	assert_string_equal(bc_llm_error(403, ""), "auth_required");
	assert_string_equal(bc_llm_error(429, "whatever"), "rate_limited");
	assert_string_equal(bc_llm_error(503, NULL), "overloaded");
	assert_string_equal(bc_llm_error(529, NULL), "overloaded");
	assert_string_equal(bc_llm_error(500, NULL), "agent_error");
	assert_string_equal(bc_llm_error(0, NULL), "agent_error");
	/* a status that says little, with words that say more */
	assert_string_equal(bc_llm_error(400, "This model's maximum context length is 8192 tokens."), "context_exceeded");
	assert_string_equal(bc_llm_error(400, "prompt is too long: 210000 tokens > 200000 maximum"), "context_exceeded");
}

static void
words_say_it(void **state)
{
	static const char *const cases[][2] = {
		{"unexpected status 401 Unauthorized: no such key, url: http://127.0.0.1:9/v1", "auth_required"},
		{"exceeded retry limit, last status: 429 Too Many Requests", "rate_limited"},
		{"Rate limit exceeded: slow down", "rate_limited"},
		{"You've hit your usage limit. Try again at 3 PM.", "rate_limited"},
		{"RESOURCE_EXHAUSTED", "rate_limited"},
		{"insufficient_quota", "rate_limited"},
		{"usageLimitExceeded", "rate_limited"},
		{"API Error: 429 {\"type\":\"error\"}", "rate_limited"},
		{"rate_limit_error", "rate_limited"},
		{"Authentication error: Status: 401 Unauthorized", "auth_required"},
		{"Not logged in · Please run /login", "auth_required"},
		{"Incorrect API key provided: none", "auth_required"},
		{"invalid x-api-key", "auth_required"},
		{"API Error: 529 Overloaded", "overloaded"},
		{"overloaded_error: Overloaded", "overloaded"},
		{"serverOverloaded", "overloaded"},
		{"Selected model is at capacity. Please try a different model.", "overloaded"},
		{"HTTP 503", "overloaded"},
		{"contextWindowExceeded", "context_exceeded"},
		{"context_length_exceeded", "context_exceeded"},
		{"Context length exceeded: 9000 > 8192", "context_exceeded"},

		{"Server error: the line 429 of a file, 401 bytes of it", "agent_error"},
		{"separate limits were passed", "agent_error"},
		{"stream disconnected before completion", "agent_error"},
		{"unexpected status 500 Internal Server Error", "agent_error"},
		{"4290 status 4010", "agent_error"},
		{"429", "agent_error"},
		{"\xff\xc3\xa9", "agent_error"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (strcmp(bc_llm_error(0, cases[i][0]), cases[i][1]) != 0)
			fail_msg("%s: %s", cases[i][0], bc_llm_error(0, cases[i][0]));
}

static void
errors_of_agents_say_it(void **state)
{
	static const char *const cases[][2] = {
		{"{'code':-32000,'message':'Authentication required'}", "auth_required"},
		{"{'code':401,'message':'Unauthorized'}", "auth_required"},
		{"{'code':500,'message':'terminated'}", "agent_error"},
		{"{'code':-32603,'message':'Internal error','data':{'statusCode':429}}", "rate_limited"},
		{"{'code':-32603,'message':'Internal error','data':{'errorName':'APIError','statusCode':401,'message':'no'}}", "auth_required"},
		{"{'code':-32603,'message':'Internal error','data':{'details':'429 Too Many Requests'}}", "rate_limited"},
		{"{'code':-32603,'message':'Internal error','data':{'errorKind':'rate_limit'}}", "rate_limited"},
		{"{'code':-32603,'message':'Internal error','data':{'errorKind':'authentication_failed'}}", "auth_required"},
		{"{'code':-32603,'message':'Internal error','data':{'errorKind':'overloaded'}}", "overloaded"},
		{"{'code':-32603,'message':'x','data':{'codexErrorInfo':{'responseTooManyFailedAttempts':{'httpStatusCode':429}}}}", "rate_limited"},
		{"{'code':-32603,'message':'x','data':{'codexErrorInfo':{'httpConnectionFailed':{'httpStatusCode':null}}}}", "agent_error"},
		{"{'code':-32603,'message':'x','data':{'codexErrorInfo':'contextWindowExceeded'}}", "context_exceeded"},
		{"{'code':-32603,'message':'x','data':'code: \\'429\\''}", "rate_limited"},
		{"{'code':-32603,'message':'x','data':{'error':{'code':'503'}}}", "overloaded"},
		{"{'code':-32603,'message':'Internal error','data':{'errorKind':'max_output_tokens'}}", "agent_error"},
		{"{'code':-32603,'message':'x','data':{'n':429,'list':[429]}}", "agent_error"},
		{"{}", "agent_error"},
		{"'429'", "agent_error"},
		{"null", "agent_error"},
		{"[[[[[[[[{'status':429}]]]]]]]]", "agent_error"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		json_t	   *error = json_of(cases[i][0]);

		if (strcmp(bc_llm_error_rpc(error), cases[i][1]) != 0)
			fail_msg("%s: %s", cases[i][0], bc_llm_error_rpc(error));
		json_decref(error);
	}
	assert_string_equal(bc_llm_error_rpc(NULL), "agent_error");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_status_says_it),
		cmocka_unit_test(words_say_it),
		cmocka_unit_test(errors_of_agents_say_it),
	};

	return cmocka_run_group_tests_name("llm_error", tests, NULL, NULL);
}
