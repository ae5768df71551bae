/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_worktree.c
 *	  Roles "worktree" and "inspect".
 *
 * A worktree is made where the row says, and found again there.  Something in
 * its place that is not the worktree is moved aside, never deleted.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/paths.h"
#include "runner/sandbox.h"

#define MAX_BRANCH_TRIES 1000

/* The commit a new worktree begins with. */
static json_t *
find_base(git_repository *repo, const json_t *order, git_commit **base)
{
	const char *commit = bc_git_text(order, "worktree", "base_commit");
	const char *ref = bc_git_text(order, "worktree", "base_ref");
	const char *wanted = commit != NULL ? commit : ref != NULL ? ref : "HEAD";
	git_object *object = NULL;
	git_object *peeled = NULL;
	int			error = git_revparse_single(&object, repo, wanted);

	if (error < 0 && commit == NULL && ref != NULL)
	{
		char	   *remote = bc_asprintf("refs/remotes/origin/%s", ref);

		error = git_revparse_single(&object, repo, remote);
		free(remote);
	}
	if (error == 0)
		error = git_object_peel(&peeled, object, GIT_OBJECT_COMMIT);
	git_object_free(object);
	*base = (git_commit *) peeled;
	if (error == 0)
		return NULL;
	return bc_git_fail("base_not_found", "Set the project's base_branch to one that exists.",
					   "there is no commit \"%s\" to begin with", wanted);
}

/* Is it checked out in some worktree, or the main checkout? */
static bool
in_use(const git_reference *branch)
{
	return git_branch_is_checked_out(branch) == 1;
}

/*
 * The branch of the worktree.  One of that name that is free and ours (the row
 * knows a base already) is used again; otherwise a name that is free is found.
 */
static json_t *
make_branch(git_repository *repo, const json_t *order, const git_commit *base,
			git_reference **branch)
{
	const char *wanted = bc_git_text(order, "worktree", "branch");
	bool		again = bc_git_text(order, "worktree", "base_commit") != NULL;

	if (again && git_branch_lookup(branch, repo, wanted, GIT_BRANCH_LOCAL) == 0)
	{
		if (!in_use(*branch))
			return NULL;
		git_reference_free(*branch);
	}
	for (int i = 1; i < MAX_BRANCH_TRIES; i++)
	{
		char	   *name = i == 1 ? bc_strdup(wanted) : bc_asprintf("%s-%d", wanted, i);
		int			error = git_branch_create(branch, repo, name, base, 0);

		free(name);
		if (error == 0)
			return NULL;
		if (error != GIT_EEXISTS)
			break;
	}
	return bc_git_fail("git_error", NULL, "could not create the branch \"%s\"", wanted);
}

static json_t *
move_aside(const char *path)
{
	char	   *aside = bc_asprintf("%s.found-%lld", path, (long long) time(NULL));
	json_t	   *failure = NULL;

	if (rename(path, aside) < 0)
		failure = bc_git_fail("path_occupied", NULL, "\"%s\" is in the way: %s", path,
							  strerror(errno));
	free(aside);
	return failure;
}

/* Opens the worktree if it is whole. */
static bool
is_there(const json_t *order, git_repository *project, const char *name)
{
	git_repository *repo = NULL;
	git_worktree *worktree = NULL;
	json_t	   *failure = bc_git_open_worktree(order, project, &repo);
	git_index  *index = NULL;
	bool		found = failure == NULL &&
		git_worktree_lookup(&worktree, project, name) == 0 &&
		git_repository_index(&index, repo) == 0 &&
		access(git_index_path(index), F_OK) == 0;

	json_decref(failure);
	git_index_free(index);
	git_worktree_free(worktree);
	git_repository_free(repo);
	return found;
}

/* What a run that was killed, or somebody with rm, left of the worktree. */
static json_t *
clear_remains(git_repository *project, const char *name, const char *path)
{
	git_worktree_prune_options options = GIT_WORKTREE_PRUNE_OPTIONS_INIT;
	git_worktree *worktree = NULL;
	struct stat st;
	json_t	   *failure = NULL;

	if (lstat(path, &st) == 0)
		failure = move_aside(path);
	if (failure == NULL && git_worktree_lookup(&worktree, project, name) == 0)
	{
		options.flags = GIT_WORKTREE_PRUNE_VALID | GIT_WORKTREE_PRUNE_LOCKED;
		if (git_worktree_prune(worktree, &options) < 0)
			failure = bc_git_fail("git_error", NULL, "could not prune the worktree \"%s\"", name);
	}
	git_worktree_free(worktree);
	return failure;
}

static json_t *
make_parent(const char *path)
{
	char	   *parent = bc_asprintf("%.*s", (int) (strrchr(path, '/') - path), path);
	int			error = bc_sandbox_mkdir(parent);

	free(parent);
	if (error == 0)
		return NULL;
	return bc_git_fail("worktree_root_unwritable", NULL, "could not make the directory of \"%s\": %s",
					   path, strerror(error));
}

