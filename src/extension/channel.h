/* SPDX-License-Identifier: PostgreSQL */
/*
 * channel.h
 *	  Messages to and from one runner over its socket, without blocking.
 *
 * The channel knows frames, not what is in them.  It allocates in the memory
 * context that is current when it is opened and may raise ERROR only for lack
 * of memory.
 */
#ifndef BC_EXTENSION_CHANNEL_H
#define BC_EXTENSION_CHANNEL_H

#include "common/frame.h"
#include "lib/stringinfo.h"

typedef struct BcChannel
{
	int			fd;				/* -1 when closed */
	MemoryContext context;
	StringInfoData in;			/* bytes read but not yet used */
	StringInfoData message;		/* payload of the message under way */
	bool		delivered;		/* it was whole, and told of */
	StringInfoData out;			/* bytes not yet written */
	const char *error;			/* why the peer can't be understood, or NULL */
} BcChannel;

typedef enum BcChannelStatus
{
	BC_CHANNEL_MESSAGE,			/* a whole message was read */
	BC_CHANNEL_AGAIN,			/* nothing more now */
	BC_CHANNEL_CLOSED			/* end of file, read error, or a broken frame: see error */
} BcChannelStatus;

/* Takes over "fd". */
extern void bc_channel_open(BcChannel *channel, int fd);

/* Closes the socket and frees the buffers; harmless when closed already. */
extern void bc_channel_close(BcChannel *channel);

/* Queues a message; bc_channel_flush() writes it. */
extern void bc_channel_send(BcChannel *channel, BcFrameType type, uint64 turn,
							const char *payload, size_t length);

/* Writes what the socket takes.  True when nothing is left. */
extern bool bc_channel_flush(BcChannel *channel);

/*
 * The next whole message.  Its payload is in channel->message, valid until the
 * next call, and always text that the server can take (valid UTF-8, no NUL).
 * The socket is read only with "reading".  Go on until it says AGAIN before you
 * wait for the socket: what was read from it does not make it readable again.
 */
extern BcChannelStatus bc_channel_receive(BcChannel *channel, BcFrame *frame, bool reading);

#endif							/* BC_EXTENSION_CHANNEL_H */
