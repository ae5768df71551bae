/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_apply.c
 *	  Role "apply": changes go into the project's checkout, all of them or none.
 *
 * Everything is computed among objects first: what the changes make of their
 * base, and, where the checkout is not that base, a merge of the two, file by
 * file.  A file may be overwritten only when it is what HEAD has, or what was
 * applied before and is not committed yet; anything else is a person's work and
 * a conflict.  Neither HEAD nor the index changes.
 *
 * A run that was killed while it wrote is simply repeated: a file that is what
 * it should become needs nothing more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/checkout.h"
#include "runner/dotgit.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/text.h"

typedef struct Apply
{
	const json_t *order;
	git_repository *repo;
	git_tree   *head;
	git_tree   *base;			/* what the diffs were made against */
	git_tree   *applied;		/* the worktree's diff base now: what was applied before */
	git_diff   *diff;			/* all changes */
	git_index  *wanted;			/* the base with the changes */
	json_t	   *conflicts;
} Apply;

static void
conflict(Apply *a, const json_t *change, const char *hunk, const char *message)
{
	json_array_append_new(a->conflicts,
						  json_pack("{s:O, s:O, s:s?, s:s}", "id", json_object_get(change, "id"),
									"path", json_object_get(change, "path"), "hunk", hunk,
									"message", message));
}

static json_t *
conflict_result(const Apply *a)
{
	return json_pack("{s:b, s:s, s:s, s:O}", "ok", 0, "reason", "conflict",
					 "message", "the changes do not fit the checkout; nothing was touched",
					 "conflicts", a->conflicts);
}

static const char *
change_text(const json_t *change)
{
	const char *text = json_string_value(json_object_get(change, "diff"));

	return text != NULL ? text : "";
}

/* A diff that was read from text leaves out the side that does not exist. */
static const char *
old_path(const git_diff_delta *delta)
{
	const char *path = delta->old_file.path != NULL ? delta->old_file.path : delta->new_file.path;

	return path != NULL ? path : "";
}

static const char *
new_path(const git_diff_delta *delta)
{
	return delta->new_file.path != NULL ? delta->new_file.path : old_path(delta);
}

/* Is that path one that the change says it is about? */
static bool
is_named(const json_t *change, const char *path)
{
	const char *now = json_string_value(json_object_get(change, "path"));
	const char *before = json_string_value(json_object_get(change, "old_path"));
	BcBuf		clean = BC_BUF_INIT;
	bool		named;

	/* names that are not text are shown with replacement characters */
	bc_text_clean(&clean, path, strlen(path));
	named = (now != NULL && strcmp(now, clean.data) == 0) ||
		(before != NULL && strcmp(before, clean.data) == 0);
	bc_buf_free(&clean);
	return named;
}

/* All changes as one diff; each is read by itself first, so that it can be named. */
static json_t *
read_changes(Apply *a)
{
	BcBuf		all = BC_BUF_INIT;
	json_t	   *changes = json_object_get(a->order, "changes");
	json_t	   *failure = NULL;
	size_t		index;
	json_t	   *change;

	json_array_foreach(changes, index, change)
	{
		const char *text = change_text(change);
		git_diff   *diff = NULL;

		if (git_diff_from_buffer(&diff, text, strlen(text)) < 0)
			failure = bc_git_fail("conflict", NULL, "the diff of \"%s\" can't be read",
								  json_string_value(json_object_get(change, "path")));
		for (size_t i = 0; failure == NULL && i < git_diff_num_deltas(diff); i++)
		{
			const git_diff_delta *delta = git_diff_get_delta(diff, i);

			if (bc_git_path_unsafe(old_path(delta)) != NULL ||
				bc_git_path_unsafe(new_path(delta)) != NULL ||
				!is_named(change, old_path(delta)) || !is_named(change, new_path(delta)))
				failure = bc_git_fail("unsafe_path", NULL,
									  "the diff names \"%s\", where nothing may be written",
									  new_path(delta));
			else if (delta->new_file.mode == GIT_FILEMODE_COMMIT ||
					 delta->old_file.mode == GIT_FILEMODE_COMMIT)
				failure = bc_git_fail("unsafe_path", NULL, "the diff changes the submodule \"%s\"",
									  new_path(delta));
		}
		git_diff_free(diff);
		if (failure != NULL)
			break;
		bc_buf_str(&all, text);
	}
	if (failure == NULL && git_diff_from_buffer(&a->diff, all.data != NULL ? all.data : "",
												all.len) < 0)
		failure = bc_git_fail("conflict", NULL, "the diffs can't be read");
	bc_buf_free(&all);
	return failure;
}

