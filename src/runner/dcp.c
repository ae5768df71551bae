/* SPDX-License-Identifier: PostgreSQL */
/*
 * dcp.c
 *	  Takes the marks of a plugin of opencode's out of text.
 */
#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "runner/dcp.h"

#define MAX_ATTRIBUTES 256		/* bytes; what is longer is no mark */
#define MAX_ID 32

static const char opening[] = "<dcp-message-id";
static const char closing[] = "</dcp-message-id>";
static const char blocked[] = "BLOCKED";

/* Parts of a mark, in their order */
enum
{
	OPENING,
	ATTRIBUTES,					/* behind the name, up to the ">" */
	ID,
	CLOSING
};

typedef enum Verdict
{
	NO_MARK,
	MAY_BE,
	IS_MARK
} Verdict;

void
bc_dcp_free(BcDcp *dcp)
{
	bc_buf_free(&dcp->held);
	*dcp = (BcDcp) BC_DCP_INIT;
}

static Verdict
enter(BcDcp *dcp, int part)
{
	dcp->part = part;
	dcp->at = 0;
	return MAY_BE;
}

static Verdict
attribute(BcDcp *dcp, char c)
{
	if (c == '>')
		return enter(dcp, ID);
	if (c == '<' || c == '\n' || ++dcp->at > MAX_ATTRIBUTES ||
		(dcp->at == 1 && c != ' ' && c != '\t'))
		return NO_MARK;
	return MAY_BE;
}

/* Letters with numbers, as in m0042 or b1m0042, or BLOCKED */
static bool
is_id(const char *id, size_t len)
{
	if (len == sizeof(blocked) - 1 && memcmp(id, blocked, len) == 0)
		return true;
	for (size_t i = 0; i < len; i++)
	{
		bool		letter = isalpha((unsigned char) id[i]) != 0;

		if (!letter && !isdigit((unsigned char) id[i]))
			return false;
		if (letter && (i + 1 == len || !isdigit((unsigned char) id[i + 1])))
			return false;
	}
	return len > 0 && isalpha((unsigned char) id[0]);
}

static Verdict
id(BcDcp *dcp, char c)
{
	/* The character itself is already among what is held. */
	const char *start = dcp->held.data + dcp->held.len - 1 - dcp->at;
	size_t		len = dcp->at;

	if (c != '<')
		return ++dcp->at <= MAX_ID && (isalnum((unsigned char) c) || isspace((unsigned char) c)) ?
			MAY_BE : NO_MARK;
	for (; len > 0 && isspace((unsigned char) *start); len--)
		start++;
	while (len > 0 && isspace((unsigned char) start[len - 1]))
		len--;
	if (!is_id(start, len))
		return NO_MARK;
	(void) enter(dcp, CLOSING);
	dcp->at = 1;
	return MAY_BE;
}

/* One more character, the last one of what is held */
static Verdict
step(BcDcp *dcp, char c)
{
	switch (dcp->part)
	{
		case OPENING:
			if (dcp->at == sizeof(opening) - 1)
			{
				(void) enter(dcp, ATTRIBUTES);
				return attribute(dcp, c);
			}
			return c == opening[dcp->at++] ? MAY_BE : NO_MARK;
		case ATTRIBUTES:
			return attribute(dcp, c);
		case ID:
			return id(dcp, c);
		default:
			if (c != closing[dcp->at++])
				return NO_MARK;
			return dcp->at == sizeof(closing) - 1 ? IS_MARK : MAY_BE;
	}
}

static void
take(BcDcp *dcp, char c, BcBuf *out);

/* What is held is no mark; but one may begin within it. */
static void
give_up(BcDcp *dcp, BcBuf *out)
{
	BcBuf		text = dcp->held;
	const char *next = memchr(text.data + 1, opening[0], text.len - 1);
	size_t		n = next != NULL ? (size_t) (next - text.data) : text.len;

	dcp->held = (BcBuf) BC_BUF_INIT;
	bc_buf_add(out, text.data, n);
	for (; n < text.len; n++)
		take(dcp, text.data[n], out);
	bc_buf_free(&text);
}

static void
take(BcDcp *dcp, char c, BcBuf *out)
{
	if (dcp->held.len == 0)
	{
		if (c != opening[0])
		{
			bc_buf_add(out, &c, 1);
			return;
		}
		(void) enter(dcp, OPENING);
	}
	bc_buf_add(&dcp->held, &c, 1);
	switch (step(dcp, c))
	{
		case MAY_BE:
			break;
		case IS_MARK:
			bc_buf_clear(&dcp->held);
			break;
		case NO_MARK:
			give_up(dcp, out);
			break;
	}
}

void
bc_dcp_feed(BcDcp *dcp, const char *text, size_t len, BcBuf *out)
{
	while (len > 0)
	{
		const char *next = dcp->held.len > 0 ? text : memchr(text, opening[0], len);
		size_t		n = next != NULL ? (size_t) (next - text) : len;

		bc_buf_add(out, text, n);
		if (n < len)
			take(dcp, text[n++], out);
		text += n;
		len -= n;
	}
}

void
bc_dcp_end(BcDcp *dcp, BcBuf *out)
{
	if (dcp->held.len > 0)
		bc_buf_add(out, dcp->held.data, dcp->held.len);
	bc_buf_clear(&dcp->held);
}
