/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_content.c
 *	  Files of a worktree as blobs.  See git_content.h.
 */
#include "runner/git_content.h"

#include <errno.h>
#include <fcntl.h>
#include <git2/sys/repository.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner/git_place.h"
#include "runner/git_repo.h"
#include "runner/regain.h"

#define SCRATCH "boocoder-attributes"
#define LARGEST_FILE ((size_t) 1 << 30)
#define LARGEST_STEERING (1024 * 1024)
#define READ_FLAGS (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* The cache is optional: without it every file is read. */
static bool
open_index(BcContent *content, const char *entry_dir)
{
	char		path[PATH_MAX + 32];
	struct stat st;

	snprintf(path, sizeof(path), "%s/index", entry_dir);
	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
	{
		content->index_time = st.st_mtim;
		if (git_index_open(&content->index, path) == 0)
			return true;
	}
	return git_index_new(&content->index) == 0;
}

bool
bc_git_content_open(BcContent *content, const char *project, const char *entry_dir,
					BcGitProblem *problem)
{
	char		scratch[PATH_MAX + 32];

	content->problem = problem;
	content->scratch = -1;
	content->entry = bc_git_place_dir(AT_FDCWD, entry_dir);
	if (content->entry < 0)
		return bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot open \"%s\"", entry_dir);
	content->repo = bc_git_open(project, false, problem);
	if (content->repo == NULL || !bc_git_place_remove(content->entry, SCRATCH, problem))
		return false;
	snprintf(scratch, sizeof(scratch), "%s/" SCRATCH, entry_dir);
	if (mkdirat(content->entry, SCRATCH, 0700) != 0 ||
		(content->scratch = bc_git_place_dir(content->entry, SCRATCH)) < 0)
		return bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot make \"%s\"", scratch);
	if (!open_index(content, entry_dir) ||
		git_repository_set_index(content->repo, content->index) != 0 ||
		git_repository_set_workdir(content->repo, scratch, 0) != 0 ||
		git_repository_odb(&content->odb, content->repo) != 0)
		return bc_git_problem_git(problem, "cannot prepare a look at the worktree");
	content->file_mode = bc_git_file_mode(content->repo);
	return true;
}

void
bc_git_content_close(BcContent *content)
{
	git_odb_free(content->odb);
	git_index_free(content->index);
	git_repository_free(content->repo);
	if (content->scratch >= 0)
		close(content->scratch);
	if (content->entry >= 0)
	{
		BcGitProblem leftover;	/* the next look removes it, too */

		bc_git_place_remove(content->entry, SCRATCH, &leftover);
		close(content->entry);
	}
}

static bool
same_time(const git_index_time *known, const struct timespec *now)
{
	return known->seconds == (int32_t) now->tv_sec && known->nanoseconds == (uint32_t) now->tv_nsec;
}

/*
 * Is the file known from the index?  A file that changed in or after the
 * instant in which the index was written may have changed behind its back.
 * Of times without a fraction, the whole second is that instant.
 */
static bool
known(const BcContent *content, const char *path, const struct stat *st, const git_oid *base,
	  git_oid *oid)
{
	const git_index_entry *entry = git_index_get_bypath(content->index, path, 0);
	const struct timespec *limit = &content->index_time;

	if (entry == NULL || entry->file_size != (uint32_t) st->st_size ||
		entry->ino != (uint32_t) st->st_ino || !same_time(&entry->mtime, &st->st_mtim) ||
		!same_time(&entry->ctime, &st->st_ctim))
		return false;
	if (S_ISLNK(st->st_mode) != (entry->mode == GIT_FILEMODE_LINK) ||
		entry->mode == GIT_FILEMODE_COMMIT)
		return false;
	if (st->st_ctim.tv_sec > limit->tv_sec ||
		(st->st_ctim.tv_sec == limit->tv_sec &&
		 (st->st_ctim.tv_nsec == 0 || limit->tv_nsec == 0 ||
		  st->st_ctim.tv_nsec >= limit->tv_nsec)))
		return false;
	git_oid_cpy(oid, &entry->id);
	/* the index is the agent's to write, too */
	return (base != NULL && git_oid_equal(base, oid)) || git_odb_exists(content->odb, oid) == 1;
}

/* Reads an open regular file to its end, unless it grows beyond "limit" meanwhile (EFBIG).  malloc'ed. */
static char *
read_all(int fd, size_t size, size_t limit, size_t *length)
{
	size_t		room = size + 1;
	char	   *data = malloc(room);
	size_t		used = 0;
	ssize_t		got = 0;

	while (data != NULL && (got = read(fd, data + used, room - used)) != 0)
	{
		if (got < 0 && errno != EINTR)
			break;
		used += got > 0 ? (size_t) got : 0;
		if (used > limit)
		{
			errno = EFBIG;
			break;
		}
		if (used == room)
		{
			char	   *more = realloc(data, room *= 2);

			if (more == NULL)
				break;
			data = more;
		}
	}
	if (data != NULL && got == 0)
	{
		*length = used;
		return data;
	}
	free(data);
	return NULL;
}

