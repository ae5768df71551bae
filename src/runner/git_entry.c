/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_entry.c
 *	  Entries of worktrees in a repository, and their small files.  See git_repo.h.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/git_repo.h"

#define DOT_GIT "/.git"
#define READY_FILE "boocoder"	/* in the entry, written last */
#define SMALL_FILE 65536

char *
bc_git_read_file(const char *path)
{
	/* not blocking: what is not a regular file is not read */
	int			fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	char	   *text = NULL;
	ssize_t		got = -1;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < SMALL_FILE)
	{
		text = malloc(SMALL_FILE);
		if (text != NULL)
			got = read(fd, text, SMALL_FILE - 1);
	}
	close(fd);
	if (got < 0)
	{
		free(text);
		return NULL;
	}
	if (got > 0 && text[got - 1] == '\n')
		got--;
	text[got] = '\0';
	return text;
}

bool
bc_git_write_file(const char *path, const char *text)
{
	char		temp[PATH_MAX + 64];
	size_t		length = strlen(text);
	int			fd;
	bool		ok;

	snprintf(temp, sizeof(temp), "%s.new", path);
	unlink(temp);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return false;
	ok = write(fd, text, length) == (ssize_t) length && fsync(fd) == 0;
	ok = close(fd) == 0 && ok;
	if (ok && rename(temp, path) == 0)
		return true;
	unlink(temp);
	return false;
}

bool
bc_git_real_path(const char *path, char *out)
{
	char		parent[PATH_MAX];
	char		real[PATH_MAX];
	const char *slash = strrchr(path, '/');

	if (slash == NULL || slash[1] == '\0' || (size_t) (slash - path) >= sizeof(parent))
		return false;
	snprintf(parent, sizeof(parent), "%.*s", (int) (slash - path), path);
	if (realpath(slash == path ? "/" : parent, real) == NULL)
		return false;
	return snprintf(out, PATH_MAX, "%s%s", strcmp(real, "/") == 0 ? "" : real, slash) < PATH_MAX;
}

bool
bc_git_entry_path(git_repository *repo, const char *key, char *out)
{
	return snprintf(out, PATH_MAX, "%sworktrees/" BC_GIT_ENTRY_PREFIX "%s",
					git_repository_commondir(repo), key) < PATH_MAX - 32;
}

void
bc_git_entry_load(BcGitEntry *entry)
{
	char		path[PATH_MAX + 32];
	char		hex[GIT_OID_HEXSZ + 1];
	char	   *text;

	snprintf(path, sizeof(path), "%s/" READY_FILE, entry->dir);
	text = bc_git_read_file(path);
	entry->ready = text != NULL && sscanf(text, "base %40s branch %255s", hex, entry->branch) == 2 &&
		git_oid_fromstr(&entry->base, hex) == 0;
	free(text);
}

bool
bc_git_entry_set_ready(const BcGitEntry *entry, BcGitProblem *problem)
{
	char		path[PATH_MAX + 32];
	char		text[GIT_OID_HEXSZ + BC_GIT_BRANCH_MAX + 32];
	char		hex[GIT_OID_HEXSZ + 1];

	snprintf(path, sizeof(path), "%s/" READY_FILE, entry->dir);
	snprintf(text, sizeof(text), "base %s\nbranch %s\n",
			 git_oid_tostr(hex, sizeof(hex), &entry->base), entry->branch);
	return bc_git_write_file(path, text) ||
		bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "cannot write \"%s\"", path);
}

/* Is this the name of an entry of worktree "id": boocoder-<id>, or that with -<n>? */
static bool
is_name_of(const char *name, const char *id)
{
	size_t		length = strlen(id);

	if (strncmp(name, BC_GIT_ENTRY_PREFIX, strlen(BC_GIT_ENTRY_PREFIX)) != 0)
		return false;
	name += strlen(BC_GIT_ENTRY_PREFIX);
	if (strlen(name) >= sizeof(((BcGitEntry *) NULL)->key) || strncmp(name, id, length) != 0)
		return false;
	name += length;
	return *name == '\0' ||
		(*name == '-' && name[1] != '\0' && name[1 + strspn(name + 1, "0123456789")] == '\0');
}

char *
bc_git_entry_leads_to(const char *dir)
{
	char		link[PATH_MAX + NAME_MAX + 16];
	char	   *path;
	size_t		length;

	snprintf(link, sizeof(link), "%s/gitdir", dir);
	path = bc_git_read_file(link);
	length = path != NULL ? strlen(path) : 0;
	if (length > strlen(DOT_GIT) && strcmp(path + length - strlen(DOT_GIT), DOT_GIT) == 0)
		path[length - strlen(DOT_GIT)] = '\0';
	return path;
}

static bool
leads_to(const BcGitEntry *entry, const char *real)
{
	char	   *path = bc_git_entry_leads_to(entry->dir);
	bool		same = path != NULL && strcmp(path, real) == 0;

	free(path);
	return same;
}

bool
bc_git_entry_find(git_repository *repo, const char *id, const char *path, BcGitEntry *entry)
{
	char		real[PATH_MAX];
	char		list[PATH_MAX];
	DIR		   *dir;
	struct dirent *item;
	bool		found = false;

	memset(entry, 0, sizeof(*entry));
	snprintf(list, sizeof(list), "%sworktrees", git_repository_commondir(repo));
	if (!bc_git_real_path(path, real) || (dir = opendir(list)) == NULL)
		return false;
	while (!found && (item = readdir(dir)) != NULL)
	{
		if (!is_name_of(item->d_name, id))
			continue;
		snprintf(entry->key, sizeof(entry->key), "%s", item->d_name + strlen(BC_GIT_ENTRY_PREFIX));
		found = bc_git_entry_path(repo, entry->key, entry->dir) && leads_to(entry, real);
	}
	closedir(dir);
	if (found)
		bc_git_entry_load(entry);
	return found;
}
