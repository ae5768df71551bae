/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_map_gemini.c
 *	  gemini -p --output-format stream-json.
 */

#include "runner/stream_step.h"

static bool
speaks(const json_t *line)
{
	return bc_step_is(line, "type", "init") && bc_step_string(line, "session_id") != NULL;
}

/* Totals: input contains what was cached; what is neither input nor output was thought. */
static void
usage(BcStreamTurn *turn, const json_t *stats)
{
	json_int_t	input = bc_step_count(stats, "input_tokens");
	json_int_t	output = bc_step_count(stats, "output_tokens");
	json_int_t	total = bc_step_count(stats, "total_tokens");
	BcStepUsage used = {.cached = bc_step_count(stats, "cached"), .output = output};

	used.input = input - used.cached;
	if (total > input + output)
	{
		used.reasoning = total - input - output;
		used.output += used.reasoning;
	}
	bc_step_usage_turn(turn, &used);
}

static void
tool_result(BcStreamTurn *turn, const json_t *line)
{
	const json_t *output = json_object_get(line, "output");

	if (output == NULL)
		output = json_object_get(line, "error");
	bc_step_tool_end(turn, bc_step_string(line, "tool_id"), !bc_step_is(line, "status", "success"), output, 0);
}

static void
result(BcStreamTurn *turn, const json_t *line)
{
	turn->over = true;
	usage(turn, json_object_get(line, "stats"));
	if (bc_step_is(line, "status", "success"))
		bc_step_completed(turn);
	else
		bc_step_failed(turn, NULL, bc_step_string(json_object_get(line, "error"), "message"));
}

static void
take_line(BcStreamTurn *turn, const json_t *line)
{
	if (bc_step_is(line, "type", "init"))
	{
		bc_step_keep(&turn->session_id, bc_step_string(line, "session_id"));
		bc_step_keep(&turn->model, bc_step_string(line, "model"));
	}
	else if (bc_step_is(line, "type", "message") && bc_step_is(line, "role", "assistant"))
		bc_step_text(turn, BC_TEXT, NULL, json_object_get(line, "content"));
	else if (bc_step_is(line, "type", "tool_use"))
		bc_step_tool(turn, bc_step_string(line, "tool_id"), bc_step_string(line, "tool_name"),
					 json_object_get(line, "parameters"), "in_progress", 0);
	else if (bc_step_is(line, "type", "tool_result"))
		tool_result(turn, line);
	else if (bc_step_is(line, "type", "error") && bc_step_is(line, "severity", "warning"))
		bc_step_warning(turn, bc_step_string(line, "message"));
	else if (bc_step_is(line, "type", "error"))
		bc_step_error(turn, bc_step_string(line, "message"));
	else if (bc_step_is(line, "type", "result"))
		result(turn, line);
	/* The prompt comes back as the user's message. */
	else if (!bc_step_is(line, "type", "message") || !bc_step_is(line, "role", "user"))
		bc_step_raw(turn, line);
}

const BcStreamDialect bc_stream_gemini = {
	.name = "gemini",
	.speaks = speaks,
	.line = take_line,
};
