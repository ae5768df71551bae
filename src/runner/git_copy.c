/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_copy.c
 *	  Files that a new worktree gets from the project's checkout.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/git_copy.h"

#define INCLUDE_FILE ".worktreeinclude"
#define MAX_INCLUDE_FILE (64 * 1024)
#define MAX_PATTERNS 1000
#define MAX_FILES 100000
#define MAX_BYTES (1024LL * 1024 * 1024)
#define MAX_SKIPPED 20
#define PIECE (1 << 20)
#define DIRECTORY_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

typedef struct Copy
{
	int			from;			/* the checkout */
	int			to;				/* the worktree */
	json_int_t	files;
	json_int_t	bytes;
	json_t	   *skipped;
} Copy;

static void
skip(Copy *copy, const char *path, const char *why)
{
	if (json_array_size(copy->skipped) < MAX_SKIPPED)
		json_array_append_new(copy->skipped, json_pack("{s:s+, s:s}", "path", path, "", "why", why));
}

/*
 * One pattern in the form that git's pathspecs have: a name without a slash
 * means that name anywhere, as in .gitignore.
 */
static void
add_pattern(json_t *specs, const char *pattern)
{
	size_t		len = strcspn(pattern, "\r\n");
	char	   *spec;

	while (len > 0 && (pattern[len - 1] == ' ' || pattern[len - 1] == '/'))
		len--;
	if (len == 0 || pattern[0] == '#' || pattern[0] == '!' || json_array_size(specs) >= MAX_PATTERNS)
		return;
	if (memchr(pattern, '/', len) == NULL)
	{
		spec = bc_asprintf("*/%.*s", (int) len, pattern);
		json_array_append_new(specs, json_string(spec));
		free(spec);
	}
	spec = bc_asprintf("%.*s", (int) len - (pattern[0] == '/'), pattern + (pattern[0] == '/'));
	json_array_append_new(specs, json_string(spec));
	free(spec);
}

/* The checkout's own list, when it is a file of a sensible size. */
static void
add_include_file(json_t *specs, int checkout)
{
	int			fd = openat(checkout, INCLUDE_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	char	   *text;
	ssize_t		n;

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
	{
		text = bc_alloc(MAX_INCLUDE_FILE + 1);
		n = read(fd, text, MAX_INCLUDE_FILE);
		text[n > 0 ? n : 0] = '\0';
		for (char *line = text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n')
			add_pattern(specs, line);
		free(text);
	}
	close(fd);
}

static git_pathspec *
pathspec(const json_t *patterns, int checkout)
{
	json_t	   *specs = json_array();
	git_strarray strings = {NULL, 0};
	git_pathspec *spec = NULL;
	size_t		index;
	json_t	   *item;

	json_array_foreach((json_t *) patterns, index, item)
	{
		if (json_is_string(item))
			add_pattern(specs, json_string_value(item));
	}
	add_include_file(specs, checkout);
	if (json_array_size(specs) > 0)
	{
		strings.strings = bc_alloc(json_array_size(specs) * sizeof(char *));
		json_array_foreach(specs, index, item)
			strings.strings[strings.count++] = (char *) json_string_value(item);
		if (git_pathspec_new(&spec, &strings) < 0)
			spec = NULL;
		free(strings.strings);
	}
	json_decref(specs);
	return spec;
}

/* Opens the directory of "path" on both sides, making it in the worktree; *name is the rest. */
static bool
open_parents(const Copy *copy, const char *path, int *from, int *to, const char **name)
{
	char	   *parts = bc_strdup(path);
	char	   *part = parts;
	char	   *slash;

	*from = dup(copy->from);
	*to = dup(copy->to);
	while ((slash = strchr(part, '/')) != NULL && *from >= 0 && *to >= 0)
	{
		int			below_from;
		int			below_to = -1;

		*slash = '\0';
		below_from = openat(*from, part, DIRECTORY_FLAGS);
		if (below_from >= 0 && (mkdirat(*to, part, 0777) == 0 || errno == EEXIST))
			below_to = openat(*to, part, DIRECTORY_FLAGS);
		close(*from);
		close(*to);
		*from = below_from;
		*to = below_to;
		part = slash + 1;
	}
	*name = strrchr(path, '/');
	*name = *name != NULL ? *name + 1 : path;
	free(parts);
	return *from >= 0 && *to >= 0;
}

static bool
copy_bytes(int in, int out, int64_t size)
{
	char	   *buffer = NULL;
	ssize_t		n = 1;

	while (size > 0 && (n = copy_file_range(in, NULL, out, NULL, (size_t) size, 0)) > 0)
		size -= n;
	/* Across file systems, and where the kernel or the file system can't. */
	while (size > 0)
	{
		ssize_t		written = 0;

		buffer = buffer != NULL ? buffer : bc_alloc(PIECE);
		n = read(in, buffer, PIECE);
		if (n <= 0 || (written = write(out, buffer, (size_t) n)) != n)
			break;
		size -= n;
	}
	free(buffer);
	/* A file that shrank meanwhile is all there. */
	return size == 0 || n == 0;
}

static const char *
copy_file(Copy *copy, const char *path)
{
	const char *why = NULL;
	const char *name;
	struct stat st;
	int			from;
	int			to;
	int			in = -1;
	int			out = -1;

	if (!open_parents(copy, path, &from, &to, &name))
		why = "its directory can't be opened";
	else if ((in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)) < 0)
		why = errno == ELOOP ? "it is a symbolic link" : strerror(errno);
	else if (fstat(in, &st) < 0 || !S_ISREG(st.st_mode))
		why = "it is no regular file";
	else if (copy->bytes + st.st_size > MAX_BYTES)
		why = "too much is to be copied";
	else if ((out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
						   st.st_mode & 0777)) < 0)
		why = strerror(errno);
	else if (!copy_bytes(in, out, st.st_size))
	{
		why = "it can't be copied";
		(void) unlinkat(to, name, 0);
	}
	else
		copy->bytes += st.st_size;
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return why;
}

