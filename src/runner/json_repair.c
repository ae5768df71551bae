/* SPDX-License-Identifier: PostgreSQL */
/*
 * json_repair.c
 *	  Makes the JSON of sloppy writers acceptable to a strict parser.
 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runner/json_repair.h"

#define MAX_NUMBER 400			/* characters; no double needs more */
#define REPLACEMENT "\\ufffd"

/* The value of four hexadecimal digits, or -1. */
static int
hex4(const char *at, size_t len)
{
	int			value = 0;

	if (len < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		char		c = at[i];

		if (c >= '0' && c <= '9')
			value = value * 16 + c - '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			value = value * 16 + (c | 0x20) - 'a' + 10;
		else
			return -1;
	}
	return value;
}

static bool
is_low_surrogate_escape(const char *at, size_t len)
{
	int			unit = len >= 6 && at[0] == '\\' && at[1] == 'u' ? hex4(at + 2, len - 2) : -1;

	return unit >= 0xDC00 && unit <= 0xDFFF;
}

/* Appends an escape that begins at "at"; the number of bytes it took. */
static size_t
repair_escape(BcBuf *out, const char *at, size_t len)
{
	int			unit;

	if (len >= 2 && at[1] != '\0' && strchr("\"\\/bfnrt", at[1]) != NULL)
	{
		bc_buf_add(out, at, 2);
		return 2;
	}
	unit = len >= 2 && at[1] == 'u' ? hex4(at + 2, len - 2) : -1;
	if (unit < 0)
	{
		bc_buf_add(out, "\\\\", 2);
		return 1;
	}
	if (unit >= 0xD800 && unit <= 0xDBFF && is_low_surrogate_escape(at + 6, len - 6))
	{
		bc_buf_add(out, at, 12);
		return 12;
	}
	if (unit == 0 || (unit >= 0xD800 && unit <= 0xDFFF))
		bc_buf_str(out, REPLACEMENT);
	else
		bc_buf_add(out, at, 6);
	return 6;
}

/* Appends a string that begins at "at", without its closing quote if it has none. */
static size_t
repair_string(BcBuf *out, const char *at, size_t len)
{
	size_t		start = 0;
	size_t		i = 1;

	while (i < len && at[i] != '"')
	{
		unsigned char c = (unsigned char) at[i];

		if (c >= 0x20 && c != '\\')
		{
			i++;
			continue;
		}
		bc_buf_add(out, at + start, i - start);
		if (c == '\\')
			i += repair_escape(out, at + i, len - i);
		else
		{
			bc_buf_printf(out, "\\u%04x", c);
			i++;
		}
		start = i;
	}
	if (i < len)
		i++;
	bc_buf_add(out, at + start, i - start);
	return i;
}

static bool
is_number_char(char c)
{
	return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

static size_t
repair_number(BcBuf *out, const char *at, size_t len)
{
	size_t		n = 0;
	bool		integer = true;
	bool		fits = true;

	for (; n < len && is_number_char(at[n]); n++)
		if (at[n] == '.' || at[n] == 'e' || at[n] == 'E')
			integer = false;
	if (n > MAX_NUMBER || isinf(strtod(at, NULL)))
	{
		bc_buf_str(out, "null");
		return n;
	}
	if (integer)
	{
		errno = 0;
		(void) strtoll(at, NULL, 10);
		fits = errno != ERANGE;
	}
	bc_buf_add(out, at, n);
	if (!fits)
		bc_buf_str(out, ".0");
	return n;
}

/* What some languages write for numbers that JSON has no form for. */
static size_t
not_a_number(const char *at, size_t len)
{
	static const char *const names[] = {"NaN", "Infinity", "-Infinity"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		size_t		n = strlen(names[i]);

		if (len >= n && memcmp(at, names[i], n) == 0)
			return n;
	}
	return 0;
}

void
bc_json_repair(BcBuf *out, const char *in, size_t len)
{
	for (size_t i = 0; i < len;)
	{
		unsigned char c = (unsigned char) in[i];
		size_t		n;

		if (c == '"')
			i += repair_string(out, in + i, len - i);
		else if ((n = not_a_number(in + i, len - i)) > 0)
		{
			bc_buf_str(out, "null");
			i += n;
		}
		else if (c == '-' || (c >= '0' && c <= '9'))
			i += repair_number(out, in + i, len - i);
		else
		{
			if ((c >= 0x20 && c < 0x7F) || c == '\t' || c == '\n' || c == '\r')
				bc_buf_add(out, in + i, 1);
			i++;
		}
	}
}
