/* SPDX-License-Identifier: PostgreSQL */
/*
 * transport_command.c
 *	  A program that does its work in the worktree and ends: the prompt is on
 *	  its standard input and, when it is not too long for the system, its last
 *	  argument; what it prints is text; its exit status is the outcome.
 */
#include <string.h>

#include "runner/agent.h"
#include "runner/buf.h"
#include "runner/stream.h"

static void
start(void)
{
	const char *prompt = json_string_value(json_object_get(bc_agent_order(), "input"));

	if (prompt != NULL)
		bc_agent_write(prompt, strlen(prompt));
	bc_agent_close_input();
}

static void
output(const char *bytes, size_t len)
{
	bc_stream_text(BC_TEXT, NULL, bytes, len);
}

const BcTransport bc_transport_command = {
	.name = "command",
	.has_protocol = false,
	.prompt_argument = true,
	.start = start,
	.output = output,
	.cancel = NULL,
	.ended = bc_agent_finish_by_exit,
};
