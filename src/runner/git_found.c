/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_found.c
 *	  Looks at a path of the project's checkout.  See git_found.h.
 */
#include "runner/git_found.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner/git_place.h"

#define LARGEST ((off_t) 1 << 30)

/* Which component above "path" is no directory? */
static BcFoundKind
blocked(int root, const char *path, char **blocker)
{
	for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/'))
	{
		struct stat st;

		free(*blocker);
		*blocker = strndup(path, (size_t) (slash - path));
		if (*blocker == NULL || fstatat(root, *blocker, &st, AT_SYMLINK_NOFOLLOW) != 0)
			break;
		if (S_ISLNK(st.st_mode))
			return BC_FOUND_LINKED;
		if (!S_ISDIR(st.st_mode))
			return BC_FOUND_BLOCKED;
	}
	return BC_FOUND_ERROR;
}

/* Applies the filters of one direction; without any, copies. */
static int
convert(git_repository *repo, const char *path, git_filter_mode_t mode, const BcBytes *in,
		BcBytes *out)
{
	git_filter_list *filters = NULL;
	git_buf		buffer = {0};
	int			code = git_filter_list_load(&filters, repo, NULL, path, mode,
											GIT_FILTER_ALLOW_UNSAFE);
	const char *data = in->data;
	size_t		length = in->length;

	if (code == 0 && filters != NULL)
	{
		code = git_filter_list_apply_to_buffer(&buffer, filters, in->data, in->length);
		data = buffer.ptr;
		length = buffer.size;
	}
	*out = (BcBytes) {0};
	if (code == 0)
	{
		out->data = malloc(length + 1);
		out->length = length;
		if (out->data == NULL)
			code = -1;
		else if (length > 0)
			memcpy(out->data, data, length);
	}
	git_buf_dispose(&buffer);
	git_filter_list_free(filters);
	return code;
}

static bool
read_file(git_repository *repo, int parent, const char *name, const char *path, BcFound *found)
{
	int			fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	BcBytes		clean = {0};
	size_t		used = 0;
	bool		ok;

	if (fd < 0)
		return false;
	ok = fstat(fd, &found->st) == 0 && S_ISREG(found->st.st_mode);
	if (ok && found->st.st_size > LARGEST)
	{
		errno = EFBIG;
		ok = false;
	}
	if (ok)
		found->raw.data = malloc((size_t) found->st.st_size + 1);
	while (ok && found->raw.data != NULL && used < (size_t) found->st.st_size)
	{
		ssize_t		got = read(fd, found->raw.data + used, (size_t) found->st.st_size - used);

		if (got <= 0)
			break;
		used += (size_t) got;
	}
	close(fd);
	if (!ok || found->raw.data == NULL)
		return false;
	found->raw.length = used;
	ok = convert(repo, path, GIT_FILTER_TO_ODB, &found->raw, &clean) == 0 &&
		git_odb_hash(&found->clean, clean.data, clean.length, GIT_OBJECT_BLOB) == 0;
	free(clean.data);
	errno = EIO;
	return ok;
}

static bool
read_link(int parent, const char *name, BcFound *found)
{
	ssize_t		got;

	found->raw.data = malloc(PATH_MAX);
	if (found->raw.data == NULL)
		return false;
	got = readlinkat(parent, name, found->raw.data, PATH_MAX);
	if (got < 0)
		return false;
	found->raw.length = (size_t) got;
	return git_odb_hash(&found->clean, found->raw.data, found->raw.length, GIT_OBJECT_BLOB) == 0;
}

void
bc_git_found(git_repository *repo, int root, const char *path, BcFound *found)
{
	const char *name;
	int			parent = bc_git_place_parent(root, path, 0, &name, NULL);

	*found = (BcFound) {.kind = BC_FOUND_ERROR};
	if (parent < 0)
	{
		if (errno == ENOENT)
			found->kind = BC_FOUND_NOTHING;
		else if (errno == ENOTDIR || errno == ELOOP)
			found->kind = blocked(root, path, &found->blocker);
		return;
	}
	if (fstatat(parent, name, &found->st, AT_SYMLINK_NOFOLLOW) != 0)
	{
		if (errno == ENOENT)
			found->kind = BC_FOUND_NOTHING;
	}
	else if (S_ISDIR(found->st.st_mode))
		found->kind = BC_FOUND_DIR;
	else if (S_ISLNK(found->st.st_mode) ? read_link(parent, name, found) :
			 S_ISREG(found->st.st_mode) && read_file(repo, parent, name, path, found))
		found->kind = BC_FOUND_FILE;
	else if (!S_ISREG(found->st.st_mode) && !S_ISLNK(found->st.st_mode))
		found->kind = BC_FOUND_OTHER;
	close(parent);
}

void
bc_git_found_free(BcFound *found)
{
	free(found->blocker);
	free(found->raw.data);
	*found = (BcFound) {0};
}

static bool
raw_is(const BcFound *found, const BcFileState *state)
{
	return found->kind == BC_FOUND_FILE && state->mode != 0 &&
		found->raw.length == state->content.length &&
		memcmp(found->raw.data, state->content.data, found->raw.length) == 0;
}

static bool
clean_is(const BcFound *found, const BcFileState *state)
{
	git_oid		oid;

	return git_odb_hash(&oid, state->content.data, state->content.length, GIT_OBJECT_BLOB) == 0 &&
		git_oid_equal(&oid, &found->clean);
}

bool
bc_git_found_is(const BcFound *found, const BcFileState *state, bool file_mode)
{
	if (state->mode == 0)
		return found->kind == BC_FOUND_NOTHING;
	if (found->kind != BC_FOUND_FILE ||
		S_ISLNK(found->st.st_mode) != (state->mode == GIT_FILEMODE_LINK))
		return false;
	if (file_mode && S_ISREG(found->st.st_mode) &&
		((found->st.st_mode & 0100) != 0) != (state->mode == GIT_FILEMODE_BLOB_EXECUTABLE))
		return false;
	return raw_is(found, state) || clean_is(found, state);
}

int
bc_git_found_form(git_repository *repo, const char *path, const BcFound *found,
				  const BcFileState *before, const BcFileState *state, BcBytes *out)
{
	/* lies there as stored, although git would convert it: so it stays */
	bool		plain = state->mode == GIT_FILEMODE_LINK ||
		(raw_is(found, before) && !clean_is(found, before));

	if (!plain)
		return convert(repo, path, GIT_FILTER_TO_WORKTREE, &state->content, out);
	out->length = state->content.length;
	out->data = malloc(out->length + 1);
	if (out->data == NULL)
		return -1;
	memcpy(out->data, state->content.data, out->length);
	return 0;
}
