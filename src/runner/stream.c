/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream.c
 *	  Batching of events, and consolidation of text into parts.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/draft.h"
#include "runner/stream.h"
#include "runner/text.h"
#include "runner/up.h"

#define BATCH_BYTES (8 * 1024)
#define BATCH_MS 5
#define MAX_STRING (256 * 1024)
#define MAX_PART (128 * 1024)
#define SUMMARY_BYTES 4000
#define MAX_LOG (2 * 1024 * 1024)	/* of one stream in one turn */
#define LOG_EVENT_COST 64		/* so that there is a limit to small ones, too */

static BcBuf events;
static BcBuf parts;
static int64_t oldest;
static int	next_seq = 1;

static BcBuf text;				/* of the parts under way, clean */
static BcDraft draft;			/* how they divide it */
static bool says_again;
static bool holds_text;
static BcBuf rest;				/* an incomplete character */
static BcTextKind text_kind;
static char *text_message;
static bool in_text;
static BcBuf summary;

/* What was passed on of the output of a program that is no message of the agent */
typedef struct LogStream
{
	const char *name;
	size_t		kept;
	json_int_t	left_out;
} LogStream;

static LogStream logs[] = {{"stderr", 0, 0}, {"setup", 0, 0}, {"stdout", 0, 0}};

#define NLOGS (sizeof(logs) / sizeof(logs[0]))

static const char *const kind_names[] = {
	[BC_TEXT] = "text",
	[BC_REASONING] = "reasoning"
};

void
bc_stream_reset(void)
{
	bc_stream_end_text();
	bc_buf_clear(&summary);
	holds_text = false;
	next_seq = 1;
}

static void
begin(BcBuf *list)
{
	if (events.len == 0 && parts.len == 0)
		oldest = bc_now();
	if (list->len > 0)
		bc_buf_add(list, ",", 1);
}

void
bc_stream_flush(bool force)
{
	BcBuf		batch = BC_BUF_INIT;

	if (events.len == 0 && parts.len == 0)
		return;
	if (!force && events.len + parts.len < BATCH_BYTES && bc_now() - oldest < BATCH_MS)
		return;
	bc_buf_str(&batch, "{\"events\":[");
	bc_buf_add(&batch, events.data, events.len);
	bc_buf_str(&batch, "],\"parts\":[");
	bc_buf_add(&batch, parts.data, parts.len);
	bc_buf_str(&batch, "]}");
	bc_up_send(BC_FRAME_EVENTS, batch.data, batch.len);
	bc_buf_free(&batch);
	bc_buf_clear(&events);
	bc_buf_clear(&parts);
}

int64_t
bc_stream_due(void)
{
	return events.len == 0 && parts.len == 0 ? 0 : oldest + BATCH_MS;
}

static void
delta_event(const char *kind, const char *field, const char *clean, size_t len)
{
	begin(&events);
	bc_buf_printf(&events, "{\"kind\":\"%s\",\"payload\":{\"%s\":", kind, field);
	bc_text_quote(&events, clean, len);
	bc_buf_str(&events, "}}");
	bc_stream_flush(false);
}

void
bc_stream_event(const char *kind, json_t *payload)
{
	begin(&events);
	bc_buf_printf(&events, "{\"kind\":\"%s\",\"payload\":", kind);
	bc_text_json(&events, payload, MAX_STRING);
	bc_buf_add(&events, "}", 1);
	json_decref(payload);
	bc_stream_flush(false);
}

static void
begin_part(const char *kind)
{
	begin(&parts);
	bc_buf_printf(&parts, "{\"seq\":%d,\"kind\":\"%s\",\"payload\":", next_seq++, kind);
}

void
bc_stream_part(const char *kind, json_t *payload)
{
	bc_stream_end_text();
	begin_part(kind);
	bc_text_json(&parts, payload, MAX_STRING);
	bc_buf_add(&parts, "}", 1);
	json_decref(payload);
	bc_stream_flush(false);
}

static void
text_part(BcTextKind kind, const char *clean, size_t len)
{
	if (len == 0)
		return;
	begin_part(kind_names[kind]);
	bc_buf_str(&parts, "{\"text\":");
	bc_text_quote(&parts, clean, len);
	bc_buf_str(&parts, "}}");
	if (kind == BC_TEXT)
	{
		size_t		from = len > SUMMARY_BYTES ? len - SUMMARY_BYTES : 0;

		from = bc_text_start(clean, len, from);
		bc_buf_clear(&summary);
		bc_buf_add(&summary, clean + from, len - from);
	}
}

