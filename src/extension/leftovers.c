/* SPDX-License-Identifier: PostgreSQL */
/*
 * leftovers.c
 *	  Finds and kills what an earlier dispatcher left behind.
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "extension/compat.h"
#include "extension/host.h"
#include "extension/leftovers.h"
#include "extension/process.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/fd.h"

#define WAIT_MS 4000
#define PATIENCE_MS 2000
#define STEP_MS 10

/* Reads a small file of /proc; its length, or -1. */
static ssize_t
read_proc(pid_t pid, const char *name, char *buffer, size_t size)
{
	char		path[64];
	ssize_t		n;
	int			fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int) pid, name);
	fd = OpenTransientFile(path, O_RDONLY);
	if (fd < 0)
		return -1;
	n = read(fd, buffer, size - 1);
	CloseTransientFile(fd);
	if (n >= 0)
		buffer[n] = '\0';
	return n;
}

/* The parent, or 0.  The name of the program, in parentheses, may have any character. */
static pid_t
parent_of(pid_t pid)
{
	char		buffer[1024];
	char	   *rest;

	if (read_proc(pid, "stat", buffer, sizeof(buffer)) <= 0 || (rest = strrchr(buffer, ')')) == NULL ||
		strlen(rest) < 5)
		return 0;
	return (pid_t) strtol(rest + 4, NULL, 10);
}

/* The file that a process runs into "program" (MAXPGPATH). */
static bool
program_of(pid_t pid, char *program)
{
	char		path[64];
	char	   *deleted;
	ssize_t		n;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int) pid);
	n = readlink(path, program, MAXPGPATH - 1);
	if (n <= 0)
		return false;
	program[n] = '\0';
	/* The package may have been updated since. */
	deleted = strstr(program, " (deleted)");
	if (deleted != NULL && deleted[strlen(" (deleted)")] == '\0')
		*deleted = '\0';
	return true;
}

static bool
runs_our_program(pid_t pid)
{
	char		program[MAXPGPATH];

	return program_of(pid, program) && strcmp(program, bc_process_path()) == 0;
}

/*
 * Is it a server's?  The dispatcher of a copy of this cluster on the same host
 * has the same origin, and runners that are at work.
 */
static bool
is_dispatcher(pid_t pid)
{
	char		theirs[MAXPGPATH];
	char		mine[MAXPGPATH];

	return program_of(pid, theirs) && program_of(MyProcPid, mine) && strcmp(theirs, mine) == 0;
}

static bool
is_ours(pid_t pid)
{
	char		command[MAXPGPATH * 2];
	char		path[64];
	struct stat status;
	ssize_t		n;
	const char *argument;

	snprintf(path, sizeof(path), "/proc/%d", (int) pid);
	if (stat(path, &status) < 0 || status.st_uid != geteuid() || !runs_our_program(pid))
		return false;
	n = read_proc(pid, "cmdline", command, sizeof(command));
	if (n <= 0)
		return false;
	argument = command + strlen(command) + 1;
	return argument < command + n && strcmp(argument, bc_host_origin()) == 0;
}

static List *
find(void)
{
	DIR		   *dir = AllocateDir("/proc");
	struct dirent *entry;
	List	   *found = NIL;

	while (dir != NULL && (entry = ReadDirExtended(dir, "/proc", LOG)) != NULL)
	{
		pid_t		pid = (pid_t) strtol(entry->d_name, NULL, 10);
		pid_t		parent;

		if (pid <= 1 || !is_ours(pid))
			continue;
		parent = parent_of(pid);
		/* The guard of an agent is a runner's child; it cleans up when that is gone. */
		if (parent <= 1 || (!is_ours(parent) && !is_dispatcher(parent)))
			found = lappend_int(found, (int) pid);
	}
	if (dir != NULL)
		FreeDir(dir);
	return found;
}

/* By a handle that was got before the last look: the pid can't have become another's. */
static void
kill_one(pid_t pid, int signal)
{
#ifdef SYS_pidfd_open
	int			handle = (int) syscall(SYS_pidfd_open, pid, 0);

	if (handle >= 0)
	{
		if (is_ours(pid))
			(void) syscall(SYS_pidfd_send_signal, handle, signal, NULL, 0);
		close(handle);
		return;
	}
#endif
	if (is_ours(pid))
		(void) kill(pid, signal);
}

void
bc_leftovers_kill(void)
{
	List	   *leftovers = find();
	List	   *found = leftovers;
	ListCell   *cell;

	/*
	 * They end in order first: where the postmaster is process 1, it is their
	 * parent now, and takes a child that is killed for a backend that crashed.
	 */
	for (int waited = 0; found != NIL && waited < WAIT_MS; waited += STEP_MS)
	{
		if (waited == 0 || waited == PATIENCE_MS)
			foreach(cell, found)
				kill_one(lfirst_int(cell), waited == 0 ? SIGTERM : SIGKILL);
		bc_serve_interrupts();
		pg_usleep(STEP_MS * 1000L);
		found = find();
	}
	foreach(cell, leftovers)
		ereport(LOG,
				(errmsg("boocoder ended process %d, a runner that an earlier dispatcher of this database left",
						lfirst_int(cell))));
}
