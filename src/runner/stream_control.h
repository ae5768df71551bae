/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_control.h
 *	  What claude and those that write to it say beside the conversation, with
 *	  --input-format stream-json: permissions, the mode, and the end of a turn
 *	  on request.
 */
#ifndef BC_RUNNER_STREAM_CONTROL_H
#define BC_RUNNER_STREAM_CONTROL_H

#include <jansson.h>
#include <stdbool.h>

#include "runner/stream_map.h"

/* Does the command of the order have it? */
extern bool bc_control_spoken(const json_t *order);

/* Begins; "prompt" may be NULL. */
extern void bc_control_start(const char *prompt);

/* Serves a line; false: it is none of these.  What it asks for are steps of the turn. */
extern bool bc_control_line(BcStreamTurn *turn, const json_t *line);

/* An answer of a person, or a change of the mode: the payload of an ANSWER. */
extern void bc_control_answer(const json_t *answer);

/* Does a person have to answer? */
extern bool bc_control_waiting(void);

/* Answers what is pending and asks the agent to end its turn. */
extern void bc_control_cancel(void);

#endif							/* BC_RUNNER_STREAM_CONTROL_H */
