/* SPDX-License-Identifier: PostgreSQL */
/*
 * transport_acp.c
 *	  The Agent Client Protocol, version 1, with us as the client: initialize,
 *	  a session (an earlier one again, or a new one), model and mode if asked
 *	  for, session/prompt, and the outcome from its answer.
 *
 * One step of the conversation is under way at a time.  Beside it, while the
 * prompt is being worked on, people may change the mode.  A kept agent goes on
 * with its session: its next turn begins behind the steps that opened it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/acp_agents.h"
#include "runner/acp_map.h"
#include "runner/acp_offer.h"
#include "runner/acp_options.h"
#include "runner/acp_outcome.h"
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
#define MAX_INFO 2000			/* bytes of what an agent says of itself */
#define MAX_CHANGES 64			/* of the mode, not yet answered */

typedef enum Step
{
	STEP_INITIALIZE,
	STEP_RESUME,				/* an earlier session, quietly */
	STEP_LOAD,					/* the same, told again from its beginning */
	STEP_SESSION,				/* a new one */
	STEP_MODEL,
	STEP_MODE,
	STEP_PROMPT
} Step;

static Step step;
static json_int_t last_id;
static json_int_t request_id;	/* of the request of the step */
static BcLines lines;
static BcAcpMap *map;
static json_t *session;			/* what the agent said of it when it was opened */
static char *session_id;
static json_t *agent_info;
static json_t *auth_methods;
static bool can_resume;
static bool can_load;
static bool at_rest;			/* the prompt was answered */
static size_t junk_lines;

/* Changes of the mode, {"mode", "request"}: a list of those to be asked for, and those asked for by id */
static json_t *wanted_modes;
static json_t *asked_modes;

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
		case STEP_RESUME:
			return "session/resume";
		case STEP_LOAD:
			return "session/load";
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
		case STEP_RESUME:
		case STEP_LOAD:
			return "the agent did not open its earlier session in time";
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

/* "params" is stolen; the id. */
static json_int_t
send_request(const char *method, json_t *params)
{
	BcBuf		line = BC_BUF_INIT;

	bc_rpc_request(&line, ++last_id, method, params);
	bc_agent_write(line.data, line.len);
	bc_buf_free(&line);
	return last_id;
}

/* "params" is stolen. */
static void
request(Step next, const char *method, json_t *params)
{
	step = next;
	request_id = send_request(method, params);

	/* A turn may take its time; what comes before it may not. */
	bc_agent_expect(next == STEP_PROMPT ? 0 : bc_agent_limit("handshake_ms"),
					"handshake_timeout", too_late());
}

static void
start(void)
{
	json_decref(session);
	json_decref(agent_info);
	json_decref(auth_methods);
	json_decref(asked_modes);
	free(session_id);
	bc_acp_map_free(map);
	bc_lines_free(&lines);
	bc_acp_requests_reset();
	session = agent_info = auth_methods = NULL;
	session_id = NULL;
	asked_modes = json_object();
	last_id = request_id = 0;
	junk_lines = 0;
	can_resume = can_load = at_rest = false;
	map = bc_acp_map_new();
	bc_lines_init(&lines, (size_t) bc_agent_limit("max_line"));
	request(STEP_INITIALIZE, "initialize",
			json_pack("{s:i, s:{s:{s:b, s:b}, s:b, s:{s:{s:{}}}, s:{s:{}}}, s:{s:s, s:s}}",
					  "protocolVersion", PROTOCOL_VERSION,
					  "clientCapabilities",
					  "fs", "readTextFile", 1, "writeTextFile", 1,
					  "terminal", 0,
					  "session", "configOptions", "boolean",
					  "elicitation", "form",
					  "clientInfo", "name", "boocoder", "version", BC_VERSION));
}

/*
 * How to choose: by the session's option of that category if it has one, by the
 * older method otherwise.  Returns the parameters of *method.
 */
static json_t *
choice(const char *category, const char *wanted, const char **method)
{
	const json_t *option = bc_acp_option(json_object_get(session, "configOptions"), category);
	bool		model = strcmp(category, "model") == 0;

	if (option == NULL)
	{
		*method = model ? "session/set_model" : "session/set_mode";
		return json_pack("{s:s, s:s}", "sessionId", session_id,
						 model ? "modelId" : "modeId", wanted);
	}
	*method = "session/set_config_option";
	return json_pack("{s:s, s:s, s:s}", "sessionId", session_id,
					 "configId", text_of(option, "id"),
					 "value", bc_acp_option_value(option, wanted));
}

