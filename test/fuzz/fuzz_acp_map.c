/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_acp_map.c
 *	  Any reports of an agent, one a line, become messages the database takes.
 */
#include "fuzz.h"

#include <stdlib.h>

#include "runner/acp_map.h"
#include "runner/line.h"
#include "runner/llm_error.h"
#include "runner/stream.h"
#include "runner/text.h"
#include "runner/up.h"

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
report(const char *line, size_t len, void *arg)
{
	json_t	   *value = bc_text_parse(line, len);

	bc_acp_map_update(arg, value, 1);
	bc_acp_map_tool_call(arg, json_object_get(value, "toolCall"), 2);
	json_decref(bc_acp_map_known(arg, json_object_get(value, "toolCall")));
	if (json_object_get(value, "stopReason") != NULL)
		bc_acp_map_result(arg, value);
	REQUIRE(bc_llm_error_rpc(value) != NULL);
	json_decref(value);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const agents[] = {"", "opencode", "codex", "goose"};
	BcAcpMap   *map = bc_acp_map_new();
	BcLines		lines;
	char	   *error;

	bc_acp_map_agent(map, agents[size % (sizeof(agents) / sizeof(agents[0]))]);
	bc_lines_init(&lines, 0);
	bc_lines_feed(&lines, (const char *) data, size, report, map);
	bc_lines_end(&lines, report, map);
	error = bc_acp_map_error(map);
	if (error != NULL)
		REQUIRE(bc_llm_error(0, error) != NULL);
	free(error);
	json_decref(bc_acp_map_end(map, size % 2 == 0, 3));
	bc_stream_flush(true);
	bc_lines_free(&lines);
	bc_acp_map_free(map);
	return 0;
}
