/* SPDX-License-Identifier: PostgreSQL */
/*
 * channel.c
 *	  Frame reading and writing on a runner's socket.
 */
#include "postgres.h"

#include <sys/socket.h>
#include <unistd.h>

#include "extension/channel.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#define READ_SIZE (64 * 1024)
/* Buffers that grew past this are given back once they are empty. */
#define KEEP_SIZE (256 * 1024)

void
bc_channel_open(BcChannel *channel, int fd)
{
	channel->fd = fd;
	channel->context = CurrentMemoryContext;
	channel->error = NULL;
	channel->delivered = false;
	initStringInfo(&channel->in);
	initStringInfo(&channel->message);
	initStringInfo(&channel->out);
}

void
bc_channel_close(BcChannel *channel)
{
	if (channel->fd < 0)
		return;
	close(channel->fd);
	channel->fd = -1;
	pfree(channel->in.data);
	pfree(channel->message.data);
	pfree(channel->out.data);
}

/* Drops the first "used" bytes of a buffer. */
static void
consume(StringInfo buffer, int used)
{
	if (used == buffer->len && buffer->maxlen > KEEP_SIZE)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(buffer->data));

		pfree(buffer->data);
		initStringInfo(buffer);
		MemoryContextSwitchTo(old);
		return;
	}
	memmove(buffer->data, buffer->data + used, buffer->len - used);
	buffer->len -= used;
	buffer->data[buffer->len] = '\0';
}

void
bc_channel_send(BcChannel *channel, BcFrameType type, uint64 turn, const char *payload,
				size_t length)
{
	size_t		done = 0;

	do
	{
		BcFrame		frame;
		unsigned char header[BC_FRAME_HEADER];

		frame.length = Min(length - done, BC_FRAME_MAX);
		frame.type = type;
		frame.flags = done + frame.length < length ? BC_FRAME_MORE : 0;
		frame.turn = turn;
		bc_frame_encode(&frame, header);
		appendBinaryStringInfo(&channel->out, (char *) header, BC_FRAME_HEADER);
		if (frame.length > 0)
			appendBinaryStringInfo(&channel->out, payload + done, frame.length);
		done += frame.length;
	} while (done < length);
}

bool
bc_channel_flush(BcChannel *channel)
{
	int			done = 0;

	while (done < channel->out.len)
	{
		ssize_t		n = send(channel->fd, channel->out.data + done, channel->out.len - done,
							 MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
		{
			/* A peer that is gone shows as end of file when we read. */
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				done = channel->out.len;
			break;
		}
		done += n;
	}
	if (done > 0)
		consume(&channel->out, done);
	return channel->out.len == 0;
}

/* Moves one frame from "in" to "message"; true when the message is whole. */
static bool
take_frame(BcChannel *channel, BcFrame *frame, bool *progress)
{
	BcFrameStatus status;

	*progress = false;
	if (channel->in.len < BC_FRAME_HEADER)
		return false;
	status = bc_frame_decode((unsigned char *) channel->in.data, BC_TO_DISPATCHER, frame);
	if (status != BC_FRAME_OK)
	{
		channel->error = bc_frame_strerror(status);
		return false;
	}
	if (channel->in.len < BC_FRAME_HEADER + (int) frame->length)
		return false;
	if (channel->message.len + frame->length > BC_MESSAGE_MAX)
	{
		channel->error = "message longer than allowed";
		return false;
	}
	appendBinaryStringInfo(&channel->message, channel->in.data + BC_FRAME_HEADER, frame->length);
	consume(&channel->in, BC_FRAME_HEADER + frame->length);
	*progress = true;
	return (frame->flags & BC_FRAME_MORE) == 0;
}

BcChannelStatus
bc_channel_receive(BcChannel *channel, BcFrame *frame, bool reading)
{
	/* one of which more frames are to come stays */
	if (channel->delivered)
		consume(&channel->message, channel->message.len);
	channel->delivered = false;
	for (;;)
	{
		bool		progress;
		ssize_t		n;

		if (take_frame(channel, frame, &progress))
		{
			if (pg_verify_mbstr(PG_UTF8, channel->message.data, channel->message.len, true) &&
				memchr(channel->message.data, '\0', channel->message.len) == NULL)
			{
				channel->delivered = true;
				return BC_CHANNEL_MESSAGE;
			}
			channel->error = "message that is not text";
		}
		if (channel->error != NULL)
			return BC_CHANNEL_CLOSED;
		if (progress)
			continue;
		if (!reading)
			return BC_CHANNEL_AGAIN;

		enlargeStringInfo(&channel->in, READ_SIZE);
		n = recv(channel->fd, channel->in.data + channel->in.len, READ_SIZE, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return BC_CHANNEL_AGAIN;
		if (n <= 0)
			return BC_CHANNEL_CLOSED;
		channel->in.len += n;
		channel->in.data[channel->in.len] = '\0';
	}
}