static void
choose(Step next, const char *category, const char *wanted)
{
	const char *method;
	json_t	   *params = choice(category, wanted, &method);

	request(next, method, params);
}

static void
ask_for_mode(json_t *change)
{
	const char *method;
	json_t	   *params = choice("mode", text_of(change, "mode"), &method);
	char		id[24];

	snprintf(id, sizeof(id), "%" JSON_INTEGER_FORMAT, send_request(method, params));
	json_object_set(asked_modes, id, change);
}

static void
prompt(void)
{
	const char *input = order_text("input");
	size_t		i;
	json_t	   *change;

	json_array_foreach(wanted_modes, i, change)
		ask_for_mode(change);
	json_array_clear(wanted_modes);
	request(STEP_PROMPT, "session/prompt",
			json_pack("{s:s, s:[{s:s, s:s}]}", "sessionId", session_id,
					  "prompt", "type", "text", "text", input != NULL ? input : ""));
	bc_stream_event("status", json_pack("{s:s, s:s}", "phase", "prompted",
										"agent_session_id", session_id));
}

/* Is what is in use something else than what is wanted? */
static bool
differs(const char *category, const char *in_use, const char *wanted)
{
	const json_t *option = bc_acp_option(json_object_get(session, "configOptions"), category);

	if (wanted == NULL)
		return false;
	if (option != NULL)
		wanted = bc_acp_option_value(option, wanted);
	return in_use == NULL || strcmp(in_use, wanted) != 0;
}

/* Goes on behind "step". */
static void
proceed(void)
{
	const char *model = order_text("model");
	const char *mode = order_text("mode");

	if (step < STEP_MODEL && differs("model", bc_acp_map_in_use(map, "model"), model))
		choose(STEP_MODEL, "model", model);
	else if (step < STEP_MODE && differs("mode", bc_acp_map_in_use(map, "mode"), mode))
		choose(STEP_MODE, "mode", mode);
	else
		prompt();
}

/* --- what we are answered --- */

/* The session that the order wants to go on with, or NULL. */
static const char *
earlier_session(void)
{
	return text_of(json_object_get(bc_agent_order(), "resume"), "session_id");
}

static void
new_session(void)
{
	request(STEP_SESSION, "session/new",
			json_pack("{s:s, s:[]}", "cwd", order_text("cwd"), "mcpServers"));
}

/* What was said before is lost to the agent. */
static void
reset_context(const char *why)
{
	bc_stream_event("context_reset", json_pack("{s:s, s:s}", "agent_session_id", earlier_session(),
											   "reason", why));
	new_session();
}

static void
open_earlier(Step how)
{
	request(how, how == STEP_RESUME ? "session/resume" : "session/load",
			json_pack("{s:s, s:s, s:[]}", "sessionId", earlier_session(), "cwd", order_text("cwd"),
					  "mcpServers"));
}

static void
open_session(void)
{
	if (earlier_session() == NULL)
		new_session();
	else if (can_resume)
		open_earlier(STEP_RESUME);
	else if (can_load)
		open_earlier(STEP_LOAD);
	else
		reset_context("the agent can't open an earlier session");
}

static void
initialized(const json_t *result)
{
	const json_t *version = json_object_get(result, "protocolVersion");
	const json_t *abilities = json_object_get(result, "agentCapabilities");
	json_t	   *info = json_object_get(result, "agentInfo");
	const char *name = text_of(info, "name");

	if (!json_is_integer(version) || json_integer_value(version) != PROTOCOL_VERSION)
	{
		BcBuf		text = BC_BUF_INIT;

		bc_text_json(&text, version, 40);
		bc_acp_outcome_fail("protocol_mismatch", "the agent speaks another version of the protocol than 1",
			 text.data);
		bc_buf_free(&text);
		return;
	}
	agent_info = json_is_object(info) ? bc_payload_limit(json_incref(info), MAX_INFO) : json_object();
	bc_agent_report("agent_info", json_incref(agent_info));
	auth_methods = bc_acp_offer_auth(result);
	can_load = json_is_true(json_object_get(abilities, "loadSession"));
	can_resume = json_is_object(json_object_get(json_object_get(abilities, "sessionCapabilities"), "resume"));
	bc_acp_map_agent(map, bc_acp_known(order_text("agent_kind"), name));
	bc_stream_event("status", json_pack("{s:s, s:O}", "phase", "initialized", "agent", agent_info));
	open_session();
}

