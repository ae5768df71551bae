/* SPDX-License-Identifier: PostgreSQL */
/*
 * up.c
 *	  Frames to and from the dispatcher.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "runner/up.h"

#define READ_SIZE (64 * 1024)

static BcBuf in;
static BcBuf out;
static uint64_t turn;

void
bc_up_init(void)
{
	BcBuf		hello = BC_BUF_INIT;

	bc_buf_printf(&hello, "{\"version\":%d,\"pid\":%ld}", BC_FRAME_VERSION, (long) getpid());
	bc_up_send(BC_FRAME_HELLO, hello.data, hello.len);
	bc_buf_free(&hello);
}

void
bc_up_nonblocking(void)
{
	(void) fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
	(void) fcntl(STDOUT_FILENO, F_SETFL, fcntl(STDOUT_FILENO, F_GETFL) | O_NONBLOCK);
}

/* Takes one frame out of "in".  True when it completes a message. */
static bool
take_frame(BcFrame *frame, BcBuf *payload, bool *broken, bool *progress)
{
	*progress = false;
	if (in.len < BC_FRAME_HEADER)
		return false;
	if (bc_frame_decode((unsigned char *) in.data, BC_TO_RUNNER, frame) != BC_FRAME_OK ||
		payload->len + frame->length > BC_MESSAGE_MAX)
	{
		*broken = true;
		return false;
	}
	if (in.len < BC_FRAME_HEADER + frame->length)
		return false;
	bc_buf_add(payload, in.data + BC_FRAME_HEADER, frame->length);
	bc_buf_consume(&in, BC_FRAME_HEADER + frame->length);
	*progress = true;
	return (frame->flags & BC_FRAME_MORE) == 0;
}

/* A message in several frames must have arrived whole: "payload" starts empty. */
BcUpStatus
bc_up_receive(BcFrame *frame, BcBuf *payload)
{
	static BcBuf partial;
	bool		broken = false;

	for (;;)
	{
		bool		progress;
		ssize_t		n;

		if (take_frame(frame, &partial, &broken, &progress))
		{
			bc_buf_clear(payload);
			bc_buf_add(payload, partial.data, partial.len);
			bc_buf_clear(&partial);
			if (frame->type == BC_FRAME_ORDER)
				turn = frame->turn;
			else if (frame->turn != turn)
				continue;
			return BC_UP_MESSAGE;
		}
		if (broken)
			return BC_UP_CLOSED;
		if (progress)
			continue;
		n = read(STDIN_FILENO, bc_buf_reserve(&in, READ_SIZE), READ_SIZE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return BC_UP_AGAIN;
		if (n <= 0)
			return BC_UP_CLOSED;
		in.len += (size_t) n;
	}
}

bool
bc_up_wait_order(BcBuf *payload)
{
	BcFrame		frame;

	return bc_up_drain() && bc_up_receive(&frame, payload) == BC_UP_MESSAGE &&
		frame.type == BC_FRAME_ORDER;
}

static void
send_message(BcFrameType type, uint16_t flags, const char *payload, size_t len)
{
	size_t		done = 0;

	do
	{
		size_t		left = len - done;
		BcFrame		frame;
		unsigned char header[BC_FRAME_HEADER];

		frame.length = (uint32_t) (left < BC_FRAME_MAX ? left : BC_FRAME_MAX);
		frame.type = type;
		frame.flags = flags | (left > BC_FRAME_MAX ? BC_FRAME_MORE : 0);
		frame.turn = turn;
		bc_frame_encode(&frame, header);
		bc_buf_add(&out, header, BC_FRAME_HEADER);
		bc_buf_add(&out, payload + done, frame.length);
		done += frame.length;
	} while (done < len);
}

void
bc_up_send(BcFrameType type, const char *payload, size_t len)
{
	send_message(type, 0, payload, len);
}

void
bc_up_send_result(const char *payload, size_t len, bool kept)
{
	send_message(BC_FRAME_RESULT, kept ? BC_FRAME_KEPT : 0, payload, len);
}

bool
bc_up_flush(void)
{
	size_t		done = 0;
	bool		open = true;

	while (done < out.len)
	{
		ssize_t		n = write(STDOUT_FILENO, out.data + done, out.len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
		{
			open = errno == EAGAIN || errno == EWOULDBLOCK;
			break;
		}
		done += (size_t) n;
	}
	bc_buf_consume(&out, done);
	return open;
}

bool
bc_up_drain(void)
{
	while (bc_up_flush())
	{
		struct pollfd p = {STDOUT_FILENO, POLLOUT, 0};

		if (out.len == 0)
			return true;
		(void) poll(&p, 1, -1);
	}
	return false;
}

size_t
bc_up_pending(void)
{
	return out.len;
}
