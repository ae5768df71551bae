/* SPDX-License-Identifier: PostgreSQL */
/*
 * talk.h
 *	  A short conversation with a program: start it, write to it, read its
 *	  lines until somebody has heard enough, end it.  Blocks, but never longer
 *	  than it is told to, and only while the dispatcher wants the answer.
 *
 * For asking programs about themselves; a turn of an agent has agent.h.
 */
#ifndef BC_RUNNER_TALK_H
#define BC_RUNNER_TALK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runner/buf.h"
#include "runner/line.h"
#include "runner/sandbox.h"
#include "runner/spawn.h"

typedef enum BcTalkStatus
{
	BC_TALK_STOPPED,			/* bc_talk_stop() was called */
	BC_TALK_LATE,				/* the time has passed */
	BC_TALK_CLOSED,				/* it has ended, or closed its output */
	BC_TALK_TOO_LONG,			/* one of its lines was */
	BC_TALK_CANCELLED			/* the dispatcher has gone, or cancelled */
} BcTalkStatus;

typedef struct BcTalk
{
	BcChild		child;
	BcLines		lines;
	BcBuf		input;			/* not yet written */
	BcBuf		errors;			/* the tail of its standard error */
	bool		sandboxed;
	bool		stop;
	bool		ended;			/* and what follows is known */
	int			exit_code;		/* -1: by a signal */
	int			signal;
} BcTalk;

/*
 * Starts "command" in the directory "cwd" of the order, as an agent's program
 * is started.  A line has at most "max_line" bytes.  False with *failure set,
 * and nothing to finish.
 */
extern bool bc_talk_start(BcTalk *talk, const json_t *order, const json_t *command,
						  size_t max_line, BcFailure *failure);

extern void bc_talk_write(BcTalk *talk, const char *bytes, size_t len);
extern void bc_talk_close_input(BcTalk *talk);

/* Serves lines to "handler" until one of the things above, at the latest at "until" of bc_now(). */
extern BcTalkStatus bc_talk_listen(BcTalk *talk, int64_t until, BcLineHandler handler, void *arg);

/* For the handler: bc_talk_listen() returns once what was read together with this line is served. */
extern void bc_talk_stop(BcTalk *talk);

/*
 * Ends it: end of its input, SIGTERM after "quit_ms", SIGKILL "term_ms" later,
 * both no later than "until".  Afterwards nothing of it runs.  May be repeated.
 */
extern void bc_talk_finish(BcTalk *talk, int64_t quit_ms, int64_t term_ms, int64_t until);

/* The last line it wrote to its standard error, clean and cut; NULL: none.  The caller frees. */
extern char *bc_talk_last_words(const BcTalk *talk);

/* After bc_talk_finish() */
extern void bc_talk_free(BcTalk *talk);

/* Has the dispatcher cancelled, or gone? */
extern bool bc_talk_cancelled(void);

#endif							/* BC_RUNNER_TALK_H */