/* The change of the order that a path of the diff belongs to. */
static const json_t *
change_of(const Apply *a, const char *path)
{
	json_t	   *changes = json_object_get(a->order, "changes");
	size_t		index;
	json_t	   *change;

	json_array_foreach(changes, index, change)
	{
		if (is_named(change, path))
			return change;
	}
	return json_array_get(changes, 0);
}

static bool
same(const BcEntry *a, const BcEntry *b)
{
	return a->mode == b->mode && (a->mode == 0 || git_oid_equal(&a->id, &b->id));
}

static void
entry_of_tree(git_tree *tree, const char *path, BcEntry *entry)
{
	git_tree_entry *found = NULL;

	memset(entry, 0, sizeof(*entry));
	if (tree == NULL || git_tree_entry_bypath(&found, tree, path) < 0)
		return;
	if (git_tree_entry_type(found) == GIT_OBJECT_BLOB)
	{
		entry->id = *git_tree_entry_id(found);
		entry->mode = git_tree_entry_filemode(found);
	}
	git_tree_entry_free(found);
}

static void
entry_of_index(git_index *index, const char *path, BcEntry *entry)
{
	const git_index_entry *found = git_index_get_bypath(index, path, 0);

	memset(entry, 0, sizeof(*entry));
	if (found != NULL)
	{
		entry->id = found->id;
		entry->mode = (git_filemode_t) found->mode;
	}
}

/* Calls "visit" for every path that the diff touches. */
static json_t *
each_path(Apply *a, json_t *(*visit) (Apply *a, const char *path))
{
	json_t	   *failure = NULL;

	for (size_t i = 0; failure == NULL && i < git_diff_num_deltas(a->diff); i++)
	{
		const git_diff_delta *delta = git_diff_get_delta(a->diff, i);

		failure = visit(a, new_path(delta));
		if (failure == NULL && strcmp(old_path(delta), new_path(delta)) != 0)
			failure = visit(a, old_path(delta));
	}
	return failure;
}

/* Does the file have that piece of text? */
static bool
has_text(git_blob *blob, const BcBuf *text)
{
	return blob != NULL && (text->len == 0 ||
							memmem(git_blob_rawcontent(blob), (size_t) git_blob_rawsize(blob),
								   text->data, text->len) != NULL);
}

/* The first hunk of a change whose surroundings the file does not have any more. */
static void
find_hunk(Apply *a, const json_t *change, const BcEntry *file, char *header, size_t size)
{
	const char *text = change_text(change);
	git_diff   *diff = NULL;
	git_patch  *patch = NULL;
	git_blob   *blob = NULL;

	header[0] = '\0';
	if (git_blob_lookup(&blob, a->repo, &file->id) < 0 ||
		git_diff_from_buffer(&diff, text, strlen(text)) < 0 ||
		git_patch_from_diff(&patch, diff, 0) < 0)
		patch = NULL;
	for (size_t i = 0; patch != NULL && i < git_patch_num_hunks(patch); i++)
	{
		const git_diff_hunk *hunk;
		const git_diff_line *line;
		BcBuf		before = BC_BUF_INIT;
		size_t		lines;
		bool		found;

		if (git_patch_get_hunk(&hunk, &lines, patch, i) < 0)
			break;
		for (size_t k = 0; k < lines && git_patch_get_line_in_hunk(&line, patch, i, k) == 0; k++)
			if (line->origin == GIT_DIFF_LINE_CONTEXT || line->origin == GIT_DIFF_LINE_DELETION)
				bc_buf_add(&before, line->content, line->content_len);
		found = has_text(blob, &before);
		bc_buf_free(&before);
		if (i == 0 || !found)
			snprintf(header, size, "%.*s", (int) strcspn(hunk->header, "\r\n"), hunk->header);
		if (!found)
			break;
	}
	git_patch_free(patch);
	git_diff_free(diff);
	git_blob_free(blob);
}

