/* SPDX-License-Identifier: PostgreSQL */
/*
 * parent.c
 *	  The end of the process that started the runner.  See parent.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <unistd.h>

#include "runner/parent.h"
#include "runner/procs.h"

#define STUCK_MS 1500
#define KILL_ROUNDS 5

static volatile sig_atomic_t is_pipe;

/* It did not get to the end of the pipe. */
static void
stuck(int number)
{
	(void) number;
	for (int round = 0; round < KILL_ROUNDS && !bc_procs_kill_children(); round++)
		;
	_exit(0);
}

static void
parent_gone(int number)
{
	struct itimerval timer = {.it_value = {STUCK_MS / 1000, STUCK_MS % 1000 * 1000}};
	int			error = errno;
	int			null;

	(void) number;
	if (!is_pipe)
		_exit(0);
	(void) setitimer(ITIMER_REAL, &timer, NULL);
	/* Also when somebody else holds the other end, or sent the signal */
	null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null >= 0)
	{
		(void) dup2(null, STDIN_FILENO);
		close(null);
	}
	errno = error;
}

void
bc_parent_watch(void)
{
	struct sigaction action = {.sa_handler = parent_gone, .sa_flags = SA_RESTART};

	(void) sigaction(SIGTERM, &action, NULL);
	action.sa_handler = stuck;
	(void) sigaction(SIGALRM, &action, NULL);
	(void) prctl(PR_SET_PDEATHSIG, SIGTERM);
}

void
bc_parent_is_pipe(void)
{
	is_pipe = true;
}
