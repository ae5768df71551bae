/* SPDX-License-Identifier: PostgreSQL */
/*
 * transport_acp.c
 *	  The Agent Client Protocol, version 1, with us as the client: initialize,
 *	  session/new, model and mode if asked for, session/prompt, and the outcome
 *	  from its answer.
 *
 * One request of ours is under way at a time, so the step of the conversation
 * is all the state there is.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runner/acp_map.h"
#include "runner/acp_options.h"
#include "runner/acp_requests.h"
#include "runner/agent.h"
#include "runner/jsonrpc.h"
#include "runner/line.h"
#include "runner/payload.h"
#include "runner/stream.h"
#include "runner/text.h"

#define PROTOCOL_VERSION 1
#define MAX_JUNK_SHOWN 5		/* lines */
#define MAX_JUNK_LENGTH 500		/* bytes of each */
#define MAX_DETAIL 2000			/* bytes of an error's data */

typedef enum Step
{
	STEP_INITIALIZE,
	STEP_SESSION,
	STEP_MODEL,
	STEP_MODE,
	STEP_PROMPT
} Step;

static Step step;
static json_int_t request_id;	/* of the request under way */
static BcLines lines;
static BcAcpMap *map;
static json_t *session;			/* the result of session/new */
static const char *session_id;	/* in it */
static size_t junk_lines;

static int64_t
wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const char *
order_text(const char *key)
{
	return json_string_value(json_object_get(bc_agent_order(), key));
}

static const char *
text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* --- what we send --- */

static const char *
step_name(void)
{
	switch (step)
	{
		case STEP_INITIALIZE:
			return "initialize";
		case STEP_SESSION:
			return "session/new";
		case STEP_MODEL:
			return "the choice of the model";
		case STEP_MODE:
			return "the choice of the mode";
		case STEP_PROMPT:
			return "session/prompt";
	}
	return "";
}

static const char *
too_late(void)
{
	switch (step)
	{
		case STEP_INITIALIZE:
			return "the agent did not answer initialize in time";
		case STEP_SESSION:
			return "the agent did not answer session/new in time";
		case STEP_MODEL:
		case STEP_MODE:
			return "the agent did not answer the choice of model or mode in time";
		case STEP_PROMPT:
			break;
	}
	return NULL;
}

/* "params" is stolen. */
static void
request(Step next, const char *method, json_t *params)
{
	BcBuf		line = BC_BUF_INIT;

	step = next;
	bc_rpc_request(&line, ++request_id, method, params);
	bc_agent_write(line.data, line.len);
	bc_buf_free(&line);

	/* A turn may take its time; what comes before it may not. */
	bc_agent_expect(next == STEP_PROMPT ? 0 : bc_agent_limit("handshake_ms"),
					"handshake_timeout", too_late());
}

static void
start(void)
{
	json_decref(session);
	bc_acp_map_free(map);
	bc_lines_free(&lines);
	session = NULL;
	session_id = NULL;
	request_id = 0;
	junk_lines = 0;
	map = bc_acp_map_new();
	bc_lines_init(&lines, (size_t) bc_agent_limit("max_line"));
	request(STEP_INITIALIZE, "initialize",
			json_pack("{s:i, s:{s:{s:b, s:b}, s:b, s:{s:{s:{}}}}, s:{s:s, s:s}}",
					  "protocolVersion", PROTOCOL_VERSION,
					  "clientCapabilities",
					  "fs", "readTextFile", 1, "writeTextFile", 1,
					  "terminal", 0,
					  "session", "configOptions", "boolean",
					  "clientInfo", "name", "boocoder", "version", BC_VERSION));
}

/* Chooses by the session's option of that name if it has one, by the older method otherwise. */
static void
choose(Step next, const char *category, const char *wanted, const char *method, const char *key)
{
	const json_t *option = bc_acp_option(json_object_get(session, "configOptions"), category);

	if (option != NULL)
		request(next, "session/set_config_option",
				json_pack("{s:s, s:s, s:s}", "sessionId", session_id,
						  "configId", text_of(option, "id"),
						  "value", bc_acp_option_value(option, wanted)));
	else
		request(next, method, json_pack("{s:s, s:s}", "sessionId", session_id, key, wanted));
}

static void
prompt(void)
{
	const char *input = order_text("input");

	request(STEP_PROMPT, "session/prompt",
			json_pack("{s:s, s:[{s:s, s:s}]}", "sessionId", session_id,
					  "prompt", "type", "text", "text", input != NULL ? input : ""));
	bc_stream_event("status", json_pack("{s:s, s:s}", "phase", "prompted",
										"agent_session_id", session_id));
}

