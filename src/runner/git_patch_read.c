/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_patch_read.c
 *	  Reads patches in git's format.  Anything not understood is an error.
 */
#include "runner/git_patch_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/git_text.h"

#define MAX_LINES 10000000		/* in a hunk; keeps sums far from overflow */

static const char no_memory[] = "out of memory";

/* What is left of the text.  Lines are handed out without their newline. */
typedef struct Reader
{
	const char *at;
	const char *end;
} Reader;

static bool
peek_line(const Reader *reader, BcSpan *line)
{
	const char *newline;

	if (reader->at >= reader->end)
		return false;
	newline = memchr(reader->at, '\n', (size_t) (reader->end - reader->at));
	line->text = reader->at;
	line->length = (size_t) ((newline != NULL ? newline : reader->end) - reader->at);
	return true;
}

static void
next_line(Reader *reader, const BcSpan *line)
{
	reader->at = line->text + line->length;
	if (reader->at < reader->end)
		reader->at++;
}

static bool
starts(const BcSpan *line, const char *prefix, BcSpan *rest)
{
	size_t		length = strlen(prefix);

	if (line->length < length || memcmp(line->text, prefix, length) != 0)
		return false;
	rest->text = line->text + length;
	rest->length = line->length - length;
	return true;
}

static bool
read_mode(const BcSpan *text, unsigned *mode)
{
	*mode = 0;
	if (text->length != 6)
		return false;
	for (size_t i = 0; i < 6; i++)
	{
		if (text->text[i] < '0' || text->text[i] > '7')
			return false;
		*mode = *mode * 8 + (unsigned) (text->text[i] - '0');
	}
	return *mode == 0100644 || *mode == 0100755 || *mode == 0120000 || *mode == 0160000;
}

/* Replaces "*name", which must agree with what was read before. */
static const char *
set_name(char **name, const BcSpan *text, const char *prefix)
{
	const char *end;
	char	   *read = bc_git_unquote(text->text, text->length, &end);
	size_t		length = strlen(prefix);
	bool		same;

	if (read == NULL || strncmp(read, prefix, length) != 0)
	{
		free(read);
		return "a file name cannot be read";
	}
	memmove(read, read + length, strlen(read + length) + 1);
	same = *name == NULL || strcmp(*name, read) == 0;
	if (*name == NULL)
		*name = read;
	else
		free(read);
	return same ? NULL : "its file names contradict each other";
}

/*
 * "a/x b/x": both names are the same unless it is a rename, which names both
 * again.  Unquoted names may hold blanks, so the middle is looked for.
 */
static const char *
read_git_line(BcFilePatch *file, const BcSpan *rest)
{
	const char *end;
	BcSpan		part;

	if (rest->length > 0 && rest->text[0] == '"')
	{
		file->new_path = bc_git_unquote(rest->text, rest->length, &end);
		if (file->new_path == NULL || strncmp(file->new_path, "a/", 2) != 0)
			return "its first line cannot be read";
		memmove(file->new_path, file->new_path + 2, strlen(file->new_path + 2) + 1);
		part.text = end + 1;
		part.length = end < rest->text + rest->length ?
			(size_t) (rest->text + rest->length - part.text) : 0;
		/* of a rename: read from its own lines */
		if (part.length == 0 || set_name(&file->new_path, &part, "b/") != NULL)
		{
			free(file->new_path);
			file->new_path = NULL;
		}
		return NULL;
	}
	/* "a/" + n + " b/" + n */
	if (rest->length >= 7 && rest->length % 2 == 1)
	{
		size_t		n = (rest->length - 5) / 2;

		if (memcmp(rest->text, "a/", 2) == 0 && memcmp(rest->text + 2 + n, " b/", 3) == 0 &&
			memcmp(rest->text + 2, rest->text + 5 + n, n) == 0)
			file->new_path = strndup(rest->text + 2, n);
	}
	return NULL;
}