static json_t *
or_null(const char *text)
{
	return text != NULL ? json_string(text) : json_null();
}

static void
offer_event(const char *kind, json_t *list, const char *current)
{
	json_t	   *payload = json_pack("{s:o, s:o}", kind, list, "current", or_null(current));

	if (json_array_size(list) > 0)
		bc_stream_event(kind, bc_payload_limit(payload, BC_PAYLOAD_EVENT));
	else
		json_decref(payload);
}

static void
models_event(const char *current)
{
	BcModels	models;

	bc_models_init(&models);
	bc_acp_offer_models(&models, session);
	offer_event("models", json_incref(models.list), current);
	bc_models_free(&models);
}

static void
session_opened(const json_t *result)
{
	const char *model = bc_acp_current_model(result);
	const char *mode = bc_acp_offer_mode(result);
	const char *id = step == STEP_SESSION ? text_of(result, "sessionId") : earlier_session();

	session = json_incref((json_t *) result);
	session_id = id != NULL ? bc_strdup(id) : NULL;
	if (session_id == NULL)
	{
		bc_agent_finish("failed", "protocol_error", "the agent opened a session without an id");
		return;
	}
	bc_agent_report("agent_session_id", json_string(session_id));
	bc_acp_map_session(map, session_id);
	if (model != NULL)
		bc_acp_map_model(map, model);
	bc_acp_map_mode(map, mode);
	models_event(model);
	offer_event("modes", bc_acp_offer_modes(session), mode);
	proceed();
}

/* An option's change says what came of it; the older method does not. */
static const char *
mode_chosen(const json_t *result, const char *wanted)
{
	const char *mode = bc_acp_offer_mode(result);

	if (mode == NULL)
		mode = wanted;
	bc_acp_map_mode(map, mode);
	return mode;
}

static void
option_chosen(const json_t *result)
{
	const char *model = bc_acp_current_model(result);

	if (model == NULL && step == STEP_MODEL)
		model = order_text("model");
	if (model != NULL)
		bc_acp_map_model(map, model);
	if (step == STEP_MODEL)
		models_event(model);
	else
		bc_stream_event("mode", json_pack("{s:s}", "mode", mode_chosen(result, order_text("mode"))));
	proceed();
}

static void
mode_failed(const json_t *change, const char *message)
{
	json_t	   *failed = json_copy((json_t *) change);

	json_object_set_new(failed, "message", json_string(message));
	bc_stream_event("mode_failed", failed);
}

/* Is it the answer to a change of the mode? */
static bool
mode_answered(const BcRpcMessage *message)
{
	char		id[24];
	json_t	   *change;

	snprintf(id, sizeof(id), "%" JSON_INTEGER_FORMAT, message->response_id);
	change = json_incref(json_object_get(asked_modes, id));
	if (change == NULL)
		return false;
	json_object_del(asked_modes, id);
	if (message->error != NULL)
	{
		const char *text = text_of(message->error, "message");

		mode_failed(change, text != NULL ? text : "the agent refused and gave no message");
	}
	else
	{
		const char *mode = mode_chosen(message->result, text_of(change, "mode"));

		json_object_set_new(change, "mode", json_string(mode));
		bc_stream_event("mode", json_incref(change));
	}
	json_decref(change);
	return true;
}

static void
answered(const json_t *result)
{
	switch (step)
	{
		case STEP_INITIALIZE:
			initialized(result);
			break;
		case STEP_RESUME:
		case STEP_LOAD:
		case STEP_SESSION:
			session_opened(result);
			break;
		case STEP_MODEL:
		case STEP_MODE:
			option_chosen(result);
			break;
		case STEP_PROMPT:
			at_rest = true;
			bc_acp_outcome_ended(map, result, auth_methods);
			break;
	}
}

static void
refused(const json_t *error)
{
	json_int_t	code = json_integer_value(json_object_get(error, "code"));
	bool		earlier = step == STEP_RESUME || step == STEP_LOAD;

	if (bc_agent_cancelled())
	{
		/* Some answer a cancel that way. */
		at_rest = step == STEP_PROMPT;
		bc_agent_finish("cancelled", "cancelled", "cancelled on request");
	}
	else if (step == STEP_RESUME && can_load && code != BC_RPC_AUTH_REQUIRED)
		open_earlier(STEP_LOAD);
	else if (earlier && code != BC_RPC_AUTH_REQUIRED)
	{
		const char *text = text_of(error, "message");

		reset_context(text != NULL ? text : "the agent refused and gave no message");
	}
	else
		bc_acp_outcome_refused(error, step_name(), step == STEP_MODEL || step == STEP_MODE,
							   auth_methods);
}

