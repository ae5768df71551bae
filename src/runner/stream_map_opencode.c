/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_map_opencode.c
 *	  opencode run --format json: finished parts of messages.
 *
 * A step is a call of the model and of the tools it asks for; while it lasts,
 * nothing is said.  No line tells the end of the turn.  Without --auto every
 * permission is rejected, which ends the turn as if all were well.
 */
#include <string.h>

#include "runner/stream_step.h"

static bool
speaks(const json_t *line)
{
	return bc_step_string(line, "sessionID") != NULL &&
		(json_is_object(json_object_get(line, "part")) || bc_step_is(line, "type", "error"));
}

static void
tool(BcStreamTurn *turn, const json_t *part)
{
	const json_t *state = json_object_get(part, "state");
	const json_t *time = json_object_get(state, "time");
	const char *id = bc_step_string(part, "callID");
	const char *error = bc_step_string(state, "error");

	bc_step_tool(turn, id, bc_step_string(part, "tool"), json_object_get(state, "input"), "in_progress",
				 json_integer_value(json_object_get(time, "start")));
	bc_step_tool_end(turn, id, bc_step_is(state, "status", "error"),
					 json_object_get(state, error != NULL ? "error" : "output"),
					 json_integer_value(json_object_get(time, "end")));
	if (error != NULL && strstr(error, "rejected permission") != NULL)
		turn->rejected = true;
}

static void
step_finished(BcStreamTurn *turn, const json_t *part)
{
	const json_t *tokens = json_object_get(part, "tokens");
	const json_t *cache = json_object_get(tokens, "cache");
	BcStepUsage used = {
		.input = bc_step_count(tokens, "input"),
		.cached = bc_step_count(cache, "read"),
		.written = bc_step_count(cache, "write"),
		.output = bc_step_count(tokens, "output") + bc_step_count(tokens, "reasoning"),
		.reasoning = bc_step_count(tokens, "reasoning"),
		.cost_usd = json_number_value(json_object_get(part, "cost")),
	};

	turn->busy = false;
	bc_step_usage_call(turn, &used);
	bc_step_keep(&turn->stop_reason, bc_step_string(part, "reason"));
}

static void
take_error(BcStreamTurn *turn, const json_t *error)
{
	const json_t *data = json_object_get(error, "data");
	const char *message = bc_step_string(data, "message");

	bc_step_error(turn, message != NULL ? message : bc_step_string(error, "name"));
	turn->status = (int) bc_step_count(data, "statusCode") % 1000;
	bc_step_failed(turn, NULL, NULL);
}

static void
take_line(BcStreamTurn *turn, const json_t *line)
{
	const json_t *part = json_object_get(line, "part");
	const char *message = bc_step_string(part, "messageID");

	bc_step_keep(&turn->session_id, bc_step_string(line, "sessionID"));
	if (bc_step_is(line, "type", "text"))
		bc_step_text(turn, BC_TEXT, message, json_object_get(part, "text"));
	else if (bc_step_is(line, "type", "reasoning"))
		bc_step_text(turn, BC_REASONING, message, json_object_get(part, "text"));
	else if (bc_step_is(line, "type", "tool_use"))
		tool(turn, part);
	else if (bc_step_is(line, "type", "step_start"))
		turn->busy = true;
	else if (bc_step_is(line, "type", "step_finish"))
		step_finished(turn, part);
	else if (bc_step_is(line, "type", "error"))
		take_error(turn, json_object_get(line, "error"));
	else
		bc_step_raw(turn, line);
}

static void
exited(BcStreamTurn *turn, int code, const char *errors)
{
	const char *stop = turn->stop_reason != NULL ? turn->stop_reason : "";

	if (code != 0)
		return;
	if (strcmp(stop, "tool-calls") == 0 && (turn->rejected || strstr(errors, "auto-rejecting") != NULL))
		bc_step_failed(turn, "permission_rejected", BC_STEP_NOBODY_TO_ASK);
	else if (strcmp(stop, "length") == 0)
		bc_step_failed(turn, "max_tokens", "the agent reached its limit of tokens");
	else if (strcmp(stop, "content-filter") == 0)
		bc_step_failed(turn, "refusal", "the agent refused");
	else if (stop[0] == '\0')
		bc_step_failed(turn, NULL, "the agent ended without an answer");
	else
		bc_step_completed(turn);
}

const BcStreamDialect bc_stream_opencode = {
	.name = "opencode",
	.speaks = speaks,
	.line = take_line,
	.exited = exited,
};
