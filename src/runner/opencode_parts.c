/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_parts.c
 *	  What opencode says of its work, in whatever way it comes.
 */
#include <string.h>

#include "runner/opencode_parts.h"

bool
bc_opencode_usage(const json_t *step, BcStepUsage *used)
{
	const json_t *tokens = json_object_get(step, "tokens");
	const json_t *cache = json_object_get(tokens, "cache");
	double		cost = json_number_value(json_object_get(step, "cost"));

	*used = (BcStepUsage) {
		.input = bc_step_count(tokens, "input"),
		.cached = bc_step_count(cache, "read"),
		.written = bc_step_count(cache, "write"),
		.output = bc_step_count(tokens, "output") + bc_step_count(tokens, "reasoning"),
		.reasoning = bc_step_count(tokens, "reasoning"),
		.cost_usd = cost > 0 ? cost : 0,
	};
	return json_is_object(tokens) || cost > 0;
}

const char *
bc_opencode_finish(const json_t *step)
{
	const char *finish = bc_step_string(step, "reason");

	return finish != NULL ? finish : bc_step_string(step, "finish");
}

bool
bc_opencode_goes_on(const char *finish)
{
	return finish == NULL || strcmp(finish, "tool-calls") == 0 || strcmp(finish, "unknown") == 0;
}

static int64_t
time_of(const json_t *part, const char *what)
{
	return json_integer_value(json_object_get(json_object_get(json_object_get(part, "state"), "time"), what));
}

void
bc_opencode_tool_begun(BcStreamTurn *turn, const json_t *part, const char *status, int64_t at)
{
	int64_t		start = time_of(part, "start");

	bc_step_tool(turn, bc_step_string(part, "callID"), bc_step_string(part, "tool"),
				 json_object_get(json_object_get(part, "state"), "input"), status, start > 0 ? start : at);
}

void
bc_opencode_tool_ended(BcStreamTurn *turn, const json_t *part)
{
	const json_t *state = json_object_get(part, "state");
	const char *error = bc_step_string(state, "error");

	bc_step_tool_end(turn, bc_step_string(part, "callID"), bc_step_is(state, "status", "error"),
					 json_object_get(state, error != NULL ? "error" : "output"), time_of(part, "end"));
	if (error != NULL && strstr(error, "rejected permission") != NULL)
		turn->rejected = true;
}

void
bc_opencode_tool(BcStreamTurn *turn, const json_t *part)
{
	bc_opencode_tool_begun(turn, part, "in_progress", 0);
	bc_opencode_tool_ended(turn, part);
}

void
bc_opencode_error(BcStreamTurn *turn, const json_t *error)
{
	const json_t *data = json_object_get(error, "data");
	const char *message = bc_step_string(data, "message");

	bc_step_error(turn, message != NULL ? message : bc_step_string(error, "name"));
	turn->status = (int) bc_step_count(data, "statusCode") % 1000;
	bc_step_failed(turn, NULL, NULL);
}

void
bc_opencode_judge(BcStreamTurn *turn, bool rejected)
{
	const char *stop = turn->stop_reason != NULL ? turn->stop_reason : "";

	if (rejected && bc_opencode_goes_on(turn->stop_reason))
		bc_step_failed(turn, "permission_rejected", NULL);
	else if (strcmp(stop, "length") == 0)
		bc_step_failed(turn, "max_tokens", "the agent reached its limit of tokens");
	else if (strcmp(stop, "content-filter") == 0)
		bc_step_failed(turn, "refusal", "the agent refused");
	else if (stop[0] == '\0')
		bc_step_failed(turn, NULL, "the agent ended without an answer");
	else
		bc_step_completed(turn);
}
