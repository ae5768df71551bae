/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_rest.c
 *	  Requests to opencode serve, about the worktree of the order.
 */
#include <stdlib.h>

#include "runner/agent.h"
#include "runner/opencode_rest.h"
#include "runner/stream_step.h"

typedef struct Question
{
	unsigned	turn;
	BcOpencodeHandler handler;
} Question;

static unsigned turn;

void
bc_opencode_rest_turn(void)
{
	turn++;
}

static void
answered(const BcHttpAnswer *answer, void *arg)
{
	Question   *question = arg;

	if (question->turn == turn && question->handler != NULL)
		question->handler(answer);
	free(question);
}

void
bc_opencode_rest(const char *method, const char *path, json_t *body, int timeout_ms,
				 BcOpencodeHandler handler)
{
	const char *cwd = bc_step_string(bc_agent_order(), "cwd");
	char	   *whole = bc_http_path(path, "directory", cwd);
	Question   *question = bc_alloc(sizeof(Question));

	*question = (Question) {turn, handler};
	bc_http_request(method, whole, body, timeout_ms, answered, question);
	free(whole);
}

void
bc_opencode_fail(const char *what, const BcHttpAnswer *answer)
{
	const char *text = bc_step_string(json_object_get(answer->body, "data"), "message");
	char	   *message;

	if (text == NULL)
		text = bc_step_string(answer->body, "message");
	if (answer->status == 0)
		message = bc_asprintf("%s: %s", what, answer->problem != NULL ? answer->problem : "no answer");
	else
		message = bc_asprintf("%s: the server answered HTTP status %d%s%s", what, answer->status,
							  text != NULL ? ": " : "", text != NULL ? text : "");
	bc_agent_finish("failed", "protocol_error", message);
	free(message);
}
