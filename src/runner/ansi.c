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
#define MAX_JUMP 512			/* cells that one sequence can make: few bytes are little text */
#define MAX_PARAMETERS 32		/* bytes of a control sequence that are looked at */
#define MAX_STRING (64 * 1024)	/* an unfinished string does not swallow the rest for ever */
#define TAB 8
#define REPLACEMENT 0xFFFD
#define NOT_SAVED SIZE_MAX

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
	size_t		saved;			/* the column to return to, in this line */
	uint32_t	shown;			/* the character that was put last; 0: none */
	bool		revised;		/* the cursor went back: the line may become another */
	char		parameters[MAX_PARAMETERS + 1];
	size_t		nparameters;
	size_t		string_bytes;
	unsigned char previous;		/* of them */
	uint32_t	partial;		/* a character in the middle of its bytes */
	int			missing;		/* of them */
	uint32_t	least;			/* what a character of so many bytes must at least be */
	BcBuf		line;			/* the cells as text, while it is needed */
	BcBuf		said;			/* of the line, before its end */
	BcBuf		last;			/* the line that was left last */
	bool		brackets_paste;
};

BcAnsi *
bc_ansi_new(void)
{
	BcAnsi	   *ansi = bc_alloc(sizeof(BcAnsi));

	memset(ansi, 0, sizeof(*ansi));
	ansi->saved = NOT_SAVED;
	return ansi;
}

void
bc_ansi_free(BcAnsi *ansi)
{
	if (ansi == NULL)
		return;
	bc_buf_free(&ansi->line);
	bc_buf_free(&ansi->said);
	bc_buf_free(&ansi->last);
	free(ansi);
}

