/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_requests.h
 *	  What an ACP agent asks of us: permissions and files.  Every request is
 *	  answered at once, so none is ever pending.
 */
#ifndef BC_RUNNER_ACP_REQUESTS_H
#define BC_RUNNER_ACP_REQUESTS_H

#include "runner/acp_map.h"
#include "runner/jsonrpc.h"

/* Answers a request by bc_agent_write(). */
extern void bc_acp_serve(const BcRpcMessage *request, BcAcpMap *map, int64_t now_ms);

#endif							/* BC_RUNNER_ACP_REQUESTS_H */
