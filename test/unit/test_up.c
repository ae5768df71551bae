/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_up.c
 *	  The runner's end of the pipe.  Each case is a process of its own, whose
 *	  descriptors 0 and 1 are a socket to the test.
 */
#include "unit.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* The module itself: the library of the tests has another bc_up_send(). */
#include "runner/up.c"

/* In the child: a false condition is an exit status, the line. */
#define CHECK(condition) do { if (!(condition)) _exit(__LINE__ % 250 + 1); } while (0)

static int	peer;
static pid_t child;

static void
run(void (*body) (void))
{
	int			pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	child = fork();
	if (child == 0)
	{
		close(pair[0]);
		dup2(pair[1], STDIN_FILENO);
		dup2(pair[1], STDOUT_FILENO);
		close(pair[1]);
		body();
		_exit(0);
	}
	close(pair[1]);
	peer = pair[0];
}

static void
succeeded(void)
{
	int			status;

	close(peer);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (status != 0)
		fail_msg("the child ended with status %d, line %d or so", status, WEXITSTATUS(status) - 1);
}

static void
send_frame(BcFrameType type, uint16_t flags, const void *payload, size_t len)
{
	BcFrame		frame = {(uint32_t) len, type, flags, 7};
	unsigned char header[BC_FRAME_HEADER];

	bc_frame_encode(&frame, header);
	assert_int_equal(write(peer, header, sizeof(header)), sizeof(header));
	for (size_t done = 0; done < len;)
	{
		ssize_t		n = write(peer, (const char *) payload + done, len - done);

		assert_true(n > 0);
		done += (size_t) n;
	}
}

static void
read_all(void *to, size_t len)
{
	for (size_t done = 0; done < len;)
	{
		ssize_t		n = read(peer, (char *) to + done, len - done);

		assert_true(n > 0);
		done += (size_t) n;
	}
}

static BcFrame
receive(char **payload)
{
	unsigned char header[BC_FRAME_HEADER];
	BcFrame		frame;

	read_all(header, sizeof(header));
	assert_int_equal(bc_frame_decode(header, BC_TO_DISPATCHER, &frame), BC_FRAME_OK);
	*payload = calloc(1, frame.length + 1);
	read_all(*payload, frame.length);
	return frame;
}

static void
greet(void)
{
	bc_up_init();
	CHECK(bc_up_pending() > 0);
	CHECK(bc_up_drain());
	CHECK(bc_up_pending() == 0);
}

static void
it_says_hello(void **state)
{
	char		expected[64];
	char	   *payload;
	BcFrame		frame;

	(void) state;
	run(greet);
	frame = receive(&payload);
	snprintf(expected, sizeof(expected), "{\"version\":1,\"pid\":%ld}", (long) child);
	assert_int_equal(frame.type, BC_FRAME_HELLO);
	assert_int_equal(frame.turn, 0);
	assert_string_equal(payload, expected);
	free(payload);
	succeeded();
}

static void
take_order(void)
{
	BcBuf		payload = BC_BUF_INIT;

	CHECK(bc_up_wait_order(&payload));
	CHECK(payload.len == 3 * BC_FRAME_MAX / 2);
	CHECK(payload.data[0] == 'o' && payload.data[payload.len - 1] == 'o');
	/* What is sent then belongs to its turn, in frames of a bounded size. */
	bc_up_send(BC_FRAME_EVENTS, payload.data, payload.len);
	bc_up_send(BC_FRAME_RESULT, NULL, 0);
	CHECK(bc_up_drain());
}

static void
long_messages_travel_in_frames(void **state)
{
	char	   *text = malloc(3 * BC_FRAME_MAX / 2);
	char	   *payload;
	BcFrame		frame;

	(void) state;
	memset(text, 'o', 3 * BC_FRAME_MAX / 2);
	run(take_order);
	send_frame(BC_FRAME_ORDER, BC_FRAME_MORE, text, BC_FRAME_MAX);
	send_frame(BC_FRAME_ORDER, 0, text, BC_FRAME_MAX / 2);
	frame = receive(&payload);
	assert_int_equal(frame.type, BC_FRAME_EVENTS);
	assert_int_equal(frame.flags, BC_FRAME_MORE);
	assert_int_equal(frame.length, BC_FRAME_MAX);
	assert_int_equal(frame.turn, 7);
	free(payload);
	frame = receive(&payload);
	assert_int_equal(frame.flags, 0);
	assert_int_equal(frame.length, BC_FRAME_MAX / 2);
	free(payload);
	frame = receive(&payload);
	assert_int_equal(frame.type, BC_FRAME_RESULT);
	assert_int_equal(frame.length, 0);
	free(payload);
	free(text);
	succeeded();
}

