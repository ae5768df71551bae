/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_remove.c
 *	  Role "remove": archives what a worktree holds, then removes it.
 *
 * Nothing is removed before its content is under refs/boocoder/archive/ and on
 * disk, unless it holds nothing of its own.  A mark in the worktree's entry
 * says that the archive is complete, so that a run that was killed while it
 * removed files is taken up again, and does not archive what was left.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/git_assess.h"
#include "runner/git_place.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/git_snapshot.h"
#include "runner/git_text.h"
#include "runner/regain.h"
#include "runner/sandbox.h"

#define MARK "boocoder-removing"
#define NOTHING "nothing"		/* in the mark: there was nothing to archive */
#define MAX_NAMES 1000

typedef struct Job
{
	/* Order, borrowed */
	const char *project;
	const char *path;
	const char *branch;
	const char *diff_base;		/* NULL: none */
	const char *root;
	const char *home;			/* private directory of its agents; NULL: none */
	const char *known;			/* tree that the database was last told of; NULL: none */
	bool		delete_branch;
	bool		careful;		/* refuse what would be missed */
	char		id[64];

	/* Places */
	BcGitEntry	entry;
	bool		has_entry;
	int			parent;			/* directory that holds the worktree, or -1: none */
	const char *name;			/* its name there */
	bool		present;

	/* Handles and results */
	git_repository *repo;
	char		archive[160];	/* ref; empty: nothing to keep */
	json_t	   *skipped;		/* what the archive does not have, and why; NULL: not looked */
	json_t	   *missed;			/* what of that would be missed */
} Job;

