/* SPDX-License-Identifier: PostgreSQL */
/*
 * agent.c
 *	  The event loop of a turn: setup commands, then the agent, until the
 *	  outcome is known and nothing of it runs any more.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/agent.h"
#include "runner/procs.h"
#include "runner/sandbox.h"
#include "runner/spawn.h"
#include "runner/stream.h"
#include "runner/text.h"
#include "runner/up.h"

#define READ_SIZE (64 * 1024)
#define STDERR_TAIL (64 * 1024)
#define MAX_INPUT_QUEUE (32 * 1024 * 1024)
#define MAX_ARGUMENT (100 * 1024)	/* the kernel takes no argument over 128 kB */
#define QUIT_GRACE_MS 500
#define DRAIN_MS 1000
#define KILLED_GRACE_MS 1000
#define CLOSED_GRACE_MS 500
#define WORKING_FACTOR 10		/* of the limit of silence while a tool runs */

/* How far the running program is from its end */
typedef enum Stage
{
	STAGE_RUNNING,
	STAGE_QUITTING,				/* its input was closed */
	STAGE_TERMINATING,			/* SIGTERM was sent */
	STAGE_KILLED,
	STAGE_DRAINING				/* ended; what is left in its pipes is read */
} Stage;

static const BcTransport *const transports[] = {
	&bc_transport_acp,
	&bc_transport_command,
	&bc_transport_pty,
	&bc_transport_stream_json,
	&bc_transport_opencode,
};

static const BcTerminal screen = {.rows = 24, .columns = 100};

static const json_t *order;		/* with what the fallback says, once that is used */
static const BcTransport *transport;
static json_t *result;

static BcChild child;
static Stage stage;
static int64_t stage_end;		/* when the next stage begins; 0: not by time */
static size_t setup_index;		/* setup command that runs now */
static size_t nsetup;			/* all of them; setup_index == nsetup: the agent itself */
static int	exit_code;
static int	exit_signal;

static BcBuf input;
static bool input_closing;
static BcBuf errors;			/* the tail of stderr */
static BcBuf errors_clean;

static const char *outcome;
static const char *reason;
static char *message;
static bool cancelled;
static bool falling_back;		/* this program is given up, the one of the fallback is next */
static bool dispatcher_gone;

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
	size_t		from;

	bc_buf_clear(&errors_clean);
	bc_text_clean(&errors_clean, errors.data, errors.len);
	from = errors_clean.len > STDERR_TAIL ? errors_clean.len - STDERR_TAIL : 0;
	bc_buf_consume(&errors_clean, bc_text_start(errors_clean.data, errors_clean.len, from));
	return errors_clean.data != NULL ? errors_clean.data : "";
}

void
bc_agent_write(const char *bytes, size_t len)
{
	if (child.in < 0 || outcome != NULL)
		return;
	/* An agent that asks but never reads what it is answered */
	if (input.len + len > MAX_INPUT_QUEUE)
		bc_agent_finish("failed", "protocol_error", "the agent does not read its input");
	else
		bc_buf_add(&input, bytes, len);
}

void
bc_agent_close_input(void)
{
	input_closing = true;
}

void
bc_agent_expect(json_int_t within_ms, const char *if_not, const char *text)
{
	expect_end = within_ms > 0 ? bc_now() + within_ms : 0;
	expect_reason = if_not;
	expect_message = text;
}

static void
enter(Stage next, int64_t duration_ms)
{
	stage = next;
	stage_end = duration_ms >= 0 ? bc_now() + duration_ms : 0;
}

static void
quit(void)
{
	if (stage != STAGE_RUNNING)
		return;
	bc_spawn_close(&child.in);
	enter(STAGE_QUITTING, QUIT_GRACE_MS);
}

