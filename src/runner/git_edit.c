/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_edit.c
 *	  One file that a person wrote, in a tree.  See git_edit.h.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/dotgit.h"
#include "runner/git_edit.h"

/* The mode of what is at "path" in the tree; 0: nothing. */
static unsigned
mode_of(const git_tree *tree, const char *path)
{
	git_tree_entry *entry = NULL;
	unsigned	mode = 0;

	if (git_tree_entry_bypath(&entry, tree, path) == 0)
		mode = git_tree_entry_filemode(entry);
	git_tree_entry_free(entry);
	return mode;
}

static bool
below_a_file(const git_tree *tree, const char *path)
{
	char	   *copy = strdup(path);
	bool		result = copy == NULL;

	for (char *slash = copy; !result && (slash = strchr(slash, '/')) != NULL; slash++)
	{
		unsigned	mode;

		*slash = '\0';
		mode = mode_of(tree, copy);
		*slash = '/';
		result = mode != 0 && mode != GIT_FILEMODE_TREE;
	}
	free(copy);
	return result;
}

static bool
allowed(const git_tree *tree, const char *path, unsigned mode, bool remove, BcGitProblem *problem)
{
	const char *unsafe = bc_git_path_unsafe(path);

	if (unsafe != NULL)
		return bc_git_problem(problem, BC_GIT_UNSAFE_PATH, "\"%s\" cannot be written: %s", path, unsafe);
	if (mode == 0 && remove)
		return bc_git_problem(problem, BC_GIT_CONFLICT, "there is no file \"%s\"", path);
	if (mode != 0 && mode != GIT_FILEMODE_BLOB && mode != GIT_FILEMODE_BLOB_EXECUTABLE)
		return bc_git_problem(problem, BC_GIT_CONFLICT, "\"%s\" is not a regular file", path);
	return !below_a_file(tree, path) ||
		bc_git_problem(problem, BC_GIT_CONFLICT, "\"%s\" is below something that is not a directory",
					   path);
}

bool
bc_git_edit_tree(git_repository *repo, git_tree *from, const char *path, const char *content,
				 git_oid *tree, BcGitProblem *problem)
{
	unsigned	mode = mode_of(from, path);
	git_index_entry entry = {.path = path, .mode = mode != 0 ? mode : GIT_FILEMODE_BLOB};
	git_index  *index = NULL;
	bool		ok;

	if (!allowed(from, path, mode, content == NULL, problem))
		return false;
	ok = git_index_new(&index) == 0 && git_index_read_tree(index, from) == 0;
	if (ok && content == NULL)
		ok = git_index_remove(index, path, 0) == 0;
	else if (ok)
		ok = git_blob_create_from_buffer(&entry.id, repo, content, strlen(content)) == 0 &&
			git_index_add(index, &entry) == 0;
	ok = ok && git_index_write_tree_to(tree, index, repo) == 0;
	git_index_free(index);
	return ok || bc_git_problem_git(problem, "\"%s\" cannot be kept", path);
}
