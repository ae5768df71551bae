/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_step.c
 *	  Building blocks of the dialects: steps and facts.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runner/buf.h"
#include "runner/stream_step.h"
#include "runner/text.h"

#define MAX_FACT 4000			/* bytes */
#define MAX_TITLE 200
#define MAX_COUNT ((json_int_t) 1000 * 1000 * 1000 * 1000)
#define HASH_START UINT64_C(14695981039346656037)	/* FNV-1a */
#define HASH_PRIME UINT64_C(1099511628211)

/* --- reading --- */

const char *
bc_step_string(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

json_int_t
bc_step_count(const json_t *object, const char *key)
{
	double		number = json_number_value(json_object_get(object, key));

	if (!(number > 0))
		return 0;
	return number < (double) MAX_COUNT ? (json_int_t) number : MAX_COUNT;
}

bool
bc_step_is(const json_t *object, const char *key, const char *text)
{
	const char *have = bc_step_string(object, key);

	return have != NULL && strcmp(have, text) == 0;
}

void
bc_step_keep(char **where, const char *text)
{
	size_t		len;

	if (text == NULL)
		return;
	len = bc_text_cut(text, strlen(text), MAX_FACT);
	free(*where);
	*where = bc_asprintf("%.*s", (int) len, text);
}

/* --- steps --- */

/* "value" is stolen. */
static json_t *
step(BcStreamTurn *turn, const char *key, json_t *value)
{
	json_t	   *made = json_object();

	json_object_set_new(made, key, value);
	json_array_append_new(turn->steps, made);
	return made;
}

static void
report(BcStreamTurn *turn, const char *what, const char *kind, json_t *payload)
{
	(void) step(turn, what, json_pack("{s:s, s:o}", "kind", kind, "payload", payload));
}

void
bc_step_update(BcStreamTurn *turn, json_t *update)
{
	(void) step(turn, "update", update);
}

void
bc_step_raw(BcStreamTurn *turn, const json_t *line)
{
	(void) step(turn, "raw", json_incref((json_t *) line));
}

static json_t *
text_payload(const char *key, const char *text)
{
	return json_pack("{s:s}", key, text != NULL ? text : "");
}

void
bc_step_retry(BcStreamTurn *turn, const char *message)
{
	bc_step_drop(turn);
	report(turn, "event", "retry", text_payload("message", message));
}

void
bc_step_warning(BcStreamTurn *turn, const char *message)
{
	json_t	   *payload = text_payload("message", message);

	json_object_set_new(payload, "severity", json_string("warning"));
	report(turn, "event", "error", payload);
}

void
bc_step_error(BcStreamTurn *turn, const char *message)
{
	bc_step_keep(&turn->error, message);
	report(turn, "event", "error", text_payload("message", message));
	report(turn, "part", "error", text_payload("message", message));
}

void
bc_step_completed(BcStreamTurn *turn)
{
	turn->end = BC_STREAM_COMPLETED;
	turn->reason = NULL;
}

void
bc_step_failed(BcStreamTurn *turn, const char *reason, const char *message)
{
	turn->end = BC_STREAM_FAILED;
	turn->reason = reason;
	bc_step_keep(&turn->error, message);
}

/* --- text --- */

static void
text_update(BcStreamTurn *turn, BcTextKind kind, const char *message, const json_t *text)
{
	json_t	   *update;

	if (json_string_length(text) == 0)
		return;
	update = json_pack("{s:s, s:{s:s, s:O}}",
					   "sessionUpdate",
					   kind == BC_TEXT ? "agent_message_chunk" : "agent_thought_chunk",
					   "content", "type", "text", "text", text);
	if (message != NULL)
		json_object_set_new(update, "messageId", json_string(message));
	bc_step_update(turn, update);
}

void
bc_step_text(BcStreamTurn *turn, BcTextKind kind, const char *message, const json_t *text)
{
	text_update(turn, kind, message, text);
}

static BcStreamDraft *
draft_of(BcStreamTurn *turn, BcTextKind kind)
{
	return kind == BC_TEXT ? &turn->text : &turn->thoughts;
}

static uint64_t
hash_of(uint64_t hash, const json_t *text)
{
	const char *bytes = json_string_value(text);
	size_t		len = json_string_length(text);

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char) bytes[i]) * HASH_PRIME;
	return hash;
}