bool
bc_ansi_brackets_paste(const BcAnsi *ansi)
{
	return ansi->brackets_paste;
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

static bool
equals(const BcBuf *a, const BcBuf *b, size_t len)
{
	return len == 0 || memcmp(a->data, b->data, len) == 0;
}

static void
add_all(BcBuf *to, const BcBuf *from, size_t offset)
{
	if (from->len > offset)
		bc_buf_add(to, from->data + offset, from->len - offset);
}

static void
copy(BcBuf *to, const BcBuf *from)
{
	bc_buf_clear(to);
	add_all(to, from, 0);
}

/* The line as text, without the blanks at its end. */
static void
read_line(BcAnsi *ansi)
{
	size_t		n = ansi->ncells;

	while (n > 0 && ansi->cells[n - 1] == ' ')
		n--;
	bc_buf_clear(&ansi->line);
	for (size_t i = 0; i < n; i++)
		add_utf8(&ansi->line, ansi->cells[i]);
}

static bool
goes_on(const BcAnsi *ansi)
{
	return ansi->line.len >= ansi->said.len && equals(&ansi->line, &ansi->said, ansi->said.len);
}

/* What was not said yet of the line; all of it, below that, when it has become another. */
static void
say_rest(BcAnsi *ansi, BcBuf *text)
{
	bool		on = goes_on(ansi);

	if (!on && ansi->line.len > 0)
		bc_buf_add(text, "\n", 1);
	add_all(text, &ansi->line, on ? ansi->said.len : 0);
}

static void
next_line(BcAnsi *ansi)
{
	bc_buf_clear(&ansi->said);
	ansi->ncells = ansi->column = 0;
	ansi->saved = NOT_SAVED;
	ansi->revised = false;
}

static void
end_line(BcAnsi *ansi, BcBuf *text)
{
	read_line(ansi);
	say_rest(ansi, text);
	bc_buf_add(text, "\n", 1);
	copy(&ansi->last, &ansi->line);
	next_line(ansi);
}

/* The cursor goes elsewhere: what stands in its line is said, unless it was said just before. */
static void
leave_line(BcAnsi *ansi, BcBuf *text)
{
	read_line(ansi);
	if (ansi->said.len > 0 ||
		(ansi->line.len > 0 && (ansi->line.len != ansi->last.len ||
								!equals(&ansi->line, &ansi->last, ansi->line.len))))
		end_line(ansi, text);
	else
		next_line(ansi);
}

static void
go_to(BcAnsi *ansi, size_t column)
{
	size_t		limit = ansi->ncells + MAX_JUMP < MAX_CELLS ? ansi->ncells + MAX_JUMP : MAX_CELLS - 1;

	ansi->revised |= column < ansi->column;
	ansi->column = column < limit ? column : limit;
}

static void
put(BcAnsi *ansi, uint32_t c, BcBuf *text)
{
	if (ansi->column == MAX_CELLS)
		end_line(ansi, text);
	while (ansi->ncells < ansi->column)
		ansi->cells[ansi->ncells++] = ' ';
	ansi->cells[ansi->column++] = c;
	ansi->shown = c;
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
blank(BcAnsi *ansi, size_t from, size_t to)
{
	for (size_t i = from; i < to && i < ansi->ncells; i++)
		ansi->cells[i] = ' ';
	ansi->revised = true;
}

static void
erase_in_line(BcAnsi *ansi)
{
	switch (ansi->parameters[0])
	{
		case '1':
			blank(ansi, 0, ansi->column + 1);
			break;
		case '2':
			blank(ansi, 0, ansi->ncells);
			break;
		default:
			if (ansi->ncells > ansi->column)
				ansi->ncells = ansi->column;
			break;
	}
}

/* Moves what stands at the cursor and behind it: to the left over n cells, or to the right. */
static void
shift(BcAnsi *ansi, size_t n, bool left)
{
	size_t		behind = ansi->column < ansi->ncells ? ansi->ncells - ansi->column : 0;
	size_t		room = MAX_CELLS - ansi->ncells;
	uint32_t   *at = &ansi->cells[ansi->column];

	if (behind == 0)
		return;
	if (left)
	{
		n = n < behind ? n : behind;
		memmove(at, at + n, (behind - n) * sizeof(uint32_t));
		ansi->ncells -= n;
	}
	else
	{
		n = n < room ? n : room;
		memmove(at + n, at, behind * sizeof(uint32_t));
		ansi->ncells += n;
		blank(ansi, ansi->column, ansi->column + n);
	}
	ansi->revised = true;
}

/* Is "mode" in the list of a private mode sequence: ? 25 ; 2004 h */
static bool
names_mode(const BcAnsi *ansi, unsigned long mode)
{
	const char *at = ansi->parameters;

	while (*at == '?' || *at == ';')
	{
		char	   *end;

		if (strtoul(at + 1, &end, 10) == mode && end > at + 1)
			return ansi->parameters[0] == '?';
		at = end > at + 1 ? end : at + 1;
	}
	return false;
}

static void
set_mode(BcAnsi *ansi, bool on, BcBuf *text)
{
	if (names_mode(ansi, 2004))
		ansi->brackets_paste = on;
	/* the alternate screen: another picture */
	if (names_mode(ansi, 1049) || names_mode(ansi, 1047) || names_mode(ansi, 47))
		leave_line(ansi, text);
}

static void
answer(BcBuf *answers, const char *bytes)
{
	if (answers != NULL)
		bc_buf_str(answers, bytes);
}

static void
restore_cursor(BcAnsi *ansi)
{
	if (ansi->saved != NOT_SAVED)
		go_to(ansi, ansi->saved);
}

static void
control(BcAnsi *ansi, char final, BcBuf *text, BcBuf *answers)
{
	size_t		n = parameter(ansi, 1);
	size_t		few = n < MAX_JUMP ? n : MAX_JUMP;

	switch (final)
	{
		case 'K':
			erase_in_line(ansi);
			break;
		case 'X':				/* erase characters */
			blank(ansi, ansi->column, ansi->column + few);
			break;
		case 'C':
		case 'a':
			go_to(ansi, ansi->column + few);
			break;
		case 'D':
			go_to(ansi, n < ansi->column ? ansi->column - n : 0);
			break;
		case 'G':
		case '`':
			go_to(ansi, n - 1);
			break;
		case 'P':				/* delete characters */
			shift(ansi, n, true);
			break;
		case '@':				/* insert blanks */
			shift(ansi, few, false);
			break;
		case 'b':				/* the last character again */
			while (ansi->shown != 0 && few-- > 0)
				put(ansi, ansi->shown, text);
			break;
		case 's':
			if (ansi->nparameters == 0)
				ansi->saved = ansi->column;
			break;
		case 'u':
			if (ansi->nparameters == 0)
				restore_cursor(ansi);
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
			set_mode(ansi, final == 'h', text);
			break;
		case 'n':
			if (strcmp(ansi->parameters, "6") == 0)
				answer(answers, "\033[1;1R");
			break;
		case 'c':
			if (ansi->nparameters == 0 || strcmp(ansi->parameters, "0") == 0)
				answer(answers, "\033[?1;2c");
			break;
	}
}

static void
begin_control(BcAnsi *ansi)
{
	ansi->state = CONTROL;
	ansi->nparameters = 0;
	ansi->parameters[0] = '\0';
}

static void
begin_string(BcAnsi *ansi)
{
	ansi->state = STRING;
	ansi->string_bytes = 0;
	ansi->previous = 0;
}

/* What follows ESC; a C1 character is the same in one. */
static void
escape(BcAnsi *ansi, unsigned char byte, BcBuf *text)
{
	ansi->state = GROUND;
	if (byte == '[')
		begin_control(ansi);
	else if (byte == ']' || byte == 'P' || byte == 'X' || byte == '^' || byte == '_')
		begin_string(ansi);
	else if (byte >= 0x20 && byte <= 0x2F)
		ansi->state = INTERMEDIATE;
	else if (byte == 'D' || byte == 'E')
		end_line(ansi, text);
	else if (byte == 'M' || byte == 'c')
		leave_line(ansi, text);
	else if (byte == '7')
		ansi->saved = ansi->column;
	else if (byte == '8')
		restore_cursor(ansi);
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
			ansi->revised = true;
			break;
		case '\b':
			if (ansi->column > 0)
				go_to(ansi, ansi->column - 1);
			break;
		case '\t':
			go_to(ansi, (ansi->column / TAB + 1) * TAB);
			break;
		default:
			if (c >= 0x80 && c <= 0x9F)
				escape(ansi, (unsigned char) (c - 0x40), text);
			/* C0 and DEL leave nothing. */
			else if (c >= 0x20 && c != 0x7F)
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
feed_byte(BcAnsi *ansi, unsigned char byte, BcBuf *text, BcBuf *answers)
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
				control(ansi, (char) byte, text, answers);
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
			else if (byte == 0x07 || ++ansi->string_bytes > MAX_STRING ||
					 (byte == 0x9C && ansi->previous == 0xC2))	/* ST as a C1 character */
				ansi->state = GROUND;
			ansi->previous = byte;
			break;
		case STRING_ESCAPE:
			ansi->state = GROUND;
			if (byte != '\\')
				escape(ansi, byte, text);
			break;
	}
}

void
bc_ansi_feed(BcAnsi *ansi, const char *bytes, size_t len, BcBuf *text, BcBuf *answers)
{
	for (size_t i = 0; i < len; i++)
		feed_byte(ansi, (unsigned char) bytes[i], text, answers);
}

void
bc_ansi_pause(BcAnsi *ansi, BcBuf *text)
{
	if (ansi->revised)
		return;
	read_line(ansi);
	if (!goes_on(ansi))
		return;
	say_rest(ansi, text);
	copy(&ansi->said, &ansi->line);
}

void
bc_ansi_end(BcAnsi *ansi, BcBuf *text)
{
	if (ansi->missing > 0)
		character(ansi, REPLACEMENT, text);
	ansi->missing = 0;
	ansi->state = GROUND;
	read_line(ansi);
	say_rest(ansi, text);
	next_line(ansi);
}
