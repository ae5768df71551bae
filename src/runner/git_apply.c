/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_apply.c
 *	  Role "apply": changes go into the project's checkout, all or none.
 *
 * Everything is computed in memory first: each patch on the file as HEAD has
 * it, or as diff_base has it (what boocoder applied before and nobody has
 * committed yet).  The checkout's file must be the one the patch was computed
 * on; anything else is somebody's work and a conflict.  HEAD and index are left
 * alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "runner/git_found.h"
#include "runner/git_place.h"
#include "runner/git_plan.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/git_text.h"
#include "runner/git_write.h"

/* One change of the order. */
typedef struct Change
{
	json_t	   *id;				/* borrowed */
	char	   *path;
	char	   *old_path;		/* NULL: not given */
	BcPatch		patch;
	BcPlan		plan;			/* the accepted one */
} Change;

typedef struct Job
{
	/* Order, borrowed */
	const char *project;
	const char *path;
	const char *diff_base;		/* NULL: none */
	json_t	   *orders;			/* changes */
	bool		resume;
	char		id[64];

	/* Handles */
	git_repository *repo;
	git_tree   *head;
	git_tree   *base;			/* of diff_base; NULL: none */
	git_oid		base_oid;
	int			root;			/* the checkout */
	bool		file_mode;

	/* Work */
	Change	   *changes;
	size_t		nchanges;
	BcWrite    *writes;
	BcBytes    *forms;			/* contents of the writes */
	size_t	   *owners;			/* number of the change of each write */
	size_t		nwrites;
	json_t	   *conflicts;
} Job;

static void
conflict(Job *job, const Change *change, const char *path, const BcHunk *hunk, const char *format,
		 const char *why)
{
	char		text[PATH_MAX + 256];

	snprintf(text, sizeof(text), format, path, why);
	json_array_append_new(job->conflicts,
						  json_pack("{s:O, s:o, s:o?, s:o}", "id", change->id,
									"path", bc_git_path_json(path),
									"hunk", hunk == NULL ? NULL :
									json_stringn(hunk->header.text, hunk->header.length),
									"message", bc_git_string_json(text)));
}

static bool
unsafe(const char *path, const char *why, BcGitProblem *problem)
{
	bc_git_problem(problem, BC_GIT_UNSAFE_PATH, "the path \"%s\" is refused: %s", path, why);
	return bc_git_problem_hint(problem, "Nothing was changed.  Reject this change.");
}

static bool
check_path(const char *path, BcGitProblem *problem)
{
	const char *why = bc_git_path_unsafe(path);

	return why == NULL || unsafe(path, why, problem);
}

/* The patch touches the change's paths and no others. */
static bool
check_patch(const Change *change, BcGitProblem *problem)
{
	for (size_t i = 0; i < change->patch.nfiles; i++)
	{
		const BcFilePatch *file = &change->patch.files[i];
		const char *last = strrchr(file->new_path, '/');

		if (!check_path(file->new_path, problem) || !check_path(file->old_path, problem))
			return false;
		if (strcmp(file->new_path, change->path) != 0 ||
			(strcmp(file->old_path, file->new_path) != 0 &&
			 (change->old_path == NULL || strcmp(file->old_path, change->old_path) != 0)))
			return unsafe(file->new_path, "the patch is not for the file of its row", problem);
		last = last == NULL ? file->new_path : last + 1;
		if (file->new_mode == GIT_FILEMODE_LINK && strcasecmp(last, ".gitmodules") == 0)
			return unsafe(file->new_path, "git reads through this file", problem);
	}
	return true;
}

