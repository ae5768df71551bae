/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_parent.c
 *	  How a runner ends when its parent does: by itself, with status 0, alone.
 */
#include "unit.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/parent.h"
#include "runner/stream.h"

#define DEADLINE_MS 5000

static int	ready[2];

static int
set_up(void **state)
{
	(void) state;
	return prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 || pipe(ready) != 0 ? -1 : 0;
}

static void
say(pid_t pid)
{
	if (write(ready[1], &pid, sizeof(pid)) != (ssize_t) sizeof(pid))
		_exit(1);
}

static pid_t
hear(void)
{
	pid_t		pid;

	assert_int_equal(read(ready[0], &pid, sizeof(pid)), sizeof(pid));
	return pid;
}

/* The parent of "run", which is killed; the status of "run", which is ours then.  "*took" is in ms. */
static int
status_of_orphan(void (*run) (void), int64_t *took)
{
	pid_t		parent = fork();
	pid_t		orphan;
	int			status = -1;
	int64_t		began;

	if (parent == 0)
	{
		pid_t		pid = fork();

		if (pid == 0)
		{
			(void) prctl(PR_SET_CHILD_SUBREAPER, 1);
			bc_parent_watch();
			run();
			_exit(3);
		}
		for (;;)
			pause();
	}
	orphan = hear();
	began = bc_now();
	assert_int_equal(kill(parent, SIGKILL), 0);
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	while (waitpid(orphan, &status, WNOHANG) == 0)
	{
		if (bc_now() > began + DEADLINE_MS)
			(void) kill(orphan, SIGKILL);
		(void) poll(NULL, 0, 1);
	}
	*took = bc_now() - began;
	return status;
}

static void
nothing_is_left(void)
{
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void
work(void)
{
	say(getpid());
	for (;;)
		pause();
}

static void
what_has_no_children_ends_at_once(void **state)
{
	int64_t		took;

	(void) state;
	assert_int_equal(status_of_orphan(work, &took), 0);
	assert_true(took < 1000);
	nothing_is_left();
}

static void
read_pipe(void)
{
	int			pipe_of_ours[2];
	char		byte;

	/* Its other end stays open. */
	if (pipe(pipe_of_ours) != 0 || dup2(pipe_of_ours[0], STDIN_FILENO) < 0)
		_exit(4);
	bc_parent_is_pipe();
	say(getpid());
	for (;;)
	{
		struct pollfd p = {STDIN_FILENO, POLLIN, 0};

		if (poll(&p, 1, -1) > 0)
			_exit(read(STDIN_FILENO, &byte, 1) == 0 ? 0 : 5);
	}
}

static void
the_end_of_the_parent_is_that_of_the_pipe(void **state)
{
	int64_t		took;

	(void) state;
	assert_int_equal(status_of_orphan(read_pipe, &took), 0);
	assert_true(took < 1000);
	nothing_is_left();
}

/* With children that are deaf, one of them in another session and without a parent */
static void
be_stuck(void)
{
	bc_parent_is_pipe();
	for (int i = 0; i < 2; i++)
	{
		if (fork() != 0)
			continue;
		(void) setsid();
		if (i == 1 && fork() != 0)
			_exit(0);
		(void) signal(SIGTERM, SIG_IGN);
		say(0);
		for (;;)
			pause();
	}
	assert_int_equal(hear(), 0);
	assert_int_equal(hear(), 0);
	work();
}

static void
what_is_stuck_ends_after_its_children(void **state)
{
	int64_t		took;

	(void) state;
	assert_int_equal(status_of_orphan(be_stuck, &took), 0);
	assert_true(took < 2000);
	nothing_is_left();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_has_no_children_ends_at_once),
		cmocka_unit_test(the_end_of_the_parent_is_that_of_the_pipe),
		cmocka_unit_test(what_is_stuck_ends_after_its_children),
	};

	return cmocka_run_group_tests_name("parent", tests, set_up, NULL);
}