void
bc_step_piece(BcStreamTurn *turn, BcTextKind kind, const char *message, const json_t *text)
{
	BcStreamDraft *draft = draft_of(turn, kind);

	if (json_string_length(text) == 0)
		return;
	if (!draft->pending)
		*draft = (BcStreamDraft) {.pending = true, .hash = HASH_START};
	draft->len += json_string_length(text);
	draft->hash = hash_of(draft->hash, text);
	text_update(turn, kind, message, text);
}

void
bc_step_whole(BcStreamTurn *turn, BcTextKind kind, const char *message, const json_t *text)
{
	BcStreamDraft *draft = draft_of(turn, kind);
	bool		known = draft->pending && draft->len == json_string_length(text) &&
		draft->hash == hash_of(HASH_START, text);

	if (!known)
	{
		if (draft->pending)
			bc_step_drop(turn);
		text_update(turn, kind, message, text);
	}
	draft->pending = false;
}

void
bc_step_drop(BcStreamTurn *turn)
{
	if (turn->text.pending || turn->thoughts.pending)
		(void) step(turn, "drop", json_true());
	turn->text.pending = turn->thoughts.pending = false;
}

void
bc_step_forget_text(BcStreamTurn *turn)
{
	(void) step(turn, "forget", json_true());
}

void
bc_step_forget_message(BcStreamTurn *turn)
{
	(void) step(turn, "forget", json_false());
}

void
bc_step_keep_text(BcStreamTurn *turn)
{
	(void) step(turn, "keep", json_true());
}

/* --- tools --- */

static const struct
{
	const char *kind;			/* as in ACP */
	const char *const names[14];
}			tools[] = {
	{"read", {"read", "read_file", "read_many_files", "notebookread", "view", "read_image", "zoom_image"}},
	{"edit", {"edit", "write", "multiedit", "notebookedit", "notebook_edit", "write_file", "replace",
	"apply_patch", "patch", "multi_edit", "text_editor", "str_replace"}},
	{"search", {"grep", "glob", "find", "ls", "list", "list_directory", "grep_search", "search_file_content",
	"tree", "codesearch", "rg", "analyze"}},
	{"execute", {"bash", "shell", "run_shell_command", "bashoutput", "killshell", "exec_command"}},
	{"fetch", {"webfetch", "web_fetch", "websearch", "web_search", "google_web_search", "fetch"}},
	{"think", {"task", "agent", "todowrite", "todo_write", "write_todos", "todoread", "skill", "exitplanmode",
	"delegate"}},
};

/* goose puts the name of an extension in front: its own tools are in "developer". */
static const char *
plain_name(const char *name)
{
	return strncmp(name, "developer__", 11) == 0 ? name + 11 : name;
}

static const char *
tool_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++)
		for (const char *const *known = tools[i].names; *known != NULL; known++)
			if (strcasecmp(plain_name(name), *known) == 0)
				return tools[i].kind;
	return "other";
}

static const char *
path_of(const json_t *input)
{
	static const char *const keys[] = {"file_path", "filePath", "path", "absolute_path", "notebook_path"};
	const char *path = NULL;

	for (size_t i = 0; path == NULL && i < sizeof(keys) / sizeof(keys[0]); i++)
		path = bc_step_string(input, keys[i]);
	return path;
}

/* What the call is about, in a line: a command stands for itself, all else behind the name. */
static char *
title_of(const char *name, const json_t *input)
{
	static const char *const keys[] = {"pattern", "query", "url", "description", "prompt"};
	const char *subject = bc_step_string(input, "command");
	char	   *whole;
	char	   *title;

	name = plain_name(name);
	if (subject != NULL)
		name = "";
	else
		subject = path_of(input);
	for (size_t i = 0; subject == NULL && i < sizeof(keys) / sizeof(keys[0]); i++)
		subject = bc_step_string(input, keys[i]);
	if (subject == NULL)
		subject = "";
	whole = bc_asprintf("%s%s%s", name, name[0] != '\0' && subject[0] != '\0' ? " " : "", subject);
	title = bc_asprintf("%.*s", (int) bc_text_cut(whole, strlen(whole), MAX_TITLE), whole);
	free(whole);
	return title;
}

