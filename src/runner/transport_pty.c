/* SPDX-License-Identifier: PostgreSQL */
/*
 * transport_pty.c
 *	  A program for people, on a terminal that nobody sits at: what it shows is
 *	  text, the prompt is typed, its exit status is the outcome.
 */
#include <stdlib.h>
#include <string.h>

#include "runner/agent.h"
#include "runner/ansi.h"
#include "runner/command_line.h"
#include "runner/stream.h"

#define TYPE_AFTER_MS 500		/* to a program that says nothing first */
#define TYPE_PAUSE_MS 100		/* behind the first output: it may not be ready to read */
#define RAW_PIECE 3072			/* bytes of an event */

static BcAnsi *ansi;
static BcBuf text;
static BcBuf paste;
static bool typed;
static bool heard;
static int64_t type_at;			/* 0: not by time */

static void
start(void)
{
	bc_ansi_free(ansi);
	ansi = bc_ansi_new();
	heard = false;
	typed = bc_command_has_prompt(bc_agent_order());
	type_at = typed ? 0 : bc_now() + TYPE_AFTER_MS;
}

/* Types the prompt.  In brackets it is one paste, without them every line of it is entered. */
static void
type_prompt(void)
{
	const char *prompt = json_string_value(json_object_get(bc_agent_order(), "input"));
	bool		brackets = bc_ansi_brackets_paste(ansi);

	typed = true;
	type_at = 0;
	if (prompt == NULL)
		return;
	bc_buf_clear(&paste);
	if (brackets)
		bc_buf_str(&paste, "\033[200~");
	/* Control characters are keys: only those of text are typed. */
	for (const char *p = prompt; *p != '\0'; p++)
		if (((unsigned char) *p >= 0x20 && *p != 0x7F) || *p == '\t' || *p == '\n')
			bc_buf_add(&paste, p, 1);
	if (brackets)
		bc_buf_str(&paste, "\033[201~");
	bc_agent_write(paste.data, paste.len);
	bc_agent_write("\r", 1);
}

static int64_t
due(void)
{
	return type_at;
}

static void
tick(void)
{
	type_prompt();
}

static char *
base64(const char *bytes, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *in = (const unsigned char *) bytes;
	char	   *out = bc_alloc((len + 2) / 3 * 4 + 1);
	char	   *p = out;

	for (size_t i = 0; i < len; i += 3)
	{
		unsigned	n = (unsigned) in[i] << 16 |
			(i + 1 < len ? (unsigned) in[i + 1] << 8 : 0) | (i + 2 < len ? in[i + 2] : 0);

		*p++ = digits[n >> 18];
		*p++ = digits[n >> 12 & 63];
		*p++ = i + 1 < len ? digits[n >> 6 & 63] : '=';
		*p++ = i + 2 < len ? digits[n & 63] : '=';
	}
	*p = '\0';
	return out;
}

/* The bytes as they came, for who wants to play them back. */
static void
keep_raw(const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i += RAW_PIECE)
	{
		char	   *piece = base64(bytes + i, len - i < RAW_PIECE ? len - i : RAW_PIECE);

		bc_stream_event("log", json_pack("{s:s, s:s}", "stream", "raw", "base64", piece));
		free(piece);
	}
}

static void
say(void)
{
	if (text.len > 0)
		bc_stream_text(BC_TEXT, NULL, text.data, text.len);
	bc_buf_clear(&text);
}

/* What a program may wait for before it goes on */
static void
answer_questions(void)
{
	unsigned	questions = bc_ansi_questions(ansi);

	if (questions & BC_ANSI_ASKS_CURSOR)
		bc_agent_write("\033[1;1R", 6);
	if (questions & BC_ANSI_ASKS_ATTRIBUTES)
		bc_agent_write("\033[?1;2c", 7);
}

static void
output(const char *bytes, size_t len)
{
	if (json_is_true(json_object_get(bc_agent_order(), "raw")))
		keep_raw(bytes, len);
	bc_ansi_feed(ansi, bytes, len, &text);
	answer_questions();
	say();
	/* the first one: some never stop */
	if (!typed && !heard)
		type_at = bc_now() + TYPE_PAUSE_MS;
	heard = true;
}

static void
cancel(void)
{
	bc_agent_write("\003", 1);	/* ^C */
}

static void
ended(int code, int signal)
{
	bc_ansi_end(ansi, &text);
	say();
	bc_agent_finish_by_exit(code, signal);
}

const BcTransport bc_transport_pty = {
	.name = "pty",
	.terminal = true,
	.command = bc_command_line,
	.start = start,
	.output = output,
	.cancel = cancel,
	.due = due,
	.tick = tick,
	.ended = ended,
};
