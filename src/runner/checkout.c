/* SPDX-License-Identifier: PostgreSQL */
/*
 * checkout.c
 *	  Single files of a checkout, without following links.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/checkout.h"
#include "runner/git_repo.h"

/* One file to be replaced or removed */
typedef struct Staged
{
	struct Staged *next;
	int			dir;			/* the directory it is in */
	char	   *path;
	char	   *name;			/* its last component */
	char	   *prepared;		/* the new form; NULL: it is to be removed */
	char	   *saved;			/* the old form, once it is saved; NULL: there was none */
	bool		moved;
} Staged;

static Staged *first;
static Staged *last;

/*
 * Opens the directory of "path" below the checkout.  -1 with errno set; ELOOP
 * and ENOTDIR mean that something else is in the way.
 */
static int
open_parent(git_repository *repo, const char *path, bool make, const char **name)
{
	int			dir = open(git_repository_workdir(repo), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*name = path;
	for (const char *slash; dir >= 0 && (slash = strchr(*name, '/')) != NULL; *name = slash + 1)
	{
		char		component[NAME_MAX + 1];
		size_t		len = (size_t) (slash - *name);
		int			next;
		int			error;

		if (len > NAME_MAX)
		{
			close(dir);
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(component, *name, len);
		component[len] = '\0';
		next = openat(dir, component, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0 && errno == ENOENT && make && mkdirat(dir, component, 0777) == 0)
			next = openat(dir, component, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		error = errno;
		close(dir);
		errno = error;
		dir = next;
	}
	return dir;
}

BcLook
bc_checkout_look(git_repository *repo, const char *path, BcEntry *entry)
{
	const char *name;
	int			dir = open_parent(repo, path, false, &name);
	struct stat st;
	int			error;

	memset(entry, 0, sizeof(*entry));
	if (dir < 0)
		return errno == ENOENT ? BC_LOOK_OK :
			errno == ELOOP || errno == ENOTDIR ? BC_LOOK_OBSTACLE : BC_LOOK_FAILED;
	error = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
	close(dir);
	if (error != 0)
		return error == ENOENT ? BC_LOOK_OK : BC_LOOK_FAILED;
	if (S_ISLNK(st.st_mode))
		entry->mode = GIT_FILEMODE_LINK;
	else if (S_ISREG(st.st_mode))
		entry->mode = (st.st_mode & S_IXUSR) ? GIT_FILEMODE_BLOB_EXECUTABLE : GIT_FILEMODE_BLOB;
	else
		return BC_LOOK_OBSTACLE;
	/* Line ends and the like as the repository's attributes have them */
	return git_blob_create_from_workdir(&entry->id, repo, path) < 0 ? BC_LOOK_FAILED : BC_LOOK_OK;
}

static int
write_all(int fd, const char *data, size_t len)
{
	while (len > 0)
	{
		ssize_t		n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data += n;
		len -= (size_t) n;
	}
	return fsync(fd);
}

/* Writes a blob, as the checkout wants it, to a new file or link. */
static json_t *
prepare(git_repository *repo, const Staged *staged, const BcEntry *entry)
{
	git_blob   *blob = NULL;
	git_buf		content = GIT_BUF_INIT;
	git_blob_filter_options options = GIT_BLOB_FILTER_OPTIONS_INIT;
	int			error = git_blob_lookup(&blob, repo, &entry->id);
	int			fd = -1;
	json_t	   *failure = NULL;

	if (error == 0 && entry->mode == GIT_FILEMODE_LINK)
	{
		char	   *target = bc_asprintf("%.*s", (int) git_blob_rawsize(blob),
										 (const char *) git_blob_rawcontent(blob));

		error = symlinkat(target, staged->dir, staged->prepared);
		free(target);
	}
	else if (error == 0)
	{
		mode_t		mode = entry->mode == GIT_FILEMODE_BLOB_EXECUTABLE ? 0777 : 0666;

		options.flags = 0;
		error = git_blob_filter(&content, blob, staged->path, &options);
		if (error == 0)
			fd = openat(staged->dir, staged->prepared,
						O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
		if (error == 0 && (fd < 0 || write_all(fd, content.ptr, content.size) < 0))
			error = -1;
	}
	if (error < 0)
		failure = bc_git_fail("git_error", NULL, "could not write \"%s\": %s", staged->path,
							  strerror(errno));
	if (fd >= 0)
		close(fd);
	git_buf_dispose(&content);
	git_blob_free(blob);
	return failure;
}

json_t *
bc_checkout_stage(git_repository *repo, const char *path, const BcEntry *entry)
{
	static int	counter = 0;
	const char *name;
	int			dir = open_parent(repo, path, entry->mode != 0, &name);
	Staged	   *staged;

	if (dir < 0)
		return bc_git_fail("git_error", NULL, "can't reach \"%s\": %s", path, strerror(errno));
	staged = bc_alloc(sizeof(Staged));
	staged->dir = dir;
	staged->path = bc_strdup(path);
	staged->name = bc_strdup(name);
	if (last != NULL)
		last->next = staged;
	else
		first = staged;
	last = staged;
	if (entry->mode == 0)
		return NULL;
	staged->prepared = bc_asprintf(".boocoder-%ld-%d.new", (long) getpid(), counter++);
	return prepare(repo, staged, entry);
}

/* Keeps the old form under another name, so that it can come back. */
static int
save(Staged *staged, int number)
{
	staged->saved = bc_asprintf(".boocoder-%ld-%d.old", (long) getpid(), number);
	if (linkat(staged->dir, staged->name, staged->dir, staged->saved, 0) == 0)
		return 0;
	free(staged->saved);
	staged->saved = NULL;
	return errno == ENOENT ? 0 : -1;
}

static void
undo(void)
{
	for (Staged *s = first; s != NULL; s = s->next)
	{
		if (!s->moved)
			continue;
		if (s->saved != NULL)
		{
			(void) renameat(s->dir, s->saved, s->dir, s->name);
			free(s->saved);
			s->saved = NULL;
		}
		else
			(void) unlinkat(s->dir, s->name, 0);
	}
}

json_t *
bc_checkout_commit(void)
{
	int			number = 0;

	for (Staged *s = first; s != NULL; s = s->next)
	{
		int			error = save(s, number++);

		if (error == 0)
			error = s->prepared != NULL ? renameat(s->dir, s->prepared, s->dir, s->name) :
				unlinkat(s->dir, s->name, 0);
		if (error < 0)
		{
			json_t	   *failure = bc_git_fail("git_error", NULL, "could not replace \"%s\": %s",
											  s->path, strerror(errno));

			undo();
			return failure;
		}
		s->moved = true;
		(void) fsync(s->dir);
	}
	return NULL;
}

void
bc_checkout_clear(void)
{
	while (first != NULL)
	{
		Staged	   *s = first;

		first = s->next;
		if (s->prepared != NULL && !s->moved)
			(void) unlinkat(s->dir, s->prepared, 0);
		if (s->saved != NULL)
			(void) unlinkat(s->dir, s->saved, 0);
		close(s->dir);
		free(s->path);
		free(s->name);
		free(s->prepared);
		free(s->saved);
		free(s);
	}
	last = NULL;
}
