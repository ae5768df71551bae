/* SPDX-License-Identifier: PostgreSQL */
/*
 * talk.c
 *	  A short conversation with a program.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/procs.h"
#include "runner/stream.h"
#include "runner/talk.h"
#include "runner/text.h"
#include "runner/up.h"

#define READ_SIZE (64 * 1024)
#define ERRORS_KEPT (16 * 1024)
#define MAX_WORDS 300			/* bytes */
#define KILL_MS 1500
#define LOOK_MS 20				/* how often the end is looked for without a pidfd */

static bool cancelled;

bool
bc_talk_cancelled(void)
{
	static BcBuf payload;

	while (!cancelled)
	{
		BcFrame		frame;
		BcUpStatus	status = bc_up_receive(&frame, &payload);

		if (status == BC_UP_AGAIN)
			break;
		cancelled = status == BC_UP_CLOSED || frame.type == BC_FRAME_CANCEL;
	}
	return cancelled;
}

bool
bc_talk_start(BcTalk *talk, const json_t *order, const json_t *command, size_t max_line,
			  BcFailure *failure)
{
	BcLaunch	launch = {NULL};
	int			error;

	*talk = (BcTalk) {.child = {0, -1, -1, -1, -1, -1}};
	if (!bc_sandbox_launch(order, command, NULL, &launch, failure))
		return false;
	error = bc_spawn(&launch, NULL, &talk->child);
	talk->sandboxed = !launch.guarded;
	bc_sandbox_free(&launch);
	if (error != 0)
	{
		*failure = (BcFailure) {
			"spawn_failed", bc_asprintf("could not start the program: %s", strerror(error)), NULL
		};
		return false;
	}
	bc_lines_init(&talk->lines, max_line);
	return true;
}

void
bc_talk_write(BcTalk *talk, const char *bytes, size_t len)
{
	if (talk->child.in >= 0)
		bc_buf_add(&talk->input, bytes, len);
}

void
bc_talk_close_input(BcTalk *talk)
{
	bc_spawn_close(&talk->child.in);
}

void
bc_talk_stop(BcTalk *talk)
{
	talk->stop = true;
}

static void
read_errors(BcTalk *talk)
{
	static char buffer[READ_SIZE];

	bc_buf_add(&talk->errors, buffer, bc_spawn_read(&talk->child.err, buffer, READ_SIZE));
	if (talk->errors.len > ERRORS_KEPT)
		bc_buf_consume(&talk->errors, talk->errors.len - ERRORS_KEPT);
}

static void
write_input(BcTalk *talk)
{
	ssize_t		n = write(talk->child.in, talk->input.data, talk->input.len);

	if (n > 0)
		bc_buf_consume(&talk->input, (size_t) n);
	else if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		bc_spawn_close(&talk->child.in);
}

static void
note_end(BcTalk *talk, int status)
{
	talk->ended = true;
	talk->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	talk->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	/* The sandbox reports a signal as a shell does. */
	if (talk->sandboxed && talk->exit_code > 128 && talk->exit_code < 128 + NSIG)
	{
		talk->signal = talk->exit_code - 128;
		talk->exit_code = -1;
	}
	/* What it left behind ends with it; that also closes the pipes. */
	(void) bc_procs_kill_all(KILL_MS);
}

/* Waits for something to happen and serves all but its output: true when there may be some. */
static bool
serve(BcTalk *talk, int64_t until)
{
	BcChild    *child = &talk->child;
	bool		writing = talk->input.len > 0 && child->in >= 0;
	int64_t		now = bc_now();
	int64_t		wait = until > now ? until - now : 0;
	struct pollfd p[] = {
		{cancelled ? -1 : STDIN_FILENO, POLLIN, 0},
		{child->out, POLLIN, 0},
		{child->err, POLLIN, 0},
		{writing ? child->in : -1, POLLOUT, 0},
		{talk->ended ? -1 : child->pidfd, POLLIN, 0},
	};
	int			status;

	if (child->pidfd < 0 && wait > LOOK_MS)
		wait = LOOK_MS;
	(void) poll(p, sizeof(p) / sizeof(p[0]), wait < 60000 ? (int) wait : 60000);
	if (p[0].revents != 0)
		(void) bc_talk_cancelled();
	if (p[2].revents != 0)
		read_errors(talk);
	if (p[3].revents != 0)
		write_input(talk);
	if (!talk->ended && bc_spawn_ended(child, &status))
	{
		note_end(talk, status);
		return true;
	}
	return p[1].revents != 0;
}

