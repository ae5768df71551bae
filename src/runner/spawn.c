/* SPDX-License-Identifier: PostgreSQL */
/*
 * spawn.c
 *	  Starting the process of an agent, and the guard.
 *
 * Between fork() and exec() only async-signal-safe calls are made, and a
 * failure travels back as an errno over a pipe that the exec closes.  What
 * execs at once is started by vfork(): copying a page table and then page by
 * page costs more than all the rest.  posix_spawn() can't do all we need.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "runner/procs.h"
#include "runner/spawn.h"

#define KILL_TIMEOUT_MS 2000
#define FAILURE_FD 3			/* carries the errno of a failed exec */
#define STATUS_UNKNOWN 255

enum
{
	READ_END,
	WRITE_END
};

typedef struct Pipes
{
	int			in[2];
	int			out[2];
	int			err[2];
	int			failure[2];		/* the errno of a failed exec */
	int			control[2];		/* open while the runner lives */
} Pipes;

void
bc_spawn_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

size_t
bc_spawn_read(int *fd, char *buffer, size_t size)
{
	ssize_t		n;

	if (*fd < 0)
		return 0;
	do
		n = read(*fd, buffer, size);
	while (n < 0 && errno == EINTR);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK))
		bc_spawn_close(fd);
	return n > 0 ? (size_t) n : 0;
}

static void
close_pipes(Pipes *pipes)
{
	int		   *fds = (int *) pipes;

	for (size_t i = 0; i < sizeof(Pipes) / sizeof(int); i++)
		bc_spawn_close(&fds[i]);
}

static int
open_pipes(Pipes *pipes)
{
	int		   *fds = (int *) pipes;

	memset(pipes, -1, sizeof(*pipes));
	for (size_t i = 0; i < sizeof(Pipes) / sizeof(int); i += 2)
	{
		if (pipe2(&fds[i], O_CLOEXEC) < 0)
		{
			int			error = errno;

			close_pipes(pipes);
			return error;
		}
	}
	return 0;
}

/* Does not show what is typed: that is known already. */
static void
set_up_terminal(int slave, const BcTerminal *terminal)
{
	struct winsize size = {.ws_row = terminal->rows, .ws_col = terminal->columns};
	struct termios modes;

	(void) ioctl(slave, TIOCSWINSZ, &size);
	if (tcgetattr(slave, &modes) == 0)
	{
		modes.c_lflag &= (tcflag_t) ~ECHO;
		(void) tcsetattr(slave, TCSANOW, &modes);
	}
}

/* Puts a pseudo-terminal in the place of the first pipes, with "all" also of that of errors. */
static int
open_terminal(Pipes *pipes, const BcTerminal *terminal, bool all)
{
	char		name[64];
	int			master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	int			slave = -1;

	if (master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 &&
		ptsname_r(master, name, sizeof(name)) == 0)
		slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
	{
		int			error = errno;

		bc_spawn_close(&master);
		return error;
	}
	set_up_terminal(slave, terminal);
	for (int i = READ_END; i <= WRITE_END; i++)
	{
		bc_spawn_close(&pipes->in[i]);
		bc_spawn_close(&pipes->out[i]);
		if (all)
			bc_spawn_close(&pipes->err[i]);
	}
	pipes->out[READ_END] = master;
	pipes->in[WRITE_END] = fcntl(master, F_DUPFD_CLOEXEC, 3);
	pipes->in[READ_END] = slave;
	pipes->out[WRITE_END] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
	if (all)
		pipes->err[WRITE_END] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
	return 0;
}

