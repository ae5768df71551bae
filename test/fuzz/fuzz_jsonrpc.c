/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_jsonrpc.c
 *	  Any line is read; the reply to a request is a message again, with the
 *	  same id.
 */
#include "fuzz.h"

#include "runner/jsonrpc.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	BcRpcMessage message;
	BcRpcMessage reply;
	BcBuf		line = BC_BUF_INIT;

	bc_rpc_read((const char *) data, size, &message);
	REQUIRE((message.kind == BC_RPC_JUNK) == (message.root == NULL));
	if (message.kind == BC_RPC_RESPONSE)
		REQUIRE((message.result == NULL) != (message.error == NULL));
	if (message.kind == BC_RPC_REQUEST)
	{
		json_t	   *id = json_object_get(message.root, "id");

		bc_rpc_result(&line, &message.id, NULL);
		bc_rpc_read(line.data, line.len, &reply);
		REQUIRE(reply.kind == BC_RPC_RESPONSE);
		REQUIRE(json_equal(json_object_get(reply.root, "id"), id) || json_is_real(id) || json_is_string(id));
		bc_rpc_free(&reply);
	}
	bc_rpc_free(&message);
	bc_buf_free(&line);
	return 0;
}
