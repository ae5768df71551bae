/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_offer.c
 *	  What an ACP agent offers, in one form.
 */
#include <stdbool.h>
#include <string.h>

#include "runner/acp_offer.h"
#include "runner/acp_options.h"
#include "runner/text.h"

#define MAX_ENTRIES 500			/* of a list */
#define MAX_NAME 200			/* bytes */
#define MAX_DESCRIPTION 1000

static const char *
text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static json_t *
limited(const char *text, size_t max)
{
	return text != NULL ? json_stringn(text, bc_text_cut(text, strlen(text), max)) : json_null();
}

/* --- models --- */

/* Agents that have options take only those; "models" is what there was before. */
void
bc_acp_offer_models(BcModels *models, const json_t *session)
{
	const json_t *option = bc_acp_option(json_object_get(session, "configOptions"), "model");
	const json_t *choices = json_object_get(option, "options");
	const json_t *older = json_object_get(json_object_get(session, "models"), "availableModels");
	size_t		i;
	size_t		k;
	json_t	   *choice;
	json_t	   *member;

	json_array_foreach(choices, i, choice)
	{
		bc_models_add(models, NULL, text_of(choice, "value"), text_of(choice, "name"));
		json_array_foreach(json_object_get(choice, "options"), k, member)
			bc_models_add(models, NULL, text_of(member, "value"), text_of(member, "name"));
	}
	if (json_array_size(choices) > 0)
		return;
	json_array_foreach(older, i, choice)
		bc_models_add(models, NULL, text_of(choice, "modelId"), text_of(choice, "name"));
}

/* --- modes --- */

static void
add_mode(json_t *list, const char *id, const json_t *from)
{
	const char *name = text_of(from, "name");

	if (id == NULL || id[0] == '\0' || strlen(id) > MAX_NAME ||
		json_array_size(list) >= MAX_ENTRIES)
		return;
	json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "id", id,
										  "name", limited(name != NULL ? name : id, MAX_NAME),
										  "description",
										  limited(text_of(from, "description"), MAX_DESCRIPTION)));
}

static const json_t *
mode_option(const json_t *session)
{
	return bc_acp_option(json_object_get(session, "configOptions"), "mode");
}

json_t *
bc_acp_offer_modes(const json_t *session)
{
	const json_t *choices = json_object_get(mode_option(session), "options");
	const json_t *older = json_object_get(json_object_get(session, "modes"), "availableModes");
	json_t	   *list = json_array();
	size_t		i;
	size_t		k;
	json_t	   *choice;
	json_t	   *member;

	json_array_foreach(choices, i, choice)
	{
		add_mode(list, text_of(choice, "value"), choice);
		json_array_foreach(json_object_get(choice, "options"), k, member)
			add_mode(list, text_of(member, "value"), member);
	}
	if (json_array_size(choices) > 0)
		return list;
	json_array_foreach(older, i, choice)
		add_mode(list, text_of(choice, "id"), choice);
	return list;
}

const char *
bc_acp_offer_mode(const json_t *session)
{
	const char *mode = text_of(mode_option(session), "currentValue");

	return mode != NULL ? mode : text_of(json_object_get(session, "modes"), "currentModeId");
}

/* --- commands, ways to sign in --- */

json_t *
bc_acp_offer_commands(const json_t *update)
{
	json_t	   *list = json_array();
	size_t		i;
	json_t	   *command;

	json_array_foreach(json_object_get(update, "availableCommands"), i, command)
	{
		const char *name = text_of(command, "name");
		const char *hint = text_of(json_object_get(command, "input"), "hint");

		if (name == NULL || name[0] == '\0' || json_array_size(list) >= MAX_ENTRIES)
			continue;
		json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "name", limited(name, MAX_NAME),
											  "description",
											  limited(text_of(command, "description"),
													  MAX_DESCRIPTION),
											  "hint", limited(hint, MAX_NAME)));
	}
	return list;
}

json_t *
bc_acp_offer_auth(const json_t *initialized)
{
	static const char *const fields[] = {"id", "name", "description", "type"};
	json_t	   *list = json_array();
	size_t		i;
	json_t	   *method;

	json_array_foreach(json_object_get(initialized, "authMethods"), i, method)
	{
		json_t	   *entry = json_object();

		for (size_t k = 0; k < sizeof(fields) / sizeof(fields[0]); k++)
			if (text_of(method, fields[k]) != NULL)
				json_object_set_new(entry, fields[k],
									limited(text_of(method, fields[k]), MAX_DESCRIPTION));
		if (text_of(entry, "id") == NULL || json_array_size(list) >= MAX_ENTRIES)
			json_decref(entry);
		else
			json_array_append_new(list, entry);
	}
	return list;
}

char *
bc_acp_offer_hint(const json_t *auth_methods)
{
	BcBuf		hint = BC_BUF_INIT;
	size_t		i;
	json_t	   *method;

	bc_buf_str(&hint, "Sign the agent in, or give its provider the key it needs (env).");
	json_array_foreach(auth_methods, i, method)
	{
		const char *name = text_of(method, "name");
		const char *description = text_of(method, "description");

		bc_buf_str(&hint, i == 0 ? " It offers: " : ", ");
		if (description == NULL)
			description = text_of(method, "id");
		if (name != NULL)
			bc_buf_printf(&hint, "%s (%s)", name, description);
		else
			bc_buf_str(&hint, description);
	}
	if (i > 0)
		bc_buf_str(&hint, ".");
	return hint.data;
}