static json_t *
make(git_repository *project, const json_t *order, const char *name, const char *path)
{
	git_worktree_add_options options = GIT_WORKTREE_ADD_OPTIONS_INIT;
	git_commit *base = NULL;
	git_reference *branch = NULL;
	git_worktree *worktree = NULL;
	json_t	   *failure = make_parent(path);
	int			lock = bc_git_lock(project);

	if (failure == NULL)
		failure = clear_remains(project, name, path);
	if (failure == NULL)
		failure = find_base(project, order, &base);
	if (failure == NULL)
		failure = make_branch(project, order, base, &branch);
	options.ref = branch;
	if (failure == NULL && git_worktree_add(&worktree, project, name, path, &options) < 0)
		failure = bc_git_fail("git_error", NULL, "could not make the worktree \"%s\"", path);
	git_worktree_free(worktree);
	git_reference_free(branch);
	git_commit_free(base);
	if (lock >= 0)
		close(lock);
	return failure;
}

/* What the row is to know of the worktree. */
static json_t *
describe(git_repository *project, const json_t *order, const char *name, bool created)
{
	const char *given = bc_git_text(order, "worktree", "base_commit");
	git_repository *repo = NULL;
	git_reference *head = NULL;
	git_oid		oid;
	char		hex[GIT_OID_HEXSZ + 1];
	json_t	   *failure = bc_git_open_worktree(order, project, &repo);
	json_t	   *result = NULL;

	if (failure == NULL && (git_repository_head(&head, repo) < 0 ||
							git_reference_name_to_id(&oid, repo, "HEAD") < 0))
		failure = bc_git_fail("git_error", NULL, "the worktree has no HEAD");
	if (failure == NULL)
	{
		char	   *git_dir = bc_strdup(git_repository_commondir(project));
		char	   *admin = bc_asprintf("%sworktrees/%s", git_dir, name);

		git_oid_tostr(hex, sizeof(hex), &oid);
		if (git_dir[0] != '\0' && git_dir[strlen(git_dir) - 1] == '/')
			git_dir[strlen(git_dir) - 1] = '\0';
		result = json_pack("{s:b, s:b, s:s, s:s, s:s, s:s, s:s}", "ok", 1, "created", created,
						   "path", bc_git_text(order, "worktree", "path"),
						   "branch", git_reference_shorthand(head),
						   "base_commit", given != NULL ? given : hex,
						   "git_dir", git_dir, "admin_dir", admin);
		free(git_dir);
		free(admin);
	}
	git_reference_free(head);
	git_repository_free(repo);
	return failure != NULL ? failure : result;
}

json_t *
bc_git_worktree(const json_t *order)
{
	const char *project_path = bc_git_text(order, "project", "path");
	const char *path = bc_git_text(order, "worktree", "path");
	const char *root = json_string_value(json_object_get(order, "root"));
	git_repository *project = NULL;
	json_t	   *result = bc_git_open_project(project_path, &project);
	char	   *why = NULL;
	char	   *name = NULL;
	bool		created = false;

	if (result == NULL &&
		(why = bc_paths_check_root(root, json_object_get(order, "forbidden"),
								   project_path)) != NULL)
		result = bc_git_fail("worktree_root_unsafe", "See boocoder.worktree_root.", "%s", why);
	if (result == NULL && (path == NULL || !bc_paths_is_below(path, root) ||
						   strlen(path) == strlen(root)))
		result = bc_git_fail("worktree_root_unsafe", NULL,
							 "the worktree does not lie below its root");
	if (result == NULL)
	{
		name = bc_git_worktree_name(path);
		if (!is_there(order, project, name))
		{
			result = make(project, order, name, path);
			created = true;
		}
	}
	if (result == NULL)
		result = describe(project, order, name, created);
	free(name);
	free(why);
	git_repository_free(project);
	return result;
}

json_t *
bc_git_inspect(const json_t *order)
{
	const char *path = json_string_value(json_object_get(order, "path"));
	git_repository *repo = NULL;
	json_t	   *result = bc_git_open_project(path, &repo);
	json_t	   *forbidden = json_object_get(order, "forbidden");
	char	   *real = NULL;
	size_t		index;
	json_t	   *item;

	if (result != NULL)
		return result;
	real = bc_paths_resolve(git_repository_workdir(repo));
	json_array_foreach(forbidden, index, item)
	{
		char	   *place = bc_paths_resolve(json_string_value(item));

		if (result == NULL && place != NULL && real != NULL && bc_paths_is_below(real, place))
			result = bc_git_fail("repository_unreadable", "Move it elsewhere.",
								 "\"%s\" lies inside the data directory", real);
		free(place);
	}
	if (result == NULL)
	{
		git_reference *head = NULL;
		git_oid		oid;
		char		hex[GIT_OID_HEXSZ + 1] = "";
		struct stat st;
		struct passwd *owner = stat(real, &st) == 0 ? getpwuid(st.st_uid) : NULL;

		(void) git_repository_head(&head, repo);
		if (git_reference_name_to_id(&oid, repo, "HEAD") == 0)
			git_oid_tostr(hex, sizeof(hex), &oid);
		result = json_pack("{s:b, s:s, s:s, s:s?, s:b, s:b, s:s?}", "ok", 1, "path", real,
						   "head", hex, "branch",
						   head != NULL ? git_reference_shorthand(head) : NULL,
						   "bare", 0, "writable", access(real, W_OK) == 0,
						   "owner", owner != NULL ? owner->pw_name : NULL);
		git_reference_free(head);
	}
	free(real);
	git_repository_free(repo);
	return result;
}
