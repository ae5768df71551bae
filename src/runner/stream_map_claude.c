/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_map_claude.c
 *	  claude -p --output-format stream-json, and qwen -p, which imitates it.
 *
 * With partial messages a text comes twice, in pieces (stream_event) and as a
 * whole (assistant); without, as a whole only.  What a message used is told
 * when it begins, and is of no use: only the result has the usage of the turn.
 */

#include "runner/stream_step.h"

static bool
speaks(const json_t *line)
{
	if (bc_step_is(line, "type", "system"))
		return bc_step_string(line, "subtype") != NULL;
	return bc_step_is(line, "type", "stream_event") || bc_step_is(line, "type", "assistant");
}

/* A line of an agent's agent, whose text is not the agent's own */
static bool
is_nested(const json_t *line)
{
	return bc_step_string(line, "parent_tool_use_id") != NULL;
}

/* --- system --- */

static void
commands(BcStreamTurn *turn, const json_t *names)
{
	json_t	   *list = json_array();
	size_t		i;
	json_t	   *name;

	json_array_foreach((json_t *) names, i, name)
		if (json_is_string(name))
			json_array_append_new(list, json_pack("{s:O, s:s}", "name", name, "description", ""));
	bc_step_update(turn, json_pack("{s:s, s:o}", "sessionUpdate", "available_commands_update",
								   "availableCommands", list));
}

static void
init(BcStreamTurn *turn, const json_t *line)
{
	const char *mode = bc_step_string(line, "permissionMode");
	const char *version = bc_step_string(line, "claude_code_version");

	if (mode == NULL)
		mode = bc_step_string(line, "permission_mode");
	bc_step_keep(&turn->session_id, bc_step_string(line, "session_id"));
	bc_step_keep(&turn->model, bc_step_string(line, "model"));
	bc_step_keep(&turn->version, version != NULL ? version : bc_step_string(line, "qwen_code_version"));
	if (mode != NULL)
		bc_step_update(turn, json_pack("{s:s, s:s}", "sessionUpdate", "current_mode_update",
									   "currentModeId", mode));
	if (json_is_array(json_object_get(line, "slash_commands")) && !turn->commands_told)
		commands(turn, json_object_get(line, "slash_commands"));
}

static void
system_line(BcStreamTurn *turn, const json_t *line)
{
	if (bc_step_is(line, "subtype", "init"))
		init(turn, line);
	else if (bc_step_is(line, "subtype", "api_retry"))
		bc_step_retry(turn, bc_step_string(line, "error"));
	/* Signs of life, many of them */
	else if (!bc_step_is(line, "subtype", "status") && !bc_step_is(line, "subtype", "thinking_tokens"))
		bc_step_raw(turn, line);
}

/* --- what the model says --- */

static void
block_began(BcStreamTurn *turn, const json_t *block)
{
	if (bc_step_is(block, "type", "tool_use"))
		bc_step_tool(turn, bc_step_string(block, "id"), bc_step_string(block, "name"), NULL, "pending", 0);
}

static void
block_delta(BcStreamTurn *turn, const json_t *delta)
{
	if (bc_step_is(delta, "type", "text_delta"))
		bc_step_piece(turn, BC_TEXT, turn->said_id, json_object_get(delta, "text"));
	else if (bc_step_is(delta, "type", "thinking_delta"))
		bc_step_piece(turn, BC_REASONING, turn->said_id, json_object_get(delta, "thinking"));
}

static void
stream_event(BcStreamTurn *turn, const json_t *line)
{
	const json_t *event = json_object_get(line, "event");

	if (bc_step_is(event, "type", "message_start"))
	{
		/* The message before it broke off. */
		if (turn->in_message)
			bc_step_drop(turn);
		turn->in_message = true;
		bc_step_keep(&turn->said_id, bc_step_string(json_object_get(event, "message"), "id"));
	}
	else if (bc_step_is(event, "type", "content_block_start"))
		block_began(turn, json_object_get(event, "content_block"));
	else if (bc_step_is(event, "type", "content_block_delta"))
		block_delta(turn, json_object_get(event, "delta"));
	else if (bc_step_is(event, "type", "message_stop"))
		turn->in_message = false;
	else if (!bc_step_is(event, "type", "content_block_stop") && !bc_step_is(event, "type", "message_delta") &&
			 !bc_step_is(event, "type", "ping"))
		bc_step_raw(turn, line);
}

