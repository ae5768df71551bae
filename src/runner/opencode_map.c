/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_map.c
 *	  What opencode serve tells of a session becomes steps and facts.
 *
 * The model's words come as deltas and again as a whole, each call of the model
 * ends in a step-finish, and a call that failed is told by a retry or by the
 * next step-start: what it said is dropped then.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "runner/dcp.h"
#include "runner/opencode_map.h"
#include "runner/opencode_parts.h"

#define MAX_BELOW 1000			/* sessions below this one */
#define MAX_PARTS 20000			/* of a turn, remembered */
#define MAX_MESSAGES 5000		/* likewise */
#define HASH_START UINT64_C(14695981039346656037)	/* FNV-1a */
#define HASH_PRIME UINT64_C(1099511628211)
#define ALPHABET "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

typedef enum Stage
{
	STAGE_SEEN,
	STAGE_PENDING,
	STAGE_RUNNING,
	STAGE_ENDED					/* nothing more is taken of it */
} Stage;

/* What was taken of a part */
typedef struct Part
{
	char	   *id;
	Stage		stage;
	BcTextKind	kind;			/* of a text */
	size_t		len;			/* of what was said, without marks */
	uint64_t	hash;
	size_t		solid_len;		/* the same, without blanks at its end */
	uint64_t	solid_hash;
	bool		holes;			/* pieces may be missing */
	BcDcp		dcp;
} Part;

struct BcOpencodeMap
{
	BcStreamTurn *turn;
	char	   *session_id;
	char	   *title;
	json_t	   *below;			/* ids of sessions below it */

	/* Of the turn */
	char	   *prompt_id;
	json_t	   *messages;		/* ids of the agent's messages */
	json_t	   *index;			/* ids of parts: where in "parts" */
	Part	   *parts;
	size_t		nparts;
	size_t		cap;
	const char *last_text;		/* the part that spoke last; NULL: something came behind */
	bool		taken;
	bool		answered;
	bool		in_step;
	int64_t		time;			/* of the event, ms since 1970; 0: unknown */
	json_t	   *early_error;	/* told before the prompt was seen */
};

/* --- reading --- */

static const char *
session_of(const json_t *properties)
{
	static const char *const inside[] = {"info", "part"};
	const char *id = bc_step_string(properties, "sessionID");

	for (size_t i = 0; id == NULL && i < sizeof(inside) / sizeof(inside[0]); i++)
		id = bc_step_string(json_object_get(properties, inside[i]), "sessionID");
	return id;
}

static bool
same(const char *a, const char *b)
{
	return a != NULL && b != NULL && strcmp(a, b) == 0;
}

static bool
is_below(const BcOpencodeMap *map, const char *session)
{
	return session != NULL && json_object_get(map->below, session) != NULL;
}

/* Is it the prompt, or behind it? */
static bool
is_of_turn(const BcOpencodeMap *map, const char *message)
{
	return map->prompt_id != NULL && message != NULL && strcmp(message, map->prompt_id) >= 0;
}

/* --- life --- */

static void
forget_parts(BcOpencodeMap *map)
{
	for (size_t i = 0; i < map->nparts; i++)
	{
		free(map->parts[i].id);
		bc_dcp_free(&map->parts[i].dcp);
	}
	map->nparts = 0;
	map->last_text = NULL;
	json_object_clear(map->index);
}

BcOpencodeMap *
bc_opencode_map_new(void)
{
	BcOpencodeMap *map = bc_alloc(sizeof(BcOpencodeMap));

	map->turn = bc_stream_turn_new("opencode");
	map->below = json_object();
	map->messages = json_object();
	map->index = json_object();
	return map;
}

void
bc_opencode_map_free(BcOpencodeMap *map)
{
	if (map == NULL)
		return;
	forget_parts(map);
	free(map->parts);
	json_decref(map->below);
	json_decref(map->messages);
	json_decref(map->index);
	json_decref(map->early_error);
	free(map->prompt_id);
	free(map->session_id);
	free(map->title);
	bc_stream_turn_free(map->turn);
	free(map);
}

void
bc_opencode_map_session(BcOpencodeMap *map, const char *id)
{
	free(map->session_id);
	map->session_id = bc_strdup(id);
	json_object_clear(map->below);
	bc_step_keep(&map->turn->session_id, id);
}

