/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_repo.c
 *	  Opening a project's repository; commits and refs in it.
 */
#include "runner/git_repo.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/git_roles.h"

#define MAX_PARENTS 3

bool
bc_git_init(void)
{
	static const git_config_level_t levels[] = {
		GIT_CONFIG_LEVEL_PROGRAMDATA, GIT_CONFIG_LEVEL_SYSTEM,
		GIT_CONFIG_LEVEL_XDG, GIT_CONFIG_LEVEL_GLOBAL
	};
	static bool done = false;

	/*
	 * Extensions that change nothing for us: a repository's own
	 * config.worktree is not needed, an object that a partial clone lacks is
	 * reported when it is missed, objects are never pruned.
	 */
	const char *extensions[] = {
		"worktreeconfig", "partialclone", "preciousobjects", "relativeworktrees"
	};

	if (done)
		return true;
	if (git_libgit2_init() < 0)
		return false;

	/*
	 * A directory that cannot be: with none at all, libgit2 1.5 fails on a
	 * "~/..." in the repository's own configuration.
	 */
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
	{
		if (git_libgit2_opts(GIT_OPT_SET_SEARCH_PATH, levels[i], "/dev/null") < 0)
			return false;
	}
	done = git_libgit2_opts(GIT_OPT_SET_EXTENSIONS, extensions,
							sizeof(extensions) / sizeof(extensions[0])) == 0 &&
		git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 1) == 0 &&
		git_libgit2_opts(GIT_OPT_ENABLE_STRICT_OBJECT_CREATION, 1) == 0 &&
		git_libgit2_opts(GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION, 1) == 0;
	return done;
}

static void
user_name(uid_t uid, char *out, size_t size)
{
	const struct passwd *user = getpwuid(uid);

	if (user != NULL)
		snprintf(out, size, "%s", user->pw_name);
	else
		snprintf(out, size, "uid %ld", (long) uid);
}

static bool
not_owned(const char *path, uid_t uid, BcGitProblem *problem)
{
	char		me[64];
	char		owner[64];

	user_name(geteuid(), me, sizeof(me));
	user_name(uid, owner, sizeof(owner));
	bc_git_problem(problem, BC_GIT_REPOSITORY_NOT_OWNED,
				   "the repository \"%s\" belongs to %s, but the database server runs as %s",
				   path, owner, me);
	return bc_git_problem_hint(problem,
							   "Git refuses repositories of other users, because their configuration is "
							   "not to be trusted.  Give it to the server's user (chown -R %s \"%s\"), or "
							   "register a clone made by that user.  safe.directory does not help: the "
							   "server reads no git configuration but the repository's own.", me, path);
}

/*
 * Is the directory ours?  libgit2 asks, too, but says it in different ways
 * (1.5: that safe.directory was not found), and makes exceptions under sudo.
 */
static bool
is_ours(const char *dir, const char *path, BcGitProblem *problem)
{
	struct stat st;

	return dir == NULL || stat(dir, &st) != 0 || st.st_uid == geteuid() ||
		not_owned(path, st.st_uid, problem);
}

static bool
open_failed(const char *path, BcGitProblem *problem)
{
	char		git_dir[PATH_MAX];

	snprintf(git_dir, sizeof(git_dir), "%s/.git", path);
	if (!is_ours(git_dir, path, problem) ||
		(access(git_dir, F_OK) == 0 && !is_ours(path, path, problem)))
		return false;
	if (access(git_dir, F_OK) == 0 || errno == EACCES)
	{
		bool		readable = access(git_dir, R_OK | X_OK) == 0;

		bc_git_problem_git(problem, "the repository \"%s\" cannot be opened", path);
		problem->reason = BC_GIT_REPOSITORY_UNREADABLE;
		if (!readable)
			bc_git_problem_hint(problem,
								"The user the database server runs as must be able to read and "
								"write the repository and to enter the directories above it.");
		return false;
	}
	bc_git_problem_git(problem, "\"%s\" is not a git repository", path);
	problem->reason = BC_GIT_REPOSITORY_MISSING;
	return bc_git_problem_hint(problem, "Make one there with git init and a first commit, "
							   "or register another path.");
}

static bool
is_directory(const char *path, BcGitProblem *problem)
{
	struct stat st;
	bool		hidden;

	if (path[0] != '/')
		return bc_git_problem(problem, BC_GIT_REPOSITORY_MISSING,
							  "the path \"%s\" is not absolute", path);
	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode) || bc_git_problem(problem, BC_GIT_REPOSITORY_MISSING,
													 "\"%s\" is not a directory", path);
	hidden = errno == EACCES;
	bc_git_problem_errno(problem,
						 hidden ? BC_GIT_REPOSITORY_UNREADABLE : BC_GIT_REPOSITORY_MISSING,
						 "the directory \"%s\" cannot be opened", path);
	if (hidden)
		bc_git_problem_hint(problem, "The user the database server runs as must be able to enter "
							"every directory of that path.");
	return false;
}

