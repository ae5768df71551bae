/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_apply.c
 *	  Role "apply": changes go into the project's checkout, all of them or none.
 *
 * Everything is computed among objects first.  A file of the checkout may be
 * overwritten only when it is what HEAD has, or what the worktree's diff base
 * has (applied earlier, not committed yet): anything else is a person's work,
 * and a conflict.  Neither HEAD nor the index changes.
 *
 * A run that was killed while it wrote is repeated with "resume": files that
 * are what they should become are then done already.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/checkout.h"
#include "runner/dotgit.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"

typedef struct Apply
{
	const json_t *order;
	git_repository *repo;
	git_tree   *head;
	git_tree   *base;			/* of diff_base; NULL: none */
	git_diff   *diff;			/* all changes */
	git_index  *before;			/* HEAD, but for the touched files what the checkout has */
	git_index  *after;			/* only the outcome for touched files is used */
	json_t	   *conflicts;
	const char *hunk;			/* under way, while libgit2 applies */
	char		hunk_header[160];
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

			if (bc_git_path_unsafe(delta->old_file.path) != NULL ||
				bc_git_path_unsafe(delta->new_file.path) != NULL)
				failure = bc_git_fail("unsafe_path", NULL,
									  "the diff names \"%s\", where nothing may be written",
									  delta->new_file.path);
			else if (delta->new_file.mode == GIT_FILEMODE_COMMIT ||
					 delta->old_file.mode == GIT_FILEMODE_COMMIT)
				failure = bc_git_fail("unsafe_path", NULL, "the diff changes the submodule \"%s\"",
									  delta->new_file.path);
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
		const char *new_path = json_string_value(json_object_get(change, "path"));
		const char *old_path = json_string_value(json_object_get(change, "old_path"));

		if ((new_path != NULL && strcmp(new_path, path) == 0) ||
			(old_path != NULL && strcmp(old_path, path) == 0))
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

static int
put(git_index *index, const char *path, const BcEntry *entry)
{
	git_index_entry e;

	if (entry->mode == 0)
	{
		(void) git_index_remove(index, path, 0);
		return 0;
	}
	memset(&e, 0, sizeof(e));
	e.path = path;
	e.id = entry->id;
	e.mode = entry->mode;
	return git_index_add(index, &e);
}

/* Decides which form of one file the patch starts from, and that it may be overwritten. */
static json_t *
choose_start(Apply *a, const char *path)
{
	bool		resume = json_is_true(json_object_get(a->order, "resume"));
	const json_t *change = change_of(a, path);
	BcEntry		head;
	BcEntry		base;
	BcEntry		file;
	BcEntry		start;

	entry_of_tree(a->head, path, &head);
	entry_of_tree(a->base, path, &base);
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
	if (same(&file, &head))
		start = head;
	else if (a->base != NULL && same(&file, &base))
		start = base;
	else if (resume)
		start = a->base != NULL ? base : head;	/* the outcome will tell */
	else
	{
		conflict(a, change, NULL, file.mode == 0 ? "the file was deleted in the checkout" :
				 head.mode == 0 ? "an untracked file is in the way" :
				 "the file has uncommitted changes");
		return NULL;
	}
	if (put(a->before, path, &start) < 0)
		return bc_git_fail("git_error", NULL, "could not prepare \"%s\"", path);
	return NULL;
}

/* Calls "visit" for every path that the diff touches. */
static json_t *
each_path(Apply *a, json_t *(*visit) (Apply *a, const char *path))
{
	json_t	   *failure = NULL;

	for (size_t i = 0; failure == NULL && i < git_diff_num_deltas(a->diff); i++)
	{
		const git_diff_delta *delta = git_diff_get_delta(a->diff, i);

		failure = visit(a, delta->new_file.path);
		if (failure == NULL && strcmp(delta->old_file.path, delta->new_file.path) != 0)
			failure = visit(a, delta->old_file.path);
	}
	return failure;
}

static int
note_hunk(const git_diff_hunk *hunk, void *payload)
{
	Apply	   *a = payload;

	snprintf(a->hunk_header, sizeof(a->hunk_header), "%.*s",
			 (int) strcspn(hunk->header, "\n"), hunk->header);
	a->hunk = a->hunk_header;
	return 0;
}

/* Applies each change alone, to find those that do not fit. */
static void
find_conflicts(Apply *a, git_tree *tree)
{
	json_t	   *changes = json_object_get(a->order, "changes");
	size_t		index;
	json_t	   *change;

	json_array_foreach(changes, index, change)
	{
		git_apply_options options = GIT_APPLY_OPTIONS_INIT;
		const char *text = change_text(change);
		git_diff   *diff = NULL;
		git_index  *outcome = NULL;

		options.hunk_cb = note_hunk;
		options.payload = a;
		a->hunk = NULL;
		if (git_diff_from_buffer(&diff, text, strlen(text)) < 0 ||
			git_apply_to_tree(&outcome, a->repo, tree, diff, &options) < 0)
		{
			const git_error *last = git_error_last();

			conflict(a, change, a->hunk, last != NULL ? last->message : "does not apply");
		}
		git_index_free(outcome);
		git_diff_free(diff);
	}
}

static json_t *
compute(Apply *a)
{
	git_oid		oid;
	git_tree   *tree = NULL;
	json_t	   *failure = NULL;

	if (git_index_new(&a->before) < 0 || git_index_read_tree(a->before, a->head) < 0)
		return bc_git_fail("git_error", NULL, "could not read HEAD");
	failure = each_path(a, choose_start);
	if (failure == NULL && json_array_size(a->conflicts) > 0)
		return conflict_result(a);
	if (failure == NULL && (git_index_write_tree_to(&oid, a->before, a->repo) < 0 ||
							git_tree_lookup(&tree, a->repo, &oid) < 0))
		failure = bc_git_fail("git_error", NULL, "could not prepare the changes");
	if (failure == NULL && git_apply_to_tree(&a->after, a->repo, tree, a->diff, NULL) < 0)
	{
		find_conflicts(a, tree);
		failure = json_array_size(a->conflicts) > 0 ? conflict_result(a) :
			bc_git_fail("conflict", NULL, "the changes do not fit together");
	}
	git_tree_free(tree);
	return failure;
}

static json_t *
stage(Apply *a, const char *path)
{
	BcEntry		from;
	BcEntry		to;
	BcEntry		file;

	entry_of_index(a->before, path, &from);
	entry_of_index(a->after, path, &to);
	if (bc_checkout_look(a->repo, path, &file) != BC_LOOK_OK)
		return bc_git_fail("git_error", NULL, "can't read \"%s\" in the checkout", path);
	if (same(&file, &to))
		return NULL;			/* done already, by a run before */
	if (!same(&file, &from))
	{
		conflict(a, change_of(a, path), NULL, "the file has uncommitted changes");
		return conflict_result(a);
	}
	return bc_checkout_stage(a->repo, path, &to);
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
	if (a->base == NULL || path == NULL)
		return NULL;
	/* Changes of an older base need not fit; then it stays where it is. */
	if (git_apply_to_tree(&index, a->repo, a->base, a->diff, NULL) < 0)
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
	const char *base = bc_git_text(a->order, "worktree", "diff_base");
	git_reference *head = NULL;
	git_object *tree = NULL;
	json_t	   *failure = NULL;

	if (git_repository_head(&head, a->repo) < 0 ||
		git_reference_peel(&tree, head, GIT_OBJECT_TREE) < 0)
		failure = bc_git_fail("git_error", NULL, "could not read HEAD");
	a->head = (git_tree *) tree;
	git_reference_free(head);
	/* A base that is gone only means that less is known. */
	if (failure == NULL && base != NULL)
		json_decref(bc_git_tree(a->repo, base, &a->base));
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
		failure = compute(&a);
	if (failure == NULL)
		failure = each_path(&a, stage);
	if (failure == NULL)
		failure = bc_checkout_commit();
	bc_checkout_clear();
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
	git_index_free(a.after);
	git_index_free(a.before);
	git_diff_free(a.diff);
	git_tree_free(a.base);
	git_tree_free(a.head);
	git_repository_free(a.repo);
	return failure != NULL ? failure : result;
}