static bool
find_directory(Job *job, BcGitProblem *problem)
{
	char		real_root[PATH_MAX];
	const char *below;
	struct stat st;
	int			root;

	if (!bc_git_place_real(job->root, real_root))
		return bc_git_problem(problem, BC_GIT_WORKTREE_ROOT_UNSAFE,
							  "the worktree root \"%s\" is not a usable path", job->root);
	below = bc_git_place_below(job->path, job->root, real_root, problem);
	if (below == NULL)
		return false;
	root = bc_git_place_dir(AT_FDCWD, real_root);
	if (root >= 0)
	{
		bc_regain_above(root, below);
		job->parent = bc_git_place_parent(root, below, 0, &job->name, NULL);
		close(root);
	}
	if (job->parent < 0)
		return errno == ENOENT ||
			bc_git_problem_errno(problem, BC_GIT_WORKTREE_ROOT_UNSAFE,
								 "the worktree \"%s\" cannot be reached", job->path);
	if (fstatat(job->parent, job->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT || bc_git_problem_errno(problem, BC_GIT_GIT_ERROR,
													   "the worktree \"%s\" cannot be read",
													   job->path);
	job->present = true;
	if (S_ISDIR(st.st_mode))
		return true;
	bc_git_problem(problem, BC_GIT_PATH_OCCUPIED, "\"%s\" is no directory", job->path);
	return bc_git_problem_hint(problem, "boocoder does not remove what it did not make.");
}

/* A commit that nothing of ours reaches but the worktree's branch or HEAD. */
static void
add_tip(Job *job, const git_oid *tip, const git_oid *known, size_t nknown, git_oid *tips,
		size_t *ntips)
{
	for (size_t i = 0; i < nknown; i++)
	{
		if (git_oid_equal(tip, &known[i]) || git_graph_descendant_of(job->repo, &known[i], tip) == 1)
			return;
	}
	for (size_t i = 0; i < *ntips; i++)
	{
		if (git_oid_equal(tip, &tips[i]))
			return;
	}
	git_oid_cpy(&tips[(*ntips)++], tip);
}

/* Commits of the worktree's own: at most two. */
static size_t
own_commits(Job *job, const git_oid *diff_base, git_oid *tips)
{
	git_oid		known[2];
	size_t		nknown = 0;
	size_t		ntips = 0;
	git_oid		tip;
	char		name[BC_GIT_BRANCH_MAX + 32];
	char	   *head = NULL;

	if (diff_base != NULL)
		git_oid_cpy(&known[nknown++], diff_base);
	if (job->has_entry && job->entry.ready)
		git_oid_cpy(&known[nknown++], &job->entry.base);
	snprintf(name, sizeof(name), "refs/heads/%s", job->branch);
	if (git_reference_name_to_id(&tip, job->repo, name) == 0)
		add_tip(job, &tip, known, nknown, tips, &ntips);
	if (job->has_entry)
		head = bc_git_entry_head(&job->entry);
	if (head != NULL && ((strncmp(head, "ref: ", 5) == 0 &&
						  git_reference_name_to_id(&tip, job->repo, head + 5) == 0) ||
						 (strlen(head) == GIT_OID_HEXSZ && git_oid_fromstr(&tip, head) == 0)))
		add_tip(job, &tip, known, nknown, tips, &ntips);
	free(head);
	return ntips;
}

/* A place for the snapshot's scratch when the worktree's entry was pruned. */
static bool
scratch_entry(Job *job, bool make, BcGitProblem *problem)
{
	char		list[PATH_MAX];
	int			fd;
	bool		ok;

	snprintf(list, sizeof(list), "%sworktrees", git_repository_commondir(job->repo));
	if (make && mkdir(list, 0777) != 0 && errno != EEXIST)
		return bc_git_problem_errno(problem, BC_GIT_REPOSITORY_UNREADABLE,
									"the repository \"%s\" is not writable", job->project);
	fd = bc_git_place_dir(AT_FDCWD, list);
	ok = fd >= 0 && bc_git_place_remove(fd, strrchr(job->entry.dir, '/') + 1, problem) &&
		(!make || mkdir(job->entry.dir, 0777) == 0);
	if (fd >= 0)
		close(fd);
	return ok || bc_git_problem_errno(problem, BC_GIT_REPOSITORY_UNREADABLE,
									  "the repository \"%s\" is not writable", job->project);
}

static bool
take_snapshot(Job *job, const git_tree *base, git_oid *tree, BcGitProblem *problem)
{
	BcSnapshotOptions options = {
		.project = job->project, .path = job->path, .base = base,
		.max_file = BC_GIT_ANY_FILE, .unfold_gitlinks = true, .leave_out = !job->careful
	};
	BcSnapshot	snapshot = {.skipped = NULL};
	char		key[80];
	bool		ok;

	if (!job->has_entry)
	{
		snprintf(key, sizeof(key), "%s.new", job->id);
		if (!bc_git_entry_path(job->repo, key, job->entry.dir))
			return bc_git_problem(problem, BC_GIT_GIT_ERROR, "the path is too long");
		if (!scratch_entry(job, true, problem))
			return false;
	}
	options.entry_dir = job->entry.dir;
	ok = bc_git_snapshot(&options, &snapshot, problem);
	git_oid_cpy(tree, &snapshot.tree);
	json_decref(job->skipped);
	json_decref(job->missed);
	job->skipped = snapshot.skipped;
	job->missed = snapshot.missed;
	if (!job->has_entry)
	{
		BcGitProblem leftover;

		scratch_entry(job, false, &leftover);
	}
	return ok;
}

/* Tree of what is to be kept; "*known" is false when nothing is left of it. */
static bool
find_content(Job *job, const git_tree *base, git_oid *tree, bool *known, BcGitProblem *problem)
{
	char		ref[128];
	git_oid		oid;
	git_commit *commit = NULL;

	*known = true;
	if (job->present)
		return take_snapshot(job, base, tree, problem);

	/* the directory vanished: what it held at the end of the last turn */
	bc_git_ref_name(ref, sizeof(ref), "snapshots", job->has_entry ? job->entry.key : job->id);
	*known = git_reference_name_to_id(&oid, job->repo, ref) == 0 &&
		git_commit_lookup(&commit, job->repo, &oid) == 0;
	if (*known)
		git_oid_cpy(tree, git_commit_tree_id(commit));
	git_commit_free(commit);
	return true;
}

/* The archive's message: who looks for something there is told why it is missing. */
static char *
message(const Job *job)
{
	char	   *text = bc_strdup("boocoder: archived worktree\n");
	size_t		i;
	json_t	   *item;

	json_array_foreach(job->skipped, i, item)
	{
		char	   *more = bc_asprintf("%s%s%s\n", text, i == 0 ? "\nLeft out:\n" : "", json_string_value(item));

		free(text);
		text = more;
	}
	return text;
}

static bool
archive(Job *job, BcGitProblem *problem)
{
	git_oid		parents[3];
	size_t		nparents = 0;
	git_tree   *base = NULL;
	git_oid		diff_base;
	git_oid		tree;
	git_oid		commit;
	size_t		ntips;
	BcGitProblem lost;
	char	   *text;
	bool		known = false;
	bool		have = false;
	bool		same;
	bool		ok;

	if (job->diff_base != NULL &&
		bc_git_commit_tree(job->repo, job->diff_base, &diff_base, &base, &lost))
		git_oid_cpy(&parents[nparents++], &diff_base);
	ok = find_content(job, base, &tree, &known, problem);
	text = message(job);
	same = ok && (!known || (base != NULL && git_oid_equal(&tree, git_tree_id(base))));
	ntips = own_commits(job, nparents > 0 ? &diff_base : NULL, &parents[nparents]);
	nparents += ntips;
	if (ok && !(same && ntips == 0))
	{
		if (!known)
		{
			/* only commits are left: the last one's content */
			git_commit *tip = NULL;

			ok = git_commit_lookup(&tip, job->repo, &parents[nparents - 1]) == 0 ||
				bc_git_problem_git(problem, "a commit of the worktree cannot be read");
			if (ok)
				git_oid_cpy(&tree, git_commit_tree_id(tip));
			git_commit_free(tip);
		}
		ok = ok && bc_git_ref_for(job->repo, "archive", job->has_entry ? job->entry.key : job->id, &tree,
								  MAX_NAMES, job->archive, sizeof(job->archive), &have, problem) &&
			((have && ntips == 0) ||
			 bc_git_commit_to(job->repo, job->archive, &tree, parents, nparents,
							  text, &commit, problem));
	}
	free(text);
	git_tree_free(base);
	return ok;
}

/* Is there something that nobody knows of?  It would be archived, but nobody would look for it. */
static bool
nothing_missed(Job *job, BcGitProblem *problem)
{
	char		hex[GIT_OID_HEXSZ + 1];
	git_tree   *base = NULL;
	git_oid		commit;
	git_oid		tree;
	json_t	   *facts = NULL;
	long long	dirty;
	long long	unpushed;

	if (job->diff_base == NULL || !job->present || !job->has_entry || !job->entry.ready)
		return true;
	if (bc_git_commit_tree(job->repo, job->diff_base, &commit, &base, problem) &&
		take_snapshot(job, base, &tree, problem))
		facts = bc_git_assess_facts(job->repo, &job->entry, &tree, job->missed, job->known != NULL ? job->known :
									git_oid_tostr(hex, sizeof(hex), git_tree_id(base)), problem);
	git_tree_free(base);
	if (facts == NULL)
		return false;
	dirty = json_integer_value(json_object_get(facts, "dirty_count"));
	unpushed = json_integer_value(json_object_get(facts, "unpushed_count"));
	json_decref(facts);
	if (dirty == 0 && unpushed == 0)
		return true;
	bc_git_problem(problem, BC_GIT_WORKTREE_AT_RISK,
				   "the worktree has %lld changed files that no task has reported, and %lld commits "
				   "that no other branch has", dirty, unpushed);
	return bc_git_problem_hint(problem, "Look with boocoder.worktree_risk(); push or merge the commits, "
							   "or use force, which archives all of it.");
}

/* Archives, or finds that an earlier run did. */
static bool
secure(Job *job, BcGitProblem *problem)
{
	char		mark[PATH_MAX + 32];
	char	   *text;

	if (!job->has_entry)
		return archive(job, problem);
	snprintf(mark, sizeof(mark), "%s/" MARK, job->entry.dir);
	text = bc_git_read_file(mark);
	if (text != NULL)
	{
		if (strcmp(text, NOTHING) != 0)
			snprintf(job->archive, sizeof(job->archive), "%s", text);
		free(text);
		return true;
	}
	if (job->careful && !nothing_missed(job, problem))
		return false;
	if (!archive(job, problem))
		return false;
	return bc_git_write_file(mark, job->archive[0] != '\0' ? job->archive : NOTHING) ||
		bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot write \"%s\"", mark);
}

/* Has the project's checkout, or another worktree, this ref checked out? */
static bool
in_use(const Job *job, const char *ref)
{
	const char *common = git_repository_commondir(job->repo);
	char		list[PATH_MAX];
	char		line[BC_GIT_BRANCH_MAX + 64];
	DIR		   *dir;
	struct dirent *item;
	bool		found = false;

	snprintf(line, sizeof(line), "ref: %s", ref);
	snprintf(list, sizeof(list), "%sworktrees", common);
	dir = opendir(list);
	for (bool first = true; !found && (first || (dir != NULL && (item = readdir(dir)) != NULL));
		 first = false)
	{
		char		path[PATH_MAX * 2];
		char	   *head;

		if (first)
			snprintf(path, sizeof(path), "%sHEAD", common);
		else
			snprintf(path, sizeof(path), "%s/%s/HEAD", list, item->d_name);
		if (!first && job->has_entry && strcmp(item->d_name, strrchr(job->entry.dir, '/') + 1) == 0)
			continue;
		head = bc_git_read_file(path);
		found = head != NULL && strcmp(head, line) == 0;
		free(head);
	}
	if (dir != NULL)
		closedir(dir);
	return found;
}

/* The contents of single turns; what the last one left is in the archive. */
static void
drop_turns(const Job *job)
{
	char		glob[160];
	git_reference_iterator *refs = NULL;
	git_reference *ref;

	snprintf(glob, sizeof(glob), "refs/boocoder/turns/%s/*", job->entry.key);
	if (git_reference_iterator_glob_new(&refs, job->repo, glob) != 0)
		return;
	while (git_reference_next(&ref, refs) == 0)
	{
		(void) git_reference_delete(ref);
		git_reference_free(ref);
	}
	git_reference_iterator_free(refs);
}

static bool
drop_refs(Job *job, BcGitProblem *problem)
{
	static const char *const kinds[] = {"snapshots", "base"};
	char		name[BC_GIT_BRANCH_MAX + 32];
	git_reference *ref = NULL;
	bool		ok = true;

	/* without an entry, the refs of this id may be another database's */
	for (int i = 0; ok && job->has_entry && i < 2; i++)
	{
		bc_git_ref_name(name, sizeof(name), kinds[i], job->entry.key);
		ok = git_reference_remove(job->repo, name) == 0;
	}
	if (ok && job->has_entry)
		drop_turns(job);
	snprintf(name, sizeof(name), "refs/heads/%s", job->branch);
	if (ok && job->delete_branch && git_reference_lookup(&ref, job->repo, name) == 0 &&
		!in_use(job, name))
		ok = git_reference_delete(ref) == 0;
	git_reference_free(ref);
	return ok || bc_git_problem_git(problem, "the ref \"%s\" cannot be removed", name);
}

static bool
drop_entry(Job *job, BcGitProblem *problem)
{
	char		list[PATH_MAX];
	int			fd;
	bool		ok;

	snprintf(list, sizeof(list), "%sworktrees", git_repository_commondir(job->repo));
	fd = bc_git_place_dir(AT_FDCWD, list);
	if (fd < 0)
		return bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot open \"%s\"", list);
	ok = bc_git_place_remove(fd, strrchr(job->entry.dir, '/') + 1, problem);
	close(fd);
	/* as git does with the last one */
	rmdir(list);
	return ok;
}

