/* SPDX-License-Identifier: PostgreSQL */
/*
 * program.c
 *	  The program of a runner, from its start to its end.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/procs.h"
#include "runner/program.h"
#include "runner/spawn.h"
#include "runner/stream.h"
#include "runner/text.h"

#define READ_SIZE (64 * 1024)
#define STDERR_TAIL (64 * 1024)
#define MAX_INPUT_QUEUE (32 * 1024 * 1024)
#define QUIT_GRACE_MS 500
#define DRAIN_MS 1000
#define KILLED_GRACE_MS 1000

/* How far it is from its end */
typedef enum Stage
{
	STAGE_NONE,					/* there is no program */
	STAGE_RUNNING,
	STAGE_QUITTING,				/* its input was closed */
	STAGE_TERMINATING,			/* SIGTERM was sent */
	STAGE_KILLED,
	STAGE_DRAINING				/* ended; what is left in its pipes is read */
} Stage;

static const BcTerminal screen = {.rows = 24, .columns = 100};

static const BcProgramOwner *owner;
static BcChild child;
static Stage stage;
static int64_t stage_end;		/* when the next stage begins; 0: not by time */
static json_int_t term_grace;	/* ms */
static bool sandboxed;
static int	exit_code;
static int	exit_signal;

static BcBuf input;
static bool input_closing;
static BcBuf errors;			/* the tail of stderr */
static BcBuf errors_clean;

static void
enter(Stage next, int64_t duration_ms)
{
	stage = next;
	stage_end = duration_ms >= 0 ? bc_now() + duration_ms : 0;
}

bool
bc_program_start(const BcProgramOwner *its_owner, const json_t *order, const json_t *command,
				 const char *extra, bool terminal, BcFailure *failure)
{
	BcLaunch	launch = {.terminal = terminal};
	int			error;

	if (!bc_sandbox_launch(order, command, extra, &launch, failure))
		return false;
	sandboxed = !launch.guarded;
	error = bc_spawn(&launch, terminal ? &screen : NULL, &child);
	bc_sandbox_free(&launch);
	if (error != 0)
	{
		failure->reason = "spawn_failed";
		failure->message = bc_asprintf("could not start the agent: %s", strerror(error));
		failure->hint = NULL;
		return false;
	}
	owner = its_owner;
	bc_buf_clear(&input);
	bc_buf_clear(&errors);
	input_closing = false;
	enter(STAGE_RUNNING, -1);
	return true;
}

bool
bc_program_exists(void)
{
	return stage != STAGE_NONE;
}

pid_t
bc_program_pid(void)
{
	return stage != STAGE_NONE ? child.pid : -1;
}

bool
bc_program_runs(void)
{
	return stage == STAGE_RUNNING;
}

bool
bc_program_write(const char *bytes, size_t len)
{
	if (stage == STAGE_NONE || child.in < 0)
		return true;
	if (input.len + len > MAX_INPUT_QUEUE)
		return false;
	bc_buf_add(&input, bytes, len);
	return true;
}

bool
bc_program_reads_lines(void)
{
	return bc_spawn_reads_lines(&child);
}

void
bc_program_close_input(void)
{
	input_closing = true;
}

void
bc_program_quit(json_int_t term_grace_ms)
{
	if (stage != STAGE_RUNNING)
		return;
	bc_spawn_close(&child.in);
	term_grace = term_grace_ms;
	enter(STAGE_QUITTING, QUIT_GRACE_MS);
}

void
bc_program_terminate(json_int_t term_grace_ms)
{
	if (stage == STAGE_NONE || stage >= STAGE_TERMINATING)
		return;
	bc_spawn_close(&child.in);
	bc_spawn_terminate(&child);
	enter(STAGE_TERMINATING, term_grace_ms);
}

void
bc_program_kill(void)
{
	if (stage != STAGE_NONE)
		bc_spawn_kill(&child);
}

const char *
bc_program_stderr(void)
{
	size_t		from;

	bc_buf_clear(&errors_clean);
	bc_text_clean(&errors_clean, errors.data, errors.len);
	from = errors_clean.len > STDERR_TAIL ? errors_clean.len - STDERR_TAIL : 0;
	bc_buf_consume(&errors_clean, bc_text_start(errors_clean.data, errors_clean.len, from));
	return errors_clean.data != NULL ? errors_clean.data : "";
}

void
bc_program_forget_stderr(void)
{
	bc_buf_clear(&errors);
}

