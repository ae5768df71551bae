/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_worktree.c
 *	  Role "worktree": a session's worktree exists, whatever happened before.
 *
 * The entry in the repository comes first and the mark that the checkout is
 * complete last.  So a directory whose entry has no mark holds nothing but an
 * interrupted checkout (no agent has seen it) and is filled again, and a
 * directory without an entry is not ours and never touched.  The repository is
 * locked while names are chosen, the entry alone while files are written: two
 * sessions of one project are filled side by side.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/git_checkout.h"
#include "runner/git_copy.h"
#include "runner/git_place.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/git_text.h"
#include "runner/regain.h"

#define MAX_NAMES 1000

typedef struct Job
{
	/* Order, borrowed */
	const char *project;
	const char *path;
	const char *branch;
	const char *base_ref;		/* NULL: HEAD */
	const char *base_commit;	/* NULL: not recorded yet */
	const char *root;
	const json_t *forbidden;
	char		id[64];

	/* Places */
	char		real_root[PATH_MAX];
	const char *below;			/* part of path below the root */
	char		real[PATH_MAX]; /* the worktree's real name */

	/* Handles */
	git_repository *repo;
	int			root_fd;
	int			fd;				/* the worktree's directory, -1: not open */
} Job;

static bool
resolve_base(Job *job, git_oid *base, BcGitProblem *problem)
{
	git_reference *ref = NULL;
	git_object *commit = NULL;
	char		name[BC_GIT_BRANCH_MAX + 16];
	bool		ok;

	if (job->base_commit != NULL)
		return bc_git_commit_tree(job->repo, job->base_commit, base, NULL, problem);
	if (job->base_ref == NULL)
	{
		if (git_repository_head_unborn(job->repo) == 1)
		{
			bc_git_problem(problem, BC_GIT_REPOSITORY_EMPTY,
						   "the repository \"%s\" has no commit yet", job->project);
			return bc_git_problem_hint(problem, "Make a first commit; a worktree starts from one.");
		}
		ok = git_repository_head(&ref, job->repo) == 0;
	}
	else
	{
		snprintf(name, sizeof(name), "refs/heads/%s", job->base_ref);
		ok = strlen(job->base_ref) < BC_GIT_BRANCH_MAX &&
			(git_reference_lookup(&ref, job->repo, name) == 0 ||
			 git_reference_dwim(&ref, job->repo, job->base_ref) == 0);
	}
	ok = ok && git_reference_peel(&commit, ref, GIT_OBJECT_COMMIT) == 0;
	if (ok)
		git_oid_cpy(base, git_object_id(commit));
	git_object_free(commit);
	git_reference_free(ref);
	if (ok)
		return true;
	bc_git_problem_git(problem, "the base \"%s\" is no branch, tag or ref of the repository \"%s\"",
					   job->base_ref != NULL ? job->base_ref : "HEAD", job->project);
	problem->reason = BC_GIT_BASE_NOT_FOUND;
	return bc_git_problem_hint(problem, "Set the project's base branch to one that exists.");
}

/* A key that nothing of another worktree has: neither an entry nor refs. */
static bool
choose_key(Job *job, BcGitEntry *entry, BcGitProblem *problem)
{
	static const char *const kinds[] = {"snapshots", "base"};

	for (int n = 1; n < MAX_NAMES; n++)
	{
		char		ref[128];
		git_oid		oid;
		struct stat st;
		bool		vacant;

		snprintf(entry->key, sizeof(entry->key), n == 1 ? "%s" : "%s-%d", job->id, n);
		if (!bc_git_entry_path(job->repo, entry->key, entry->dir))
			return bc_git_problem(problem, BC_GIT_GIT_ERROR, "the path \"%s\" is too long",
								  job->project);
		vacant = lstat(entry->dir, &st) != 0 && errno == ENOENT;
		for (int k = 0; vacant && k < 2; k++)
		{
			bc_git_ref_name(ref, sizeof(ref), kinds[k], entry->key);
			vacant = git_reference_name_to_id(&oid, job->repo, ref) == GIT_ENOTFOUND;
		}
		if (vacant)
			return true;
	}
	return bc_git_problem(problem, BC_GIT_GIT_ERROR, "no free name for the worktree in \"%s\"",
						  job->project);
}

