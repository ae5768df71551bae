/* SPDX-License-Identifier: PostgreSQL */
/*
 * clock.h
 *	  Time: what an event loop, and what its events need of it.
 */
#ifndef BC_RUNNER_CLOCK_H
#define BC_RUNNER_CLOCK_H

#include <stdint.h>

/* Milliseconds of a clock that only goes forward. */
extern int64_t bc_now(void);

/* Milliseconds since 1970, as people see them. */
extern int64_t bc_wall_ms(void);

/* Makes *when the earlier of the two; 0 is never. */
extern void bc_earliest(int64_t *when, int64_t candidate);

/* How long poll() is to wait until "when" of bc_now(); at most a minute, and without end for 0. */
extern int	bc_poll_timeout(int64_t when);

#endif							/* BC_RUNNER_CLOCK_H */
