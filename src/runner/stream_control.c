/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_control.c
 *	  claude's control protocol: requests and responses, one a line, in both
 *	  directions.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runner/acp_map.h"
#include "runner/agent.h"
#include "runner/command_line.h"
#include "runner/payload.h"
#include "runner/stream.h"
#include "runner/stream_control.h"
#include "runner/stream_step.h"
#include "runner/text.h"

#define MAX_PENDING 64
#define MAX_PERMISSION (64 * 1024)	/* bytes of what is recorded of a request */

/* by key: {"id", "input", "tool_call"} of requests that a person has to answer */
static json_t *pending;
static int	last_key;

/* by id: what has no response yet: true for initialize, null for an interrupt, or the mode to set */
static json_t *asked;
static int	last_id;

bool
bc_control_spoken(const json_t *order)
{
	return bc_command_has_option(order, "--input-format", "stream-json");
}

/* --- writing --- */

/* "message" is stolen. */
static void
say(json_t *message)
{
	BcBuf		line = BC_BUF_INIT;

	bc_text_json(&line, message, SIZE_MAX);
	bc_buf_add(&line, "\n", 1);
	bc_agent_write(line.data, line.len);
	bc_buf_free(&line);
	json_decref(message);
}

/* "request" is stolen; what it is about is kept until the response. */
static void
ask(json_t *request, json_t *about)
{
	char		id[32];

	snprintf(id, sizeof(id), "boocoder-%d", ++last_id);
	json_object_set_new(asked, id, about);
	say(json_pack("{s:s, s:s, s:o}", "type", "control_request", "request_id", id, "request", request));
}

/* "response" is stolen. */
static void
respond(const char *id, json_t *response)
{
	say(json_pack("{s:s, s:{s:s, s:s, s:o}}", "type", "control_response", "response",
				  "subtype", "success", "request_id", id, "response", response));
}

static void
refuse(const char *id, const char *message)
{
	say(json_pack("{s:s, s:{s:s, s:s, s:s}}", "type", "control_response", "response",
				  "subtype", "error", "request_id", id, "error", message));
}

static json_t *
denial(const char *message)
{
	return json_pack("{s:s, s:s}", "behavior", "deny", "message", message);
}

void
bc_control_start(const char *prompt)
{
	json_decref(pending);
	json_decref(asked);
	pending = json_object();
	asked = json_object();
	last_key = last_id = 0;
	ask(json_pack("{s:s}", "subtype", "initialize"), json_true());
	if (prompt != NULL)
		say(json_pack("{s:s, s:{s:s, s:s}}", "type", "user", "message", "role", "user", "content", prompt));
}

/* --- permissions --- */

static json_t *
options(void)
{
	return json_pack("[{s:s, s:s, s:s}, {s:s, s:s, s:s}]",
					 "optionId", "allow", "name", "Allow", "kind", "allow_once",
					 "optionId", "reject", "name", "Reject", "kind", "reject_once");
}

static void
permission_asked(BcStreamTurn *turn, const char *id, const json_t *request)
{
	const char *call = bc_step_string(request, "tool_use_id");
	const char *tool = bc_step_string(request, "tool_name");
	json_t	   *input = json_object_get(request, "input");
	json_t	   *fields;
	char		key[16];

	if (tool == NULL || bc_agent_cancelled() || json_object_size(pending) >= MAX_PENDING)
	{
		respond(id, denial("cancelled"));
		return;
	}
	bc_step_tool(turn, call != NULL ? call : id, tool, input, "pending", 0);
	fields = bc_acp_map_tool_fields(json_object_get(json_array_get(turn->steps, 0), "update"));
	fields = bc_payload_limit(fields, MAX_PERMISSION);

	snprintf(key, sizeof(key), "%d", ++last_key);
	json_object_set_new(pending, key,
						json_pack("{s:s, s:O, s:O}", "id", id, "tool_call", fields,
								  "input", json_is_object(input) ? input : json_object()));
	/* Behind the call itself */
	json_array_append_new(turn->steps,
						  json_pack("{s:{s:s, s:{s:s, s:s, s:o, s:o, s:n, s:n}}}",
									"event", "kind", "permission_request", "payload",
									"request", key, "kind", "permission", "tool_call", fields,
									"options", options(), "message", "schema"));
}

/* Ends a request, however; "option" NULL: cancelled. */
static void
settle(const char *key, const char *option, const char *rule)
{
	json_t	   *request = json_incref(json_object_get(pending, key));
	const char *id = bc_step_string(request, "id");
	json_t	   *record;

	if (option != NULL && strcmp(option, "allow") == 0)
		respond(id, json_pack("{s:s, s:O}", "behavior", "allow",
							  "updatedInput", json_object_get(request, "input")));
	else
		respond(id, denial(option != NULL ? "The user rejected this." : "cancelled"));
	record = json_pack("{s:{s:O, s:o}, s:s, s:s, s:s?, s:s?}",
					   "request", "tool_call", json_object_get(request, "tool_call"), "options", options(),
					   "key", key, "outcome", option != NULL ? "selected" : "cancelled",
					   "option", option, "rule", rule);
	bc_stream_event("permission", json_incref(record));
	bc_stream_part("permission", record);
	json_object_del(pending, key);
	json_decref(request);
}

