/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_map.c
 *	  From session/update to events and parts.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/acp_agents.h"
#include "runner/acp_map.h"
#include "runner/acp_offer.h"
#include "runner/acp_options.h"
#include "runner/buf.h"
#include "runner/payload.h"
#include "runner/stream.h"

#define MAX_RAW (16 * 1024)
#define MAX_OPEN 128			/* tool calls under way */
#define MAX_ENDED 4096			/* ids remembered of those that have ended */
#define MAX_ID 512

struct BcAcpMap
{
	/* by id: what was said so far; members in the order of their arrival */
	json_t	   *open;

	/* by id: calls whose part is out, for which late news is only an event */
	json_t	   *ended;

	json_t	   *plan;			/* entries, or NULL */
	json_t	   *commands;		/* as last reported, or NULL */
	char	   *known;			/* which agent it is, or NULL */
	char	   *session_id;
	char	   *model;
	char	   *mode;
	char	   *title;
	bool		text_is_last;	/* nothing came behind the last text */
	bool		text_has_id;	/* it has a messageId */
	bool		tool_ended;		/* so that the next words are of another call of the model */
	bool		system_error;
	BcAcpUsage	usage;
};

BcAcpMap *
bc_acp_map_new(void)
{
	BcAcpMap   *map = bc_alloc(sizeof(BcAcpMap));

	map->open = json_object();
	map->ended = json_object();
	bc_stream_says_again(false);
	return map;
}

void
bc_acp_map_free(BcAcpMap *map)
{
	if (map == NULL)
		return;
	json_decref(map->open);
	json_decref(map->ended);
	json_decref(map->plan);
	json_decref(map->commands);
	free(map->known);
	free(map->session_id);
	free(map->model);
	free(map->mode);
	free(map->title);
	free(map);
}

static void
replace(char **where, const char *text)
{
	free(*where);
	*where = text != NULL ? bc_strdup(text) : NULL;
}

bool
bc_acp_map_is_agent(const BcAcpMap *map, const char *known)
{
	return map->known != NULL && strcmp(map->known, known) == 0;
}

void
bc_acp_map_agent(BcAcpMap *map, const char *known)
{
	replace(&map->known, known);
	bc_acp_usage_agent(&map->usage, known);
	bc_stream_says_again(bc_acp_map_is_agent(map, "opencode") || bc_acp_map_is_agent(map, "claude") ||
						 bc_acp_map_is_agent(map, "qwen"));
}

void
bc_acp_map_session(BcAcpMap *map, const char *session_id)
{
	replace(&map->session_id, session_id);
}

void
bc_acp_map_model(BcAcpMap *map, const char *model)
{
	replace(&map->model, model);
}

void
bc_acp_map_mode(BcAcpMap *map, const char *mode)
{
	replace(&map->mode, mode);
}

const char *
bc_acp_map_in_use(const BcAcpMap *map, const char *category)
{
	return strcmp(category, "model") == 0 ? map->model : map->mode;
}

void
bc_acp_map_next(BcAcpMap *map)
{
	memset(&map->usage, 0, sizeof(map->usage));
	map->text_is_last = map->text_has_id = map->tool_ended = map->system_error = false;
	if (map->known != NULL)
		bc_acp_usage_agent(&map->usage, map->known);
}

bool
bc_acp_map_is_state(const json_t *update)
{
	static const char *const kinds[] = {
		"available_commands_update", "current_mode_update", "config_option_update", "session_info_update"
	};
	const char *kind = json_string_value(json_object_get(update, "sessionUpdate"));

	for (size_t i = 0; kind != NULL && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kind, kinds[i]) == 0)
			return true;
	return false;
}

static void
replace_json(json_t **where, const json_t *value)
{
	json_decref(*where);
	*where = json_incref((json_t *) value);
}

static void
event(const char *kind, json_t *payload)
{
	bc_stream_event(kind, bc_payload_limit(payload, BC_PAYLOAD_EVENT));
}

void
bc_acp_map_raw(json_t *value)
{
	if (!json_is_object(value))
	{
		json_t	   *wrapper = json_object();

		json_object_set_new(wrapper, "value", value != NULL ? value : json_null());
		value = wrapper;
	}
	bc_stream_event("raw", bc_payload_limit(value, MAX_RAW));
}

static json_t *
without_kind(const json_t *update)
{
	json_t	   *copy = json_copy((json_t *) update);

	json_object_del(copy, "sessionUpdate");
	return copy;
}

/* --- text --- */