static void
terminate(void)
{
	if (stage >= STAGE_TERMINATING)
		return;
	bc_spawn_close(&child.in);
	bc_spawn_terminate(&child);
	enter(STAGE_TERMINATING, bc_agent_limit("term_grace_ms"));
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
	settle(what, why, text);
	quit();
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

/* Starts the setup command that is next, or the agent.  False: the outcome is settled. */
static bool
start_program(void)
{
	bool		is_agent = setup_index == nsetup;
	const char *prompt = json_string_value(json_object_get(order, "input"));
	const char *cwd = json_string_value(json_object_get(order, "cwd"));
	bool		argument = is_agent && transport->prompt_argument && prompt != NULL &&
		strlen(prompt) <= MAX_ARGUMENT;
	BcLaunch	launch = {NULL, NULL, false};
	BcFailure	failure;
	json_t	   *command = stage_command();
	int			error;

	if (!bc_sandbox_launch(order, command, argument ? prompt : NULL, &launch, &failure))
	{
		settle("failed", failure.reason, failure.message);
		if (failure.hint != NULL)
			bc_agent_report("hint", json_string(failure.hint));
		free(failure.message);
		json_decref(command);
		return false;
	}
	json_decref(command);
	error = bc_spawn(launch.argv, launch.envp, cwd, launch.guarded,
					 is_agent && transport->terminal ? &screen : NULL, &child);
	bc_sandbox_free(&launch);
	if (error != 0)
	{
		char	   *text = bc_asprintf("could not start the agent: %s", strerror(error));

		settle("failed", "spawn_failed", text);
		free(text);
		return false;
	}
	bc_buf_clear(&input);
	bc_buf_clear(&errors);
	input_closing = false;
	last_sign = bc_now();
	enter(STAGE_RUNNING, -1);
	bc_stream_event("status", json_pack("{s:s}", "phase", is_agent ? "spawned" : "setup"));
	if (is_agent)
		transport->start();
	else
		bc_agent_close_input();
	return true;
}

static bool
sandboxed(void)
{
	return child.control < 0;
}

/* bubblewrap reports its own failures on stderr, and so does nothing else that way. */
static bool
sandbox_failed(void)
{
	return sandboxed() && exit_code == 1 && strncmp(bc_agent_stderr(), "bwrap: ", 7) == 0;
}

static void
settle_sandbox_failure(void)
{
	const char *text = bc_agent_stderr();

	/* All was set up; it is the program that does not start. */
	if (strncmp(text, "bwrap: execvp ", 14) == 0)
	{
		char	   *told = bc_asprintf("could not start the agent: %s", text + 14);

		settle("failed", "spawn_failed", told);
		bc_agent_report("hint", json_string("If it is a script, its interpreter must be visible "
											"in the sandbox, too (boocoder.sandbox_ro_paths)."));
		free(told);
		return;
	}
	settle("failed", "sandbox_unavailable", text);
	bc_agent_report("hint", json_string("See boocoder.doctor()."));
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

/* The program has ended and its pipes are empty. */
static void
program_ended(void)
{
	bool		failed_sandbox = sandbox_failed();

	bc_spawn_close(&child.in);
	bc_spawn_close(&child.out);
	bc_spawn_close(&child.err);
	bc_spawn_close(&child.control);
	bc_stream_end_text();
	if (outcome == NULL && cancelled)
		settle("cancelled", "cancelled", "cancelled on request");
	else if (outcome == NULL && failed_sandbox)
		settle_sandbox_failure();
	else if (outcome == NULL && setup_index < nsetup)
	{
		if (exit_code != 0)
		{
			char	   *text = bc_asprintf("setup command %zu ended with %s %d", setup_index + 1,
										   exit_signal ? "signal" : "status",
										   exit_signal ? exit_signal : exit_code);

			settle("failed", "setup_failed", text);
			free(text);
		}
		else
		{
			setup_index++;
			(void) start_program();
			if (setup_index == nsetup)
				setup_end = 0;
			return;
		}
	}
	else if (outcome == NULL && falling_back)
		start_fallback();
	else if (outcome == NULL)
	{
		bc_agent_report("exit_code", exit_signal ? json_null() : json_integer(exit_code));
		bc_agent_report("signal", exit_signal ? json_integer(exit_signal) : json_null());
		transport->ended(exit_code, exit_signal);
		if (falling_back)
			start_fallback();
		else
			settle("failed", "agent_exited", "the agent ended");
	}
}

static void
handle_exit(int status)
{
	exit_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	/* The sandbox reports a signal as a shell does. */
	if (sandboxed() && exit_code > 128 && exit_code < 128 + NSIG)
	{
		exit_signal = exit_code - 128;
		exit_code = -1;
	}
	/* Whatever it left behind ends now; that also closes the pipes. */
	(void) bc_procs_kill_all(DRAIN_MS);
	enter(STAGE_DRAINING, DRAIN_MS);
}

static void
read_output(void)
{
	static char buffer[READ_SIZE];
	size_t		n = bc_spawn_read(&child.out, buffer, READ_SIZE);

	/* A conversation is over with its output, whether or not the process ends too. */
	if (child.out < 0 && transport->has_protocol && setup_index == nsetup && outcome == NULL &&
		!falling_back)
		bc_agent_expect(CLOSED_GRACE_MS, "agent_exited", "the agent closed its output");
	if (n == 0)
		return;
	last_sign = bc_now();
	if (setup_index < nsetup)
		bc_stream_log("setup", buffer, n);
	else if (outcome == NULL && !falling_back)
		transport->output(buffer, n);
}

static void
read_errors(void)
{
	static char buffer[READ_SIZE];
	size_t		n = bc_spawn_read(&child.err, buffer, READ_SIZE);

	if (n == 0)
		return;
	last_sign = bc_now();
	bc_stream_log(setup_index < nsetup ? "setup" : "stderr", buffer, n);
	bc_buf_add(&errors, buffer, n);
	if (errors.len > 2 * STDERR_TAIL)
		bc_buf_consume(&errors, errors.len - STDERR_TAIL);
}

static void
write_input(void)
{
	ssize_t		n;

	do
		n = write(child.in, input.data, input.len);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		bc_buf_consume(&input, (size_t) n);
	else if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
	{
		/* It does not read (any more): not an error by itself. */
		bc_buf_clear(&input);
		bc_spawn_close(&child.in);
	}
}

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

static void
read_dispatcher(void)
{
	static BcBuf payload;

	for (;;)
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
				if (frame.type == BC_FRAME_CANCEL)
					handle_cancel();
				else if (frame.type == BC_FRAME_ANSWER)
					handle_answer(&payload);
				break;
		}
	}
}

