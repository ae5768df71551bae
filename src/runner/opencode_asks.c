/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_asks.c
 *	  What opencode serve asks of people: permissions and questions.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/agent.h"
#include "runner/opencode_asks.h"
#include "runner/payload.h"
#include "runner/stream.h"
#include "runner/stream_step.h"
#include "runner/text.h"

#define MAX_PERMISSION (64 * 1024)	/* bytes of what is recorded of a request */
#define MAX_PENDING 64
#define MAX_ASKS 4096			/* of a turn, remembered */
#define MAX_TITLE 200

typedef struct Ask
{
	struct Ask *next;
	char		key[16];		/* what we call it */
	char	   *id;				/* what the server calls it */
	bool		question;
	bool		open;			/* nobody has answered */
	json_t	   *questions;		/* the server's, of a question */
	json_t	   *about;			/* what is recorded of it */
	char	   *path;			/* of the reply that was sent, and its body */
	json_t	   *reply;
} Ask;

static Ask *asks;
static int	nasks;
static int	last_key;
static BcOpencodeReply send_reply;

static void
release(Ask *ask)
{
	free(ask->id);
	free(ask->path);
	json_decref(ask->questions);
	json_decref(ask->about);
	json_decref(ask->reply);
	free(ask);
}

void
bc_opencode_asks_reset(BcOpencodeReply reply)
{
	while (asks != NULL)
	{
		Ask		   *ask = asks;

		asks = ask->next;
		release(ask);
	}
	nasks = last_key = 0;
	send_reply = reply;
}

bool
bc_opencode_asks_waiting(void)
{
	for (const Ask *ask = asks; ask != NULL; ask = ask->next)
		if (ask->open)
			return true;
	return false;
}

static Ask *
find(const char *id)
{
	Ask		   *ask = asks;

	while (ask != NULL && (id == NULL || strcmp(ask->id, id) != 0))
		ask = ask->next;
	return ask;
}

/* --- what is asked --- */

/* Names of permissions, and the kinds of tools they are about */
static const char *
kind_of(const char *permission)
{
	static const char *const kinds[][2] = {
		{"edit", "edit"}, {"write", "edit"}, {"bash", "execute"}, {"webfetch", "fetch"},
		{"websearch", "fetch"}, {"read", "read"}, {"glob", "search"}, {"grep", "search"},
		{"list", "search"}, {"codesearch", "search"}, {"task", "think"}, {"skill", "think"},
	};

	for (size_t i = 0; permission != NULL && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(permission, kinds[i][0]) == 0)
			return kinds[i][1];
	return "other";
}

/* The call that a permission is for, as a report of ACP */
static json_t *
call_of(const json_t *request)
{
	const char *permission = bc_step_string(request, "permission");
	json_t	   *metadata = json_object_get(request, "metadata");
	const char *call_id = bc_step_string(json_object_get(request, "tool"), "callID");
	const char *subject = bc_step_string(metadata, "command");
	const char *path = bc_step_string(metadata, "filepath");
	const char *kind = kind_of(permission);
	json_t	   *call;

	if (subject == NULL)
		subject = path;
	if (subject == NULL)
		subject = json_string_value(json_array_get(json_object_get(request, "patterns"), 0));
	if (subject == NULL)
		subject = permission != NULL ? permission : "";
	call = json_pack("{s:s, s:s%, s:s, s:s}",
					 "toolCallId", call_id != NULL ? call_id : bc_step_string(request, "id"),
					 "title", subject, bc_text_cut(subject, strlen(subject), MAX_TITLE),
					 "kind", kind, "status", "pending");
	if (json_object_size(metadata) > 0)
		json_object_set(call, "rawInput", metadata);
	else
		json_object_set_new(call, "rawInput", json_pack("{s:s?, s:O?}", "permission", permission,
														"patterns", json_object_get(request, "patterns")));
	if (path != NULL)
		json_object_set_new(call, "locations", json_pack("[{s:s}]", "path", path));
	return call;
}

static json_t *
options(void)
{
	return json_pack("[{s:s, s:s, s:s}, {s:s, s:s, s:s}, {s:s, s:s, s:s}]",
					 "optionId", "once", "name", "Allow once", "kind", "allow_once",
					 "optionId", "always", "name", "Always allow", "kind", "allow_always",
					 "optionId", "reject", "name", "Reject", "kind", "reject_once");
}

