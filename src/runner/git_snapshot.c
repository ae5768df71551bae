/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_snapshot.c
 *	  Walks a worktree and writes its content as a tree.
 *
 * A directory's tree is built after its children's.  Where all of them are as
 * in the base nothing is written, so an untouched repository costs one stat
 * per file.
 */
#include "runner/git_snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/git_content.h"
#include "runner/git_text.h"
#include "runner/regain.h"

#define MAX_DEPTH 512
#define MAX_SKIPPED 100

typedef struct Walk
{
	BcContent	content;
	bool		unfold_gitlinks;
	bool		leave_out;
	json_t	   *skipped;
	json_t	   *missed;
	BcGitProblem *problem;
} Walk;

typedef struct Child
{
	char	   *name;
	git_filemode_t mode;
	git_oid		oid;
} Child;

/* What a directory's tree will hold. */
typedef struct Children
{
	Child	   *items;
	size_t		count;
	size_t		size;
} Children;

static bool walk_dir(Walk *walk, int fd, const char *prefix, const git_tree *base, unsigned depth,
					 git_oid *out, bool *empty);

static void
skip(Walk *walk, const char *path, const char *why)
{
	char		text[PATH_MAX + 128];

	snprintf(text, sizeof(text), "%s: %s", path, why);
	if (json_array_size(walk->skipped) < MAX_SKIPPED)
		json_array_append_new(walk->skipped, bc_git_string_json(text));
}

/* Somebody would look for it. */
static void
miss(Walk *walk, const char *path, const char *why)
{
	skip(walk, path, why);
	if (json_array_size(walk->missed) < MAX_SKIPPED)
		json_array_append_new(walk->missed, bc_git_path_json(path));
}

/* Something cannot be read: is it enough to say so? */
static bool
left_out(Walk *walk, const char *path)
{
	if (walk->leave_out)
		skip(walk, path, walk->problem->reason == BC_GIT_DIFF_TOO_LARGE ? "too large" : "cannot be read");
	return walk->leave_out;
}

static bool
is_gitlink(const git_tree_entry *entry)
{
	return entry != NULL && git_tree_entry_type(entry) == GIT_OBJECT_COMMIT;
}

static bool
add_child(Walk *walk, Children *children, const char *name, git_filemode_t mode,
		  const git_oid *oid)
{
	Child	   *child;

	if (children->count == children->size)
	{
		size_t		size = children->size == 0 ? 32 : children->size * 2;
		Child	   *items = realloc(children->items, size * sizeof(Child));

		if (items == NULL)
			return bc_git_problem(walk->problem, BC_GIT_GIT_ERROR, "out of memory");
		children->items = items;
		children->size = size;
	}
	child = &children->items[children->count];
	child->name = strdup(name);
	child->mode = mode;
	git_oid_cpy(&child->oid, oid);
	if (child->name == NULL)
		return bc_git_problem(walk->problem, BC_GIT_GIT_ERROR, "out of memory");
	children->count++;
	return true;
}

static void
free_children(Children *children)
{
	for (size_t i = 0; i < children->count; i++)
		free(children->items[i].name);
	free(children->items);
}

/* Does the directory hold anything but a .git? */
static bool
holds_files(int dir, const char *name)
{
	int			fd = bc_regain_dir(dir, name, X_OK);
	DIR		   *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *item;
	bool		found = false;

	if (list == NULL)
	{
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!found && (item = readdir(list)) != NULL)
		found = strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0 &&
			strcmp(item->d_name, ".git") != 0;
	closedir(list);
	return found;
}

static bool
take_dir(Walk *walk, int dir, const char *name, const char *path, const git_tree_entry *base,
		 unsigned depth, Children *children)
{
	char		prefix[PATH_MAX + 1];
	git_tree   *tree = NULL;
	git_oid		oid;
	bool		empty = true;
	bool		ok;
	int			fd;

	snprintf(prefix, sizeof(prefix), "%s/", path);
	if (base == NULL || git_tree_entry_type(base) != GIT_OBJECT_TREE)
	{
		bool		ignored = false;
		size_t		at;

		if (git_index_find_prefix(&at, walk->content.index, prefix) != 0 &&
			!bc_git_content_ignored(&walk->content, prefix, &ignored))
			return false;
		if (ignored)
			return true;
	}
	else if (git_tree_lookup(&tree, walk->content.repo, git_tree_entry_id(base)) != 0)
		return bc_git_problem_git(walk->problem, "the base of \"%s\" cannot be read", path);
	fd = bc_regain_dir(dir, name, X_OK);
	if (fd < 0)
		ok = bc_git_problem_errno(walk->problem, BC_GIT_GIT_ERROR,
								  "the directory \"%s\" cannot be read", path) ||
			left_out(walk, path);
	else
		ok = walk_dir(walk, fd, prefix, tree, depth + 1, &oid, &empty) &&
			(!empty ? add_child(walk, children, name, GIT_FILEMODE_TREE, &oid) :
			 !is_gitlink(base) ||
			 add_child(walk, children, name, GIT_FILEMODE_COMMIT, git_tree_entry_id(base)));
	git_tree_free(tree);
	return ok;
}

