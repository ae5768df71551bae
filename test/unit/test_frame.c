/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_frame.c
 *	  Headers of frames.
 */
#include "unit.h"

#include "common/frame.h"

static void
header_has_the_documented_bytes(void **state)
{
	static const unsigned char expected[BC_FRAME_HEADER] = {
		0, 0x0F, 0x12, 0x34, BC_FRAME_VERSION, BC_FRAME_EVENTS, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8
	};
	BcFrame		frame = {
		.length = 0x0F1234, .type = BC_FRAME_EVENTS, .flags = BC_FRAME_MORE,
		.turn = 0x0102030405060708
	};
	unsigned char bytes[BC_FRAME_HEADER];

	(void) state;
	bc_frame_encode(&frame, bytes);
	assert_memory_equal(bytes, expected, sizeof(expected));
}

static void
every_type_comes_back_in_its_direction_only(void **state)
{
	static const struct
	{
		BcFrameType type;
		BcFrameDirection direction;
	}			types[] = {
#define ENTRY(name, value, direction) {BC_FRAME_##name, direction},
		BC_FRAME_TYPES(ENTRY)
#undef ENTRY
	};

	(void) state;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
	{
		BcFrame		in = {.length = BC_FRAME_MAX, .type = types[i].type, .turn = UINT64_MAX};
		BcFrame		out;
		unsigned char bytes[BC_FRAME_HEADER];

		bc_frame_encode(&in, bytes);
		assert_int_equal(bc_frame_decode(bytes, types[i].direction, &out), BC_FRAME_OK);
		assert_int_equal(out.length, in.length);
		assert_int_equal(out.type, in.type);
		assert_int_equal(out.flags, 0);
		assert_true(out.turn == in.turn);
		assert_int_equal(bc_frame_decode(bytes, types[i].direction == BC_TO_RUNNER ?
										 BC_TO_DISPATCHER : BC_TO_RUNNER, &out),
						 BC_FRAME_BAD_TYPE);
	}
}

static void
broken_headers_are_told_apart(void **state)
{
	BcFrame		frame = {.length = 1, .type = BC_FRAME_ORDER};
	BcFrame		out;
	unsigned char good[BC_FRAME_HEADER];
	unsigned char bad[BC_FRAME_HEADER];

	(void) state;
	bc_frame_encode(&frame, good);

	memcpy(bad, good, sizeof(bad));
	bad[4] = BC_FRAME_VERSION + 1;
	assert_int_equal(bc_frame_decode(bad, BC_TO_RUNNER, &out), BC_FRAME_BAD_VERSION);

	memcpy(bad, good, sizeof(bad));
	bad[5] = 200;
	assert_int_equal(bc_frame_decode(bad, BC_TO_RUNNER, &out), BC_FRAME_BAD_TYPE);

	memcpy(bad, good, sizeof(bad));
	bad[0] = 0xFF;
	assert_int_equal(bc_frame_decode(bad, BC_TO_RUNNER, &out), BC_FRAME_TOO_LONG);

	memcpy(bad, good, sizeof(bad));
	bad[6] = 0x80;
	assert_int_equal(bc_frame_decode(bad, BC_TO_RUNNER, &out), BC_FRAME_BAD_FLAGS);

	/* An agent is kept when a turn has its result, not before. */
	memcpy(bad, good, sizeof(bad));
	bad[7] = BC_FRAME_KEPT;
	assert_int_equal(bc_frame_decode(bad, BC_TO_RUNNER, &out), BC_FRAME_BAD_FLAGS);
}

static void
every_status_has_a_phrase_of_its_own(void **state)
{
	(void) state;
	for (int a = BC_FRAME_OK; a >= BC_FRAME_BAD_FLAGS; a--)
		for (int b = BC_FRAME_OK; b > a; b--)
			assert_string_not_equal(bc_frame_strerror((BcFrameStatus) a),
									bc_frame_strerror((BcFrameStatus) b));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_has_the_documented_bytes),
		cmocka_unit_test(every_type_comes_back_in_its_direction_only),
		cmocka_unit_test(broken_headers_are_told_apart),
		cmocka_unit_test(every_status_has_a_phrase_of_its_own),
	};

	return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