/* A question's member of the form: a choice, several of them, or free text */
static json_t *
property_of(const json_t *question)
{
	const char *title = bc_step_string(question, "header");
	const char *text = bc_step_string(question, "question");
	json_t	   *labels = json_array();
	json_t	   *property;
	size_t		i;
	json_t	   *option;

	json_array_foreach(json_object_get(question, "options"), i, option)
		if (bc_step_string(option, "label") != NULL)
			json_array_append(labels, json_object_get(option, "label"));
	if (json_is_true(json_object_get(question, "multiple")))
		property = json_pack("{s:s, s:{s:s, s:O}}", "type", "array", "items", "type", "string", "enum", labels);
	else if (json_array_size(labels) > 0 && json_is_false(json_object_get(question, "custom")))
		property = json_pack("{s:s, s:O}", "type", "string", "enum", labels);
	else
		property = json_pack("{s:s, s:O}", "type", "string", "examples", labels);
	json_decref(labels);
	json_object_set_new(property, "title", json_string(title != NULL ? title : ""));
	json_object_set_new(property, "description", json_string(text != NULL ? text : ""));
	return property;
}

static json_t *
form_of(const json_t *questions)
{
	json_t	   *properties = json_object();
	json_t	   *required = json_array();
	size_t		i;
	json_t	   *question;

	json_array_foreach((json_t *) questions, i, question)
	{
		char		name[24];

		snprintf(name, sizeof(name), "q%zu", i + 1);
		json_object_set_new(properties, name, property_of(question));
		json_array_append_new(required, json_string(name));
	}
	return json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties, "required", required);
}

static void
record(const Ask *ask, const char *option, bool selected, const char *rule)
{
	json_t	   *payload = json_pack("{s:O, s:s, s:s, s:s?, s:s?}", "request", ask->about, "key", ask->key,
									"outcome", selected ? "selected" : "cancelled",
									"option", option, "rule", rule);

	payload = bc_payload_limit(payload, MAX_PERMISSION);
	bc_stream_event("permission", json_incref(payload));
	bc_stream_part("permission", payload);
}

static void
pass_on(Ask *ask, json_t *call, json_t *schema, const char *message)
{
	json_t	   *offered = ask->question ? json_array() : options();
	json_t	   *payload;

	ask->about = json_pack("{s:O?, s:O, s:s*}", "tool_call", call, "options", offered, "message", message);
	payload = json_pack("{s:s, s:s, s:O?, s:o, s:s?, s:O?}", "request", ask->key,
						"kind", ask->question ? "elicitation" : "permission", "tool_call", call,
						"options", offered, "message", message, "schema", schema);
	bc_stream_event("permission_request", bc_payload_limit(payload, BC_PAYLOAD_EVENT));
	/* Somebody may be waiting to answer it. */
	bc_stream_flush(true);
}

static void
asked(const json_t *request, bool question, BcAcpMap *map, int64_t now_ms)
{
	const char *id = bc_step_string(request, "id");
	json_t	   *questions = json_object_get(request, "questions");
	json_t	   *call = NULL;
	int			nopen = 0;
	Ask		   *ask;

	if (id == NULL || strchr(id, '/') != NULL || find(id) != NULL || nasks >= MAX_ASKS)
		return;
	for (ask = asks; ask != NULL; ask = ask->next)
		nopen += ask->open;
	ask = bc_alloc(sizeof(Ask));
	ask->id = bc_strdup(id);
	snprintf(ask->key, sizeof(ask->key), "%d", ++last_key);
	ask->question = question;
	ask->questions = question ? json_incref(questions) : NULL;
	ask->open = true;
	ask->next = asks;
	asks = ask;
	nasks++;
	if (!question)
	{
		json_t	   *reported = call_of(request);

		bc_acp_map_tool_call(map, reported, now_ms);
		call = bc_payload_limit(bc_acp_map_known(map, reported), MAX_PERMISSION);
		json_decref(reported);
	}
	if (question)
	{
		json_t	   *schema = form_of(questions);
		const char *text = bc_step_string(json_array_get(questions, 0), "question");

		pass_on(ask, NULL, schema, text != NULL ? text : "the agent has a question");
		json_decref(schema);
	}
	else
		pass_on(ask, call, NULL, NULL);
	json_decref(call);
	/* A cancelled turn gets no permissions any more, and waits for none. */
	if (bc_agent_cancelled() || nopen >= MAX_PENDING)
	{
		json_t	   *refusal = json_pack("{s:s, s:s}", "request", ask->key, "rule",
										bc_agent_cancelled() ? "cancel" : "too many requests");

		bc_opencode_asks_answer(refusal);
		json_decref(refusal);
	}
}

