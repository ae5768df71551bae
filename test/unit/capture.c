/* SPDX-License-Identifier: PostgreSQL */
/*
 * capture.c
 *	  Takes the place of up.c: what the stream sends is kept for the test.
 */
#include "unit.h"

#include "capture.h"
#include "runner/stream.h"
#include "runner/up.h"

static json_t *events;
static json_t *parts;

void
bc_up_send(BcFrameType type, const char *payload, size_t len)
{
	json_error_t error;
	json_t	   *message = json_loadb(payload, len, 0, &error);

	assert_int_equal(type, BC_FRAME_EVENTS);
	if (message == NULL)
		fail_msg("what was sent is no JSON the database takes: %s", error.text);
	json_array_extend(events, json_object_get(message, "events"));
	json_array_extend(parts, json_object_get(message, "parts"));
	json_decref(message);
}

void
capture_reset(void)
{
	bc_stream_end_text();
	if (events != NULL)
		bc_stream_flush(true);
	json_decref(events);
	json_decref(parts);
	events = json_array();
	parts = json_array();
}

const json_t *
capture_events(void)
{
	bc_stream_flush(true);
	return events;
}

const json_t *
capture_parts(void)
{
	size_t		i;
	json_t	   *part;

	bc_stream_flush(true);
	json_array_foreach(parts, i, part)
		json_object_del(part, "seq");
	return parts;
}

const json_t *
capture_find(const json_t *list, const char *kind, size_t n)
{
	size_t		i;
	json_t	   *entry;

	json_array_foreach(list, i, entry)
		if (strcmp(json_string_value(json_object_get(entry, "kind")), kind) == 0 && n-- == 0)
			return json_object_get(entry, "payload");
	return NULL;
}

size_t
capture_count(const json_t *list, const char *kind)
{
	size_t		n = 0;

	while (capture_find(list, kind, n) != NULL)
		n++;
	return n;
}

json_t *
json_of(const char *text)
{
	char	   *copy = strdup(text);
	json_error_t error;
	json_t	   *value;

	for (char *at = copy; *at != '\0'; at++)
		if (*at == '\'')
			*at = '"';
	value = json_loads(copy, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
	if (value == NULL)
		fail_msg("%s: %s", copy, error.text);
	free(copy);
	return value;
}

void
assert_json(const json_t *value, const char *expected)
{
	json_t	   *wanted = json_of(expected);

	if (value == NULL || !json_equal(value, wanted))
	{
		char	   *have = value != NULL ? json_dumps(value, JSON_ENCODE_ANY) : NULL;

		fail_msg("have %s\n     want %s", have != NULL ? have : "nothing", expected);
	}
	json_decref(wanted);
}
