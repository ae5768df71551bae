/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_sandbox.c
 *	  Command line, environment and mounts of an agent.
 */
#include "unit.h"

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "capture.h"
#include "runner/sandbox.h"
#include "runner/spawn.h"

/* Not below /tmp, of which the sandbox has its own */
static char base[] = "/var/tmp/boocoder-sandbox-XXXXXX";
static BcLaunch launch;
static BcFailure failure;

/* "format" with the test's directory for each %s, twice at the most */
static const char *
path_of(const char *format)
{
	static char paths[8][PATH_MAX];
	static int	next;
	char	   *path = paths[next++ % 8];

	snprintf(path, PATH_MAX, "%s/%s", base, format);
	return path;
}

static void
put(const char *name, const char *content, mode_t mode)
{
	FILE	   *file = fopen(path_of(name), "w");

	assert_non_null(file);
	fputs(content, file);
	fclose(file);
	assert_int_equal(chmod(path_of(name), mode), 0);
}

static int
set_up(void **state)
{
	static const char *const directories[] = {
		"project", "project/.git", "wt", "wt/s1", "homes", "homes/s1", "bin", "bin/directory", "shown",
		"shown/data", "other", "agents", "agents/lasting", "wt/worktrees", "wt/worktrees/p1-0", "wt/worktrees/p1-0/s7"
	};

	(void) state;
	if (mkdtemp(base) == NULL)
		return -1;
	for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++)
		if (mkdir(path_of(directories[i]), 0700) != 0)
			return -1;
	put("wt/s1/.git", "gitdir: elsewhere\n", 0600);
	put("bin/program", "#!/bin/sh\n", 0700);
	put("bin/text", "no program\n", 0600);
	put("wt/s1/tool", "#!/bin/sh\n", 0700);
	if (symlink(path_of("shown"), path_of("link")) != 0 || symlink(path_of("shown/data"), path_of("data-link")) != 0 ||
		symlink("/usr/bin/env", path_of("other/env")) != 0)
		return -1;
	return 0;
}

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void) st;
	(void) flag;
	(void) ftw;
	return remove(path);
}

