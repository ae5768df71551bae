/* SPDX-License-Identifier: PostgreSQL */
/*
 * fs_guard.c
 *	  Reads and writes text files for an agent, strictly inside its worktree.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runner/dotgit.h"
#include "runner/fs_guard.h"
#include "runner/text.h"

#define READ_CHUNK (64 * 1024)
#define COMMON_FLAGS (O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

static BcFsStatus
fail(BcFsProblem *problem, BcFsStatus status, const char *text)
{
	problem->status = status;
	snprintf(problem->message, sizeof(problem->message), "%s", text);
	return status;
}

static BcFsStatus
fail_errno(BcFsProblem *problem, int error)
{
	switch (error)
	{
		case ENOENT:
			return fail(problem, BC_FS_NOT_FOUND, "no such file");
		case EXDEV:
		case ELOOP:
			return fail(problem, BC_FS_REFUSED, "the path leads out of the worktree");
		case ENOTDIR:
		case EISDIR:
		case ENXIO:
			return fail(problem, BC_FS_REFUSED, "not a regular file");
		case ENAMETOOLONG:
		case EINVAL:
			return fail(problem, BC_FS_REFUSED, "not a usable path");
	}
	return fail(problem, BC_FS_FAILED, strerror(error));
}

/* The part of "path" below "base", or NULL. */
static const char *
below(const char *path, const char *base)
{
	size_t		len = strlen(base);

	while (len > 0 && base[len - 1] == '/')
		len--;
	if (strncmp(path, base, len) != 0 || path[len] != '/')
		return NULL;
	path += len;
	while (*path == '/')
		path++;
	return *path != '\0' ? path : NULL;
}

/* The path below the worktree; agents name it as we do or by its real name. */
static const char *
relative(const char *root, const char *path)
{
	const char *result = below(path, root);
	char		real[PATH_MAX];

	if (result == NULL && realpath(root, real) != NULL)
		result = below(path, real);
	return result;
}

/*
 * For kernels (or containers) without openat2: one component at a time, and no
 * symbolic links at all.
 */
static int
open_by_components(int root, const char *path, int flags, mode_t mode)
{
	int			dir = fcntl(root, F_DUPFD_CLOEXEC, 0);

	while (dir >= 0)
	{
		size_t		len = strcspn(path, "/");
		const char *next = path + len + strspn(path + len, "/");
		bool		last = *next == '\0';
		char		name[NAME_MAX + 1];
		int			fd;

		if (len > NAME_MAX || (len == 2 && strncmp(path, "..", 2) == 0))
		{
			close(dir);
			errno = len > NAME_MAX ? ENAMETOOLONG : EXDEV;
			return -1;
		}
		memcpy(name, path, len);
		name[len] = '\0';
		fd = openat(dir, name, O_NOFOLLOW | (last ? flags : O_PATH | O_DIRECTORY | O_CLOEXEC),
					last ? mode : 0);
		close(dir);
		if (last)
			return fd;
		dir = fd;
		path = next;
	}
	return -1;
}

static int
open_beneath(int root, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t) (unsigned) flags,
		.mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
	};
	long		fd = -1;

	/* EAGAIN: somebody renames directories meanwhile; who never stops gets an error. */
	for (int tries = 0; tries < 100; tries++)
	{
		fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		return open_by_components(root, path, flags, mode);
	return (int) fd;
}

/* Does a component of the path name a git directory, as any file system spells it? */
static bool
names_git_directory(const char *path)
{
	while (*path != '\0')
	{
		size_t		len = strcspn(path, "/");

		if (bc_git_is_dotgit(path, len))
			return true;
		path += len + strspn(path + len, "/");
	}
	return false;
}

/* Is the open file a git directory, or below one? */
static bool
in_git_directory(int fd, int root)
{
	char		link[64];
	char		path[PATH_MAX];
	char		base[PATH_MAX];
	ssize_t		n;
	const char *at;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", root);
	if ((n = readlink(link, base, sizeof(base) - 1)) < 0)
		return true;
	base[n] = '\0';
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if ((n = readlink(link, path, sizeof(path) - 1)) < 0)
		return true;
	path[n] = '\0';
	if (strcmp(path, base) == 0)
		return false;
	if ((at = below(path, base)) == NULL)
		return true;
	return names_git_directory(at);
}

static BcFsStatus
check_regular(int fd, struct stat *st, BcFsProblem *problem)
{
	if (fstat(fd, st) < 0)
		return fail_errno(problem, errno);
	if (!S_ISREG(st->st_mode))
		return fail(problem, BC_FS_REFUSED, "not a regular file");
	return BC_FS_OK;
}

static BcFsStatus
open_root(const char *root, const char **path, int *fd, BcFsProblem *problem)
{
	*path = relative(root, *path);
	if (*path == NULL)
		return fail(problem, BC_FS_REFUSED, "the path is not inside the worktree");
	*fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return *fd < 0 ? fail_errno(problem, errno) : BC_FS_OK;
}

