/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_frame.c
 *	  A header that is accepted is the one that was written.
 */
#include "fuzz.h"

#include "common/frame.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (; size >= BC_FRAME_HEADER; data += BC_FRAME_HEADER, size -= BC_FRAME_HEADER)
		for (int direction = BC_TO_RUNNER; direction <= BC_TO_DISPATCHER; direction++)
		{
			BcFrame		frame;
			unsigned char again[BC_FRAME_HEADER];
			BcFrameStatus status = bc_frame_decode(data, (BcFrameDirection) direction, &frame);

			REQUIRE(bc_frame_strerror(status) != NULL);
			if (status != BC_FRAME_OK)
				continue;
			REQUIRE(frame.length <= BC_FRAME_MAX);
			bc_frame_encode(&frame, again);
			REQUIRE(memcmp(again, data, BC_FRAME_HEADER) == 0);
		}
	return 0;
}
