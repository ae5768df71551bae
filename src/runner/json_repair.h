/* SPDX-License-Identifier: PostgreSQL */
/*
 * json_repair.h
 *	  Makes the JSON of sloppy writers acceptable to a strict parser.
 */
#ifndef BC_RUNNER_JSON_REPAIR_H
#define BC_RUNNER_JSON_REPAIR_H

#include <stddef.h>

#include "runner/buf.h"

/*
 * Appends a repaired copy of "in", which is clean text (text.h) and
 * NUL-terminated behind its "len" bytes.  Valid JSON without U+0000 stays as it
 * is.  Otherwise:
 *	  escapes of U+0000 and of surrogates without partner: U+FFFD;
 *	  unknown escapes: a backslash that stands for itself;
 *	  control characters: escaped in strings, dropped elsewhere;
 *	  characters beyond ASCII outside of strings: dropped;
 *	  integers out of range: reals; NaN and numbers beyond double: null.
 * The result need not be JSON: what is broken in other ways stays broken.
 */
extern void bc_json_repair(BcBuf *out, const char *in, size_t len);

#endif							/* BC_RUNNER_JSON_REPAIR_H */
