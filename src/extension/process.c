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
#include "extension/guc.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/varlena.h"

#define PREFIX_PATH "/usr/local/bin:/usr/bin:/bin"

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
#define HAVE_ADDCLOSEFROM
#endif

/*
 * Nothing of the server's environment, which holds PGDATA and what the service
 * set, but what an administrator lists.
 */
static char **
environment(void)
{
	char	   *names = pstrdup(bc_env_allow != NULL ? bc_env_allow : "");
	List	   *list = NIL;
	ListCell   *cell;
	char	  **envp;
	int			n = 0;

	if (!SplitGUCList(names, ',', &list))
		list = NIL;
	envp = palloc((list_length(list) + 3) * sizeof(char *));
	envp[n++] = pstrdup("PATH=" PREFIX_PATH);
	envp[n++] = pstrdup("LC_ALL=C.UTF-8");
	foreach(cell, list)
	{
		const char *name = lfirst(cell);
		const char *value = getenv(name);

		if (value != NULL && strcmp(name, "PATH") != 0 && strcmp(name, "LC_ALL") != 0)
			envp[n++] = psprintf("%s=%s", name, value);
	}
	envp[n] = NULL;
	return envp;
}

/* The command line: the prefix, and our runner unless it names one. */
static char **
arguments(char *const *prefix, const char *path, const char *tag)
{
	int			n = 0;
	bool		named = false;
	char	  **argv;

	while (prefix != NULL && prefix[n] != NULL)
	{
		const char *slash = strrchr(prefix[n], '/');

		if (strcmp(slash != NULL ? slash + 1 : prefix[n], BC_RUNNER_NAME) == 0)
			named = true;
		n++;
	}
	argv = palloc((n + 3) * sizeof(char *));
	for (int i = 0; i < n; i++)
		argv[i] = prefix[i];
	if (!named)
	{
		argv[n++] = pstrdup(path);
		if (tag != NULL)
			argv[n++] = pstrdup(tag);
	}
	argv[n] = NULL;
	return argv;
}

static int
spawn(char *const *prefix, const char *path, const char *tag, int fd, pid_t *pid)
{
	char	  **argv = arguments(prefix, path, tag);
	char	  **envp = environment();
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t	none;
	sigset_t	all;
	int			error;

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
		error = posix_spawnp(pid, argv[0], &actions, &attributes, argv, envp);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

const char *
bc_process_path(void)
{
	static char path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/%s", pkglib_path, BC_RUNNER_NAME);
	return path;
}

pid_t
bc_process_start(char *const *prefix, const char *tag, int *fd)
{
	int			pair[2];
	pid_t		pid;
	int			error;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	error = spawn(prefix, bc_process_path(), tag, pair[1], &pid);
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

	*status = 0;
	do
		result = waitpid(pid, status, WNOHANG);
	while (result < 0 && errno == EINTR);
	return result != 0;
}
