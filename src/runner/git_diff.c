/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_diff.c
 *	  Role "diff": what changed since the base, a change a file.
 *
 * The texts one after the other are a patch that git apply takes.  A file that
 * is not text for the database (not UTF-8) travels as a binary patch, which is.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/text.h"

static int
make_diff(git_repository *repo, git_tree *from, git_tree *to, uint32_t flags, git_diff **diff)
{
	git_diff_options options = GIT_DIFF_OPTIONS_INIT;
	git_diff_find_options find = GIT_DIFF_FIND_OPTIONS_INIT;
	int			error;

	options.flags = GIT_DIFF_SHOW_BINARY | flags;
	options.id_abbrev = GIT_OID_HEXSZ;	/* git apply wants whole ids for binary files */
	options.ignore_submodules = GIT_SUBMODULE_IGNORE_ALL;
	error = git_diff_tree_to_tree(diff, repo, from, to, &options);
	find.flags = GIT_DIFF_FIND_RENAMES;
	if (error == 0)
		error = git_diff_find_similar(*diff, &find);
	return error;
}

/* A name as git quotes it, whether it needs it or not. */
static void
quote(BcBuf *out, const char *prefix, const char *path)
{
	bc_buf_printf(out, "\"%s", prefix);
	for (; *path != '\0'; path++)
	{
		unsigned char c = (unsigned char) *path;

		if (c == '"' || c == '\\')
			bc_buf_printf(out, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			bc_buf_printf(out, "\\%03o", c);
		else
			bc_buf_add(out, path, 1);
	}
	bc_buf_str(out, "\"");
}

/*
 * Adds a patch to "out".  Its first line names both files without saying where
 * one ends when they have blanks; libgit2 itself can't read that back.
 */
static void
add_patch(BcBuf *out, const git_diff_delta *delta, const git_buf *patch)
{
	const char *rest = patch->size > 0 ? memchr(patch->ptr, '\n', patch->size) : NULL;

	if (rest == NULL || (strchr(delta->old_file.path, ' ') == NULL &&
						 strchr(delta->new_file.path, ' ') == NULL))
	{
		bc_buf_add(out, patch->ptr, patch->size);
		return;
	}
	bc_buf_str(out, "diff --git ");
	quote(out, "a/", delta->old_file.path);
	bc_buf_str(out, " ");
	quote(out, "b/", delta->new_file.path);
	bc_buf_add(out, rest, patch->size - (size_t) (rest - patch->ptr));
}

/* The text of one delta, or an empty buffer when it is none. */
static int
patch_text(git_diff *diff, size_t i, BcBuf *text, size_t *added, size_t *removed)
{
	git_patch  *patch = NULL;
	git_buf		buffer = GIT_BUF_INIT;
	int			error = git_patch_from_diff(&patch, diff, i);

	if (error == 0)
		error = git_patch_to_buf(&buffer, patch);
	if (error == 0)
	{
		(void) git_patch_line_stats(NULL, added, removed, patch);
		add_patch(text, git_diff_get_delta(diff, i), &buffer);
	}
	git_buf_dispose(&buffer);
	git_patch_free(patch);
	return error;
}

static const char *
kind_of(const git_diff_delta *delta)
{
	switch (delta->status)
	{
		case GIT_DELTA_ADDED:
			return "add";
		case GIT_DELTA_DELETED:
			return "delete";
		case GIT_DELTA_RENAMED:
			return "rename";
		default:
			return git_oid_equal(&delta->old_file.id, &delta->new_file.id) ? "mode" : "modify";
	}
}

/* A name as JSON text; bytes that are none are shown as replacement characters. */
static json_t *
name(const char *path)
{
	BcBuf		clean = BC_BUF_INIT;
	json_t	   *result;

	bc_text_clean(&clean, path, strlen(path));
	result = json_stringn(clean.data, clean.len);
	bc_buf_free(&clean);
	return result;
}

static json_t *
mode(uint16_t value)
{
	char	   *text = bc_asprintf("%06o", value);
	json_t	   *result = value != 0 ? json_string(text) : json_null();

	free(text);
	return result;
}

typedef struct Collector
{
	git_repository *repo;
	git_tree   *from;
	git_tree   *to;
	git_diff   *diff;
	git_diff   *binary;			/* the same with every file as binary; made when needed */
	json_t	   *changes;
	size_t		bytes;
} Collector;

static int
collect(Collector *c, size_t i)
{
	const git_diff_delta *delta = git_diff_get_delta(c->diff, i);
	bool		renamed = delta->status == GIT_DELTA_RENAMED;
	json_t	   *last = json_array_get(c->changes, json_array_size(c->changes) - 1);
	BcBuf		text = BC_BUF_INIT;
	size_t		added = 0;
	size_t		removed = 0;
	bool		binary = (delta->flags & GIT_DIFF_FLAG_BINARY) != 0;
	json_t	   *path;
	int			error = patch_text(c->diff, i, &text, &added, &removed);

	if (error == 0 && !bc_text_is_clean(text.data, text.len))
	{
		bc_buf_clear(&text);
		binary = true;
		if (c->binary == NULL)
			error = make_diff(c->repo, c->from, c->to, GIT_DIFF_FORCE_BINARY, &c->binary);
		if (error == 0)
			error = patch_text(c->binary, i, &text, &added, &removed);
	}
	if (error < 0)
	{
		bc_buf_free(&text);
		return error;
	}
	c->bytes += text.len;
	path = name(delta->status == GIT_DELTA_DELETED ? delta->old_file.path : delta->new_file.path);
	/* A file that became a link is a deletion and an addition of one name: one change. */
	if (last != NULL && json_equal(json_object_get(last, "path"), path))
	{
		const char *before = json_string_value(json_object_get(last, "diff"));
		bool		deletes = delta->status == GIT_DELTA_DELETED;
		char	   *both = bc_asprintf("%s%s", deletes ? text.data : before,
									   deletes ? before : text.data);

		json_object_set_new(last, "diff", json_string(both));
		json_object_set_new(last, "kind", json_string("modify"));
		json_object_set_new(last, deletes ? "old_mode" : "new_mode",
							mode(deletes ? delta->old_file.mode : delta->new_file.mode));
		free(both);
		json_decref(path);
	}
	else
		json_array_append_new(c->changes,
							  json_pack("{s:o, s:o, s:s, s:o, s:o, s:b, s:I, s:I, s:s}",
										"path", path,
										"old_path", renamed ? name(delta->old_file.path) : json_null(),
										"kind", kind_of(delta),
										"old_mode", mode(delta->old_file.mode),
										"new_mode", mode(delta->new_file.mode),
										"binary", binary,
										"additions", (json_int_t) added,
										"deletions", (json_int_t) removed,
										"diff", text.data != NULL ? text.data : ""));
	bc_buf_free(&text);
	return 0;
}

static json_t *
compare(git_repository *repo, git_tree *from, git_tree *to, json_int_t max_bytes, json_t **changes)
{
	Collector	c = {repo, from, to, NULL, NULL, json_array(), 0};
	json_t	   *failure = NULL;
	int			error = make_diff(repo, from, to, 0, &c.diff);

	for (size_t i = 0; error == 0 && failure == NULL && i < git_diff_num_deltas(c.diff); i++)
	{
		error = collect(&c, i);
		if (max_bytes > 0 && c.bytes > (size_t) max_bytes)
			failure = bc_git_fail("diff_too_large", "Raise boocoder.max_diff.",
								  "the diff is larger than %lld bytes", (long long) max_bytes);
	}
	if (error < 0 && failure == NULL)
		failure = bc_git_fail("git_error", NULL, "could not make the diff");
	git_diff_free(c.diff);
	git_diff_free(c.binary);
	*changes = c.changes;
	if (failure != NULL)
	{
		json_decref(c.changes);
		*changes = NULL;
	}
	return failure;
}

json_t *
bc_git_diff(const json_t *order)
{
	json_int_t	max_bytes = json_integer_value(json_object_get(order, "max_bytes"));
	const char *base = bc_git_text(order, "worktree", "diff_base");
	git_repository *project = NULL;
	git_repository *worktree = NULL;
	git_tree   *from = NULL;
	git_tree   *to = NULL;
	git_oid		tree;
	git_oid		parent;
	json_t	   *changes = NULL;
	json_t	   *failure = bc_git_open_project(bc_git_text(order, "project", "path"), &project);
	json_t	   *result = NULL;

	if (failure == NULL)
		failure = bc_git_open_worktree(order, project, &worktree);
	if (failure == NULL)
		failure = bc_git_tree(worktree, base, &from);
	if (failure == NULL)
		failure = bc_git_snapshot(worktree, max_bytes, &tree);
	if (failure == NULL && git_tree_lookup(&to, worktree, &tree) < 0)
		failure = bc_git_fail("git_error", NULL, "could not read the snapshot");
	if (failure == NULL)
		failure = compare(worktree, from, to, max_bytes, &changes);
	if (failure == NULL)
	{
		const git_oid *parents[1] = {&parent};
		char	   *name = bc_git_worktree_name(bc_git_text(order, "worktree", "path"));
		char	   *ref = bc_asprintf("refs/boocoder/snapshots/%s", name);
		char		hex[GIT_OID_HEXSZ + 1];

		(void) git_oid_fromstr(&parent, base);
		failure = bc_git_save(project, ref, &tree, parents, 1, "boocoder: snapshot of a turn\n",
							  hex);
		git_oid_tostr(hex, sizeof(hex), &tree);
		result = json_pack("{s:b, s:s, s:s, s:O}", "ok", 1, "base", base, "tree", hex,
						   "changes", changes);
		free(name);
		free(ref);
	}
	json_decref(changes);
	git_tree_free(to);
	git_tree_free(from);
	git_repository_free(worktree);
	git_repository_free(project);
	if (failure != NULL)
	{
		json_decref(result);
		return failure;
	}
	return result;
}
