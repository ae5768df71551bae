/* SPDX-License-Identifier: PostgreSQL */
/*
 * frame.c
 *	  Encoding and checking of frame headers.  See frame.h for the contract.
 */
#include "common/frame.h"

static void
put_uint(unsigned char *out, uint64_t value, int bytes)
{
	for (int i = bytes - 1; i >= 0; i--)
	{
		out[i] = (unsigned char) value;
		value >>= 8;
	}
}

static uint64_t
get_uint(const unsigned char *in, int bytes)
{
	uint64_t	value = 0;

	for (int i = 0; i < bytes; i++)
		value = value << 8 | in[i];
	return value;
}

void
bc_frame_encode(const BcFrame *frame, unsigned char *out)
{
	put_uint(out, frame->length, 4);
	out[4] = BC_FRAME_VERSION;
	out[5] = (unsigned char) frame->type;
	put_uint(out + 6, frame->flags, 2);
	put_uint(out + 8, frame->turn, 8);
}

BcFrameStatus
bc_frame_decode(const unsigned char *in, BcFrameDirection direction, BcFrame *frame)
{
	if (in[4] != BC_FRAME_VERSION)
		return BC_FRAME_BAD_VERSION;
	switch (in[5])
	{
#define BC_FRAME_CASE(name, value, dir) \
		case value: \
			if (direction != dir) \
				return BC_FRAME_BAD_TYPE; \
			frame->type = BC_FRAME_##name; \
			break;
		BC_FRAME_TYPES(BC_FRAME_CASE)
#undef BC_FRAME_CASE
		default:
			return BC_FRAME_BAD_TYPE;
	}
	frame->length = (uint32_t) get_uint(in, 4);
	frame->flags = (uint16_t) get_uint(in + 6, 2);
	frame->turn = get_uint(in + 8, 8);
	if (frame->length > BC_FRAME_MAX)
		return BC_FRAME_TOO_LONG;
	if ((frame->flags & ~(BC_FRAME_MORE | BC_FRAME_KEPT)) ||
		((frame->flags & BC_FRAME_KEPT) && frame->type != BC_FRAME_RESULT))
		return BC_FRAME_BAD_FLAGS;
	return BC_FRAME_OK;
}

const char *
bc_frame_strerror(BcFrameStatus status)
{
	switch (status)
	{
		case BC_FRAME_OK:
			return "no error";
		case BC_FRAME_BAD_VERSION:
			return "frame of another protocol version";
		case BC_FRAME_BAD_TYPE:
			return "frame of an unexpected type";
		case BC_FRAME_TOO_LONG:
			return "frame longer than allowed";
		case BC_FRAME_BAD_FLAGS:
			return "frame with unknown flags";
	}
	return "unknown frame status";
}