static json_t *
call_update(const char *id, const char *title, const char *kind, const json_t *input, const char *status)
{
	const char *path = path_of(input);
	json_t	   *update = json_pack("{s:s, s:s, s:s, s:s, s:s}", "sessionUpdate", "tool_call",
								   "toolCallId", id, "title", title, "kind", kind, "status", status);

	if (input != NULL && !json_is_null(input))
		json_object_set(update, "rawInput", (json_t *) input);
	if (path != NULL)
		json_object_set_new(update, "locations", json_pack("[{s:s}]", "path", path));
	return update;
}

/* "update" is stolen. */
static void
timed_update(BcStreamTurn *turn, json_t *update, int64_t at)
{
	json_t	   *made = step(turn, "update", update);

	if (at > 0)
		json_object_set_new(made, "at", json_integer(at));
}

void
bc_step_call(BcStreamTurn *turn, const char *id, const char *title, const char *kind,
			 const json_t *input, const char *status)
{
	if (id != NULL)
		bc_step_update(turn, call_update(id, title != NULL ? title : "", kind, input, status));
}

void
bc_step_tool(BcStreamTurn *turn, const char *id, const char *name, const json_t *input,
			 const char *status, int64_t at)
{
	const json_t *todos = json_object_get(input, "todos");
	char	   *title;

	if (id == NULL || name == NULL)
		return;
	title = title_of(name, input);
	timed_update(turn, call_update(id, title, tool_kind(name), input, status), at);
	free(title);
	if (json_is_array(todos))
		bc_step_plan(turn, todos);
}

void
bc_step_tool_end(BcStreamTurn *turn, const char *id, bool failed, const json_t *output, int64_t at)
{
	json_t	   *update;

	if (id == NULL)
		return;
	update = json_pack("{s:s, s:s, s:s}", "sessionUpdate", "tool_call_update", "toolCallId", id,
					   "status", failed ? "failed" : "completed");
	if (output != NULL && !json_is_null(output))
		json_object_set(update, "rawOutput", (json_t *) output);
	timed_update(turn, update, at);
}

/* --- plan --- */

static const char *
first_string(const json_t *object, const char *const *keys)
{
	const char *text = NULL;

	for (; text == NULL && *keys != NULL; keys++)
		text = bc_step_string(object, *keys);
	return text;
}

void
bc_step_plan(BcStreamTurn *turn, const json_t *list)
{
	static const char *const texts[] = {"content", "text", "description", "step", NULL};
	json_t	   *entries = json_array();
	size_t		i;
	json_t	   *item;

	json_array_foreach((json_t *) list, i, item)
	{
		const char *text = first_string(item, texts);
		const char *status = bc_step_string(item, "status");
		const char *priority = bc_step_string(item, "priority");

		if (text == NULL)
			continue;
		if (status == NULL)
			status = json_is_true(json_object_get(item, "completed")) ? "completed" : "pending";
		json_array_append_new(entries, json_pack("{s:s, s:s, s:s}", "content", text, "status", status,
												 "priority", priority != NULL ? priority : "medium"));
	}
	bc_step_update(turn, json_pack("{s:s, s:o}", "sessionUpdate", "plan", "entries", entries));
}

/* --- usage --- */

static json_int_t
positive(json_int_t n)
{
	return n > 0 ? n : 0;
}

static json_t *
usage_json(const BcStepUsage *usage)
{
	json_t	   *made = json_pack("{s:I, s:I, s:I, s:I, s:I}",
								 "inputTokens", positive(usage->input),
								 "outputTokens", positive(usage->output),
								 "cachedReadTokens", positive(usage->cached),
								 "cachedWriteTokens", positive(usage->written),
								 "thoughtTokens", positive(usage->reasoning));

	if (usage->cost_usd > 0)
		json_object_set_new(made, "costUsd", json_real(usage->cost_usd));
	return made;
}

void
bc_step_usage_call(BcStreamTurn *turn, const BcStepUsage *usage)
{
	bc_step_update(turn, json_pack("{s:s, s:{s:s, s:s}, s:{s:o}}",
								   "sessionUpdate", "agent_message_chunk",
								   "content", "type", "text", "text", "",
								   "_meta", "usage", usage_json(usage)));
}

void
bc_step_usage_turn(BcStreamTurn *turn, const BcStepUsage *usage)
{
	(void) step(turn, "result", json_pack("{s:o}", "usage", usage_json(usage)));
}