static void
take_two(void)
{
	BcBuf		payload = BC_BUF_INIT;
	BcFrame		frame;

	CHECK(bc_up_wait_order(&payload));
	CHECK(payload.len == 5 && memcmp(payload.data, "order", 5) == 0);
	CHECK(bc_up_receive(&frame, &payload) == BC_UP_MESSAGE);
	CHECK(frame.type == BC_FRAME_CANCEL && payload.len == 0);
	CHECK(bc_up_receive(&frame, &payload) == BC_UP_CLOSED);
}

static void
frames_may_arrive_in_any_pieces(void **state)
{
	BcFrame		order = {5, BC_FRAME_ORDER, 0, 7};
	BcFrame		cancel = {0, BC_FRAME_CANCEL, 0, 7};
	unsigned char bytes[2 * BC_FRAME_HEADER + 5];

	(void) state;
	bc_frame_encode(&order, bytes);
	memcpy(bytes + BC_FRAME_HEADER, "order", 5);
	bc_frame_encode(&cancel, bytes + BC_FRAME_HEADER + 5);
	run(take_two);
	for (size_t i = 0; i < sizeof(bytes); i++)
		assert_int_equal(write(peer, bytes + i, 1), 1);
	succeeded();
	run(take_two);
	assert_int_equal(write(peer, bytes, sizeof(bytes)), sizeof(bytes));
	succeeded();
}

static void
no_order(void)
{
	BcBuf		payload = BC_BUF_INIT;

	CHECK(!bc_up_wait_order(&payload));
}

static void
what_is_no_order_ends_it(void **state)
{
	static const char garbage[64] = "\xff\xff\xff\xff";
	BcFrame		hello = {0, BC_FRAME_HELLO, 0, 0};
	BcFrame		large = {0, BC_FRAME_ORDER, 0, 0};
	unsigned char header[BC_FRAME_HEADER];

	(void) state;
	run(no_order);
	succeeded();
	run(no_order);
	assert_int_equal(write(peer, garbage, sizeof(garbage)), sizeof(garbage));
	succeeded();
	run(no_order);
	send_frame(BC_FRAME_CANCEL, 0, NULL, 0);
	succeeded();
	run(no_order);
	bc_frame_encode(&hello, header);
	assert_int_equal(write(peer, header, sizeof(header)), sizeof(header));
	succeeded();
	run(no_order);
	large.length = BC_FRAME_MAX + 1;
	bc_frame_encode(&large, header);
	assert_int_equal(write(peer, header, sizeof(header)), sizeof(header));
	succeeded();
	/* The pipe ends within a frame. */
	run(no_order);
	large.length = 10;
	bc_frame_encode(&large, header);
	assert_int_equal(write(peer, header, sizeof(header)), sizeof(header));
	assert_int_equal(write(peer, "12345", 5), 5);
	succeeded();
}

static void
fill_up(void)
{
	char	   *text = calloc(1, BC_FRAME_MAX);
	BcBuf		payload = BC_BUF_INIT;
	BcFrame		frame;

	bc_up_nonblocking();
	CHECK(bc_up_receive(&frame, &payload) == BC_UP_AGAIN);
	for (int i = 0; i < 4; i++)
		bc_up_send(BC_FRAME_EVENTS, text, BC_FRAME_MAX);
	CHECK(bc_up_flush());
	CHECK(bc_up_pending() > BC_UP_HIGH_WATER);
	CHECK(bc_up_drain());
	CHECK(bc_up_pending() == 0);
}

static void
a_full_pipe_does_not_block(void **state)
{
	(void) state;
	run(fill_up);
	for (int i = 0; i < 4; i++)
	{
		char	   *payload;
		BcFrame		frame = receive(&payload);

		assert_int_equal(frame.length, BC_FRAME_MAX);
		free(payload);
	}
	succeeded();
}

static void
write_to_nobody(void)
{
	char		byte;

	(void) signal(SIGPIPE, SIG_IGN);
	CHECK(read(STDIN_FILENO, &byte, 1) == 0);
	bc_up_send(BC_FRAME_EVENTS, "{}", 2);
	CHECK(!bc_up_flush());
	CHECK(!bc_up_drain());
}

static void
a_dispatcher_that_went_is_noticed(void **state)
{
	(void) state;
	run(write_to_nobody);
	succeeded();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_says_hello),
		cmocka_unit_test(long_messages_travel_in_frames),
		cmocka_unit_test(frames_may_arrive_in_any_pieces),
		cmocka_unit_test(what_is_no_order_ends_it),
		cmocka_unit_test(a_full_pipe_does_not_block),
		cmocka_unit_test(a_dispatcher_that_went_is_noticed),
	};

	return cmocka_run_group_tests_name("up", tests, NULL, NULL);
}