static void
withdrawn(const char *id)
{
	const char *key;
	json_t	   *request;
	void	   *next;

	json_object_foreach_safe(pending, next, key, request)
	{
		if (!bc_step_is(request, "id", id))
			continue;
		bc_stream_event("permission_withdrawn", json_pack("{s:s}", "request", key));
		json_object_del(pending, key);
	}
}

/* --- responses to what we asked --- */

static json_t *
renamed(const json_t *list, const char *const (*members)[2], size_t n)
{
	json_t	   *made = json_array();
	size_t		i;
	json_t	   *item;

	json_array_foreach((json_t *) list, i, item)
	{
		json_t	   *entry = json_object();

		for (size_t m = 0; m < n; m++)
			if (bc_step_string(item, members[m][0]) != NULL)
				json_object_set(entry, members[m][1], json_object_get(item, members[m][0]));
		json_array_append_new(made, entry);
	}
	return made;
}

/* What the agent offers, more than its first line says */
static void
initialized(BcStreamTurn *turn, const json_t *response)
{
	static const char *const command[][2] =
	{{"name", "name"}, {"description", "description"}, {"argumentHint", "hint"}};
	static const char *const model[][2] = {{"value", "id"}, {"displayName", "name"}};
	const json_t *commands = json_object_get(response, "commands");
	const json_t *models = json_object_get(response, "models");

	turn->commands_told = json_is_array(commands);
	if (turn->commands_told)
		bc_stream_event("command", bc_payload_limit(json_pack("{s:o}", "commands", renamed(commands, command, 3)),
													BC_PAYLOAD_EVENT));
	if (json_is_array(models))
		bc_stream_event("models", bc_payload_limit(json_pack("{s:o, s:n}", "models", renamed(models, model, 2), "current"),
												   BC_PAYLOAD_EVENT));
}

static void
responded(BcStreamTurn *turn, const json_t *response)
{
	const char *id = bc_step_string(response, "request_id");
	json_t	   *about = id != NULL ? json_incref(json_object_get(asked, id)) : NULL;
	const char *error = bc_step_string(response, "error");

	if (about == NULL)
		return;
	json_object_del(asked, id);
	if (json_is_true(about))
		initialized(turn, json_object_get(response, "response"));
	else if (json_is_object(about) && bc_step_is(response, "subtype", "success"))
		bc_stream_event("mode", json_incref(about));
	else if (json_is_object(about))
	{
		json_t	   *failed = json_copy(about);

		json_object_set_new(failed, "message", json_string(error != NULL ? error : "refused"));
		bc_stream_event("mode_failed", failed);
	}
	json_decref(about);
}

bool
bc_control_line(BcStreamTurn *turn, const json_t *line)
{
	const json_t *request = json_object_get(line, "request");
	const char *id = bc_step_string(line, "request_id");

	if (bc_step_is(line, "type", "control_response"))
		responded(turn, json_object_get(line, "response"));
	else if (bc_step_is(line, "type", "control_cancel_request") && id != NULL)
		withdrawn(id);
	else if (!bc_step_is(line, "type", "control_request") || id == NULL)
		return false;
	else if (bc_step_is(request, "subtype", "can_use_tool"))
		permission_asked(turn, id, request);
	else
		refuse(id, "not supported");
	return true;
}

/* --- what people want --- */

void
bc_control_answer(const json_t *answer)
{
	const char *key = bc_step_string(answer, "request");
	const char *mode = bc_step_string(answer, "mode");

	if (mode != NULL)
	{
		json_t	   *about = json_pack("{s:s}", "mode", mode);

		if (key != NULL)
			json_object_set_new(about, "request", json_string(key));
		ask(json_pack("{s:s, s:s}", "subtype", "set_permission_mode", "mode", mode), about);
	}
	else if (key != NULL && json_object_get(pending, key) != NULL)
		settle(key, bc_step_string(answer, "option"), bc_step_string(answer, "rule"));
}

bool
bc_control_waiting(void)
{
	return json_object_size(pending) > 0;
}

void
bc_control_cancel(void)
{
	void	   *first;

	while ((first = json_object_iter(pending)) != NULL)
	{
		char	   *key = bc_strdup(json_object_iter_key(first));

		settle(key, NULL, "cancel");
		free(key);
	}
	ask(json_pack("{s:s}", "subtype", "interrupt"), json_null());
}