static git_filemode_t
file_mode(const Walk *walk, const struct stat *st, const git_tree_entry *base)
{
	bool		exec = (st->st_mode & 0100) != 0;

	if (S_ISLNK(st->st_mode))
		return GIT_FILEMODE_LINK;
	if (!walk->content.file_mode)
		exec = base != NULL && git_tree_entry_filemode(base) == GIT_FILEMODE_BLOB_EXECUTABLE;
	return exec ? GIT_FILEMODE_BLOB_EXECUTABLE : GIT_FILEMODE_BLOB;
}

static bool
take_file(Walk *walk, int dir, const char *name, const char *path, const struct stat *st,
		  const git_tree_entry *base, Children *children)
{
	git_oid		oid;

	if (base == NULL && git_index_get_bypath(walk->content.index, path, 0) == NULL)
	{
		bool		ignored;

		if (!bc_git_content_ignored(&walk->content, path, &ignored))
			return false;
		if (ignored)
			return true;
	}
	if (!bc_git_content_blob(&walk->content, dir, name, path, st,
							 base != NULL ? git_tree_entry_id(base) : NULL, &oid))
		return walk->content.unread && left_out(walk, path);
	return add_child(walk, children, name, file_mode(walk, st, base), &oid);
}

/* Why an entry of a directory cannot be in a tree, or NULL. */
static const char *
why_not(const char *name, const struct stat *st, const git_tree_entry *base, unsigned depth)
{
	const char *unsafe = base != NULL ? NULL : bc_git_path_unsafe(name);

	if (unsafe != NULL)
		return unsafe;
	if (S_ISLNK(st->st_mode))
		return strcasecmp(name, ".gitmodules") == 0 ?
			"git refuses a symbolic link of this name" : NULL;
	if (S_ISDIR(st->st_mode))
		return depth >= MAX_DEPTH ? "nested too deeply" : NULL;
	return S_ISREG(st->st_mode) ? NULL : "neither a file nor a directory nor a symbolic link";
}

static bool
take(Walk *walk, int dir, const char *name, const char *prefix, const git_tree *base_dir,
	 unsigned depth, Children *children)
{
	const git_tree_entry *base = base_dir == NULL ? NULL :
		git_tree_entry_byname(base_dir, name);
	char		path[PATH_MAX];
	struct stat st;
	const char *why;

	if (strcmp(name, ".git") == 0)
		return true;			/* ours at the top, a nested repository's below */
	if ((size_t) snprintf(path, sizeof(path), "%s%s", prefix, name) >= sizeof(path) - 1)
	{
		miss(walk, prefix, "a path in it is too long");
		return true;
	}
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT || bc_git_problem_errno(walk->problem, BC_GIT_GIT_ERROR,
													   "\"%s\" cannot be read", path);
	/* a submodule: what lies there is its own repository's */
	if (is_gitlink(base))
	{
		bool		more = !S_ISDIR(st.st_mode) || holds_files(dir, name);

		if (more && !walk->unfold_gitlinks)
			miss(walk, path, "what lies in a submodule's directory is no part of the project");
		if (!more || !walk->unfold_gitlinks)
			return add_child(walk, children, name, GIT_FILEMODE_COMMIT, git_tree_entry_id(base));
	}
	why = why_not(name, &st, base, depth);
	if (why != NULL)
	{
		if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode) || S_ISDIR(st.st_mode))
			miss(walk, path, why);
		else
			skip(walk, path, why);
		return true;
	}
	if (S_ISDIR(st.st_mode))
		return take_dir(walk, dir, name, path, base, depth, children);
	return take_file(walk, dir, name, path, &st, base, children);
}

