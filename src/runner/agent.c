/* SPDX-License-Identifier: PostgreSQL */
/*
 * agent.c
 *	  The event loop of a turn: setup commands, then the agent, until the
 *	  outcome is known and nothing of it runs any more.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner/agent.h"
#include "runner/parent.h"
#include "runner/program.h"
#include "runner/regain.h"
#include "runner/sandbox.h"
#include "runner/stream.h"
#include "runner/text.h"
#include "runner/up.h"

#define MAX_ARGUMENT (100 * 1024)	/* the kernel takes no argument over 128 kB */
#define CLOSED_GRACE_MS 500
#define WORKING_FACTOR 10		/* of the limit of silence while a tool runs */
#define MAX_FDS 16				/* of a transport */

static const BcTransport *const transports[] = {
	&bc_transport_acp,
	&bc_transport_command,
	&bc_transport_pty,
	&bc_transport_stream_json,
	&bc_transport_opencode,
	&bc_transport_opencode_server,
};

static const json_t *order;		/* with what the fallback says, once that is used */
static const BcTransport *transport;
static json_t *result;

static size_t setup_index;		/* setup command that runs now */
static size_t nsetup;			/* all of them; setup_index == nsetup: the agent itself */

static const char *outcome;
static const char *reason;
static char *message;
static bool cancelled;
static bool falling_back;		/* this program is given up, the one of the fallback is next */
static bool dispatcher_gone;
static bool kept;				/* the turn is over, and the agent takes another */
static BcBuf next_order;		/* which has come */
static bool has_next_order;

static int64_t waiting_since;	/* for a person; 0: for nobody */
static int64_t last_sign;		/* of life */
static int64_t turn_end;		/* of the whole turn */
static int64_t setup_end;
static int64_t cancel_end;
static int64_t expect_end;
static const char *expect_reason;
static const char *expect_message;

const json_t *
bc_agent_order(void)
{
	return order;
}

json_int_t
bc_agent_limit(const char *name)
{
	return json_integer_value(json_object_get(json_object_get(order, "limits"), name));
}

bool
bc_agent_finished(void)
{
	return outcome != NULL;
}

void
bc_agent_alive(void)
{
	last_sign = bc_now();
}

bool
bc_agent_cancelled(void)
{
	return cancelled;
}

void
bc_agent_report(const char *key, json_t *value)
{
	json_object_set_new(result, key, value);
}

const char *
bc_agent_stderr(void)
{
	return bc_program_stderr();
}

static void
quit(void)
{
	bc_program_quit(bc_agent_limit("term_grace_ms"));
}

static void
terminate(void)
{
	bc_program_terminate(bc_agent_limit("term_grace_ms"));
}

void
bc_agent_write(const char *bytes, size_t len)
{
	if (outcome != NULL && !kept)
		return;
	/* An agent that asks but never reads what it is answered */
	if (!bc_program_write(bytes, len))
		bc_agent_abort("protocol_error", "the agent does not read its input");
}

bool
bc_agent_reads_lines(void)
{
	return bc_program_reads_lines();
}

void
bc_agent_close_input(void)
{
	bc_program_close_input();
}

void
bc_agent_expect(json_int_t within_ms, const char *if_not, const char *text)
{
	expect_end = within_ms > 0 ? bc_now() + within_ms : 0;
	expect_reason = if_not;
	expect_message = text;
}

static void
settle(const char *what, const char *why, const char *text)
{
	if (outcome != NULL)
		return;
	outcome = what;
	reason = why;
	message = text != NULL ? bc_strdup(text) : NULL;
	expect_end = cancel_end = 0;
	if (transport != NULL && transport->settled != NULL)
		transport->settled(what);
}

static void
settle_not_started(BcFailure *failure)
{
	settle("failed", failure->reason, failure->message);
	if (failure->hint != NULL)
		bc_agent_report("hint", json_string(failure->hint));
	free(failure->message);
}

