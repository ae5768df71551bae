/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_requests.c
 *	  What an ACP agent asks of us: permissions, forms and files.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/acp_requests.h"
#include "runner/agent.h"
#include "runner/fs_guard.h"
#include "runner/payload.h"
#include "runner/stream.h"

#define MAX_PERMISSION (64 * 1024)	/* bytes of what is recorded of a request */
#define MAX_PENDING 64

/* A request that waits for its ANSWER */
typedef struct Pending
{
	struct Pending *next;
	char		key[16];		/* what we call it */
	BcRpcMessage rpc;			/* its id alone, to answer with */
	json_t	   *id;				/* the same as a value */
	bool		form;			/* an elicitation; otherwise a permission */
	BcAcpMap   *map;			/* that knows the call it is about; not ours */
	json_t	   *about;			/* what is recorded of it */
	json_t	   *options;
} Pending;

static Pending *pending;
static int	npending;
static int	last_key;
static bool rejected;

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

/* --- permissions and forms --- */

static void
release(Pending *request)
{
	bc_buf_free(&request->rpc.id);
	json_decref(request->id);
	json_decref(request->about);
	json_decref(request->options);
	free(request);
}

/* Takes a request out of the list. */
static void
unlink_pending(Pending *request)
{
	Pending   **at = &pending;

	while (*at != request)
		at = &(*at)->next;
	*at = request->next;
	npending--;
}

/* Is the option one that was offered?  "kind" is set to its kind, or NULL. */
static bool
is_offered(const json_t *options, const char *option, const char **kind)
{
	size_t		i;
	json_t	   *entry;

	json_array_foreach(options, i, entry)
	{
		const char *id = json_string_value(json_object_get(entry, "optionId"));

		if (id == NULL || strcmp(id, option) != 0)
			continue;
		*kind = json_string_value(json_object_get(entry, "kind"));
		return true;
	}
	return false;
}

static void
record(const Pending *request, const char *option, bool selected, const char *rule)
{
	json_t	   *payload = json_pack("{s:O, s:s, s:s, s:s?, s:s?}", "request", request->about,
									"key", request->key,
									"outcome", selected ? "selected" : "cancelled",
									"option", option, "rule", rule);

	payload = bc_payload_limit(payload, MAX_PERMISSION);
	bc_stream_event("permission", json_incref(payload));
	bc_stream_part("permission", payload);
}

/* "option" NULL: cancelled */
static void
answer_permission(Pending *request, const char *option, const char *rule)
{
	const char *kind = NULL;
	json_t	   *outcome = json_object();
	bool		allowed;

	if (option != NULL && !is_offered(request->options, option, &kind))
		option = NULL;
	allowed = option != NULL && (kind == NULL || strncmp(kind, "reject", 6) != 0);
	rejected |= !allowed;
	bc_acp_map_decided(request->map, json_string_value(json_object_get(json_object_get(request->about, "tool_call"), "id")),
					   allowed);
	json_object_set_new(outcome, "outcome",
						json_string(option != NULL ? "selected" : "cancelled"));
	if (option != NULL)
		json_object_set_new(outcome, "optionId", json_string(option));
	answer(&request->rpc, json_pack("{s:o}", "outcome", outcome));
	record(request, option, option != NULL, rule);
}

static void
answer_form(Pending *request, const char *option, json_t *content, const char *rule)
{
	if (json_is_object(content))
	{
		answer(&request->rpc, json_pack("{s:s, s:O}", "action", "accept", "content", content));
		record(request, NULL, true, rule);
	}
	else if (option != NULL && strcmp(option, "decline") == 0)
	{
		answer(&request->rpc, json_pack("{s:s}", "action", "decline"));
		record(request, option, true, rule);
	}
	else
	{
		answer(&request->rpc, json_pack("{s:s}", "action", "cancel"));
		record(request, NULL, false, rule);
	}
}

static void
settle(Pending *request, const char *option, json_t *content, const char *rule)
{
	if (request->form)
		answer_form(request, option, content, rule);
	else
		answer_permission(request, option, rule);
}

void
bc_acp_requests_answer(const json_t *answer)
{
	const char *key = json_string_value(json_object_get(answer, "request"));

	for (Pending *request = pending; key != NULL && request != NULL; request = request->next)
	{
		if (strcmp(request->key, key) != 0)
			continue;
		unlink_pending(request);
		settle(request, json_string_value(json_object_get(answer, "option")),
			   json_object_get(answer, "content"),
			   json_string_value(json_object_get(answer, "rule")));
		release(request);
		return;
	}
}

void
bc_acp_requests_cancel(void)
{
	while (pending != NULL)
	{
		Pending    *request = pending;

		unlink_pending(request);
		settle(request, NULL, NULL, "cancel");
		release(request);
	}
}

static void
withdrawn(Pending *request)
{
	unlink_pending(request);
	bc_stream_event("permission_withdrawn", json_pack("{s:s}", "request", request->key));
	release(request);
}

void
bc_acp_withdraw(const json_t *id)
{
	for (Pending *request = pending; request != NULL; request = request->next)
	{
		if (id == NULL || !json_equal(id, request->id))
			continue;
		/* Every request has an answer, one that nobody wants included. */
		if (request->form)
			answer(&request->rpc, json_pack("{s:s}", "action", "cancel"));
		else
			answer(&request->rpc, json_pack("{s:{s:s}}", "outcome", "outcome", "cancelled"));
		withdrawn(request);
		return;
	}
}

void
bc_acp_requests_end(void)
{
	while (pending != NULL)
		withdrawn(pending);
}

void
bc_acp_requests_reset(void)
{
	while (pending != NULL)
	{
		Pending    *request = pending;

		unlink_pending(request);
		release(request);
	}
	last_key = 0;
	rejected = false;
}

