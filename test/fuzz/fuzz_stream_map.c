/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_stream_map.c
 *	  Any lines of a one-shot agent become messages the database takes, in every
 *	  dialect: the first byte says which.
 */
#include "fuzz.h"

#include "runner/line.h"
#include "runner/stream.h"
#include "runner/stream_apply.h"
#include "runner/text.h"
#include "runner/up.h"

static BcAcpMap *map;

/* Takes the place of up.c. */
void
bc_up_send(BcFrameType type, const char *payload, size_t len)
{
	json_t	   *message = json_loadb(payload, len, 0, NULL);

	REQUIRE(type == BC_FRAME_EVENTS && json_is_object(message) && len <= BC_MESSAGE_MAX);
	REQUIRE(memmem(payload, len, "\\u0000", 6) == NULL || memmem(payload, len, "\\\\u0000", 7) != NULL);
	json_decref(message);
}

static void
read_line(const char *line, size_t len, void *arg)
{
	BcStreamTurn *turn = arg;
	json_t	   *value = bc_text_parse(line, len);

	(void) bc_stream_turn_line(turn, value);
	bc_stream_apply(turn, map, 1);
	REQUIRE(json_array_size(turn->steps) == 0);
	json_decref(value);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const kinds[] = {NULL, "claude", "pi", "codex", "gemini", "goose", "opencode"};
	size_t		which = size > 0 && data[0] >= '0' && data[0] <= '6' ? (size_t) (data[0] - '0') : 0;
	BcStreamTurn *turn = bc_stream_turn_new(kinds[which]);
	BcLines		lines;

	map = bc_acp_map_new();
	bc_lines_init(&lines, 0);
	if (size > 0)
		bc_lines_feed(&lines, (const char *) data + 1, size - 1, read_line, turn);
	bc_lines_end(&lines, read_line, turn);
	bc_stream_turn_exited(turn, (int) (size % 2), "auto-rejecting");
	REQUIRE((turn->end == BC_STREAM_OPEN) <= !turn->over);
	json_decref(bc_acp_map_end(map, size % 2 == 0, 3));
	bc_stream_flush(true);
	bc_lines_free(&lines);
	bc_acp_map_free(map);
	bc_stream_turn_free(turn);
	return 0;
}
