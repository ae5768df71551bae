/* SPDX-License-Identifier: PostgreSQL */
/*
 * probe_acp.c
 *	  The handshake with an agent that speaks the Agent Client Protocol:
 *	  initialize, session/new, what it then says of its commands, session/close.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/acp_offer.h"
#include "runner/acp_options.h"
#include "runner/command_line.h"
#include "runner/jsonrpc.h"
#include "runner/payload.h"
#include "runner/probe.h"
#include "runner/stream.h"
#include "runner/text.h"

#define PROTOCOL_VERSION 1
#define HANDSHAKE_MS 20000
#define COMMANDS_MS 1000		/* for the first list of commands to come */
#define MORE_COMMANDS_MS 200	/* for a better one: some agents find theirs in two steps */
#define CLOSE_MS 1000
#define MAX_CAPABILITIES (16 * 1024)
#define MAX_INFO 2000
#define MAX_TOLD 500			/* bytes of an error's message */

typedef struct Handshake
{
	BcProbe    *probe;
	BcTalk		talk;
	json_int_t	request_id;		/* of the request under way */
	json_t	   *result;			/* the answer to it: one of these */
	json_t	   *error;
	json_t	   *initialized;
	json_t	   *session;
	json_t	   *commands;		/* NULL: not told yet */
} Handshake;

static const char *
text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static void
notified(Handshake *h, const BcRpcMessage *message)
{
	const json_t *update = json_object_get(message->params, "update");
	const char *kind = text_of(update, "sessionUpdate");

	if (strcmp(message->method, "session/update") != 0 || kind == NULL ||
		strcmp(kind, "available_commands_update") != 0)
		return;
	json_decref(h->commands);
	h->commands = bc_acp_offer_commands(update);
	/* An empty list may be one that is not ready yet. */
	if (h->session != NULL && json_array_size(h->commands) > 0)
		bc_talk_stop(&h->talk);
}

/* Nothing was promised to it, so there is nothing it may ask for. */
static void
refuse(Handshake *h, const BcRpcMessage *message)
{
	BcBuf		line = BC_BUF_INIT;

	bc_rpc_error(&line, &message->id, BC_RPC_METHOD_NOT_FOUND, "this client only looks around");
	bc_talk_write(&h->talk, line.data, line.len);
	bc_buf_free(&line);
}

static void
read_line(const char *line, size_t len, void *arg)
{
	Handshake  *h = arg;
	BcRpcMessage message;

	bc_rpc_read(line, len, &message);
	switch (message.kind)
	{
		case BC_RPC_JUNK:
			break;
		case BC_RPC_REQUEST:
			refuse(h, &message);
			break;
		case BC_RPC_NOTIFICATION:
			notified(h, &message);
			break;
		case BC_RPC_RESPONSE:
			if (message.response_id != h->request_id || h->result != NULL || h->error != NULL)
				break;
			h->result = json_incref((json_t *) message.result);
			h->error = json_incref((json_t *) message.error);
			bc_talk_stop(&h->talk);
			break;
	}
	bc_rpc_free(&message);
}

/* Asks and waits for the answer; "params" is stolen. */
static BcTalkStatus
ask(Handshake *h, const char *method, json_t *params, int64_t ms)
{
	BcBuf		line = BC_BUF_INIT;

	json_decref(h->result);
	json_decref(h->error);
	h->result = h->error = NULL;
	bc_rpc_request(&line, ++h->request_id, method, params);
	bc_talk_write(&h->talk, line.data, line.len);
	bc_buf_free(&line);
	return bc_talk_listen(&h->talk, bc_probe_until(h->probe, ms), read_line, h);
}

static void
refused(Handshake *h, const char *method)
{
	const char *text = text_of(h->error, "message");
	json_int_t	code = json_integer_value(json_object_get(h->error, "code"));
	const char *told = text != NULL ? text : "the agent gave no message";
	char	   *message = bc_asprintf("%s: %.*s (error %" JSON_INTEGER_FORMAT ")", method,
									  (int) bc_text_cut(told, strlen(told), MAX_TOLD), told, code);

	if (code == BC_RPC_AUTH_REQUIRED)
	{
		char	   *hint = bc_acp_offer_hint(json_object_get(h->probe->result, "auth_methods"));

		json_object_set_new(h->probe->result, "hint", json_string(hint));
		free(hint);
	}
	bc_probe_settle(h->probe, "error",
					code == BC_RPC_AUTH_REQUIRED ? "auth_required" : "agent_error", message);
}

