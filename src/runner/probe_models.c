/* SPDX-License-Identifier: PostgreSQL */
/*
 * probe_models.c
 *	  The models of known programs, where the protocol did not tell them.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/fs_guard.h"
#include "runner/probe.h"
#include "runner/stream.h"

#define LIST_MS 20000

typedef struct Listing
{
	BcModels   *models;
	bool		in_table;
} Listing;

static void
read_plain(const char *line, size_t len, void *arg)
{
	bc_models_add_plain(((Listing *) arg)->models, line, len);
}

static void
read_row(const char *line, size_t len, void *arg)
{
	Listing    *listing = arg;

	bc_models_add_row(listing->models, line, len, &listing->in_table);
}

/* What the program prints when it is called with "argument". */
static void
ask_program(BcProbe *probe, const char *argument, BcLineHandler handler)
{
	Listing		listing = {&probe->models, false};
	json_t	   *command = json_pack("[s, s]", probe->program, argument);
	BcTalk		talk;
	BcTalkStatus status;
	int64_t		ms = bc_probe_limit(probe, "handshake_ms", LIST_MS);

	if (bc_probe_start(probe, &talk, command))
	{
		bc_talk_close_input(&talk);
		status = bc_talk_listen(&talk, bc_probe_until(probe, ms), handler, &listing);
		bc_probe_finish(probe, &talk);
		if (status != BC_TALK_CLOSED || talk.exit_code != 0)
		{
			char	   *ending = status == BC_TALK_CLOSED ? bc_probe_ending(&talk) :
				bc_strdup("took too long");

			bc_probe_note(probe, bc_asprintf("its models are unknown: \"%s\" %s",
											 argument, ending));
			free(ending);
		}
		bc_talk_free(&talk);
	}
	json_decref(command);
}

static void
read_settings(BcProbe *probe)
{
	const char *home =
		json_string_value(json_object_get(json_object_get(probe->order, "sandbox"), "home"));
	char	   *path = bc_asprintf("%s/.qwen/settings.json", home);
	BcBuf		text = BC_BUF_INIT;
	BcFsProblem problem;

	/* The agent may have written it: it is read no less carefully than its worktree. */
	if (bc_fs_read(home, path, 1, 0, &text, &problem) == BC_FS_OK)
	{
		char	   *current = bc_models_add_settings(&probe->models, text.data, text.len);

		if (current != NULL)
			json_object_set_new(probe->result, "current_model", json_string(current));
		free(current);
	}
	bc_buf_free(&text);
	free(path);
}

void
bc_probe_models(BcProbe *probe)
{
	const char *kind = json_string_value(json_object_get(probe->order, "agent_kind"));
	const char *transport = json_string_value(json_object_get(probe->order, "transport"));

	if (kind == NULL || json_array_size(probe->models.list) > 0)
		return;
	if (strcmp(kind, "claude") == 0)
		bc_models_add_claude(&probe->models);
	else if (strcmp(kind, "qwen") == 0)
		read_settings(probe);
	else if (strcmp(kind, "pi") == 0)
		ask_program(probe, "--list-models", read_row);
	else if (strcmp(kind, "opencode") == 0 && strcmp(transport, "opencode") == 0)
		ask_program(probe, "models", read_plain);
}
