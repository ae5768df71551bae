/* SPDX-License-Identifier: PostgreSQL */
/*
 * server.c
 *	  Role "server": opencode serve.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "runner/http.h"
#include "runner/line.h"
#include "runner/parent.h"
#include "runner/program.h"
#include "runner/sandbox.h"
#include "runner/server.h"
#include "runner/stream.h"
#include "runner/text.h"
#include "runner/up.h"

#define MAX_FDS 16
#define MAX_LINE 4096			/* of its standard output */
#define FIRST_LOOK_MS 50		/* between looks until it is ready */
#define DEFAULT_INTERVAL_MS 15000
#define DEFAULT_TIMEOUT_MS 5000
#define PASSWORD_BYTES 24
#define LISTENS_AT "http://127.0.0.1:"

static const char username[] = "opencode";

static const json_t *order;
static char password[2 * PASSWORD_BYTES + 1];
static char *url;				/* NULL: it has not told yet */
static BcLines lines;
static bool ready;
static bool requested;			/* its end */
static bool dispatcher_gone;
static bool looking;
static int64_t looked_at;
static int64_t look_at;
static int64_t ready_end;		/* when it must be; 0: it is */
static json_t *result;

static json_int_t
limit(const char *name, json_int_t otherwise)
{
	json_int_t	value = json_integer_value(json_object_get(json_object_get(order, "limits"), name));

	return value > 0 ? value : otherwise;
}

static void
report(const char *key, json_t *value)
{
	json_object_set_new(result, key, value);
}

/* "message" may be NULL. */
static void
fail(const char *reason, const char *message)
{
	if (json_object_get(result, "reason") != NULL)
		return;
	report("ok", json_false());
	report("reason", json_string(reason));
	report("message", message != NULL ? json_string(message) : json_null());
}

/* "payload" is stolen. */
static void
tell(json_t *payload)
{
	BcBuf		text = BC_BUF_INIT;

	bc_text_json(&text, payload, MAX_LINE);
	bc_up_send(BC_FRAME_SERVER, text.data, text.len);
	bc_buf_free(&text);
	json_decref(payload);
}

static bool
make_password(void)
{
	unsigned char bytes[PASSWORD_BYTES];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t) sizeof(bytes))
		return false;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(password + 2 * i, 3, "%02x", bytes[i]);
	return true;
}

/* --- how it is --- */

/*
 * When a process began, in clock ticks since the system did: with the number
 * it tells one process from all others.  0: it is gone.
 */
static json_int_t
start_time(pid_t pid)
{
	char		path[64];
	char		line[1024];
	const char *field;
	ssize_t		n = -1;
	int			fd;

	snprintf(path, sizeof(path), "/proc/%ld/stat", (long) pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
	{
		n = read(fd, line, sizeof(line) - 1);
		close(fd);
	}
	if (n <= 0)
		return 0;
	line[n] = '\0';
	/* The name is in parentheses and may hold anything; behind it, it is the twentieth. */
	field = strrchr(line, ')');
	for (int i = 0; field != NULL && i < 20; i++)
		field = strchr(field + 1, ' ');
	return field != NULL ? atoll(field) : 0;
}

static void
looked(const BcHttpAnswer *answer, void *arg)
{
	bool		ok = answer->status == 200 && json_is_true(json_object_get(answer->body, "healthy"));
	const char *problem = answer->problem;

	(void) arg;
	looking = false;
	if (!ok && problem == NULL)
		problem = answer->status == 200 ? "it says it is not healthy" : "it does not answer as it should";
	if (ready)
	{
		tell(json_pack("{s:s, s:b, s:I, s:i, s:s?}", "state", "health", "ok", ok,
					   "ms", (json_int_t) (bc_now() - looked_at), "status", answer->status,
					   "problem", ok ? NULL : problem));
		look_at = looked_at + limit("health_interval_ms", DEFAULT_INTERVAL_MS);
		return;
	}
	look_at = bc_now() + FIRST_LOOK_MS;
	if (!ok)
		return;
	ready = true;
	ready_end = 0;
	tell(json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:O?}", "state", "ready", "url", url,
				   "username", username, "password", password, "pid", (json_int_t) bc_program_pid(),
				   "start_time", start_time(bc_program_pid()),
				   "version", json_object_get(answer->body, "version")));
	look_at = bc_now() + limit("health_interval_ms", DEFAULT_INTERVAL_MS);
}

static void
look(void)
{
	looking = true;
	looked_at = bc_now();
	bc_http_request("GET", "/global/health", NULL, (int) limit("health_timeout_ms", DEFAULT_TIMEOUT_MS),
					looked, NULL);
}

/* --- the program --- */

/* It tells where it listens: "opencode server listening on http://127.0.0.1:PORT". */
static void
read_line(const char *line, size_t len, void *arg)
{
	const char *at = memmem(line, len, LISTENS_AT, sizeof(LISTENS_AT) - 1);
	size_t		n = sizeof(LISTENS_AT) - 1;
	size_t		digits = 0;

	(void) arg;
	if (at == NULL || url != NULL)
		return;
	len -= (size_t) (at - line);
	while (n + digits < len && isdigit((unsigned char) at[n + digits]))
		digits++;
	if (digits == 0 || digits > 5)
		return;
	url = bc_asprintf("%.*s", (int) (n + digits), at);
	if (bc_http_server(url, username, password))
		look_at = bc_now();
	else
		fail("internal_error", "libcurl can't be used");
}

static void
on_output(const char *bytes, size_t len)
{
	(void) bc_lines_feed(&lines, bytes, len, read_line, NULL);
}

static void
on_output_closed(void)
{
}

static void
on_errors(const char *bytes, size_t len)
{
	(void) bytes;
	(void) len;
}