static bool
run(Job *job, BcGitProblem *problem)
{
	int			lock = -1;
	git_oid		oid;
	bool		ok;

	job->repo = bc_git_open(job->project, false, problem);
	if (job->repo == NULL || !find_directory(job, problem))
		return false;
	job->has_entry = bc_git_entry_find(job->repo, job->id, job->path, &job->entry);
	if (job->has_entry)
	{
		lock = bc_git_lock(job->entry.dir);
		if (lock < 0)
			return bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot lock \"%s\"",
										job->entry.dir);
		if (job->entry.ready)
			job->branch = job->entry.branch;
	}
	else if (!job->present)
	{
		/* done by an earlier run whose result was lost */
		bc_git_ref_name(job->archive, sizeof(job->archive), "archive", job->id);
		if (git_reference_name_to_id(&oid, job->repo, job->archive) != 0)
			job->archive[0] = '\0';
	}

	/* what is archived must survive a power cut that the worktree does not */
	git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 1);
	ok = (!job->has_entry && !job->present) || secure(job, problem);
	ok = ok && (!job->present || bc_git_place_remove(job->parent, job->name, problem)) &&
		drop_refs(job, problem) && (!job->has_entry || drop_entry(job, problem));
	git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 0);
	if (lock >= 0)
		close(lock);
	return ok;
}

