/* SPDX-License-Identifier: PostgreSQL */
/*
 * ansi.h
 *	  From what a program writes to a terminal to plain text.  Pure; takes any
 *	  bytes, in pieces of any size, in bounded memory.
 *
 * A line is text once the cursor has left it.  Within a line the cursor is
 * followed (a cell a character, at most 4096 of them), and what is erased,
 * deleted, inserted or repeated is, so that of a line that is written again and
 * again the last state is kept.  A program that moves up and down paints a
 * picture, not text: the lines it leaves are taken as they are left, each from
 * the first column, and one that repeats the last is left out.  The alternate
 * screen is no different.  Colours, titles and all other sequences leave nothing.
 *
 * However the bytes are cut, text and answers are the same.
 */
#ifndef BC_RUNNER_ANSI_H
#define BC_RUNNER_ANSI_H

#include <stdbool.h>
#include <stddef.h>

#include "runner/buf.h"

typedef struct BcAnsi BcAnsi;

extern BcAnsi *bc_ansi_new(void);
extern void bc_ansi_free(BcAnsi *ansi);

/*
 * Appends the lines that were finished to "text", as UTF-8, each with its
 * newline; and to "answers", unless that is NULL, what a program waits for that
 * asks its terminal where the cursor is (CSI 6 n) and what it is (CSI c).
 */
extern void bc_ansi_feed(BcAnsi *ansi, const char *bytes, size_t len, BcBuf *text,
						 BcBuf *answers);

/*
 * Nothing came for a while: appends what is new in the unfinished line, which
 * may be a question.  Not of one that was begun anew, as spinners do.
 */
extern void bc_ansi_pause(BcAnsi *ansi, BcBuf *text);

/* The program has ended: appends what is left, without a newline. */
extern void bc_ansi_end(BcAnsi *ansi, BcBuf *text);

/* Did the program ask for pasted text to be bracketed? */
extern bool bc_ansi_brackets_paste(const BcAnsi *ansi);

#endif							/* BC_RUNNER_ANSI_H */
