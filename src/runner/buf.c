/* SPDX-License-Identifier: PostgreSQL */
/*
 * buf.c
 *	  A growing byte buffer.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner/buf.h"

#define KEEP_SIZE (256 * 1024)
#define EXIT_NO_MEMORY 70

static void
out_of_memory(void)
{
	static const char message[] = "boocoder-runner: out of memory\n";

	if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0)
		_exit(EXIT_NO_MEMORY);
	_exit(EXIT_NO_MEMORY);
}

void *
bc_alloc(size_t size)
{
	void	   *result = calloc(1, size ? size : 1);

	if (result == NULL)
		out_of_memory();
	return result;
}

char *
bc_strdup(const char *text)
{
	char	   *result = strdup(text);

	if (result == NULL)
		out_of_memory();
	return result;
}

char *
bc_asprintf(const char *format,...)
{
	va_list		args;
	char	   *result;

	va_start(args, format);
	if (vasprintf(&result, format, args) < 0)
		out_of_memory();
	va_end(args);
	return result;
}

char *
bc_buf_reserve(BcBuf *buf, size_t extra)
{
	size_t		need = buf->len + extra + 1;

	if (need > buf->cap)
	{
		size_t		cap = buf->cap ? buf->cap : 256;
		char	   *data;

		while (cap < need)
			cap *= 2;
		data = realloc(buf->data, cap);
		if (data == NULL)
			out_of_memory();
		buf->data = data;
		buf->cap = cap;
	}
	return buf->data + buf->len;
}

void
bc_buf_add(BcBuf *buf, const void *data, size_t len)
{
	char	   *to = bc_buf_reserve(buf, len);

	if (len > 0)
		memcpy(to, data, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
}

void
bc_buf_str(BcBuf *buf, const char *text)
{
	bc_buf_add(buf, text, strlen(text));
}

void
bc_buf_printf(BcBuf *buf, const char *format,...)
{
	va_list		args;
	va_list		again;
	int			n;

	va_start(args, format);
	va_copy(again, args);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n > 0)
	{
		vsnprintf(bc_buf_reserve(buf, (size_t) n), (size_t) n + 1, format, again);
		buf->len += (size_t) n;
	}
	va_end(again);
}

void
bc_buf_consume(BcBuf *buf, size_t n)
{
	if (n >= buf->len)
	{
		bc_buf_clear(buf);
		return;
	}
	memmove(buf->data, buf->data + n, buf->len - n);
	buf->len -= n;
	buf->data[buf->len] = '\0';
}

void
bc_buf_clear(BcBuf *buf)
{
	if (buf->cap > KEEP_SIZE)
		bc_buf_free(buf);
	buf->len = 0;
	if (buf->data != NULL)
		buf->data[0] = '\0';
}

void
bc_buf_free(BcBuf *buf)
{
	free(buf->data);
	buf->data = NULL;
	buf->len = buf->cap = 0;
}