static void
earliest(int64_t *when, int64_t candidate)
{
	if (candidate != 0 && (*when == 0 || candidate < *when))
		*when = candidate;
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

	if (limit <= 0 || falling_back || !(transport->has_protocol || transport->terminal) || setup_index < nsetup ||
		stage != STAGE_RUNNING || outcome != NULL)
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
	if (!passed(stage_end, now))
		return;
	switch (stage)
	{
		case STAGE_QUITTING:
			terminate();
			break;
		case STAGE_TERMINATING:
			bc_spawn_kill(&child);
			enter(STAGE_KILLED, KILLED_GRACE_MS);
			break;
		case STAGE_KILLED:
			/* It became another user's and can't be killed: the turn ends without it. */
			enter(STAGE_DRAINING, DRAIN_MS);
			break;
		case STAGE_DRAINING:
			/* Somebody we could not kill holds the pipes: enough. */
			bc_spawn_close(&child.out);
			bc_spawn_close(&child.err);
			break;
		case STAGE_RUNNING:
			break;
	}
}

static int64_t
transport_due(void)
{
	return outcome == NULL && setup_index == nsetup && stage == STAGE_RUNNING && !falling_back &&
		transport->due != NULL ? transport->due() : 0;
}

static int
poll_timeout(int64_t now)
{
	int64_t		when = 0;

	earliest(&when, bc_stream_due());
	earliest(&when, stage_end);
	if (outcome == NULL && waiting_since == 0)
	{
		earliest(&when, turn_end);
		earliest(&when, setup_end);
		earliest(&when, expect_end);
		earliest(&when, silence_end());
	}
	if (outcome == NULL)
		earliest(&when, cancel_end);
	earliest(&when, transport_due());
	/* Without a pidfd, or once that is used up, the end is looked for. */
	if (child.pidfd < 0 && stage != STAGE_DRAINING)
		earliest(&when, now + 20);
	if (when == 0)
		return -1;
	return when <= now ? 0 : (int) (when - now < 60000 ? when - now : 60000);
}