static const BcTransport *
find_transport(const char *name)
{
	for (size_t i = 0; name != NULL && i < sizeof(transports) / sizeof(transports[0]); i++)
		if (strcmp(transports[i]->name, name) == 0)
			return transports[i];
	return NULL;
}

static const BcTransport *
fallback(void)
{
	const json_t *instead = json_object_get(order, "fallback");

	if (!json_is_array(json_object_get(instead, "command")))
		return NULL;
	return find_transport(json_string_value(json_object_get(instead, "transport")));
}

/*
 * A program that never got through its handshake makes room for the fallback.
 * Who is to sign in would have to do it there, too.
 */
static bool
fall_back(const char *why, const char *text)
{
	if (falling_back)
		return true;
	if (outcome != NULL || cancelled || setup_index < nsetup || fallback() == NULL ||
		transport->unheard == NULL || !transport->unheard() || strcmp(why, "auth_required") == 0)
		return false;
	falling_back = true;
	expect_end = 0;
	bc_stream_event("status", json_pack("{s:s, s:s, s:s, s:s?}", "phase", "fallback",
										"transport", fallback()->name, "reason", why,
										"message", text));
	terminate();
	return true;
}

void
bc_agent_finish(const char *what, const char *why, const char *text)
{
	if (strcmp(what, "failed") == 0 && fall_back(why, text))
		return;
	if (outcome == NULL)
	{
		settle(what, why, text);
		/* An agent whose conversation is intact may go on with it in the next turn. */
		kept = json_is_true(json_object_get(order, "warm")) &&
			(why == NULL || strcmp(why, "auth_required") != 0) && transport->reusable != NULL &&
			transport->reusable() && (transport->remote || bc_program_runs());
	}
	if (!kept)
		quit();
}

void
bc_agent_abort(const char *why, const char *text)
{
	if (kept)
		terminate();
	else
		bc_agent_finish("failed", why, text);
}

void
bc_agent_finish_by_exit(int code, int signal)
{
	char	   *text = signal != 0 ? bc_asprintf("the program was ended by signal %d", signal) :
		bc_asprintf("the program ended with status %d", code);

	if (signal == 0 && code == 0)
		bc_agent_finish("completed", NULL, NULL);
	else
		bc_agent_finish("failed", signal != 0 ? "killed_by_signal" : "exit_nonzero", text);
	free(text);
}

static json_t *
stage_command(void)
{
	if (setup_index < nsetup)
		return json_pack("[s, s, O]", "/bin/sh", "-c",
						 json_array_get(json_object_get(order, "setup"), setup_index));
	if (transport->command != NULL)
		return transport->command(order);
	return json_incref(json_object_get(order, "command"));
}

static const BcProgramOwner program_owner;

/* Starts the setup command that is next, or the agent.  False: the outcome is settled. */
static bool
start_program(void)
{
	bool		is_agent = setup_index == nsetup;
	const char *prompt = json_string_value(json_object_get(order, "input"));
	bool		argument = is_agent && transport->prompt_argument && prompt != NULL &&
		strlen(prompt) <= MAX_ARGUMENT;
	BcFailure	failure;
	json_t	   *command;
	bool		started;

	if (is_agent && transport->remote)
	{
		transport->start();
		return true;
	}
	command = stage_command();
	started = bc_program_start(&program_owner, order, command, argument ? prompt : NULL,
							   is_agent && transport->terminal, &failure);
	json_decref(command);
	if (!started)
	{
		settle_not_started(&failure);
		return false;
	}
	last_sign = bc_now();
	bc_stream_event("status", json_pack("{s:s}", "phase", is_agent ? "spawned" : "setup"));
	if (is_agent)
		transport->start();
	else
		bc_program_close_input();
	return true;
}

static void
start_fallback(void)
{
	const json_t *instead = json_object_get(order, "fallback");
	json_t	   *changed = json_copy((json_t *) order);

	transport = fallback();
	json_object_set(changed, "transport", json_object_get(instead, "transport"));
	json_object_set(changed, "command", json_object_get(instead, "command"));
	json_object_del(changed, "fallback");
	order = changed;
	falling_back = false;
	/* What was reported is about the program that is gone. */
	json_object_clear(result);
	bc_agent_report("ok", json_true());
	(void) start_program();
}

