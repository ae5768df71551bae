/* SPDX-License-Identifier: PostgreSQL */
/*
 * ansi.h
 *	  From what a program writes to a terminal to plain text.  Pure; takes any
 *	  bytes, in pieces of any size, in bounded memory.
 *
 * A line is text once the cursor has left it.  Within a line the cursor is
 * followed, so that of a line that is written again and again the last state
 * is kept.  A program that moves up and down paints a picture, not text: the
 * lines it leaves are taken as they are left, and one that repeats the last is
 * left out.  Colours, titles and all other sequences leave nothing.
 */
#ifndef BC_RUNNER_ANSI_H
#define BC_RUNNER_ANSI_H

#include <stdbool.h>
#include <stddef.h>

#include "runner/buf.h"

typedef struct BcAnsi BcAnsi;

/* What a program may ask its terminal, and wait for */
enum
{
	BC_ANSI_ASKS_CURSOR = 1,	/* CSI 6 n */
	BC_ANSI_ASKS_ATTRIBUTES = 2 /* CSI c */
};

extern BcAnsi *bc_ansi_new(void);
extern void bc_ansi_free(BcAnsi *ansi);

/* Appends the lines that were finished to "text", as UTF-8, each with its newline. */
extern void bc_ansi_feed(BcAnsi *ansi, const char *bytes, size_t len, BcBuf *text);

/* The program has ended: appends what is left, without a newline. */
extern void bc_ansi_end(BcAnsi *ansi, BcBuf *text);

/* Did the program ask for pasted text to be bracketed? */
extern bool bc_ansi_brackets_paste(const BcAnsi *ansi);

/* What was asked since the last call. */
extern unsigned bc_ansi_questions(BcAnsi *ansi);

#endif							/* BC_RUNNER_ANSI_H */
