/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_map.c
 *	  The dialects, and which of them an agent speaks.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/stream_map.h"

static const struct
{
	const char *kind;
	const BcStreamDialect *dialect;
}			kinds[] = {
	{"claude", &bc_stream_claude},
	{"qwen", &bc_stream_claude},
	{"pi", &bc_stream_pi},
	{"codex", &bc_stream_codex},
	{"gemini", &bc_stream_gemini},
	{"goose", &bc_stream_goose},
	{"opencode", &bc_stream_opencode},
};

#define NKINDS (sizeof(kinds) / sizeof(kinds[0]))

BcStreamTurn *
bc_stream_turn_new(const char *kind)
{
	BcStreamTurn *turn = bc_alloc(sizeof(BcStreamTurn));

	turn->steps = json_array();
	for (size_t i = 0; kind != NULL && i < NKINDS; i++)
		if (strcmp(kind, kinds[i].kind) == 0)
			turn->dialect = kinds[i].dialect;
	return turn;
}

void
bc_stream_turn_free(BcStreamTurn *turn)
{
	if (turn == NULL)
		return;
	json_decref(turn->steps);
	free(turn->session_id);
	free(turn->model);
	free(turn->version);
	free(turn->stop_reason);
	free(turn->error);
	free(turn->said);
	free(turn->said_id);
	free(turn);
}

bool
bc_stream_turn_line(BcStreamTurn *turn, const json_t *line)
{
	if (!json_is_object(line))
		return false;
	for (size_t i = 0; turn->dialect == NULL && i < NKINDS; i++)
		if (kinds[i].dialect->speaks(line))
			turn->dialect = kinds[i].dialect;
	if (turn->dialect == NULL)
		return false;
	turn->dialect->line(turn, line);
	return true;
}

void
bc_stream_turn_exited(BcStreamTurn *turn, int code, const char *errors)
{
	if (turn->end == BC_STREAM_OPEN && turn->dialect != NULL && turn->dialect->exited != NULL)
		turn->dialect->exited(turn, code, errors);
}
