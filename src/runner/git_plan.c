/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_plan.c
 *	  What a patch makes of a tree.  See git_plan.h.
 */
#include "runner/git_plan.h"

#include <stdlib.h>
#include <string.h>

#define TYPE 0170000

static const char no_memory[] = "out of memory";

static bool
copy_bytes(const char *data, size_t length, BcBytes *out)
{
	out->data = malloc(length + 1);
	out->length = length;
	if (out->data == NULL)
		return false;
	memcpy(out->data, data, length);
	return true;
}

static const char *
load(git_repository *repo, const git_tree *tree, const char *path, BcFileState *state)
{
	git_tree_entry *entry = NULL;
	git_blob   *blob = NULL;
	const char *why = NULL;
	int			code = git_tree_entry_bypath(&entry, tree, path);

	/* a directory is no file: what is added in its place finds out later */
	if (code == GIT_ENOTFOUND || (code == 0 && git_tree_entry_type(entry) == GIT_OBJECT_TREE))
	{
		git_tree_entry_free(entry);
		return NULL;
	}
	if (code != 0)
		why = "the tree cannot be read";
	else if (git_tree_entry_type(entry) != GIT_OBJECT_BLOB)
		why = "it is a submodule";
	else if (git_blob_lookup(&blob, repo, git_tree_entry_id(entry)) != 0)
		why = "its content is missing in the repository";
	else if (!copy_bytes(git_blob_rawcontent(blob), (size_t) git_blob_rawsize(blob),
						 &state->content))
		why = no_memory;
	else
		state->mode = git_tree_entry_filemode(entry);
	git_blob_free(blob);
	git_tree_entry_free(entry);
	return why;
}

/* Number of the file in the plan, or -1 with plan->why. */
static int
plan_file(BcPlan *plan, git_repository *repo, const git_tree *tree, const char *path)
{
	BcPlanFile *file;
	BcPlanFile *more;

	for (size_t i = 0; i < plan->nfiles; i++)
	{
		if (strcmp(plan->files[i].path, path) == 0)
			return (int) i;
	}
	plan->path = path;
	more = realloc(plan->files, (plan->nfiles + 1) * sizeof(BcPlanFile));
	if (more == NULL)
	{
		plan->why = no_memory;
		return -1;
	}
	plan->files = more;
	file = &plan->files[plan->nfiles++];
	*file = (BcPlanFile) {.path = strdup(path)};
	if (file->path == NULL)
		plan->why = no_memory;
	else
		plan->why = load(repo, tree, path, &file->before);
	file->after.mode = file->before.mode;
	if (plan->why == NULL && file->before.mode != 0 &&
		!copy_bytes(file->before.content.data, file->before.content.length, &file->after.content))
		plan->why = no_memory;
	return plan->why == NULL ? (int) plan->nfiles - 1 : -1;
}

static void
clear(BcFileState *state)
{
	free(state->content.data);
	*state = (BcFileState) {0};
}

static const char *
check_source(const BcFilePatch *file, const BcFileState *from)
{
	if (file->new_mode == GIT_FILEMODE_COMMIT || file->old_mode == GIT_FILEMODE_COMMIT)
		return "it is a submodule";
	if (file->is_new && from->mode != 0)
		return "the patch adds the file, but it exists";
	if (!file->is_new && from->mode == 0)
		return "the file does not exist";
	if (!file->is_new && file->old_mode != 0 && (file->old_mode & TYPE) != (from->mode & TYPE))
		return "a file became a symbolic link, or a link a file";
	if (file->is_delete && file->nhunks == 0 && file->binary.length == 0 &&
		from->content.length != 0)
		return "the file has more content than the patch deletes";
	return NULL;
}

static void
plan_one(BcPlan *plan, const BcFilePatch *file, git_repository *repo, const git_tree *tree)
{
	int			from = plan_file(plan, repo, tree, file->old_path);
	int			to = from < 0 ? -1 : plan_file(plan, repo, tree, file->new_path);
	BcFileState *source;
	BcFileState *target;
	BcFileState result = {0};
	BcSpan		content;

	if (to < 0)
		return;
	source = &plan->files[from].after;
	target = &plan->files[to].after;
	plan->path = file->new_path;
	plan->why = check_source(file, source);
	if (plan->why == NULL && from != to && target->mode != 0)
		plan->why = "the patch moves a file there, but one exists";
	if (plan->why != NULL)
		return;

	content = (BcSpan) {source->content.data != NULL ? source->content.data : "",
	source->content.length};
	if (file->nhunks > 0 || file->binary.length > 0)
		plan->why = bc_git_patch_apply(file, repo, &content, &result.content, &plan->hunk);
	else if (!copy_bytes(content.text, content.length, &result.content))
		plan->why = no_memory;
	if (plan->why != NULL)
		return;
	result.mode = source->mode;
	if (file->is_new || (file->new_mode != 0 && file->new_mode != file->old_mode))
		result.mode = file->new_mode;
	clear(source);
	clear(target);
	if (file->is_delete)
		clear(&result);
	*target = result;
}

void
bc_git_plan_make(const BcPatch *patch, git_repository *repo, const git_tree *tree, BcPlan *plan)
{
	*plan = (BcPlan) {0};
	for (size_t i = 0; i < patch->nfiles && plan->why == NULL; i++)
		plan_one(plan, &patch->files[i], repo, tree);

	/* what was not reached is still to be compared with the checkout */
	for (size_t i = 0; i < patch->nfiles && plan->why != NULL; i++)
	{
		BcPlan		kept = *plan;

		plan_file(plan, repo, tree, patch->files[i].old_path);
		plan_file(plan, repo, tree, patch->files[i].new_path);
		plan->why = kept.why;
		plan->path = kept.path;
		plan->hunk = kept.hunk;
	}
}

void
bc_git_plan_free(BcPlan *plan)
{
	for (size_t i = 0; i < plan->nfiles; i++)
	{
		free(plan->files[i].path);
		clear(&plan->files[i].before);
		clear(&plan->files[i].after);
	}
	free(plan->files);
	*plan = (BcPlan) {0};
}

int
bc_git_plan_tree(const BcPlan *plans, size_t nplans, git_repository *repo,
				 const git_tree *tree, git_oid *out)
{
	git_index  *index = NULL;
	int			code = git_index_new(&index);

	if (code == 0)
		code = git_index_read_tree(index, tree);

	/* removals first: a file may make way for a directory of its name */
	for (int pass = 0; pass < 2; pass++)
	{
		for (size_t p = 0; p < nplans; p++)
		{
			for (size_t i = 0; code == 0 && i < plans[p].nfiles; i++)
			{
				const BcPlanFile *file = &plans[p].files[i];
				git_index_entry entry = {.path = file->path, .mode = file->after.mode};

				if (pass == 0 && file->before.mode != 0 && file->after.mode == 0)
					code = git_index_remove(index, file->path, 0);
				else if (pass == 1 && file->after.mode != 0)
				{
					code = git_blob_create_from_buffer(&entry.id, repo, file->after.content.data,
													   file->after.content.length);
					if (code == 0)
						code = git_index_add(index, &entry);
				}
			}
		}
	}
	if (code == 0)
		code = git_index_write_tree_to(out, index, repo);
	git_index_free(index);
	return code;
}