/*
 * What was opened is not where it was when bubblewrap looked: whoever moved it
 * has put it back, or has not.
 */
static bool
was_replaced(const char *text)
{
	return strstr(text, "Race condition") != NULL || strstr(text, ": No such file or directory") != NULL;
}

/* bubblewrap reports its own failures on stderr, and so does nothing else that way. */
bool
bc_program_sandbox_failed(int code, BcFailure *failure)
{
	const char *text = bc_program_stderr();

	if (!sandboxed || code != 1 || strncmp(text, "bwrap: ", 7) != 0)
		return false;
	/* All was set up; it is the program that does not start. */
	if (strncmp(text, "bwrap: execvp ", 14) == 0)
		*failure = (BcFailure) {
			"spawn_failed", bc_asprintf("could not start the agent: %s", text + 14),
			"If it is a script, its interpreter must be visible in the sandbox, too "
			"(boocoder.sandbox_ro_paths)."
		};
	else if (was_replaced(text))
		*failure = (BcFailure) {
			"worktree_missing",
			bc_asprintf("the worktree was replaced while the agent was started: %s", text), NULL
		};
	else
		*failure = (BcFailure) {
			"sandbox_unavailable", bc_asprintf("%s", text), "See boocoder.doctor()."
		};
	return true;
}

static void
handle_exit(int status)
{
	exit_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	/* The sandbox reports a signal as a shell does. */
	if (sandboxed && exit_code > 128 && exit_code < 128 + NSIG)
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

	if (child.out < 0)
		owner->output_closed();
	if (n > 0)
		owner->output(buffer, n);
}

static void
read_errors(void)
{
	static char buffer[READ_SIZE];
	size_t		n = bc_spawn_read(&child.err, buffer, READ_SIZE);

	if (n == 0)
		return;
	bc_buf_add(&errors, buffer, n);
	if (errors.len > 2 * STDERR_TAIL)
		bc_buf_consume(&errors, errors.len - STDERR_TAIL);
	owner->errors(buffer, n);
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

/* The time of a stage has passed. */
static void
next_stage(void)
{
	switch (stage)
	{
		case STAGE_QUITTING:
			bc_program_terminate(term_grace);
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
		case STAGE_NONE:
		case STAGE_RUNNING:
			break;
	}
}

void
bc_program_fds(struct pollfd *fds, bool reading)
{
	bool		exists = stage != STAGE_NONE;

	fds[0] = (struct pollfd) {exists && reading ? child.out : -1, POLLIN, 0};
	fds[1] = (struct pollfd) {exists && reading ? child.err : -1, POLLIN, 0};
	fds[2] = (struct pollfd) {exists && input.len > 0 ? child.in : -1, POLLOUT, 0};
	fds[3] = (struct pollfd) {exists && stage != STAGE_DRAINING ? child.pidfd : -1, POLLIN, 0};
	if (stage != STAGE_DRAINING)
		return;
	/* What waits in the pipes while we do not read is not given up. */
	if (!reading)
		stage_end = 0;
	else if (stage_end == 0)
		enter(STAGE_DRAINING, DRAIN_MS);
}

int64_t
bc_program_due(void)
{
	/* Without a pidfd, or once that is used up, the end is looked for. */
	if (stage != STAGE_NONE && stage != STAGE_DRAINING && child.pidfd < 0 &&
		(stage_end == 0 || stage_end > bc_now() + 20))
		return bc_now() + 20;
	return stage_end;
}

void
bc_program_serve(const struct pollfd *fds, bool reading)
{
	int			status;

	if (stage == STAGE_NONE)
		return;
	if (fds[0].revents && child.out >= 0)
		read_output();
	if (fds[1].revents && child.err >= 0)
		read_errors();
	if (fds[2].revents && child.in >= 0 && input.len > 0)
		write_input();
	if (input_closing && input.len == 0)
		bc_spawn_close(&child.in);
	if (stage != STAGE_DRAINING && bc_spawn_ended(&child, &status))
		handle_exit(status);
	if (stage_end != 0 && stage_end <= bc_now() && (reading || stage != STAGE_DRAINING))
		next_stage();
	if (stage == STAGE_DRAINING && child.out < 0 && child.err < 0)
	{
		bc_spawn_close(&child.in);
		bc_spawn_close(&child.control);
		stage = STAGE_NONE;
		stage_end = 0;
		owner->ended(exit_code, exit_signal);
	}
}
