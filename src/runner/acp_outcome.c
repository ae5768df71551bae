/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_outcome.c
 *	  From answers and errors of an ACP agent to the outcome of its turn.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/acp_offer.h"
#include "runner/acp_outcome.h"
#include "runner/acp_requests.h"
#include "runner/agent.h"
#include "runner/jsonrpc.h"
#include "runner/llm_error.h"
#include "runner/stream_step.h"
#include "runner/text.h"

#define MAX_DETAIL 2000			/* bytes of an error's data */

void
bc_acp_outcome_fail(const char *reason, const char *message, const char *detail)
{
	char	   *text = bc_asprintf("%s: %s", message, detail);

	bc_agent_finish("failed", reason, text);
	free(text);
}

/* "message" is stolen. */
static void
fail_by_llm(const char *reason, char *message, const json_t *auth_methods)
{
	if (strcmp(reason, "auth_required") == 0)
	{
		char	   *hint = bc_acp_offer_hint(auth_methods);

		bc_agent_report("hint", json_string(hint));
		free(hint);
	}
	bc_agent_finish("failed", reason, message);
	free(message);
}

/* Is the outcome another than what the agent calls it? */
static bool
ended_otherwise(BcAcpMap *map, const char *so_called, const json_t *auth_methods)
{
	char	   *error = NULL;

	if (strcmp(so_called, "completed") == 0)
		error = bc_acp_map_error(map);
	if (error != NULL)
	{
		fail_by_llm(bc_llm_error(0, error), error, auth_methods);
		return true;
	}
	if (strcmp(so_called, "cancelled") != 0 || !bc_acp_requests_rejected())
		return false;
	bc_agent_finish("failed", "permission_rejected",
					"the agent ended the turn because it was not given a permission");
	return true;
}

void
bc_acp_outcome_ended(BcAcpMap *map, const json_t *result, const json_t *auth_methods)
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
	const char *stop_reason = bc_step_string(result, "stopReason");

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
		if (ended_otherwise(map, ends[i].outcome, auth_methods))
			return;
		bc_agent_finish(ends[i].outcome, ends[i].reason, ends[i].message);
		return;
	}
	bc_acp_outcome_fail("protocol_error",
						"the agent ended the turn for a reason the protocol does not know",
						stop_reason != NULL ? stop_reason : "(none)");
}

/* What an error says beyond its message, which is often just "Internal error"; NULL: nothing. */
static const char *
error_details(const json_t *data)
{
	static const char *const keys[] = {"details", "message"};

	if (json_is_string(data))
		return json_string_value(data);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (bc_step_string(data, keys[i]) != NULL)
			return bc_step_string(data, keys[i]);
	return NULL;
}

void
bc_acp_outcome_refused(const json_t *error, const char *what, bool choice,
					   const json_t *auth_methods)
{
	const char *text = bc_step_string(error, "message");
	json_int_t	code = json_integer_value(json_object_get(error, "code"));
	json_t	   *data = json_object_get(error, "data");
	const char *details = error_details(data);
	const char *reason = bc_llm_error_rpc(error);

	if (data != NULL && !json_is_null(data))
	{
		BcBuf		detail = BC_BUF_INIT;

		bc_text_json(&detail, data, MAX_DETAIL);
		detail.len = bc_text_cut(detail.data, detail.len, MAX_DETAIL);
		bc_agent_report("detail", json_stringn(detail.data, detail.len));
		bc_buf_free(&detail);
	}
	/* Other words about a model or a mode than that it can't be had are no news of the service. */
	if (choice && code != BC_RPC_AUTH_REQUIRED)
		reason = "agent_error";
	if (details == NULL || (text != NULL && strcmp(details, text) == 0))
		details = "";
	fail_by_llm(reason,
				bc_asprintf("%s: %s%s%.*s (error %" JSON_INTEGER_FORMAT ")", what,
							text != NULL ? text : "the agent gave no message",
							details[0] != '\0' ? ": " : "",
							(int) bc_text_cut(details, strlen(details), MAX_DETAIL), details, code),
				auth_methods);
}