/* ask(), and what prevents an answer is settled. */
static bool
required(Handshake *h, const char *method, json_t *params)
{
	BcTalkStatus status = ask(h, method, params,
							  bc_probe_limit(h->probe, "handshake_ms", HANDSHAKE_MS));
	char	   *doing;

	if (status == BC_TALK_STOPPED && h->result != NULL)
		return true;
	if (status == BC_TALK_STOPPED)
	{
		refused(h, method);
		return false;
	}
	doing = bc_asprintf("answer %s", method);
	bc_probe_finish(h->probe, &h->talk);
	bc_probe_unheard(h->probe, &h->talk, status, doing);
	free(doing);
	return false;
}

/* An object of the agent's into the result, if it is one */
static void
report(Handshake *h, const char *key, const char *from, size_t max)
{
	json_t	   *value = json_object_get(h->initialized, from);

	if (json_is_object(value))
		json_object_set_new(h->probe->result, key, bc_payload_limit(json_incref(value), max));
}

static bool
initialize(Handshake *h)
{
	const json_t *version;

	if (!required(h, "initialize",
				  json_pack("{s:i, s:{s:{s:b, s:b}, s:b, s:{s:{s:{}}}}, s:{s:s, s:s}}",
							"protocolVersion", PROTOCOL_VERSION,
							"clientCapabilities",
							"fs", "readTextFile", 0, "writeTextFile", 0,
							"terminal", 0,
							"session", "configOptions", "boolean",
							"clientInfo", "name", "boocoder", "version", BC_VERSION)))
		return false;
	h->initialized = json_incref(h->result);
	version = json_object_get(h->initialized, "protocolVersion");
	if (!json_is_integer(version) || json_integer_value(version) != PROTOCOL_VERSION)
	{
		bc_probe_settle(h->probe, "error", "protocol_mismatch",
						bc_strdup("the agent speaks another version of the protocol than 1"));
		return false;
	}
	json_object_set_new(h->probe->result, "supports_acp", json_true());
	report(h, "agent_info", "agentInfo", MAX_INFO);
	report(h, "capabilities", "agentCapabilities", MAX_CAPABILITIES);
	json_object_set_new(h->probe->result, "auth_methods", bc_acp_offer_auth(h->initialized));
	return true;
}

static void
set_text(json_t *object, const char *key, const char *text)
{
	if (text != NULL)
		json_object_set_new(object, key, json_string(text));
}

static bool
open_session(Handshake *h)
{
	BcProbe    *probe = h->probe;

	if (!required(h, "session/new",
				  json_pack("{s:O, s:[]}", "cwd", json_object_get(probe->order, "cwd"),
							"mcpServers")))
		return false;
	h->session = json_incref(h->result);
	if (text_of(h->session, "sessionId") == NULL)
	{
		bc_probe_settle(probe, "error", "protocol_error",
						bc_strdup("the agent opened a session without an id"));
		return false;
	}
	bc_acp_offer_models(&probe->models, h->session);
	set_text(probe->result, "current_model", bc_acp_current_model(h->session));
	json_object_set_new(probe->result, "modes", bc_acp_offer_modes(h->session));
	set_text(probe->result, "current_mode", bc_acp_offer_mode(h->session));
	return true;
}

/* An agent without commands is as good as any: nothing that happens here is a problem. */
static void
await_commands(Handshake *h)
{
	BcTalkStatus status = BC_TALK_STOPPED;

	if (json_array_size(h->commands) == 0)
		status = bc_talk_listen(&h->talk, bc_probe_until(h->probe, COMMANDS_MS), read_line, h);
	if (status == BC_TALK_STOPPED)
		(void) bc_talk_listen(&h->talk, bc_probe_until(h->probe, MORE_COMMANDS_MS), read_line, h);
	if (h->commands != NULL)
		json_object_set(h->probe->result, "commands", h->commands);
}

static void
close_session(Handshake *h)
{
	const json_t *capabilities = json_object_get(h->initialized, "agentCapabilities");
	const json_t *session = json_object_get(capabilities, "sessionCapabilities");

	if (json_is_object(json_object_get(session, "close")))
		(void) ask(h, "session/close",
				   json_pack("{s:s}", "sessionId", text_of(h->session, "sessionId")), CLOSE_MS);
}

void
bc_probe_acp(BcProbe *probe)
{
	Handshake	h = {.probe = probe};
	json_t	   *command = bc_command_line(probe->order);
	bool		started = bc_probe_start(probe, &h.talk, command);

	json_decref(command);
	if (!started)
		return;
	if (initialize(&h) && open_session(&h))
	{
		bc_probe_settle(probe, "ready", NULL, NULL);
		await_commands(&h);
		close_session(&h);
	}
	bc_probe_finish(probe, &h.talk);
	bc_talk_free(&h.talk);
	json_decref(h.result);
	json_decref(h.error);
	json_decref(h.initialized);
	json_decref(h.session);
	json_decref(h.commands);
}