void
bc_opencode_map_begin(BcOpencodeMap *map, const char *prompt_id)
{
	bc_stream_turn_free(map->turn);
	map->turn = bc_stream_turn_new("opencode");
	bc_step_keep(&map->turn->session_id, map->session_id);
	forget_parts(map);
	json_object_clear(map->messages);
	json_decref(map->early_error);
	map->early_error = NULL;
	free(map->prompt_id);
	map->prompt_id = prompt_id != NULL ? bc_strdup(prompt_id) : NULL;
	map->taken = map->answered = map->in_step = false;
}

/*
 * As opencode makes them: the time in ms with twelve bits for a counter, of
 * which the lower 48 bits, and fourteen characters at random.
 */
char *
bc_opencode_prompt_id(int64_t wall_ms, uint64_t random)
{
	unsigned long long time = ((unsigned long long) wall_ms * 4096 + 1) & ((1ULL << 48) - 1);
	char		tail[15];

	for (int i = 0; i < 14; i++)
	{
		tail[i] = ALPHABET[random % 62];
		random = random / 62 + (random % 62) * HASH_PRIME;
	}
	tail[14] = '\0';
	return bc_asprintf("msg_%012llx%s", time, tail);
}

BcStreamTurn *
bc_opencode_map_turn(const BcOpencodeMap *map)
{
	return map->turn;
}

bool
bc_opencode_map_taken(const BcOpencodeMap *map)
{
	return map->taken;
}

bool
bc_opencode_map_answered(const BcOpencodeMap *map)
{
	return map->taken && (map->answered || map->turn->end != BC_STREAM_OPEN || map->turn->rejected);
}

bool
bc_opencode_map_doubted(const BcOpencodeMap *map)
{
	return map->early_error != NULL;
}

bool
bc_opencode_map_has_below(const BcOpencodeMap *map)
{
	return json_object_size(map->below) > 0;
}

bool
bc_opencode_map_concerns(const BcOpencodeMap *map, const json_t *properties)
{
	const char *session = session_of(properties);
	const char *message = bc_step_string(json_object_get(properties, "tool"), "messageID");

	return (same(session, map->session_id) || is_below(map, session)) &&
		(message == NULL || is_of_turn(map, message));
}

/* --- parts --- */

static Part *
find_part(const BcOpencodeMap *map, const char *id)
{
	const json_t *at = id != NULL ? json_object_get(map->index, id) : NULL;

	return at != NULL ? &map->parts[json_integer_value(at)] : NULL;
}

static Part *
new_part(BcOpencodeMap *map, const char *id)
{
	Part	   *part;

	if (map->nparts >= MAX_PARTS)
		forget_parts(map);
	if (map->nparts == map->cap)
	{
		size_t		cap = map->cap > 0 ? 2 * map->cap : 16;
		Part	   *grown = bc_alloc(cap * sizeof(Part));

		if (map->nparts > 0)
			memcpy(grown, map->parts, map->nparts * sizeof(Part));
		free(map->parts);
		map->parts = grown;
		map->cap = cap;
	}
	part = &map->parts[map->nparts];
	*part = (Part) {.id = bc_strdup(id), .hash = HASH_START, .solid_hash = HASH_START, .dcp = BC_DCP_INIT};
	json_object_set_new_nocheck(map->index, id, json_integer((json_int_t) map->nparts++));
	return part;
}

/* --- text --- */

static uint64_t
hash_of(uint64_t hash, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char) bytes[i]) * HASH_PRIME;
	return hash;
}

/* "text" is without marks. */
static void
say(BcOpencodeMap *map, Part *part, const char *text, size_t len)
{
	json_t	   *said = len > 0 ? json_stringn(text, len) : NULL;

	if (said == NULL)
		return;
	for (size_t i = 0; i < len; i++)
	{
		part->hash = hash_of(part->hash, text + i, 1);
		part->len++;
		if (isspace((unsigned char) text[i]))
			continue;
		part->solid_len = part->len;
		part->solid_hash = part->hash;
	}
	map->last_text = part->id;
	bc_step_text(map->turn, part->kind, part->id, said);
	json_decref(said);
}

static void
say_piece(BcOpencodeMap *map, Part *part, const json_t *delta)
{
	BcBuf		text = BC_BUF_INIT;

	bc_dcp_feed(&part->dcp, json_string_value(delta), json_string_length(delta), &text);
	say(map, part, text.data, text.len);
	bc_buf_free(&text);
}

