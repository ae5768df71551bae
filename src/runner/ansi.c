/* SPDX-License-Identifier: PostgreSQL */
/*
 * ansi.c
 *	  From what a program writes to a terminal to plain text (ECMA-48).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runner/ansi.h"

#define MAX_CELLS 4096			/* of a line; a longer one is broken */
#define MAX_PARAMETERS 32		/* bytes of a control sequence that are looked at */
#define MAX_STRING (64 * 1024)	/* an unfinished string does not swallow the rest for ever */
#define TAB 8
#define REPLACEMENT 0xFFFD

typedef enum State
{
	GROUND,
	ESCAPE,						/* after ESC */
	INTERMEDIATE,				/* ESC and a byte that says another one follows */
	CONTROL,					/* CSI */
	STRING,						/* OSC, DCS, APC, PM, SOS: to BEL or ST */
	STRING_ESCAPE
} State;

struct BcAnsi
{
	State		state;
	uint32_t	cells[MAX_CELLS];
	size_t		ncells;
	size_t		column;
	char		parameters[MAX_PARAMETERS + 1];
	size_t		nparameters;
	size_t		string_bytes;
	uint32_t	partial;		/* a character in the middle of its bytes */
	int			missing;		/* of them */
	uint32_t	least;			/* what a character of so many bytes must at least be */
	BcBuf		last;			/* the line that was left last */
	bool		brackets_paste;
	unsigned	questions;
};

BcAnsi *
bc_ansi_new(void)
{
	BcAnsi	   *ansi = bc_alloc(sizeof(BcAnsi));

	memset(ansi, 0, sizeof(*ansi));
	return ansi;
}

void
bc_ansi_free(BcAnsi *ansi)
{
	if (ansi != NULL)
		bc_buf_free(&ansi->last);
	free(ansi);
}

bool
bc_ansi_brackets_paste(const BcAnsi *ansi)
{
	return ansi->brackets_paste;
}

unsigned
bc_ansi_questions(BcAnsi *ansi)
{
	unsigned	questions = ansi->questions;

	ansi->questions = 0;
	return questions;
}

static void
add_utf8(BcBuf *text, uint32_t c)
{
	char		bytes[4];
	size_t		n = 0;

	if (c < 0x80)
		bytes[n++] = (char) c;
	else if (c < 0x800)
	{
		bytes[n++] = (char) (0xC0 | c >> 6);
		bytes[n++] = (char) (0x80 | (c & 0x3F));
	}
	else if (c < 0x10000)
	{
		bytes[n++] = (char) (0xE0 | c >> 12);
		bytes[n++] = (char) (0x80 | (c >> 6 & 0x3F));
		bytes[n++] = (char) (0x80 | (c & 0x3F));
	}
	else
	{
		bytes[n++] = (char) (0xF0 | c >> 18);
		bytes[n++] = (char) (0x80 | (c >> 12 & 0x3F));
		bytes[n++] = (char) (0x80 | (c >> 6 & 0x3F));
		bytes[n++] = (char) (0x80 | (c & 0x3F));
	}
	bc_buf_add(text, bytes, n);
}

/* The line as text, without the blanks at its end. */
static void
add_line(BcAnsi *ansi, BcBuf *text)
{
	size_t		n = ansi->ncells;

	while (n > 0 && ansi->cells[n - 1] == ' ')
		n--;
	for (size_t i = 0; i < n; i++)
		add_utf8(text, ansi->cells[i]);
	ansi->ncells = 0;
}

static void
end_line(BcAnsi *ansi, BcBuf *text)
{
	size_t		from = text->len;

	add_line(ansi, text);
	bc_buf_clear(&ansi->last);
	bc_buf_add(&ansi->last, text->data != NULL ? text->data + from : "", text->len - from);
	bc_buf_add(text, "\n", 1);
	ansi->column = 0;
}

/* The cursor goes elsewhere: what stands in its line is said, unless it was said just before. */
static void
leave_line(BcAnsi *ansi, BcBuf *text)
{
	size_t		from = text->len;
	size_t		len;

	add_line(ansi, text);
	len = text->len - from;
	ansi->column = 0;
	if (len == 0)
		return;
	if (len == ansi->last.len && memcmp(text->data + from, ansi->last.data, len) == 0)
	{
		text->len = from;
		return;
	}
	bc_buf_clear(&ansi->last);
	bc_buf_add(&ansi->last, text->data + from, len);
	bc_buf_add(text, "\n", 1);
}

