/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_map.h
 *	  From what an ACP agent reports (session/update) to events and parts,
 *	  which go to stream.h.  Takes any JSON; the clock is the caller's.
 *
 * Every report is an event.  Parts: text and reasoning in runs, a tool call
 * when it has ended with all that was said about it, the last plan and the
 * usage at the end of the turn.
 */
#ifndef BC_RUNNER_ACP_MAP_H
#define BC_RUNNER_ACP_MAP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runner/acp_usage.h"

typedef struct BcAcpMap BcAcpMap;

extern BcAcpMap *bc_acp_map_new(void);
extern void bc_acp_map_free(BcAcpMap *map);

/* Is it that known agent (see bc_acp_known())? */
extern bool bc_acp_map_is_agent(const BcAcpMap *map, const char *known);

/* What becomes known as the conversation goes on; copied. */
extern void bc_acp_map_agent(BcAcpMap *map, const char *known);	/* acp_agents.h */
extern void bc_acp_map_session(BcAcpMap *map, const char *session_id);
extern void bc_acp_map_model(BcAcpMap *map, const char *model);
extern void bc_acp_map_mode(BcAcpMap *map, const char *mode);

/* The model or the mode in use, as "category" says; NULL: unknown.  Borrowed. */
extern const char *bc_acp_map_in_use(const BcAcpMap *map, const char *category);

/*
 * Another turn of the same session: what is known of agent and session stays,
 * and late news of calls of the turn before are news of ended ones.
 */
extern void bc_acp_map_next(BcAcpMap *map);

/* Does an update say what the session is, rather than what happens in it? */
extern bool bc_acp_map_is_state(const json_t *update);

/* The "update" of a session/update.  "now_ms" is wall-clock time since 1970. */
extern void bc_acp_map_update(BcAcpMap *map, const json_t *update, int64_t now_ms);

/* The "toolCall" of a permission request, which may be the first that is heard of it. */
extern void bc_acp_map_tool_call(BcAcpMap *map, const json_t *tool_call, int64_t now_ms);

/*
 * All that is known of that call, in the form of our events; a new object.  Some
 * agents ask by nothing but the id of a call.
 */
extern json_t *bc_acp_map_known(const BcAcpMap *map, const json_t *tool_call);

/* A person or a rule decided about that call; refused, it fails at the latest with the end of the turn. */
extern void bc_acp_map_decided(BcAcpMap *map, const char *call_id, bool allowed);

/* The result of session/prompt. */
extern void bc_acp_map_result(BcAcpMap *map, const json_t *result);

/* Does a tool run, as far as the agent said? */
extern bool bc_acp_map_working(const BcAcpMap *map);

/*
 * The error that the agent told in its own way; NULL: none.  For the end of a
 * turn that the agent calls a success.  The caller frees.
 */
extern char *bc_acp_map_error(BcAcpMap *map);

/*
 * The turn is over: the parts of what is still open.  The usage of the turn as
 * a new object, or NULL when nothing is known.
 */
extern json_t *bc_acp_map_end(BcAcpMap *map, bool cancelled, int64_t now_ms);

/* A tool call in the form of our events: "id", "title", "raw_input", ...; a new object. */
extern json_t *bc_acp_map_tool_fields(const json_t *tool_call);

/* "value" as a raw event, bounded; stolen. */
extern void bc_acp_map_raw(json_t *value);

#endif							/* BC_RUNNER_ACP_MAP_H */
