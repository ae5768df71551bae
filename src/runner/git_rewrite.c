/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_rewrite.c
 *	  Role "rewrite": gives a worktree the content that a ref of ours keeps, or
 *	  that of the commit it has checked out, or what it has with one file as a
 *	  person wants it.  What it holds until then is kept under another ref first.
 *	  Stash, restore, rewind and manual changes are this.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/git_changes.h"
#include "runner/git_edit.h"
#include "runner/git_place.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/git_snapshot.h"
#include "runner/git_text.h"
#include "runner/git_turns.h"
#include "runner/git_unpushed.h"
#include "runner/git_write.h"
#include "runner/regain.h"

#define MAX_NAMES 10000
#define REFS "refs/boocoder/"

typedef struct Job
{
	/* Order, borrowed */
	const char *project;
	const char *path;
	const char *diff_base;
	const char *save;			/* kind of ref: "stash" */
	const char *to;				/* a ref of ours; NULL: the commit that is checked out */
	const json_t *edit;			/* {"path", "content", "paths", "max_bytes", "known"}, instead of "to" */
	char		id[64];

	/* Handles */
	git_repository *repo;
	git_tree   *base;
	git_tree   *before;
	git_tree   *after;
	BcGitEntry	entry;
	int			directory;

	/* Results */
	char		saved[160];		/* ref; empty: nothing was to be kept */
	git_oid		tree;			/* what it holds now */
	json_t	   *changes;		/* of an edit: what the file is to the diff's base */
	bool		known;			/* of an edit: nothing else was unreported */
} Job;

static bool
snapshot(Job *job, git_oid *tree, BcGitProblem *problem)
{
	BcSnapshotOptions options = {
		.project = job->project, .path = job->path, .entry_dir = job->entry.dir,
		.base = job->base, .max_file = BC_GIT_ANY_FILE
	};
	BcSnapshot	result;

	if (!bc_git_snapshot(&options, &result, problem))
		return false;
	git_oid_cpy(tree, &result.tree);
	bc_git_snapshot_free(&result);
	return true;
}

/* Keeps "tree" under a name that is free, or has it already. */
static bool
keep(Job *job, const git_oid *tree, BcGitProblem *problem)
{
	git_oid		tip;
	git_oid		commit;
	bool		have;

	if (!bc_git_ref_for(job->repo, job->save, job->entry.key, tree, MAX_NAMES, job->saved,
						sizeof(job->saved), &have, problem))
		return false;
	bc_git_tip(job->repo, &job->entry, &tip);
	return have || bc_git_commit_to(job->repo, job->saved, tree, &tip, 1,
									"boocoder: content of a worktree\n", &commit, problem);
}

static bool
find_edited(Job *job, BcGitProblem *problem)
{
	const char *path;
	const char *content = json_string_value(json_object_get(job->edit, "content"));
	const char *known = json_string_value(json_object_get(job->edit, "known"));
	json_t	   *paths;
	json_int_t	max_bytes;
	git_oid		reported;
	git_oid		oid;

	if (!bc_git_order(job->edit, problem, "{s:s, s:o, s:I}", "path", &path, "paths", &paths,
					  "max_bytes", &max_bytes) ||
		!bc_git_edit_tree(job->repo, job->before, path, content, &oid, problem))
		return false;
	if (git_tree_lookup(&job->after, job->repo, &oid) != 0)
		return bc_git_problem_git(problem, "the edited content cannot be read");
	if (known == NULL)
		git_oid_cpy(&reported, git_tree_id(job->base));
	else if (git_oid_fromstr(&reported, known) != 0)
		memset(&reported, 0, sizeof(reported));
	job->known = git_oid_equal(&reported, git_tree_id(job->before));
	return bc_git_changes(job->repo, job->base, job->after, paths, max_bytes, job->changes,
						  problem);
}

/* What a person wrote needs no report of an agent, and is to outlive git gc as one's does. */
static bool
keep_edited(Job *job, const git_oid *base, BcGitProblem *problem)
{
	return !job->known || bc_git_last_keep(job->repo, job->entry.key, &job->tree, base, problem);
}

