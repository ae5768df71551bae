/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_repo.c
 *	  Opening repositories, and other things the git roles share.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/git_repo.h"
#include "runner/paths.h"

#define OWNER_HINT \
	"Give the repository to the server's operating system user (chown -R), or clone it as that user."

json_t *
bc_git_fail(const char *reason, const char *hint, const char *format,...)
{
	const git_error *last = git_error_last();
	va_list		args;
	char	   *message;
	json_t	   *result;

	va_start(args, format);
	if (vasprintf(&message, format, args) < 0)
		message = NULL;
	va_end(args);
	result = json_pack("{s:b, s:s, s:s, s:s?, s:s?}", "ok", 0, "reason", reason,
					   "message", message != NULL ? message : format,
					   "detail", last != NULL && last->klass != GIT_ERROR_NONE ? last->message : NULL,
					   "hint", hint);
	free(message);
	return result != NULL ? result :
		json_pack("{s:b, s:s, s:s}", "ok", 0, "reason", reason, "message", "git failed");
}

const char *
bc_git_text(const json_t *order, const char *object, const char *key)
{
	return json_string_value(json_object_get(json_object_get(order, object), key));
}

/* Once: our configuration is the repository's, not that of a user or the system. */
static void
initialise(void)
{
	static bool done = false;

	if (done)
		return;
	done = true;
	git_libgit2_init();
	for (int level = GIT_CONFIG_LEVEL_PROGRAMDATA; level <= GIT_CONFIG_LEVEL_GLOBAL; level++)
		git_libgit2_opts(GIT_OPT_SET_SEARCH_PATH, level, "");
}

static const char *
user_name(uid_t uid)
{
	struct passwd *user = getpwuid(uid);

	return user != NULL ? user->pw_name : "?";
}

static json_t *
explain_open_failure(int error, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0 && (errno == EACCES || errno == EPERM))
		return bc_git_fail("repository_unreadable",
						   "Let the server's operating system user read and write it.",
						   "the server's user \"%s\" can't reach \"%s\"", user_name(geteuid()),
						   path);
	if (error == GIT_EOWNER)
		return bc_git_fail("repository_not_owned", OWNER_HINT,
						   "\"%s\" belongs to \"%s\", the server runs as \"%s\"", path,
						   user_name(st.st_uid), user_name(geteuid()));
	if (access(path, F_OK) == 0 && access(path, R_OK | X_OK) < 0)
		return bc_git_fail("repository_unreadable",
						   "Let the server's operating system user read and write it.",
						   "the server's user \"%s\" can't read \"%s\"", user_name(geteuid()),
						   path);
	if (error == GIT_ENOTFOUND)
		return bc_git_fail("repository_missing", "It must be the top of a git checkout.",
						   "there is no git repository at \"%s\"", path);
	return bc_git_fail("git_error", NULL, "could not open the repository \"%s\"", path);
}

json_t *
bc_git_open_project(const char *path, git_repository **repo)
{
	json_t	   *failure = NULL;
	git_oid		head;
	int			error;

	initialise();
	*repo = NULL;
	if (path == NULL || path[0] != '/')
		return bc_git_fail("repository_missing", NULL, "the project's path is not absolute");
	error = git_repository_open_ext(repo, path, GIT_REPOSITORY_OPEN_NO_SEARCH, NULL);
	if (error < 0)
		return explain_open_failure(error, path);
	if (git_repository_is_bare(*repo))
		failure = bc_git_fail("repository_bare", "Use a checkout.",
							  "the repository \"%s\" has no checkout", path);
	else if (access(git_repository_commondir(*repo), R_OK | W_OK | X_OK) < 0)
		failure = bc_git_fail("repository_unreadable",
							  "Let the server's operating system user read and write it.",
							  "the server's user \"%s\" can't write \"%s\"",
							  user_name(geteuid()), git_repository_commondir(*repo));
	else if (git_reference_name_to_id(&head, *repo, "HEAD") < 0)
		failure = bc_git_fail("repository_empty", "Make a first commit.",
							  "the repository \"%s\" has no commit", path);
	if (failure != NULL)
	{
		git_repository_free(*repo);
		*repo = NULL;
	}
	return failure;
}