static bool
choose_branch(Job *job, BcGitEntry *entry, BcGitProblem *problem)
{
	int			valid = 0;

	if (strlen(job->branch) >= BC_GIT_BRANCH_MAX - 8 || strpbrk(job->branch, " \t\n") != NULL ||
		git_branch_name_is_valid(&valid, job->branch) != 0 || !valid)
		return bc_git_problem(problem, BC_GIT_GIT_ERROR, "\"%s\" cannot be the name of a branch",
							  job->branch);
	for (int n = 1; n < MAX_NAMES; n++)
	{
		git_reference *ref = NULL;
		int			code;

		snprintf(entry->branch, sizeof(entry->branch), n == 1 ? "%s" : "%s-%d", job->branch, n);
		code = git_branch_lookup(&ref, job->repo, entry->branch, GIT_BRANCH_LOCAL);
		git_reference_free(ref);
		if (code == GIT_ENOTFOUND)
			return true;
		if (code != 0)
			return bc_git_problem_git(problem, "cannot look for the branch \"%s\"", entry->branch);
	}
	return bc_git_problem(problem, BC_GIT_GIT_ERROR, "no free name for the branch \"%s\"",
						  job->branch);
}

static bool
create_branch(Job *job, const BcGitEntry *entry, BcGitProblem *problem)
{
	git_reference *ref = NULL;
	char		name[BC_GIT_BRANCH_MAX + 16];
	int			code;

	snprintf(name, sizeof(name), "refs/heads/%s", entry->branch);
	bc_git_clear_ref_lock(job->repo, name);
	/* by force: in an entry that was never ready the branch has nobody's work */
	code = git_reference_create(&ref, job->repo, name, &entry->base, 1, "boocoder: worktree");
	git_reference_free(ref);
	if (code == 0)
		return true;
	bc_git_problem_git(problem, "the branch \"%s\" cannot be made", entry->branch);
	return bc_git_problem_hint(problem, "A branch whose name is the first part of it is in the way, "
							   "or the server's user may not write to the repository.");
}

/* The entry appears whole, by a rename, or not at all. */
static bool
create_entry(Job *job, const BcGitEntry *entry, BcGitProblem *problem)
{
	char		list[PATH_MAX];
	char		temp[PATH_MAX + 8];
	char		file[PATH_MAX + 32];
	char		text[PATH_MAX + BC_GIT_BRANCH_MAX];
	int			list_fd;
	bool		ok;

	snprintf(list, sizeof(list), "%sworktrees", git_repository_commondir(job->repo));
	snprintf(temp, sizeof(temp), "%s.new", entry->dir);
	if ((mkdir(list, 0777) != 0 && errno != EEXIST) ||
		(list_fd = bc_git_place_dir(AT_FDCWD, list)) < 0)
		return bc_git_problem_errno(problem, BC_GIT_REPOSITORY_UNREADABLE,
									"the repository \"%s\" is not writable", job->project);
	ok = bc_git_place_remove(list_fd, strrchr(temp, '/') + 1, problem);
	close(list_fd);
	if (!ok)
		return false;

	ok = mkdir(temp, 0777) == 0;
	snprintf(file, sizeof(file), "%s/commondir", temp);
	ok = ok && bc_git_write_file(file, "../..\n");
	snprintf(file, sizeof(file), "%s/HEAD", temp);
	snprintf(text, sizeof(text), "ref: refs/heads/%s\n", entry->branch);
	ok = ok && bc_git_write_file(file, text);
	snprintf(file, sizeof(file), "%s/gitdir", temp);
	snprintf(text, sizeof(text), "%s/.git\n", job->real);
	ok = ok && bc_git_write_file(file, text) && rename(temp, entry->dir) == 0;
	return ok || bc_git_problem_errno(problem, BC_GIT_REPOSITORY_UNREADABLE,
									  "the repository \"%s\" is not writable", job->project);
}

static bool
dir_is_empty(int fd)
{
	int			copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR		   *dir = copy < 0 ? NULL : fdopendir(copy);
	int			count = 0;

	if (dir == NULL)
	{
		if (copy >= 0)
			close(copy);
		return false;
	}
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count == 2;
}

