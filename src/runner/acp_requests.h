/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_requests.h
 *	  What an ACP agent asks of us: files, served at once; permissions and
 *	  forms, which are passed on to a person or a rule and answered when their
 *	  ANSWER comes.  Several may be pending.
 */
#ifndef BC_RUNNER_ACP_REQUESTS_H
#define BC_RUNNER_ACP_REQUESTS_H

#include <stdbool.h>

#include "runner/acp_map.h"
#include "runner/jsonrpc.h"

/* A turn begins. */
extern void bc_acp_requests_reset(void);

/* Takes a request; answers are sent by bc_agent_write(). */
extern void bc_acp_serve(const BcRpcMessage *request, BcAcpMap *map, int64_t now_ms);

/* Takes one that came between two turns: there is nobody to decide on it, and nothing to do. */
extern void bc_acp_serve_idle(const BcRpcMessage *request);

/* The agent does not want to know any more: the id is that of its request. */
extern void bc_acp_withdraw(const json_t *id);

/* An ANSWER: {"request": key, "option", "content", "rule"}.  An unknown key is ignored. */
extern void bc_acp_requests_answer(const json_t *answer);

/* All that is pending is answered as cancelled. */
extern void bc_acp_requests_cancel(void);

/* The turn is over: what is still pending will not be answered. */
extern void bc_acp_requests_end(void);

/* Does something wait for an ANSWER? */
extern bool bc_acp_requests_waiting(void);

/* Was a permission of this turn not given?  Then the agent may end it for that. */
extern bool bc_acp_requests_rejected(void);

#endif							/* BC_RUNNER_ACP_REQUESTS_H */
