/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_opencode_map.c
 *	  Any events and lists of messages of opencode serve, one a line, become
 *	  messages the database takes; a list that is told again adds no text.
 */
#include "fuzz.h"

#include "runner/line.h"
#include "runner/opencode_map.h"
#include "runner/stream.h"
#include "runner/stream_apply.h"
#include "runner/text.h"
#include "runner/up.h"

static BcAcpMap *acp;

/* Takes the place of up.c. */
void
bc_up_send(BcFrameType type, const char *payload, size_t len)
{
	json_t	   *message = json_loadb(payload, len, 0, NULL);

	REQUIRE(type == BC_FRAME_EVENTS && json_is_object(message) && len <= BC_MESSAGE_MAX);
	json_decref(message);
}

static void
require_no_text(const json_t *steps)
{
	size_t		i;
	json_t	   *step;

	json_array_foreach((json_t *) steps, i, step)
	{
		const json_t *content = json_object_get(json_object_get(step, "update"), "content");

		REQUIRE(json_string_length(json_object_get(content, "text")) == 0);
	}
}

static void
read_line(const char *line, size_t len, void *arg)
{
	BcOpencodeMap *map = arg;
	json_t	   *value = bc_text_parse(line, len);

	if (json_is_array(value))
	{
		bc_opencode_map_messages(map, value, len % 2 == 0);
		bc_stream_apply(bc_opencode_map_turn(map), acp, 1);
		bc_opencode_map_messages(map, value, false);
		require_no_text(bc_opencode_map_turn(map)->steps);
	}
	else if (len == 1 && line[0] == '!')
		bc_opencode_map_missed(map);
	else
		(void) bc_opencode_map_event(map, value);
	bc_stream_apply(bc_opencode_map_turn(map), acp, 1);
	REQUIRE(json_array_size(bc_opencode_map_turn(map)->steps) == 0);
	json_decref(value);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	BcOpencodeMap *map = bc_opencode_map_new();
	BcLines		lines;

	acp = bc_acp_map_new();
	bc_stream_holds_text(true);
	bc_opencode_map_session(map, "ses_1");
	bc_opencode_map_begin(map, "msg_500");
	bc_lines_init(&lines, 0);
	bc_lines_feed(&lines, (const char *) data, size, read_line, map);
	bc_lines_end(&lines, read_line, map);
	bc_opencode_map_end(map);
	REQUIRE(bc_opencode_map_turn(map)->end != BC_STREAM_OPEN);
	bc_stream_apply(bc_opencode_map_turn(map), acp, 1);
	json_decref(bc_acp_map_end(acp, size % 2 == 0, 3));
	bc_stream_flush(true);
	bc_lines_free(&lines);
	bc_acp_map_free(acp);
	bc_opencode_map_free(map);
	return 0;
}
