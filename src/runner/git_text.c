/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_text.c
 *	  UTF-8, quoting of path names, and which paths are never touched.
 */
#include "runner/git_text.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Bytes of the valid UTF-8 sequence at "s", 0 when there is none. */
static size_t
utf8_sequence(const unsigned char *s, size_t left)
{
	size_t		length;
	unsigned char low = 0x80;
	unsigned char high = 0xBF;

	if (s[0] == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		length = 2;
	else if (s[0] >= 0xE0 && s[0] <= 0xEF)
		length = 3;
	else if (s[0] >= 0xF0 && s[0] <= 0xF4)
		length = 4;
	else
		return 0;
	if (left < length)
		return 0;
	/* no overlong forms, no surrogates, nothing above U+10FFFF */
	if (s[0] == 0xE0)
		low = 0xA0;
	else if (s[0] == 0xED)
		high = 0x9F;
	else if (s[0] == 0xF0)
		low = 0x90;
	else if (s[0] == 0xF4)
		high = 0x8F;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
	{
		if ((s[i] & 0xC0) != 0x80)
			return 0;
	}
	return length;
}

size_t
bc_git_utf8_prefix(const char *text, size_t length)
{
	size_t		at = 0;

	while (at < length)
	{
		size_t		step = utf8_sequence((const unsigned char *) text + at, length - at);

		if (step == 0)
			break;
		at += step;
	}
	return at;
}

json_t *
bc_git_string_json(const char *text)
{
	size_t		length = strlen(text);
	char	   *copy = malloc(length * 3 + 1);
	size_t		at = 0;
	size_t		used = 0;
	json_t	   *string;

	if (copy == NULL)
		return NULL;
	while (at < length)
	{
		size_t		good = bc_git_utf8_prefix(text + at, length - at);

		memcpy(copy + used, text + at, good);
		used += good;
		at += good;
		if (at < length)
		{
			memcpy(copy + used, "\xEF\xBF\xBD", 3);
			used += 3;
			at++;
		}
	}
	string = json_stringn(copy, used);
	free(copy);
	return string;
}

static void
quote_body(FILE *out, const char *text, bool octal)
{
	static const char escapes[] = "\aa\bb\tt\nn\vv\ff\rr\"\"\\\\";

	for (const unsigned char *s = (const unsigned char *) text; *s != '\0'; s++)
	{
		const char *escape = NULL;

		for (const char *e = escapes; *e != '\0'; e += 2)
		{
			if ((unsigned char) *e == *s)
				escape = e + 1;
		}
		if (escape != NULL)
			fprintf(out, "\\%c", *escape);
		else if (*s < 0x20 || *s == 0x7F || (octal && *s >= 0x80))
			fprintf(out, "\\%03o", *s);
		else
			fputc(*s, out);
	}
}

void
bc_git_quote(FILE *out, const char *prefix, const char *path)
{
	bool		octal = !bc_git_is_text(path, strlen(path));
	bool		quote = octal;

	for (const char *s = path; *s != '\0' && !quote; s++)
		quote = (unsigned char) *s < 0x20 || *s == 0x7F || *s == '"' || *s == '\\';
	if (!quote)
	{
		fputs(prefix, out);
		fputs(path, out);
		return;
	}
	fputc('"', out);
	fputs(prefix, out);
	quote_body(out, path, octal);
	fputc('"', out);
}

json_t *
bc_git_path_json(const char *path)
{
	char	   *text = NULL;
	size_t		size;
	FILE	   *out;
	json_t	   *string;

	if (path[0] != '"' && bc_git_is_text(path, strlen(path)))
		return json_string(path);
	out = open_memstream(&text, &size);
	if (out == NULL)
		return NULL;
	fputc('"', out);
	quote_body(out, path, true);
	fputc('"', out);
	string = fclose(out) == 0 ? json_stringn(text, size) : NULL;
	free(text);
	return string;
}

/* Value of the escape at "s" behind its backslash; "*used" bytes of it. */
static int
unescape(const char *s, size_t left, size_t *used)
{
	static const char escapes[] = "a\ab\bt\tn\nv\vf\fr\r\"\"\\\\";

	if (left == 0)
		return -1;
	*used = 1;
	for (const char *e = escapes; *e != '\0'; e += 2)
	{
		if (*e == *s)
			return (unsigned char) e[1];
	}
	if (left < 3 || s[0] < '0' || s[0] > '3' || s[1] < '0' || s[1] > '7' || s[2] < '0' ||
		s[2] > '7')
		return -1;
	*used = 3;
	return (s[0] - '0') << 6 | (s[1] - '0') << 3 | (s[2] - '0');
}

char *
bc_git_unquote(const char *text, size_t length, const char **end)
{
	char	   *name = malloc(length + 1);
	size_t		used = 0;
	size_t		at = 0;

	if (name == NULL)
		return NULL;
	if (length == 0 || text[0] != '"')
	{
		while (at < length && text[at] != '\t' && text[at] != '\0')
			name[used++] = text[at++];
		name[used] = '\0';
		*end = text + at;
		return name;
	}
	for (at = 1; at < length && text[at] != '"';)
	{
		int			value = (unsigned char) text[at++];

		if (value == '\\')
		{
			size_t		step = 0;

			value = unescape(text + at, length - at, &step);
			at += step;
		}
		if (value <= 0)
			break;
		name[used++] = (char) value;
	}
	if (at >= length || text[at] != '"')
	{
		free(name);
		return NULL;
	}
	name[used] = '\0';
	*end = text + at + 1;
	return name;
}

char *
bc_git_path_from_json(const char *text)
{
	const char *end;
	char	   *path;

	if (text[0] != '"')
		return strdup(text);
	path = bc_git_unquote(text, strlen(text), &end);
	if (path != NULL && *end != '\0')
	{
		free(path);
		return NULL;
	}
	return path;
}