int
bc_git_lock(git_repository *repo)
{
	int			fd = open(git_repository_commondir(repo), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	while (fd >= 0 && flock(fd, LOCK_EX) < 0)
	{
		if (errno == EINTR)
			continue;
		close(fd);				/* a file system without locks */
		return -1;
	}
	return fd;
}

char *
bc_git_worktree_name(const char *path)
{
	/* <base>/<cluster>-<database>/worktrees/s<session>: unique in a project that several share */
	const char *parts[3] = {path, path, path};
	size_t		lengths[3] = {0, 0, 0};

	for (const char *at = path; *at != '\0';)
	{
		size_t		len;

		at += strspn(at, "/");
		len = strcspn(at, "/");
		if (len == 0)
			break;
		memmove(&parts[0], &parts[1], 2 * sizeof(parts[0]));
		memmove(&lengths[0], &lengths[1], 2 * sizeof(lengths[0]));
		parts[2] = at;
		lengths[2] = len;
		at += len;
	}
	return bc_asprintf("boocoder-%.*s-%.*s", (int) lengths[0], parts[0], (int) lengths[2], parts[2]);
}

json_t *
bc_git_open_worktree(const json_t *order, git_repository *project, git_repository **repo)
{
	const char *path = bc_git_text(order, "worktree", "path");
	struct stat st;
	char	   *name;
	char	   *admin;
	int			error;

	*repo = NULL;
	if (path == NULL || lstat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return bc_git_fail("worktree_missing", NULL, "the worktree \"%s\" is not there",
						   path != NULL ? path : "");
	name = bc_git_worktree_name(path);
	admin = bc_asprintf("%sworktrees/%s", git_repository_commondir(project), name);
	error = git_repository_open_ext(repo, admin,
									GIT_REPOSITORY_OPEN_NO_SEARCH | GIT_REPOSITORY_OPEN_NO_DOTGIT,
									NULL);
	if (error == 0)
		error = git_repository_set_workdir(*repo, path, 0);
	free(name);
	free(admin);
	if (error == 0)
		return NULL;
	git_repository_free(*repo);
	*repo = NULL;
	return bc_git_fail("worktree_missing", NULL, "could not open the worktree \"%s\"", path);
}

json_t *
bc_git_tree(git_repository *repo, const char *commit, git_tree **tree)
{
	git_commit *object = NULL;
	git_oid		oid;
	int			error = commit != NULL ? git_oid_fromstr(&oid, commit) : -1;

	*tree = NULL;
	if (error == 0)
		error = git_commit_lookup(&object, repo, &oid);
	if (error == 0)
		error = git_commit_tree(tree, object);
	git_commit_free(object);
	if (error == 0)
		return NULL;
	return bc_git_fail("base_not_found", NULL, "commit %s is not in the repository",
					   commit != NULL ? commit : "(none)");
}

json_t *
bc_git_save(git_repository *repo, const char *ref, const git_oid *tree,
			const git_oid *const *parents, size_t nparents, const char *message, char *hex)
{
	const git_commit *commits[2] = {NULL, NULL};
	git_tree   *object = NULL;
	git_signature *who = NULL;
	git_reference *made = NULL;
	git_oid		oid;
	size_t		n = 0;
	int			error = git_tree_lookup(&object, repo, tree);
	int			lock = bc_git_lock(repo);

	for (size_t i = 0; error == 0 && i < nparents && i < 2; i++)
		if (parents[i] != NULL)
			error = git_commit_lookup((git_commit **) &commits[n++], repo, parents[i]);
	if (error == 0)
		error = git_signature_now(&who, "boocoder", "boocoder@localhost");
	if (error == 0)
		error = git_commit_create(&oid, repo, NULL, who, who, NULL, message, object, n, commits);
	if (error == 0)
		error = git_reference_create(&made, repo, ref, &oid, 1, "boocoder");
	git_reference_free(made);
	git_signature_free(who);
	git_tree_free(object);
	git_commit_free((git_commit *) commits[0]);
	git_commit_free((git_commit *) commits[1]);
	if (lock >= 0)
		close(lock);
	if (error < 0)
		return bc_git_fail("git_error", NULL, "could not save to \"%s\"", ref);
	git_oid_tostr(hex, GIT_OID_HEXSZ + 1, &oid);
	return NULL;
}
