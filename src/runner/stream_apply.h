/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_apply.h
 *	  Takes the steps that the lines of an agent brought (stream_map.h): to events
 *	  and parts, by way of acp_map.h.  The clock is the caller's.
 */
#ifndef BC_RUNNER_STREAM_APPLY_H
#define BC_RUNNER_STREAM_APPLY_H

#include <stdint.h>

#include "runner/acp_map.h"
#include "runner/stream_map.h"

/* "now_ms" is wall-clock time since 1970. */
extern void bc_stream_apply(BcStreamTurn *turn, BcAcpMap *map, int64_t now_ms);

#endif							/* BC_RUNNER_STREAM_APPLY_H */