static int
tear_down(void **state)
{
	(void) state;
	bc_sandbox_free(&launch);
	return nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* An order whose sandbox has these members besides its places. */
static json_t *
order_with(const char *sandbox_members)
{
	json_t	   *order = json_object();
	json_t	   *sandbox = json_of(sandbox_members);

	json_object_set_new(order, "task_id", json_integer(42));
	json_object_set_new(order, "cwd", json_string(path_of("wt/s1")));
	json_object_set_new(order, "git_dir", json_string(path_of("project/.git")));
	json_object_set_new(sandbox, "home", json_string(path_of("homes/s1")));
	json_object_set_new(order, "sandbox", sandbox);
	return order;
}

/* Launches; takes the order. */
static bool
try(json_t *order, const char *command, const char *extra)
{
	json_t	   *list = json_of(command);
	bool		done;

	bc_sandbox_free(&launch);
	done = bc_sandbox_launch(order, list, extra, &launch, &failure);
	json_decref(list);
	json_decref(order);
	return done;
}

static void
fails(json_t *order, const char *command, const char *reason, const char *in_message)
{
	assert_false(try(order, command, NULL));
	assert_string_equal(failure.reason, reason);
	assert_non_null(strstr(failure.message, in_message));
	assert_non_null(failure.hint);
	free(failure.message);
}

static int
count(char **list)
{
	int			n = 0;

	while (list[n] != NULL)
		n++;
	return n;
}

/* Where the words follow each other in the command line, -1 if nowhere; NULL words end the search. */
static int
position(const char *a, const char *b, const char *c)
{
	int			n = count(launch.argv);

	for (int i = 0; i < n; i++)
		if (strcmp(launch.argv[i], a) == 0 &&
			(b == NULL || (i + 1 < n && strcmp(launch.argv[i + 1], b) == 0)) &&
			(c == NULL || (i + 2 < n && strcmp(launch.argv[i + 2], c) == 0)))
			return i;
	return -1;
}

static int
shows(const char *option, const char *path)
{
	return position(option, path, path);
}

/* The same for what is mounted by a descriptor, which is that of the path. */
static int
mounts(const char *option, const char *path)
{
	int			n = count(launch.argv);

	for (int i = 0; i + 2 < n; i++)
	{
		struct stat want;
		struct stat st;
		int			number;

		if (strcmp(launch.argv[i], option) != 0 || strcmp(launch.argv[i + 2], path) != 0)
			continue;
		number = atoi(launch.argv[i + 1]) - BC_LAUNCH_FIRST_MOUNT;
		assert_true(number >= 0 && (size_t) number < launch.nmounts);
		assert_int_equal(fstat(launch.mounts[number], &st), 0);
		assert_int_equal(lstat(path, &want), 0);
		assert_true(st.st_dev == want.st_dev && st.st_ino == want.st_ino);
		return i;
	}
	return -1;
}

static const char *
variable(const char *name)
{
	size_t		n = strlen(name);

	for (char **item = launch.envp; *item != NULL; item++)
		if (strncmp(*item, name, n) == 0 && (*item)[n] == '=')
			return *item + n + 1;
	return NULL;
}

static void
add_paths(json_t *order, const char *list, const char *path)
{
	json_t	   *sandbox = json_object_get(order, "sandbox");

	if (json_object_get(sandbox, list) == NULL)
		json_object_set_new(sandbox, list, json_array());
	json_array_append_new(json_object_get(sandbox, list), json_string(path));
}

static void
without_a_sandbox_it_is_the_program(void **state)
{
	(void) state;
	assert_true(try(order_with("{'mode': 'off'}"), "['/bin/sh', '-c', 'true']", "the prompt"));
	assert_true(launch.guarded);
	assert_int_equal(count(launch.argv), 4);
	assert_string_equal(launch.argv[0], "/bin/sh");
	assert_string_equal(launch.argv[2], "true");
	assert_string_equal(launch.argv[3], "the prompt");
}

static void
the_program_comes_last(void **state)
{
	int			n;

	(void) state;
	assert_true(try(order_with("{}"), "['sh', '-c', '--bind']", "-- the prompt"));
	assert_false(launch.guarded);
	n = count(launch.argv);
	assert_string_equal(launch.argv[n - 5], "--");
	assert_non_null(strstr(launch.argv[n - 4], "/sh"));
	assert_string_equal(launch.argv[n - 3], "-c");
	assert_string_equal(launch.argv[n - 2], "--bind");
	assert_string_equal(launch.argv[n - 1], "-- the prompt");
	assert_true(position("--chdir", path_of("wt/s1"), "--") == n - 7);
}

static void
a_terminal_is_taken_inside(void **state)
{
	int			n;

	(void) state;
	launch.terminal = true;
	assert_true(try(order_with("{}"), "['true', '{prompt}']", NULL));
	n = count(launch.argv);
	assert_true(position("--new-session", NULL, NULL) > 0);
	assert_string_equal(launch.argv[n - 7], "--");
	assert_string_equal(launch.argv[n - 6], "/bin/sh");
	assert_non_null(strstr(launch.argv[n - 3], "/setsid"));
	assert_non_null(strstr(launch.argv[n - 2], "/true"));
	/* Without a sandbox there is nobody between it and its terminal. */
	assert_true(try(order_with("{'mode': 'off'}"), "['true']", NULL));
	assert_int_equal(count(launch.argv), 1);
	launch.terminal = false;
}

static void
nothing_is_shared_that_need_not_be(void **state)
{
	static const char *const always[] = {
		"--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session"
	};

	(void) state;
	assert_true(try(order_with("{}"), "['true']", NULL));
	for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
		assert_true(position(always[i], NULL, NULL) > 0);
	assert_true(position("--cap-drop", "ALL", NULL) > 0);
	assert_true(position("--unshare-net", NULL, NULL) > 0);
	assert_true(try(order_with("{'network': true}"), "['true']", NULL));
	assert_int_equal(position("--unshare-net", NULL, NULL), -1);
}

static void
only_worktree_and_home_can_be_written(void **state)
{
	int			writable = 0;

	(void) state;
	assert_true(try(order_with("{'ro_paths': ['/opt']}"), "['true']", NULL));
	for (char **item = launch.argv; *item != NULL; item++)
		writable += strcmp(*item, "--bind") == 0 || strcmp(*item, "--bind-fd") == 0 || strcmp(*item, "--dev-bind") == 0;
	assert_int_equal(writable, 2);
	assert_true(mounts("--bind-fd", path_of("wt/s1")) > 0);
	assert_true(mounts("--bind-fd", path_of("homes/s1")) > 0);
	assert_true(shows("--ro-bind", path_of("project/.git")) > 0);
	/* Over the worktree, not below it */
	assert_true(mounts("--ro-bind-fd", path_of("wt/s1/.git")) > mounts("--bind-fd", path_of("wt/s1")));
	assert_true(position("--remount-ro", "/", NULL) > mounts("--ro-bind-fd", path_of("wt/s1/.git")));
	assert_true(position("--tmpfs", "/tmp", NULL) > 0);
	assert_true(position("--proc", "/proc", NULL) > 0);
	assert_true(position("--dev", "/dev", NULL) > 0);
}

static void
places_of_others_are_not_shown(void **state)
{
	(void) state;
	assert_true(try(order_with("{}"), "['true']", NULL));
	/* An empty directory around each of its own */
	assert_true(position("--tmpfs", path_of("wt"), NULL) > 0);
	assert_true(position("--tmpfs", path_of("wt"), NULL) < mounts("--bind-fd", path_of("wt/s1")));
	assert_true(position("--remount-ro", path_of("wt"), NULL) > mounts("--bind-fd", path_of("wt/s1")));
	assert_true(position("--tmpfs", path_of("project"), NULL) < shows("--ro-bind", path_of("project/.git")));
	assert_int_equal(shows("--ro-bind", "/etc"), -1);
	assert_int_equal(shows("--ro-bind-try", "/etc/shadow"), -1);
	assert_int_equal(shows("--ro-bind-try", "/home"), -1);
}

static void
hidden_places_are_covered_where_they_show(void **state)
{
	json_t	   *order = order_with("{}");

	(void) state;
	add_paths(order, "ro_paths", path_of("shown"));
	add_paths(order, "hide", path_of("shown/data"));
	add_paths(order, "hide", path_of("other"));
	add_paths(order, "hide", path_of("nowhere"));
	assert_true(try(order, "['true']", NULL));
	assert_true(position("--tmpfs", path_of("shown/data"), NULL) > shows("--ro-bind-try", path_of("shown")));
	assert_int_equal(position("--tmpfs", path_of("other"), NULL), -1);
	assert_int_equal(position("--tmpfs", path_of("nowhere"), NULL), -1);

	/* Also where they lie in a place of the agent's */
	order = order_with("{}");
	assert_int_equal(mkdir(path_of("homes/s1/data"), 0700), 0);
	add_paths(order, "hide", path_of("homes/s1/data"));
	assert_true(try(order, "['true']", NULL));
	assert_true(position("--tmpfs", path_of("homes/s1/data"), NULL) > mounts("--bind-fd", path_of("homes/s1")));
	assert_true(try(order_with("{'ro_paths': ['', 'relative', 7, null], 'hide': ['', 'relative', 7]}"), "['true']", NULL));
}

static void
hidden_places_are_known_by_what_they_are(void **state)
{
	json_t	   *order = order_with("{}");

	(void) state;
	add_paths(order, "ro_paths", path_of("shown"));
	add_paths(order, "hide", path_of("data-link"));
	assert_true(try(order, "['true']", NULL));
	assert_true(position("--tmpfs", path_of("shown/data"), NULL) > 0);

	order = order_with("{}");
	add_paths(order, "ro_paths", path_of("shown"));
	add_paths(order, "hide", path_of("link/data"));
	assert_true(try(order, "['true']", NULL));
	assert_true(position("--tmpfs", path_of("shown/data"), NULL) > 0);

	order = order_with("{}");
	add_paths(order, "ro_paths", path_of("link"));
	add_paths(order, "hide", path_of("shown/data"));
	assert_true(try(order, "['true']", NULL));
	assert_true(position("--tmpfs", path_of("link/data"), NULL) > 0);
	assert_int_equal(position("--tmpfs", path_of("shown/data"), NULL), -1);

	order = order_with("{}");
	for (int i = 0; i < 100; i++)
		add_paths(order, "ro_paths", path_of("bin"));
	add_paths(order, "ro_paths", path_of("shown"));
	add_paths(order, "hide", path_of("shown/data"));
	assert_true(try(order, "['true']", NULL));
	assert_true(position("--tmpfs", path_of("shown/data"), NULL) > 0);
}

static void
nothing_shown_replaces_the_private_places(void **state)
{
	json_t	   *order = order_with("{'ro_paths': ['/', '/tmp/tools']}");

	(void) state;
	add_paths(order, "hide", path_of("shown/data"));
	assert_true(try(order, "['true']", NULL));
	assert_true(position("--proc", "/proc", NULL) > shows("--ro-bind-try", "/"));
	assert_true(position("--tmpfs", "/tmp", NULL) > shows("--ro-bind-try", "/"));
	assert_true(shows("--ro-bind-try", "/tmp/tools") > position("--tmpfs", "/tmp", NULL));
	assert_true(position("--tmpfs", path_of("shown/data"), NULL) > 0);
}

static void
something_shown_may_lie_beside_the_agents_places(void **state)
{
	json_t	   *order = order_with("{}");

	(void) state;
	add_paths(order, "ro_paths", path_of("wt/shared"));
	assert_true(try(order, "['true']", NULL));
	assert_true(shows("--ro-bind-try", path_of("wt/shared")) > position("--tmpfs", path_of("wt"), NULL));
}

static void
the_environment_is_a_list(void **state)
{
	json_t	   *order = order_with("{'agent_path': '/opt/bin:/usr/bin'}");

	(void) state;
	setenv("PGDATA", "/secret", 1);
	setenv("BC_SECRET", "s", 1);
	json_object_set_new(order, "env", json_of("{'KEY': 'value', 'LANG': 'C', 'A=B': 'x', '': 'y', 'REF': {'from_env': 'BC_SECRET'}, 'EMPTY': ''}"));
	assert_true(try(order, "['true']", NULL));
	assert_int_equal(count(launch.envp), 13);
	assert_string_equal(variable("REF"), "s");
	assert_string_equal(variable("PATH"), "/opt/bin:/usr/bin");
	assert_string_equal(variable("HOME"), path_of("homes/s1"));
	assert_non_null(variable("USER"));
	assert_string_equal(variable("LOGNAME"), variable("USER"));
	assert_string_equal(variable("SHELL"), "/bin/sh");
	assert_string_equal(variable("TERM"), "dumb");
	assert_string_equal(variable("TMPDIR"), "/tmp");
	assert_string_equal(variable("BOOCODER_TASK_ID"), "42");
	assert_string_equal(variable("BOOCODER_WORKTREE"), path_of("wt/s1"));
	assert_string_equal(variable("KEY"), "value");
	assert_string_equal(variable("LANG"), "C");
	assert_string_equal(variable("EMPTY"), "");
	unsetenv("PGDATA");
}

static void
programs_are_searched(void **state)
{
	char		path[PATH_MAX];
	char	   *found;

	(void) state;
	snprintf(path, sizeof(path), "::/nonexistent:%s:/usr/bin", path_of("bin"));
	found = bc_sandbox_find("program", path);
	assert_string_equal(found, path_of("bin/program"));
	free(found);
	assert_null(bc_sandbox_find("text", path));
	assert_null(bc_sandbox_find("directory", path));
	assert_null(bc_sandbox_find("nothing", path));
	assert_null(bc_sandbox_find("program", ""));
	found = bc_sandbox_find(path_of("bin/program"), "");
	assert_string_equal(found, path_of("bin/program"));
	free(found);
	assert_null(bc_sandbox_find(path_of("bin/text"), path));
}

static void
what_can_not_be_started_has_a_reason(void **state)
{
	char		command[PATH_MAX];

	(void) state;
	fails(order_with("{}"), "[]", "program_not_found", "names no program");
	fails(order_with("{}"), "['']", "program_not_found", "names no program");
	fails(order_with("{}"), "[7]", "program_not_found", "names no program");
	fails(order_with("{'agent_path': '/opt/x:/opt/y'}"), "['nothing']", "program_not_found", "/opt/x:/opt/y");
	fails(order_with("{}"), "['/nonexistent/program']", "program_not_found", "/nonexistent/program");
	snprintf(command, sizeof(command), "['%s']", path_of("bin/program"));
	fails(order_with("{}"), command, "program_not_found", "outside of what the sandbox shows");
	assert_true(try(order_with("{'mode': 'off'}"), command, NULL));
	snprintf(command, sizeof(command), "['%s']", path_of("other/env"));
	fails(order_with("{}"), command, "program_not_found", "outside of what the sandbox shows");
	fails(order_with("{}"), "['/usr/share']", "program_not_found", "not executable");
	fails(order_with("{}"), "['./nothing']", "program_not_found", "./nothing");
	assert_true(try(order_with("{}"), "['./tool']", NULL));
}

static void
directories_are_made_for_us_alone(void **state)
{
	struct stat st;

	(void) state;
	assert_int_equal(bc_sandbox_mkdir(path_of("new/home/s7")), 0);
	assert_int_equal(stat(path_of("new/home"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(stat(path_of("new/home/s7"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(bc_sandbox_mkdir(path_of("new/home/s7")), 0);
	assert_int_not_equal(bc_sandbox_mkdir(path_of("bin/text/below")), 0);
}

/* --- places that an agent writes, where it has put links to what it must not see --- */

static bool
has_bubblewrap(void)
{
	return system("bwrap --unshare-pid --ro-bind / / true 2>/dev/null") == 0;
}

static void
sh(const char *script)
{
	assert_int_equal(chdir(base), 0);
	assert_int_equal(system(script), 0);
	assert_int_equal(chdir("/"), 0);
}

/* Takes the order. */
static void
refused(json_t *order, const char *reason, const char *path)
{
	assert_false(try(order, "['true']", NULL));
	assert_string_equal(failure.reason, reason);
	assert_non_null(strstr(failure.message, path));
	assert_non_null(strstr(failure.message, "symbolic link"));
	free(failure.message);
}

/* What the launched program says, on both of its outputs */
static const char *
said(void)
{
	static char text[4096];
	size_t		len = 0;
	BcChild		child;
	int			status;
	ssize_t		n;

	assert_int_equal(bc_spawn(&launch, NULL, &child), 0);
	for (int *fd = &child.out; fd != NULL; fd = fd == &child.out ? &child.err : NULL)
	{
		(void) fcntl(*fd, F_SETFL, 0);
		while ((n = read(*fd, text + len, sizeof(text) - 1 - len)) > 0)
			len += (size_t) n;
	}
	text[len] = '\0';
	while (!bc_spawn_ended(&child, &status))
		(void) poll(NULL, 0, 1);
	bc_spawn_close(&child.in);
	bc_spawn_close(&child.out);
	bc_spawn_close(&child.err);
	return text;
}

static json_t *
order_with_lasting_home(void)
{
	json_t	   *order = order_with("{'private': ['.config/goose/permission.yaml', '.codex/rules'], 'agent_home': {}}");

	json_object_set_new(json_object_get(json_object_get(order, "sandbox"), "agent_home"), "path",
						json_string(path_of("agents/lasting")));
	return order;
}

static void
private_parts_lie_where_no_agent_writes(void **state)
{
	(void) state;
	sh("echo secret > other/secret; mkdir -p homes/s1/private/.codex; ln -s \"$PWD/other\" homes/s1/private/.codex/rules");
	assert_true(try(order_with_lasting_home(), "['/bin/sh', '-c', 'cd; cat .codex/rules/*; echo x > .codex/rules/x; cat .codex/rules/x']", NULL));
	assert_true(position(path_of("agents/lasting/.codex/rules"), NULL, NULL) > position(path_of("agents/lasting/.codex"), NULL, NULL));
	if (!has_bubblewrap())
		skip();
	assert_null(strstr(said(), "secret"));
	sh("test ! -e other/x && test -e homes/s1.private/.codex/rules/x && test ! -e agents/lasting/.codex/rules/x && rm -r homes/s1/private");
}

/* bubblewrap follows links where it mounts, and makes the file that one leads to. */
static void
nothing_is_mounted_over_a_link(void **state)
{
	(void) state;
	sh("rm -rf agents/lasting; mkdir -p agents/lasting/.config/goose; ln -s \"/oldroot$PWD/other/new\" agents/lasting/.config/goose/permission.yaml");
	refused(order_with_lasting_home(), "spawn_failed", "permission.yaml");
	sh("rm -rf agents/lasting/.config; mkdir agents/lasting/.config; ln -s \"/oldroot$PWD/other\" agents/lasting/.config/goose");
	refused(order_with_lasting_home(), "spawn_failed", "agents/lasting/.config/goose");
	sh("rm -rf agents/lasting/.config; ln -s \"$PWD/other\" agents/lasting/.config");
	refused(order_with_lasting_home(), "spawn_failed", "agents/lasting/.config");
	sh("test ! -e other/new && test ! -e other/permission.yaml && rm -rf agents/lasting/.config homes/s1.private; ln -s \"$PWD/other\" homes/s1.private");
	refused(order_with_lasting_home(), "spawn_failed", "s1.private");
	sh("rm homes/s1.private; mv agents/lasting lasting-moved; ln -s \"$PWD/other\" agents/lasting");
	refused(order_with_lasting_home(), "spawn_failed", "agents/lasting");
	sh("rm agents/lasting; mv lasting-moved agents/lasting");
	/* Nor can an agent make one while it runs, for the next. */
	assert_true(try(order_with_lasting_home(), "['/bin/sh', '-c', 'cd; for i in .config .codex .config/goose .codex/rules "
					".config/goose/permission.yaml; do mv -T $i $i.x || echo kept; done']", NULL));
	if (!has_bubblewrap())
		skip();
	assert_non_null(strstr(said(), "kept\nkept\nkept\nkept\nkept\n"));
	sh("test -f agents/lasting/.config/goose/permission.yaml && test -d agents/lasting/.codex/rules");
}

static json_t *
order_at(const char *cwd)
{
	json_t	   *order = order_with("{}");

	json_object_set_new(order, "cwd", json_string(path_of(cwd)));
	return order;
}

static void
a_link_is_no_place(void **state)
{
	(void) state;
	assert_true(try(order_at("wt/worktrees/p1-0/s7"), "['true']", NULL));
	sh("ln -s \"$PWD/other\" wt/worktrees/p1-0/s7/.git");
	refused(order_at("wt/worktrees/p1-0/s7"), "worktree_missing", "s7/.git");
	sh("rm wt/worktrees/p1-0/s7/.git; mv wt/worktrees/p1-0/s7 s7; ln -s \"$PWD/other\" wt/worktrees/p1-0/s7");
	refused(order_at("wt/worktrees/p1-0/s7"), "worktree_missing", "p1-0/s7");
	sh("mv wt/worktrees/p1-0 p1; mkdir other/s7; ln -s \"$PWD/other\" wt/worktrees/p1-0");
	refused(order_at("wt/worktrees/p1-0/s7"), "worktree_missing", "p1-0/s7");
	sh("rm wt/worktrees/p1-0; mv p1 wt/worktrees/p1-0; rm wt/worktrees/p1-0/s7; mv s7 wt/worktrees/p1-0; rmdir other/s7");
	sh("mv homes/s1 s1; ln -s \"$PWD/other\" homes/s1");
	refused(order_with("{}"), "spawn_failed", "homes/s1");
	sh("rm homes/s1; mv s1 homes/s1");
	/* What is above the root is the administrator's. */
	sh("ln -s wt root");
	assert_true(try(order_at("root/worktrees/p1-0/s7"), "['true']", NULL));
	sh("rm root");
}

static void
a_place_that_is_swapped_meanwhile_is_not_shown(void **state)
{
	(void) state;
	if (!has_bubblewrap())
		skip();
	sh("echo secret > other/secret; echo mine > wt/worktrees/p1-0/s7/mine");
	for (int off = 0; off <= 1; off++)
	{
		json_t	   *order = order_at("wt/worktrees/p1-0/s7");

		json_object_set_new(json_object_get(order, "sandbox"), "mode", json_string(off ? "off" : "bwrap"));
		assert_true(try(order, "['/bin/sh', '-c', 'ls']", NULL));
		sh("mv wt/worktrees/p1-0/s7 wt/worktrees/p1-0/s7.bak; ln -s \"$PWD/other\" wt/worktrees/p1-0/s7");
		assert_string_equal(said(), "mine\n");
		sh("rm wt/worktrees/p1-0/s7; mv wt/worktrees/p1-0/s7.bak wt/worktrees/p1-0/s7");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_sandbox_it_is_the_program),
		cmocka_unit_test(the_program_comes_last),
		cmocka_unit_test(a_terminal_is_taken_inside),
		cmocka_unit_test(nothing_is_shared_that_need_not_be),
		cmocka_unit_test(only_worktree_and_home_can_be_written),
		cmocka_unit_test(places_of_others_are_not_shown),
		cmocka_unit_test(hidden_places_are_covered_where_they_show),
		cmocka_unit_test(hidden_places_are_known_by_what_they_are),
		cmocka_unit_test(nothing_shown_replaces_the_private_places),
		cmocka_unit_test(something_shown_may_lie_beside_the_agents_places),
		cmocka_unit_test(the_environment_is_a_list),
		cmocka_unit_test(programs_are_searched),
		cmocka_unit_test(what_can_not_be_started_has_a_reason),
		cmocka_unit_test(directories_are_made_for_us_alone),
		cmocka_unit_test(private_parts_lie_where_no_agent_writes),
		cmocka_unit_test(nothing_is_mounted_over_a_link),
		cmocka_unit_test(a_link_is_no_place),
		cmocka_unit_test(a_place_that_is_swapped_meanwhile_is_not_shown),
	};

	return cmocka_run_group_tests_name("sandbox", tests, set_up, tear_down);
}