static bool
read_change(Job *job, json_t *order, Change *change, BcGitProblem *problem)
{
	const char *path;
	const char *diff;
	size_t		length;
	json_t	   *old_path = NULL;
	const char *why;

	if (!bc_git_order(order, problem, "{s:o, s:s, s?o, s:s%}", "id", &change->id, "path", &path,
					  "old_path", &old_path, "diff", &diff, &length))
		return false;
	change->path = bc_git_path_from_json(path);
	if (json_is_string(old_path))
		change->old_path = bc_git_path_from_json(json_string_value(old_path));
	if (change->path == NULL || (json_is_string(old_path) && change->old_path == NULL))
		return unsafe(path, "its quotes are wrong", problem);
	if (!check_path(change->path, problem) ||
		(change->old_path != NULL && !check_path(change->old_path, problem)))
		return false;
	why = bc_git_patch_read(diff, length, &change->patch);
	if (why != NULL)
	{
		conflict(job, change, change->path, NULL, "the patch for \"%s\" cannot be read: %s", why);
		return true;
	}
	return check_patch(change, problem);
}

/* Does some change of the order take the file "path" (or one below it) away? */
static bool
goes_away(const Job *job, const char *path, bool below)
{
	size_t		length = strlen(path);

	for (size_t i = 0; i < job->nchanges; i++)
	{
		const BcPatch *patch = &job->changes[i].patch;

		for (size_t f = 0; f < patch->nfiles; f++)
		{
			const BcFilePatch *file = &patch->files[f];

			if (!file->is_delete && !file->is_rename)
				continue;
			if (below ? strncmp(file->old_path, path, length) == 0 &&
				file->old_path[length] == '/' : strcmp(file->old_path, path) == 0)
				return true;
		}
	}
	return false;
}

/* What a path holds, seen with those files gone that the order takes away. */
static void
look(const Job *job, const char *path, BcFound *found)
{
	bc_git_found(job->repo, job->root, path, found);
	if (((found->kind == BC_FOUND_LINKED || found->kind == BC_FOUND_BLOCKED) &&
		 goes_away(job, found->blocker, false)) ||
		(found->kind == BC_FOUND_DIR && goes_away(job, path, true)))
		found->kind = BC_FOUND_NOTHING;
}

typedef enum Fit
{
	FIT_TO_DO,					/* some files are still to be written */
	FIT_HUNK,					/* the checkout is right, but the patch does not fit */
	FIT_DIRTY					/* plan->path is not what the patch was computed on */
} Fit;

static Fit
fits(const Job *job, BcPlan *plan, const BcFound *found)
{
	for (size_t i = 0; i < plan->nfiles; i++)
	{
		const BcPlanFile *file = &plan->files[i];

		if (bc_git_found_is(&found[i], &file->before, job->file_mode))
			continue;
		if (job->resume && plan->why == NULL &&
			bc_git_found_is(&found[i], &file->after, job->file_mode))
			continue;
		plan->path = file->path;
		return FIT_DIRTY;
	}
	return plan->why == NULL ? FIT_TO_DO : FIT_HUNK;
}

static void
report_dirty(Job *job, const Change *change, const BcPlanFile *file, const BcFound *found)
{
	const char *filter = NULL;
	const char *format = "\"%s\" has changes in the checkout that are not committed: "
		"commit, stash or undo them";

	switch (found->kind)
	{
		case BC_FOUND_NOTHING:
			format = "\"%s\" is missing in the checkout";
			break;
		case BC_FOUND_DIR:
			format = "a directory is at \"%s\" in the checkout";
			break;
		case BC_FOUND_OTHER:
			format = "\"%s\" is neither a file nor a symbolic link in the checkout";
			break;
		case BC_FOUND_BLOCKED:
		case BC_FOUND_LINKED:
			format = "a part of the path \"%s\" is no directory in the checkout";
			break;
		case BC_FOUND_ERROR:
			format = "\"%s\" cannot be read in the checkout";
			break;
		case BC_FOUND_FILE:
			if (file->before.mode == 0)
				format = "\"%s\" exists in the checkout already, but not in its last commit";
			else if (git_attr_get(&filter, job->repo, 0, file->path, "filter") == 0 &&
					 git_attr_value(filter) == GIT_ATTR_VALUE_STRING)
				format = "\"%s\" is converted by the filter \"%s\", which boocoder does not run: "
					"it cannot be told whether it was changed";
			break;
	}
	conflict(job, change, file->path, NULL, format, filter);
}