static void
copy_matching(Copy *copy, const git_status_list *list, const git_pathspec *spec)
{
	size_t		n = git_status_list_entrycount((git_status_list *) list);

	for (size_t i = 0; i < n && copy->files < MAX_FILES; i++)
	{
		const git_status_entry *entry = git_status_byindex((git_status_list *) list, i);
		const char *path = entry->index_to_workdir != NULL ?
			entry->index_to_workdir->new_file.path : NULL;
		const char *why;

		if (path == NULL || !(entry->status & GIT_STATUS_IGNORED) ||
			!git_pathspec_matches_path(spec, 0, path))
			continue;
		if ((why = copy_file(copy, path)) != NULL)
			skip(copy, path, why);
		else
			copy->files++;
	}
}

json_t *
bc_git_copy_ignored(git_repository *repo, int worktree, const json_t *patterns)
{
	const char *workdir = git_repository_workdir(repo);
	Copy		copy = {-1, worktree, 0, 0, json_array()};
	git_pathspec *spec = NULL;
	git_status_list *list = NULL;
	git_status_options options = GIT_STATUS_OPTIONS_INIT;

	options.show = GIT_STATUS_SHOW_WORKDIR_ONLY;
	options.flags = GIT_STATUS_OPT_INCLUDE_IGNORED | GIT_STATUS_OPT_RECURSE_IGNORED_DIRS |
		GIT_STATUS_OPT_INCLUDE_UNTRACKED | GIT_STATUS_OPT_RECURSE_UNTRACKED_DIRS |
		GIT_STATUS_OPT_EXCLUDE_SUBMODULES | GIT_STATUS_OPT_NO_REFRESH;
	if (workdir != NULL)
		copy.from = open(workdir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (copy.from >= 0)
		spec = pathspec(patterns, copy.from);
	if (spec != NULL && git_status_list_new(&list, repo, &options) == 0)
		copy_matching(&copy, list, spec);
	git_status_list_free(list);
	git_pathspec_free(spec);
	if (copy.from >= 0)
		close(copy.from);
	return json_pack("{s:I, s:I, s:o}", "files", copy.files, "bytes", copy.bytes,
					 "skipped", copy.skipped);
}
