/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_remove.c
 *	  Role "remove": a worktree goes, what it held stays.
 *
 * First its content, and the commits of its branch, are put under a ref; only
 * then is anything deleted, and nothing outside of the worktree root ever.
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
#include "runner/git_roles.h"
#include "runner/paths.h"

/* Saves content and branch; *ref is set when there was anything to save. */
static json_t *
archive(const json_t *order, git_repository *project, const char *name, char **ref)
{
	const char *base = bc_git_text(order, "worktree", "diff_base");
	git_repository *worktree = NULL;
	git_oid		tree;
	git_oid		tip;
	git_oid		base_oid;
	git_tree   *base_tree = NULL;
	char		hex[GIT_OID_HEXSZ + 1];
	json_t	   *failure = bc_git_open_worktree(order, project, &worktree);

	if (failure == NULL)
		failure = bc_git_snapshot(worktree, 0, &tree);
	if (failure == NULL && git_reference_name_to_id(&tip, worktree, "HEAD") < 0)
		failure = bc_git_fail("git_error", NULL, "the worktree has no HEAD");
	if (failure == NULL && base != NULL && git_oid_fromstr(&base_oid, base) == 0 &&
		git_oid_equal(&base_oid, &tip))
		json_decref(bc_git_tree(project, base, &base_tree));
	if (failure == NULL &&
		(base_tree == NULL || !git_oid_equal(git_tree_id(base_tree), &tree)))
	{
		const git_oid *parents[1] = {&tip};

		*ref = bc_asprintf("refs/boocoder/archive/%s", name);
		failure = bc_git_save(project, *ref, &tree, parents, 1,
							  "boocoder: content of a removed worktree\n", hex);
	}
	git_tree_free(base_tree);
	git_repository_free(worktree);
	return failure;
}

/* Deletes what is in a directory; no link is followed, no other device entered. */
static int
empty_directory(int fd, dev_t device)
{
	DIR		   *dir = fdopendir(fd);
	struct dirent *entry;
	int			error = 0;

	if (dir == NULL)
	{
		close(fd);
		return -1;
	}
	while (error == 0 && (entry = readdir(dir)) != NULL)
	{
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISDIR(st.st_mode))
		{
			int			child = openat(dirfd(dir), entry->d_name,
									   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

			/* What an agent made unreadable is still ours. */
			if (child < 0 && errno == EACCES &&
				fchmodat(dirfd(dir), entry->d_name, 0700, 0) == 0)
				child = openat(dirfd(dir), entry->d_name,
							   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			error = child < 0 || st.st_dev != device ? -1 : empty_directory(child, device);
			if (error == 0)
				error = unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
		}
		else
			error = unlinkat(dirfd(dir), entry->d_name, 0);
	}
	closedir(dir);
	return error;
}

static json_t *
remove_tree(const char *path, const char *root)
{
	struct stat st;
	int			fd;

	if (lstat(path, &st) < 0 && errno == ENOENT)
		return NULL;
	if (!bc_paths_is_below(path, root) || strlen(path) <= strlen(root) ||
		strstr(path, "/../") != NULL)
		return bc_git_fail("worktree_root_unsafe", NULL, "\"%s\" is not below \"%s\"", path, root);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return bc_git_fail("git_error", NULL, "can't open \"%s\": %s", path, strerror(errno));
	if (empty_directory(fd, st.st_dev) < 0 || rmdir(path) < 0)
		return bc_git_fail("git_error", NULL, "could not remove \"%s\": %s", path,
						   strerror(errno));
	return NULL;
}

static void
forget(const json_t *order, git_repository *project, const char *name)
{
	git_worktree_prune_options options;
	git_worktree *worktree = NULL;
	git_reference *branch = NULL;
	const char *branch_name = bc_git_text(order, "worktree", "branch");

	(void) git_worktree_prune_options_init(&options, GIT_WORKTREE_PRUNE_OPTIONS_VERSION);
	options.flags = GIT_WORKTREE_PRUNE_VALID | GIT_WORKTREE_PRUNE_LOCKED;
	if (git_worktree_lookup(&worktree, project, name) == 0)
		(void) git_worktree_prune(worktree, &options);
	git_worktree_free(worktree);
	/* Its commits are in the archive. */
	if (json_is_true(json_object_get(order, "delete_branch")) && branch_name != NULL &&
		strncmp(branch_name, "boocoder/", 9) == 0 &&
		git_branch_lookup(&branch, project, branch_name, GIT_BRANCH_LOCAL) == 0)
		(void) git_branch_delete(branch);
	git_reference_free(branch);
}

json_t *
bc_git_remove(const json_t *order)
{
	const char *path = bc_git_text(order, "worktree", "path");
	const char *root = json_string_value(json_object_get(order, "root"));
	const char *home = json_string_value(json_object_get(order, "home"));
	git_repository *project = NULL;
	json_t	   *failure = bc_git_open_project(bc_git_text(order, "project", "path"), &project);
	char	   *name = NULL;
	char	   *ref = NULL;

	if (failure == NULL && (path == NULL || root == NULL))
		failure = bc_git_fail("worktree_missing", NULL, "the order names no worktree");
	if (failure == NULL)
	{
		name = bc_git_worktree_name(path);
		if (access(path, F_OK) == 0)
			failure = archive(order, project, name, &ref);
	}
	if (failure == NULL)
		failure = remove_tree(path, root);
	if (failure == NULL && home != NULL)
		failure = remove_tree(home, root);
	if (failure == NULL)
	{
		int			lock = bc_git_lock(project);

		forget(order, project, name);
		if (lock >= 0)
			close(lock);
	}
	git_repository_free(project);
	if (failure == NULL)
		failure = json_pack("{s:b, s:s?}", "ok", 1, "archived", ref);
	free(name);
	free(ref);
	return failure;
}
