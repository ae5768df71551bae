/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_rest.h
 *	  Requests to opencode serve, about the worktree of the order.
 */
#ifndef BC_RUNNER_OPENCODE_REST_H
#define BC_RUNNER_OPENCODE_REST_H

#include "runner/http.h"

typedef void (*BcOpencodeHandler) (const BcHttpAnswer *answer);

/* A turn begins: what was asked before is answered to nobody. */
extern void bc_opencode_rest_turn(void);

/* As bc_http_request(), with the directory added to the path.  "handler" may be NULL. */
extern void bc_opencode_rest(const char *method, const char *path, json_t *body, int timeout_ms,
							 BcOpencodeHandler handler);

/* The turn fails because "what" was answered so. */
extern void bc_opencode_fail(const char *what, const BcHttpAnswer *answer);

#endif							/* BC_RUNNER_OPENCODE_REST_H */
