/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_diff.c
 *	  Role "diff": what an agent changed, as one patch per file.
 *
 * The worktree's content becomes a tree first; the changes are those between
 * two trees.  So they do not depend on what the agent did to its HEAD or
 * index, and the snapshot that is kept is exactly what the patches make.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/git_assess.h"
#include "runner/git_patch_write.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/git_snapshot.h"
#include "runner/git_text.h"

/* The RESULT is one message: escapes in JSON must not make it too long. */
#define MAX_ESCAPED ((size_t) 60 * 1024 * 1024)

typedef struct Job
{
	/* Order, borrowed */
	const char *project;
	const char *path;
	const char *diff_base;
	json_int_t	max_bytes;
	json_int_t	turn;			/* whose content it is; 0: of none */
	char		turn_ref[160];	/* under which it is kept */
	char		id[64];

	/* Handles */
	git_repository *repo;
	git_tree   *base;
	git_tree   *snapshot;

	/* Results */
	json_t	   *changes;
	size_t		bytes;			/* of all patches */
	size_t		escaped;		/* the same as JSON */
} Job;

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
too_large(const Job *job, const char *path, BcGitProblem *problem)
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
add_change(Job *job, const git_diff_delta *delta, BcGitProblem *problem)
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

static bool
collect(Job *job, BcGitProblem *problem)
{
	git_diff_options options;
	git_diff_find_options find;
	git_diff   *diff = NULL;
	bool		ok;

	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	options.flags = GIT_DIFF_INCLUDE_TYPECHANGE;
	git_diff_find_options_init(&find, GIT_DIFF_FIND_OPTIONS_VERSION);
	find.flags = GIT_DIFF_FIND_RENAMES;
	ok = git_diff_tree_to_tree(&diff, job->repo, job->base, job->snapshot, &options) == 0 &&
		git_diff_find_similar(diff, &find) == 0;
	if (!ok)
		bc_git_problem_git(problem, "the difference cannot be computed");
	for (size_t i = 0; ok && i < git_diff_num_deltas(diff); i++)
		ok = add_change(job, git_diff_get_delta(diff, i), problem);
	git_diff_free(diff);
	return ok;
}

/* The content of the last turn has one name, that of each turn another. */
static bool
keep(Job *job, const BcGitEntry *entry, const git_oid *tree, const git_oid *base,
	 BcGitProblem *problem)
{
	char		ref[160];
	char		key[128];
	git_oid		commit;

	bc_git_ref_name(ref, sizeof(ref), "snapshots", entry->key);
	if (!bc_git_commit_to(job->repo, ref, tree, base, 1, "boocoder: snapshot\n", &commit, problem))
		return false;
	if (job->turn == 0)
		return true;
	snprintf(key, sizeof(key), "%s/%lld", entry->key, (long long) job->turn);
	bc_git_ref_name(job->turn_ref, sizeof(job->turn_ref), "turns", key);
	return bc_git_commit_to(job->repo, job->turn_ref, tree, base, 1, "boocoder: snapshot\n", &commit, problem);
}

static json_t *
run(Job *job, BcGitProblem *problem)
{
	BcSnapshotOptions options = {.project = job->project, .path = job->path};
	BcSnapshot	snapshot;
	BcGitEntry	entry;
	git_oid		base;
	char		hex[GIT_OID_HEXSZ + 1];
	json_t	   *facts;
	json_t	   *result = NULL;

	job->repo = bc_git_open(job->project, false, problem);
	if (job->repo == NULL ||
		!bc_git_commit_tree(job->repo, job->diff_base, &base, &job->base, problem))
		return NULL;
	if (!bc_git_entry_find(job->repo, job->id, job->path, &entry) || !entry.ready)
	{
		bc_git_problem(problem, BC_GIT_WORKTREE_MISSING,
					   "the repository \"%s\" knows no worktree at \"%s\"", job->project, job->path);
		return NULL;
	}
	options.entry_dir = entry.dir;
	options.base = job->base;
	options.max_file = (size_t) job->max_bytes;
	if (!bc_git_snapshot(&options, &snapshot, problem))
		return NULL;
	if (keep(job, &entry, &snapshot.tree, &base, problem) &&
		(git_tree_lookup(&job->snapshot, job->repo, &snapshot.tree) == 0 ||
		 bc_git_problem_git(problem, "the snapshot cannot be read")) &&
		collect(job, problem))
		result = json_pack("{s:b, s:s, s:s, s:O}", "ok", 1, "base", job->diff_base, "tree",
						   git_oid_tostr(hex, sizeof(hex), &snapshot.tree),
						   "changes", job->changes);
	/* Nothing is dirty now; who asks later is told what was committed. */
	git_oid_tostr(hex, sizeof(hex), &snapshot.tree);
	facts = result != NULL ? bc_git_assess_facts(job->repo, &entry, &snapshot.tree, hex, problem) : NULL;
	if (facts != NULL)
		json_object_set_new(result, "facts", facts);
	if (result != NULL && job->turn != 0)
		json_object_set_new(result, "turn_ref", json_string(job->turn_ref));
	if (result != NULL && json_array_size(snapshot.skipped) > 0)
		json_object_set(result, "skipped", snapshot.skipped);
	json_decref(snapshot.skipped);
	return result;
}

json_t *
bc_git_diff(const json_t *order)
{
	Job			job = {.changes = json_array()};
	BcGitProblem problem = {.message = "out of memory"};
	json_t	   *result = NULL;

	job.turn = json_integer_value(json_object_get(order, "turn"));
	if (bc_git_order(order, &problem, "{s:{s:s}, s:{s:s, s:s}, s:I}", "project", "path",
					 &job.project, "worktree", "path", &job.path, "diff_base", &job.diff_base,
					 "max_bytes", &job.max_bytes) &&
		bc_git_order_id(order, job.id, &problem))
		result = run(&job, &problem);
	if (result == NULL)
		result = bc_git_problem_json(&problem);
	json_decref(job.changes);
	git_tree_free(job.snapshot);
	git_tree_free(job.base);
	git_repository_free(job.repo);
	return result;
}