static void
assistant(BcStreamTurn *turn, const json_t *line)
{
	const json_t *message = json_object_get(line, "message");
	const char *id = bc_step_string(message, "id");
	size_t		i;
	json_t	   *block;

	/* Some versions give each block an id of its own. */
	if (turn->text.pending || turn->thoughts.pending)
		id = turn->said_id;
	json_array_foreach(json_object_get(message, "content"), i, block)
	{
		if (bc_step_is(block, "type", "tool_use"))
			bc_step_tool(turn, bc_step_string(block, "id"), bc_step_string(block, "name"),
						 json_object_get(block, "input"), "in_progress", 0);
		else if (is_nested(line))
			bc_step_raw(turn, block);
		else if (bc_step_is(block, "type", "text"))
			bc_step_whole(turn, BC_TEXT, id, json_object_get(block, "text"));
		else if (bc_step_is(block, "type", "thinking"))
			bc_step_whole(turn, BC_REASONING, id, json_object_get(block, "thinking"));
		else
			bc_step_raw(turn, block);
	}
}

/* What is said to the model: the results of its tools */
static void
user(BcStreamTurn *turn, const json_t *line)
{
	const json_t *content = json_object_get(json_object_get(line, "message"), "content");
	size_t		i;
	json_t	   *block;

	json_array_foreach((json_t *) content, i, block)
	{
		if (bc_step_is(block, "type", "tool_result"))
			bc_step_tool_end(turn, bc_step_string(block, "tool_use_id"),
							 json_is_true(json_object_get(block, "is_error")),
							 json_object_get(block, "content"), 0);
		else
			bc_step_raw(turn, block);
	}
}

/* --- the end --- */

static void
usage(BcStreamTurn *turn, const json_t *line)
{
	const json_t *report = json_object_get(line, "usage");
	BcStepUsage used = {
		.input = bc_step_count(report, "input_tokens"),
		.cached = bc_step_count(report, "cache_read_input_tokens"),
		.written = bc_step_count(report, "cache_creation_input_tokens"),
		.output = bc_step_count(report, "output_tokens"),
		.reasoning = bc_step_count(json_object_get(report, "output_tokens_details"), "thinking_tokens"),
		/* Since the process began, which had no other turn. */
		.cost_usd = json_number_value(json_object_get(line, "total_cost_usd")),
	};

	/* qwen counts what it read from the cache as input, and gives a total to tell it from. */
	if (bc_step_count(report, "total_tokens") == used.input + used.output && used.input >= used.cached)
		used.input -= used.cached;
	bc_step_usage_turn(turn, &used);
}

static const char *
error_text(const json_t *line)
{
	const json_t *error = json_object_get(line, "error");
	const char *text = bc_step_string(error, "message");

	if (text == NULL)
		text = json_string_value(error);
	if (text == NULL)
		text = json_string_value(json_array_get(json_object_get(line, "errors"), 0));
	if (text == NULL)
		text = bc_step_string(line, "result");
	return text != NULL ? text : bc_step_string(line, "subtype");
}

static void
result(BcStreamTurn *turn, const json_t *line)
{
	static const struct
	{
		const char *member;
		const char *value;
		const char *reason;
		const char *message;
	}			failures[] = {
		{"subtype", "error_max_turns", "max_turn_requests", "the agent reached its limit of requests in a turn"},
		{"stop_reason", "max_tokens", "max_tokens", "the agent reached its limit of tokens"},
		{"stop_reason", "refusal", "refusal", "the agent refused"},
	};

	bc_step_keep(&turn->session_id, bc_step_string(line, "session_id"));
	bc_step_keep(&turn->stop_reason, bc_step_string(line, "stop_reason"));
	turn->status = (int) bc_step_count(line, "api_error_status") % 1000;
	turn->over = true;
	usage(turn, line);
	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
	{
		if (!bc_step_is(line, failures[i].member, failures[i].value))
			continue;
		bc_step_failed(turn, failures[i].reason, failures[i].message);
		return;
	}
	/* An error of the API is a success with is_error. */
	if (json_is_true(json_object_get(line, "is_error")) || !bc_step_is(line, "subtype", "success"))
		bc_step_failed(turn, NULL, error_text(line));
	else
		bc_step_completed(turn);
}

static void
take_line(BcStreamTurn *turn, const json_t *line)
{
	if (bc_step_is(line, "type", "system"))
		system_line(turn, line);
	else if (bc_step_is(line, "type", "assistant"))
		assistant(turn, line);
	else if (bc_step_is(line, "type", "user"))
		user(turn, line);
	else if (bc_step_is(line, "type", "result"))
		result(turn, line);
	else if (!bc_step_is(line, "type", "stream_event"))
		bc_step_raw(turn, line);
	else if (!is_nested(line))
		stream_event(turn, line);
}

const BcStreamDialect bc_stream_claude = {
	.name = "claude",
	.speaks = speaks,
	.line = take_line,
};