git_repository *
bc_git_open(const char *path, bool search, BcGitProblem *problem)
{
	git_repository *repo = NULL;
	struct stat st;

	if (!bc_git_init())
	{
		bc_git_problem_git(problem, "libgit2 cannot be set up");
		return NULL;
	}
	if (!is_directory(path, problem))
		return NULL;
	if (git_repository_open_ext(&repo, path, search ? 0 : GIT_REPOSITORY_OPEN_NO_SEARCH, NULL) != 0)
	{
		open_failed(path, problem);
		return NULL;
	}
	if (!is_ours(git_repository_commondir(repo), path, problem) ||
		!is_ours(git_repository_path(repo), path, problem) ||
		!is_ours(git_repository_workdir(repo), path, problem))
	{
		git_repository_free(repo);
		return NULL;
	}
	if (git_repository_is_bare(repo))
	{
		bc_git_problem(problem, BC_GIT_REPOSITORY_BARE, "the repository \"%s\" is bare: it has no "
					   "checkout that changes could be applied to", path);
		bc_git_problem_hint(problem, "Register a clone of it that has a working tree.");
		git_repository_free(repo);
		return NULL;
	}
	git_repository_set_ident(repo, "boocoder", "boocoder@localhost");

	/*
	 * What we write is as accessible as what is there: the server's own umask
	 * would lock the project's other readers out of new objects and files.
	 */
	if (stat(git_repository_commondir(repo), &st) == 0)
		umask((~st.st_mode & 077) | 002);
	return repo;
}

int
bc_git_lock(const char *path)
{
	int			fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int			status;

	if (fd < 0)
		return -1;
	do
		status = flock(fd, LOCK_EX);
	while (status != 0 && errno == EINTR);

	/*
	 * A file system without locks: go on.  The dispatcher starts one git role
	 * per worktree at a time; the lock is for what it cannot know of.
	 */
	if (status != 0 && errno != ENOLCK && errno != EOPNOTSUPP && errno != ENOSYS)
	{
		close(fd);
		return -1;
	}
	return fd;
}

void
bc_git_ref_name(char *out, size_t size, const char *kind, const char *key)
{
	snprintf(out, size, "refs/boocoder/%s/%s", kind, key);
}

bool
bc_git_file_mode(git_repository *repo)
{
	git_config *config = NULL;
	int			value = 1;

	if (git_repository_config_snapshot(&config, repo) == 0)
		git_config_get_bool(&value, config, "core.filemode");
	git_config_free(config);
	return value != 0;
}

void
bc_git_clear_ref_lock(git_repository *repo, const char *ref)
{
	char		path[PATH_MAX];

	snprintf(path, sizeof(path), "%s%s.lock", git_repository_commondir(repo), ref);
	unlink(path);
}

bool
bc_git_commit_to(git_repository *repo, const char *ref, const git_oid *tree,
				 const git_oid *parents, size_t nparents, const char *message,
				 git_oid *out, BcGitProblem *problem)
{
	git_commit *commits[MAX_PARENTS] = {NULL};
	git_signature *who = NULL;
	git_tree   *content = NULL;
	git_reference *reference = NULL;
	bool		ok;

	ok = git_tree_lookup(&content, repo, tree) == 0 &&
		git_signature_now(&who, "boocoder", "boocoder@localhost") == 0;
	for (size_t i = 0; ok && i < nparents; i++)
		ok = git_commit_lookup(&commits[i], repo, &parents[i]) == 0;
	bc_git_clear_ref_lock(repo, ref);
	/* the qualifiers of the parents differ between versions of libgit2 */
	ok = ok && git_commit_create(out, repo, NULL, who, who, NULL, message, content, nparents,
								 (void *) commits) == 0 &&
		git_reference_create(&reference, repo, ref, out, 1, "boocoder") == 0;
	if (!ok)
		bc_git_problem_git(problem, "cannot write \"%s\"", ref);
	for (size_t i = 0; i < nparents; i++)
		git_commit_free(commits[i]);
	git_reference_free(reference);
	git_signature_free(who);
	git_tree_free(content);
	return ok;
}

bool
bc_git_commit_tree(git_repository *repo, const char *hex, git_oid *oid, git_tree **tree,
				   BcGitProblem *problem)
{
	git_commit *commit = NULL;
	bool		ok;

	if (strlen(hex) != GIT_OID_HEXSZ || git_oid_fromstr(oid, hex) != 0)
		return bc_git_problem(problem, BC_GIT_BASE_NOT_FOUND, "\"%s\" is not a commit id", hex);
	ok = git_commit_lookup(&commit, repo, oid) == 0 &&
		(tree == NULL || git_commit_tree(tree, commit) == 0);
	git_commit_free(commit);
	if (ok)
		return true;
	bc_git_problem_git(problem, "the commit %s is not in the repository", hex);
	problem->reason = BC_GIT_BASE_NOT_FOUND;
	return false;
}

char *
bc_git_entry_head(const BcGitEntry *entry)
{
	char		path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/HEAD", entry->dir);
	return bc_git_read_file(path);
}

bool
bc_git_ref_for(git_repository *repo, const char *kind, const char *key, const git_oid *tree,
			   int max, char *name, size_t size, bool *have, BcGitProblem *problem)
{
	*have = false;
	for (int n = 1; n < max; n++)
	{
		char		numbered[96];
		git_oid		oid;
		git_commit *commit = NULL;
		int			code;

		snprintf(numbered, sizeof(numbered), n == 1 ? "%s" : "%s-%d", key, n);
		bc_git_ref_name(name, size, kind, numbered);
		code = git_reference_name_to_id(&oid, repo, name);
		if (code != 0)
			return code == GIT_ENOTFOUND ||
				bc_git_problem_git(problem, "cannot look for \"%s\"", name);
		*have = git_commit_lookup(&commit, repo, &oid) == 0 &&
			git_oid_equal(git_commit_tree_id(commit), tree);
		git_commit_free(commit);
		if (*have)
			return true;
	}
	return bc_git_problem(problem, BC_GIT_GIT_ERROR, "there is no free name below refs/boocoder/%s for \"%s\"",
						  kind, key);
}