static BcFsStatus
read_all(int fd, BcBuf *out, BcFsProblem *problem)
{
	for (;;)
	{
		ssize_t		n = read(fd, bc_buf_reserve(out, READ_CHUNK), READ_CHUNK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(problem, errno);
		if (n == 0)
			return BC_FS_OK;
		out->len += (size_t) n;
		if (out->len > BC_FS_MAX_FILE)
			return fail(problem, BC_FS_REFUSED, "the file is too large");
	}
}

/* The offset behind "lines" lines. */
static size_t
skip_lines(const char *text, size_t len, json_int_t lines)
{
	size_t		at = 0;

	for (; lines > 0 && at < len; lines--)
	{
		const char *newline = memchr(text + at, '\n', len - at);

		at = newline != NULL ? (size_t) (newline - text) + 1 : len;
	}
	return at;
}

BcFsStatus
bc_fs_read(const char *root, const char *path, json_int_t first, json_int_t limit, BcBuf *out,
		   BcFsProblem *problem)
{
	BcBuf		text = BC_BUF_INIT;
	struct stat st;
	int			dir;
	int			fd;

	if (open_root(root, &path, &dir, problem) != BC_FS_OK)
		return problem->status;
	problem->status = BC_FS_OK;
	fd = open_beneath(dir, path, O_RDONLY | COMMON_FLAGS, 0);
	if (fd < 0)
		fail_errno(problem, errno);
	else if (check_regular(fd, &st, problem) == BC_FS_OK &&
			 read_all(fd, &text, problem) == BC_FS_OK)
	{
		size_t		start = skip_lines(text.data, text.len, first > 1 ? first - 1 : 0);
		size_t		end = limit > 0 ?
			start + skip_lines(text.data + start, text.len - start, limit) : text.len;

		if (bc_text_is_clean(text.data, text.len))
			bc_buf_add(out, text.data + start, end - start);
		else
			fail(problem, BC_FS_REFUSED, "the file is not text in UTF-8");
	}
	if (fd >= 0)
		close(fd);
	close(dir);
	bc_buf_free(&text);
	return problem->status;
}

/* Makes the directories above the last component of "path" that are missing. */
static BcFsStatus
make_parents(int root, const char *path, BcFsProblem *problem)
{
	char		parent[PATH_MAX];

	if (strlen(path) >= sizeof(parent))
		return fail_errno(problem, ENAMETOOLONG);
	for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/'))
	{
		size_t		len = (size_t) (slash - path);
		char	   *name;
		int			above;
		int			error = 0;
		int			fd;

		memcpy(parent, path, len);
		parent[len] = '\0';
		fd = open_beneath(root, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
		if (fd >= 0)
		{
			close(fd);
			continue;
		}
		if (errno != ENOENT)
			return fail_errno(problem, errno);
		name = strrchr(parent, '/');
		if (name != NULL)
			*name++ = '\0';
		above = open_beneath(root, name != NULL ? parent : ".",
							 O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
		if (above < 0)
			return fail_errno(problem, errno);
		if (in_git_directory(above, root))
			error = EXDEV;
		else if (mkdirat(above, name != NULL ? name : parent, 0777) < 0 && errno != EEXIST)
			error = errno;
		close(above);
		if (error != 0)
			return fail_errno(problem, error);
	}
	return BC_FS_OK;
}

/* Creates the file in a directory that is checked to be no git directory before. */
static int
create_file(int root, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	char	   *parent = slash != NULL ? strndup(path, (size_t) (slash - path)) : strdup(".");
	int			dir = parent != NULL ?
		open_beneath(root, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0) : -1;
	int			fd = -1;

	free(parent);
	if (dir < 0)
		return -1;
	if (*name == '\0')
		errno = EISDIR;
	else if (in_git_directory(dir, root))
		errno = EXDEV;
	else
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | COMMON_FLAGS, 0666);
	close(dir);
	return fd;
}

static BcFsStatus
write_all(int fd, const char *text, size_t len, BcFsProblem *problem)
{
	if (ftruncate(fd, 0) < 0)
		return fail_errno(problem, errno);
	while (len > 0)
	{
		ssize_t		n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(problem, errno);
		text += n;
		len -= (size_t) n;
	}
	return BC_FS_OK;
}

BcFsStatus
bc_fs_write(const char *root, const char *path, const char *text, size_t len,
			BcFsProblem *problem)
{
	struct stat st;
	int			dir;
	int			fd;

	if (len > BC_FS_MAX_FILE)
		return fail(problem, BC_FS_REFUSED, "the text is too large");
	if (open_root(root, &path, &dir, problem) != BC_FS_OK)
		return problem->status;
	problem->status = BC_FS_OK;
	if (names_git_directory(path))
		fail(problem, BC_FS_REFUSED, "the path names a git directory");
	else if (make_parents(dir, path, problem) == BC_FS_OK)
	{
		fd = open_beneath(dir, path, O_WRONLY | COMMON_FLAGS, 0);
		if (fd < 0 && errno == ENOENT)
			fd = create_file(dir, path);
		if (fd < 0)
			fail_errno(problem, errno == EEXIST ? ELOOP : errno);
		else if (check_regular(fd, &st, problem) == BC_FS_OK)
		{
			if (in_git_directory(fd, dir))
				fail(problem, BC_FS_REFUSED, "the path names a git directory");
			else
				(void) write_all(fd, text, len, problem);
		}
		if (fd >= 0)
			close(fd);
	}
	close(dir);
	return problem->status;
}
