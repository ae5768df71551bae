/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_place.c
 *	  Checks of the worktree root; walking, making and removing below it.
 */
#include "runner/git_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/git_text.h"
#include "runner/regain.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* Directories nested deeper are moved up before they are removed. */
#define REMOVE_DEPTH 64

bool
bc_git_place_real(const char *path, char *out)
{
	char		head[PATH_MAX];
	char		real[PATH_MAX];
	size_t		length = strlen(path);

	if (path[0] != '/' || length >= sizeof(head))
		return false;
	memcpy(head, path, length + 1);
	while (length > 1 && head[length - 1] == '/')
		head[--length] = '\0';
	while (realpath(head, real) == NULL)
	{
		char	   *slash = strrchr(head, '/');

		if (errno != ENOENT)
			return false;
		if (slash == head)
		{
			strcpy(real, "/");
			head[0] = '\0';
			break;
		}
		*slash = '\0';
	}
	/* the tail is added as it stands: it must not climb */
	for (const char *part = path + strlen(head); *part != '\0';)
	{
		size_t		size;

		part += strspn(part, "/");
		size = strcspn(part, "/");
		if ((size == 1 && part[0] == '.') || (size == 2 && part[0] == '.' && part[1] == '.'))
			return false;
		if (size > 0 && strlen(real) + size + 2 < sizeof(real))
		{
			if (strcmp(real, "/") != 0)
				strcat(real, "/");
			strncat(real, part, size);
		}
		part += size;
	}
	strcpy(out, real);
	return true;
}

static bool
inside(const char *inner, const char *outer)
{
	size_t		length = strlen(outer);

	if (strcmp(outer, "/") == 0)
		return true;
	return strncmp(inner, outer, length) == 0 && (inner[length] == '/' || inner[length] == '\0');
}

bool
bc_git_place_nested(const char *a, const char *b)
{
	return inside(a, b) || inside(b, a);
}

bool
bc_git_place_check_root(const char *root, const json_t *forbidden, const char *project,
						char *real, BcGitProblem *problem)
{
	size_t		i;
	json_t	   *item;

	if (!bc_git_place_real(root, real) || strcmp(real, "/") == 0)
	{
		bc_git_problem(problem, BC_GIT_WORKTREE_ROOT_UNSAFE,
					   "the worktree root \"%s\" is not a usable absolute path", root);
		return bc_git_problem_hint(problem, "Set boocoder.worktree_root to a directory of its own.");
	}
	json_array_foreach(forbidden, i, item)
	{
		char		other[PATH_MAX];

		if (!json_is_string(item) || !bc_git_place_real(json_string_value(item), other) ||
			!bc_git_place_nested(real, other))
			continue;
		bc_git_problem(problem, BC_GIT_WORKTREE_ROOT_UNSAFE,
					   "the worktree root \"%s\" and the server's directory \"%s\" overlap",
					   real, other);
		return bc_git_problem_hint(problem, "Set boocoder.worktree_root to a directory outside: base "
								   "backups must not copy worktrees, nor agents see the server's files.");
	}
	if (project != NULL && bc_git_place_nested(real, project))
	{
		bc_git_problem(problem, BC_GIT_WORKTREE_ROOT_UNSAFE,
					   "the worktree root \"%s\" and the project \"%s\" overlap", real, project);
		return bc_git_problem_hint(problem, "Set boocoder.worktree_root to a directory outside of "
								   "every project.");
	}
	return true;
}

int
bc_git_place_dir(int base, const char *name)
{
	return openat(base, name, DIR_FLAGS);
}

int
bc_git_place_parent(int base, const char *path, mode_t make_mode, const char **name,
					unsigned *made)
{
	int			fd = fcntl(base, F_DUPFD_CLOEXEC, 0);

	*name = path;
	for (const char *slash; fd >= 0 && (slash = strchr(*name, '/')) != NULL; *name = slash + 1)
	{
		char		part[NAME_MAX + 1];
		size_t		length = (size_t) (slash - *name);
		int			next = -1;
		int			saved;

		if (length >= sizeof(part))
			errno = ENAMETOOLONG;
		else
		{
			memcpy(part, *name, length);
			part[length] = '\0';
			next = openat(fd, part, DIR_FLAGS);
			if (next < 0 && errno == ENOENT && make_mode != 0 && mkdirat(fd, part, make_mode) == 0)
			{
				if (made != NULL)
					(*made)++;
				next = openat(fd, part, DIR_FLAGS);
			}
			else if (next < 0 && errno == EEXIST)
				next = openat(fd, part, DIR_FLAGS);
		}
		saved = errno;
		close(fd);
		errno = saved;
		fd = next;
	}
	return fd;
}

