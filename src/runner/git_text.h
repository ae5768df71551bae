/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_text.h
 *	  Texts and path names at the border between git (bytes) and JSON (UTF-8).
 *	  Pure functions, no I/O.
 */
#ifndef BC_RUNNER_GIT_TEXT_H
#define BC_RUNNER_GIT_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "runner/dotgit.h"

/* Length of the longest prefix that is valid UTF-8 and holds no NUL. */
extern size_t bc_git_utf8_prefix(const char *text, size_t length);

static inline bool
bc_git_is_text(const char *text, size_t length)
{
	return bc_git_utf8_prefix(text, length) == length;
}

/* A new JSON string; bytes that are not UTF-8 become U+FFFD. */
extern json_t *bc_git_string_json(const char *text);

/* A path as it stands in a result (see git_roles.h), and back (malloc'ed, NULL: malformed). */
extern json_t *bc_git_path_json(const char *path);
extern char *bc_git_path_from_json(const char *text);

/*
 * Writes "prefix" + "path" as git does in the header of a patch: quoted only
 * when the name needs it.
 */
extern void bc_git_quote(FILE *out, const char *prefix, const char *path);

/*
 * Reads a name of that form; "*end" is set behind it.  An unquoted name ends at
 * a tab or the end of the text.  malloc'ed; NULL when malformed.
 */
extern char *bc_git_unquote(const char *text, size_t length, const char **end);

#endif							/* BC_RUNNER_GIT_TEXT_H */
