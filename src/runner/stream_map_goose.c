/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_map_goose.c
 *	  goose run --output-format stream-json.
 *
 * It ends with status 0 whatever happened, and says a failure of the model as
 * text of the agent.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/stream_step.h"

#define MAX_SAID 4000			/* bytes kept of the last message */

static const char said_on_failure[] = "Ran into this error:";

static bool
speaks(const json_t *line)
{
	const json_t *message = json_object_get(line, "message");

	if (bc_step_is(line, "type", "message"))
		return json_is_array(json_object_get(message, "content"));
	return bc_step_is(line, "type", "notification") || bc_step_is(line, "type", "complete");
}

/* Keeps the beginning of the last message: it may turn out to be an error. */
static void
remember(BcStreamTurn *turn, const char *id, const char *text)
{
	char	   *said;

	if (turn->said_id == NULL || id == NULL || strcmp(turn->said_id, id) != 0)
	{
		free(turn->said);
		turn->said = NULL;
	}
	bc_step_keep(&turn->said_id, id);
	if (turn->said != NULL && strlen(turn->said) >= MAX_SAID)
		return;
	said = bc_asprintf("%s%s", turn->said != NULL ? turn->said : "", text);
	bc_step_keep(&turn->said, said);
	free(said);
}

static void
request(BcStreamTurn *turn, const json_t *content)
{
	const json_t *call = json_object_get(content, "toolCall");
	const char *id = bc_step_string(content, "id");
	const json_t *value = json_object_get(call, "value");

	if (bc_step_string(value, "name") != NULL)
		bc_step_tool(turn, id, bc_step_string(value, "name"), json_object_get(value, "arguments"),
					 "in_progress", 0);
	else
		bc_step_raw(turn, content);
}

static void
response(BcStreamTurn *turn, const json_t *content)
{
	const json_t *result = json_object_get(content, "toolResult");
	const json_t *value = json_object_get(result, "value");
	bool		failed = bc_step_is(result, "status", "error") ||
		json_is_true(json_object_get(value, "isError"));

	if (value == NULL)
		value = json_object_get(result, "error");
	bc_step_tool_end(turn, bc_step_string(content, "id"), failed, value, 0);
}

static void
take_message(BcStreamTurn *turn, const json_t *message)
{
	const char *id = bc_step_string(message, "id");
	bool		hidden = json_is_false(json_object_get(json_object_get(message, "metadata"), "userVisible"));
	bool		own = bc_step_is(message, "role", "assistant") && !hidden;
	size_t		i;
	json_t	   *content;

	json_array_foreach(json_object_get(message, "content"), i, content)
	{
		if (bc_step_is(content, "type", "toolRequest"))
			request(turn, content);
		else if (bc_step_is(content, "type", "toolResponse"))
			response(turn, content);
		else if (own && bc_step_is(content, "type", "text") && bc_step_string(content, "text") != NULL)
		{
			bc_step_text(turn, BC_TEXT, id, json_object_get(content, "text"));
			remember(turn, id, bc_step_string(content, "text"));
		}
		else if (own && bc_step_is(content, "type", "thinking"))
			bc_step_text(turn, BC_REASONING, id, json_object_get(content, "thinking"));
		else if (own && bc_step_is(content, "type", "reasoning"))
			bc_step_text(turn, BC_REASONING, id, json_object_get(content, "text"));
		else if (!bc_step_is(content, "type", "text"))
			bc_step_raw(turn, content);
	}
}

/* How much of the input was cached it does not tell. */
static void
complete(BcStreamTurn *turn, const json_t *line)
{
	BcStepUsage used = {
		.input = bc_step_count(line, "input_tokens"),
		.output = bc_step_count(line, "output_tokens"),
	};
	const char *said = turn->said != NULL ? turn->said : "";

	turn->over = true;
	bc_step_usage_turn(turn, &used);
	if (turn->end != BC_STREAM_OPEN)
		return;
	/* No call of the model succeeded, or the last one did not. */
	if (!json_is_number(json_object_get(line, "total_tokens")) || strstr(said, said_on_failure) != NULL)
		bc_step_failed(turn, NULL, said[0] != '\0' ? said : "the agent ended the turn without an answer");
	else
		bc_step_completed(turn);
}

static void
take_line(BcStreamTurn *turn, const json_t *line)
{
	if (bc_step_is(line, "type", "message"))
		take_message(turn, json_object_get(line, "message"));
	else if (bc_step_is(line, "type", "error"))
	{
		bc_step_error(turn, bc_step_string(line, "error"));
		bc_step_failed(turn, NULL, NULL);
	}
	else if (bc_step_is(line, "type", "model_change"))
		bc_step_keep(&turn->model, bc_step_string(line, "model"));
	else if (bc_step_is(line, "type", "complete"))
		complete(turn, line);
	else
		bc_step_raw(turn, line);
}

static void
exited(BcStreamTurn *turn, int code, const char *errors)
{
	if (code != 0 && strstr(errors, "Tool approval required") != NULL)
		bc_step_failed(turn, "permission_rejected", BC_STEP_NOBODY_TO_ASK);
}

const BcStreamDialect bc_stream_goose = {
	.name = "goose",
	.speaks = speaks,
	.line = take_line,
	.exited = exited,
};
