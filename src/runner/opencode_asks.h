/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_asks.h
 *	  What opencode serve asks of people: permissions and questions.  Each is
 *	  passed on as a permission_request and answered when its ANSWER comes.
 *	  Several may be pending.
 */
#ifndef BC_RUNNER_OPENCODE_ASKS_H
#define BC_RUNNER_OPENCODE_ASKS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runner/acp_map.h"

/* How an answer gets to the server; "body" is stolen. */
typedef void (*BcOpencodeReply) (const char *path, json_t *body);

/* A turn begins. */
extern void bc_opencode_asks_reset(BcOpencodeReply reply);

/* Takes an event if it is about a permission or a question; false: it is not. */
extern bool bc_opencode_asks_event(const json_t *event, BcAcpMap *map, int64_t now_ms);

/*
 * After events were missed: what the server says is pending, of the sessions
 * that concern us.  What is answered already is answered again.
 */
extern void bc_opencode_asks_pending(const json_t *list, bool questions, BcAcpMap *map, int64_t now_ms);

/* An ANSWER: {"request": key, "option", "content", "rule"}.  An unknown key is ignored. */
extern void bc_opencode_asks_answer(const json_t *answer);

/* All that is pending is answered as cancelled. */
extern void bc_opencode_asks_cancel(void);

/* The turn is over: what is still pending will not be answered. */
extern void bc_opencode_asks_end(void);

/* Does something wait for an ANSWER? */
extern bool bc_opencode_asks_waiting(void);

#endif							/* BC_RUNNER_OPENCODE_ASKS_H */
