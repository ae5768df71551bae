/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_drift.c
 *	  Worktrees without a row.  See git_drift.h.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner/git_drift.h"
#include "runner/git_place.h"
#include "runner/git_repo.h"
#include "runner/git_text.h"

#define MAX_LISTED 20
#define WORKTREES "worktrees"

typedef struct Drift
{
	json_t	   *known;			/* set of real paths */
	json_t	   *entries;
	json_t	   *directories;
	json_int_t	more;
} Drift;

static void
list(Drift *drift, json_t *array, json_t *item)
{
	if (json_array_size(array) < MAX_LISTED)
		json_array_append_new(array, item);
	else
	{
		json_decref(item);
		drift->more++;
	}
}

static bool
is_known(const Drift *drift, const char *path)
{
	char		real[PATH_MAX];

	return json_object_get(drift->known, bc_git_real_path(path, real) ? real : path) != NULL;
}

/* p<project>-<eight hexadecimal digits>: holds the worktrees of one owner in one project. */
static bool
is_folder(const char *name)
{
	size_t		n = strspn(name + 1, "0123456789");

	return name[0] == 'p' && n > 0 && name[1 + n] == '-' &&
		strspn(name + 2 + n, "0123456789abcdef") == 8 && name[10 + n] == '\0';
}

static void
look_below(Drift *drift, const char *path, bool folders)
{
	int			fd = bc_git_place_dir(AT_FDCWD, path);
	DIR		   *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *item;

	if (dir == NULL)
	{
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((item = readdir(dir)) != NULL)
	{
		char		below[PATH_MAX];

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0 ||
			snprintf(below, sizeof(below), "%s/%s", path, item->d_name) >= (int) sizeof(below))
			continue;
		if (folders && is_folder(item->d_name))
			look_below(drift, below, false);
		else if (!is_known(drift, below))
			list(drift, drift->directories, bc_git_string_json(below));
	}
	closedir(dir);
}

static void
look_at_entry(Drift *drift, const char *entries, const char *name, const char *root)
{
	char		entry[PATH_MAX + NAME_MAX + 2];
	char		real[PATH_MAX];
	char	   *path;
	size_t		length = strlen(root);

	snprintf(entry, sizeof(entry), "%s/%s", entries, name);
	path = bc_git_entry_leads_to(entry);
	if (path == NULL)
		return;
	if (!bc_git_place_real(path, real))
		snprintf(real, sizeof(real), "%s", path);
	/* one that lies elsewhere is another database's */
	if (strncmp(real, root, length) == 0 && real[length] == '/' && !is_known(drift, real))
		list(drift, drift->entries, json_pack("{s:o, s:o}", "name", bc_git_string_json(name),
											  "path", bc_git_string_json(real)));
	free(path);
}

json_t *
bc_git_drift(git_repository *repo, const char *root, const json_t *known, bool look)
{
	Drift		drift = {json_object(), json_array(), json_array(), 0};
	char		real_root[PATH_MAX];
	char		path[PATH_MAX];
	DIR		   *dir;
	struct dirent *item;
	size_t		i;
	json_t	   *value;

	json_array_foreach(known, i, value)
		if (json_is_string(value))
			json_object_set_new(drift.known, bc_git_real_path(json_string_value(value), path) ?
								path : json_string_value(value), json_true());
	if (bc_git_place_real(root, real_root))
	{
		if (look && snprintf(path, sizeof(path), "%s/" WORKTREES, real_root) < (int) sizeof(path))
			look_below(&drift, path, true);
		if (snprintf(path, sizeof(path), "%s" WORKTREES, git_repository_commondir(repo)) < (int) sizeof(path) &&
			(dir = opendir(path)) != NULL)
		{
			while ((item = readdir(dir)) != NULL)
				if (strncmp(item->d_name, BC_GIT_ENTRY_PREFIX, strlen(BC_GIT_ENTRY_PREFIX)) == 0)
					look_at_entry(&drift, path, item->d_name, real_root);
			closedir(dir);
		}
	}
	json_decref(drift.known);
	return json_pack("{s:o, s:o, s:I}", "entries", drift.entries, "directories", drift.directories,
					 "more", drift.more);
}