static void
setup_ended(int code, int signal)
{
	char	   *text;

	if (code == 0)
	{
		setup_index++;
		(void) start_program();
		if (setup_index == nsetup)
			setup_end = 0;
		return;
	}
	text = bc_asprintf("setup command %zu ended with %s %d", setup_index + 1,
					   signal ? "signal" : "status", signal ? signal : code);
	settle("failed", "setup_failed", text);
	free(text);
}

static void
on_ended(int code, int signal)
{
	BcFailure	failure;

	if (outcome != NULL)
		return;
	if (cancelled)
		settle("cancelled", "cancelled", "cancelled on request");
	else if (bc_program_sandbox_failed(code, &failure))
		settle_not_started(&failure);
	else if (setup_index < nsetup)
		setup_ended(code, signal);
	else if (falling_back)
		start_fallback();
	else
	{
		bc_agent_report("exit_code", signal ? json_null() : json_integer(code));
		bc_agent_report("signal", signal ? json_integer(signal) : json_null());
		transport->ended(code, signal);
		if (falling_back)
			start_fallback();
		else
			settle("failed", "agent_exited", "the agent ended");
	}
}

static void
on_output_closed(void)
{
	/* A conversation is over with its output, whether or not the process ends too. */
	if (transport->has_protocol && setup_index == nsetup && outcome == NULL && !falling_back)
		bc_agent_expect(CLOSED_GRACE_MS, "agent_exited", "the agent closed its output");
	else if (kept)
		terminate();
}

static void
on_output(const char *bytes, size_t len)
{
	last_sign = bc_now();
	if (setup_index < nsetup)
		bc_stream_log("setup", bytes, len);
	else if ((outcome == NULL || kept) && !falling_back)
		transport->output(bytes, len);
}

static void
on_errors(const char *bytes, size_t len)
{
	last_sign = bc_now();
	if (!kept)
		bc_stream_log(setup_index < nsetup ? "setup" : "stderr", bytes, len);
}

static const BcProgramOwner program_owner = {on_output, on_output_closed, on_errors, on_ended};

static void
handle_cancel(void)
{
	if (cancelled || outcome != NULL)
		return;
	cancelled = true;
	if (setup_index == nsetup && transport->cancel != NULL)
	{
		cancel_end = bc_now() + bc_agent_limit("cancel_grace_ms");
		transport->cancel();
	}
	else
		terminate();
}

static void
handle_answer(const BcBuf *payload)
{
	json_t	   *answer = json_loadb(payload->data, payload->len, 0, NULL);

	if (json_is_object(answer) && outcome == NULL && transport->answer != NULL)
		transport->answer(answer);
	json_decref(answer);
}

/* Takes what has arrived; an order only between two turns. */
static void
read_dispatcher(void)
{
	static BcBuf payload;

	while (!has_next_order)
	{
		BcFrame		frame;

		switch (bc_up_receive(&frame, &payload))
		{
			case BC_UP_AGAIN:
				return;
			case BC_UP_CLOSED:
				dispatcher_gone = true;
				return;
			case BC_UP_MESSAGE:
				if (frame.type == BC_FRAME_ORDER && kept)
				{
					bc_buf_clear(&next_order);
					bc_buf_add(&next_order, payload.data, payload.len);
					has_next_order = true;
				}
				else if (frame.type == BC_FRAME_CANCEL)
					handle_cancel();
				else if (frame.type == BC_FRAME_ANSWER)
					handle_answer(&payload);
				break;
		}
	}
}

static bool
waiting(void)
{
	return outcome == NULL && transport->waiting != NULL && transport->waiting();
}

