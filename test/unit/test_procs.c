/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_procs.c
 *	  Killing everything below this process.
 */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runner/procs.h"
#include "runner/stream.h"

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

/* In a child: deaf to what can be ignored, and there for ever. */
static void
linger(void)
{
	(void) signal(SIGTERM, SIG_IGN);
	(void) signal(SIGHUP, SIG_IGN);
	(void) signal(SIGINT, SIG_IGN);
	say(getpid());
	for (;;)
		pause();
}

/* The pid of the next process that is ready. */
static pid_t
wait_ready(void)
{
	pid_t		pid;

	assert_int_equal(read(ready[0], &pid, sizeof(pid)), sizeof(pid));
	return pid;
}

static void
nothing_is_below(void)
{
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void
gone(pid_t pid)
{
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
}

static void
without_descendants_there_is_nothing_to_do(void **state)
{
	int64_t		began = bc_now();

	(void) state;
	assert_true(bc_procs_kill_all(5000));
	assert_true(bc_now() - began < 1000);
	assert_int_equal(bc_procs_signal(getpid(), 0, 0), 0);
}

/* A child, one in a session of its own, one whose parent has ended, and one of each below those. */
static void
no_descendant_survives(void **state)
{
	pid_t		pids[6];

	(void) state;
	for (int kind = 0; kind < 3; kind++)
	{
		if (fork() != 0)
			continue;
		if (kind > 0)
			setsid();
		if (kind > 1 && fork() != 0)
			_exit(0);
		if (fork() == 0)
			setsid();
		linger();
	}
	for (int i = 0; i < 6; i++)
		pids[i] = wait_ready();
	assert_true(bc_procs_signal(getpid(), 0, 0) >= 6);
	assert_true(bc_procs_kill_all(5000));
	nothing_is_below();
	for (int i = 0; i < 6; i++)
		gone(pids[i]);
}

static void
stopped_processes_die_too(void **state)
{
	pid_t		pid = fork();

	(void) state;
	if (pid == 0)
		linger();
	assert_int_equal(wait_ready(), pid);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
	assert_true(bc_procs_kill_all(5000));
	gone(pid);
}

static void
a_signal_reaches_all_but_the_root(void **state)
{
	pid_t		pid = fork();
	int			status;
	pid_t		below;

	(void) state;
	if (pid == 0)
	{
		if (fork() == 0)
		{
			say(getpid());
			for (;;)
				pause();
		}
		(void) waitpid(-1, NULL, 0);
		say(0);
		for (;;)
			pause();
	}
	below = wait_ready();
	assert_int_equal(bc_procs_signal(pid, below, SIGTERM), 0);
	assert_int_equal(bc_procs_signal(pid, 0, SIGTERM), 1);
	assert_int_equal(wait_ready(), 0);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	assert_true(bc_procs_kill_all(5000));
}

static void
names_may_hold_anything(void **state)
{
	pid_t		pid = fork();

	(void) state;
	if (pid == 0)
	{
		(void) prctl(PR_SET_NAME, ") Z 1 (\n)");
		linger();
	}
	assert_int_equal(wait_ready(), pid);
	assert_int_equal(bc_procs_signal(getpid(), 0, 0), 1);
	assert_true(bc_procs_kill_all(5000));
	gone(pid);
}

static void *
outlive(void *arg)
{
	(void) arg;
	linger();
	return NULL;
}

/* Shown as a zombie, but alive */
static void
a_process_without_its_first_thread_dies_too(void **state)
{
	pid_t		pid = fork();

	(void) state;
	if (pid == 0)
	{
		pthread_t	thread;

		setsid();
		if (pthread_create(&thread, NULL, outlive, NULL) != 0)
			_exit(1);
		pthread_exit(NULL);
	}
	assert_int_equal(wait_ready(), pid);
	assert_true(bc_procs_kill_all(5000));
	nothing_is_below();
	gone(pid);
}

/* Each forks and ends at once. */
static void
a_chain_of_processes_is_caught(void **state)
{
	time_t		end = time(NULL) + 20;
	pid_t		first = fork();

	(void) state;
	if (first == 0)
	{
		for (unsigned n = 0; time(NULL) < end; n++)
		{
			if (n == 100)
				say(getpid());
			if (fork() != 0)
				_exit(0);
		}
		_exit(0);
	}
	(void) wait_ready();
	assert_true(bc_procs_kill_all(10000));
	nothing_is_below();
	assert_true(time(NULL) < end);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_descendants_there_is_nothing_to_do),
		cmocka_unit_test(no_descendant_survives),
		cmocka_unit_test(stopped_processes_die_too),
		cmocka_unit_test(a_signal_reaches_all_but_the_root),
		cmocka_unit_test(names_may_hold_anything),
		cmocka_unit_test(a_process_without_its_first_thread_dies_too),
		cmocka_unit_test(a_chain_of_processes_is_caught),
	};

	return cmocka_run_group_tests_name("procs", tests, set_up, NULL);
}