/* The agents' private directory goes with the worktree, with what lies beside it; there is no work in it. */
static bool
remove_home(Job *job, BcGitProblem *problem)
{
	char		real_root[PATH_MAX];
	char		beside[NAME_MAX + 16];
	const char *below;
	const char *name;
	int			root;
	int			parent = -1;
	bool		gone;

	if (job->home == NULL || !bc_git_place_real(job->root, real_root))
		return true;
	below = bc_git_place_below(job->home, job->root, real_root, problem);
	if (below == NULL)
		return false;
	root = bc_git_place_dir(AT_FDCWD, real_root);
	if (root >= 0)
	{
		parent = bc_git_place_parent(root, below, 0, &name, NULL);
		close(root);
	}
	if (parent < 0)
		return true;			/* it was never made */
	snprintf(beside, sizeof(beside), "%s" BC_SANDBOX_PRIVATE, name);
	gone = bc_git_place_remove(parent, name, problem) && bc_git_place_remove(parent, beside, problem);
	close(parent);
	return gone;
}

json_t *
bc_git_remove(const json_t *order)
{
	Job			job = {.parent = -1};
	BcGitProblem problem = {.message = "out of memory"};
	json_t	   *diff_base = NULL;
	json_t	   *result;
	int			delete_branch = 0;
	bool		ok;

	ok = bc_git_order(order, &problem, "{s:{s:s}, s:{s:s, s:s, s?o}, s:s, s?s, s?b}", "project", "path",
					  &job.project, "worktree", "path", &job.path, "branch", &job.branch,
					  "diff_base", &diff_base, "root", &job.root, "home", &job.home,
					  "delete_branch", &delete_branch) &&
		bc_git_order_id(order, job.id, &problem);
	job.diff_base = json_string_value(diff_base);
	job.delete_branch = delete_branch != 0;
	job.known = json_string_value(json_object_get(json_object_get(order, "worktree"), "snapshot_tree"));
	job.careful = json_is_true(json_object_get(order, "careful"));
	if (ok && run(&job, &problem) && remove_home(&job, &problem))
	{
		result = json_pack("{s:b, s:s?}", "ok", 1, "archived",
						   job.archive[0] != '\0' ? job.archive : NULL);
		if (json_array_size(job.skipped) > 0)
			json_object_set(result, "skipped", job.skipped);
	}
	else
		result = bc_git_problem_json(&problem);
	if (job.parent >= 0)
		close(job.parent);
	json_decref(job.skipped);
	json_decref(job.missed);
	git_repository_free(job.repo);
	return result;
}
