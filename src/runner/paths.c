/* SPDX-License-Identifier: PostgreSQL */
/*
 * paths.c
 *	  Rules about where things may lie.
 */
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/paths.h"
#include "runner/sandbox.h"

bool
bc_paths_is_below(const char *path, const char *base)
{
	size_t		n = strlen(base);

	while (n > 0 && base[n - 1] == '/')
		n--;
	return strncmp(path, base, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

char *
bc_paths_resolve(const char *path)
{
	char	   *copy;
	size_t		n;

	if (path == NULL || path[0] != '/' || strlen(path) >= PATH_MAX ||
		strstr(path, "/../") != NULL ||
		(strlen(path) >= 3 && strcmp(path + strlen(path) - 3, "/..") == 0))
		return NULL;
	copy = bc_strdup(path);
	for (n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	n = strlen(copy);
	for (;;)
	{
		char		real[PATH_MAX];
		char		kept = copy[n];

		copy[n] = '\0';
		if (realpath(n > 0 ? copy : "/", real) != NULL)
		{
			char	   *result;

			copy[n] = kept;
			result = bc_asprintf("%s%s", strcmp(real, "/") == 0 && copy[n] != '\0' ? "" : real,
								 copy + n);
			free(copy);
			return result;
		}
		copy[n] = kept;
		if (n == 0)
			break;
		while (n > 0 && copy[n - 1] != '/')
			n--;
		if (n > 0)
			n--;
	}
	free(copy);
	return NULL;
}

static char *
overlap(const char *root, const char *other, const char *what)
{
	char	   *real = bc_paths_resolve(other);
	char	   *why = NULL;

	if (real != NULL && bc_paths_is_below(root, real))
		why = bc_asprintf("the worktree root \"%s\" lies inside %s \"%s\"", root, what, real);
	else if (real != NULL && bc_paths_is_below(real, root))
		why = bc_asprintf("%s \"%s\" lies inside the worktree root \"%s\"", what, real, root);
	free(real);
	return why;
}

char *
bc_paths_check_root(const char *root, const json_t *forbidden, const char *project)
{
	char	   *real = bc_paths_resolve(root);
	char	   *why = NULL;
	struct stat st;
	size_t		index;
	json_t	   *item;
	int			error;

	if (real == NULL)
		return bc_asprintf("the worktree root \"%s\" is not an absolute path", root ? root : "");
	json_array_foreach((json_t *) forbidden, index, item)
	{
		if (why == NULL && json_is_string(item))
			why = overlap(real, json_string_value(item), "the data directory");
	}
	if (why == NULL && project != NULL)
		why = overlap(real, project, "the project");
	if (why == NULL && (error = bc_sandbox_mkdir(real)) != 0)
		why = bc_asprintf("could not make the worktree root \"%s\": %s", real, strerror(error));
	if (why == NULL && (stat(real, &st) < 0 || !S_ISDIR(st.st_mode)))
		why = bc_asprintf("the worktree root \"%s\" is not a directory", real);
	if (why == NULL && st.st_uid != geteuid())
		why = bc_asprintf("the worktree root \"%s\" belongs to another user", real);
	if (why == NULL && (st.st_mode & 022) != 0)
		why = bc_asprintf("the worktree root \"%s\" is writable by others", real);
	if (why == NULL && access(real, W_OK | X_OK) < 0)
		why = bc_asprintf("the worktree root \"%s\" can't be written: %s", real, strerror(errno));
	free(real);
	return why;
}

static void
expand(json_t *object, const char *key, const char *home)
{
	const char *path = json_string_value(json_object_get(object, key));
	char	   *expanded;

	if (path == NULL || strncmp(path, "~/", 2) != 0)
		return;
	expanded = bc_asprintf("%s%s", home, path + 1);
	json_object_set_new(object, key, json_string(expanded));
	free(expanded);
}

const BcUser *
bc_paths_user(void)
{
	static BcUser user = {"nobody", "/nonexistent"};
	static bool known = false;

	if (!known)
	{
		const struct passwd *entry = getpwuid(geteuid());

		if (entry != NULL && entry->pw_dir != NULL)
		{
			user.name = bc_strdup(entry->pw_name);
			user.home = bc_strdup(entry->pw_dir);
			known = true;
		}
	}
	return &user;
}

void
bc_paths_expand_home(json_t *order)
{
	const char *home = bc_paths_user()->home;
	json_t	   *sandbox = json_object_get(order, "sandbox");

	expand(order, "root", home);
	expand(order, "home", home);
	expand(order, "cwd", home);
	expand(json_object_get(order, "worktree"), "path", home);
	expand(sandbox, "home", home);
	expand(json_object_get(sandbox, "agent_home"), "path", home);
}
