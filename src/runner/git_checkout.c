/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_checkout.c
 *	  Filling a worktree's directory.
 */
#include "runner/git_checkout.h"

#include <errno.h>
#include <fcntl.h>
#include <git2/sys/repository.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINK_TEMP ".git.boocoder-new"

bool
bc_git_checkout(const char *project, const BcGitEntry *entry, const char *path,
				const git_tree *tree, BcGitProblem *problem)
{
	git_checkout_options options;
	git_repository *repo = bc_git_open(project, false, problem);
	git_index  *index = NULL;
	git_tree   *target = NULL;	/* "tree", of this handle */
	char		file[PATH_MAX + 32];
	bool		ok;

	if (repo == NULL)
		return false;

	/*
	 * The project's repository with another working directory and index, in
	 * memory only: nothing that lies in the worktree is asked where its
	 * repository is.
	 */
	snprintf(file, sizeof(file), "%s/index.lock", entry->dir);
	unlink(file);				/* of a run that was killed: we hold the entry's lock */
	snprintf(file, sizeof(file), "%s/index", entry->dir);
	git_checkout_options_init(&options, GIT_CHECKOUT_OPTIONS_VERSION);
	options.checkout_strategy = GIT_CHECKOUT_FORCE | GIT_CHECKOUT_DONT_WRITE_INDEX;
	ok = git_tree_lookup(&target, repo, git_tree_id(tree)) == 0 &&
		git_index_open(&index, file) == 0 &&
		git_index_clear(index) == 0 &&
		git_repository_set_index(repo, index) == 0 &&
		git_repository_set_workdir(repo, path, 0) == 0 &&
		git_checkout_tree(repo, (const git_object *) target, &options) == 0 &&
		git_index_write(index) == 0;
	if (!ok)
	{
		bool		full = errno == ENOSPC;

		bc_git_problem_git(problem, "the files of the worktree \"%s\" cannot be written", path);
		if (full)
			bc_git_problem_hint(problem, "The file system of boocoder.worktree_root is full.");
	}
	git_index_free(index);
	git_tree_free(target);
	git_repository_free(repo);
	return ok;
}

bool
bc_git_checkout_link(int fd, const BcGitEntry *entry, BcGitProblem *problem)
{
	char		text[PATH_MAX + 16];
	char		have[PATH_MAX + 16];
	struct stat st;
	int			file;
	ssize_t		got;
	size_t		length = (size_t) snprintf(text, sizeof(text), "gitdir: %s\n", entry->dir);
	bool		ok;

	if (fstatat(fd, ".git", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		return true;
	file = openat(fd, ".git", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (file >= 0)
	{
		got = read(file, have, sizeof(have));
		close(file);
		if (got == (ssize_t) length && memcmp(have, text, length) == 0)
			return true;
	}
	unlinkat(fd, LINK_TEMP, 0);
	file = openat(fd, LINK_TEMP, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	ok = file >= 0 && write(file, text, length) == (ssize_t) length;
	ok = file >= 0 && close(file) == 0 && ok;
	if (ok && renameat(fd, LINK_TEMP, fd, ".git") == 0)
		return true;
	return bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot write \".git\" of the worktree");
}