/* Is the text what was said, but for blanks at its end? */
static bool
is_trimmed(const Part *part, const BcBuf *text)
{
	return text->len < part->len && text->len >= part->solid_len &&
		hash_of(HASH_START, text->data, part->solid_len) == part->solid_hash;
}

/* Text as far as it has come, or "ended": as it stays. */
static void
say_whole(BcOpencodeMap *map, Part *part, const char *whole, size_t len, bool ended)
{
	BcBuf		text = BC_BUF_INIT;
	BcDcp		dcp = BC_DCP_INIT;
	bool		newer;

	bc_buf_str(&text, "");
	bc_dcp_feed(&dcp, whole, len, &text);
	if (ended)
		bc_dcp_end(&dcp, &text);
	newer = text.len >= part->len;
	if (newer && hash_of(HASH_START, text.data, part->len) == part->hash)
		say(map, part, text.data + part->len, text.len - part->len);
	else if (ended && !is_trimmed(part, &text) && same(map->last_text, part->id))
	{
		bc_step_forget_message(map->turn);
		part->len = part->solid_len = 0;
		part->hash = part->solid_hash = HASH_START;
		say(map, part, text.data, text.len);
	}
	bc_buf_free(&text);
	bc_dcp_free(newer ? &part->dcp : &dcp);
	if (newer)
		part->dcp = dcp;
}

static void
text_part(BcOpencodeMap *map, const json_t *value, BcTextKind kind, bool listed, bool at_rest)
{
	const char *id = bc_step_string(value, "id");
	const json_t *text = json_object_get(value, "text");
	bool		ended = at_rest || json_is_number(json_object_get(json_object_get(value, "time"), "end"));
	Part	   *part = find_part(map, id);

	if (id == NULL || !json_is_string(text))
		return;
	if (part == NULL)
	{
		part = new_part(map, id);
		part->kind = kind;
		/* Pieces of it may have come before we listened. */
		part->holes = listed;
	}
	if (part->stage == STAGE_ENDED)
		return;
	if (ended || !listed)
		say_whole(map, part, json_string_value(text), json_string_length(text), ended);
	if (!ended)
		return;
	part->stage = STAGE_ENDED;
	bc_dcp_free(&part->dcp);
}

static void
delta(BcOpencodeMap *map, const json_t *properties)
{
	Part	   *part = find_part(map, bc_step_string(properties, "partID"));
	const json_t *piece = json_object_get(properties, "delta");

	if (part == NULL || part->stage != STAGE_SEEN || part->holes || !json_is_string(piece) ||
		!bc_step_is(properties, "field", "text"))
		return;
	say_piece(map, part, piece);
}

/* --- steps and tools --- */

/* What the call of the model under way has said was for nothing. */
static void
drop_step(BcOpencodeMap *map)
{
	for (size_t i = 0; i < map->nparts; i++)
		if (map->parts[i].stage == STAGE_SEEN)
		{
			map->parts[i].stage = STAGE_ENDED;
			bc_dcp_free(&map->parts[i].dcp);
		}
	map->last_text = NULL;
	bc_step_forget_text(map->turn);
}

/* Is the part seen for the first time? */
static bool
is_new(BcOpencodeMap *map, const json_t *value)
{
	const char *id = bc_step_string(value, "id");

	if (id == NULL || find_part(map, id) != NULL)
		return false;
	new_part(map, id)->stage = STAGE_ENDED;
	return true;
}

static void
step_start(BcOpencodeMap *map, const json_t *value)
{
	if (!is_new(map, value))
		return;
	if (map->in_step)
		drop_step(map);
	map->in_step = true;
}

/* Says what was held back of texts that nobody ended. */
static void
end_texts(BcOpencodeMap *map)
{
	for (size_t i = 0; i < map->nparts; i++)
	{
		Part	   *part = &map->parts[i];
		BcBuf		text = BC_BUF_INIT;

		if (part->stage != STAGE_SEEN)
			continue;
		bc_dcp_end(&part->dcp, &text);
		say(map, part, text.data, text.len);
		bc_buf_free(&text);
	}
}

static void
step_finish(BcOpencodeMap *map, const json_t *value, bool of_below)
{
	BcStepUsage used;

	if (!is_new(map, value))
		return;
	if (bc_opencode_usage(value, &used))
		bc_step_usage_call(map->turn, &used);
	if (of_below)
		return;
	bc_step_keep_text(map->turn);
	map->last_text = NULL;
	map->in_step = false;
	bc_step_keep(&map->turn->stop_reason, bc_opencode_finish(value));
}

