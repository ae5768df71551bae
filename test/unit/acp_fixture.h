/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_fixture.h
 *	  For tests of the conversation with an ACP agent.  Takes the place of
 *	  agent.c: the test is the agent, and sees what the runner would do.
 */
#ifndef BC_TEST_ACP_FIXTURE_H
#define BC_TEST_ACP_FIXTURE_H

#include "unit.h"

#include "capture.h"
#include "runner/agent.h"
#include "runner/buf.h"

#define HELPER static __attribute__((unused))

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

void
bc_agent_abort(const char *reason, const char *message)
{
	bc_agent_finish("failed", reason, message);
}

bool
bc_agent_kept(void)
{
	return false;
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

HELPER int
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

HELPER int
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
HELPER void
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
HELPER void
expect(const char *message)
{
	json_t	   *next = json_incref(json_array_get(sent, 0));

	assert_json(next, message);
	json_array_remove(sent, 0);
	json_decref(next);
}

HELPER void
expect_nothing(void)
{
	assert_int_equal(json_array_size(sent), 0);
}

HELPER void
expect_end(const char *expected)
{
	assert_non_null(outcome);
	assert_string_equal(outcome, expected);
}

HELPER void
expect_initialize(void)
{
	expect("{'jsonrpc':'2.0','id':1,'method':'initialize','params':{'protocolVersion':1,'clientCapabilities':"
		   "{'fs':{'readTextFile':true,'writeTextFile':true},'terminal':false,'session':{'configOptions':{'boolean':{}}},'elicitation':{'form':{}}},"
		   "'clientInfo':{'name':'boocoder','version':'test'}}}");
}

HELPER void
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

HELPER void
to_prompt(void)
{
	to_session();
	say("{'id':2,'result':{'sessionId':'s1'}}");
	expect("{'jsonrpc':'2.0','id':3,'method':'session/prompt','params':{'sessionId':'s1','prompt':[{'type':'text','text':'do it'}]}}");
	assert_int_equal(deadline, 0);
	assert_null(outcome);
}

HELPER void
answer_with(const char *text)
{
	json_t	   *answer = json_of(text);

	bc_transport_acp.answer(answer);
	json_decref(answer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

#endif							/* BC_TEST_ACP_FIXTURE_H */
