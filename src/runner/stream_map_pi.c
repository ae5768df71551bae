/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_map_pi.c
 *	  pi --mode json.
 *
 * It ends with status 0 whatever happened: how the turn went is in the last
 * message of the assistant.  An "agent_end" may be followed by another attempt.
 */
#include <stdlib.h>

#include "runner/stream_step.h"

static bool
speaks(const json_t *line)
{
	if (bc_step_is(line, "type", "session"))
		return json_is_integer(json_object_get(line, "version"));
	return bc_step_is(line, "type", "agent_start") || bc_step_is(line, "type", "message_start");
}

static void
message_piece(BcStreamTurn *turn, const json_t *event)
{
	const json_t *call = json_object_get(event, "toolCall");

	if (bc_step_is(event, "type", "text_delta"))
		bc_step_piece(turn, BC_TEXT, turn->said_id, json_object_get(event, "delta"));
	else if (bc_step_is(event, "type", "thinking_delta"))
		bc_step_piece(turn, BC_REASONING, turn->said_id, json_object_get(event, "delta"));
	else if (bc_step_is(event, "type", "text_end"))
		bc_step_whole(turn, BC_TEXT, turn->said_id, json_object_get(event, "content"));
	else if (bc_step_is(event, "type", "thinking_end"))
		turn->thoughts.pending = false;
	else if (bc_step_is(event, "type", "toolcall_start"))
		bc_step_tool(turn, bc_step_string(event, "id"), bc_step_string(event, "toolName"), NULL, "pending", 0);
	else if (bc_step_is(event, "type", "toolcall_end"))
		bc_step_tool(turn, bc_step_string(call, "id"), bc_step_string(call, "name"),
					 json_object_get(call, "arguments"), "pending", 0);
}

static void
message_usage(BcStreamTurn *turn, const json_t *report)
{
	BcStepUsage used = {
		.input = bc_step_count(report, "input"),
		.cached = bc_step_count(report, "cacheRead"),
		.written = bc_step_count(report, "cacheWrite"),
		.output = bc_step_count(report, "output"),
		.reasoning = bc_step_count(report, "reasoning"),
		.cost_usd = json_number_value(json_object_get(json_object_get(report, "cost"), "total")),
	};

	if (used.input + used.cached + used.written + used.output > 0)
		bc_step_usage_call(turn, &used);
}

static void
message_ended(BcStreamTurn *turn, const json_t *message)
{
	static const struct
	{
		const char *stop_reason;
		BcStreamEnd end;
		const char *reason;
		const char *message;
	}			ends[] = {
		{"stop", BC_STREAM_COMPLETED, NULL, NULL},
		{"toolUse", BC_STREAM_OPEN, NULL, NULL},
		{"length", BC_STREAM_FAILED, "max_tokens", "the agent reached its limit of tokens"},
		{"aborted", BC_STREAM_CANCELLED, NULL, NULL},
		{"error", BC_STREAM_FAILED, NULL, NULL},
	};
	const char *error = bc_step_string(message, "errorMessage");

	message_usage(turn, json_object_get(message, "usage"));
	bc_step_keep(&turn->stop_reason, bc_step_string(message, "stopReason"));
	turn->end = BC_STREAM_FAILED;
	turn->reason = NULL;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
	{
		if (!bc_step_is(message, "stopReason", ends[i].stop_reason))
			continue;
		turn->end = ends[i].end;
		turn->reason = ends[i].reason;
		bc_step_keep(&turn->error, ends[i].message);
	}
	if (turn->end == BC_STREAM_COMPLETED || turn->end == BC_STREAM_OPEN)
	{
		turn->text.pending = turn->thoughts.pending = false;
		free(turn->error);
		turn->error = NULL;
	}
	bc_step_keep(&turn->error, error);
}

static void
message_line(BcStreamTurn *turn, const json_t *line, bool ended)
{
	const json_t *message = json_object_get(line, "message");

	if (!bc_step_is(message, "role", "assistant"))
		return;
	if (ended)
	{
		message_ended(turn, message);
		return;
	}
	bc_step_keep(&turn->model, bc_step_string(message, "model"));
	bc_step_keep(&turn->said_id, bc_step_string(message, "responseId"));
}

static void
settled(BcStreamTurn *turn)
{
	turn->over = true;
	if (turn->end == BC_STREAM_OPEN)
		bc_step_failed(turn, NULL, "the agent ended the turn without an answer");
}

/* What matters in them is told by others. */
static bool
is_idle(const json_t *line)
{
	static const char *const idle[] = {"agent_start", "turn_start", "turn_end", "agent_end",
	"tool_execution_update"};

	for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
		if (bc_step_is(line, "type", idle[i]))
			return true;
	return false;
}

static void
take_line(BcStreamTurn *turn, const json_t *line)
{
	if (bc_step_is(line, "type", "message_update"))
		message_piece(turn, json_object_get(line, "assistantMessageEvent"));
	else if (bc_step_is(line, "type", "message_start"))
		message_line(turn, line, false);
	else if (bc_step_is(line, "type", "message_end"))
		message_line(turn, line, true);
	else if (bc_step_is(line, "type", "tool_execution_start"))
		bc_step_tool(turn, bc_step_string(line, "toolCallId"), bc_step_string(line, "toolName"),
					 json_object_get(line, "args"), "in_progress", 0);
	else if (bc_step_is(line, "type", "tool_execution_end"))
		bc_step_tool_end(turn, bc_step_string(line, "toolCallId"),
						 json_is_true(json_object_get(line, "isError")),
						 json_object_get(line, "result"), 0);
	else if (bc_step_is(line, "type", "session"))
		bc_step_keep(&turn->session_id, bc_step_string(line, "id"));
	else if (bc_step_is(line, "type", "auto_retry_start"))
		bc_step_retry(turn, bc_step_string(line, "errorMessage"));
	else if (bc_step_is(line, "type", "extension_error"))
		bc_step_warning(turn, bc_step_string(line, "error"));
	else if (bc_step_is(line, "type", "agent_settled"))
		settled(turn);
	else if (!is_idle(line))
		bc_step_raw(turn, line);
}

const BcStreamDialect bc_stream_pi = {
	.name = "pi",
	.speaks = speaks,
	.line = take_line,
};