static void
tool(BcOpencodeMap *map, const json_t *value)
{
	const char *id = bc_step_string(value, "id");
	const json_t *state = json_object_get(value, "state");
	Part	   *part = find_part(map, id);

	if (id == NULL || bc_step_string(state, "status") == NULL)
		return;
	if (part == NULL)
	{
		part = new_part(map, id);
		part->stage = STAGE_PENDING;
		if (bc_step_is(state, "status", "pending"))
			bc_opencode_tool_begun(map->turn, value, "pending", map->time);
	}
	if (bc_step_is(state, "status", "running") && part->stage < STAGE_RUNNING)
	{
		part->stage = STAGE_RUNNING;
		bc_opencode_tool_begun(map->turn, value, "in_progress", map->time);
	}
	else if ((bc_step_is(state, "status", "completed") || bc_step_is(state, "status", "error")) &&
			 part->stage < STAGE_ENDED)
	{
		map->last_text = NULL;
		if (part->stage == STAGE_RUNNING)
			bc_opencode_tool_ended(map->turn, value);
		else
			bc_opencode_tool(map->turn, value);
		part->stage = STAGE_ENDED;
	}
}

static void
part(BcOpencodeMap *map, const json_t *value, bool listed, bool at_rest)
{
	const char *message = bc_step_string(value, "messageID");

	if (message == NULL || json_object_get(map->messages, message) == NULL)
		return;
	if (bc_step_is(value, "type", "text"))
		text_part(map, value, BC_TEXT, listed, at_rest);
	else if (bc_step_is(value, "type", "reasoning"))
		text_part(map, value, BC_REASONING, listed, at_rest);
	else if (bc_step_is(value, "type", "tool"))
		tool(map, value);
	else if (bc_step_is(value, "type", "step-start"))
		step_start(map, value);
	else if (bc_step_is(value, "type", "step-finish"))
		step_finish(map, value, false);
}

/* --- messages --- */

static void
failed(BcOpencodeMap *map, const json_t *error)
{
	/* It is told several times, and once with where in the program it was. */
	if (map->turn->end == BC_STREAM_FAILED || map->turn->end == BC_STREAM_CANCELLED)
		return;
	if (bc_step_is(error, "name", "MessageAbortedError"))
		map->turn->end = BC_STREAM_CANCELLED;
	else
		bc_opencode_error(map->turn, error);
}

static void
agent_message(BcOpencodeMap *map, const json_t *info)
{
	const char *id = bc_step_string(info, "id");
	const char *parent = bc_step_string(info, "parentID");
	const char *provider = bc_step_string(info, "providerID");
	const char *model = bc_step_string(info, "modelID");
	const char *mode = bc_step_string(info, "agent");
	const char *finish = bc_step_string(info, "finish");

	if (id == NULL || !is_of_turn(map, parent != NULL ? parent : id))
		return;
	map->taken = true;
	if (json_object_get(map->messages, id) == NULL)
	{
		if (json_object_size(map->messages) >= MAX_MESSAGES)
			json_object_clear(map->messages);
		json_object_set_new_nocheck(map->messages, id, json_true());
		map->answered = false;
		if (mode != NULL)
			bc_step_update(map->turn, json_pack("{s:s, s:s}", "sessionUpdate", "current_mode_update",
												"currentModeId", mode));
	}
	if (model != NULL)
	{
		free(map->turn->model);
		map->turn->model = provider != NULL ? bc_asprintf("%s/%s", provider, model) : bc_strdup(model);
	}
	if (json_is_object(json_object_get(info, "error")))
		failed(map, json_object_get(info, "error"));
	else if (json_is_number(json_object_get(json_object_get(info, "time"), "completed")) &&
			 !bc_opencode_goes_on(finish))
	{
		/* An error before it was overcome. */
		map->turn->end = BC_STREAM_OPEN;
		map->answered = true;
		bc_step_keep(&map->turn->stop_reason, finish);
	}
}

static void
message(BcOpencodeMap *map, const json_t *info)
{
	if (bc_step_is(info, "role", "assistant"))
		agent_message(map, info);
	else if (bc_step_is(info, "role", "user") && same(bc_step_string(info, "id"), map->prompt_id))
		map->taken = true;
}

/* --- events --- */