int
bc_git_place_open_root(const char *real_root, BcGitProblem *problem)
{
	const char *name;
	int			slash = open("/", DIR_FLAGS);
	int			parent = bc_git_place_parent(slash, real_root + 1, 0700, &name, NULL);
	int			fd = -1;
	struct stat st;

	if (parent >= 0 && (mkdirat(parent, name, 0700) == 0 || errno == EEXIST))
		fd = openat(parent, name, DIR_FLAGS);
	if (fd < 0 || fstat(fd, &st) != 0)
	{
		bc_git_problem_errno(problem, BC_GIT_WORKTREE_ROOT_UNWRITABLE,
							 "the worktree root \"%s\" cannot be made", real_root);
		bc_git_problem_hint(problem, "Make it for the database server's user with mode 0700, or set "
							"boocoder.worktree_root to another directory.");
	}
	else if (st.st_uid != geteuid() || (st.st_mode & 022) != 0)
	{
		bc_git_problem(problem, BC_GIT_WORKTREE_ROOT_UNSAFE,
					   "the worktree root \"%s\" belongs to another user or is writable by others",
					   real_root);
		bc_git_problem_hint(problem, "It must belong to the database server's user, with mode 0700.");
		close(fd);
		fd = -1;
	}
	else if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
	{
		bc_git_problem_errno(problem, BC_GIT_WORKTREE_ROOT_UNWRITABLE,
							 "the worktree root \"%s\" is not writable", real_root);
		bc_git_problem_hint(problem, "The database server's user must be able to write there.");
		close(fd);
		fd = -1;
	}
	if (parent >= 0)
		close(parent);
	if (slash >= 0)
		close(slash);
	return fd;
}

const char *
bc_git_place_below(const char *path, const char *root, const char *real_root,
				   BcGitProblem *problem)
{
	const char *names[] = {root, real_root};

	for (int i = 0; i < 2; i++)
	{
		size_t		length = strlen(names[i]);

		while (length > 0 && names[i][length - 1] == '/')
			length--;
		if (strncmp(path, names[i], length) == 0 && path[length] == '/' &&
			bc_git_path_unsafe(path + length + 1) == NULL)
			return path + length + 1;
	}
	bc_git_problem(problem, BC_GIT_WORKTREE_ROOT_UNSAFE,
				   "the worktree \"%s\" does not lie below the worktree root \"%s\"", path, root);
	return NULL;
}

typedef struct Removal
{
	int			top;			/* the directory that is being removed */
	dev_t		device;
	unsigned	moved;			/* directories moved up so far */
	char		failed[NAME_MAX + 1];	/* name of what could not be removed */
	const char *why;			/* NULL: errno says */
} Removal;

static bool remove_content(Removal *removal, int fd, unsigned depth);

static bool
remove_child(Removal *removal, int fd, const char *name, unsigned depth)
{
	int			child;
	struct stat st;
	bool		ok;

	if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
		return true;
	if (errno != EISDIR && errno != EPERM)
		return false;
	if (depth >= REMOVE_DEPTH)
	{
		char		up[64];

		snprintf(up, sizeof(up), ".boocoder-removed-%u", removal->moved++);
		/* the name may be taken, by a file even: there is another one when the caller looks again */
		return renameat(fd, name, removal->top, up) == 0 || errno == EEXIST || errno == ENOTEMPTY ||
			errno == ENOTDIR;
	}
	child = bc_regain_dir(fd, name, W_OK | X_OK);
	if (child < 0)
		return false;
	ok = fstat(child, &st) == 0;
	if (ok && st.st_dev != removal->device)
	{
		removal->why = "another file system is mounted there";
		ok = false;
	}
	ok = ok && remove_content(removal, child, depth + 1);
	close(child);
	/* not empty: something was moved up, or written meanwhile; the caller looks again */
	return ok && (unlinkat(fd, name, AT_REMOVEDIR) == 0 || errno == ENOTEMPTY || errno == ENOENT);
}

static bool
remove_content(Removal *removal, int fd, unsigned depth)
{
	int			copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	DIR		   *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *item;
	bool		ok = true;

	if (dir == NULL)
	{
		if (copy >= 0)
			close(copy);
		return false;
	}
	rewinddir(dir);
	while (ok && (item = readdir(dir)) != NULL)
	{
		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		ok = remove_child(removal, fd, item->d_name, depth);
		if (!ok && removal->failed[0] == '\0')
			snprintf(removal->failed, sizeof(removal->failed), "%s", item->d_name);
	}
	closedir(dir);
	return ok;
}

bool
bc_git_place_remove(int parent, const char *name, BcGitProblem *problem)
{
	Removal		removal = {.top = -1};
	struct stat st;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT)
		return true;
	removal.top = bc_regain_dir(parent, name, W_OK | X_OK);
	if (removal.top < 0)
		return bc_git_problem_errno(problem, BC_GIT_GIT_ERROR,
									"the directory \"%s\" cannot be removed", name);
	if (fstat(removal.top, &st) == 0)
		removal.device = st.st_dev;

	/*
	 * Each pass empties REMOVE_DEPTH levels; the number of passes an honest
	 * tree can need is bounded by its depth.
	 */
	for (int pass = 0; pass < 1000; pass++)
	{
		if (!remove_content(&removal, removal.top, 0))
		{
			if (removal.why != NULL)
				bc_git_problem(problem, BC_GIT_GIT_ERROR, "\"%s\" in \"%s\" cannot be removed: %s",
							   removal.failed, name, removal.why);
			else
				bc_git_problem_errno(problem, BC_GIT_GIT_ERROR,
									 "\"%s\" in \"%s\" cannot be removed", removal.failed, name);
			close(removal.top);
			return false;
		}
		if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
		{
			close(removal.top);
			return true;
		}
		if (errno != ENOTEMPTY && errno != EEXIST)
			break;
	}
	bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "the directory \"%s\" cannot be removed", name);
	close(removal.top);
	return false;
}
