/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_changes.c
 *	  The difference between two trees, as one patch per file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/git_changes.h"
#include "runner/git_patch_write.h"
#include "runner/git_text.h"

/* The RESULT is one message: escapes in JSON must not make it too long. */
#define MAX_ESCAPED ((size_t) 60 * 1024 * 1024)

typedef struct Changes
{
	git_repository *repo;
	json_int_t	max_bytes;
	json_t	   *changes;
	size_t		bytes;			/* of all patches */
	size_t		escaped;		/* the same as JSON */
} Changes;

static const char *
change_kind(const git_diff_delta *delta)
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

static json_t *
mode_json(unsigned mode)
{
	char		text[16];

	if (mode == 0)
		return json_null();
	snprintf(text, sizeof(text), "%06o", mode);
	return json_string(text);
}

static bool
too_large(const Changes *job, const char *path, BcGitProblem *problem)
{
	bc_git_problem(problem, BC_GIT_DIFF_TOO_LARGE,
				   "the difference has more than %lld bytes; \"%s\" went over the limit",
				   (long long) job->max_bytes, path);
	return bc_git_problem_hint(problem, "Name files that are no result in .gitignore, or raise "
							   "boocoder.max_diff.");
}

static size_t
escaped_length(const char *text, size_t length)
{
	size_t		sum = length;

	for (size_t i = 0; i < length; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c == '\n' || c == '\t' || c == '"' || c == '\\' || c == '\r')
			sum++;
		else if (c < 0x20)
			sum += 5;
	}
	return sum;
}

static json_t *
change_json(const git_diff_delta *delta, const BcPatchSide *old, const BcPatchSide *new,
			const BcPatchStats *stats, const char *text, size_t length)
{
	return json_pack("{s:o, s:o?, s:s, s:o, s:o, s:b, s:I, s:I, s:s%}",
					 "path", bc_git_path_json(new->path),
					 "old_path", delta->status == GIT_DELTA_RENAMED ?
					 bc_git_path_json(old->path) : NULL,
					 "kind", change_kind(delta),
					 "old_mode", mode_json(old->mode), "new_mode", mode_json(new->mode),
					 "binary", stats->binary, "additions", (json_int_t) stats->additions,
					 "deletions", (json_int_t) stats->deletions, "diff", text, length);
}

static bool
add_change(Changes *job, const git_diff_delta *delta, BcGitProblem *problem)
{
	BcPatchSide old = {.path = delta->old_file.path};
	BcPatchSide new = {.path = delta->new_file.path};
	BcPatchStats stats = {0};
	char	   *text = NULL;
	size_t		length = 0;
	FILE	   *out = open_memstream(&text, &length);
	bool		ok;

	if (delta->status != GIT_DELTA_ADDED)
	{
		old.mode = delta->old_file.mode;
		git_oid_cpy(&old.oid, &delta->old_file.id);
	}
	if (delta->status != GIT_DELTA_DELETED)
	{
		new.mode = delta->new_file.mode;
		git_oid_cpy(&new.oid, &delta->new_file.id);
	}
	if (out == NULL)
		return bc_git_problem(problem, BC_GIT_GIT_ERROR, "out of memory");
	ok = bc_git_patch_write(out, job->repo, &old, &new, delta->similarity, &stats, problem);
	if (fclose(out) != 0 && ok)
		ok = bc_git_problem(problem, BC_GIT_GIT_ERROR, "out of memory");
	if (ok)
	{
		job->bytes += length;
		job->escaped += escaped_length(text, length);
		if (job->bytes > (size_t) job->max_bytes || job->escaped > MAX_ESCAPED)
			ok = too_large(job, new.path, problem);
	}
	if (ok && json_array_append_new(job->changes, change_json(delta, &old, &new, &stats, text,
															  length)) != 0)
		ok = bc_git_problem(problem, BC_GIT_GIT_ERROR, "out of memory");
	free(text);
	return ok;
}

bool
bc_git_changes(git_repository *repo, git_tree *base, git_tree *tree, const json_t *paths,
			   json_int_t max_bytes, json_t *changes, BcGitProblem *problem)
{
	Changes		job = {.repo = repo, .max_bytes = max_bytes, .changes = changes};
	char	  **only = NULL;
	size_t		i;
	json_t	   *path;
	git_diff_options options;
	git_diff_find_options find;
	git_diff   *diff = NULL;
	bool		ok;

	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	options.flags = GIT_DIFF_INCLUDE_TYPECHANGE;
	if (paths != NULL)
	{
		only = bc_alloc((json_array_size(paths) + 1) * sizeof(*only));
		json_array_foreach(paths, i, path)
			only[i] = (char *) json_string_value(path);
		options.flags |= GIT_DIFF_DISABLE_PATHSPEC_MATCH;
		options.pathspec = (git_strarray) {only, json_array_size(paths)};
	}
	git_diff_find_options_init(&find, GIT_DIFF_FIND_OPTIONS_VERSION);
	find.flags = GIT_DIFF_FIND_RENAMES;
	ok = git_diff_tree_to_tree(&diff, repo, base, tree, &options) == 0 &&
		git_diff_find_similar(diff, &find) == 0;
	if (!ok)
		bc_git_problem_git(problem, "the difference cannot be computed");
	for (size_t i = 0; ok && i < git_diff_num_deltas(diff); i++)
		ok = add_change(&job, git_diff_get_delta(diff, i), problem);
	git_diff_free(diff);
	free(only);
	return ok;
}
