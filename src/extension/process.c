/* SPDX-License-Identifier: PostgreSQL */
/*
 * process.c
 *	  Starting and reaping boocoder-runner.
 *
 * posix_spawn() shares the address space until the exec, so its cost does not
 * grow with shared_buffers, and no code of ours runs in a forked backend.  The
 * runner gets descriptors 0 to 2 only: before PostgreSQL 16 the files of the
 * server are not closed on exec.  Where the C library can't close the rest
 * here, the runner does it as its first act.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "extension/process.h"
#include "miscadmin.h"

#define RUNNER "boocoder-runner"

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
#define HAVE_ADDCLOSEFROM
#endif

static int
spawn(const char *path, int fd, pid_t *pid)
{
	char	   *const argv[] = {(char *) RUNNER, NULL};
	char	   *envp[3];
	int			nenv = 0;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t	none;
	sigset_t	all;
	int			error;

	/* Nothing of the server's environment: it holds PGDATA and what the service set. */
	envp[nenv++] = (char *) "PATH=/usr/local/bin:/usr/bin:/bin";
	envp[nenv++] = (char *) "LC_ALL=C.UTF-8";
	envp[nenv] = NULL;

	if ((error = posix_spawn_file_actions_init(&actions)) != 0)
		return error;
	if ((error = posix_spawnattr_init(&attributes)) != 0)
	{
		posix_spawn_file_actions_destroy(&actions);
		return error;
	}
	sigemptyset(&none);
	sigfillset(&all);
	error = posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
	if (error == 0)
		error = posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
#ifdef HAVE_ADDCLOSEFROM
	if (error == 0)
		error = posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
#endif
	if (error == 0)
		error = posix_spawnattr_setsigmask(&attributes, &none);
	if (error == 0)
		error = posix_spawnattr_setsigdefault(&attributes, &all);
	/* A session of its own: the postmaster signals the groups of its children. */
	if (error == 0)
		error = posix_spawnattr_setflags(&attributes,
										 POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
										 POSIX_SPAWN_SETSID);
	if (error == 0)
		error = posix_spawn(pid, path, &actions, &attributes, argv, envp);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

pid_t
bc_process_start(int *fd)
{
	char		path[MAXPGPATH];
	int			pair[2];
	pid_t		pid;
	int			error;

	snprintf(path, sizeof(path), "%s/%s", pkglib_path, RUNNER);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	error = spawn(path, pair[1], &pid);
	close(pair[1]);
	if (error == 0 && !pg_set_noblock(pair[0]))
		error = errno;
	if (error != 0)
	{
		close(pair[0]);
		errno = error;
		return -1;
	}
	*fd = pair[0];
	return pid;
}

bool
bc_process_reap(pid_t pid, int *status)
{
	pid_t		result;

	do
		result = waitpid(pid, status, WNOHANG);
	while (result < 0 && errno == EINTR);
	return result != 0;
}