static int
pidfd_of(pid_t pid)
{
	int			fd = (int) syscall(SYS_pidfd_open, pid, 0);

	if (fd >= 0)
		(void) fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

static void
close_from(int first)
{
	long		max;

	if (syscall(SYS_close_range, first, ~0U, 0) == 0)
		return;
	max = sysconf(_SC_OPEN_MAX);
	for (int fd = first; fd < max; fd++)
		close(fd);
}

static _Noreturn void
fail(int fd)
{
	int			error = errno;

	while (write(fd, &error, sizeof(error)) < 0 && errno == EINTR)
		;
	_exit(127);
}

static void
default_signals(void)
{
	sigset_t	none;

	for (int s = 1; s < NSIG; s++)
		(void) signal(s, SIG_DFL);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child: becomes the agent.  "controlled": by the terminal that it is on. */
static _Noreturn void
become(const BcLaunch *launch, Pipes *pipes, bool controlled, pid_t parent)
{
	static const char oom[] = "800";
	struct rlimit no_core = {0, 0};
	int			failure;
	int			fd;

	(void) setsid();
	(void) prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	default_signals();
	(void) setrlimit(RLIMIT_CORE, &no_core);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
	{
		if (write(fd, oom, sizeof(oom) - 1) < 0)
			errno = 0;			/* then it keeps what we have */
		close(fd);
	}

	if (fchdir(launch->dir) < 0)
		fail(pipes->failure[WRITE_END]);
	/* Out of the way of the numbers that are about to be used. */
	failure = fcntl(pipes->failure[WRITE_END], F_DUPFD_CLOEXEC, BC_LAUNCH_FDS);
	if (failure < 0 ||
		dup2(pipes->in[READ_END], STDIN_FILENO) < 0 ||
		dup2(pipes->out[WRITE_END], STDOUT_FILENO) < 0 ||
		dup2(pipes->err[WRITE_END], STDERR_FILENO) < 0 ||
		dup3(failure, FAILURE_FD, O_CLOEXEC) < 0)
		_exit(127);
	if (controlled && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
		fail(FAILURE_FD);
	/* All of them were opened above the numbers they get. */
	for (size_t i = 0; i < launch->nmounts; i++)
		if (dup2(launch->mounts[i], BC_LAUNCH_FIRST_MOUNT + (int) i) < 0)
			fail(FAILURE_FD);
	close_from(BC_LAUNCH_FIRST_MOUNT + (int) launch->nmounts);
	execve(launch->argv[0], launch->argv, launch->envp);
	fail(FAILURE_FD);
}

/*
 * Starts the process that becomes the agent.  No signal reaches it before it
 * has reset its actions: a handler of ours would run in our memory.  -1: errno
 * is set.
 */
static pid_t
start_agent(const BcLaunch *launch, Pipes *pipes, bool controlled)
{
	pid_t		self = getpid();
	sigset_t	all;
	sigset_t	before;
	pid_t		pid;

	sigfillset(&all);
	(void) sigprocmask(SIG_SETMASK, &all, &before);
	pid = vfork();
	if (pid == 0)
		become(launch, pipes, controlled, self);
	(void) sigprocmask(SIG_SETMASK, &before, NULL);
	return pid;
}

static void
wake(int number)
{
	(void) number;
}

/* Reaps what has ended: the agent's orphans are ours.  True when the agent is among it. */
static bool
reap_until(pid_t agent, int *status)
{
	int			any;
	pid_t		ended;

	do
	{
		ended = waitpid(-1, &any, WNOHANG);
		if (ended == agent)
			*status = any;
	} while ((ended > 0 && ended != agent) || (ended < 0 && errno == EINTR));
	return ended != 0;
}

/* Nothing is ever written: what can be read is the end. */
static bool
runner_gone(int control)
{
	struct pollfd p = {control, POLLIN, 0};

	return poll(&p, 1, 0) > 0;
}

/*
 * Waits until the agent has ended or the runner has; both then end completely.
 * Who adopts a guard without a runner must see no signal, see parent.h.
 */
static void
stand_guard(pid_t agent, int control)
{
	struct sigaction action = {.sa_handler = wake};
	int			pidfd = pidfd_of(agent);
	int			status = 0;

	/* Interrupts poll(), so that orphans that end do not pile up as zombies. */
	(void) sigaction(SIGCHLD, &action, NULL);
	for (;;)
	{
		struct pollfd p[2] = {{control, POLLIN, 0}, {pidfd, POLLIN, 0}};

		if (reap_until(agent, &status))
			break;
		(void) poll(p, pidfd >= 0 ? 2 : 1, pidfd >= 0 ? -1 : 20);
		if (p[0].revents != 0)
			break;
	}
	(void) bc_procs_kill_all(KILL_TIMEOUT_MS);
	if (runner_gone(control))
		_exit(0);
	if (WIFSIGNALED(status))
	{
		(void) signal(WTERMSIG(status), SIG_DFL);
		(void) raise(WTERMSIG(status));
	}
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_UNKNOWN);
}

/* In the child: becomes the guard, with the agent below it. */
static void
guard(const BcLaunch *launch, Pipes *pipes, bool terminal)
{
	pid_t		agent;
	int			control;

	/* No PDEATHSIG: the guard outlives the runner, just long enough to clean up. */
	(void) setsid();
	default_signals();
	(void) signal(SIGHUP, SIG_IGN);
	(void) prctl(PR_SET_CHILD_SUBREAPER, 1);
	agent = start_agent(launch, pipes, terminal);
	if (agent < 0)
		fail(pipes->failure[WRITE_END]);
	control = dup2(pipes->control[READ_END], STDIN_FILENO);
	(void) fcntl(STDIN_FILENO, F_SETFD, FD_CLOEXEC);
	close(STDOUT_FILENO);
	close(STDERR_FILENO);
	close_from(STDERR_FILENO + 1);
	stand_guard(agent, control);
}

static void
nonblocking(int fd)
{
	(void) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static int
take(int *fd)
{
	int			result = *fd;

	*fd = -1;
	return result;
}

int
bc_spawn(const BcLaunch *launch, const BcTerminal *terminal, BcChild *child)
{
	Pipes		pipes;
	int			error = open_pipes(&pipes);
	ssize_t		n;

	if (error != 0)
		return error;
	if (terminal != NULL && (error = open_terminal(&pipes, terminal, launch->guarded)) != 0)
	{
		close_pipes(&pipes);
		return error;
	}
	child->pid = launch->guarded ? fork() : start_agent(launch, &pipes, false);
	if (child->pid < 0)
	{
		error = errno;
		close_pipes(&pipes);
		return error;
	}
	if (child->pid == 0)
	{
		close(pipes.control[WRITE_END]);
		guard(launch, &pipes, terminal != NULL);
	}

	bc_spawn_close(&pipes.failure[WRITE_END]);
	do
		n = read(pipes.failure[READ_END], &error, sizeof(error));
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t) sizeof(error))
	{
		int			status;

		bc_spawn_close(&pipes.control[WRITE_END]);
		(void) waitpid(child->pid, &status, 0);
		close_pipes(&pipes);
		return error;
	}
	child->pidfd = pidfd_of(child->pid);
	child->in = take(&pipes.in[WRITE_END]);
	child->out = take(&pipes.out[READ_END]);
	child->err = take(&pipes.err[READ_END]);
	child->control = launch->guarded ? take(&pipes.control[WRITE_END]) : -1;
	nonblocking(child->in);
	nonblocking(child->out);
	nonblocking(child->err);
	close_pipes(&pipes);
	return 0;
}

bool
bc_spawn_ended(BcChild *child, int *status)
{
	pid_t		result;

	do
		result = waitpid(child->pid, status, WNOHANG);
	while (result < 0 && errno == EINTR);
	if (result == 0)
		return false;
	/* bc_procs_kill_all() was first to reap it: it was killed. */
	if (result < 0)
		*status = SIGKILL;
	/* The number may belong to another process from now on. */
	child->pid = -1;
	bc_spawn_close(&child->pidfd);
	return true;
}

bool
bc_spawn_reads_lines(const BcChild *child)
{
	struct termios modes;

	/* On Linux the modes of the other end are told. */
	return child->in >= 0 && tcgetattr(child->in, &modes) == 0 && (modes.c_lflag & ICANON) != 0;
}

void
bc_spawn_terminate(const BcChild *child)
{
	/*
	 * Not the child itself when it is the sandbox or the guard: their end
	 * would be the end of all, at once.  They end after what is below them.
	 */
	if (bc_procs_signal(child->pid, 0, SIGTERM) == 0)
		(void) kill(child->pid, SIGTERM);
}

void
bc_spawn_kill(BcChild *child)
{
	if (child->pid > 0)
		(void) kill(child->pid, SIGKILL);
	(void) bc_procs_kill_all(KILL_TIMEOUT_MS);
	bc_spawn_close(&child->pidfd);
	bc_spawn_close(&child->in);
	bc_spawn_close(&child->control);
}
