/* SPDX-License-Identifier: PostgreSQL */
/*
 * command_line.c
 *	  The command of an order with its placeholders filled in.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/command_line.h"

#define MAX_PROMPT (100 * 1024) /* the kernel takes no argument over 128 kB */

static const struct
{
	const char *placeholder;
	const char *key;			/* of the order */
	bool		is_prompt;
	bool		of_resume;		/* in that part of it */
}			values[] = {
	{"{prompt}", "input", true, false},
	{"{model}", "model", false, false},
	{"{mode}", "mode", false, false},
	{"{session}", "session_id", false, true},
};

#define NVALUES (sizeof(values) / sizeof(values[0]))

/* The index in values of the placeholder that the element is; NVALUES when it is none. */
static size_t
placeholder(const json_t *element)
{
	const char *text = json_string_value(element);
	size_t		i = 0;

	while (i < NVALUES && (text == NULL || strcmp(text, values[i].placeholder) != 0))
		i++;
	return i;
}

/* What the order has for it, as an argument; NULL when there is nothing. */
static json_t *
value_of(const json_t *order, size_t which)
{
	const char *text = json_string_value(json_object_get(values[which].of_resume ? json_object_get(order, "resume") : order,
														 values[which].key));
	char	   *shielded;
	json_t	   *value;

	if (text == NULL || (values[which].is_prompt && strlen(text) > MAX_PROMPT))
		return NULL;
	if (!values[which].is_prompt)
		return text[0] != '\0' && text[0] != '-' ? json_string(text) : NULL;
	if (text[0] != '-')
		return json_string(text);
	shielded = bc_asprintf(" %s", text);
	value = json_string(shielded);
	free(shielded);
	return value;
}

/* Could a value follow it? */
static bool
is_option(const json_t *element)
{
	const char *text = json_string_value(element);

	return text != NULL && text[0] == '-' && text[1] != '\0' && strcmp(text, "--") != 0 &&
		strchr(text, '=') == NULL;
}

json_t *
bc_command_line(const json_t *order)
{
	const json_t *command = json_object_get(order, "command");
	json_t	   *line;
	size_t		i;
	json_t	   *element;

	if (!json_is_array(command))
		return NULL;
	line = json_array();
	json_array_foreach(command, i, element)
	{
		size_t		which = placeholder(element);
		size_t		n = json_array_size(line);
		json_t	   *value = which < NVALUES ? value_of(order, which) : json_incref(element);

		if (value != NULL)
			json_array_append_new(line, value);
		/* An option of the command itself, not a value that was filled in */
		else if (i > 0 && n > 0 && placeholder(json_array_get(command, i - 1)) == NVALUES &&
				 is_option(json_array_get(line, n - 1)))
			json_array_remove(line, n - 1);
	}
	return line;
}

bool
bc_command_has_prompt(const json_t *order)
{
	size_t		i;
	json_t	   *element;

	json_array_foreach(json_object_get(order, "command"), i, element)
	{
		size_t		which = placeholder(element);
		json_t	   *value;

		if (which == NVALUES || !values[which].is_prompt)
			continue;
		value = value_of(order, which);
		json_decref(value);
		return value != NULL;
	}
	return false;
}

bool
bc_command_has_option(const json_t *order, const char *option, const char *value)
{
	const json_t *command = json_object_get(order, "command");
	size_t		len = strlen(option);
	size_t		i;
	json_t	   *element;

	json_array_foreach((json_t *) command, i, element)
	{
		const char *text = json_string_value(element);
		const char *next = json_string_value(json_array_get(command, i + 1));

		if (text == NULL || strncmp(text, option, len) != 0)
			continue;
		if (text[len] == '=' && strcmp(text + len + 1, value) == 0)
			return true;
		if (text[len] == '\0' && next != NULL && strcmp(next, value) == 0)
			return true;
	}
	return false;
}