/* A person takes the time a person takes: meanwhile no limit comes nearer. */
static void
stand_still(int64_t now)
{
	if (waiting_since != 0)
	{
		turn_end += turn_end != 0 ? now - waiting_since : 0;
		expect_end += expect_end != 0 ? now - waiting_since : 0;
		last_sign = now;
	}
	waiting_since = waiting() ? now : 0;
}

static int64_t
silence_end(void)
{
	json_int_t	limit = bc_agent_limit("inactivity_ms");

	if (limit <= 0 || falling_back || !(transport->has_protocol || transport->terminal) ||
		setup_index < nsetup || outcome != NULL || !(transport->remote || bc_program_runs()))
		return 0;
	/* A long build or test run of the agent's says nothing either. */
	if (transport->working != NULL && transport->working())
		limit *= WORKING_FACTOR;
	return last_sign + limit;
}

static void
fail_and_terminate(const char *why, const char *text)
{
	settle("failed", why, text);
	terminate();
}

static bool
passed(int64_t when, int64_t now)
{
	return when != 0 && when <= now;
}

static void
check_deadlines(int64_t now)
{
	if (outcome == NULL && passed(turn_end, now))
		fail_and_terminate("timeout", "the task's timeout has passed");
	if (outcome == NULL && passed(setup_end, now))
		fail_and_terminate("setup_failed", "the setup commands took too long");
	if (outcome == NULL && passed(expect_end, now) && !fall_back(expect_reason, expect_message))
		fail_and_terminate(expect_reason, expect_message);
	if (outcome == NULL && passed(silence_end(), now) &&
		!fall_back("inactivity_timeout", "the agent gave no sign of life"))
		fail_and_terminate("inactivity_timeout", "the agent gave no sign of life");
	if (outcome == NULL && passed(cancel_end, now))
	{
		settle("cancelled", "cancelled", "the agent did not end the turn by itself");
		terminate();
	}
}

static bool
lingering(void)
{
	return outcome != NULL && !kept && transport->lingering != NULL && transport->lingering();
}

static int64_t
transport_due(void)
{
	if ((outcome != NULL && !kept && !lingering()) || setup_index < nsetup || falling_back || transport->due == NULL ||
		!(transport->remote || bc_program_runs()))
		return 0;
	return transport->due();
}

static int
poll_timeout(void)
{
	int64_t		when = 0;

	bc_earliest(&when, bc_stream_due());
	bc_earliest(&when, bc_program_due());
	if (outcome == NULL && waiting_since == 0)
	{
		bc_earliest(&when, turn_end);
		bc_earliest(&when, setup_end);
		bc_earliest(&when, expect_end);
		bc_earliest(&when, silence_end());
	}
	if (outcome == NULL)
		bc_earliest(&when, cancel_end);
	bc_earliest(&when, transport_due());
	return bc_poll_timeout(when);
}

/* One pass of the loop. */
static void
serve(void)
{
	bool		reading = bc_up_pending() < BC_UP_HIGH_WATER;
	struct pollfd p[2 + BC_PROGRAM_FDS + MAX_FDS] = {
		{STDIN_FILENO, POLLIN, 0},
		{bc_up_pending() > 0 ? STDOUT_FILENO : -1, POLLOUT, 0},
	};
	struct pollfd *program = p + 2;
	struct pollfd *its_own = program + BC_PROGRAM_FDS;
	size_t		n = 0;

	/* While we do not listen, silence is ours. */
	if (!reading)
		last_sign = bc_now();
	bc_program_fds(program, reading);
	if (reading && transport->pollfds != NULL && setup_index == nsetup)
		n = transport->pollfds(its_own, MAX_FDS);
	(void) poll(p, (nfds_t) (2 + BC_PROGRAM_FDS + n), poll_timeout());
	if (p[0].revents)
		read_dispatcher();
	bc_program_serve(program, reading);
	if (n > 0)
		transport->served(its_own, n);
	if (passed(transport_due(), bc_now()))
		transport->tick();
	stand_still(bc_now());
	check_deadlines(bc_now());
	bc_stream_flush(false);
	if (!bc_up_flush())
		dispatcher_gone = true;
}

