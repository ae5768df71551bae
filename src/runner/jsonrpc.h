/* SPDX-License-Identifier: PostgreSQL */
/*
 * jsonrpc.h
 *	  JSON-RPC 2.0 messages, one a line: reading and writing.  Pure.
 */
#ifndef BC_RUNNER_JSONRPC_H
#define BC_RUNNER_JSONRPC_H

#include <jansson.h>

#include "runner/buf.h"

#define BC_RPC_PARSE_ERROR		(-32700)
#define BC_RPC_METHOD_NOT_FOUND	(-32601)
#define BC_RPC_INVALID_PARAMS	(-32602)
#define BC_RPC_INTERNAL_ERROR	(-32603)
#define BC_RPC_AUTH_REQUIRED	(-32000)
#define BC_RPC_NOT_FOUND		(-32002)

typedef enum BcRpcKind
{
	BC_RPC_JUNK,				/* no message: a banner, a log line, ... */
	BC_RPC_REQUEST,
	BC_RPC_NOTIFICATION,
	BC_RPC_RESPONSE
} BcRpcKind;

/* Fields that the kind does not have are NULL or 0. */
typedef struct BcRpcMessage
{
	BcRpcKind	kind;
	json_t	   *root;			/* owned; all the others point into it */
	const char *method;
	const json_t *params;
	const json_t *result;
	const json_t *error;		/* a response has either result or error */
	json_int_t	response_id;	/* -1 when it is none that we could have sent */
	BcBuf		id;				/* of a request, as the peer wrote it */
} BcRpcMessage;

/*
 * Reads a line.  Any bytes will do: what is no message is JUNK.  Repairs what
 * bc_text_parse() can, and skips what stands before the message on its line.
 * bc_rpc_free() afterwards in either case.
 */
extern void bc_rpc_read(const char *line, size_t len, BcRpcMessage *message);
extern void bc_rpc_free(BcRpcMessage *message);

/* Each appends one line to "out".  "params" and "result" are stolen and may be NULL ({}). */
extern void bc_rpc_request(BcBuf *out, json_int_t id, const char *method, json_t *params);
extern void bc_rpc_notification(BcBuf *out, const char *method, json_t *params);
extern void bc_rpc_result(BcBuf *out, const BcBuf *id, json_t *result);
extern void bc_rpc_error(BcBuf *out, const BcBuf *id, int code, const char *text);

#endif							/* BC_RUNNER_JSONRPC_H */
