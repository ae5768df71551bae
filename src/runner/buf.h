/* SPDX-License-Identifier: PostgreSQL */
/*
 * buf.h
 *	  A growing byte buffer.  Running out of memory ends the process: a runner
 *	  serves one task, and its buffers are bounded by their users.
 */
#ifndef BC_RUNNER_BUF_H
#define BC_RUNNER_BUF_H

#include <stddef.h>

typedef struct BcBuf
{
	char	   *data;			/* always NUL-terminated once something was added */
	size_t		len;
	size_t		cap;
} BcBuf;

#define BC_BUF_INIT {NULL, 0, 0}

extern void bc_buf_add(BcBuf *buf, const void *data, size_t len);
extern void bc_buf_str(BcBuf *buf, const char *text);
extern void bc_buf_printf(BcBuf *buf, const char *format,...)
			__attribute__((format(printf, 2, 3)));

/* Makes room for "extra" more bytes and returns where they go; the caller adds to len. */
extern char *bc_buf_reserve(BcBuf *buf, size_t extra);

/* Drops the first "n" bytes. */
extern void bc_buf_consume(BcBuf *buf, size_t n);

/* Empties the buffer; gives large memory back. */
extern void bc_buf_clear(BcBuf *buf);
extern void bc_buf_free(BcBuf *buf);

/* malloc() and friends that end the process instead of returning NULL. */
extern void *bc_alloc(size_t size);
extern char *bc_strdup(const char *text);
extern char *bc_asprintf(const char *format,...) __attribute__((format(printf, 1, 2)));

#endif							/* BC_RUNNER_BUF_H */
