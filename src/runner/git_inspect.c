/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_inspect.c
 *	  Role "inspect": what a path is, before it becomes a project, and later
 *	  whether there is more than the database knows of.
 */
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/git_drift.h"
#include "runner/git_place.h"
#include "runner/git_repo.h"
#include "runner/git_roles.h"
#include "runner/git_text.h"

/* Places of the server in or around the repository, checked as for a root. */
static bool
check_places(const char *path, const char *root, const json_t *forbidden, BcGitProblem *problem)
{
	size_t		i;
	json_t	   *item;
	char		real[PATH_MAX];

	json_array_foreach(forbidden, i, item)
	{
		if (!json_is_string(item) || !bc_git_place_real(json_string_value(item), real) ||
			!bc_git_place_nested(path, real))
			continue;
		bc_git_problem(problem, BC_GIT_WORKTREE_ROOT_UNSAFE,
					   "the repository \"%s\" and the server's directory \"%s\" overlap", path, real);
		return bc_git_problem_hint(problem, "A project lies outside of the server's directories.");
	}
	return root == NULL || bc_git_place_check_root(root, forbidden, path, real, problem);
}

static bool
can_write(git_repository *repo)
{
	static const char *const places[] = {"", "objects", "refs"};
	char		path[PATH_MAX];

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
	{
		snprintf(path, sizeof(path), "%s%s", git_repository_commondir(repo), places[i]);
		if (access(path, W_OK | X_OK) != 0)
			return false;
	}
	return access(git_repository_workdir(repo), W_OK | X_OK) == 0;
}

static json_t *
owner_json(const char *path)
{
	struct stat st;
	const struct passwd *user;
	char		text[32];

	if (stat(path, &st) != 0)
		return json_null();
	user = getpwuid(st.st_uid);
	if (user != NULL)
		return bc_git_string_json(user->pw_name);
	snprintf(text, sizeof(text), "%ld", (long) st.st_uid);
	return json_string(text);
}

static json_t *
describe(git_repository *repo, const char *path)
{
	git_reference *head = NULL;
	git_oid		oid;
	char		hex[GIT_OID_HEXSZ + 1] = "";
	json_t	   *branch = json_null();
	json_t	   *result;

	if (git_reference_lookup(&head, repo, "HEAD") == 0 &&
		git_reference_type(head) == GIT_REFERENCE_SYMBOLIC)
	{
		const char *target = git_reference_symbolic_target(head);

		if (strncmp(target, "refs/heads/", 11) == 0)
			branch = bc_git_string_json(target + 11);
	}
	git_reference_free(head);
	if (git_reference_name_to_id(&oid, repo, "HEAD") == 0)
		git_oid_tostr(hex, sizeof(hex), &oid);
	result = json_pack("{s:b, s:o, s:s?, s:o, s:b, s:b, s:o}", "ok", 1,
					   "path", bc_git_string_json(path), "head", hex[0] != '\0' ? hex : NULL,
					   "branch", branch, "bare", 0, "writable", can_write(repo),
					   "owner", owner_json(git_repository_commondir(repo)));
	return result;
}

json_t *
bc_git_inspect(const json_t *order)
{
	BcGitProblem problem = {.message = "out of memory"};
	git_repository *repo = NULL;
	const char *path;
	const char *root = NULL;
	json_t	   *root_json = NULL;
	json_t	   *forbidden = NULL;
	json_t	   *drift = NULL;
	json_t	   *known;
	char		real[PATH_MAX];
	json_t	   *result = NULL;

	if (bc_git_order(order, &problem, "{s:s, s?o, s?o, s?o}", "path", &path, "root", &root_json,
					 "forbidden", &forbidden, "drift", &drift))
	{
		root = json_string_value(root_json);
		repo = bc_git_open(path, true, &problem);
		if (repo != NULL && realpath(git_repository_workdir(repo), real) == NULL)
			bc_git_problem_errno(&problem, BC_GIT_REPOSITORY_UNREADABLE,
								 "the checkout of \"%s\" cannot be found", path);
		else if (repo != NULL && check_places(real, root, forbidden, &problem))
			result = describe(repo, real);
		known = json_object_get(drift, "known");
		if (result != NULL && known != NULL && root != NULL)
			json_object_set_new(result, "drift",
								bc_git_drift(repo, root, known,
											 json_is_true(json_object_get(drift, "look"))));
	}
	if (result == NULL)
		result = bc_git_problem_json(&problem);
	git_repository_free(repo);
	return result;
}
