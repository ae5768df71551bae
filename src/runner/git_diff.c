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
#include "runner/git_changes.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/git_snapshot.h"
#include "runner/git_turns.h"

typedef struct Job
{
	/* Order, borrowed */
	const char *project;
	const char *path;
	const char *diff_base;
	json_int_t	max_bytes;
	json_int_t	turn;			/* whose content it is; 0: of none */
	json_int_t	max_turns;		/* whose contents are kept; 0: of all */
	char		turn_ref[160];	/* under which it is kept */
	char		id[64];

	/* Handles */
	git_repository *repo;
	git_tree   *base;
	git_tree   *snapshot;

	/* Results */
	json_t	   *changes;
} Job;

/* The content of the last turn has one name, that of each turn another. */
static bool
keep(Job *job, const BcGitEntry *entry, const git_oid *tree, const git_oid *base,
	 BcGitProblem *problem)
{
	return bc_git_last_keep(job->repo, entry->key, tree, base, problem) &&
		(job->turn == 0 ||
		 bc_git_turn_keep(job->repo, entry->key, job->turn, tree, base, job->turn_ref,
						  sizeof(job->turn_ref), problem));
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
		bc_git_changes(job->repo, job->base, job->snapshot, NULL, job->max_bytes, job->changes,
					   problem))
		result = json_pack("{s:b, s:s, s:s, s:O}", "ok", 1, "base", job->diff_base, "tree",
						   git_oid_tostr(hex, sizeof(hex), &snapshot.tree),
						   "changes", job->changes);
	/* Nothing of the diff is dirty now; who asks later is told what was committed. */
	git_oid_tostr(hex, sizeof(hex), &snapshot.tree);
	facts = result == NULL ? NULL :
		bc_git_assess_facts(job->repo, &entry, &snapshot.tree, snapshot.missed, hex, problem);
	if (facts != NULL)
		json_object_set_new(result, "facts", facts);
	if (result != NULL && job->turn != 0)
	{
		json_object_set_new(result, "turn_ref", json_string(job->turn_ref));
		bc_git_turns_prune(job->repo, entry.key, job->turn, job->max_turns);
	}
	if (result != NULL && json_array_size(snapshot.skipped) > 0)
		json_object_set(result, "skipped", snapshot.skipped);
	bc_git_snapshot_free(&snapshot);
	return result;
}

json_t *
bc_git_diff(const json_t *order)
{
	Job			job = {.changes = json_array()};
	BcGitProblem problem = {.message = "out of memory"};
	json_t	   *result = NULL;

	job.turn = json_integer_value(json_object_get(order, "turn"));
	job.max_turns = json_integer_value(json_object_get(order, "max_turns"));
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