/* Goes on behind "step". */
static void
proceed(void)
{
	const char *model = order_text("model");
	const char *mode = order_text("mode");

	if (step < STEP_MODEL && model != NULL)
		choose(STEP_MODEL, "model", model, "session/set_model", "modelId");
	else if (step < STEP_MODE && mode != NULL)
		choose(STEP_MODE, "mode", mode, "session/set_mode", "modeId");
	else
		prompt();
}

/* --- what we are answered --- */

static void
fail(const char *reason, const char *format, const char *detail)
{
	char	   *message = bc_asprintf("%s: %s", format, detail);

	bc_agent_finish("failed", reason, message);
	free(message);
}

static void
initialized(const json_t *result)
{
	const json_t *version = json_object_get(result, "protocolVersion");
	json_t	   *info = json_object_get(result, "agentInfo");
	const char *name = text_of(info, "name");

	if (!json_is_integer(version) || json_integer_value(version) != PROTOCOL_VERSION)
	{
		BcBuf		text = BC_BUF_INIT;

		bc_text_json(&text, version, 40);
		fail("protocol_mismatch", "the agent speaks another version of the protocol than 1",
			 text.data);
		bc_buf_free(&text);
		return;
	}
	info = json_is_object(info) ? bc_payload_limit(json_incref(info), MAX_DETAIL) : json_object();
	bc_agent_report("agent_info", info);
	bc_acp_map_agent(map, name != NULL ? name : "");
	bc_stream_event("status", json_pack("{s:s, s:O}", "phase", "initialized", "agent", info));
	request(STEP_SESSION, "session/new",
			json_pack("{s:s, s:[]}", "cwd", order_text("cwd"), "mcpServers"));
}

static void
session_opened(const json_t *result)
{
	const char *model = bc_acp_current_model(result);

	session = json_incref((json_t *) result);
	session_id = text_of(session, "sessionId");
	if (session_id == NULL)
	{
		bc_agent_finish("failed", "protocol_error", "the agent opened a session without an id");
		return;
	}
	bc_agent_report("agent_session_id", json_string(session_id));
	bc_acp_map_session(map, session_id);
	if (model != NULL)
		bc_acp_map_model(map, model);
	proceed();
}

static void
option_chosen(const json_t *result)
{
	const char *model = bc_acp_current_model(result);

	/* An option's change says what came of it; the older method does not. */
	if (model != NULL)
		bc_acp_map_model(map, model);
	else if (step == STEP_MODEL)
		bc_acp_map_model(map, order_text("model"));
	proceed();
}

static void
turn_ended(const json_t *result)
{
	static const struct
	{
		const char *stop_reason;
		const char *outcome;
		const char *reason;
		const char *message;
	}			ends[] = {
		{"end_turn", "completed", NULL, NULL},
		{"max_tokens", "failed", "max_tokens", "the agent reached its limit of tokens"},
		{"max_turn_requests", "failed", "max_turn_requests",
		"the agent reached its limit of requests in a turn"},
		{"refusal", "failed", "refusal", "the agent refused"},
		{"cancelled", "cancelled", "cancelled", "the agent ended the turn as cancelled"},
	};
	const char *stop_reason = text_of(result, "stopReason");

	bc_acp_map_result(map, result);
	if (stop_reason != NULL)
		bc_agent_report("stop_reason", json_string(stop_reason));
	if (bc_agent_cancelled())
	{
		/* Not every agent says so: some answer end_turn, or an error. */
		bc_agent_finish("cancelled", "cancelled", "cancelled on request");
		return;
	}
	for (size_t i = 0; stop_reason != NULL && i < sizeof(ends) / sizeof(ends[0]); i++)
	{
		if (strcmp(stop_reason, ends[i].stop_reason) != 0)
			continue;
		bc_agent_finish(ends[i].outcome, ends[i].reason, ends[i].message);
		return;
	}
	fail("protocol_error", "the agent ended the turn for a reason the protocol does not know",
		 stop_reason != NULL ? stop_reason : "(none)");
}

static void
answered(const json_t *result)
{
	switch (step)
	{
		case STEP_INITIALIZE:
			initialized(result);
			break;
		case STEP_SESSION:
			session_opened(result);
			break;
		case STEP_MODEL:
		case STEP_MODE:
			option_chosen(result);
			break;
		case STEP_PROMPT:
			turn_ended(result);
			break;
	}
}