static const char *
read_index_line(BcFilePatch *file, const BcSpan *rest)
{
	const char *dots = memmem(rest->text, rest->length, "..", 2);
	const char *end = rest->text + rest->length;
	const char *blank;
	BcSpan		mode;

	if (dots == NULL)
		return "its index line cannot be read";
	blank = memchr(dots, ' ', (size_t) (end - dots));
	if (blank == NULL)
		blank = end;
	if (dots - rest->text <= GIT_OID_HEXSZ && blank - dots - 2 <= GIT_OID_HEXSZ)
	{
		snprintf(file->old_oid, sizeof(file->old_oid), "%.*s", (int) (dots - rest->text),
				 rest->text);
		snprintf(file->new_oid, sizeof(file->new_oid), "%.*s", (int) (blank - dots - 2), dots + 2);
	}
	if (blank == end)
		return NULL;
	mode.text = blank + 1;
	mode.length = (size_t) (end - mode.text);
	if (!read_mode(&mode, &file->old_mode))
		return "its mode is none of a file or a link";
	file->new_mode = file->old_mode;
	return NULL;
}

/* "-12,3 " or "+12 "; "*at" moves behind it. */
static bool
read_range(const char **at, const char *end, char sign, size_t *start, size_t *lines)
{
	size_t	   *value = start;

	if (*at >= end || *(*at)++ != sign)
		return false;
	*start = 0;
	*lines = 1;
	for (bool digits = false; *at < end; (*at)++)
	{
		char		c = **at;

		if (c >= '0' && c <= '9')
		{
			*value = *value * 10 + (size_t) (c - '0');
			digits = true;
			if (*value > MAX_LINES)
				return false;
		}
		else if (c == ',' && digits && value == start)
		{
			value = lines;
			*value = 0;
			digits = false;
		}
		else
			return c == ' ' && digits && ++(*at) <= end;
	}
	return false;
}

static const char *
read_hunk(Reader *reader, const BcSpan *line, BcFilePatch *file)
{
	BcHunk		hunk = {0};
	const char *at = line->text + 3;
	const char *end = line->text + line->length;
	size_t		new_start;
	size_t		old_left;
	size_t		new_left;
	BcHunk	   *more;

	if (!read_range(&at, end, '-', &hunk.old_start, &hunk.old_lines) ||
		!read_range(&at, end, '+', &new_start, &hunk.new_lines) || end - at < 2 ||
		memcmp(at, "@@", 2) != 0)
		return "the head of a hunk cannot be read";
	hunk.header.text = line->text;
	hunk.header.length = (size_t) (at + 2 - line->text);
	next_line(reader, line);
	hunk.body.text = reader->at;
	old_left = hunk.old_lines;
	new_left = hunk.new_lines;
	for (BcSpan body; peek_line(reader, &body); next_line(reader, &body))
	{
		char		kind = body.length > 0 ? body.text[0] : ' ';

		if (kind == '\\')
			continue;
		if (old_left == 0 && new_left == 0)
			break;
		if ((kind != ' ' && kind != '-' && kind != '+') || (kind != '+' && old_left == 0) ||
			(kind != '-' && new_left == 0))
			return "a hunk has other lines than its head says";
		old_left -= kind != '+';
		new_left -= kind != '-';
	}
	if (old_left != 0 || new_left != 0)
		return "a hunk is cut off";
	hunk.body.length = (size_t) (reader->at - hunk.body.text);
	more = realloc(file->hunks, (file->nhunks + 1) * sizeof(BcHunk));
	if (more == NULL)
		return no_memory;
	file->hunks = more;
	file->hunks[file->nhunks++] = hunk;
	return NULL;
}