static const BcPlanFile *
file_of(const BcPlan *plan, const char *path, size_t *number)
{
	for (*number = 0; *number < plan->nfiles; (*number)++)
	{
		if (strcmp(plan->files[*number].path, path) == 0)
			return &plan->files[*number];
	}
	return NULL;
}

static bool
add_write(Job *job, size_t owner, const BcPlanFile *file, const BcFound *found,
		  BcGitProblem *problem)
{
	BcWrite    *write_;

	if (bc_git_found_is(found, &file->after, job->file_mode) ||
		(file->before.mode == 0 && file->after.mode == 0))
		return true;
	write_ = &job->writes[job->nwrites];
	*write_ = (BcWrite) {.path = file->path, .mode = file->after.mode};
	if (file->after.mode != 0)
	{
		BcBytes    *form = &job->forms[job->nwrites];

		if (bc_git_found_form(job->repo, file->path, found, &file->before, &file->after, form) != 0)
			return bc_git_problem_git(problem, "the content of \"%s\" cannot be converted", file->path);
		write_->data = form->data;
		write_->length = form->length;
	}
	if (found->kind == BC_FOUND_FILE)
		write_->seen = found->st;
	job->owners[job->nwrites++] = owner;
	return true;
}

/* Computes a change on one tree; accepts it when the checkout agrees. */
static Fit
try_tree(Job *job, size_t number, const git_tree *tree, BcPlan *plan, BcFound **found)
{
	bc_git_plan_make(&job->changes[number].patch, job->repo, tree, plan);
	*found = calloc(plan->nfiles + 1, sizeof(BcFound));
	for (size_t i = 0; *found != NULL && i < plan->nfiles; i++)
		look(job, plan->files[i].path, &(*found)[i]);
	return fits(job, plan, *found);
}

static void
drop_try(BcPlan *plan, BcFound *found)
{
	for (size_t i = 0; found != NULL && i < plan->nfiles; i++)
		bc_git_found_free(&found[i]);
	free(found);
	bc_git_plan_free(plan);
}

static bool
plan_change(Job *job, size_t number, BcGitProblem *problem)
{
	Change	   *change = &job->changes[number];
	BcPlan		plan;
	BcFound    *found;
	size_t		at;
	Fit			fit = try_tree(job, number, job->head, &plan, &found);
	bool		ok = true;

	if (fit != FIT_TO_DO && job->base != NULL)
	{
		BcPlan		other;
		BcFound    *other_found;
		Fit			other_fit = try_tree(job, number, job->base, &other, &other_found);

		if (other_fit == FIT_TO_DO || (other_fit == FIT_HUNK && fit == FIT_DIRTY))
		{
			drop_try(&plan, found);
			plan = other;
			found = other_found;
			fit = other_fit;
		}
		else
			drop_try(&other, other_found);
	}
	for (size_t i = 0; ok && i < plan.nfiles; i++)
	{
		if (found[i].kind == BC_FOUND_LINKED)
			ok = unsafe(plan.files[i].path, "it goes through a symbolic link in the checkout",
						problem);
	}
	if (!ok)
		;
	else if (fit == FIT_TO_DO)
	{
		for (size_t i = 0; ok && i < plan.nfiles; i++)
			ok = add_write(job, number, &plan.files[i], &found[i], problem);
		if (ok)
		{
			for (size_t i = 0; i < plan.nfiles; i++)
				bc_git_found_free(&found[i]);
			free(found);
			change->plan = plan;
			return true;
		}
	}
	else if (fit == FIT_HUNK)
		conflict(job, change, plan.path, plan.hunk, "the patch for \"%s\" does not fit: %s", plan.why);
	else
	{
		const BcPlanFile *file = file_of(&plan, plan.path, &at);

		report_dirty(job, change, file, &found[at]);
	}
	drop_try(&plan, found);
	return ok;
}

