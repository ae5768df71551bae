/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_assess.c
 *	  Role "assess": is there anything in a worktree that would be missed, and
 *	  how large is it?  Changes nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/git_assess.h"
#include "runner/git_roles.h"
#include "runner/git_snapshot.h"
#include "runner/git_text.h"
#include "runner/git_unpushed.h"
#include "runner/regain.h"

#define MAX_LISTED 20
#define MAX_ENTRIES 1000000		/* files counted for the size */
#define MAX_DEPTH 200
#define BLOCK 512				/* of st_blocks */

static bool
add_dirty(json_t *facts, git_repository *repo, const git_oid *tree, const json_t *missed,
		  const char *known, BcGitProblem *problem)
{
	json_t	   *list = json_array();
	git_tree   *now = NULL;
	git_tree   *then = NULL;
	git_diff   *diff = NULL;
	git_oid		oid;
	size_t		n = json_array_size(missed);
	bool		ok;

	json_object_set_new(facts, "dirty", list);
	for (size_t i = 0; i < n && i < MAX_LISTED; i++)
		json_array_append(list, json_array_get(missed, i));
	ok = git_oid_fromstr(&oid, known) == 0 &&
		git_tree_lookup(&now, repo, tree) == 0 && git_tree_lookup(&then, repo, &oid) == 0 &&
		git_diff_tree_to_tree(&diff, repo, then, now, NULL) == 0;
	if (!ok)
		bc_git_problem_git(problem, "the content of the worktree cannot be compared");
	for (size_t i = 0; ok && i < git_diff_num_deltas(diff); i++)
	{
		const git_diff_delta *delta = git_diff_get_delta(diff, i);

		/* of a submodule, the files in its directory are what would be missed */
		if (delta->status == GIT_DELTA_DELETED && delta->old_file.mode == GIT_FILEMODE_COMMIT)
			continue;
		n++;
		if (json_array_size(list) < MAX_LISTED)
			json_array_append_new(list, bc_git_path_json(delta->new_file.path));
	}
	json_object_set_new(facts, "dirty_count", json_integer((json_int_t) n));
	git_diff_free(diff);
	git_tree_free(now);
	git_tree_free(then);
	return ok;
}

json_t *
bc_git_assess_facts(git_repository *repo, const BcGitEntry *entry, const git_oid *tree,
					const json_t *missed, const char *known, BcGitProblem *problem)
{
	json_t	   *facts = json_object();
	json_t	   *unpushed = json_array();
	size_t		count;

	json_object_set_new(facts, "unpushed", unpushed);
	if (!add_dirty(facts, repo, tree, missed, known, problem) ||
		!bc_git_unpushed(repo, entry, unpushed, &count, problem))
	{
		json_decref(facts);
		return NULL;
	}
	json_object_set_new(facts, "unpushed_count", json_integer((json_int_t) count));
	return facts;
}

/* Bytes on disk below "dir", which is closed; what can't be read counts nothing. */
static void
add_size(int dir, dev_t device, int depth, size_t *entries, long long *bytes)
{
	DIR		   *list = fdopendir(dir);
	struct dirent *item;

	if (list == NULL)
	{
		close(dir);
		return;
	}
	while (*entries < MAX_ENTRIES && (item = readdir(list)) != NULL)
	{
		struct stat st;
		int			below;

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0 ||
			fstatat(dirfd(list), item->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
			st.st_dev != device)
			continue;
		++*entries;
		*bytes += (long long) st.st_blocks * BLOCK;
		if (!S_ISDIR(st.st_mode) || depth >= MAX_DEPTH)
			continue;
		below = bc_regain_dir(dirfd(list), item->d_name, X_OK);
		if (below >= 0)
			add_size(below, device, depth + 1, entries, bytes);
	}
	closedir(list);
}

static long long
size_of(int directory)
{
	int			copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t		entries = 0;
	long long	bytes = 0;
	struct stat st;

	if (copy < 0 || fstat(copy, &st) != 0)
		return 0;
	add_size(copy, st.st_dev, 0, &entries, &bytes);
	return bytes;
}

static json_t *
assess(git_repository *repo, const BcGitEntry *entry, const char *project, const char *path,
	   const char *diff_base, const char *known, BcGitProblem *problem)
{
	BcSnapshotOptions options = {
		.project = project, .path = path, .entry_dir = entry->dir, .max_file = BC_GIT_ANY_FILE,
		.unfold_gitlinks = true
	};
	BcSnapshot	snapshot = {.skipped = NULL};
	char		hex[GIT_OID_HEXSZ + 1];
	git_tree   *base = NULL;
	git_oid		commit;
	json_t	   *facts = NULL;

	if (!bc_git_commit_tree(repo, diff_base, &commit, &base, problem))
		return NULL;
	options.base = base;
	if (bc_git_snapshot(&options, &snapshot, problem))
		facts = bc_git_assess_facts(repo, entry, &snapshot.tree, snapshot.missed,
									known != NULL ? known :
									git_oid_tostr(hex, sizeof(hex), git_tree_id(base)), problem);
	bc_git_snapshot_free(&snapshot);
	git_tree_free(base);
	return facts;
}

static json_t *
run(git_repository *repo, const char *id, const char *project, const char *path,
	const char *diff_base, const char *known, BcGitProblem *problem)
{
	BcGitEntry	entry;
	char		real[PATH_MAX];
	int			directory = bc_git_real_path(path, real) ? bc_regain_dir(AT_FDCWD, real, X_OK) : -1;
	int			lock = -1;
	json_t	   *result = NULL;

	if (directory < 0 && (errno == ENOENT || errno == ENOTDIR))
		return json_pack("{s:b, s:b, s:i}", "ok", 1, "missing", 1, "size_bytes", 0);
	if (directory < 0)
		bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "the worktree \"%s\" cannot be read", path);
	else if (!bc_git_entry_find(repo, id, path, &entry) || !entry.ready)
		bc_git_problem(problem, BC_GIT_WORKTREE_MISSING,
					   "the repository \"%s\" knows no worktree at \"%s\"", project, path);
	else if ((lock = bc_git_lock(entry.dir)) < 0)
		bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot lock \"%s\"", entry.dir);
	else
		result = assess(repo, &entry, project, path, diff_base, known, problem);
	if (result != NULL)
	{
		json_object_set_new(result, "ok", json_true());
		json_object_set_new(result, "missing", json_false());
		json_object_set_new(result, "size_bytes", json_integer(size_of(directory)));
	}
	if (lock >= 0)
		close(lock);
	if (directory >= 0)
		close(directory);
	return result;
}

json_t *
bc_git_assess(const json_t *order)
{
	BcGitProblem problem = {.message = "out of memory"};
	git_repository *repo = NULL;
	const char *project;
	const char *path;
	const char *diff_base;
	json_t	   *known = NULL;
	char		id[64];
	json_t	   *result = NULL;

	if (bc_git_order(order, &problem, "{s:{s:s}, s:{s:s, s:s, s?o}}", "project", "path", &project,
					 "worktree", "path", &path, "diff_base", &diff_base, "snapshot_tree", &known) &&
		bc_git_order_id(order, id, &problem) &&
		(repo = bc_git_open(project, false, &problem)) != NULL)
		result = run(repo, id, project, path, diff_base, json_string_value(known), &problem);
	if (result == NULL)
		result = bc_git_problem_json(&problem);
	git_repository_free(repo);
	return result;
}
