/* SPDX-License-Identifier: PostgreSQL */
/*
 * frame.h
 *	  The wire contract between the dispatcher and a boocoder-runner.
 *
 * A frame is a 16-byte header followed by its payload.  All integers are
 * big-endian:
 *
 *		u32 length		bytes of payload, at most BC_FRAME_MAX
 *		u8	version		BC_FRAME_VERSION; any other value is refused
 *		u8	type		BcFrameType
 *		u16 flags		BC_FRAME_MORE: the message goes on in the next frame;
 *						BC_FRAME_KEPT, of a RESULT: the runner keeps its agent
 *						and takes another ORDER
 *		u64 turn		generation of the order this frame belongs to
 *
 * Both ends come from one build, so there is no negotiation: a version that
 * differs is an error.  The functions here are pure: no I/O, no allocation,
 * no dependency on either side's libraries.
 */
#ifndef BC_COMMON_FRAME_H
#define BC_COMMON_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define BC_FRAME_VERSION	1
#define BC_FRAME_HEADER		16
#define BC_FRAME_MAX		(1024 * 1024)	/* payload of one frame, bytes */
#define BC_MESSAGE_MAX		(64 * 1024 * 1024)	/* payload of one message, bytes */

#define BC_FRAME_MORE		0x0001
#define BC_FRAME_KEPT		0x0002

/* name, value on the wire, direction */
#define BC_FRAME_TYPES(X) \
	X(ORDER, 1, BC_TO_RUNNER) \
	X(CANCEL, 2, BC_TO_RUNNER) \
	X(ANSWER, 3, BC_TO_RUNNER) \
	X(HELLO, 64, BC_TO_DISPATCHER) \
	X(EVENTS, 65, BC_TO_DISPATCHER) \
	X(RESULT, 66, BC_TO_DISPATCHER) \
	X(SERVER, 67, BC_TO_DISPATCHER)

typedef enum BcFrameDirection
{
	BC_TO_RUNNER,
	BC_TO_DISPATCHER
} BcFrameDirection;

typedef enum BcFrameType
{
#define BC_FRAME_ENUM(name, value, direction) BC_FRAME_##name = value,
	BC_FRAME_TYPES(BC_FRAME_ENUM)
#undef BC_FRAME_ENUM
} BcFrameType;

typedef struct BcFrame
{
	uint32_t	length;			/* bytes of payload */
	BcFrameType type;
	uint16_t	flags;
	uint64_t	turn;
} BcFrame;

typedef enum BcFrameStatus
{
	BC_FRAME_OK = 0,
	BC_FRAME_BAD_VERSION = -1,
	BC_FRAME_BAD_TYPE = -2,		/* unknown, or of the other direction */
	BC_FRAME_TOO_LONG = -3,
	BC_FRAME_BAD_FLAGS = -4
} BcFrameStatus;

/* Writes the header of "frame" to "out", BC_FRAME_HEADER bytes. */
extern void bc_frame_encode(const BcFrame *frame, unsigned char *out);

/*
 * Reads a header of BC_FRAME_HEADER bytes that travels in "direction".
 * "frame" is valid only when BC_FRAME_OK is returned.
 */
extern BcFrameStatus bc_frame_decode(const unsigned char *in, BcFrameDirection direction,
									 BcFrame *frame);

/* A static English phrase for a status, for logs. */
extern const char *bc_frame_strerror(BcFrameStatus status);

#endif							/* BC_COMMON_FRAME_H */
