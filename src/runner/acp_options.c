/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_options.c
 *	  What to choose where an ACP agent offers a choice.
 */
#include <stdbool.h>
#include <string.h>

#include "runner/acp_options.h"

static const char *
text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static bool
is(const json_t *object, const char *key, const char *text)
{
	const char *value = text_of(object, key);

	return value != NULL && strcmp(value, text) == 0;
}

/* The first member of the list whose "key" is "text", or NULL. */
static const json_t *
find(const json_t *list, const char *key, const char *text)
{
	size_t		i;
	json_t	   *member;

	json_array_foreach(list, i, member)
		if (is(member, key, text))
			return member;
	return NULL;
}

const json_t *
bc_acp_option(const json_t *config_options, const char *category)
{
	const json_t *option = find(config_options, "category", category);

	if (option == NULL)
		option = find(config_options, "id", category);
	return text_of(option, "id") != NULL ? option : NULL;
}

/* Options come as a list, or as a list of groups of them. */
static const json_t *
find_choice(const json_t *choices, const char *key, const char *text)
{
	const json_t *choice = find(choices, key, text);
	size_t		i;
	json_t	   *group;

	json_array_foreach(choices, i, group)
	{
		if (choice != NULL)
			break;
		choice = find(json_object_get(group, "options"), key, text);
	}
	return choice;
}

/* Counts the values among the choices that end in "/wanted"; the last of them is *found. */
static size_t
count_unprefixed(const json_t *choices, const char *wanted, const char **found)
{
	size_t		n = 0;
	size_t		i;
	json_t	   *choice;

	json_array_foreach(choices, i, choice)
	{
		const char *value = text_of(choice, "value");
		size_t		len = value != NULL ? strlen(value) : 0;

		n += count_unprefixed(json_object_get(choice, "options"), wanted, found);
		if (len <= strlen(wanted) || strcmp(value + len - strlen(wanted), wanted) != 0 ||
			value[len - strlen(wanted) - 1] != '/')
			continue;
		*found = value;
		n++;
	}
	return n;
}

const char *
bc_acp_option_value(const json_t *option, const char *wanted)
{
	const json_t *choices = json_object_get(option, "options");
	const json_t *choice = find_choice(choices, "value", wanted);
	const char *value;

	if (choice == NULL)
		choice = find_choice(choices, "name", wanted);
	value = text_of(choice, "value");
	if (value == NULL && strchr(wanted, '/') == NULL &&
		count_unprefixed(choices, wanted, &value) != 1)
		value = NULL;
	return value != NULL ? value : wanted;
}

const char *
bc_acp_current_model(const json_t *result)
{
	const json_t *option = bc_acp_option(json_object_get(result, "configOptions"), "model");
	const char *model = text_of(option, "currentValue");

	return model != NULL ? model : text_of(json_object_get(result, "models"), "currentModelId");
}
