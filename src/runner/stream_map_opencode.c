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

#include "runner/opencode_parts.h"

static bool
speaks(const json_t *line)
{
	return bc_step_string(line, "sessionID") != NULL &&
		(json_is_object(json_object_get(line, "part")) || bc_step_is(line, "type", "error"));
}

static void
step_finished(BcStreamTurn *turn, const json_t *part)
{
	BcStepUsage used;

	turn->busy = false;
	(void) bc_opencode_usage(part, &used);
	bc_step_usage_call(turn, &used);
	bc_step_keep(&turn->stop_reason, bc_opencode_finish(part));
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
		bc_opencode_tool(turn, part);
	else if (bc_step_is(line, "type", "step_start"))
		turn->busy = true;
	else if (bc_step_is(line, "type", "step_finish"))
		step_finished(turn, part);
	else if (bc_step_is(line, "type", "error"))
		bc_opencode_error(turn, json_object_get(line, "error"));
	else
		bc_step_raw(turn, line);
}

static void
exited(BcStreamTurn *turn, int code, const char *errors)
{
	if (code != 0)
		return;
	bc_opencode_judge(turn, turn->rejected || strstr(errors, "auto-rejecting") != NULL);
	if (turn->reason != NULL && strcmp(turn->reason, "permission_rejected") == 0)
		bc_step_keep(&turn->error, BC_STEP_NOBODY_TO_ASK);
}

const BcStreamDialect bc_stream_opencode = {
	.name = "opencode",
	.speaks = speaks,
	.line = take_line,
	.exited = exited,
};
