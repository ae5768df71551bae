/* SPDX-License-Identifier: PostgreSQL */
/*
 * clock.c
 *	  Time.
 */
#include <time.h>

#include "runner/clock.h"

#define LONGEST_MS 60000

static int64_t
read_clock(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t
bc_now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

int64_t
bc_wall_ms(void)
{
	return read_clock(CLOCK_REALTIME);
}

void
bc_earliest(int64_t *when, int64_t candidate)
{
	if (candidate != 0 && (*when == 0 || candidate < *when))
		*when = candidate;
}

int
bc_poll_timeout(int64_t when)
{
	int64_t		now = bc_now();

	if (when == 0)
		return -1;
	if (when <= now)
		return 0;
	return (int) (when - now < LONGEST_MS ? when - now : LONGEST_MS);
}
