/* SPDX-License-Identifier: PostgreSQL */
/*
 * dotgit.c
 *	  Names that some file system takes for ".git".
 */
#include <limits.h>
#include <string.h>
#include <strings.h>

#include "runner/dotgit.h"

/* Length of the code point at "s" when HFS+ leaves it out of comparisons. */
static size_t
hfs_ignored(const unsigned char *s, size_t left)
{
	if (left < 3)
		return 0;
	if (s[0] == 0xE2 && s[1] == 0x80 &&
		((s[2] >= 0x8C && s[2] <= 0x8F) || (s[2] >= 0xAA && s[2] <= 0xAE)))
		return 3;
	if (s[0] == 0xE2 && s[1] == 0x81 && s[2] >= 0xAA && s[2] <= 0xAF)
		return 3;
	if (s[0] == 0xEF && s[1] == 0xBB && s[2] == 0xBF)
		return 3;
	return 0;
}

bool
bc_git_is_dotgit(const char *name, size_t length)
{
	char		plain[8];
	size_t		used = 0;
	size_t		stem;

	/* HFS+: without the code points it does not see */
	for (size_t at = 0; at < length && used < sizeof(plain);)
	{
		size_t		skip = hfs_ignored((const unsigned char *) name + at, length - at);

		if (skip == 0)
			plain[used++] = name[at++];
		at += skip;
	}
	if (used == 4 && strncasecmp(plain, ".git", 4) == 0)
		return true;

	/* NTFS: its short name, trailing dots and spaces, streams */
	if (length >= 4 && strncasecmp(name, ".git", 4) == 0)
		stem = 4;
	else if (length >= 5 && strncasecmp(name, "git~1", 5) == 0)
		stem = 5;
	else
		return false;
	for (size_t at = stem; at < length; at++)
	{
		if (name[at] == ':')
			return true;
		if (name[at] != '.' && name[at] != ' ')
			return false;
	}
	return true;
}

const char *
bc_git_path_unsafe(const char *path)
{
	if (path[0] == '\0')
		return "it is empty";
	if (path[0] == '/')
		return "it is absolute";
	if (strlen(path) >= PATH_MAX)
		return "it is too long";
	for (const char *part = path;;)
	{
		size_t		length = strcspn(part, "/");

		if (length == 0)
			return "it has an empty component";
		if (length > NAME_MAX)
			return "a component is too long";
		if (strncmp(part, ".", length) == 0 || (length == 2 && strncmp(part, "..", 2) == 0))
			return "it has a '.' or '..' component";
		/* NTFS takes a backslash for a separator */
		for (size_t at = 0; at <= length;)
		{
			size_t		piece = 0;

			while (at + piece < length && part[at + piece] != '\\')
				piece++;
			if (bc_git_is_dotgit(part + at, piece))
				return "it names the git directory";
			if (piece == 2 && strncmp(part + at, "..", 2) == 0)
				return "it has a '..' component";
			at += piece + 1;
		}
		if (part[length] == '\0')
			return NULL;
		part += length + 1;
	}
}
