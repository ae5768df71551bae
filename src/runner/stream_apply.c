/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_apply.c
 *	  Steps become events and parts.
 */
#include <string.h>

#include "runner/payload.h"
#include "runner/stream.h"
#include "runner/stream_apply.h"

static void
report(void (*send) (const char *kind, json_t *payload), const json_t *what)
{
	json_t	   *payload = json_incref(json_object_get(what, "payload"));

	send(json_string_value(json_object_get(what, "kind")), bc_payload_limit(payload, BC_PAYLOAD_EVENT));
}

static void
apply(BcAcpMap *map, const json_t *step, int64_t now_ms)
{
	const char *key = json_object_iter_key(json_object_iter((json_t *) step));
	json_t	   *value = json_object_get(step, key);
	int64_t		at = json_integer_value(json_object_get(step, "at"));

	if (strcmp(key, "update") == 0)
		bc_acp_map_update(map, value, at > 0 ? at : now_ms);
	else if (strcmp(key, "result") == 0)
		bc_acp_map_result(map, value);
	else if (strcmp(key, "event") == 0)
		report(bc_stream_event, value);
	else if (strcmp(key, "part") == 0)
		report(bc_stream_part, value);
	else if (strcmp(key, "drop") == 0)
		bc_stream_drop_text();
	else if (strcmp(key, "forget") == 0 && json_is_true(value))
		bc_stream_forget_text();
	else if (strcmp(key, "forget") == 0)
		bc_stream_forget_message();
	else if (strcmp(key, "keep") == 0)
		bc_stream_end_text();
	else
		bc_acp_map_raw(json_incref(value));
}

void
bc_stream_apply(BcStreamTurn *turn, BcAcpMap *map, int64_t now_ms)
{
	size_t		i;
	json_t	   *step;

	if (turn->model != NULL)
		bc_acp_map_model(map, turn->model);
	if (turn->session_id != NULL)
		bc_acp_map_session(map, turn->session_id);
	json_array_foreach(turn->steps, i, step)
		apply(map, step, now_ms);
	json_array_clear(turn->steps);
}
