/* SPDX-License-Identifier: PostgreSQL */
/*
 * sse.c
 *	  Cuts a stream of bytes into server-sent events.
 */
#include <string.h>

#include "runner/sse.h"

static const char byte_order_mark[] = "\xef\xbb\xbf";

/* What a feed is about */
typedef struct Feed
{
	BcSse	   *sse;
	BcSseHandler handler;
	void	   *arg;
	bool		fits;
} Feed;

void
bc_sse_init(BcSse *sse, size_t max)
{
	*sse = (BcSse) {.data = BC_BUF_INIT, .max = max};
	/* A line has the name of its field, too. */
	bc_lines_init(&sse->lines, max > 0 ? max + 16 : 0);
}

void
bc_sse_free(BcSse *sse)
{
	bc_lines_free(&sse->lines);
	bc_buf_free(&sse->data);
}

void
bc_sse_reset(BcSse *sse)
{
	size_t		max = sse->max;

	bc_sse_free(sse);
	bc_sse_init(sse, max);
}

static void
end_event(Feed *feed)
{
	BcSse	   *sse = feed->sse;

	if (sse->has_data && !sse->skipping)
		feed->handler(sse->data.len > 0 ? sse->data.data : "", sse->data.len, feed->arg);
	bc_buf_clear(&sse->data);
	sse->has_data = sse->skipping = false;
}

static void
add_data(Feed *feed, const char *value, size_t len)
{
	BcSse	   *sse = feed->sse;

	if (sse->skipping)
		return;
	if (sse->max > 0 && sse->data.len + len + 1 > sse->max)
	{
		sse->skipping = true;
		feed->fits = false;
		bc_buf_clear(&sse->data);
		return;
	}
	if (sse->has_data)
		bc_buf_add(&sse->data, "\n", 1);
	bc_buf_add(&sse->data, value, len);
	sse->has_data = true;
}

static void
read_line(const char *line, size_t len, void *arg)
{
	static const char name[] = "data";
	size_t		n = sizeof(name) - 1;
	Feed	   *feed = arg;

	if (!feed->sse->begun && len >= 3 && memcmp(line, byte_order_mark, 3) == 0)
	{
		line += 3;
		len -= 3;
	}
	feed->sse->begun = true;
	if (len == 0)
	{
		end_event(feed);
		return;
	}
	if (len < n || memcmp(line, name, n) != 0 || (len > n && line[n] != ':'))
		return;
	n += len > n;				/* the colon */
	n += len > n && line[n] == ' ';
	add_data(feed, line + n, len - n);
}

bool
bc_sse_feed(BcSse *sse, const char *bytes, size_t len, BcSseHandler handler, void *arg)
{
	Feed		feed = {sse, handler, arg, true};

	/* A line that was too long was dropped, and with it its event can't be whole. */
	while (len > 0)
	{
		const char *newline = memchr(bytes, '\n', len);
		size_t		n = newline != NULL ? (size_t) (newline - bytes) + 1 : len;

		if (!bc_lines_feed(&sse->lines, bytes, n, read_line, &feed))
		{
			sse->skipping = true;
			sse->has_data = true;
			feed.fits = false;
			bc_buf_clear(&sse->data);
		}
		bytes += n;
		len -= n;
	}
	return feed.fits;
}
