/* SPDX-License-Identifier: PostgreSQL */
/*
 * up.h
 *	  The runner's end of the pipe to the dispatcher: descriptors 0 and 1.
 */
#ifndef BC_RUNNER_UP_H
#define BC_RUNNER_UP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/frame.h"
#include "runner/buf.h"

/* Above so many unsent bytes nothing more should be read from an agent. */
#define BC_UP_HIGH_WATER (1024 * 1024)

typedef enum BcUpStatus
{
	BC_UP_MESSAGE,
	BC_UP_AGAIN,
	BC_UP_CLOSED				/* end of file, or a broken frame */
} BcUpStatus;

/* Says hello. */
extern void bc_up_init(void);

/* Waits for the order.  False when the dispatcher has gone.  "payload" is the caller's. */
extern bool bc_up_wait_order(BcBuf *payload);

/* From now on nothing blocks. */
extern void bc_up_nonblocking(void);

/*
 * The next message that has arrived.  An order begins another turn; messages of
 * an earlier turn are left out: what they say came too late.
 */
extern BcUpStatus bc_up_receive(BcFrame *frame, BcBuf *payload);

/* Queues a message of the current order's turn. */
extern void bc_up_send(BcFrameType type, const char *payload, size_t len);

/* The same for the RESULT; "kept": another order may follow. */
extern void bc_up_send_result(const char *payload, size_t len, bool kept);

/* Writes what can be written without blocking.  False when the dispatcher has gone. */
extern bool bc_up_flush(void);

/* Writes everything, waiting as needed. */
extern bool bc_up_drain(void);

/* Bytes not yet written */
extern size_t bc_up_pending(void);

#endif							/* BC_RUNNER_UP_H */