/* Opens the worktree's directory, with the rights it had if it is "ours"; "*made" says that it was missing. */
static bool
open_directory(Job *job, bool ours, bool *made, BcGitProblem *problem)
{
	const char *name;
	int			parent;

	bc_regain_above(job->root_fd, job->below);
	parent = bc_git_place_parent(job->root_fd, job->below, 0700, &name, NULL);
	if (parent < 0)
		return bc_git_problem_errno(problem, errno == ELOOP || errno == ENOTDIR ?
									BC_GIT_WORKTREE_ROOT_UNSAFE : BC_GIT_WORKTREE_ROOT_UNWRITABLE,
									"the directory of the worktree \"%s\" cannot be made", job->path);
	*made = mkdirat(parent, name, 0700) == 0;
	if (*made || errno == EEXIST)
	{
		job->fd = ours ? bc_regain_dir(parent, name, W_OK | X_OK) : bc_git_place_dir(parent, name);
		if (job->fd < 0)
			bc_git_problem_errno(problem, BC_GIT_PATH_OCCUPIED,
								 "something that is not a directory is at \"%s\"", job->path);
	}
	else
		bc_git_problem_errno(problem, BC_GIT_WORKTREE_ROOT_UNWRITABLE,
							 "the worktree \"%s\" cannot be made", job->path);
	close(parent);
	return job->fd >= 0;
}

/* Of an entry that was never ready, the branch is the one that its HEAD names. */
static bool
resume_entry(Job *job, BcGitEntry *entry, BcGitProblem *problem)
{
	char	   *head = bc_git_entry_head(entry);

	entry->branch[0] = '\0';
	if (head != NULL && strncmp(head, "ref: refs/heads/", 16) == 0)
		snprintf(entry->branch, sizeof(entry->branch), "%s", head + 16);
	free(head);
	if (entry->branch[0] == '\0')
		return bc_git_problem(problem, BC_GIT_GIT_ERROR, "\"%s/HEAD\" is damaged", entry->dir);
	return create_branch(job, entry, problem);
}

/* With the repository locked: the entry exists and the directory is open. */
static bool
claim(Job *job, BcGitEntry *entry, bool *lost, BcGitProblem *problem)
{
	bool		found = bc_git_entry_find(job->repo, job->id, job->real, entry);
	bool		made = false;

	if (!(found && entry->ready) && !resolve_base(job, &entry->base, problem))
		return false;
	if (!open_directory(job, found, &made, problem))
		return false;
	*lost = found && entry->ready && made;
	if (found)
		return entry->ready || resume_entry(job, entry, problem);
	if (!made && !dir_is_empty(job->fd))
	{
		bc_git_problem(problem, BC_GIT_PATH_OCCUPIED,
					   "the directory \"%s\" exists, but is not a worktree of the repository \"%s\"",
					   job->path, job->project);
		return bc_git_problem_hint(problem, "boocoder does not remove what it did not make: move it "
								   "away after a look at it.");
	}
	return choose_key(job, entry, problem) && choose_branch(job, entry, problem) &&
		create_entry(job, entry, problem) && create_branch(job, entry, problem);
}

/* What the files are written from; when the directory vanished, the last snapshot. */
static bool
content(Job *job, const BcGitEntry *entry, bool lost, git_tree **tree, BcGitProblem *problem)
{
	char		ref[128];
	char		hex[GIT_OID_HEXSZ + 1];
	git_oid		oid = entry->base;

	bc_git_ref_name(ref, sizeof(ref), "snapshots", entry->key);
	if (lost && git_reference_name_to_id(&oid, job->repo, ref) != 0)
		oid = entry->base;
	return bc_git_commit_tree(job->repo, git_oid_tostr(hex, sizeof(hex), &oid), &oid, tree, problem);
}

/* With the entry locked: the files are there. */
static bool
fill(Job *job, BcGitEntry *entry, bool lost, bool *created, BcGitProblem *problem)
{
	git_tree   *tree = NULL;
	bool		ok;

	if (!entry->ready)
	{
		/* another run may have completed it while we waited for the lock */
		BcGitEntry	now = *entry;

		bc_git_entry_load(&now);
		if (now.ready)
			*entry = now;
	}
	*created = lost || !entry->ready;
	if (!*created)
		return bc_git_checkout_link(job->fd, entry, problem);
	ok = bc_git_checkout_link(job->fd, entry, problem) &&
		content(job, entry, lost, &tree, problem) &&
		bc_git_checkout(job->project, entry, job->real, tree, problem) &&
		bc_git_entry_set_ready(entry, problem);
	git_tree_free(tree);
	return ok;
}

