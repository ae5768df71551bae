/* SPDX-License-Identifier: PostgreSQL */
/*
 * transport_stream_json.c
 *	  Programs that do one turn and write one JSON object a line about it; what
 *	  the lines mean is the business of stream_map.h.  The prompt is an argument
 *	  where the command says so, and standard input otherwise.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/acp_map.h"
#include "runner/agent.h"
#include "runner/command_line.h"
#include "runner/line.h"
#include "runner/llm_error.h"
#include "runner/stream.h"
#include "runner/stream_apply.h"
#include "runner/stream_control.h"
#include "runner/stream_map.h"
#include "runner/text.h"

#define MAX_JUNK_SHOWN 5		/* lines */
#define MAX_JUNK_LENGTH 500		/* bytes of each */

static BcLines lines;
static BcAcpMap *map;
static BcStreamTurn *turn;
static bool controlled;
static bool session_told;
static size_t junk_lines;

static const char *
order_text(const char *key)
{
	return json_string_value(json_object_get(bc_agent_order(), key));
}

static bool
is_qwen(void)
{
	const char *kind = order_text("agent_kind");

	return kind != NULL && strcmp(kind, "qwen") == 0;
}

static void
start(void)
{
	const char *transport = order_text("transport");
	const char *prompt = order_text("input");

	bc_acp_map_free(map);
	bc_stream_turn_free(turn);
	bc_lines_free(&lines);
	map = bc_acp_map_new();
	turn = bc_stream_turn_new(transport != NULL && strcmp(transport, "opencode") == 0 ? transport :
							  order_text("agent_kind"));
	/* qwen asks the model again when it was cut off, and its text stays as delivered: twice */
	bc_stream_says_again(is_qwen());
	bc_lines_init(&lines, (size_t) bc_agent_limit("max_line"));
	session_told = false;
	junk_lines = 0;
	if (order_text("model") != NULL)
		bc_acp_map_model(map, order_text("model"));

	if (bc_command_has_prompt(bc_agent_order()))
		prompt = NULL;
	controlled = bc_control_spoken(bc_agent_order());
	if (controlled)
	{
		bc_control_start(prompt);
		return;
	}
	if (prompt != NULL)
		bc_agent_write(prompt, strlen(prompt));
	bc_agent_close_input();
}

/* --- what the agent says --- */

static void
junk(const char *line, size_t len)
{
	if (len == 0)
		return;
	if (++junk_lines <= MAX_JUNK_SHOWN)
		bc_stream_log("stdout", line, bc_text_cut(line, len, MAX_JUNK_LENGTH));
}

static const char *
agent_name(void)
{
	const char *name = order_text("agent_kind");

	if (name == NULL)
		name = order_text("provider");
	return name != NULL ? name : turn->dialect->name;
}

static void
take_steps(void)
{
	bc_stream_apply(turn, map, bc_wall_ms());
	if (turn->session_id == NULL || session_told)
		return;
	session_told = true;
	bc_agent_report("agent_session_id", json_string(turn->session_id));
	bc_agent_report("agent_info", json_pack("{s:s, s:s?}", "name", agent_name(),
											"version", turn->version));
	bc_stream_event("status", json_pack("{s:s, s:s}", "phase", "prompted",
										"agent_session_id", turn->session_id));
}

/* --- how it ends --- */

static void
fail(const char *reason, const char *message)
{
	if (strcmp(reason, "auth_required") == 0)
		bc_agent_report("hint", json_string("Sign the agent in, or give its provider the key it needs (env)."));
	bc_agent_finish("failed", reason, message);
}

static void
finish(void)
{
	if (turn->stop_reason != NULL)
		bc_agent_report("stop_reason", json_string(turn->stop_reason));
	/* Whatever it says of a turn it was told to end */
	if (bc_agent_cancelled())
		bc_agent_finish("cancelled", "cancelled", "cancelled on request");
	else if (turn->end == BC_STREAM_COMPLETED)
		bc_agent_finish("completed", NULL, NULL);
	else if (turn->end == BC_STREAM_CANCELLED)
		bc_agent_finish("cancelled", "cancelled", "the agent ended the turn as cancelled");
	else
		fail(turn->reason != NULL ? turn->reason : bc_llm_error(turn->status, turn->error),
			 turn->error != NULL ? turn->error : "the agent failed and did not say why");
}

