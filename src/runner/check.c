/* SPDX-License-Identifier: PostgreSQL */
/*
 * check.c
 *	  Tries out the sandbox and the worktree root, for doctor().
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/check.h"
#include "runner/parent.h"
#include "runner/paths.h"
#include "runner/sandbox.h"
#include "runner/spawn.h"
#include "runner/stream.h"
#include "runner/talk.h"
#include "runner/up.h"

#define TRY_TIMEOUT_MS 10000

static void
add(json_t *checks, const char *check, const char *status, const char *detail, const char *hint)
{
	json_array_append_new(checks, json_pack("{s:s, s:s, s:s, s:s?}", "check", check,
											"status", status, "detail", detail, "hint", hint));
}

/* Runs "true" in the sandbox; what it says on stderr goes to "said". */
static bool
try_sandbox(const json_t *order, const char *home, BcBuf *said)
{
	json_t	   *trial = json_deep_copy(order);
	json_t	   *command = json_pack("[s]", "true");
	BcLaunch	launch = {NULL};
	BcFailure	failure;
	BcChild		child;
	int64_t		end = bc_now() + TRY_TIMEOUT_MS;
	int			status = -1;
	int			error;
	bool		launched;

	json_object_set_new(trial, "cwd", json_string(home));
	json_object_set_new(json_object_get(trial, "sandbox"), "home", json_string(home));
	launched = bc_sandbox_launch(trial, command, NULL, &launch, &failure);
	json_decref(command);
	json_decref(trial);
	if (!launched)
	{
		bc_buf_str(said, failure.message);
		free(failure.message);
		return false;
	}
	error = bc_spawn(&launch, NULL, &child);
	bc_sandbox_free(&launch);
	if (error != 0)
	{
		bc_buf_str(said, strerror(error));
		return false;
	}
	while (!bc_spawn_ended(&child, &status) && bc_now() < end && !bc_talk_cancelled())
	{
		struct pollfd p[2] = {{STDIN_FILENO, POLLIN, 0}, {child.pidfd, POLLIN, 0}};

		(void) poll(p, 2, child.pidfd >= 0 ? 100 : 10);
	}
	{
		ssize_t		n = read(child.err, bc_buf_reserve(said, 4096), 4096);

		if (n > 0)
			said->len += (size_t) n;
		bc_buf_add(said, "", 0);
	}
	bc_spawn_kill(&child);
	bc_spawn_close(&child.out);
	bc_spawn_close(&child.err);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void
check_sandbox(json_t *checks, const json_t *order, const char *root)
{
	const char *mode =
		json_string_value(json_object_get(json_object_get(order, "sandbox"), "mode"));
	BcBuf		said = BC_BUF_INIT;

	if (mode != NULL && strcmp(mode, "off") == 0)
		add(checks, "sandbox", "warning", "agents run without a sandbox, as the server's user",
			"Set boocoder.sandbox = on unless agents run as another user.");
	else if (try_sandbox(order, root, &said))
		add(checks, "sandbox", "ok", "bubblewrap works", NULL);
	else if (said.len > 0 && strstr(said.data, "--bind-fd") != NULL)
		add(checks, "sandbox", "error", said.data,
			"Update bubblewrap: to 0.10, or to an older one with the fix of CVE-2024-42472.");
	else
		add(checks, "sandbox", "error", said.len > 0 ? said.data : "bubblewrap does not work",
			"Install bubblewrap and allow unprivileged user namespaces "
			"(kernel.unprivileged_userns_clone, AppArmor).");
	bc_buf_free(&said);
}

/* They have no place in the file system that could be hidden, and no rights. */
static void
check_sockets(json_t *checks, const json_t *order)
{
	const json_t *sandbox = json_object_get(order, "sandbox");
	const char *mode = json_string_value(json_object_get(sandbox, "mode"));
	const char *name =
		json_string_value(json_array_get(json_object_get(order, "abstract_sockets"), 0));
	char	   *detail;

	if (name == NULL ||
		(!json_is_true(json_object_get(sandbox, "network")) && (mode == NULL || strcmp(mode, "off") != 0)))
		return;
	detail = bc_asprintf("the server listens on the abstract socket \"%s\", which agents can reach", name);
	add(checks, "sockets", "warning", detail,
		"Name directories only in unix_socket_directories, set boocoder.sandbox_network = off, "
		"or let pg_hba.conf ask for passwords on local connections.");
	free(detail);
}

json_t *
bc_check_run(const json_t *order)
{
	const char *root = json_string_value(json_object_get(order, "root"));
	json_t	   *checks = json_array();
	char	   *real = bc_paths_resolve(root);
	char	   *why;

	bc_parent_is_pipe();
	bc_up_nonblocking();
	why = bc_paths_check_root(root, json_object_get(order, "forbidden"), NULL);

	if (why != NULL)
		add(checks, "worktree root", "error", why,
			"Set boocoder.worktree_root to a directory of the server's user, outside of the "
			"data directory.");
	else
	{
		add(checks, "worktree root", "ok", root, NULL);
		check_sandbox(checks, order, real);
	}
	check_sockets(checks, order);
	free(real);
	free(why);
	return json_pack("{s:b, s:o}", "ok", 1, "checks", checks);
}
