/* SPDX-License-Identifier: PostgreSQL */
/*
 * payload.c
 *	  Keeps what an agent sends within the size of an event or a part.
 */
#include <stdbool.h>
#include <string.h>

#include "runner/payload.h"
#include "runner/text.h"

#define MAX_DEPTH 128
#define SCALAR_SIZE 24			/* enough for any number */
#define MEMBER_EXTRA 4			/* quotes, colon, comma */
#define SMALL 1024				/* members that are kept whatever the others are */

static size_t
size_of(const json_t *value, int depth)
{
	size_t		size = 2;
	const char *key;
	json_t	   *member;
	size_t		i;

	if (depth > MAX_DEPTH)
		return SCALAR_SIZE;
	switch (json_typeof(value))
	{
		case JSON_OBJECT:
			json_object_foreach((json_t *) value, key, member)
				size += strlen(key) + MEMBER_EXTRA + size_of(member, depth + 1);
			return size;
		case JSON_ARRAY:
			json_array_foreach(value, i, member)
				size += 1 + size_of(member, depth + 1);
			return size;
		case JSON_STRING:
			return size + json_string_length(value);
		case JSON_INTEGER:
		case JSON_REAL:
		case JSON_TRUE:
		case JSON_FALSE:
		case JSON_NULL:
			break;
	}
	return SCALAR_SIZE;
}

size_t
bc_payload_size(const json_t *value)
{
	return size_of(value, 0);
}

static bool
take(size_t *budget, size_t size)
{
	if (size > *budget)
	{
		*budget = 0;
		return false;
	}
	*budget -= size;
	return true;
}

/* As much of "value" as the budget allows, or NULL when that is nothing. */
static json_t *
copy_within(const json_t *value, size_t *budget, int depth)
{
	json_t	   *copy;
	const char *key;
	json_t	   *member;
	size_t		i;

	if (!take(budget, 2) || depth > MAX_DEPTH)
		return NULL;
	switch (json_typeof(value))
	{
		case JSON_OBJECT:
			copy = json_object();
			json_object_foreach((json_t *) value, key, member)
			{
				if (!take(budget, strlen(key) + MEMBER_EXTRA))
					break;
				member = copy_within(member, budget, depth + 1);
				if (member != NULL)
					json_object_set_new_nocheck(copy, key, member);
			}
			return copy;
		case JSON_ARRAY:
			copy = json_array();
			json_array_foreach(value, i, member)
			{
				member = copy_within(member, budget, depth + 1);
				if (member == NULL)
					break;
				json_array_append_new(copy, member);
			}
			return copy;
		case JSON_STRING:
			{
				const char *text = json_string_value(value);
				size_t		len = json_string_length(value);
				size_t		keep = bc_text_cut(text, len, *budget);

				*budget = keep < len ? 0 : *budget - len;
				return json_stringn_nocheck(text, keep);
			}
		case JSON_INTEGER:
		case JSON_REAL:
		case JSON_TRUE:
		case JSON_FALSE:
		case JSON_NULL:
			break;
	}
	return take(budget, SCALAR_SIZE) ? json_incref((json_t *) value) : NULL;
}

json_t *
bc_payload_limit(json_t *payload, size_t max)
{
	size_t		size = bc_payload_size(payload);
	size_t		budget = max;
	size_t		large = 0;
	json_t	   *copy;
	const char *key;
	json_t	   *member;

	if (size <= max)
		return payload;
	copy = json_object();
	json_object_foreach(payload, key, member)
	{
		size_t		need = strlen(key) + MEMBER_EXTRA + bc_payload_size(member);

		if (need > SMALL)
			large++;
		else if (take(&budget, need))
			json_object_set_nocheck(copy, key, member);
	}
	json_object_foreach(payload, key, member)
	{
		size_t		overhead = strlen(key) + MEMBER_EXTRA;
		size_t		share;

		if (overhead + bc_payload_size(member) <= SMALL)
			continue;
		share = budget / large--;
		if (share <= overhead)
			continue;
		budget -= share;
		share -= overhead;
		member = copy_within(member, &share, 1);
		budget += share;
		if (member != NULL)
			json_object_set_new_nocheck(copy, key, member);
	}
	json_object_set_new(copy, "truncated", json_true());
	json_object_set_new(copy, "bytes", json_integer((json_int_t) size));
	json_decref(payload);
	return copy;
}