static void
end_part(void)
{
	if (text.len == 0)
		return;
	for (size_t i = 0; i < draft.n; i++)
	{
		size_t		start = draft.segments[i].start;
		size_t		end = i + 1 < draft.n ? draft.segments[i + 1].start : text.len;

		text_part((BcTextKind) draft.segments[i].kind, text.data + start, end - start);
	}
	bc_buf_clear(&text);
	bc_draft_reset(&draft, text_kind);
	bc_stream_flush(false);
}

static void
add_text(const char *bytes, size_t len)
{
	size_t		before = text.len;

	if (len == 0)
		return;
	bc_text_clean(&text, bytes, len);
	delta_event(kind_names[text_kind], "delta", text.data + before, text.len - before);
	if (says_again && bc_draft_add(&draft, &text, before))
		bc_stream_event("retry", json_pack("{s:s}", "message", "the agent says its text again"));
	/* A part has a limit; what is longer goes on in the next one. */
	if (text.len >= MAX_PART)
		end_part();
}

void
bc_stream_end_text(void)
{
	if (!in_text)
		return;
	/* What was waiting for its rest will not get it. */
	add_text(rest.data, rest.len);
	bc_buf_clear(&rest);
	end_part();
	free(text_message);
	text_message = NULL;
	in_text = false;
}

void
bc_stream_says_again(bool it_does)
{
	says_again = it_does;
}

void
bc_stream_holds_text(bool holds)
{
	holds_text = holds;
}

void
bc_stream_forget_text(void)
{
	bc_buf_clear(&rest);
	bc_buf_clear(&text);
	bc_stream_end_text();
}

void
bc_stream_forget_message(void)
{
	bc_buf_clear(&rest);
	if (in_text && text.len > 0)
		text.len = draft.segments[draft.n - 1].start;
}

void
bc_stream_drop_text(void)
{
	bc_buf_clear(&rest);
	if (in_text)
		bc_draft_drop(&draft, &text);
	bc_stream_end_text();
}

/* Another part begins, unless it is to be seen first what it becomes. */
static void
next_part(BcTextKind kind, const char *message)
{
	/* What was waiting for its rest will not get it. */
	add_text(rest.data, rest.len);
	bc_buf_clear(&rest);
	if (!(says_again || holds_text) || !bc_draft_segment(&draft, text.len, kind))
	{
		bc_stream_end_text();
		return;
	}
	text_kind = kind;
	free(text_message);
	text_message = message != NULL ? bc_strdup(message) : NULL;
}

void
bc_stream_text(BcTextKind kind, const char *message, const char *bytes, size_t len)
{
	size_t		complete;

	if (in_text && (kind != text_kind ||
					(message != NULL && text_message != NULL &&
					 strcmp(message, text_message) != 0)))
		next_part(kind, message);
	if (!in_text)
	{
		in_text = true;
		text_kind = kind;
		text_message = message != NULL ? bc_strdup(message) : NULL;
		bc_draft_reset(&draft, kind);
	}
	bc_buf_add(&rest, bytes, len);
	complete = bc_text_complete(rest.data, rest.len);
	for (size_t done = 0; done < complete;)
	{
		size_t		n = bc_text_cut(rest.data + done, complete - done, MAX_STRING / 4);

		if (n == 0)
			n = complete - done;
		add_text(rest.data + done, n);
		done += n;
	}
	bc_buf_consume(&rest, complete);
}

void
bc_stream_log(const char *stream, const char *bytes, size_t len)
{
	LogStream  *log = logs;

	while (log + 1 < logs + NLOGS && strcmp(log->name, stream) != 0)
		log++;
	if (log->kept >= MAX_LOG)
	{
		log->left_out += (json_int_t) len;
		return;
	}
	log->kept += len + LOG_EVENT_COST;
	begin(&events);
	bc_buf_printf(&events, "{\"kind\":\"log\",\"payload\":{\"stream\":\"%s\",\"text\":", stream);
	bc_text_quote(&events, bytes, len);
	bc_buf_str(&events, "}}");
	bc_stream_flush(false);
}

void
bc_stream_finish(void)
{
	bc_stream_end_text();
	for (size_t i = 0; i < NLOGS; i++)
	{
		if (logs[i].left_out > 0)
			bc_stream_event("log", json_pack("{s:s, s:s, s:I}", "stream", logs[i].name, "text", "",
											 "left_out", logs[i].left_out));
		logs[i].kept = 0;
		logs[i].left_out = 0;
	}
}

const char *
bc_stream_summary(void)
{
	return summary.data != NULL ? summary.data : "";
}