/* Is there nothing more to do for this turn? */
static bool
turn_over(void)
{
	if (kept)
		return true;
	return !bc_program_exists() && (outcome != NULL || !transport->remote) && !lingering();
}

static _Noreturn void
abandon(void)
{
	bc_program_kill();
	_exit(0);
}

/* Everything that must be there before a program is started. */
static bool
prepare(void)
{
	const char *cwd = json_string_value(json_object_get(order, "cwd"));
	const char *git_dir = json_string_value(json_object_get(order, "git_dir"));
	int			dir;

	transport = find_transport(json_string_value(json_object_get(order, "transport")));
	if (transport == NULL)
	{
		settle("failed", "transport_unsupported", "the provider's transport is not supported");
		return false;
	}
	/* An agent of an earlier turn may have locked itself, and us, out. */
	if (cwd != NULL && access(cwd, X_OK) < 0)
		(void) bc_regain(AT_FDCWD, cwd);
	if (cwd == NULL || (dir = bc_sandbox_open(cwd)) < 0)
	{
		settle("failed", "worktree_missing", "the worktree is not there, or is a symbolic link");
		return false;
	}
	close(dir);
	if (git_dir != NULL && access(git_dir, F_OK) < 0)
	{
		settle("failed", "repository_missing", "the repository of the project is not there");
		return false;
	}
	if (!bc_sandbox_make_homes(order))
	{
		settle("failed", "spawn_failed", "could not make the agent's home directory");
		return false;
	}
	return true;
}

static void
begin_turn(const json_t *the_order)
{
	json_int_t	limit;

	order = the_order;
	result = json_pack("{s:b}", "ok", 1);
	outcome = reason = NULL;
	free(message);
	message = NULL;
	cancelled = falling_back = kept = has_next_order = false;
	waiting_since = turn_end = setup_end = cancel_end = expect_end = 0;
	last_sign = bc_now();
	if ((limit = bc_agent_limit("timeout_ms")) > 0)
		turn_end = bc_now() + limit;
	bc_stream_reset();
}

/* The first turn: from the setup commands on. */
static void
start_agent(void)
{
	json_int_t	limit;

	bc_parent_is_pipe();
	bc_up_nonblocking();
	setup_index = 0;
	nsetup = json_array_size(json_object_get(order, "setup"));
	if (nsetup > 0 &&
		(limit = json_integer_value(json_object_get(order, "setup_timeout_ms"))) > 0)
		setup_end = bc_now() + limit;
	if (prepare())
		(void) start_program();
}

static json_t *
end_turn(void)
{
	bc_stream_finish();
	if (transport != NULL)
		bc_agent_report("transport", json_string(transport->name));
	bc_agent_report("outcome", json_string(outcome));
	bc_agent_report("reason", reason != NULL ? json_string(reason) : json_null());
	bc_agent_report("message", message != NULL ? json_string(message) : json_null());
	bc_agent_report("summary", json_string(bc_stream_summary()));
	bc_agent_report("stderr_tail", json_string(bc_agent_stderr()));
	bc_agent_report("warm", json_boolean(kept));
	return result;
}

json_t *
bc_agent_run(const json_t *the_order)
{
	bool		again = kept;

	begin_turn(the_order);
	if (again)
	{
		bc_program_forget_stderr();
		transport->again();
	}
	else
		start_agent();
	if (transport != NULL && !turn_over())
	{
		/* What came together with the order has been read, so poll() will not tell of it. */
		read_dispatcher();
		while (!turn_over() && !dispatcher_gone)
			serve();
		if (dispatcher_gone)
			abandon();
	}
	return end_turn();
}

bool
bc_agent_kept(void)
{
	return kept;
}

const BcBuf *
bc_agent_next_order(void)
{
	bc_up_nonblocking();
	read_dispatcher();
	while (!has_next_order && !dispatcher_gone && (transport->remote || bc_program_exists()))
		serve();
	if (has_next_order)
		return &next_order;
	abandon();
}
