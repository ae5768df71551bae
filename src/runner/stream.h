/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream.h
 *	  What an agent does, as events and parts on their way to the dispatcher.
 *
 * An event is sent for everything that happens, as it happens.  A part is sent
 * once, when it is finished: a run of text deltas is one text part.  Payloads
 * passed as json_t are stolen.
 */
#ifndef BC_RUNNER_STREAM_H
#define BC_RUNNER_STREAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runner/buf.h"
#include "runner/clock.h"

typedef enum BcTextKind
{
	BC_TEXT,
	BC_REASONING
} BcTextKind;

/* A turn begins: parts are counted from 1, and there is no text. */
extern void bc_stream_reset(void);

/*
 * Text the agent produced.  "message" tells messages of one kind apart and may
 * be NULL; when it changes, a new part begins.  Bytes that end within a
 * character wait for the rest of it.
 */
extern void bc_stream_text(BcTextKind kind, const char *message, const char *bytes, size_t len);

/*
 * Does the agent say its text again when its model was cut off?  Then text
 * becomes parts only when something else follows, and what is said again is
 * kept once (draft.h); a "retry" event tells of it.
 */
extern void bc_stream_says_again(bool says_again);

/*
 * Does the agent tell by itself what was a draft?  Then text becomes parts only
 * when something else follows.  Until the turn is over.
 */
extern void bc_stream_holds_text(bool holds);

/* Ends the text part under way, if there is one. */
extern void bc_stream_end_text(void);

/* Forgets the message under way: it was a draft, and comes again. */
extern void bc_stream_drop_text(void);

/* Where text is held: forgets all of it, or what the last message has in it. */
extern void bc_stream_forget_text(void);
extern void bc_stream_forget_message(void);

/* "kind" is one of the event kinds of doc/protocol.md. */
extern void bc_stream_event(const char *kind, json_t *payload);

/* A finished part, after the text part under way. */
extern void bc_stream_part(const char *kind, json_t *payload);

/*
 * Output of a program that is no message of the agent: "stderr", "setup", or
 * "stdout".  2 MB of each are passed on in a turn.
 */
extern void bc_stream_log(const char *stream, const char *bytes, size_t len);

/* The turn is over: ends the text, and tells how much of which log was left out. */
extern void bc_stream_finish(void);

/* Passes what is collected to up.h when enough is, or always with "force". */
extern void bc_stream_flush(bool force);

/* When the oldest unsent event must go, in ms of bc_now(); 0: there is none. */
extern int64_t bc_stream_due(void);

/* The last text of the agent, cut to a summary; valid until the next call. */
extern const char *bc_stream_summary(void);

#endif							/* BC_RUNNER_STREAM_H */