bool
bc_acp_requests_waiting(void)
{
	return pending != NULL;
}

bool
bc_acp_requests_rejected(void)
{
	return rejected;
}

/*
 * Passes a request on, or answers it as cancelled where nobody will answer any
 * more.  "message" and "schema" may be NULL.
 */
static void
ask(const BcRpcMessage *rpc, bool form, BcAcpMap *map, json_t *tool_call, const json_t *options,
	const json_t *message, const json_t *schema)
{
	Pending    *request = bc_alloc(sizeof(Pending));
	json_t	   *offered = json_is_array(options) ? json_incref((json_t *) options) : json_array();
	json_t	   *payload;

	snprintf(request->key, sizeof(request->key), "%d", ++last_key);
	bc_buf_add(&request->rpc.id, rpc->id.data, rpc->id.len);
	request->id = json_incref(json_object_get(rpc->root, "id"));
	request->form = form;
	request->map = map;
	request->options = json_incref(offered);
	request->about = json_pack("{s:O?, s:O}", "tool_call", tool_call, "options", offered);
	if (form)
		json_object_set(request->about, "message", (json_t *) message);
	request->next = pending;
	pending = request;
	npending++;

	/* A cancelled turn gets no permissions any more, and waits for none. */
	if (bc_agent_cancelled() || npending > MAX_PENDING)
	{
		json_t	   *refusal = json_pack("{s:s, s:s}", "request", request->key, "rule",
										bc_agent_cancelled() ? "cancel" : "too many requests");

		json_decref(offered);
		bc_acp_requests_answer(refusal);
		json_decref(refusal);
		return;
	}
	payload = json_pack("{s:s, s:s, s:O?, s:o, s:O?, s:O?}", "request", request->key,
						"kind", form ? "elicitation" : "permission", "tool_call", tool_call,
						"options", offered, "message", message, "schema", schema);
	bc_stream_event("permission_request", bc_payload_limit(payload, BC_PAYLOAD_EVENT));
	/* Somebody may be waiting to answer it. */
	bc_stream_flush(true);
}

static void
request_permission(const BcRpcMessage *request, BcAcpMap *map, int64_t now_ms)
{
	json_t	   *call;

	bc_acp_map_tool_call(map, json_object_get(request->params, "toolCall"), now_ms);
	call = bc_acp_map_known(map, json_object_get(request->params, "toolCall"));
	call = bc_payload_limit(call, MAX_PERMISSION);
	ask(request, false, map, call, json_object_get(request->params, "options"), NULL, NULL);
	json_decref(call);
}

static void
create_elicitation(const BcRpcMessage *request, BcAcpMap *map)
{
	const char *mode = json_string_value(json_object_get(request->params, "mode"));
	const json_t *message = json_object_get(request->params, "message");
	const json_t *schema = json_object_get(request->params, "requestedSchema");
	const json_t *call_id = json_object_get(request->params, "toolCallId");
	json_t	   *call = NULL;

	if ((mode != NULL && strcmp(mode, "form") != 0) || !json_is_object(schema))
	{
		refuse(request, BC_RPC_INVALID_PARAMS, "only forms are supported");
		return;
	}
	if (json_is_string(call_id))
		call = json_pack("{s:O}", "id", call_id);
	ask(request, true, map, call, NULL, json_is_string(message) ? message : NULL, schema);
	json_decref(call);
}

/* --- files --- */

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
	{
		/* in the protocol's own words, which agents look for */
		refuse(request, BC_RPC_NOT_FOUND, "Resource not found: no such file");
		return;
	}
	if (problem->status == BC_FS_REFUSED)
		code = BC_RPC_INVALID_PARAMS;
	refuse(request, code, problem->message);
}

static void
read_text_file(const BcRpcMessage *request, const BcAcpMap *map)
{
	const char *path = json_string_value(json_object_get(request->params, "path"));
	json_int_t	line = json_integer_value(json_object_get(request->params, "line"));
	const json_t *limit = json_object_get(request->params, "limit");
	BcBuf		text = BC_BUF_INIT;
	BcFsProblem problem;
	BcFsStatus	status;

	if (path == NULL)
	{
		refuse(request, BC_RPC_INVALID_PARAMS, "path is missing");
		return;
	}
	if (json_is_integer(limit) && json_integer_value(limit) <= 0)
	{
		answer(request, json_pack("{s:s}", "content", ""));
		return;
	}
	status = bc_fs_read(worktree(), path, line, json_integer_value(limit), &text, &problem);
	/* gemini (0.61) understands no error of ours, and reads what it is about to make. */
	if (status == BC_FS_NOT_FOUND && bc_acp_map_is_agent(map, "gemini"))
		answer(request, json_pack("{s:s}", "content", ""));
	else if (status != BC_FS_OK)
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
	else if (strcmp(request->method, "elicitation/create") == 0)
		create_elicitation(request, map);
	else if (strcmp(request->method, "fs/read_text_file") == 0)
		read_text_file(request, map);
	else if (strcmp(request->method, "fs/write_text_file") == 0)
		write_text_file(request);
	else
		refuse(request, BC_RPC_METHOD_NOT_FOUND, "method not found");
}

void
bc_acp_serve_idle(const BcRpcMessage *request)
{
	if (strcmp(request->method, "session/request_permission") == 0)
		answer(request, json_pack("{s:{s:s}}", "outcome", "outcome", "cancelled"));
	else if (strcmp(request->method, "elicitation/create") == 0)
		answer(request, json_pack("{s:s}", "action", "cancel"));
	else
		refuse(request, BC_RPC_INVALID_PARAMS, "no turn is under way");
}