/* --- what we are told --- */

static void
updated(const json_t *params)
{
	const json_t *update = json_object_get(params, "update");
	const char *of = text_of(params, "sessionId");

	/* What an earlier session tells again is known; what it is now is not. */
	if (step == STEP_LOAD)
	{
		bc_agent_expect(bc_agent_limit("handshake_ms"), "handshake_timeout", too_late());
		if (!bc_acp_map_is_state(update))
			return;
	}
	/* Before our session has a name, it is the only one there can be. */
	if (json_is_object(update) && (of == NULL || session_id == NULL || strcmp(of, session_id) == 0))
		bc_acp_map_update(map, update, bc_wall_ms());
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
	if (strcmp(message->method, "$/cancel_request") == 0)
	{
		bc_acp_withdraw(json_object_get(message->params, "requestId"));
		return;
	}
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
	/* What comes behind the answer that ended the turn is of no turn. */
	if (bc_agent_finished() && !bc_agent_kept())
		return;
	bc_rpc_read(line, len, &message);
	if (bc_agent_finished())
	{
		if (message.kind == BC_RPC_REQUEST)
			bc_acp_serve_idle(&message);
		bc_rpc_free(&message);
		return;
	}
	switch (message.kind)
	{
		case BC_RPC_JUNK:
			junk(line, len);
			break;
		case BC_RPC_REQUEST:
			bc_acp_serve(&message, map, bc_wall_ms());
			break;
		case BC_RPC_NOTIFICATION:
			notified(&message);
			break;
		case BC_RPC_RESPONSE:
			if (mode_answered(&message))
				break;
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
		bc_agent_abort("line_too_long", "the agent sent a message longer than boocoder.max_line");
}

static void
cancel(void)
{
	BcBuf		line = BC_BUF_INIT;

	bc_acp_requests_cancel();
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
change_mode(const json_t *answer)
{
	json_t	   *change = json_pack("{s:O, s:O*}", "mode", json_object_get(answer, "mode"),
								   "request", json_object_get(answer, "request"));

	if (json_array_size(wanted_modes) + json_object_size(asked_modes) >= MAX_CHANGES)
		mode_failed(change, "too many changes of the mode at once");
	else if (step == STEP_PROMPT)
		ask_for_mode(change);
	else
	{
		if (wanted_modes == NULL)
			wanted_modes = json_array();
		json_array_append(wanted_modes, change);
	}
	json_decref(change);
}

static void
answer(const json_t *answer)
{
	if (json_is_string(json_object_get(answer, "mode")))
		change_mode(answer);
	else
		bc_acp_requests_answer(answer);
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
	const char *id;
	size_t		i;
	json_t	   *change;

	json_array_foreach(wanted_modes, i, change)
		mode_failed(change, "the turn has ended");
	json_object_foreach(asked_modes, id, change)
		mode_failed(change, "the turn has ended");
	json_array_clear(wanted_modes);
	json_object_clear(asked_modes);
	bc_acp_requests_end();
	if (map == NULL)
		return;
	usage = bc_acp_map_end(map, strcmp(outcome, "cancelled") == 0, bc_wall_ms());
	if (usage != NULL)
		bc_agent_report("usage", usage);
	bc_agent_report("junk_lines", json_integer((json_int_t) junk_lines));
	bc_stream_event("status", json_pack("{s:s, s:s}", "phase", "ended", "outcome", outcome));
}

static bool
reusable(void)
{
	return at_rest;
}

static void
again(void)
{
	bc_acp_requests_reset();
	bc_acp_map_next(map);
	at_rest = false;
	junk_lines = 0;
	bc_agent_report("agent_info", json_incref(agent_info));
	bc_agent_report("agent_session_id", json_string(session_id));
	step = STEP_SESSION;
	proceed();
}

static bool
working(void)
{
	return map != NULL && bc_acp_map_working(map);
}

static bool
unheard(void)
{
	return step == STEP_INITIALIZE;
}

const BcTransport bc_transport_acp = {
	.name = "acp",
	.has_protocol = true,
	.prompt_argument = false,
	.start = start,
	.output = output,
	.cancel = cancel,
	.answer = answer,
	.unheard = unheard,
	.waiting = bc_acp_requests_waiting,
	.ended = ended,
	.settled = settled,
	.working = working,
	.reusable = reusable,
	.again = again,
};