static void
go_to(BcAnsi *ansi, size_t column)
{
	ansi->column = column < MAX_CELLS ? column : MAX_CELLS - 1;
}

static void
put(BcAnsi *ansi, uint32_t c, BcBuf *text)
{
	if (ansi->column == MAX_CELLS)
		end_line(ansi, text);
	while (ansi->ncells < ansi->column)
		ansi->cells[ansi->ncells++] = ' ';
	ansi->cells[ansi->column++] = c;
	if (ansi->column > ansi->ncells)
		ansi->ncells = ansi->column;
}

/* The first parameter of a control sequence. */
static size_t
parameter(const BcAnsi *ansi, size_t fallback)
{
	unsigned long value = strtoul(ansi->parameters, NULL, 10);

	return value > 0 ? (size_t) value : fallback;
}

static void
erase_in_line(BcAnsi *ansi)
{
	switch (ansi->parameters[0])
	{
		case '1':
			for (size_t i = 0; i < ansi->ncells && i <= ansi->column; i++)
				ansi->cells[i] = ' ';
			break;
		case '2':
			ansi->ncells = 0;
			break;
		default:
			if (ansi->ncells > ansi->column)
				ansi->ncells = ansi->column;
			break;
	}
}

static void
control(BcAnsi *ansi, char final, BcBuf *text)
{
	size_t		n = parameter(ansi, 1);

	ansi->parameters[ansi->nparameters] = '\0';
	switch (final)
	{
		case 'K':
			erase_in_line(ansi);
			break;
		case 'C':
			go_to(ansi, n < MAX_CELLS ? ansi->column + n : MAX_CELLS);
			break;
		case 'D':
			go_to(ansi, n < ansi->column ? ansi->column - n : 0);
			break;
		case 'G':
		case '`':
			go_to(ansi, n - 1);
			break;
		case 'P':				/* delete characters */
			if (ansi->column < ansi->ncells)
			{
				size_t		gone = n < ansi->ncells - ansi->column ? n : ansi->ncells - ansi->column;

				memmove(&ansi->cells[ansi->column], &ansi->cells[ansi->column + gone],
						(ansi->ncells - ansi->column - gone) * sizeof(uint32_t));
				ansi->ncells -= gone;
			}
			break;
		case 'A':
		case 'B':
		case 'E':
		case 'F':
		case 'H':
		case 'd':
		case 'f':
		case 'J':
			leave_line(ansi, text);
			break;
		case 'h':
		case 'l':
			if (strcmp(ansi->parameters, "?2004") == 0)
				ansi->brackets_paste = final == 'h';
			break;
		case 'n':
			if (strcmp(ansi->parameters, "6") == 0)
				ansi->questions |= BC_ANSI_ASKS_CURSOR;
			break;
		case 'c':
			if (ansi->parameters[0] == '\0' || ansi->parameters[0] == '0')
				ansi->questions |= BC_ANSI_ASKS_ATTRIBUTES;
			break;
	}
}

/* A character of the ground state. */
static void
character(BcAnsi *ansi, uint32_t c, BcBuf *text)
{
	switch (c)
	{
		case '\n':
		case '\v':
		case '\f':
			end_line(ansi, text);
			break;
		case '\r':
			ansi->column = 0;
			break;
		case '\b':
			if (ansi->column > 0)
				ansi->column--;
			break;
		case '\t':
			go_to(ansi, (ansi->column / TAB + 1) * TAB);
			break;
		default:
			/* C0, DEL and C1 leave nothing. */
			if (c >= 0x20 && (c < 0x7F || c > 0x9F))
				put(ansi, c, text);
			break;
	}
}

