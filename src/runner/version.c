/* SPDX-License-Identifier: PostgreSQL */
/*
 * version.c
 *	  The version number in what a program says of itself.
 */
#include <ctype.h>
#include <stdbool.h>

#include "runner/buf.h"
#include "runner/version.h"

#define MAX_VERSION 64

static bool
digit_at(const char *line, size_t len, size_t i)
{
	return i < len && isdigit((unsigned char) line[i]);
}

static bool
alnum_at(const char *line, size_t len, size_t i)
{
	return i < len && isalnum((unsigned char) line[i]);
}

/* May a version begin here?  Not in the middle of a number or a word, but behind a "v". */
static bool
begins(const char *line, size_t len, size_t i)
{
	if (!digit_at(line, len, i))
		return false;
	if (i == 0)
		return true;
	if (line[i - 1] == 'v' || line[i - 1] == 'V')
		return i == 1 || !alnum_at(line, len, i - 2);
	return !alnum_at(line, len, i - 1) && line[i - 1] != '.';
}

/* The offset behind the numbers and dots at "i", with the number of dots. */
static size_t
skip_numbers(const char *line, size_t len, size_t i, int *dots)
{
	*dots = 0;
	while (digit_at(line, len, i))
		i++;
	while (i < len && line[i] == '.' && digit_at(line, len, i + 1))
	{
		(*dots)++;
		for (i++; digit_at(line, len, i);)
			i++;
	}
	return i;
}

char *
bc_version_find(const char *line, size_t len)
{
	for (size_t start = 0; start < len; start++)
	{
		int			dots;
		size_t		end;

		if (!begins(line, len, start))
			continue;
		end = skip_numbers(line, len, start, &dots);
		if (dots == 0 || end - start > MAX_VERSION)
			continue;
		while (end < len && end - start < MAX_VERSION &&
			   (((line[end] == '-' || line[end] == '+' || line[end] == '.') &&
				 alnum_at(line, len, end + 1)) || alnum_at(line, len, end)))
			end++;
		return bc_asprintf("%.*s", (int) (end - start), line + start);
	}
	return NULL;
}
