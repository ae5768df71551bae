/* SPDX-License-Identifier: PostgreSQL */
/*
 * models.c
 *	  A list of models, out of the forms in which they are named.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/models.h"
#include "runner/text.h"

static const char *
text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

void
bc_models_init(BcModels *models)
{
	*models = (BcModels) {json_array(), json_object()};
}

void
bc_models_free(BcModels *models)
{
	json_decref(models->list);
	json_decref(models->seen);
	*models = (BcModels) {NULL, NULL};
}

/* Text on one line that says something */
static bool
is_label(const char *text, size_t len)
{
	if (len == 0 || text[0] == ' ' || !bc_text_is_clean(text, len))
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char) text[i] < 0x20 || text[i] == 0x7f)
			return false;
	return true;
}

static void
add(BcModels *models, const char *prefix, const char *id, size_t len, const char *name)
{
	BcBuf		full = BC_BUF_INIT;
	size_t		keep;

	if (json_array_size(models->list) >= BC_MODELS_MAX || len > BC_MODELS_TEXT)
		return;
	if (prefix != NULL)
		bc_buf_str(&full, prefix);
	bc_buf_add(&full, id, len);
	if (is_label(id, len) && full.len <= BC_MODELS_TEXT && is_label(full.data, full.len) &&
		json_object_get(models->seen, full.data) == NULL)
	{
		json_object_set_new(models->seen, full.data, json_true());
		if (name == NULL || !is_label(name, strlen(name)))
			name = full.data + full.len - len;
		keep = bc_text_cut(name, strlen(name), BC_MODELS_TEXT);
		json_array_append_new(models->list, json_pack("{s:s, s:s%}", "id", full.data,
													  "name", name, keep));
	}
	bc_buf_free(&full);
}

void
bc_models_add(BcModels *models, const char *prefix, const char *id, const char *name)
{
	if (id != NULL)
		add(models, prefix, id, strlen(id), name);
}

/* One of a list: {"id", "name"}, or just the id. */
static void
add_item(BcModels *models, const char *prefix, const json_t *item)
{
	const char *name = text_of(item, "name");
	const char *id = json_is_string(item) ? json_string_value(item) : text_of(item, "id");

	/* Some servers know the id by another word. */
	if (id == NULL)
		id = text_of(item, "model");
	bc_models_add(models, prefix, id != NULL ? id : name, name);
}

static void
add_items(BcModels *models, const char *prefix, const json_t *list)
{
	size_t		i;
	json_t	   *item;

	json_array_foreach(list, i, item)
		add_item(models, prefix, item);
}

bool
bc_models_add_answer(BcModels *models, const char *prefix, const char *text, size_t len)
{
	json_t	   *root = bc_text_parse(text, len);
	const json_t *list = json_is_array(root) ? root : json_object_get(root, "data");
	bool		found;

	if (list == NULL)
		list = json_object_get(root, "models");
	found = json_is_array(list);
	add_items(models, prefix, list);
	json_decref(root);
	return found;
}

/* The word at *at, which goes behind it; its length, 0 at the end. */
static size_t
next_word(const char *line, size_t len, size_t *at, const char **word)
{
	size_t		start;

	while (*at < len && (line[*at] == ' ' || line[*at] == '\t'))
		(*at)++;
	start = *at;
	while (*at < len && line[*at] != ' ' && line[*at] != '\t')
		(*at)++;
	*word = line + start;
	return *at - start;
}

void
bc_models_add_plain(BcModels *models, const char *line, size_t len)
{
	const char *word;
	const char *more;
	size_t		at = 0;
	size_t		n = next_word(line, len, &at, &word);

	/* Anything else is a message to a person. */
	if (n > 0 && next_word(line, len, &at, &more) == 0 && memchr(word, '/', n) != NULL)
		add(models, NULL, word, n, NULL);
}

static bool
is_word(const char *word, size_t len, const char *text)
{
	return len == strlen(text) && memcmp(word, text, len) == 0;
}

void
bc_models_add_row(BcModels *models, const char *line, size_t len, bool *in_table)
{
	const char *provider;
	const char *model;
	size_t		at = 0;
	size_t		np = next_word(line, len, &at, &provider);
	size_t		nm = next_word(line, len, &at, &model);

	if (np == 0 || nm == 0)
		return;
	if (!*in_table)
	{
		*in_table = is_word(provider, np, "provider") && is_word(model, nm, "model");
		return;
	}
	if (np + nm < BC_MODELS_TEXT)
	{
		char	   *id = bc_asprintf("%.*s/%.*s", (int) np, provider, (int) nm, model);
		char	   *name = bc_asprintf("%.*s", (int) nm, model);

		bc_models_add(models, NULL, id, name);
		free(name);
		free(id);
	}
}

/* Appends JSON without the comments of its relaxed form. */
static void
strip_comments(BcBuf *out, const char *text, size_t len)
{
	size_t		from = 0;

	for (size_t i = 0; i < len; i++)
	{
		const char *end;

		if (text[i] == '"')
		{
			for (i++; i < len && text[i] != '"'; i++)
				if (text[i] == '\\')
					i++;
			continue;
		}
		if (text[i] != '/' || i + 1 >= len || (text[i + 1] != '/' && text[i + 1] != '*'))
			continue;
		bc_buf_add(out, text + from, i - from);
		if (text[i + 1] == '/')
			end = memchr(text + i, '\n', len - i);
		else
		{
			end = memmem(text + i + 2, len - i - 2, "*/", 2);
			end = end != NULL ? end + 2 : NULL;
		}
		from = end != NULL ? (size_t) (end - text) : len;
		i = from > 0 ? from - 1 : 0;
	}
	bc_buf_add(out, text + from, len - from);
}

char *
bc_models_add_settings(BcModels *models, const char *text, size_t len)
{
	BcBuf		plain = BC_BUF_INIT;
	const char *current;
	const char *kind;
	char	   *copy;
	json_t	   *root;
	json_t	   *provider;

	strip_comments(&plain, text, len);
	root = bc_text_parse(plain.data, plain.len);
	bc_buf_free(&plain);
	current = text_of(json_object_get(root, "model"), "name");
	if (current == NULL)
		current = text_of(root, "model");
	json_object_foreach(json_object_get(root, "modelProviders"), kind, provider)
	{
		add_items(models, NULL, provider);
		add_items(models, NULL, json_object_get(provider, "models"));
	}
	bc_models_add(models, NULL, current, NULL);
	copy = current != NULL ? bc_strdup(current) : NULL;
	json_decref(root);
	return copy;
}

void
bc_models_add_claude(BcModels *models)
{
	static const char *const aliases[][2] = {
		{"default", "Default"}, {"sonnet", "Sonnet"}, {"opus", "Opus"}, {"haiku", "Haiku"}
	};

	for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
		bc_models_add(models, NULL, aliases[i][0], aliases[i][1]);
}
