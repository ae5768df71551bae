/* SPDX-License-Identifier: PostgreSQL */
/*
 * main.c
 *	  boocoder-runner: takes an order from its standard input, carries it out,
 *	  writes the result to its standard output, and ends; unless it keeps an
 *	  agent for another order.
 *
 * The dispatcher starts it, usually before there is an order.  It never
 * outlives its pipe: when the dispatcher goes, everything it started goes too.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runner/agent.h"
#include "runner/check.h"
#include "runner/git_roles.h"
#include "runner/parent.h"
#include "runner/paths.h"
#include "runner/probe.h"
#include "runner/server.h"
#include "runner/stream.h"
#include "runner/text.h"
#include "runner/up.h"

#define EXIT_BAD_ORDER 1		/* no other one is harmless to a postmaster that adopts us, see parent.h */
#define MAX_RESULT_STRING BC_MESSAGE_MAX

typedef struct Role
{
	const char *name;
	json_t	   *(*run) (const json_t *order);
} Role;

static const Role roles[] = {
	{"agent", bc_agent_run},
	{"worktree", bc_git_worktree},
	{"diff", bc_git_diff},
	{"apply", bc_git_apply},
	{"remove", bc_git_remove},
	{"assess", bc_git_assess},
	{"rewrite", bc_git_rewrite},
	{"inspect", bc_git_inspect},
	{"check", bc_check_run},
	{"probe", bc_probe_run},
	{"server", bc_server_run},
};

static void
close_inherited(void)
{
	if (syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0) == 0)
		return;
	for (long fd = sysconf(_SC_OPEN_MAX) - 1; fd > STDERR_FILENO; fd--)
		close((int) fd);
}

static void
become_runner(void)
{
	struct rlimit no_core = {0, 0};
	sigset_t	none;

	close_inherited();
	/* An inherited "ignore" of SIGCHLD would cost us every exit status. */
	for (int s = 1; s < NSIG; s++)
		(void) signal(s, SIG_DFL);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
	(void) signal(SIGPIPE, SIG_IGN);
	(void) setrlimit(RLIMIT_CORE, &no_core);
	(void) prctl(PR_SET_CHILD_SUBREAPER, 1);
	bc_parent_watch();
	(void) umask(022);
	/* Nobody's current directory should be kept busy by us. */
	if (chdir("/") < 0)
		_exit(EXIT_BAD_ORDER);
}

static json_t *
carry_out(const json_t *order)
{
	const char *name = json_string_value(json_object_get(order, "role"));

	for (size_t i = 0; name != NULL && i < sizeof(roles) / sizeof(roles[0]); i++)
		if (strcmp(name, roles[i].name) == 0)
			return roles[i].run(order);
	return json_pack("{s:b, s:s, s:s}", "ok", 0, "reason", "internal_error",
					 "message", "the order's role is unknown");
}

/* NULL: it is not JSON. */
static json_t *
read_order(const BcBuf *payload)
{
	json_error_t error;
	json_t	   *order = json_loadb(payload->data, payload->len, 0, &error);

	if (order == NULL)
		fprintf(stderr, "boocoder-runner: the order is not JSON: %s\n", error.text);
	else
		bc_paths_expand_home(order);
	return order;
}

static void
send_result(const json_t *result)
{
	BcBuf		text = BC_BUF_INIT;

	bc_stream_flush(true);
	bc_text_json(&text, result, MAX_RESULT_STRING);
	bc_up_send_result(text.data, text.len, bc_agent_kept());
	bc_buf_free(&text);
	(void) bc_up_drain();
}

int
main(void)
{
	BcBuf		payload = BC_BUF_INIT;
	json_t	   *order;

	become_runner();
	bc_up_init();
	/* What takes time when it is first asked for is asked for while nobody waits. */
	(void) bc_paths_user();
	if (!bc_up_wait_order(&payload))
		return 0;
	for (order = read_order(&payload); order != NULL;)
	{
		json_t	   *result = carry_out(order);
		json_t	   *next;

		send_result(result);
		json_decref(result);
		if (!bc_agent_kept())
			return 0;
		next = read_order(bc_agent_next_order());
		json_decref(order);
		order = next;
	}
	return EXIT_BAD_ORDER;
}