/* Stores the content in the form it has inside the repository. */
static bool
store(BcContent *content, const char *path, const char *data, size_t length, git_oid *oid)
{
	git_filter_list *filters = NULL;
	git_buf		clean = {0};
	int			code = git_filter_list_load(&filters, content->repo, NULL, path,
											GIT_FILTER_TO_ODB, GIT_FILTER_ALLOW_UNSAFE);

	if (code == 0 && filters != NULL)
		code = git_filter_list_apply_to_buffer(&clean, filters, data, length);
	if (code == 0 && filters != NULL)
		code = git_odb_write(oid, content->odb, clean.ptr, clean.size, GIT_OBJECT_BLOB);
	else if (code == 0)
		code = git_odb_write(oid, content->odb, data, length, GIT_OBJECT_BLOB);
	git_buf_dispose(&clean);
	git_filter_list_free(filters);
	return code == 0 ||
		bc_git_problem_git(content->problem, "the file \"%s\" cannot be stored", path);
}

static bool
too_large(BcContent *content, const char *path, off_t size, size_t limit)
{
	bc_git_problem(content->problem, BC_GIT_DIFF_TOO_LARGE,
				   "the file \"%s\" has %lld bytes, more than the limit of %zu", path,
				   (long long) size, limit);
	return bc_git_problem_hint(content->problem, "Name it in .gitignore if it is no result, or "
							   "raise boocoder.max_diff.");
}

static bool
store_file(BcContent *content, int dir, const char *name, const char *path, bool in_base,
		   git_oid *oid)
{
	/* one that was there before may be unchanged: that is known when it was read */
	size_t		limit = in_base && content->max_file < LARGEST_FILE ? LARGEST_FILE :
		content->max_file;
	int			fd = bc_regain_open(dir, name, READ_FLAGS);
	struct stat st;
	char	   *data = NULL;
	size_t		length = 0;
	bool		ok = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);

	content->unread = true;
	if (ok && (size_t) st.st_size > limit)
	{
		close(fd);
		return too_large(content, path, st.st_size, limit);
	}
	if (ok)
		data = read_all(fd, (size_t) st.st_size, limit, &length);
	if (data == NULL)
		bc_git_problem_errno(content->problem, BC_GIT_GIT_ERROR,
							 "the file \"%s\" cannot be read", path);
	if (fd >= 0)
		close(fd);
	content->unread = data == NULL;
	ok = data != NULL && store(content, path, data, length, oid);
	free(data);
	return ok;
}

static bool
store_link(BcContent *content, int dir, const char *name, const char *path, git_oid *oid)
{
	char		target[PATH_MAX];
	ssize_t		length = readlinkat(dir, name, target, sizeof(target));

	content->unread = length < 0;
	if (length < 0)
		return bc_git_problem_errno(content->problem, BC_GIT_GIT_ERROR,
									"the link \"%s\" cannot be read", path);
	return git_odb_write(oid, content->odb, target, (size_t) length, GIT_OBJECT_BLOB) == 0 ||
		bc_git_problem_git(content->problem, "the link \"%s\" cannot be stored", path);
}

bool
bc_git_content_blob(BcContent *content, int dir, const char *name, const char *path,
					const struct stat *st, const git_oid *base, git_oid *oid)
{
	if (known(content, path, st, base, oid))
		return true;
	if (S_ISLNK(st->st_mode))
		return store_link(content, dir, name, path, oid);
	return store_file(content, dir, name, path, base != NULL, oid);
}

/* Like git, which follows no links here; a giant one steers nothing. */
static bool
copy_steering(BcContent *content, int dir, const char *prefix, const char *name)
{
	char		target[PATH_MAX];
	const char *last;
	int			in = bc_regain_open(dir, name, READ_FLAGS);
	int			parent = -1;
	int			out = -1;
	struct stat st;
	char	   *data = NULL;
	size_t		length = 0;
	bool		ok;

	if (in < 0 || fstat(in, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > LARGEST_STEERING)
	{
		if (in >= 0)
			close(in);
		return true;
	}
	data = read_all(in, (size_t) st.st_size, 2 * LARGEST_STEERING, &length);
	close(in);
	snprintf(target, sizeof(target), "%s%s", prefix, name);
	if (data != NULL)
		parent = bc_git_place_parent(content->scratch, target, 0700, &last, NULL);
	if (parent >= 0)
		out = openat(parent, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	ok = out >= 0 && write(out, data, length) == (ssize_t) length;
	if (!ok)
		bc_git_problem_errno(content->problem, BC_GIT_GIT_ERROR, "\"%s\" cannot be copied", target);
	if (out >= 0)
		close(out);
	if (parent >= 0)
		close(parent);
	free(data);
	return ok;
}

bool
bc_git_content_steer(BcContent *content, int dir, const char *prefix)
{
	return copy_steering(content, dir, prefix, ".gitignore") &&
		copy_steering(content, dir, prefix, ".gitattributes");
}

bool
bc_git_content_ignored(BcContent *content, const char *path, bool *out)
{
	int			flag = 0;

	if (git_ignore_path_is_ignored(&flag, content->repo, path) != 0)
		return bc_git_problem_git(content->problem, "cannot tell whether \"%s\" is ignored", path);
	*out = flag != 0;
	return true;
}
