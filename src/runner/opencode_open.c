/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_open.c
 *	  Opens the session of a chat on opencode serve.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/agent.h"
#include "runner/opencode_open.h"
#include "runner/opencode_rest.h"
#include "runner/stream.h"
#include "runner/stream_step.h"

#define REQUEST_MS 20000

static char *earlier;			/* the session to go on with, or NULL */
static BcOpencodeOpened tell;

static void
made(const BcHttpAnswer *answer)
{
	const char *id = bc_step_string(answer->body, "id");

	if (bc_agent_finished())
		return;
	if (answer->status != 200 || id == NULL || strchr(id, '/') != NULL)
		bc_opencode_fail("a new session", answer);
	else
		tell(id);
}

void
bc_opencode_open_new(const char *instead_of, const char *why)
{
	if (instead_of != NULL)
		bc_stream_event("context_reset", json_pack("{s:s, s:s}", "agent_session_id", instead_of, "reason", why));
	bc_opencode_rest("POST", "/session", NULL, REQUEST_MS, made);
}

static void
found(const BcHttpAnswer *answer)
{
	const char *directory = bc_step_string(answer->body, "directory");

	if (bc_agent_finished())
		return;
	if (answer->status == 404 || answer->status == 400)
		bc_opencode_open_new(earlier, "the server does not know the session");
	else if (answer->status != 200)
		bc_opencode_fail("the earlier session", answer);
	else if (directory != NULL && strcmp(directory, bc_step_string(bc_agent_order(), "cwd")) != 0)
		bc_opencode_open_new(earlier, "the session is of another directory");
	else
		tell(earlier);
}

static void
go_on(void)
{
	const json_t *resume = json_object_get(bc_agent_order(), "resume");
	const char *why = bc_step_string(resume, "reason");
	char	   *path;

	if (earlier == NULL)
		bc_opencode_open_new(NULL, NULL);
	else if (json_is_false(json_object_get(resume, "allowed")))
		bc_opencode_open_new(earlier, why != NULL ? why : "the session is not to be gone on with");
	else if (strchr(earlier, '/') != NULL)
		bc_opencode_open_new(earlier, "the session's id is none");
	else
	{
		path = bc_asprintf("/session/%s", earlier);
		bc_opencode_rest("GET", path, NULL, REQUEST_MS, found);
		free(path);
	}
}

static void
leftovers_listed(const BcHttpAnswer *answer)
{
	const char *id;
	json_t	   *state;

	if (bc_agent_finished())
		return;
	json_object_foreach((json_t *) answer->body, id, state)
	{
		char	   *path;

		if (strchr(id, '/') != NULL || bc_step_is(state, "type", "idle"))
			continue;
		path = bc_asprintf("/session/%s/abort", id);
		bc_opencode_rest("POST", path, NULL, REQUEST_MS, NULL);
		free(path);
	}
	go_on();
}

void
bc_opencode_open(const char *known, BcOpencodeOpened opened)
{
	const char *wanted = known != NULL ? known :
		bc_step_string(json_object_get(bc_agent_order(), "resume"), "session_id");
	char	   *id = wanted != NULL ? bc_strdup(wanted) : NULL;

	free(earlier);
	earlier = id;
	tell = opened;
	bc_opencode_rest("GET", "/session/status", NULL, REQUEST_MS, leftovers_listed);
}