BcTalkStatus
bc_talk_listen(BcTalk *talk, int64_t until, BcLineHandler handler, void *arg)
{
	static char buffer[READ_SIZE];

	talk->stop = false;
	/* What came together with the order has been read, so poll() will not tell of it. */
	(void) bc_talk_cancelled();
	while (!cancelled)
	{
		bool		last = talk->ended;
		size_t		n;

		if (talk->child.out < 0)
		{
			bc_lines_end(&talk->lines, handler, arg);
			return talk->stop ? BC_TALK_STOPPED : BC_TALK_CLOSED;
		}
		if (bc_now() >= until)
			return BC_TALK_LATE;
		if (!last && !serve(talk, until))
			continue;
		n = bc_spawn_read(&talk->child.out, buffer, READ_SIZE);
		if (!bc_lines_feed(&talk->lines, buffer, n, handler, arg))
			return BC_TALK_TOO_LONG;
		if (talk->stop)
			return BC_TALK_STOPPED;
		/* Somebody we could not kill holds the pipe. */
		if (last && n == 0)
			bc_spawn_close(&talk->child.out);
	}
	return BC_TALK_CANCELLED;
}

/* Until it has ended; what it still says is read, so that it is not stuck with it, and dropped. */
static void
await_end(BcTalk *talk, int64_t until)
{
	static char buffer[READ_SIZE];

	while (!talk->ended && !cancelled && bc_now() < until)
		if (serve(talk, until))
			(void) bc_spawn_read(&talk->child.out, buffer, READ_SIZE);
}

static int64_t
earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

void
bc_talk_finish(BcTalk *talk, int64_t quit_ms, int64_t term_ms, int64_t until)
{
	bc_spawn_close(&talk->child.in);
	await_end(talk, earlier(bc_now() + quit_ms, until));
	if (!talk->ended)
	{
		bc_spawn_terminate(&talk->child);
		await_end(talk, earlier(bc_now() + term_ms, until));
	}
	if (!talk->ended)
	{
		bc_spawn_kill(&talk->child);
		talk->ended = true;
		talk->exit_code = -1;
		talk->signal = SIGKILL;
	}
	/* What it wrote to its standard error at last */
	while (talk->child.err >= 0)
	{
		size_t		before = talk->errors.len;

		read_errors(talk);
		if (talk->errors.len == before)
			break;
	}
	bc_spawn_close(&talk->child.out);
	bc_spawn_close(&talk->child.err);
	bc_spawn_close(&talk->child.control);
	bc_spawn_close(&talk->child.pidfd);
}

char *
bc_talk_last_words(const BcTalk *talk)
{
	size_t		end = talk->errors.len;
	size_t		start;
	BcBuf		clean = BC_BUF_INIT;

	while (end > 0 && strchr("\n\r\t ", talk->errors.data[end - 1]) != NULL)
		end--;
	for (start = end; start > 0 && talk->errors.data[start - 1] != '\n';)
		start--;
	if (start == end)
		return NULL;
	bc_text_clean(&clean, talk->errors.data + start, end - start);
	clean.data[bc_text_cut(clean.data, clean.len, MAX_WORDS)] = '\0';
	return clean.data;
}

void
bc_talk_free(BcTalk *talk)
{
	bc_lines_free(&talk->lines);
	bc_buf_free(&talk->input);
	bc_buf_free(&talk->errors);
}