static void
session_changed(BcOpencodeMap *map, const json_t *info)
{
	static const char unnamed[] = "New session - ";
	const char *id = bc_step_string(info, "id");
	const char *parent = bc_step_string(info, "parentID");
	const char *title = bc_step_string(info, "title");

	if (id != NULL && (same(parent, map->session_id) || is_below(map, parent)) &&
		json_object_size(map->below) < MAX_BELOW)
		json_object_set_new_nocheck(map->below, id, json_true());
	else if (same(id, map->session_id) && title != NULL && map->prompt_id != NULL &&
			 !same(title, map->title) && strncmp(title, unnamed, sizeof(unnamed) - 1) != 0)
	{
		bc_step_keep(&map->title, title);
		bc_step_update(map->turn, json_pack("{s:s, s:s}", "sessionUpdate", "session_info_update",
											"title", title));
	}
}

static BcOpencodeNews
status(BcOpencodeMap *map, const json_t *state)
{
	if (bc_step_is(state, "type", "idle"))
		return BC_OPENCODE_IDLE;
	if (bc_step_is(state, "type", "retry") && map->taken)
	{
		drop_step(map);
		map->in_step = false;
		bc_step_retry(map->turn, bc_step_string(state, "message"));
	}
	return BC_OPENCODE_NEWS;
}

static BcOpencodeNews
own_event(BcOpencodeMap *map, const char *type, const json_t *properties)
{
	map->time = json_integer_value(json_object_get(properties, "time"));
	if (strcmp(type, "session.idle") == 0)
		return BC_OPENCODE_IDLE;
	if (strcmp(type, "session.status") == 0)
		return status(map, json_object_get(properties, "status"));
	if (strcmp(type, "message.updated") == 0)
		message(map, json_object_get(properties, "info"));
	else if (strcmp(type, "message.part.updated") == 0)
		part(map, json_object_get(properties, "part"), false, false);
	else if (strcmp(type, "message.part.delta") == 0)
		delta(map, properties);
	else if (strcmp(type, "session.error") == 0 && map->taken)
		failed(map, json_object_get(properties, "error"));
	else if (strcmp(type, "session.error") == 0 && map->early_error == NULL && map->prompt_id != NULL)
		map->early_error = json_incref(json_object_get(properties, "error"));
	return BC_OPENCODE_NEWS;
}

BcOpencodeNews
bc_opencode_map_event(BcOpencodeMap *map, const json_t *event)
{
	const char *type = bc_step_string(event, "type");
	const json_t *properties = json_object_get(event, "properties");
	const char *session = session_of(properties);

	if (type == NULL || map->session_id == NULL)
		return BC_OPENCODE_NO_NEWS;
	if (strcmp(type, "session.created") == 0 || strcmp(type, "session.updated") == 0)
	{
		session_changed(map, json_object_get(properties, "info"));
		return BC_OPENCODE_NO_NEWS;
	}
	if (same(session, map->session_id))
		return own_event(map, type, properties);
	if (!is_below(map, session))
		return BC_OPENCODE_NO_NEWS;
	if (strcmp(type, "message.part.updated") == 0 && map->prompt_id != NULL &&
		bc_step_is(json_object_get(properties, "part"), "type", "step-finish") &&
		is_of_turn(map, bc_step_string(json_object_get(properties, "part"), "messageID")))
		step_finish(map, json_object_get(properties, "part"), true);
	return BC_OPENCODE_NEWS;
}

void
bc_opencode_map_missed(BcOpencodeMap *map)
{
	for (size_t i = 0; i < map->nparts; i++)
		if (map->parts[i].stage == STAGE_SEEN)
			map->parts[i].holes = true;
}

void
bc_opencode_map_messages(BcOpencodeMap *map, const json_t *list, bool at_rest)
{
	size_t		i;
	json_t	   *item;

	map->time = 0;
	json_array_foreach((json_t *) list, i, item)
	{
		size_t		k;
		json_t	   *value;

		message(map, json_object_get(item, "info"));
		json_array_foreach(json_object_get(item, "parts"), k, value)
			part(map, value, true, at_rest);
	}
}

void
bc_opencode_map_end(BcOpencodeMap *map)
{
	end_texts(map);
	if (map->turn->end == BC_STREAM_OPEN && !map->answered && !map->turn->rejected &&
		map->early_error != NULL)
		bc_opencode_error(map->turn, map->early_error);
	if (map->turn->end != BC_STREAM_OPEN)
		return;
	if (map->answered || map->turn->rejected)
		bc_opencode_judge(map->turn, map->turn->rejected);
	else
		bc_step_failed(map->turn, NULL, "the agent ended without an answer");
}