/* Both the checkout and the change moved on from the base: merges them line by line. */
static json_t *
merge(Apply *a, const char *path, const BcEntry *base, const BcEntry *wanted,
	  const BcEntry *file, BcEntry *outcome)
{
	git_merge_file_result merged = {0};
	git_index_entry sides[3];
	const BcEntry *entries[3] = {base, file, wanted};
	json_t	   *failure = NULL;

	memset(sides, 0, sizeof(sides));
	for (int i = 0; i < 3; i++)
	{
		sides[i].path = path;
		sides[i].id = entries[i]->id;
		sides[i].mode = entries[i]->mode;
	}
	outcome->mode = 0;
	if (git_merge_file_from_index(&merged, a->repo, &sides[0], &sides[1], &sides[2], NULL) < 0)
		failure = bc_git_fail("git_error", NULL, "could not merge \"%s\"", path);
	else if (merged.automergeable)
	{
		outcome->mode = wanted->mode != base->mode ? wanted->mode : file->mode;
		if (git_blob_create_from_buffer(&outcome->id, a->repo, merged.ptr, merged.len) < 0)
			failure = bc_git_fail("git_error", NULL, "could not merge \"%s\"", path);
	}
	git_merge_file_result_free(&merged);
	return failure;
}

static bool
is_file(const BcEntry *entry)
{
	return entry->mode == GIT_FILEMODE_BLOB || entry->mode == GIT_FILEMODE_BLOB_EXECUTABLE;
}

/* Finds out what one file is to become, and prepares it. */
static json_t *
stage(Apply *a, const char *path)
{
	const json_t *change = change_of(a, path);
	BcEntry		head;
	BcEntry		base;
	BcEntry		applied;
	BcEntry		wanted;
	BcEntry		file;
	BcEntry		outcome;
	json_t	   *failure = NULL;
	char		hunk[160];

	entry_of_tree(a->head, path, &head);
	entry_of_tree(a->base, path, &base);
	entry_of_tree(a->applied, path, &applied);
	entry_of_index(a->wanted, path, &wanted);
	switch (bc_checkout_look(a->repo, path, &file))
	{
		case BC_LOOK_OK:
			break;
		case BC_LOOK_OBSTACLE:
			conflict(a, change, NULL, "something that is no file is in the way");
			return NULL;
		case BC_LOOK_FAILED:
			return bc_git_fail("git_error", NULL, "can't read \"%s\" in the checkout", path);
	}

	if (same(&file, &wanted))
		return NULL;			/* as it should be: a run that was killed had done it */
	if (!same(&file, &head) && !(a->applied != NULL && same(&file, &applied)))
		conflict(a, change, NULL, file.mode == 0 ? "the file was deleted in the checkout" :
				 head.mode == 0 ? "an untracked file is in the way" :
				 "the file has uncommitted changes");
	else if (same(&file, &base))
		failure = bc_checkout_stage(a->repo, path, &wanted);
	else if (!is_file(&file) || !is_file(&wanted) || !is_file(&base))
		conflict(a, change, NULL, "the file has changed since the agent saw it");
	else
	{
		failure = merge(a, path, &base, &wanted, &file, &outcome);
		if (failure == NULL && outcome.mode == 0)
		{
			find_hunk(a, change, &file, hunk, sizeof(hunk));
			conflict(a, change, hunk[0] != '\0' ? hunk : NULL,
					 "does not fit: these lines have changed since the agent saw them");
		}
		else if (failure == NULL)
			failure = bc_checkout_stage(a->repo, path, &outcome);
	}
	return failure;
}

