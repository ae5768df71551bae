/* SPDX-License-Identifier: PostgreSQL */
/*
 * text.h
 *	  Text that the database accepts, made of bytes from anywhere.
 *
 * PostgreSQL wants valid UTF-8 without NUL, and jsonb refuses U+0000.  What
 * does not fit is replaced by U+FFFD; nothing is ever refused here.
 */
#ifndef BC_RUNNER_TEXT_H
#define BC_RUNNER_TEXT_H

#include <jansson.h>

#include "runner/buf.h"

/* Appends "len" bytes as clean text. */
extern void bc_text_clean(BcBuf *out, const char *in, size_t len);

/*
 * How many of the "len" bytes can be cleaned now; the rest, three bytes at the
 * most, may be the beginning of a character whose end has not arrived.
 */
extern size_t bc_text_complete(const char *in, size_t len);

/* The largest length <= max that does not cut a character of clean text. */
extern size_t bc_text_cut(const char *text, size_t len, size_t max);

/* The smallest offset >= from at which a character of clean text begins. */
extern size_t bc_text_start(const char *text, size_t len, size_t from);

/* Is it valid UTF-8 without NUL? */
extern int	bc_text_is_clean(const char *in, size_t len);

/* Appends a JSON string, quotes included, of cleaned bytes. */
extern void bc_text_quote(BcBuf *out, const char *in, size_t len);

/*
 * Appends a JSON value as the database will accept it.  Strings longer than
 * "max_string" bytes are cut and end in an ellipsis; nesting deeper than a
 * sane limit becomes null.
 */
extern void bc_text_json(BcBuf *out, const json_t *value, size_t max_string);

/*
 * Parses one JSON value out of bytes that may be broken in ways agents are
 * known for: invalid UTF-8, NULs, lone surrogates, integers out of range.
 * Returns a new reference, or NULL when it is no JSON at all.
 */
extern json_t *bc_text_parse(const char *in, size_t len);

#endif							/* BC_RUNNER_TEXT_H */