/* Gitlinks whose directory is missing stay: an empty directory is no change. */
static bool
keep_missing_gitlinks(Walk *walk, int dir, const git_tree *base, Children *children)
{
	for (size_t i = 0; base != NULL && i < git_tree_entrycount(base); i++)
	{
		const git_tree_entry *entry = git_tree_entry_byindex(base, i);
		struct stat st;

		if (is_gitlink(entry) &&
			fstatat(dir, git_tree_entry_name(entry), &st, AT_SYMLINK_NOFOLLOW) != 0 &&
			!add_child(walk, children, git_tree_entry_name(entry), GIT_FILEMODE_COMMIT,
					   git_tree_entry_id(entry)))
			return false;
	}
	return true;
}

static bool
same_as_base(const Children *children, const git_tree *base)
{
	if (base == NULL || children->count != git_tree_entrycount(base))
		return false;
	for (size_t i = 0; i < children->count; i++)
	{
		const Child *child = &children->items[i];
		const git_tree_entry *entry = git_tree_entry_byname(base, child->name);

		if (entry == NULL || git_tree_entry_filemode(entry) != child->mode ||
			!git_oid_equal(git_tree_entry_id(entry), &child->oid))
			return false;
	}
	return true;
}

static bool
write_tree(Walk *walk, const char *prefix, const Children *children, git_oid *out)
{
	git_treebuilder *builder = NULL;
	bool		ok = git_treebuilder_new(&builder, walk->content.repo, NULL) == 0;

	for (size_t i = 0; ok && i < children->count; i++)
		ok = git_treebuilder_insert(NULL, builder, children->items[i].name,
									&children->items[i].oid, children->items[i].mode) == 0;
	ok = ok && git_treebuilder_write(out, builder) == 0;
	git_treebuilder_free(builder);
	return ok || bc_git_problem_git(walk->problem, "the directory \"%s\" cannot be stored", prefix);
}

/* Takes over "fd".  "prefix" is empty or ends with a slash. */
static bool
walk_dir(Walk *walk, int fd, const char *prefix, const git_tree *base, unsigned depth,
		 git_oid *out, bool *empty)
{
	Children	children = {0};
	DIR		   *dir = fdopendir(fd);
	struct dirent *item;
	bool		ok;

	if (dir == NULL)
	{
		close(fd);
		return bc_git_problem_errno(walk->problem, BC_GIT_GIT_ERROR, "\"%s\" cannot be read",
									prefix);
	}
	ok = bc_git_content_steer(&walk->content, fd, prefix);
	while (ok && (errno = 0, item = readdir(dir)) != NULL)
	{
		if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0)
			ok = take(walk, fd, item->d_name, prefix, base, depth, &children);
	}
	if (ok && errno != 0)
		ok = bc_git_problem_errno(walk->problem, BC_GIT_GIT_ERROR, "\"%s\" cannot be read", prefix);
	ok = ok && keep_missing_gitlinks(walk, fd, base, &children);
	closedir(dir);
	*empty = children.count == 0;
	if (ok && same_as_base(&children, base))
		git_oid_cpy(out, git_tree_id(base));
	else if (ok && (!*empty || depth == 0))
		ok = write_tree(walk, prefix, &children, out);
	free_children(&children);
	return ok;
}

bool
bc_git_snapshot(const BcSnapshotOptions *options, BcSnapshot *snapshot, BcGitProblem *problem)
{
	Walk		walk = {
		.content = {.max_file = options->max_file},
		.unfold_gitlinks = options->unfold_gitlinks, .leave_out = options->leave_out,
		.problem = problem
	};
	char		real[PATH_MAX];
	int			top = bc_git_real_path(options->path, real) ? bc_regain_dir(AT_FDCWD, real, X_OK) : -1;
	bool		empty;
	bool		ok;

	snapshot->skipped = snapshot->missed = NULL;
	if (top < 0)
		return bc_git_problem_errno(problem, BC_GIT_WORKTREE_MISSING, "the worktree \"%s\" is gone",
									options->path);
	walk.skipped = json_array();
	walk.missed = json_array();
	ok = bc_git_content_open(&walk.content, options->project, options->entry_dir, problem);
	if (ok)
		ok = walk_dir(&walk, top, "", options->base, 0, &snapshot->tree, &empty);
	else
		close(top);
	bc_git_content_close(&walk.content);
	snapshot->skipped = walk.skipped;
	snapshot->missed = walk.missed;
	if (!ok)
		bc_git_snapshot_free(snapshot);
	return ok;
}

void
bc_git_snapshot_free(BcSnapshot *snapshot)
{
	json_decref(snapshot->skipped);
	json_decref(snapshot->missed);
	snapshot->skipped = snapshot->missed = NULL;
}