/* A byte of the ground state: UTF-8, U+FFFD for what is none. */
static void
ground(BcAnsi *ansi, unsigned char byte, BcBuf *text)
{
	if (ansi->missing > 0 && (byte & 0xC0) == 0x80)
	{
		ansi->partial = ansi->partial << 6 | (byte & 0x3F);
		if (--ansi->missing == 0)
			character(ansi, ansi->partial < ansi->least || ansi->partial > 0x10FFFF ||
					  (ansi->partial >= 0xD800 && ansi->partial <= 0xDFFF) ?
					  REPLACEMENT : ansi->partial, text);
		return;
	}
	if (ansi->missing > 0)
		character(ansi, REPLACEMENT, text);
	ansi->missing = byte >= 0xF0 && byte < 0xF8 ? 3 : byte >= 0xE0 && byte < 0xF0 ? 2 :
		byte >= 0xC2 && byte < 0xE0 ? 1 : 0;
	ansi->partial = byte & (0x3F >> ansi->missing);
	ansi->least = ansi->missing == 3 ? 0x10000 : ansi->missing == 2 ? 0x800 : 0x80;
	if (ansi->missing == 0)
		character(ansi, byte < 0x80 ? byte : REPLACEMENT, text);
}

static void
escape(BcAnsi *ansi, unsigned char byte, BcBuf *text)
{
	ansi->state = GROUND;
	if (byte == '[')
	{
		ansi->state = CONTROL;
		ansi->nparameters = 0;
		ansi->parameters[0] = '\0';
	}
	else if (byte == ']' || byte == 'P' || byte == 'X' || byte == '^' || byte == '_')
	{
		ansi->state = STRING;
		ansi->string_bytes = 0;
	}
	else if (byte >= 0x20 && byte <= 0x2F)
		ansi->state = INTERMEDIATE;
	else if (byte == 'D' || byte == 'E')
		end_line(ansi, text);
	else if (byte == 'M' || byte == 'c')
		leave_line(ansi, text);
}

static void
feed_byte(BcAnsi *ansi, unsigned char byte, BcBuf *text)
{
	/* Wherever they stand, these begin anew. */
	if ((byte == 0x1B || byte == 0x18 || byte == 0x1A) && ansi->missing > 0)
	{
		character(ansi, REPLACEMENT, text);
		ansi->missing = 0;
	}
	if (byte == 0x1B && ansi->state != STRING)
	{
		ansi->state = ESCAPE;
		return;
	}
	if (byte == 0x18 || byte == 0x1A)
	{
		ansi->state = GROUND;
		return;
	}
	switch (ansi->state)
	{
		case GROUND:
			ground(ansi, byte, text);
			break;
		case ESCAPE:
			escape(ansi, byte, text);
			break;
		case INTERMEDIATE:
			if (byte < 0x20 || byte > 0x2F)
				ansi->state = GROUND;
			break;
		case CONTROL:
			if (byte >= 0x40 && byte <= 0x7E)
			{
				ansi->state = GROUND;
				control(ansi, (char) byte, text);
			}
			else if (byte < 0x20)
				character(ansi, byte, text);
			else if (byte >= 0x7F)
			{
				/* no such sequence: it was broken off */
				ansi->state = GROUND;
				ground(ansi, byte, text);
			}
			else if (ansi->nparameters < MAX_PARAMETERS)
			{
				ansi->parameters[ansi->nparameters++] = (char) byte;
				ansi->parameters[ansi->nparameters] = '\0';
			}
			break;
		case STRING:
			if (byte == 0x1B)
				ansi->state = STRING_ESCAPE;
			else if (byte == 0x07 || ++ansi->string_bytes > MAX_STRING)
				ansi->state = GROUND;
			break;
		case STRING_ESCAPE:
			ansi->state = GROUND;
			if (byte != '\\')
				escape(ansi, byte, text);
			break;
	}
}

void
bc_ansi_feed(BcAnsi *ansi, const char *bytes, size_t len, BcBuf *text)
{
	for (size_t i = 0; i < len; i++)
		feed_byte(ansi, (unsigned char) bytes[i], text);
}

void
bc_ansi_end(BcAnsi *ansi, BcBuf *text)
{
	if (ansi->missing > 0)
		character(ansi, REPLACEMENT, text);
	ansi->missing = 0;
	ansi->state = GROUND;
	add_line(ansi, text);
	ansi->column = 0;
}