/* The diff base moves on, so that the next diff holds only new work. */
static json_t *
advance_base(Apply *a, char *hex)
{
	git_index  *index = NULL;
	git_oid		tree;
	git_oid		parent;
	const git_oid *parents[1] = {&parent};
	json_t	   *failure = NULL;
	const char *path = bc_git_text(a->order, "worktree", "path");
	char	   *name;
	char	   *ref;

	hex[0] = '\0';
	if (a->applied == NULL || path == NULL)
		return NULL;
	/* Changes of an older base need not fit; then it stays where it is. */
	if (git_apply_to_tree(&index, a->repo, a->applied, a->diff, NULL) < 0)
		return NULL;
	name = bc_git_worktree_name(path);
	ref = bc_asprintf("refs/boocoder/base/%s", name);
	(void) git_oid_fromstr(&parent, bc_git_text(a->order, "worktree", "diff_base"));
	if (git_index_write_tree_to(&tree, index, a->repo) < 0)
		failure = bc_git_fail("git_error", NULL, "could not move the diff base");
	else
		failure = bc_git_save(a->repo, ref, &tree, parents, 1, "boocoder: applied changes\n", hex);
	git_index_free(index);
	free(name);
	free(ref);
	return failure;
}

static json_t *
open_trees(Apply *a)
{
	const char *base = json_string_value(json_object_get(a->order, "base_commit"));
	const char *applied = bc_git_text(a->order, "worktree", "diff_base");
	git_reference *head = NULL;
	git_object *tree = NULL;
	json_t	   *failure = NULL;

	if (git_repository_head(&head, a->repo) < 0 ||
		git_reference_peel(&tree, head, GIT_OBJECT_TREE) < 0)
		failure = bc_git_fail("git_error", NULL, "could not read HEAD");
	a->head = (git_tree *) tree;
	git_reference_free(head);
	if (failure == NULL)
		failure = bc_git_tree(a->repo, base != NULL ? base : applied, &a->base);
	/* What was applied before being unknown only means that less is accepted. */
	if (failure == NULL && applied != NULL)
		json_decref(bc_git_tree(a->repo, applied, &a->applied));
	return failure;
}

static json_t *
carry_out(Apply *a)
{
	json_t	   *failure = NULL;

	if (git_apply_to_tree(&a->wanted, a->repo, a->base, a->diff, NULL) < 0)
		failure = bc_git_fail("conflict", NULL, "the diff does not fit the commit it was made for");
	if (failure == NULL)
		failure = each_path(a, stage);
	if (failure == NULL && json_array_size(a->conflicts) > 0)
		failure = conflict_result(a);
	if (failure == NULL)
		failure = bc_checkout_commit();
	bc_checkout_clear();
	return failure;
}

json_t *
bc_git_apply(const json_t *order)
{
	Apply		a = {0};
	char		hex[GIT_OID_HEXSZ + 1] = "";
	json_t	   *failure = bc_git_open_project(bc_git_text(order, "project", "path"), &a.repo);
	json_t	   *result = NULL;

	a.order = order;
	a.conflicts = json_array();
	if (failure == NULL)
		failure = open_trees(&a);
	if (failure == NULL)
		failure = read_changes(&a);
	if (failure == NULL)
		failure = carry_out(&a);
	if (failure == NULL)
		failure = advance_base(&a, hex);
	if (failure == NULL)
	{
		json_t	   *applied = json_array();
		size_t		index;
		json_t	   *change;

		json_array_foreach(json_object_get(order, "changes"), index, change)
			json_array_append(applied, json_object_get(change, "id"));
		result = json_pack("{s:b, s:o, s:s?}", "ok", 1, "applied", applied,
						   "diff_base", hex[0] != '\0' ? hex : NULL);
	}
	json_decref(a.conflicts);
	git_index_free(a.wanted);
	git_diff_free(a.diff);
	git_tree_free(a.applied);
	git_tree_free(a.base);
	git_tree_free(a.head);
	git_repository_free(a.repo);
	return failure != NULL ? failure : result;
}