/* Something of the model's: behind a tool it takes another call of the model. */
static void
model_spoke(BcAcpMap *map)
{
	if (map->tool_ended)
		bc_acp_usage_again(&map->usage);
	map->tool_ended = false;
}

static void
add_text(BcAcpMap *map, BcTextKind kind, const json_t *update)
{
	const json_t *content = json_object_get(update, "content");
	const json_t *text = json_object_get(content, "text");
	const char *message = json_string_value(json_object_get(update, "messageId"));

	if (!json_is_string(text))
	{
		/* A picture, a file, ...: it has its place among the parts. */
		bc_acp_map_raw(json_incref((json_t *) update));
		if (json_is_object(content))
			bc_stream_part("raw", bc_payload_limit(json_incref((json_t *) content), MAX_RAW));
	}
	/* Some agents hang a report on an empty chunk, which must not end a run of another kind. */
	else if (json_string_length(text) > 0)
	{
		model_spoke(map);
		/* What codex itself says, a warning or an error in one piece, has no id. */
		if (bc_acp_map_is_agent(map, "codex") && kind == BC_TEXT && (message == NULL || !map->text_has_id))
			bc_stream_end_text();
		map->text_is_last = kind == BC_TEXT;
		map->text_has_id = message != NULL;
		bc_stream_text(kind, message, json_string_value(text), json_string_length(text));
	}
}

/* --- tool calls --- */

static bool
is_final(const char *status)
{
	return status != NULL && (strcmp(status, "completed") == 0 || strcmp(status, "failed") == 0 ||
							  strcmp(status, "cancelled") == 0);
}

static const char *
status_of(const json_t *call)
{
	return json_string_value(json_object_get(call, "status"));
}

json_t *
bc_acp_map_tool_fields(const json_t *tool_call)
{
	static const struct
	{
		const char *theirs;
		const char *ours;
	}			fields[] = {
		{"toolCallId", "id"},
		{"title", "title"},
		{"kind", "kind"},
		{"status", "status"},
		{"locations", "locations"},
		{"rawInput", "raw_input"},
		{"rawOutput", "raw_output"},
		{"content", "content"},
	};
	json_t	   *call = json_object();

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
	{
		json_t	   *value = json_object_get(tool_call, fields[i].theirs);

		if (value != NULL && !json_is_null(value))
			json_object_set(call, fields[i].ours, value);
	}
	return call;
}

static void
set_default(json_t *object, const char *key, const char *text)
{
	if (json_object_get(object, key) == NULL)
		json_object_set_new(object, key, json_string(text));
}

/* The part of a call; "id" may be freed with it. */
static void
end_call(BcAcpMap *map, const char *id, int64_t now_ms)
{
	json_t	   *call = json_incref(json_object_get(map->open, id));

	/* Some agents drop the matter without a word. */
	if (json_object_del(call, "refused") == 0 && !is_final(status_of(call)))
		json_object_set_new(call, "status", json_string("failed"));
	set_default(call, "status", "pending");
	set_default(call, "kind", "other");
	json_object_set_new(call, "ended_ms", json_integer(now_ms));
	if (json_object_size(map->ended) >= MAX_ENDED)
		json_object_clear(map->ended);
	json_object_set_new_nocheck(map->ended, id, json_null());
	json_object_del(map->open, id);
	map->tool_ended = true;
	bc_stream_part("tool_call", call);
}

/* An agent that begins calls without end: the oldest one has to do with what is known. */
static void
limit_open(BcAcpMap *map, int64_t now_ms)
{
	if (json_object_size(map->open) >= MAX_OPEN)
		end_call(map, json_object_iter_key(json_object_iter(map->open)), now_ms);
}

static void
merge(json_t *call, const json_t *fields)
{
	const char *key;
	json_t	   *value;

	json_object_foreach((json_t *) fields, key, value)
	{
		/* A call that has ended in a previous report doesn't begin again. */
		if (strcmp(key, "status") != 0 || !is_final(status_of(call)))
			json_object_set_nocheck(call, key, value);
	}
}

