/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_requests.c
 *	  What an ACP agent asks of us: permissions and files.
 */
#include <string.h>

#include "runner/acp_options.h"
#include "runner/acp_requests.h"
#include "runner/agent.h"
#include "runner/fs_guard.h"
#include "runner/payload.h"
#include "runner/stream.h"

#define MAX_PERMISSION (64 * 1024)	/* bytes of what is recorded of a request */

static void
answer(const BcRpcMessage *request, json_t *result)
{
	BcBuf		line = BC_BUF_INIT;

	bc_rpc_result(&line, &request->id, result);
	bc_agent_write(line.data, line.len);
	bc_buf_free(&line);
}

static void
refuse(const BcRpcMessage *request, int code, const char *text)
{
	BcBuf		line = BC_BUF_INIT;

	bc_rpc_error(&line, &request->id, code, text);
	bc_agent_write(line.data, line.len);
	bc_buf_free(&line);
}

static json_t *
permission_record(const json_t *params, const char *option, const char *rule)
{
	json_t	   *request = json_object();
	json_t	   *options = json_object_get(params, "options");
	json_t	   *record = json_object();

	json_object_set_new(request, "tool_call",
						bc_acp_map_tool_fields(json_object_get(params, "toolCall")));
	if (options != NULL)
		json_object_set(request, "options", options);
	json_object_set_new(record, "request", request);
	json_object_set_new(record, "outcome",
						json_string(option != NULL ? "selected" : "cancelled"));
	json_object_set_new(record, "option", option != NULL ? json_string(option) : json_null());
	json_object_set_new(record, "rule", json_string(rule));
	return bc_payload_limit(record, MAX_PERMISSION);
}

static void
request_permission(const BcRpcMessage *request, BcAcpMap *map, int64_t now_ms)
{
	const char *policy =
		json_string_value(json_object_get(bc_agent_order(), "permission_policy"));
	const char *rule = policy != NULL ? policy : "reject";
	const char *option = NULL;
	json_t	   *outcome = json_object();
	json_t	   *record;

	/* A cancelled turn gets no permissions any more, and waits for none. */
	if (bc_agent_cancelled())
		rule = "cancel";
	else
		option = bc_acp_permission(json_object_get(request->params, "options"), rule);
	json_object_set_new(outcome, "outcome",
						json_string(option != NULL ? "selected" : "cancelled"));
	if (option != NULL)
		json_object_set_new(outcome, "optionId", json_string(option));
	answer(request, json_pack("{s:o}", "outcome", outcome));

	bc_acp_map_tool_call(map, json_object_get(request->params, "toolCall"), now_ms);
	record = permission_record(request->params, option, rule);
	bc_stream_event("permission", json_incref(record));
	bc_stream_part("permission", record);
}

static const char *
worktree(void)
{
	return json_string_value(json_object_get(bc_agent_order(), "cwd"));
}

static void
refuse_file(const BcRpcMessage *request, const BcFsProblem *problem)
{
	int			code = BC_RPC_INTERNAL_ERROR;

	if (problem->status == BC_FS_NOT_FOUND)
		code = BC_RPC_NOT_FOUND;
	else if (problem->status == BC_FS_REFUSED)
		code = BC_RPC_INVALID_PARAMS;
	refuse(request, code, problem->message);
}

static void
read_text_file(const BcRpcMessage *request)
{
	const char *path = json_string_value(json_object_get(request->params, "path"));
	json_int_t	line = json_integer_value(json_object_get(request->params, "line"));
	const json_t *limit = json_object_get(request->params, "limit");
	BcBuf		text = BC_BUF_INIT;
	BcFsProblem problem;

	if (path == NULL)
		refuse(request, BC_RPC_INVALID_PARAMS, "path is missing");
	else if (json_is_integer(limit) && json_integer_value(limit) <= 0)
		answer(request, json_pack("{s:s}", "content", ""));
	else if (bc_fs_read(worktree(), path, line, json_integer_value(limit), &text, &problem) !=
			 BC_FS_OK)
		refuse_file(request, &problem);
	else
		answer(request, json_pack("{s:s%}", "content", text.data, text.len));
	bc_buf_free(&text);
}

static void
write_text_file(const BcRpcMessage *request)
{
	const char *path = json_string_value(json_object_get(request->params, "path"));
	const json_t *content = json_object_get(request->params, "content");
	BcFsProblem problem;

	if (path == NULL || !json_is_string(content))
		refuse(request, BC_RPC_INVALID_PARAMS, "path or content is missing");
	else if (bc_fs_write(worktree(), path, json_string_value(content),
						 json_string_length(content), &problem) != BC_FS_OK)
		refuse_file(request, &problem);
	else
		answer(request, NULL);
}

void
bc_acp_serve(const BcRpcMessage *request, BcAcpMap *map, int64_t now_ms)
{
	if (strcmp(request->method, "session/request_permission") == 0)
		request_permission(request, map, now_ms);
	else if (strcmp(request->method, "fs/read_text_file") == 0)
		read_text_file(request);
	else if (strcmp(request->method, "fs/write_text_file") == 0)
		write_text_file(request);
	else
		refuse(request, BC_RPC_METHOD_NOT_FOUND, "method not found");
}