static bool
find_target(Job *job, BcGitProblem *problem)
{
	git_commit *commit = NULL;
	git_oid		oid;
	bool		ok;

	if (job->edit != NULL)
		return find_edited(job, problem);
	if (job->to == NULL)
		bc_git_tip(job->repo, &job->entry, &oid);
	else if (strncmp(job->to, REFS, strlen(REFS)) != 0 ||
			 git_reference_name_to_id(&oid, job->repo, job->to) != 0)
		return bc_git_problem(problem, BC_GIT_BASE_NOT_FOUND, "\"%s\" is gone", job->to);
	ok = git_commit_lookup(&commit, job->repo, &oid) == 0 &&
		git_commit_tree(&job->after, commit) == 0;
	git_commit_free(commit);
	return ok || bc_git_problem_git(problem, "the content to be restored cannot be read");
}

/* What lies at "path" now; st_nlink 0: nothing.  What is above it can be written then. */
static void
look(const Job *job, const char *path, struct stat *seen)
{
	const char *name;
	int			parent;

	bc_regain_above(job->directory, path);
	parent = bc_git_place_parent(job->directory, path, 0, &name, NULL);
	memset(seen, 0, sizeof(*seen));
	if (parent < 0)
		return;
	/* A directory goes with its last file, before others are written. */
	if (fstatat(parent, name, seen, AT_SYMLINK_NOFOLLOW) != 0 || S_ISDIR(seen->st_mode))
		memset(seen, 0, sizeof(*seen));
	close(parent);
}

static bool
add_write(Job *job, const git_diff_file *file, bool remove, BcWrite *write, git_blob **blob)
{
	*write = (BcWrite) {.path = file->path, .mode = remove ? 0 : file->mode};
	look(job, file->path, &write->seen);
	if (remove)
		return true;
	if (git_blob_lookup(blob, job->repo, &file->id) != 0)
		return false;
	write->data = git_blob_rawcontent(*blob);
	write->length = (size_t) git_blob_rawsize(*blob);
	return true;
}

/* Files that go make room first: a directory may come in the place of one. */
static bool
write_files(Job *job, git_diff *diff, BcGitProblem *problem)
{
	size_t		n = git_diff_num_deltas(diff);
	BcWrite    *writes = bc_alloc((n + 1) * sizeof(BcWrite));
	git_blob  **blobs = bc_alloc((n + 1) * sizeof(git_blob *));
	char		staging[96];
	size_t		count = 0;
	size_t		failed;
	bool		ok = true;

	memset(blobs, 0, (n + 1) * sizeof(git_blob *));
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; ok && i < n; i++)
		{
			const git_diff_delta *delta = git_diff_get_delta(diff, i);
			bool		remove = delta->status == GIT_DELTA_DELETED;
			const git_diff_file *file = remove ? &delta->old_file : &delta->new_file;

			/* What another repository has is not ours to fetch. */
			if (remove != (pass == 0) || file->mode == GIT_FILEMODE_COMMIT)
				continue;
			ok = add_write(job, file, remove, &writes[count], &blobs[i]) ||
				bc_git_problem_git(problem, "\"%s\" cannot be read", file->path);
			count++;
		}
	snprintf(staging, sizeof(staging), ".boocoder-rewrite-%s", job->id);
	ok = ok && bc_git_write(job->directory, staging, writes, count, &failed, problem);
	for (size_t i = 0; i < n; i++)
		git_blob_free(blobs[i]);
	free(blobs);
	free(writes);
	return ok;
}

/* git's own view: these files are tracked. */
static bool
write_index(Job *job, BcGitProblem *problem)
{
	char		file[PATH_MAX + 32];
	git_index  *index = NULL;
	bool		ok;

	snprintf(file, sizeof(file), "%s/index.lock", job->entry.dir);
	unlink(file);				/* of a run that was killed: we hold the entry's lock */
	snprintf(file, sizeof(file), "%s/index", job->entry.dir);
	ok = git_index_open(&index, file) == 0 && git_index_read_tree(index, job->after) == 0 &&
		git_index_write(index) == 0;
	git_index_free(index);
	return ok || bc_git_problem_git(problem, "\"%s\" cannot be written", file);
}

/*
 * Is everything as it was to be?  Files that were ignored, and are not any more
 * because .gitignore has changed, may be there beside it.
 */
static bool
became(const Job *job, const git_oid *tree)
{
	git_tree   *now = NULL;
	git_diff   *diff = NULL;
	bool		ok = git_tree_lookup(&now, job->repo, tree) == 0 &&
		git_diff_tree_to_tree(&diff, job->repo, job->after, now, NULL) == 0;

	for (size_t i = 0; ok && i < git_diff_num_deltas(diff); i++)
	{
		const git_diff_delta *delta = git_diff_get_delta(diff, i);
		git_tree_entry *entry = NULL;

		ok = delta->status == GIT_DELTA_ADDED &&
			git_tree_entry_bypath(&entry, job->before, delta->new_file.path) != 0;
		git_tree_entry_free(entry);
	}
	git_diff_free(diff);
	git_tree_free(now);
	return ok;
}

