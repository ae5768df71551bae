/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_step.h
 *	  Building blocks of the dialects: steps (see stream_map.h) and facts.
 *
 * Values passed as const json_t are borrowed and may be anything, NULL too: what
 * is not of the type that is needed counts as absent.
 */
#ifndef BC_RUNNER_STREAM_STEP_H
#define BC_RUNNER_STREAM_STEP_H

#include "runner/stream.h"
#include "runner/stream_map.h"

/* Tokens of a call or a turn.  Below zero counts as zero. */
typedef struct BcStepUsage
{
	json_int_t	input;			/* neither read from a cache nor written to it */
	json_int_t	cached;			/* read */
	json_int_t	written;
	json_int_t	output;			/* reasoning included */
	json_int_t	reasoning;
	double		cost_usd;		/* 0: unknown */
} BcStepUsage;

/* Reading: the text of a member, NULL when it has none; a count, 0 when it has none. */
extern const char *bc_step_string(const json_t *object, const char *key);
extern json_int_t bc_step_count(const json_t *object, const char *key);
extern bool bc_step_is(const json_t *object, const char *key, const char *text);

/* Keeps a copy as a fact, within reason.  NULL changes nothing. */
extern void bc_step_keep(char **where, const char *text);

/* Text that comes once.  "message" tells messages apart and may be NULL. */
extern void bc_step_text(BcStreamTurn *turn, BcTextKind kind, const char *message, const json_t *text);

/*
 * Text that comes in pieces, and again as a whole when it is finished: the
 * whole counts only if it is not what the pieces were.
 */
extern void bc_step_piece(BcStreamTurn *turn, BcTextKind kind, const char *message, const json_t *text);
extern void bc_step_whole(BcStreamTurn *turn, BcTextKind kind, const char *message, const json_t *text);

/* The pieces since the last whole were of an attempt that failed. */
extern void bc_step_drop(BcStreamTurn *turn);

/* For agents that tell what was a draft (bc_stream_holds_text()) */
extern void bc_step_forget_text(BcStreamTurn *turn);
extern void bc_step_forget_message(BcStreamTurn *turn);
extern void bc_step_keep_text(BcStreamTurn *turn);

/* A call of a tool, or more about it.  "status" as in ACP; "at": ms since 1970, or 0. */
extern void bc_step_tool(BcStreamTurn *turn, const char *id, const char *name, const json_t *input,
						 const char *status, int64_t at);

/* The same with a title and kind of one's own */
extern void bc_step_call(BcStreamTurn *turn, const char *id, const char *title, const char *kind,
						 const json_t *input, const char *status);
extern void bc_step_tool_end(BcStreamTurn *turn, const char *id, bool failed, const json_t *output,
							 int64_t at);

/* A list of things to do, in any of the forms agents have for it. */
extern void bc_step_plan(BcStreamTurn *turn, const json_t *list);

/* What a call of the model used, and what the whole turn did. */
extern void bc_step_usage_call(BcStreamTurn *turn, const BcStepUsage *usage);
extern void bc_step_usage_turn(BcStreamTurn *turn, const BcStepUsage *usage);

/* An attempt of the model failed and is repeated. */
extern void bc_step_retry(BcStreamTurn *turn, const char *message);

/* Something went wrong, which need not be the end. */
extern void bc_step_warning(BcStreamTurn *turn, const char *message);
extern void bc_step_error(BcStreamTurn *turn, const char *message);

extern void bc_step_update(BcStreamTurn *turn, json_t *update);	/* stolen */
extern void bc_step_raw(BcStreamTurn *turn, const json_t *line);

#define BC_STEP_NOBODY_TO_ASK \
	"the agent asked for a permission, which nobody can give it in this transport"

/* How the turn ended.  "reason" may be NULL, and so may "message". */
extern void bc_step_completed(BcStreamTurn *turn);
extern void bc_step_failed(BcStreamTurn *turn, const char *reason, const char *message);

#endif							/* BC_RUNNER_STREAM_STEP_H */