/* No two changes may touch one path, nor add a file below another file. */
static bool
check_overlap(Job *job, BcGitProblem *problem)
{
	for (size_t i = 0; i < job->nwrites; i++)
	{
		const BcWrite *a = &job->writes[i];
		size_t		length = strlen(a->path);

		for (size_t j = 0; j < job->nwrites; j++)
		{
			const BcWrite *b = &job->writes[j];

			if (i < j && strcmp(a->path, b->path) == 0)
				conflict(job, &job->changes[job->owners[j]], b->path, NULL,
						 "two of the changes are for \"%s\": apply one and run the task again", NULL);
			if (a->mode != 0 && b->mode != 0 && strncmp(b->path, a->path, length) == 0 &&
				b->path[length] == '/')
				return unsafe(b->path, "it goes through a file that the same changes add", problem);
		}
	}
	return true;
}

static bool
prepare(Job *job, BcGitProblem *problem)
{
	size_t		nfiles = 0;

	job->nchanges = json_array_size(job->orders);
	job->changes = calloc(job->nchanges + 1, sizeof(Change));
	if (job->changes == NULL)
		return bc_git_problem(problem, BC_GIT_GIT_ERROR, "out of memory");
	for (size_t i = 0; i < job->nchanges; i++)
	{
		if (!read_change(job, json_array_get(job->orders, i), &job->changes[i], problem))
			return false;
		nfiles += job->changes[i].patch.nfiles * 2;
	}
	job->writes = calloc(nfiles + 1, sizeof(BcWrite));
	job->forms = calloc(nfiles + 1, sizeof(BcBytes));
	job->owners = calloc(nfiles + 1, sizeof(size_t));
	if (job->writes == NULL || job->forms == NULL || job->owners == NULL)
		return bc_git_problem(problem, BC_GIT_GIT_ERROR, "out of memory");
	if (json_array_size(job->conflicts) > 0)
		return true;
	for (size_t i = 0; i < job->nchanges; i++)
	{
		if (!plan_change(job, i, problem))
			return false;
	}
	return check_overlap(job, problem);
}

/*
 * Moves diff_base.  NULL when the changes do not fit it any more, or it cannot
 * be written: the files are in place, so the apply itself did not fail.
 */
static json_t *
advance(Job *job)
{
	BcPlan	   *plans = calloc(job->nchanges + 1, sizeof(BcPlan));
	BcGitEntry	entry;
	git_oid		tree;
	git_oid		commit;
	char		ref[128];
	char		hex[GIT_OID_HEXSZ + 1];
	bool		fit = plans != NULL && job->base != NULL;
	BcGitProblem problem;
	json_t	   *new_base = NULL;

	for (size_t i = 0; fit && i < job->nchanges; i++)
	{
		bc_git_plan_make(&job->changes[i].patch, job->repo, job->base, &plans[i]);
		fit = plans[i].why == NULL;
	}
	if (fit && bc_git_entry_find(job->repo, job->id, job->path, &entry))
	{
		bc_git_ref_name(ref, sizeof(ref), "base", entry.key);
		if (bc_git_plan_tree(plans, job->nchanges, job->repo, job->base, &tree) == 0 &&
			bc_git_commit_to(job->repo, ref, &tree, &job->base_oid, 1,
							 "boocoder: applied changes\n", &commit, &problem))
			new_base = json_string(git_oid_tostr(hex, sizeof(hex), &commit));
	}
	for (size_t i = 0; plans != NULL && i < job->nchanges; i++)
		bc_git_plan_free(&plans[i]);
	free(plans);
	return new_base;
}