static void
fail_to_start(BcFailure *failure)
{
	fail(failure->reason, failure->message);
	if (failure->hint != NULL)
		report("hint", json_string(failure->hint));
	free(failure->message);
}

static void
on_ended(int code, int signal)
{
	BcFailure	failure;

	bc_http_forget();
	looking = false;
	report("exit_code", signal != 0 ? json_null() : json_integer(code));
	report("signal", signal != 0 ? json_integer(signal) : json_null());
	if (bc_program_sandbox_failed(code, &failure))
		fail_to_start(&failure);
	else if (!ready && !requested)
	{
		char	   *message = bc_asprintf("the server ended (%s %d) before it was ready",
										  signal != 0 ? "signal" : "status", signal != 0 ? signal : code);

		fail("agent_exited", message);
		free(message);
	}
	tell(json_pack("{s:s, s:O, s:O}", "state", "exited", "exit_code", json_object_get(result, "exit_code"),
				   "signal", json_object_get(result, "signal")));
}

static const BcProgramOwner program_owner = {on_output, on_output_closed, on_errors, on_ended};

/* The order with what makes it a server: where it listens, and its password. */
static json_t *
as_server(void)
{
	json_t	   *made = json_deep_copy(order);
	json_t	   *env = json_object_get(made, "env");
	json_t	   *command = json_object_get(made, "command");

	if (!json_is_object(env))
	{
		env = json_object();
		json_object_set_new(made, "env", env);
	}
	json_object_set_new(env, "OPENCODE_SERVER_PASSWORD", json_string(password));
	json_object_set_new(env, "OPENCODE_SERVER_USERNAME", json_string(username));
	json_array_append_new(command, json_string("--hostname"));
	json_array_append_new(command, json_string("127.0.0.1"));
	json_array_append_new(command, json_string("--port"));
	json_array_append_new(command, json_string("0"));
	return made;
}

/* Everything that must be there before it is started. */
static bool
prepare(void)
{
	const char *cwd = json_string_value(json_object_get(order, "cwd"));

	if (!make_password())
		fail("internal_error", "there are no random numbers");
	else if (!json_is_array(json_object_get(order, "command")))
		fail("program_not_found", "the provider names no program");
	else if (cwd == NULL || bc_sandbox_mkdir(cwd) != 0)
		fail("worktree_missing", "the directory of the worktrees is not there");
	else if (!bc_sandbox_make_homes(order))
		fail("spawn_failed", "could not make the agent's home directory");
	else
		return true;
	return false;
}

static void
start(void)
{
	json_t	   *made = as_server();
	BcFailure	failure;

	if (bc_program_start(&program_owner, made, json_object_get(made, "command"), NULL, false, &failure))
		bc_program_close_input();
	else
		fail_to_start(&failure);
	json_decref(made);
}

static void
end(void)
{
	bc_program_terminate(limit("term_grace_ms", 1));
}

/* --- the loop --- */

static void
read_dispatcher(void)
{
	static BcBuf payload;
	BcFrame		frame;

	for (;;)
		switch (bc_up_receive(&frame, &payload))
		{
			case BC_UP_AGAIN:
				return;
			case BC_UP_CLOSED:
				dispatcher_gone = true;
				return;
			case BC_UP_MESSAGE:
				if (frame.type != BC_FRAME_CANCEL)
					break;
				requested = true;
				end();
				break;
		}
}

static bool
is_due(int64_t when)
{
	return when != 0 && when <= bc_now();
}

static int
poll_timeout(void)
{
	int64_t		when = ready_end;

	bc_earliest(&when, bc_program_due());
	bc_earliest(&when, bc_http_due());
	if (!looking)
		bc_earliest(&when, look_at);
	return bc_poll_timeout(when);
}

static void
serve(void)
{
	struct pollfd p[2 + BC_PROGRAM_FDS + MAX_FDS] = {
		{STDIN_FILENO, POLLIN, 0},
		{bc_up_pending() > 0 ? STDOUT_FILENO : -1, POLLOUT, 0},
	};
	struct pollfd *program = p + 2;
	struct pollfd *http = program + BC_PROGRAM_FDS;
	size_t		n;

	bc_program_fds(program, true);
	n = bc_http_pollfds(http, MAX_FDS);
	(void) poll(p, (nfds_t) (2 + BC_PROGRAM_FDS + n), poll_timeout());
	if (p[0].revents)
		read_dispatcher();
	bc_program_serve(program, true);
	bc_http_served(http, n);
	bc_http_tick();
	if (is_due(ready_end))
	{
		ready_end = 0;
		fail("handshake_timeout", "the server was not ready in time");
		end();
	}
	/* A dispatcher that does not listen needs no news. */
	if (is_due(look_at) && !looking && bc_program_runs() && bc_up_pending() < BC_UP_HIGH_WATER)
		look();
	if (!bc_up_flush())
		dispatcher_gone = true;
}

json_t *
bc_server_run(const json_t *the_order)
{
	order = the_order;
	result = json_pack("{s:b}", "ok", 1);
	bc_lines_init(&lines, MAX_LINE);
	bc_parent_is_pipe();
	bc_up_nonblocking();
	ready_end = bc_now() + limit("handshake_ms", 60000);
	if (prepare())
	{
		bc_sandbox_serve(json_string_value(json_object_get(order, "cwd")));
		start();
	}
	/* What came together with the order has been read, so poll() will not tell of it. */
	read_dispatcher();
	while (bc_program_exists() && !dispatcher_gone)
		serve();
	if (dispatcher_gone)
	{
		bc_program_kill();
		_exit(0);
	}
	report("requested", json_boolean(requested));
	report("stderr_tail", json_string(bc_program_stderr()));
	return result;
}
