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
#include "runner/spawn.h"
#include "runner/stream.h"

#define TYPE_AFTER_MS 500		/* to a program that says nothing first */
#define TYPE_PAUSE_MS 100		/* behind the first output: it may not be ready to read */
#define TYPE_PATIENCE_MS 2000	/* with a line that is too long for the terminal as it is */
#define TYPE_AGAIN_MS 50
#define PAUSE_MS 200			/* after which an unfinished line is said */
#define RAW_PIECE 3072			/* bytes of an event */

static BcAnsi *ansi;
static BcBuf text;
static BcBuf answers;
static BcBuf paste;
static bool typed;
static bool heard;
static int64_t type_at;			/* 0: not by time */
static int64_t give_up_at;		/* typing; 0: the time for it has not begun */
static int64_t pause_at;

static void
start(void)
{
	bc_ansi_free(ansi);
	ansi = bc_ansi_new();
	heard = false;
	pause_at = give_up_at = 0;
	typed = bc_command_has_prompt(bc_agent_order());
	type_at = typed ? 0 : bc_now() + TYPE_AFTER_MS;
}

/* How many bytes there are a control character, which is a key; 0: text, as are tab and newline. */
static size_t
key_length(const char *at)
{
	unsigned char c = (unsigned char) at[0];

	if (c == 0xC2 && (unsigned char) at[1] >= 0x80 && (unsigned char) at[1] <= 0x9F)
		return 2;
	return (c < 0x20 && c != '\t' && c != '\n') || c == 0x7F ? 1 : 0;
}

/* The prompt as it is typed.  In brackets it is one paste, without them every line of it is entered. */
static void
make_paste(const char *prompt)
{
	bool		brackets = bc_ansi_brackets_paste(ansi);

	bc_buf_clear(&paste);
	if (brackets)
		bc_buf_str(&paste, "\033[200~");
	while (*prompt != '\0')
	{
		size_t		key = key_length(prompt);

		if (key == 0)
			bc_buf_add(&paste, prompt, 1);
		prompt += key > 0 ? key : 1;
	}
	if (brackets)
		bc_buf_str(&paste, "\033[201~");
	bc_buf_str(&paste, "\r");
}

static size_t
longest_line(const char *lines)
{
	size_t		longest = 0;

	while (*lines != '\0')
	{
		size_t		len = strcspn(lines, "\r\n");

		longest = len > longest ? len : longest;
		lines += len + (lines[len] != '\0');
	}
	return longest;
}

/* The rest of a line would be lost without a word. */
static void
refuse_to_type(void)
{
	typed = true;
	type_at = 0;
	bc_agent_report("hint", json_string("Give the prompt as an argument: {prompt} in the provider's command."));
	bc_agent_finish("failed", "line_too_long",
					"the program reads lines of its terminal, which have at most 4095 bytes; one of the prompt is longer");
}

static void
type_prompt(int64_t now)
{
	const char *prompt = json_string_value(json_object_get(bc_agent_order(), "input"));

	make_paste(prompt != NULL ? prompt : "");
	if (longest_line(paste.data) > BC_SPAWN_LINE && bc_agent_reads_lines())
	{
		/* It may be about to read keys. */
		if (give_up_at == 0)
			give_up_at = now + TYPE_PATIENCE_MS;
		type_at = now + TYPE_AGAIN_MS;
		if (now >= give_up_at)
			refuse_to_type();
		return;
	}
	typed = true;
	type_at = 0;
	if (prompt != NULL)
		bc_agent_write(paste.data, paste.len);
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

static int64_t
due(void)
{
	return type_at != 0 && (pause_at == 0 || type_at < pause_at) ? type_at : pause_at;
}

static void
tick(void)
{
	int64_t		now = bc_now();

	if (type_at != 0 && type_at <= now)
		type_prompt(now);
	if (pause_at != 0 && pause_at <= now)
	{
		pause_at = 0;
		bc_ansi_pause(ansi, &text);
		say();
	}
}

static void
output(const char *bytes, size_t len)
{
	if (json_is_true(json_object_get(bc_agent_order(), "raw")))
		keep_raw(bytes, len);
	bc_buf_clear(&answers);
	bc_ansi_feed(ansi, bytes, len, &text, &answers);
	if (answers.len > 0)
		bc_agent_write(answers.data, answers.len);
	say();
	pause_at = bc_now() + PAUSE_MS;
	/* the first one: some never stop */
	if (!typed && !heard && give_up_at == 0)
		type_at = bc_now() + TYPE_PAUSE_MS;
	heard = true;
}

static void
cancel(void)
{
	/* A prompt that was not typed yet would be work. */
	typed = true;
	type_at = 0;
	bc_agent_write("\003", 1);	/* ^C */
}

static void
ended(int code, int signal)
{
	bc_agent_finish_by_exit(code, signal);
}

/* The last line is said, however it came to an end: it may be the question that nobody answered. */
static void
settled(const char *outcome)
{
	(void) outcome;
	if (ansi == NULL)			/* it never started */
		return;
	bc_ansi_end(ansi, &text);
	say();
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
	.settled = settled,
};
