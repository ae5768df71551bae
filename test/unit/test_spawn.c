/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_spawn.c
 *	  Starting and ending the process of an agent.
 */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/procs.h"
#include "runner/spawn.h"
#include "runner/stream.h"

#define DEADLINE_MS 10000

static char *const environment[] = {"PATH=/usr/bin:/bin", "ONLY=this", NULL};

static int
set_up(void **state)
{
	(void) state;
	(void) signal(SIGPIPE, SIG_IGN);
	return prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static int
open_descriptors(void)
{
	DIR		   *dir = opendir("/proc/self/fd");
	int			n = 0;

	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static int
spawn(char **argv, bool guarded, BcChild *child)
{
	BcLaunch	launch = {
		.argv = argv, .envp = (char **) environment, .guarded = guarded, .dir = open("/", O_PATH | O_CLOEXEC)
	};
	int			error = bc_spawn(&launch, NULL, child);

	close(launch.dir);
	return error;
}

static BcChild
start(const char *script, bool guarded)
{
	char	   *argv[] = {"/bin/sh", "-c", (char *) script, NULL};
	BcChild		child;

	assert_int_equal(spawn(argv, guarded, &child), 0);
	assert_true(child.pid > 0);
	assert_int_equal(child.control >= 0, guarded);
	return child;
}

/* Reads to the end, or to "until"; what was read, valid until the next call. */
static const char *
output(int fd, const char *until)
{
	static char text[65536];
	size_t		len = 0;
	int64_t		end = bc_now() + DEADLINE_MS;

	for (;;)
	{
		struct pollfd p = {fd, POLLIN, 0};
		ssize_t		n;

		assert_true(bc_now() < end);
		(void) poll(&p, 1, 100);
		n = read(fd, text + len, sizeof(text) - 1 - len);
		if (n < 0)
		{
			assert_true(errno == EAGAIN || errno == EINTR);
			continue;
		}
		len += (size_t) n;
		text[len] = '\0';
		if (n == 0 || (until != NULL && strstr(text, until) != NULL))
			return text;
	}
}

static int
status_of(BcChild *child)
{
	int64_t		end = bc_now() + DEADLINE_MS;
	int			status;

	while (!bc_spawn_ended(child, &status))
	{
		struct pollfd p = {child->pidfd, POLLIN, 0};

		assert_true(bc_now() < end);
		(void) poll(&p, 1, child->pidfd >= 0 ? 100 : 5);
	}
	bc_spawn_close(&child->in);
	bc_spawn_close(&child->out);
	bc_spawn_close(&child->err);
	bc_spawn_close(&child->control);
	return status;
}

static void
a_failed_exec_is_an_errno(void **state)
{
	char	   *none[] = {"/nonexistent/program", NULL};
	char	   *directory[] = {"/usr", NULL};
	int			before = open_descriptors();
	BcChild		child;

	(void) state;
	for (int guarded = 0; guarded <= 1; guarded++)
	{
		assert_int_equal(spawn(none, guarded, &child), ENOENT);
		assert_int_equal(spawn(directory, guarded, &child), EACCES);
	}
	/* Nothing is left behind. */
	assert_int_equal(open_descriptors(), before);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void
statuses_and_signals_come_through(void **state)
{
	int			before = open_descriptors();

	(void) state;
	for (int guarded = 0; guarded <= 1; guarded++)
	{
		BcChild		child = start("exit 7", guarded);
		int			status = status_of(&child);

		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
		child = start("kill -KILL $$", guarded);
		status = status_of(&child);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		child = start("kill -HUP $$", guarded);
		status = status_of(&child);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP);
	}
	assert_int_equal(open_descriptors(), before);
}

static void
three_descriptors_and_a_clean_slate(void **state)
{
	sigset_t	blocked;
	sigset_t	old;
	int			extra = dup(STDERR_FILENO);

	(void) state;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, &old);
	for (int guarded = 0; guarded <= 1; guarded++)
	{
		BcChild		child = start("cd /proc/$$/fd; echo *; pwd; env; cat /proc/self/oom_score_adj;"
								  "grep -E 'Sig(Blk|Ign)' /proc/self/status; echo err >&2; cat", guarded);
		const char *text;

		assert_int_equal(write(child.in, "said\n", 5), 5);
		bc_spawn_close(&child.in);
		text = output(child.out, NULL);
		/* The shell's own may be among them while it looks. */
		assert_int_equal(strncmp(text, "0 1 2", 5), 0);
		assert_null(strstr(text, "0 1 2 4"));
		assert_non_null(strstr(text, "ONLY=this"));
		assert_null(strstr(text, "HOME="));
		assert_non_null(strstr(text, "\n800\n"));
		assert_non_null(strstr(text, "SigBlk:\t0000000000000000"));
		/* Signals 32 and 33 are the C library's, which may leave them ignored in what make starts. */
		assert_int_equal(strtoull(strstr(text, "SigIgn:") + 7, NULL, 16) & ~0x180000000ULL, 0);
		assert_non_null(strstr(text, "said\n"));
		assert_string_equal(output(child.err, NULL), "err\n");
		assert_int_equal(status_of(&child), 0);
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(extra);
}

static void
asking_goes_to_the_program_not_to_the_guard(void **state)
{
	(void) state;
	/* Without the guard the child is the sandbox, which ends when the program does. */
	for (int n = 0; n < 5; n++)
	{
		BcChild		child = start("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done", true);
		int			status;

		(void) output(child.out, "up\n");
		bc_spawn_terminate(&child);
		assert_non_null(strstr(output(child.out, NULL), "bye\n"));
		status = status_of(&child);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 5);
	}
}

static const char *const litter = "trap '' TERM HUP INT; (setsid sh -c 'echo up; while :; do sleep 1; done' &);"
	" while :; do sleep 1; done";

static void
killing_leaves_nothing(void **state)
{
	(void) state;
	for (int guarded = 0; guarded <= 1; guarded++)
	{
		BcChild		child = start(litter, guarded);

		(void) output(child.out, "up\n");
		bc_spawn_kill(&child);
		assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
		bc_spawn_close(&child.out);
		bc_spawn_close(&child.err);
	}
}

static void
the_guard_ends_everything_when_the_runner_goes(void **state)
{
	BcChild		child = start(litter, true);

	(void) state;
	(void) output(child.out, "up\n");
	/* What the end of this process would do */
	bc_spawn_close(&child.control);
	(void) output(child.out, NULL);
	(void) status_of(&child);
	assert_int_equal(bc_procs_signal(getpid(), 0, 0), 0);
}

static void
the_guard_ends_everything_when_the_agent_ends(void **state)
{
	BcChild		child = start("(setsid sh -c 'echo up; while :; do sleep 1; done' &); read line; exit 3", true);
	int			status;

	(void) state;
	(void) output(child.out, "up\n");
	bc_spawn_close(&child.in);
	/* The end of the file: nobody holds the pipe any more. */
	(void) output(child.out, NULL);
	status = status_of(&child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
	assert_int_equal(bc_procs_signal(getpid(), 0, 0), 0);
}

static void
the_guard_buries_orphans(void **state)
{
	BcChild		child = start("for i in 1 2 3 4 5 6 7 8 9 10; do (true &); done; echo up; read line", true);
	int64_t		end = bc_now() + DEADLINE_MS;
	char		path[64];
	char		list[256];
	int			n;

	(void) state;
	(void) output(child.out, "up\n");
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int) child.pid, (int) child.pid);
	do
	{
		FILE	   *file = fopen(path, "r");
		size_t		len;

		assert_non_null(file);
		len = fread(list, 1, sizeof(list) - 1, file);
		list[len] = '\0';
		fclose(file);
		n = 0;
		for (char *blank = strchr(list, ' '); blank != NULL; blank = strchr(blank + 1, ' '))
			n++;
		assert_true(bc_now() < end);
	} while (n > 2);
	bc_spawn_kill(&child);
	bc_spawn_close(&child.out);
	bc_spawn_close(&child.err);
}

static void
one_that_was_killed_already_was_killed(void **state)
{
	BcChild		child = start("echo up; while :; do sleep 1; done", false);
	int			status = 0;

	(void) state;
	(void) output(child.out, "up\n");
	bc_spawn_kill(&child);
	assert_true(bc_spawn_ended(&child, &status));
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	/* Its number may be another's by now. */
	assert_int_equal(child.pid, -1);
	bc_spawn_kill(&child);
	bc_spawn_close(&child.out);
	bc_spawn_close(&child.err);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failed_exec_is_an_errno),
		cmocka_unit_test(statuses_and_signals_come_through),
		cmocka_unit_test(three_descriptors_and_a_clean_slate),
		cmocka_unit_test(asking_goes_to_the_program_not_to_the_guard),
		cmocka_unit_test(killing_leaves_nothing),
		cmocka_unit_test(the_guard_ends_everything_when_the_runner_goes),
		cmocka_unit_test(the_guard_ends_everything_when_the_agent_ends),
		cmocka_unit_test(the_guard_buries_orphans),
		cmocka_unit_test(one_that_was_killed_already_was_killed),
	};

	return cmocka_run_group_tests_name("spawn", tests, set_up, NULL);
}