/* "begins": by a tool_call, which starts anew even for an id that has ended. */
static void
tool_call(BcAcpMap *map, const json_t *report, bool begins, int64_t now_ms)
{
	const char *id = json_string_value(json_object_get(report, "toolCallId"));
	json_t	   *fields;
	json_t	   *call;
	bool		known;

	if (id == NULL || strlen(id) > MAX_ID)
	{
		bc_acp_map_raw(json_incref((json_t *) report));
		return;
	}
	call = json_object_get(map->open, id);
	known = call != NULL || json_object_get(map->ended, id) != NULL;
	if (begins && call == NULL)
		known = false;
	fields = bc_payload_limit(bc_acp_map_tool_fields(report), BC_PAYLOAD_EVENT);

	bc_stream_end_text();
	map->text_is_last = false;
	if (!known)
		model_spoke(map);
	json_object_set_new(fields, "phase", json_string(known ? "update" : "start"));
	bc_stream_event("tool_call", json_incref(fields));
	json_object_del(fields, "phase");
	if (!known)
	{
		limit_open(map, now_ms);
		call = json_pack("{s:I}", "started_ms", (json_int_t) now_ms);
		json_object_set_new_nocheck(map->open, id, call);
		json_object_del(map->ended, id);
	}
	if (call != NULL)
	{
		merge(call, fields);
		if (is_final(status_of(call)))
			end_call(map, id, now_ms);
	}
	json_decref(fields);
}

void
bc_acp_map_tool_call(BcAcpMap *map, const json_t *call, int64_t now_ms)
{
	if (json_is_object(call))
		tool_call(map, call, false, now_ms);
}

json_t *
bc_acp_map_known(const BcAcpMap *map, const json_t *tool_call)
{
	const char *id = json_string_value(json_object_get(tool_call, "toolCallId"));
	const json_t *call = id != NULL ? json_object_get(map->open, id) : NULL;
	json_t	   *known;

	if (call == NULL)
		return bc_acp_map_tool_fields(tool_call);
	known = json_copy((json_t *) call);
	json_object_del(known, "started_ms");
	json_object_del(known, "refused");
	return known;
}

void
bc_acp_map_decided(BcAcpMap *map, const char *call_id, bool allowed)
{
	json_t	   *call = call_id != NULL ? json_object_get(map->open, call_id) : NULL;

	if (call != NULL && allowed)
		json_object_del(call, "refused");
	else if (call != NULL)
		json_object_set_new(call, "refused", json_true());
}

bool
bc_acp_map_working(const BcAcpMap *map)
{
	return json_object_size(map->open) > 0;
}

/* --- the rest --- */

static void
plan(BcAcpMap *map, const json_t *update)
{
	json_t	   *payload = json_object();
	json_t	   *entries = json_object_get(update, "entries");

	json_object_set_new(payload, "entries",
						json_is_array(entries) ? json_incref(entries) : json_array());
	payload = bc_payload_limit(payload, BC_PAYLOAD_EVENT);
	replace_json(&map->plan, payload);
	bc_stream_event("plan", payload);
}

static void
commands(BcAcpMap *map, const json_t *update)
{
	json_t	   *list = bc_acp_offer_commands(update);

	/* Some agents repeat the whole list again and again. */
	if (map->commands == NULL || !json_equal(list, map->commands))
		event("command", json_pack("{s:O}", "commands", list));
	replace_json(&map->commands, list);
	json_decref(list);
}

/* Told by several reports, and only worth an event when it changes. */
static void
mode_is(BcAcpMap *map, const char *mode)
{
	if (mode == NULL || (map->mode != NULL && strcmp(mode, map->mode) == 0))
		return;
	bc_acp_map_mode(map, mode);
	event("mode", json_pack("{s:s}", "mode", mode));
}

static void
config(BcAcpMap *map, const json_t *update)
{
	const char *model = bc_acp_current_model(update);

	event("config", json_pack("{s:O}", "options", json_object_get(update, "configOptions")));
	mode_is(map, bc_acp_offer_mode(update));
	if (model != NULL)
		bc_acp_map_model(map, model);
}

/* codex tells beside everything else how it fares. */
static void
codex_status(BcAcpMap *map, const json_t *codex)
{
	const json_t *error = json_object_get(codex, "error");
	const char *status =
		json_string_value(json_object_get(json_object_get(codex, "threadStatus"), "type"));
	json_t	   *message = json_object_get(error, "message");

	if (status != NULL)
		map->system_error = strcmp(status, "systemError") == 0;
	if (!json_is_true(json_object_get(error, "willRetry")))
		return;
	/* What the model said of its message will be said again. */
	if (map->text_is_last && map->text_has_id)
	{
		bc_stream_drop_text();
		map->text_is_last = false;
	}
	event("retry", json_pack("{s:O?}", "message", json_is_string(message) ? message : NULL));
}

