/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_map_codex.c
 *	  codex exec --json: items that start, change and complete.  Texts come whole.
 */
#include <string.h>

#include "runner/stream_step.h"

static bool
speaks(const json_t *line)
{
	return bc_step_is(line, "type", "thread.started") || bc_step_is(line, "type", "turn.started") ||
		bc_step_is(line, "type", "item.started") || bc_step_is(line, "type", "item.completed");
}

/* --- items that are calls of tools --- */

static bool
is_failed(const json_t *item)
{
	return bc_step_is(item, "status", "failed") || bc_step_is(item, "status", "declined");
}

/* The members of an item that say what was asked for, or what came of it; NULL without any */
static json_t *
pick(const json_t *item, const char *const *keys)
{
	json_t	   *picked = json_object();

	for (; *keys != NULL; keys++)
	{
		json_t	   *value = json_object_get(item, *keys);

		if (value != NULL && !json_is_null(value))
			json_object_set(picked, *keys, value);
	}
	if (json_object_size(picked) > 0)
		return picked;
	json_decref(picked);
	return NULL;
}

static void
locations(BcStreamTurn *turn, const json_t *item)
{
	json_t	   *list = json_array();
	size_t		i;
	json_t	   *change;

	json_array_foreach(json_object_get(item, "changes"), i, change)
		if (bc_step_string(change, "path") != NULL)
			json_array_append_new(list, json_pack("{s:s}", "path", bc_step_string(change, "path")));
	if (json_array_size(list) > 0)
		bc_step_update(turn, json_pack("{s:s, s:s, s:O}", "sessionUpdate", "tool_call_update",
									   "toolCallId", bc_step_string(item, "id"), "locations", list));
	json_decref(list);
}

/* False: the item is no call. */
static bool
tool_item(BcStreamTurn *turn, const json_t *item, bool completed)
{
	static const struct
	{
		const char *type;
		const char *kind;		/* as in ACP */
		const char *title;		/* the member that is it */
	}			types[] = {
		{"command_execution", "execute", "command"},
		{"file_change", "edit", "type"},
		{"mcp_tool_call", "other", "tool"},
		{"collab_tool_call", "think", "tool"},
		{"web_search", "fetch", "query"},
	};
	static const char *const asked[] = {"command", "changes", "server", "tool", "arguments", "prompt",
	"query", "action", NULL};
	static const char *const came[] = {"aggregated_output", "exit_code", "result", "error",
	"agents_states", NULL};
	const char *id = bc_step_string(item, "id");
	size_t		i = 0;
	json_t	   *input;
	json_t	   *output;

	while (i < sizeof(types) / sizeof(types[0]) && !bc_step_is(item, "type", types[i].type))
		i++;
	if (i == sizeof(types) / sizeof(types[0]) || id == NULL)
		return false;
	input = pick(item, asked);
	bc_step_call(turn, id, bc_step_string(item, types[i].title), types[i].kind, input, "in_progress");
	locations(turn, item);
	json_decref(input);
	if (!completed)
		return true;
	output = pick(item, came);
	bc_step_tool_end(turn, id, is_failed(item), output, 0);
	json_decref(output);
	return true;
}

/* --- items --- */

static void
item_line(BcStreamTurn *turn, const json_t *line, bool completed)
{
	const json_t *item = json_object_get(line, "item");
	const char *id = bc_step_string(item, "id");

	if (bc_step_is(item, "type", "agent_message") || bc_step_is(item, "type", "plan"))
	{
		if (completed)
			bc_step_text(turn, BC_TEXT, id, json_object_get(item, "text"));
	}
	else if (bc_step_is(item, "type", "reasoning"))
	{
		if (completed)
			bc_step_text(turn, BC_REASONING, id, json_object_get(item, "text"));
	}
	else if (bc_step_is(item, "type", "todo_list"))
		bc_step_plan(turn, json_object_get(item, "items"));
	else if (bc_step_is(item, "type", "error"))
		bc_step_warning(turn, bc_step_string(item, "message"));
	else if (!tool_item(turn, item, completed))
		bc_step_raw(turn, line);
}

/* --- the turn --- */

static void
usage(BcStreamTurn *turn, const json_t *report)
{
	BcStepUsage used = {
		.cached = bc_step_count(report, "cached_input_tokens"),
		.output = bc_step_count(report, "output_tokens"),
		.reasoning = bc_step_count(report, "reasoning_output_tokens"),
	};

	used.input = bc_step_count(report, "input_tokens") - used.cached;
	bc_step_usage_turn(turn, &used);
}

static void
error_line(BcStreamTurn *turn, const json_t *line)
{
	const char *message = bc_step_string(line, "message");

	if (message != NULL && strncmp(message, "Reconnecting...", 15) == 0)
		bc_step_retry(turn, message);
	else
		bc_step_error(turn, message);
}

static void
take_line(BcStreamTurn *turn, const json_t *line)
{
	if (bc_step_is(line, "type", "item.completed"))
		item_line(turn, line, true);
	else if (bc_step_is(line, "type", "item.started") || bc_step_is(line, "type", "item.updated"))
		item_line(turn, line, false);
	else if (bc_step_is(line, "type", "thread.started"))
		bc_step_keep(&turn->session_id, bc_step_string(line, "thread_id"));
	else if (bc_step_is(line, "type", "error"))
		error_line(turn, line);
	else if (bc_step_is(line, "type", "turn.completed"))
	{
		usage(turn, json_object_get(line, "usage"));
		bc_step_completed(turn);
		turn->over = true;
	}
	else if (bc_step_is(line, "type", "turn.failed"))
	{
		bc_step_failed(turn, NULL, bc_step_string(json_object_get(line, "error"), "message"));
		turn->over = true;
	}
	else if (!bc_step_is(line, "type", "turn.started"))
		bc_step_raw(turn, line);
}

const BcStreamDialect bc_stream_codex = {
	.name = "codex",
	.speaks = speaks,
	.line = take_line,
};
