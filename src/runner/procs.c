/* SPDX-License-Identifier: PostgreSQL */
/*
 * procs.c
 *	  Finding descendants through /proc, and killing them.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/procs.h"
#include "runner/stream.h"

#define ROUND_MS 5
#define HASTE_ROUNDS 500

typedef struct Process
{
	pid_t		pid;
	pid_t		parent;
	bool		below;
} Process;

/* The parent of a live process; 0 when it is gone or a zombie. */
static pid_t
parent_of(pid_t pid)
{
	char		path[64];
	char		line[512];
	char	   *after_name;
	char		state;
	int			parent;
	int			threads;
	ssize_t		n;
	int			fd;

	snprintf(path, sizeof(path), "/proc/%ld/stat", (long) pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	line[n] = '\0';
	/* The name is in parentheses and may hold anything. */
	after_name = strrchr(line, ')');
	if (after_name == NULL ||
		sscanf(after_name + 1,
			   " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d",
			   &state, &parent, &threads) != 3)
		return 0;
	/* Without its first thread a process is shown as a zombie, and lives on. */
	if (state == 'X' || (state == 'Z' && threads <= 1))
		return 0;
	return parent;
}

static size_t
list_processes(Process **list)
{
	DIR		   *dir = opendir("/proc");
	struct dirent *entry;
	size_t		n = 0;
	size_t		cap = 256;

	*list = bc_alloc(cap * sizeof(Process));
	while (dir != NULL && (entry = readdir(dir)) != NULL)
	{
		pid_t		pid;
		pid_t		parent;

		if (!isdigit((unsigned char) entry->d_name[0]))
			continue;
		pid = (pid_t) atol(entry->d_name);
		if ((parent = parent_of(pid)) == 0)
			continue;
		if (n == cap)
		{
			Process    *grown = bc_alloc(2 * cap * sizeof(Process));

			memcpy(grown, *list, n * sizeof(Process));
			free(*list);
			*list = grown;
			cap *= 2;
		}
		(*list)[n++] = (Process) {pid, parent, false};
	}
	if (dir != NULL)
		closedir(dir);
	return n;
}

int
bc_procs_signal(pid_t root, pid_t except, int signal)
{
	Process    *list;
	size_t		n = list_processes(&list);
	bool		grew = true;
	int			count = 0;

	/* Parents come after children often enough: repeat until nothing is new. */
	while (grew)
	{
		grew = false;
		for (size_t i = 0; i < n; i++)
		{
			bool		below = list[i].parent == root;

			for (size_t k = 0; !below && k < n; k++)
				below = list[k].below && list[k].pid == list[i].parent;
			if (below && !list[i].below)
				list[i].below = grew = true;
		}
	}
	for (size_t i = 0; i < n; i++)
	{
		if (!list[i].below || list[i].pid == except)
			continue;
		count++;
		(void) kill(list[i].pid, signal);
	}
	free(list);
	return count;
}

/* Reaps what has ended.  True when there is no child, and so no descendant: orphans become ours. */
static bool
reap_all(void)
{
	int			status;
	pid_t		pid;

	do
		pid = waitpid(-1, &status, WNOHANG);
	while (pid > 0 || (pid < 0 && errno == EINTR));
	return pid < 0;
}

/*
 * Kills the direct children over and over.  A chain of processes, each of which
 * forks and ends at once, outruns a walk through all of /proc; but its present
 * end is always our child, or about to be.
 */
bool
bc_procs_kill_children(void)
{
	char		path[64];
	int			fd;
	bool		gone = reap_all();

	snprintf(path, sizeof(path), "/proc/self/task/%ld/children", (long) getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	for (int round = 0; fd >= 0 && !gone && round < HASTE_ROUNDS; round++)
	{
		char		list[4096];
		ssize_t		n = pread(fd, list, sizeof(list) - 1, 0);
		char	   *at = list;

		if (n <= 0)
			n = 0;
		/* The last number may have been cut: kill only what a blank follows. */
		list[n] = '\0';
		for (char *blank; (blank = strchr(at, ' ')) != NULL; at = blank + 1)
			(void) kill((pid_t) atol(at), SIGKILL);
		gone = reap_all();
	}
	if (fd >= 0)
		close(fd);
	return gone;
}

bool
bc_procs_kill_all(int timeout_ms)
{
	int64_t		end = bc_now() + timeout_ms;

	while (!reap_all())
	{
		/* Stopped first, they can't make new ones while the rest is found. */
		(void) bc_procs_signal(getpid(), 0, SIGSTOP);
		(void) bc_procs_signal(getpid(), 0, SIGKILL);
		if (bc_procs_kill_children())
			break;
		if (bc_now() >= end)
			return false;
		(void) poll(NULL, 0, ROUND_MS);
	}
	return true;
}