/* One line of a file's head.  "*known" is false when it is none. */
static const char *
read_head_line(BcFilePatch *file, const BcSpan *line, bool *known)
{
	BcSpan		rest;
	const char *bad_mode = "its mode is none of a file or a link";

	*known = true;
	if (starts(line, "old mode ", &rest))
		return read_mode(&rest, &file->old_mode) ? NULL : bad_mode;
	if (starts(line, "new mode ", &rest))
		return read_mode(&rest, &file->new_mode) ? NULL : bad_mode;
	if (starts(line, "deleted file mode ", &rest))
	{
		file->is_delete = true;
		return read_mode(&rest, &file->old_mode) ? NULL : bad_mode;
	}
	if (starts(line, "new file mode ", &rest))
	{
		file->is_new = true;
		return read_mode(&rest, &file->new_mode) ? NULL : bad_mode;
	}
	if (starts(line, "similarity index ", &rest) || starts(line, "dissimilarity index ", &rest))
		return NULL;
	if (starts(line, "rename from ", &rest))
	{
		file->is_rename = true;
		return set_name(&file->old_path, &rest, "");
	}
	if (starts(line, "rename to ", &rest))
		return set_name(&file->new_path, &rest, "");
	if (starts(line, "index ", &rest))
		return read_index_line(file, &rest);
	if (starts(line, "--- /dev/null", &rest) || starts(line, "+++ /dev/null", &rest))
		return NULL;
	if (starts(line, "--- ", &rest))
		return set_name(file->is_rename ? &file->old_path : &file->new_path, &rest, "a/");
	if (starts(line, "+++ ", &rest))
		return set_name(&file->new_path, &rest, "b/");
	*known = false;
	return NULL;
}

static const char *
read_file(Reader *reader, const BcSpan *first, BcFilePatch *file)
{
	BcSpan		line = *first;
	const char *error;

	error = read_git_line(file, &(BcSpan) {line.text + 11, line.length - 11});
	next_line(reader, &line);
	for (bool known = true; error == NULL && peek_line(reader, &line);)
	{
		error = read_head_line(file, &line, &known);
		if (!known)
			break;
		next_line(reader, &line);
	}
	while (error == NULL && peek_line(reader, &line))
	{
		BcSpan		rest;

		if (starts(&line, "@@ ", &rest))
			error = read_hunk(reader, &line, file);
		else if (starts(&line, "GIT binary patch", &rest) && file->nhunks == 0)
		{
			/* libgit2 reads it; it goes on to the next file or the end */
			file->binary.text = line.text;
			while (peek_line(reader, &line) && !starts(&line, "diff --git ", &rest))
				next_line(reader, &line);
			file->binary.length = (size_t) (reader->at - file->binary.text);
			break;
		}
		else if (starts(&line, "diff --git ", &rest))
			break;
		else if (line.length != 0)
			return "it has a line that is no part of a patch";
		else
			next_line(reader, &line);
	}
	if (error == NULL && file->new_path == NULL)
		error = "it does not name its file";
	if (error == NULL && file->is_rename && (file->is_new || file->is_delete ||
											 file->old_path == NULL))
		error = "it is a rename and something else";
	if (error == NULL && file->is_new && file->is_delete)
		error = "it adds and deletes the same file";
	if (error == NULL && file->old_path == NULL && (file->old_path = strdup(file->new_path)) == NULL)
		error = no_memory;
	return error;
}

const char *
bc_git_patch_read(const char *text, size_t length, BcPatch *patch)
{
	Reader		reader = {text, text + length};
	BcSpan		line;
	const char *error = NULL;

	*patch = (BcPatch) {0};
	while (error == NULL && peek_line(&reader, &line))
	{
		BcSpan		rest;
		BcFilePatch *more;

		if (!starts(&line, "diff --git ", &rest))
			return "it does not begin with \"diff --git\"";
		more = realloc(patch->files, (patch->nfiles + 1) * sizeof(BcFilePatch));
		if (more == NULL)
			return no_memory;
		patch->files = more;
		patch->files[patch->nfiles] = (BcFilePatch) {0};
		error = read_file(&reader, &line, &patch->files[patch->nfiles++]);
	}
	if (error == NULL && patch->nfiles == 0)
		error = "it is empty";
	return error;
}

void
bc_git_patch_free(BcPatch *patch)
{
	for (size_t i = 0; i < patch->nfiles; i++)
	{
		free(patch->files[i].old_path);
		free(patch->files[i].new_path);
		free(patch->files[i].hunks);
	}
	free(patch->files);
	*patch = (BcPatch) {0};
}
