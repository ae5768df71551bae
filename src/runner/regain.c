/* SPDX-License-Identifier: PostgreSQL */
/*
 * regain.c
 *	  Takes back what an agent's chmod took from the owner.  See regain.h.
 */
#include "runner/regain.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

bool
bc_regain(int base, const char *name)
{
	char		self[64];
	int			fd = openat(base, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	bool		ok;

	if (fd < 0)
		return false;
	ok = fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
	if (ok)
	{
		/* through /proc: a descriptor of O_PATH has no fchmod */
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		ok = chmod(self, (st.st_mode & 07777) | (S_ISDIR(st.st_mode) ? 0700 : 0600)) == 0;
	}
	close(fd);
	return ok;
}

int
bc_regain_open(int base, const char *name, int flags)
{
	int			fd = openat(base, name, flags);

	if (fd >= 0 || errno != EACCES)
		return fd;
	if (bc_regain(base, name))
		return openat(base, name, flags);
	errno = EACCES;
	return -1;
}

int
bc_regain_dir(int base, const char *name, int access)
{
	int			fd = bc_regain_open(base, name, DIR_FLAGS);

	/* one that can be read is not one that can be entered */
	if (fd >= 0 && faccessat(fd, ".", access, AT_EACCESS) != 0 && errno == EACCES)
		(void) bc_regain(base, name);
	return fd;
}

void
bc_regain_above(int base, const char *path)
{
	int			fd = fcntl(base, F_DUPFD_CLOEXEC, 0);

	for (const char *slash; fd >= 0 && (slash = strchr(path, '/')) != NULL; path = slash + 1)
	{
		char		part[NAME_MAX + 1];
		size_t		length = (size_t) (slash - path);
		int			next = -1;

		if (length < sizeof(part))
		{
			memcpy(part, path, length);
			part[length] = '\0';
			next = bc_regain_dir(fd, part, W_OK | X_OK);
		}
		close(fd);
		fd = next;
	}
	if (fd >= 0)
		close(fd);
}
