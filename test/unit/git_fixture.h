/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_fixture.h
 *	  A project, a worktree root and orders for the tests of the git roles.
 *
 * Every test has a directory of its own.  A role runs in a child process with
 * a deadline, as it does in a runner: one that hangs or crashes fails its test
 * only.  Facts are checked with the git command, never with libgit2.
 */
#ifndef BC_TEST_GIT_FIXTURE_H
#define BC_TEST_GIT_FIXTURE_H

#include "unit.h"

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/git_roles.h"

#define WORKTREE_ID 7
#define DEADLINE_MS 20000
#define HELPER static __attribute__((unused))
#define T(name) cmocka_unit_test_setup_teardown(name, git_setup, git_teardown)

typedef json_t *(*GitRole) (const json_t *order);

static char top[256];			/* $T, the test's directory */
static char project[300];		/* $P, <top>/project: one commit */
static char root[300];			/* $R, <top>/root */
static char worktree[400];		/* $W, <root>/w/s7 */
static char pgdata[300];		/* <top>/pgdata: forbidden */

/* Runs a shell command; fails the test unless it exits 0. */
HELPER __attribute__((format(printf, 1, 2))) void
sh(const char *format,...)
{
	char		command[8192];
	va_list		args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

/* Its output without the last newline, in a static buffer. */
HELPER const char *
sh_output(const char *command)
{
	static char buffer[65536];
	FILE	   *pipe = popen(command, "r");
	size_t		length = fread(buffer, 1, sizeof(buffer) - 1, pipe);

	while (length > 0 && buffer[length - 1] == '\n')
		length--;
	buffer[length] = '\0';
	assert_int_equal(pclose(pipe), 0);
	return buffer;
}

HELPER int
git_setup(void **state)
{
	static const char *const names[] = {"GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"};
	static const char *const mails[] = {"GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"};
	const char *base = getenv("TMPDIR");

	(void) state;
	snprintf(top, sizeof(top), "%s/boocoder-git.XXXXXX", base != NULL ? base : "/tmp");
	if (mkdtemp(top) == NULL)
		return -1;
	snprintf(project, sizeof(project), "%s/project", top);
	snprintf(root, sizeof(root), "%s/root", top);
	snprintf(worktree, sizeof(worktree), "%s/w/s7", root);
	snprintf(pgdata, sizeof(pgdata), "%s/pgdata", top);
	(void) mkdir(pgdata, 0700);
	setenv("P", project, 1);
	setenv("W", worktree, 1);
	setenv("R", root, 1);
	setenv("T", top, 1);
	setenv("GIT_CONFIG_GLOBAL", "/dev/null", 1);
	setenv("GIT_CONFIG_SYSTEM", "/dev/null", 1);
	for (int i = 0; i < 2; i++)
	{
		setenv(names[i], "T", 1);
		setenv(mails[i], "t@example.org", 1);
	}
	sh("git init -q -b main \"$P\" && cd \"$P\" && echo hello > README && mkdir src && "
	   "seq 1 40 > src/main.c && git add -A && git commit -q -m first");
	return 0;
}

HELPER int
git_teardown(void **state)
{
	(void) state;
	if (strstr(top, "/boocoder-git.") == NULL)
		return -1;
	sh("chmod -R u+rwX '%s'; rm -rf '%s'", top, top);
	return 0;
}

HELPER const char *
text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* Starts a role; "*out" is where its result can be read. */
HELPER pid_t
start_role(GitRole role, const json_t *order, int *out)
{
	int			ends[2];
	pid_t		child;

	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (child == 0)
	{
		close(ends[0]);
		(void) json_dumpfd(role(order), ends[1], JSON_COMPACT);
		_exit(0);
	}
	close(ends[1]);
	*out = ends[0];
	return child;
}

/* Carries out an order (taken over); the result is the caller's. */
HELPER json_t *
run_role(GitRole role, json_t *order)
{
	struct pollfd poll_fd = {.events = POLLIN};
	pid_t		child;
	json_t	   *result = NULL;
	int			status;
	int			ready;

	assert_non_null(order);
	child = start_role(role, order, &poll_fd.fd);
	ready = poll(&poll_fd, 1, DEADLINE_MS);
	if (ready == 1)
		result = json_loadfd(poll_fd.fd, 0, NULL);
	else
		kill(child, SIGKILL);
	waitpid(child, &status, 0);
	close(poll_fd.fd);
	json_decref(order);
	if (ready != 1)
		fail_msg("the role hangs");
	if (result == NULL)
		fail_msg("the role ended with status %d and without a result", status);
	return result;
}

HELPER json_t *
worktree_json(const char *diff_base)
{
	return json_pack("{s:i, s:s, s:s, s:s?}", "id", WORKTREE_ID, "path", worktree,
					 "branch", "boocoder/3", "diff_base", diff_base);
}

HELPER json_t *
worktree_order(int id, const char *path, const char *branch, const char *base_ref)
{
	return json_pack("{s:s, s:{s:i, s:s}, s:{s:i, s:s, s:s, s:s?, s:n}, s:s, s:[s]}",
					 "role", "worktree", "project", "id", 1, "path", project,
					 "worktree", "id", id, "path", path, "branch", branch,
					 "base_ref", base_ref, "base_commit",
					 "root", root, "forbidden", pgdata);
}

HELPER json_t *
role_worktree(void)
{
	return run_role(bc_git_worktree, worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL));
}