static void
refused(const json_t *error)
{
	const char *text = text_of(error, "message");
	json_int_t	code = json_integer_value(json_object_get(error, "code"));
	json_t	   *data = json_object_get(error, "data");
	char	   *message;

	if (bc_agent_cancelled())
	{
		bc_agent_finish("cancelled", "cancelled", "cancelled on request");
		return;
	}
	if (data != NULL && !json_is_null(data))
	{
		BcBuf		detail = BC_BUF_INIT;

		bc_text_json(&detail, data, MAX_DETAIL);
		detail.len = bc_text_cut(detail.data, detail.len, MAX_DETAIL);
		bc_agent_report("detail", json_stringn(detail.data, detail.len));
		bc_buf_free(&detail);
	}
	message = bc_asprintf("%s: %s (error %" JSON_INTEGER_FORMAT ")", step_name(),
						  text != NULL ? text : "the agent gave no message", code);
	if (code == BC_RPC_AUTH_REQUIRED)
	{
		bc_agent_report("hint", json_string("Sign the agent in, or give its provider the key it needs (env)."));
		bc_agent_finish("failed", "auth_required", message);
	}
	else
		bc_agent_finish("failed", "agent_error", message);
	free(message);
}

/* --- what we are told --- */

static void
updated(const json_t *params)
{
	const json_t *update = json_object_get(params, "update");
	const char *of = text_of(params, "sessionId");

	/* Before our session has a name, it is the only one there can be. */
	if (json_is_object(update) && (of == NULL || session_id == NULL || strcmp(of, session_id) == 0))
		bc_acp_map_update(map, update, wall_ms());
	else
		bc_acp_map_raw(json_incref((json_t *) params));
}

static void
notified(const BcRpcMessage *message)
{
	json_t	   *event;

	if (strcmp(message->method, "session/update") == 0)
	{
		updated(message->params);
		return;
	}
	/* Nothing it could withdraw is ever pending. */
	if (strcmp(message->method, "$/cancel_request") == 0)
		return;
	event = json_object();
	json_object_set_new(event, "method", json_string(message->method));
	if (message->params != NULL)
		json_object_set(event, "params", (json_t *) message->params);
	bc_acp_map_raw(event);
}

static void
junk(const char *line, size_t len)
{
	if (len == 0)
		return;
	if (++junk_lines <= MAX_JUNK_SHOWN)
		bc_stream_log("stdout", line, bc_text_cut(line, len, MAX_JUNK_LENGTH));
}

static void
read_line(const char *line, size_t len, void *arg)
{
	BcRpcMessage message;

	(void) arg;
	/* What comes behind the answer that ended the turn is not of this turn. */
	if (bc_agent_finished())
		return;
	bc_rpc_read(line, len, &message);
	switch (message.kind)
	{
		case BC_RPC_JUNK:
			junk(line, len);
			break;
		case BC_RPC_REQUEST:
			bc_acp_serve(&message, map, wall_ms());
			break;
		case BC_RPC_NOTIFICATION:
			notified(&message);
			break;
		case BC_RPC_RESPONSE:
			if (message.response_id != request_id)
				junk(line, len);
			else if (message.error != NULL)
				refused(message.error);
			else
				answered(message.result);
			break;
	}
	bc_rpc_free(&message);
}

static void
output(const char *bytes, size_t len)
{
	if (!bc_lines_feed(&lines, bytes, len, read_line, NULL))
		bc_agent_finish("failed", "line_too_long",
						"the agent sent a message longer than boocoder.max_line");
}

static void
cancel(void)
{
	BcBuf		line = BC_BUF_INIT;

	if (step != STEP_PROMPT)
	{
		/* There is no turn yet that the agent could end. */
		bc_agent_finish("cancelled", "cancelled", "cancelled on request");
		return;
	}
	bc_rpc_notification(&line, "session/cancel", json_pack("{s:s}", "sessionId", session_id));
	bc_agent_write(line.data, line.len);
	bc_buf_free(&line);
}

static void
ended(int code, int signal)
{
	char	   *message;

	bc_lines_end(&lines, read_line, NULL);
	if (bc_agent_finished())
		return;
	message = bc_asprintf("the agent ended (%s %d) before it answered %s",
						  signal != 0 ? "signal" : "status", signal != 0 ? signal : code,
						  step_name());
	bc_agent_finish("failed", "agent_exited", message);
	free(message);
}

static void
settled(const char *outcome)
{
	json_t	   *usage;

	if (map == NULL)
		return;
	usage = bc_acp_map_end(map, strcmp(outcome, "cancelled") == 0, wall_ms());
	if (usage != NULL)
		bc_agent_report("usage", usage);
	bc_agent_report("junk_lines", json_integer((json_int_t) junk_lines));
	bc_stream_event("status", json_pack("{s:s, s:s}", "phase", "ended", "outcome", outcome));
}

static bool
working(void)
{
	return map != NULL && bc_acp_map_working(map);
}

const BcTransport bc_transport_acp = {
	.name = "acp",
	.has_protocol = true,
	.prompt_argument = false,
	.start = start,
	.output = output,
	.cancel = cancel,
	.ended = ended,
	.settled = settled,
	.working = working,
};
