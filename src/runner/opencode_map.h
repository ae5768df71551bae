/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_map.h
 *	  What opencode serve tells of a session, as events and as lists of messages,
 *	  becomes steps (stream_map.h) and facts about the turn.  Pure, and total on
 *	  any JSON.
 *
 * A turn is known by the id of its prompt, which is ours: ids go up, so that
 * whatever belongs to a message before it is of an earlier turn and changes
 * nothing.  Lists may tell again what events told, or what they failed to tell:
 * nothing is taken twice.
 */
#ifndef BC_RUNNER_OPENCODE_MAP_H
#define BC_RUNNER_OPENCODE_MAP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runner/stream_map.h"

typedef struct BcOpencodeMap BcOpencodeMap;

typedef enum BcOpencodeNews
{
	BC_OPENCODE_NO_NEWS,		/* not of this session and those below it */
	BC_OPENCODE_NEWS,
	BC_OPENCODE_IDLE			/* the session does nothing, which may be news of an earlier turn */
} BcOpencodeNews;

extern BcOpencodeMap *bc_opencode_map_new(void);
extern void bc_opencode_map_free(BcOpencodeMap *map);

/* The session's id; forgets those of other sessions. */
extern void bc_opencode_map_session(BcOpencodeMap *map, const char *id);

/* A turn begins with a prompt of this id; NULL: no turn is under way. */
extern void bc_opencode_map_begin(BcOpencodeMap *map, const char *prompt_id);

/* An id for a prompt, which no message has that was made before; "random" may be anything. */
extern char *bc_opencode_prompt_id(int64_t wall_ms, uint64_t random);

/* An event: {"type", "properties"}. */
extern BcOpencodeNews bc_opencode_map_event(BcOpencodeMap *map, const json_t *event);

/* Events were missed: texts under way may have holes, until they come as a whole. */
extern void bc_opencode_map_missed(BcOpencodeMap *map);

/* The messages of the session.  "at_rest": nothing is added to them any more. */
extern void bc_opencode_map_messages(BcOpencodeMap *map, const json_t *list, bool at_rest);

/* The turn is over: its end is set by what is known. */
extern void bc_opencode_map_end(BcOpencodeMap *map);

/*
 * Does something with a "sessionID" concern this session or one below it, and,
 * if it names a message, the turn?
 */
extern bool bc_opencode_map_concerns(const BcOpencodeMap *map, const json_t *properties);

/* Are there sessions below this one? */
extern bool bc_opencode_map_has_below(const BcOpencodeMap *map);

/* Facts about the turn: steps to be taken, its model, error and end.  Borrowed. */
extern BcStreamTurn *bc_opencode_map_turn(const BcOpencodeMap *map);

/* Has the prompt arrived? */
extern bool bc_opencode_map_taken(const BcOpencodeMap *map);

/* Is there nothing more to come once the session is idle? */
extern bool bc_opencode_map_answered(const BcOpencodeMap *map);

/* Was there an error that may be of this turn, but came before its prompt? */
extern bool bc_opencode_map_doubted(const BcOpencodeMap *map);

#endif							/* BC_RUNNER_OPENCODE_MAP_H */