HELPER json_t *
role_diff(const char *diff_base)
{
	return run_role(bc_git_diff, json_pack("{s:s, s:{s:s}, s:o, s:i}", "role", "diff",
										   "project", "path", project,
										   "worktree", worktree_json(diff_base),
										   "max_bytes", 4 * 1024 * 1024));
}

/* "changes" is taken over; they were made against "base". */
HELPER json_t *
role_apply(json_t *changes, const char *base, bool resume)
{
	return run_role(bc_git_apply, json_pack("{s:s, s:{s:s}, s:o, s:s, s:o, s:b}", "role", "apply",
											"project", "path", project,
											"worktree", worktree_json(base), "base_commit", base,
											"changes", changes, "resume", resume));
}

HELPER json_t *
role_remove(const char *diff_base, bool delete_branch)
{
	return run_role(bc_git_remove, json_pack("{s:s, s:{s:s}, s:o, s:s, s:b}", "role", "remove",
											 "project", "path", project,
											 "worktree", worktree_json(diff_base),
											 "root", root, "delete_branch", delete_branch));
}

HELPER void
assert_ok(const json_t *result)
{
	char	   *text;

	if (json_is_true(json_object_get(result, "ok")))
		return;
	text = json_dumps(result, JSON_COMPACT);
	fail_msg("expected ok: %.600s", text);
}

/* One of the reasons, separated by blanks. */
HELPER void
assert_reason(const json_t *result, const char *reasons)
{
	const char *got = text_of(result, "reason");
	char	   *text;

	if (got != NULL && strstr(reasons, got) != NULL)
		return;
	text = json_dumps(result, JSON_COMPACT);
	fail_msg("expected %s: %.600s", reasons, text);
}

/* A worktree of HEAD, its entry in $E; the base commit, in a static buffer. */
HELPER const char *
make_worktree(void)
{
	static char base[64];
	json_t	   *result = role_worktree();

	assert_ok(result);
	snprintf(base, sizeof(base), "%s", text_of(result, "base_commit"));
	setenv("E", text_of(result, "admin_dir"), 1);
	json_decref(result);
	return base;
}

HELPER size_t
count_of(const json_t *diff)
{
	return json_array_size(json_object_get(diff, "changes"));
}

/* The change of "path"; fails the test when there is none. */
HELPER json_t *
change_of(const json_t *diff, const char *path)
{
	size_t		i;
	json_t	   *change;
	char	   *text;

	json_array_foreach(json_object_get(diff, "changes"), i, change)
	{
		if (strcmp(text_of(change, "path"), path) == 0)
			return change;
	}
	text = json_dumps(diff, JSON_COMPACT);
	fail_msg("no change of %s: %.600s", path, text);
	return NULL;
}

/* Changes of a diff as the order of apply has them, ids from 1. */
HELPER json_t *
order_changes(const json_t *diff)
{
	json_t	   *changes = json_array();
	size_t		i;
	json_t	   *change;

	json_array_foreach(json_object_get(diff, "changes"), i, change)
		json_array_append_new(changes,
							  json_pack("{s:i, s:O, s:O, s:O, s:O}", "id", (int) i + 1,
										"path", json_object_get(change, "path"),
										"old_path", json_object_get(change, "old_path"),
										"kind", json_object_get(change, "kind"),
										"diff", json_object_get(change, "diff")));
	return changes;
}

/*
 * Diffs, and checks that the patches, in order, applied by git to a clean
 * checkout of "base" give exactly the snapshot's tree, and that this is the
 * tree that git itself makes of the worktree.
 */
HELPER json_t *
checked_diff(const char *base)
{
	json_t	   *diff = role_diff(base);
	char		path[300];
	FILE	   *out;
	size_t		i;
	json_t	   *change;

	assert_ok(diff);
	snprintf(path, sizeof(path), "%s/patch", top);
	out = fopen(path, "w");
	json_array_foreach(json_object_get(diff, "changes"), i, change)
	{
		const json_t *text = json_object_get(change, "diff");

		fwrite(json_string_value(text), 1, json_string_length(text), out);
	}
	fclose(out);
	sh("rm -rf \"$T/clean\" && git clone -q --no-checkout \"$P\" \"$T/clean\" && cd \"$T/clean\" && "
	   "git checkout -q -f --detach %s", base);
	if (count_of(diff) > 0)
		sh("cd \"$T/clean\" && git apply --check ../patch && git apply --index ../patch");
	assert_string_equal(sh_output("git -C \"$T/clean\" write-tree"), text_of(diff, "tree"));
	assert_string_equal(sh_output("cd \"$W\" && export GIT_DIR=\"$P/.git\" GIT_WORK_TREE=\"$W\" "
								  "GIT_INDEX_FILE=\"$T/index\"; rm -f \"$T/index\"; git read-tree HEAD && "
								  "git add -A . 2>/dev/null; git write-tree"), text_of(diff, "tree"));
	return diff;
}

#endif							/* BC_TEST_GIT_FIXTURE_H */