/* One pass of the loop. */
static void
serve(void)
{
	bool		reading = bc_up_pending() < BC_UP_HIGH_WATER;
	struct pollfd p[] = {
		{STDIN_FILENO, POLLIN, 0},
		{bc_up_pending() > 0 ? STDOUT_FILENO : -1, POLLOUT, 0},
		{reading ? child.out : -1, POLLIN, 0},
		{reading ? child.err : -1, POLLIN, 0},
		{input.len > 0 ? child.in : -1, POLLOUT, 0},
		{stage != STAGE_DRAINING ? child.pidfd : -1, POLLIN, 0},
	};
	int			status;

	/* While we do not listen, silence is ours, and what waits in the pipes is not given up. */
	if (!reading)
	{
		last_sign = bc_now();
		if (stage == STAGE_DRAINING)
			stage_end = 0;
	}
	else if (stage == STAGE_DRAINING && stage_end == 0)
		enter(STAGE_DRAINING, DRAIN_MS);
	(void) poll(p, sizeof(p) / sizeof(p[0]), poll_timeout(bc_now()));
	if (p[0].revents)
		read_dispatcher();
	if (p[2].revents && child.out >= 0)
		read_output();
	if (p[3].revents && child.err >= 0)
		read_errors();
	if (p[4].revents && child.in >= 0 && input.len > 0)
		write_input();
	if (input_closing && input.len == 0)
		bc_spawn_close(&child.in);
	if (stage != STAGE_DRAINING && bc_spawn_ended(&child, &status))
		handle_exit(status);
	if (passed(transport_due(), bc_now()))
		transport->tick();
	stand_still(bc_now());
	check_deadlines(bc_now());
	bc_stream_flush(false);
	if (!bc_up_flush())
		dispatcher_gone = true;
	if (stage == STAGE_DRAINING && child.out < 0 && child.err < 0)
		program_ended();
}

static bool
program_runs(void)
{
	return stage != STAGE_DRAINING || child.out >= 0 || child.err >= 0;
}

static void
abandon(void)
{
	bc_spawn_kill(&child);
	_exit(0);
}

/* Everything that must be there before a program is started. */
static bool
prepare(void)
{
	const char *cwd = json_string_value(json_object_get(order, "cwd"));
	const char *git_dir = json_string_value(json_object_get(order, "git_dir"));
	const json_t *sandbox = json_object_get(order, "sandbox");
	const char *home = json_string_value(json_object_get(sandbox, "home"));
	const char *lasting =
		json_string_value(json_object_get(json_object_get(sandbox, "agent_home"), "path"));

	transport = find_transport(json_string_value(json_object_get(order, "transport")));
	if (transport == NULL)
	{
		settle("failed", "transport_unsupported", "the provider's transport is not supported");
		return false;
	}
	if (cwd == NULL || access(cwd, X_OK) < 0)
	{
		settle("failed", "worktree_missing", "the worktree is not there");
		return false;
	}
	if (git_dir != NULL && access(git_dir, F_OK) < 0)
	{
		settle("failed", "repository_missing", "the repository of the project is not there");
		return false;
	}
	if (home == NULL || bc_sandbox_mkdir(home) != 0 ||
		(lasting != NULL && bc_sandbox_mkdir(lasting) != 0))
	{
		settle("failed", "spawn_failed", "could not make the agent's home directory");
		return false;
	}
	return true;
}

json_t *
bc_agent_run(const json_t *the_order)
{
	json_int_t	limit;

	order = the_order;
	result = json_pack("{s:b}", "ok", 1);
	child = (BcChild) {0, -1, -1, -1, -1, -1};
	/*
	 * The end of the pipe tells us that the dispatcher has gone.  To be killed
	 * for it as well would interrupt the killing of what the agent started.
	 */
	(void) prctl(PR_SET_PDEATHSIG, 0);
	bc_up_nonblocking();
	nsetup = json_array_size(json_object_get(order, "setup"));
	if ((limit = bc_agent_limit("timeout_ms")) > 0)
		turn_end = bc_now() + limit;
	if (nsetup > 0 &&
		(limit = json_integer_value(json_object_get(order, "setup_timeout_ms"))) > 0)
		setup_end = bc_now() + limit;

	if (prepare() && start_program())
	{
		/* What came together with the order has been read, so poll() will not tell of it. */
		read_dispatcher();
		while (program_runs() && !dispatcher_gone)
			serve();
		if (dispatcher_gone)
			abandon();
	}
	bc_stream_end_text();
	if (transport != NULL)
		bc_agent_report("transport", json_string(transport->name));
	bc_agent_report("outcome", json_string(outcome));
	bc_agent_report("reason", reason != NULL ? json_string(reason) : json_null());
	bc_agent_report("message", message != NULL ? json_string(message) : json_null());
	bc_agent_report("summary", json_string(bc_stream_summary()));
	bc_agent_report("stderr_tail", json_string(bc_agent_stderr()));
	return result;
}