/* Opens the repository and the root, and finds out where the worktree lies. */
static bool
locate(Job *job, BcGitProblem *problem)
{
	char		project[PATH_MAX];

	job->repo = bc_git_open(job->project, false, problem);
	if (job->repo == NULL)
		return false;
	if (realpath(job->project, project) == NULL)
		return bc_git_problem_errno(problem, BC_GIT_REPOSITORY_MISSING, "\"%s\" is gone",
									job->project);
	if (!bc_git_place_check_root(job->root, job->forbidden, project, job->real_root, problem))
		return false;
	job->below = bc_git_place_below(job->path, job->root, job->real_root, problem);
	if (job->below == NULL)
		return false;
	if ((size_t) snprintf(job->real, sizeof(job->real), "%s/%s", job->real_root, job->below) >=
		sizeof(job->real) - 8 || strpbrk(job->real, "\n\r") != NULL)
		return bc_git_problem(problem, BC_GIT_WORKTREE_ROOT_UNSAFE,
							  "the path \"%s\" is too long, or has a line end in it", job->path);
	job->root_fd = bc_git_place_open_root(job->real_root, problem);
	return job->root_fd >= 0;
}

static bool
ensure(Job *job, BcGitEntry *entry, bool *created, BcGitProblem *problem)
{
	bool		lost = false;
	bool		ok;
	int			lock;

	if (!locate(job, problem))
		return false;
	lock = bc_git_lock(git_repository_commondir(job->repo));
	if (lock < 0)
		return bc_git_problem_errno(problem, BC_GIT_REPOSITORY_UNREADABLE, "cannot lock \"%s\"",
									job->project);
	ok = claim(job, entry, &lost, problem);
	close(lock);
	if (!ok)
		return false;
	lock = bc_git_lock(entry->dir);
	if (lock < 0)
		return bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot lock \"%s\"", entry->dir);
	ok = fill(job, entry, lost, created, problem);
	close(lock);
	return ok;
}

static json_t *
result(Job *job, const BcGitEntry *entry, bool created)
{
	char		hex[GIT_OID_HEXSZ + 1];
	char		common[PATH_MAX];
	size_t		length;

	snprintf(common, sizeof(common), "%s", git_repository_commondir(job->repo));
	for (length = strlen(common); length > 1 && common[length - 1] == '/'; length--)
		common[length - 1] = '\0';
	return json_pack("{s:b, s:b, s:o, s:o, s:s, s:o, s:o}", "ok", 1, "created", created,
					 "path", bc_git_string_json(job->real),
					 "branch", bc_git_string_json(entry->branch),
					 "base_commit", git_oid_tostr(hex, sizeof(hex), &entry->base),
					 "git_dir", bc_git_string_json(common),
					 "admin_dir", bc_git_string_json(entry->dir));
}

json_t *
bc_git_worktree(const json_t *order)
{
	Job			job = {.root_fd = -1, .fd = -1};
	BcGitProblem problem;
	BcGitEntry	entry;
	bool		created = false;
	json_t	   *ref = NULL;
	json_t	   *commit = NULL;
	json_t	   *out;
	bool		ok;

	ok = bc_git_order(order, &problem, "{s:{s:s}, s:{s:s, s:s, s?o, s?o}, s:s, s?o}", "project",
					  "path", &job.project, "worktree", "path", &job.path,
					  "branch", &job.branch, "base_ref", &ref, "base_commit", &commit,
					  "root", &job.root, "forbidden", &job.forbidden);
	job.base_ref = json_string_value(ref);
	job.base_commit = json_string_value(commit);
	if (ok && bc_git_order_id(order, job.id, &problem) &&
		ensure(&job, &entry, &created, &problem))
	{
		out = result(&job, &entry, created);
		if (created)
			json_object_set_new(out, "copied",
								bc_git_copy_ignored(job.repo, job.fd, json_object_get(order, "copy")));
	}
	else
		out = bc_git_problem_json(&problem);
	if (job.fd >= 0)
		close(job.fd);
	if (job.root_fd >= 0)
		close(job.root_fd);
	git_repository_free(job.repo);
	return out;
}
