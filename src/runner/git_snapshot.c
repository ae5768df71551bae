/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_snapshot.c
 *	  The content of a worktree as a tree.
 *
 * The worktree's index says which files did not change since the checkout, so
 * only the others are read.  Everything else (diffs, archives) is then made of
 * objects, which no agent can change any more.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/git_repo.h"

#define MAX_DEPTH 64

typedef struct Snapshot
{
	git_repository *repo;
	git_index  *index;			/* in memory */
	const char *workdir;
	json_int_t	bytes;
	json_int_t	max_bytes;
	json_t	   *failure;
} Snapshot;

static int
failed(Snapshot *s, json_t *failure)
{
	if (s->failure == NULL)
		s->failure = failure;
	else
		json_decref(failure);
	return -1;
}

/* Puts the file at "path" into the tree; what is no file or link is passed over. */
static int
add_file(Snapshot *s, const char *path)
{
	char	   *full = bc_asprintf("%s%s", s->workdir, path);
	git_index_entry entry;
	struct stat st;
	int			error = 0;

	memset(&entry, 0, sizeof(entry));
	if (lstat(full, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)))
	{
		free(full);
		return 0;
	}
	s->bytes += st.st_size;
	if (s->max_bytes > 0 && s->bytes > s->max_bytes)
		error = failed(s, bc_git_fail("diff_too_large",
									  "Raise boocoder.max_diff, or have such files ignored.",
									  "changed files add up to more than %lld bytes, at \"%s\"",
									  (long long) s->max_bytes, path));
	else if (access(full, R_OK) < 0 && S_ISREG(st.st_mode))
		error = failed(s, bc_git_fail("git_error", NULL, "can't read \"%s\": %s", path,
									  strerror(errno)));
	else if (git_blob_create_from_workdir(&entry.id, s->repo, path) < 0)
		error = failed(s, bc_git_fail("git_error", NULL, "could not read \"%s\"", path));
	else
	{
		entry.path = path;
		entry.mode = S_ISLNK(st.st_mode) ? GIT_FILEMODE_LINK :
			(st.st_mode & S_IXUSR) ? GIT_FILEMODE_BLOB_EXECUTABLE : GIT_FILEMODE_BLOB;
		if (git_index_add(s->index, &entry) < 0)
			error = failed(s, bc_git_fail("git_error", NULL, "could not add \"%s\"", path));
	}
	free(full);
	return error;
}

/* A directory that git treats as a repository of its own: its files, but not its .git. */
static int
add_directory(Snapshot *s, const char *path, int depth)
{
	char	   *full = bc_asprintf("%s%s", s->workdir, path);
	int			fd = open(full, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR		   *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	int			error = 0;

	free(full);
	while (dir != NULL && error == 0 && depth < MAX_DEPTH && (entry = readdir(dir)) != NULL)
	{
		struct stat st;
		char	   *child;
		int			ignored = 0;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
			strcasecmp(entry->d_name, ".git") == 0 ||
			fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		child = bc_asprintf("%s%s", path, entry->d_name);
		if (git_ignore_path_is_ignored(&ignored, s->repo, child) == 0 && ignored)
			error = 0;
		else if (S_ISDIR(st.st_mode))
		{
			char	   *below = bc_asprintf("%s/", child);

			error = add_directory(s, below, depth + 1);
			free(below);
		}
		else
			error = add_file(s, child);
		free(child);
	}
	if (dir != NULL)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	return error;
}

static int
add_delta(Snapshot *s, const git_diff_delta *delta)
{
	const char *path = delta->new_file.path;
	size_t		len = strlen(path);

	switch (delta->status)
	{
		case GIT_DELTA_DELETED:
			(void) git_index_remove(s->index, path, 0);
			return 0;
		case GIT_DELTA_UNTRACKED:
			if (len > 0 && path[len - 1] == '/')
				return add_directory(s, path, 0);
			return add_file(s, path);
		case GIT_DELTA_MODIFIED:
		case GIT_DELTA_TYPECHANGE:
		case GIT_DELTA_ADDED:
			(void) git_index_remove(s->index, path, 0);
			return add_file(s, path);
		case GIT_DELTA_UNREADABLE:
			return failed(s, bc_git_fail("git_error", NULL, "can't read \"%s\"", path));
		case GIT_DELTA_UNMODIFIED:
		case GIT_DELTA_RENAMED:
		case GIT_DELTA_COPIED:
		case GIT_DELTA_IGNORED:
		case GIT_DELTA_CONFLICTED:
			return 0;
	}
	return 0;
}

json_t *
bc_git_snapshot(git_repository *worktree, json_int_t max_bytes, git_oid *tree)
{
	Snapshot	s = {worktree, NULL, git_repository_workdir(worktree), 0, max_bytes, NULL};
	git_diff_options options = GIT_DIFF_OPTIONS_INIT;
	git_index  *on_disk = NULL;
	git_diff   *diff = NULL;
	int			error = git_repository_index(&on_disk, worktree);

	options.flags = GIT_DIFF_INCLUDE_UNTRACKED | GIT_DIFF_RECURSE_UNTRACKED_DIRS |
		GIT_DIFF_INCLUDE_TYPECHANGE | GIT_DIFF_IGNORE_SUBMODULES | GIT_DIFF_SKIP_BINARY_CHECK;
	options.ignore_submodules = GIT_SUBMODULE_IGNORE_ALL;
	if (error == 0)
		error = git_diff_index_to_workdir(&diff, worktree, on_disk, &options);
	if (error == 0)
		error = git_index_new(&s.index);
	for (size_t i = 0; error == 0 && i < git_index_entrycount(on_disk); i++)
	{
		const git_index_entry *entry = git_index_get_byindex(on_disk, i);

		if (git_index_entry_stage(entry) == 0)
			error = git_index_add(s.index, entry);
	}
	/* Removals first: a file may have become a directory. */
	for (size_t i = 0; error == 0 && i < git_diff_num_deltas(diff); i++)
		if (git_diff_get_delta(diff, i)->status == GIT_DELTA_DELETED)
			error = add_delta(&s, git_diff_get_delta(diff, i));
	for (size_t i = 0; error == 0 && i < git_diff_num_deltas(diff); i++)
		if (git_diff_get_delta(diff, i)->status != GIT_DELTA_DELETED)
			error = add_delta(&s, git_diff_get_delta(diff, i));
	if (error == 0)
		error = git_index_write_tree_to(tree, s.index, worktree);
	if (error < 0 && s.failure == NULL)
		s.failure = bc_git_fail("git_error", NULL, "could not take a snapshot of the worktree");
	git_diff_free(diff);
	git_index_free(s.index);
	git_index_free(on_disk);
	return s.failure;
}