static void
read_line(const char *line, size_t len, void *arg)
{
	const char *start = memchr(line, '{', len);
	json_t	   *value;
	bool		beside;

	(void) arg;
	/* What comes behind the end of the turn is not of this turn. */
	if (bc_agent_finished())
		return;
	value = start != NULL ? bc_text_parse(start, len - (size_t) (start - line)) : NULL;
	beside = controlled && bc_control_line(turn, value);
	if (!beside && !bc_stream_turn_line(turn, value))
		junk(line, len);
	json_decref(value);
	take_steps();
	/* Somebody may be waiting to answer it. */
	if (beside)
		bc_stream_flush(true);
	if (turn->over)
		finish();
}

static void
output(const char *bytes, size_t len)
{
	if (!bc_lines_feed(&lines, bytes, len, read_line, NULL))
		bc_agent_finish("failed", "line_too_long",
						"the agent sent a message longer than boocoder.max_line");
}

/* The last line of what it wrote to standard error, a copy */
static char *
last_words(void)
{
	const char *text = bc_agent_stderr();
	const char *words = text;

	for (const char *at = text; *at != '\0'; at++)
		if (at[0] != '\n' && (at == text || at[-1] == '\n'))
			words = at;
	return bc_asprintf("%.*s", (int) strcspn(words, "\n"), words);
}

static void
ended_early(int code, int signal)
{
	const char *what = turn->dialect == NULL ? "wrote a line that is understood" : "told how the turn ended";
	char	   *why = last_words();
	const char *reason = bc_llm_error(0, why);
	char	   *message;

	message = bc_asprintf("the agent ended (%s %d) before it %s%s%s", signal != 0 ? "signal" : "status",
						  signal != 0 ? signal : code, what, why[0] != '\0' ? ": " : "", why);
	fail(strcmp(reason, "agent_error") == 0 ? "agent_exited" : reason, message);
	free(message);
	free(why);
}

static void
ended(int code, int signal)
{
	bc_lines_end(&lines, read_line, NULL);
	if (bc_agent_finished())
		return;
	if (signal == 0)
		bc_stream_turn_exited(turn, code, bc_agent_stderr());
	/* An error is told, a success is not: that takes a status of 0, too. */
	if (turn->end == BC_STREAM_FAILED || (turn->end == BC_STREAM_OPEN && turn->error != NULL) ||
		(turn->end != BC_STREAM_OPEN && code == 0 && signal == 0))
		finish();
	else
		ended_early(code, signal);
}

static void
settled(const char *outcome)
{
	json_t	   *usage;

	if (map == NULL)
		return;
	usage = bc_acp_map_end(map, strcmp(outcome, "cancelled") == 0, bc_wall_ms());
	/* Qwen Code (0.24) counts what it finds in a conversation that it resumes. */
	if (usage != NULL && is_qwen() && json_is_object(json_object_get(bc_agent_order(), "resume")))
		json_object_set_new(usage, "of_session", json_true());
	if (usage != NULL)
		bc_agent_report("usage", usage);
	bc_agent_report("junk_lines", json_integer((json_int_t) junk_lines));
	bc_stream_event("status", json_pack("{s:s, s:s}", "phase", "ended", "outcome", outcome));
}

/* --- what people want --- */

static void
cancel(void)
{
	if (controlled)
		bc_control_cancel();
	else
		bc_agent_finish("cancelled", "cancelled", "cancelled on request");
}

static void
answer(const json_t *answer)
{
	const char *mode = json_string_value(json_object_get(answer, "mode"));

	if (controlled)
		bc_control_answer(answer);
	else if (mode != NULL)
		bc_stream_event("mode_failed", json_pack("{s:s, s:s?, s:s}", "mode", mode, "request",
												 json_string_value(json_object_get(answer, "request")),
												 "message", "the agent can't change its mode while it runs"));
}

static bool
waiting(void)
{
	return controlled && bc_control_waiting();
}

static bool
working(void)
{
	return map != NULL && (bc_acp_map_working(map) || turn->busy);
}

#define TRANSPORT(its_name) \
{ \
	.name = its_name, \
	.has_protocol = true, \
	.command = bc_command_line, \
	.start = start, \
	.output = output, \
	.cancel = cancel, \
	.answer = answer, \
	.waiting = waiting, \
	.ended = ended, \
	.settled = settled, \
	.working = working, \
}

const BcTransport bc_transport_stream_json = TRANSPORT("stream_json");
const BcTransport bc_transport_opencode = TRANSPORT("opencode");