static bool
change(Job *job, BcGitProblem *problem)
{
	git_diff_options options;
	git_diff   *diff = NULL;
	bool		ok;

	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	options.flags = GIT_DIFF_INCLUDE_TYPECHANGE;
	ok = git_diff_tree_to_tree(&diff, job->repo, job->before, job->after, &options) == 0 ||
		bc_git_problem_git(problem, "the contents cannot be compared");
	ok = ok && write_files(job, diff, problem) &&
		(job->edit != NULL || write_index(job, problem)) &&
		snapshot(job, &job->tree, problem);
	git_diff_free(diff);
	if (ok && !became(job, &job->tree))
		return bc_git_problem(problem, BC_GIT_CONFLICT,
							  "the worktree \"%s\" did not become what it was to be: something else "
							  "writes there, or ignored files are in the way", job->path);
	return ok;
}

static bool
run(Job *job, BcGitProblem *problem)
{
	char		real[PATH_MAX];
	git_oid		commit;
	git_oid		tree;
	int			lock;
	bool		ok;

	job->repo = bc_git_open(job->project, false, problem);
	if (job->repo == NULL ||
		!bc_git_commit_tree(job->repo, job->diff_base, &commit, &job->base, problem))
		return false;
	job->directory = bc_git_real_path(job->path, real) ?
		bc_regain_dir(AT_FDCWD, real, W_OK | X_OK) : -1;
	if (job->directory < 0 || !bc_git_entry_find(job->repo, job->id, job->path, &job->entry) ||
		!job->entry.ready)
		return bc_git_problem(problem, BC_GIT_WORKTREE_MISSING, "the worktree \"%s\" is gone",
							  job->path);
	lock = bc_git_lock(job->entry.dir);
	if (lock < 0)
		return bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot lock \"%s\"", job->entry.dir);
	/* what is kept must survive a power cut that the files do not */
	git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 1);
	ok = snapshot(job, &tree, problem) &&
		(git_tree_lookup(&job->before, job->repo, &tree) == 0 ||
		 bc_git_problem_git(problem, "the snapshot cannot be read")) &&
		find_target(job, problem) &&
		(git_oid_equal(&tree, git_tree_id(job->after)) || keep(job, &tree, problem)) &&
		change(job, problem) && keep_edited(job, &commit, problem);
	git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 0);
	close(lock);
	return ok;
}

json_t *
bc_git_rewrite(const json_t *order)
{
	Job			job = {.directory = -1, .changes = json_array()};
	BcGitProblem problem = {.message = "out of memory"};
	json_t	   *to = NULL;
	json_t	   *edit = NULL;
	json_t	   *result = NULL;

	if (bc_git_order(order, &problem, "{s:{s:s}, s:{s:s, s:s}, s:s, s?o, s?o}", "project", "path",
					 &job.project, "worktree", "path", &job.path, "diff_base", &job.diff_base,
					 "save", &job.save, "to", &to, "edit", &edit) &&
		bc_git_order_id(order, job.id, &problem))
	{
		job.to = json_string_value(to);
		job.edit = json_is_object(edit) ? edit : NULL;
		if (run(&job, &problem))
		{
			char		before[GIT_OID_HEXSZ + 1];
			char		after[GIT_OID_HEXSZ + 1];

			result = json_pack("{s:b, s:s?, s:s, s:s}", "ok", 1,
							   "saved", job.saved[0] != '\0' ? job.saved : NULL,
							   "saved_tree", git_oid_tostr(before, sizeof(before), git_tree_id(job.before)),
							   "tree", git_oid_tostr(after, sizeof(after), &job.tree));
			if (job.edit != NULL)
				json_object_set(result, "changes", job.changes);
			if (job.known)
				json_object_set_new(result, "known_tree", json_string(after));
		}
	}
	if (result == NULL)
		result = bc_git_problem_json(&problem);
	if (job.directory >= 0)
		close(job.directory);
	json_decref(job.changes);
	git_tree_free(job.base);
	git_tree_free(job.before);
	git_tree_free(job.after);
	git_repository_free(job.repo);
	return result;
}
