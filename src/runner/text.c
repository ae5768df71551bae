/* SPDX-License-Identifier: PostgreSQL */
/*
 * text.c
 *	  Repair of text and JSON.  Total: any bytes in, clean text out.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runner/json_repair.h"
#include "runner/text.h"

#define REPLACEMENT "\xEF\xBF\xBD"
#define MAX_DEPTH 128

/*
 * The length of the character at "in": 1 to 4 when it is valid, 0 when it is
 * not, -1 when the bytes end within what may be a valid one.
 */
static int
char_length(const unsigned char *in, size_t len)
{
	static const struct
	{
		unsigned char first_min;
		unsigned char first_max;
		unsigned char second_min;
		unsigned char second_max;
		int			length;
	}			forms[] = {
		{0x01, 0x7F, 0, 0, 1},
		{0xC2, 0xDF, 0x80, 0xBF, 2},
		{0xE0, 0xE0, 0xA0, 0xBF, 3},
		{0xE1, 0xEC, 0x80, 0xBF, 3},
		{0xED, 0xED, 0x80, 0x9F, 3},
		{0xEE, 0xEF, 0x80, 0xBF, 3},
		{0xF0, 0xF0, 0x90, 0xBF, 4},
		{0xF1, 0xF3, 0x80, 0xBF, 4},
		{0xF4, 0xF4, 0x80, 0x8F, 4},
	};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
	{
		if (in[0] < forms[i].first_min || in[0] > forms[i].first_max)
			continue;
		for (int k = 1; k < forms[i].length; k++)
		{
			unsigned char min = k == 1 ? forms[i].second_min : 0x80;
			unsigned char max = k == 1 ? forms[i].second_max : 0xBF;

			if ((size_t) k >= len)
				return -1;
			if (in[k] < min || in[k] > max)
				return 0;
		}
		return forms[i].length;
	}
	return 0;
}

void
bc_text_clean(BcBuf *out, const char *in, size_t len)
{
	const unsigned char *bytes = (const unsigned char *) in;
	size_t		start = 0;
	size_t		i = 0;

	while (i < len)
	{
		int			n;

		/* The fast path: plain ASCII */
		while (i < len && bytes[i] < 0x80 && bytes[i] != 0)
			i++;
		if (i == len)
			break;
		n = char_length(bytes + i, len - i);
		if (n > 0)
		{
			i += (size_t) n;
			continue;
		}
		bc_buf_add(out, in + start, i - start);
		bc_buf_add(out, REPLACEMENT, 3);
		start = ++i;
	}
	bc_buf_add(out, in + start, len - start);
}

size_t
bc_text_complete(const char *in, size_t len)
{
	/* Only a start byte among the last three can be incomplete. */
	for (size_t back = 1; back <= 3 && back <= len; back++)
	{
		const unsigned char *at = (const unsigned char *) in + len - back;

		if ((*at & 0xC0) == 0x80)
			continue;
		return char_length(at, back) == -1 ? len - back : len;
	}
	return len;
}

size_t
bc_text_cut(const char *text, size_t len, size_t max)
{
	if (len <= max)
		return len;
	while (max > 0 && ((unsigned char) text[max] & 0xC0) == 0x80)
		max--;
	return max;
}

size_t
bc_text_start(const char *text, size_t len, size_t from)
{
	while (from < len && ((unsigned char) text[from] & 0xC0) == 0x80)
		from++;
	return from;
}

int
bc_text_is_clean(const char *in, size_t len)
{
	for (size_t i = 0; i < len;)
	{
		int			n = char_length((const unsigned char *) in + i, len - i);

		if (n <= 0)
			return 0;
		i += (size_t) n;
	}
	return 1;
}

/* Quotes text that is clean already. */
static void
quote_clean(BcBuf *out, const char *in, size_t len)
{
	size_t		start = 0;

	bc_buf_add(out, "\"", 1);
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) in[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		bc_buf_add(out, in + start, i - start);
		start = i + 1;
		if (c == '"')
			bc_buf_add(out, "\\\"", 2);
		else if (c == '\\')
			bc_buf_add(out, "\\\\", 2);
		else if (c == '\n')
			bc_buf_add(out, "\\n", 2);
		else
			bc_buf_printf(out, "\\u%04x", c);
	}
	bc_buf_add(out, in + start, len - start);
	bc_buf_add(out, "\"", 1);
}

void
bc_text_quote(BcBuf *out, const char *in, size_t len)
{
	BcBuf		clean = BC_BUF_INIT;

	bc_text_clean(&clean, in, len);
	quote_clean(out, clean.data, clean.len);
	bc_buf_free(&clean);
}

static void
quote_limited(BcBuf *out, const char *in, size_t len, size_t max)
{
	static const char ellipsis[] = "\xE2\x80\xA6";
	BcBuf		cut = BC_BUF_INIT;

	if (len <= max)
	{
		bc_text_quote(out, in, len);
		return;
	}
	bc_text_clean(&cut, in, max);
	bc_buf_str(&cut, ellipsis);
	quote_clean(out, cut.data, cut.len);
	bc_buf_free(&cut);
}

static void
write_json(BcBuf *out, const json_t *value, size_t max_string, int depth)
{
	const char *separator = "";

	if (value == NULL || depth > MAX_DEPTH)
	{
		bc_buf_str(out, "null");
		return;
	}
	switch (json_typeof(value))
	{
		case JSON_OBJECT:
			bc_buf_add(out, "{", 1);
			for (void *iter = json_object_iter((json_t *) value); iter != NULL;
				 iter = json_object_iter_next((json_t *) value, iter))
			{
				const char *key = json_object_iter_key(iter);

				bc_buf_str(out, separator);
				quote_limited(out, key, strlen(key), max_string);
				bc_buf_add(out, ":", 1);
				write_json(out, json_object_iter_value(iter), max_string, depth + 1);
				separator = ",";
			}
			bc_buf_add(out, "}", 1);
			break;
		case JSON_ARRAY:
			bc_buf_add(out, "[", 1);
			for (size_t i = 0; i < json_array_size(value); i++)
			{
				bc_buf_str(out, separator);
				write_json(out, json_array_get(value, i), max_string, depth + 1);
				separator = ",";
			}
			bc_buf_add(out, "]", 1);
			break;
		case JSON_STRING:
			quote_limited(out, json_string_value(value), json_string_length(value), max_string);
			break;
		case JSON_INTEGER:
			bc_buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
			break;
		case JSON_REAL:
			if (isfinite(json_real_value(value)))
				bc_buf_printf(out, "%.17g", json_real_value(value));
			else
				bc_buf_str(out, "null");
			break;
		case JSON_TRUE:
			bc_buf_str(out, "true");
			break;
		case JSON_FALSE:
			bc_buf_str(out, "false");
			break;
		case JSON_NULL:
			bc_buf_str(out, "null");
			break;
	}
}

void
bc_text_json(BcBuf *out, const json_t *value, size_t max_string)
{
	write_json(out, value, max_string, 0);
}

json_t *
bc_text_parse(const char *in, size_t len)
{
	const size_t flags = JSON_ALLOW_NUL | JSON_DECODE_ANY;
	json_error_t error;
	json_t	   *value;
	BcBuf		clean = BC_BUF_INIT;
	BcBuf		repaired = BC_BUF_INIT;

	value = json_loadb(in, len, flags, &error);
	if (value != NULL)
		return value;
	bc_text_clean(&clean, in, len);
	bc_json_repair(&repaired, clean.data, clean.len);
	value = json_loadb(repaired.data, repaired.len, flags, &error);
	bc_buf_free(&clean);
	bc_buf_free(&repaired);
	return value;
}