static bool
open_project(Job *job, BcGitProblem *problem)
{
	git_object *head = NULL;
	bool		ok;

	job->repo = bc_git_open(job->project, false, problem);
	if (job->repo == NULL)
		return false;
	if (git_repository_head_unborn(job->repo) == 1)
		return bc_git_problem(problem, BC_GIT_REPOSITORY_EMPTY,
							  "the repository \"%s\" has no commit yet", job->project);
	ok = git_revparse_single(&head, job->repo, "HEAD^{tree}") == 0;
	if (!ok)
		return bc_git_problem_git(problem, "the last commit of \"%s\" cannot be read", job->project);
	job->head = (git_tree *) head;
	job->file_mode = bc_git_file_mode(job->repo);
	job->root = open(git_repository_workdir(job->repo), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (job->root < 0)
		return bc_git_problem_errno(problem, BC_GIT_REPOSITORY_UNREADABLE,
									"the checkout of \"%s\" cannot be opened", job->project);
	/* a base that was lost is no reason to refuse: the patches are complete */
	if (job->diff_base != NULL)
	{
		BcGitProblem lost;

		if (!bc_git_commit_tree(job->repo, job->diff_base, &job->base_oid, &job->base, &lost))
			job->base = NULL;
	}
	return true;
}

static json_t *
run(Job *job, BcGitProblem *problem)
{
	char		staging[96];
	size_t		failed;
	int			lock;
	json_t	   *applied;
	bool		ok;

	if (!open_project(job, problem))
		return NULL;
	lock = bc_git_lock(git_repository_commondir(job->repo));
	if (lock < 0)
	{
		bc_git_problem_errno(problem, BC_GIT_REPOSITORY_UNREADABLE, "cannot lock \"%s\"",
							 job->project);
		return NULL;
	}
	ok = prepare(job, problem);
	snprintf(staging, sizeof(staging), ".boocoder-apply-%s", job->id);
	if (ok && json_array_size(job->conflicts) == 0 &&
		!bc_git_write(job->root, staging, job->writes, job->nwrites, &failed, problem))
	{
		ok = false;
		if (problem->reason == BC_GIT_CONFLICT)
			conflict(job, &job->changes[job->owners[failed]], job->writes[failed].path, NULL,
					 "\"%s\" changed in the checkout meanwhile, or something is in its way", NULL);
	}
	close(lock);
	if (ok && json_array_size(job->conflicts) > 0)
	{
		ok = bc_git_problem(problem, BC_GIT_CONFLICT,
							"%zu of %zu changes do not fit the project's checkout; nothing was changed",
							json_array_size(job->conflicts), job->nchanges);
	}
	if (!ok)
		return NULL;
	applied = json_array();
	for (size_t i = 0; i < job->nchanges; i++)
		json_array_append(applied, job->changes[i].id);
	return json_pack("{s:b, s:o, s:o?}", "ok", 1, "applied", applied, "diff_base", advance(job));
}

json_t *
bc_git_apply(const json_t *order)
{
	Job			job = {.root = -1, .conflicts = json_array()};
	BcGitProblem problem = {.message = "out of memory"};
	json_t	   *base = NULL;
	json_t	   *result = NULL;
	int			resume = 0;
	bool		ok;

	ok = bc_git_order(order, &problem, "{s:{s:s}, s:{s:s, s?o}, s:o, s?b}", "project", "path",
					  &job.project, "worktree", "path", &job.path, "diff_base", &base,
					  "changes", &job.orders, "resume", &resume) &&
		bc_git_order_id(order, job.id, &problem);
	job.diff_base = json_string_value(base);
	job.resume = resume != 0;
	if (ok)
		result = run(&job, &problem);
	if (result == NULL)
	{
		result = bc_git_problem_json(&problem);
		if (problem.reason == BC_GIT_CONFLICT)
			json_object_set(result, "conflicts", job.conflicts);
	}
	for (size_t i = 0; i < job.nwrites; i++)
		free(job.forms[i].data);
	free(job.forms);
	free(job.writes);
	free(job.owners);
	for (size_t i = 0; job.changes != NULL && i < job.nchanges; i++)
	{
		bc_git_plan_free(&job.changes[i].plan);
		bc_git_patch_free(&job.changes[i].patch);
		free(job.changes[i].path);
		free(job.changes[i].old_path);
	}
	free(job.changes);
	json_decref(job.conflicts);
	if (job.root >= 0)
		close(job.root);
	git_tree_free(job.base);
	git_tree_free(job.head);
	git_repository_free(job.repo);
	return result;
}