static void
withdrawn(Ask *ask)
{
	ask->open = false;
	bc_stream_event("permission_withdrawn", json_pack("{s:s}", "request", ask->key));
}

bool
bc_opencode_asks_event(const json_t *event, BcAcpMap *map, int64_t now_ms)
{
	const char *type = bc_step_string(event, "type");
	const json_t *properties = json_object_get(event, "properties");
	Ask		   *ask;

	if (type == NULL || (strncmp(type, "permission.", 11) != 0 && strncmp(type, "question.", 9) != 0))
		return false;
	if (strcmp(type, "permission.asked") == 0)
		asked(properties, false, map, now_ms);
	else if (strcmp(type, "question.asked") == 0)
		asked(properties, true, map, now_ms);
	/* One answer may be the answer to others, too. */
	else if ((ask = find(bc_step_string(properties, "requestID"))) != NULL && ask->open)
		withdrawn(ask);
	return true;
}

void
bc_opencode_asks_pending(const json_t *list, bool questions, BcAcpMap *map, int64_t now_ms)
{
	size_t		i;
	json_t	   *request;

	for (Ask *ask = asks; ask != NULL; ask = ask->next)
	{
		bool		listed = false;

		if (ask->question != questions)
			continue;
		json_array_foreach((json_t *) list, i, request)
			listed |= bc_step_is(request, "id", ask->id);
		if (!listed && ask->open)
			withdrawn(ask);
		else if (listed && ask->path != NULL)
			send_reply(ask->path, json_incref(ask->reply));
	}
	json_array_foreach((json_t *) list, i, request)
		asked(request, questions, map, now_ms);
}

/* --- what is answered --- */

/* "body" is stolen. */
static void
reply(Ask *ask, const char *verb, json_t *body)
{
	ask->open = false;
	ask->path = bc_asprintf("/%s/%s/%s", ask->question ? "question" : "permission", ask->id, verb);
	ask->reply = body;
	send_reply(ask->path, json_incref(body));
}

/* "option" NULL, or none that was offered: cancelled */
static void
answer_permission(Ask *ask, const char *option, const char *rule)
{
	static const char *const offered[] = {"once", "always", "reject"};
	bool		known = false;

	for (size_t i = 0; option != NULL && i < 3; i++)
		known |= strcmp(option, offered[i]) == 0;
	reply(ask, "reply", json_pack("{s:s}", "reply", known ? option : "reject"));
	record(ask, known ? option : NULL, known, rule);
}

/* The answers as the server wants them: a list of labels for each question */
static json_t *
answers_of(const Ask *ask, const json_t *content)
{
	json_t	   *answers = json_array();

	for (size_t i = 0; i < json_array_size(ask->questions); i++)
	{
		char		name[24];
		json_t	   *value;

		snprintf(name, sizeof(name), "q%zu", i + 1);
		value = json_object_get(content, name);
		if (json_is_array(value))
			json_array_append(answers, value);
		else
			json_array_append_new(answers, json_is_string(value) ? json_pack("[O]", value) : json_array());
	}
	return answers;
}

static void
answer_question(Ask *ask, const char *option, const json_t *content, const char *rule)
{
	bool		declined = option != NULL && strcmp(option, "decline") == 0;

	if (json_is_object(content))
	{
		reply(ask, "reply", json_pack("{s:o}", "answers", answers_of(ask, content)));
		record(ask, NULL, true, rule);
		return;
	}
	reply(ask, "reject", json_object());
	record(ask, declined ? option : NULL, declined, rule);
}

static void
settle(Ask *ask, const char *option, const json_t *content, const char *rule)
{
	if (ask->question)
		answer_question(ask, option, content, rule);
	else
		answer_permission(ask, option, rule);
}

void
bc_opencode_asks_answer(const json_t *answer)
{
	const char *key = bc_step_string(answer, "request");

	for (Ask *ask = asks; key != NULL && ask != NULL; ask = ask->next)
	{
		if (!ask->open || strcmp(ask->key, key) != 0)
			continue;
		settle(ask, bc_step_string(answer, "option"), json_object_get(answer, "content"),
			   bc_step_string(answer, "rule"));
		return;
	}
}

void
bc_opencode_asks_cancel(void)
{
	for (Ask *ask = asks; ask != NULL; ask = ask->next)
		if (ask->open)
			settle(ask, NULL, NULL, "cancel");
}

void
bc_opencode_asks_end(void)
{
	for (Ask *ask = asks; ask != NULL; ask = ask->next)
		if (ask->open)
			withdrawn(ask);
}