static void
session_info(BcAcpMap *map, const json_t *update)
{
	const char *title = json_string_value(json_object_get(update, "title"));

	event("session_info", without_kind(update));
	if (title != NULL && (map->title == NULL || strcmp(title, map->title) != 0))
	{
		replace(&map->title, title);
		event("title", json_pack("{s:O}", "title", json_object_get(update, "title")));
	}
	if (bc_acp_map_is_agent(map, "codex"))
		codex_status(map, json_object_get(json_object_get(update, "_meta"), "codex"));
}

static json_t *
usage_json(const BcAcpMap *map)
{
	json_t	   *usage = json_object();

	if (!bc_acp_usage_write(&map->usage, usage))
	{
		json_decref(usage);
		return NULL;
	}
	if (map->model != NULL)
		json_object_set_new(usage, "model", json_string(map->model));
	return usage;
}

/*
 * Every usage event says what the turn has used so far, so that the last one
 * will do should nothing else get through.  What the agent said stands apart,
 * under "report".
 */
static void
usage_event(BcAcpMap *map, json_t *report)
{
	json_t	   *payload = usage_json(map);

	if (payload == NULL)
		payload = json_object();
	json_object_set_new(payload, "report", report);
	if (map->session_id != NULL)
		json_object_set_new(payload, "agent_session_id", json_string(map->session_id));
	event("usage", payload);
}

static bool
is_array_member(const json_t *update, const char *key)
{
	return json_is_array(json_object_get(update, key));
}

void
bc_acp_map_update(BcAcpMap *map, const json_t *update, int64_t now_ms)
{
	const char *kind = json_string_value(json_object_get(update, "sessionUpdate"));
	const json_t *meta = json_object_get(update, "_meta");

	if (kind == NULL)
		kind = "";
	if (strcmp(kind, "agent_message_chunk") == 0)
		add_text(map, BC_TEXT, update);
	else if (strcmp(kind, "agent_thought_chunk") == 0)
		add_text(map, BC_REASONING, update);
	else if (strcmp(kind, "tool_call") == 0)
		tool_call(map, update, true, now_ms);
	else if (strcmp(kind, "tool_call_update") == 0)
		tool_call(map, update, false, now_ms);
	else if (strcmp(kind, "plan") == 0)
		plan(map, update);
	else if (strcmp(kind, "available_commands_update") == 0 &&
			 is_array_member(update, "availableCommands"))
		commands(map, update);
	else if (strcmp(kind, "current_mode_update") == 0 &&
			 json_is_string(json_object_get(update, "currentModeId")))
		mode_is(map, json_string_value(json_object_get(update, "currentModeId")));
	else if (strcmp(kind, "config_option_update") == 0 && is_array_member(update, "configOptions"))
		config(map, update);
	else if (strcmp(kind, "session_info_update") == 0)
		session_info(map, update);
	else if (strcmp(kind, "usage_update") == 0)
	{
		bc_acp_usage_update(&map->usage, update);
		usage_event(map, without_kind(update));
	}
	else
		bc_acp_map_raw(json_incref((json_t *) update));

	if (bc_acp_usage_call(&map->usage, meta))
		usage_event(map, json_incref(json_object_get(meta, "usage")));
}

void
bc_acp_map_result(BcAcpMap *map, const json_t *result)
{
	json_t	   *report = json_object_get(result, "usage");
	const json_t *meta = json_object_get(result, "_meta");

	bc_acp_usage_turn(&map->usage, result);
	if (report == NULL)
		report = json_object_get(json_object_get(meta, "quota"), "token_count");
	if (json_is_object(report))
		usage_event(map, json_incref(report));
}

char *
bc_acp_map_error(BcAcpMap *map)
{
	bool		own_words = map->text_is_last && !(bc_acp_map_is_agent(map, "codex") && map->text_has_id);

	bc_stream_end_text();
	return bc_acp_hidden_error(map->known != NULL ? map->known : "",
							   own_words ? bc_stream_summary() : NULL, map->system_error);
}

json_t *
bc_acp_map_end(BcAcpMap *map, bool cancelled, int64_t now_ms)
{
	json_t	   *usage = usage_json(map);
	void	   *iter;

	bc_stream_end_text();
	while ((iter = json_object_iter(map->open)) != NULL)
	{
		if (cancelled)
			json_object_set_new(json_object_iter_value(iter), "status", json_string("cancelled"));
		end_call(map, json_object_iter_key(iter), now_ms);
	}
	if (map->plan != NULL)
		bc_stream_part("plan", map->plan);
	map->plan = NULL;
	if (usage != NULL)
		bc_stream_part("usage", json_deep_copy(usage));
	return usage;
}
