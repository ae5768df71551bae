/* SPDX-License-Identifier: PostgreSQL */
/*
 * opencode_parts.h
 *	  What opencode says of its work, in whatever way it comes: as lines of
 *	  "opencode run", or as events of "opencode serve".  Pure, and total on any
 *	  JSON.
 */
#ifndef BC_RUNNER_OPENCODE_PARTS_H
#define BC_RUNNER_OPENCODE_PARTS_H

#include "runner/stream_step.h"

/*
 * What a call of the model used: a part "step-finish", or the properties of an
 * event "session.next.step.ended".  False: it tells nothing.
 */
extern bool bc_opencode_usage(const json_t *step, BcStepUsage *used);

/* Why the step ended, as opencode calls it; NULL when it does not tell. */
extern const char *bc_opencode_finish(const json_t *step);

/* Does the turn go on behind a step that ended so? */
extern bool bc_opencode_goes_on(const char *finish);

/* A part "tool" of a call that has ended, of which nothing is known. */
extern void bc_opencode_tool(BcStreamTurn *turn, const json_t *part);

/* The call has begun; "status" as in ACP, "at": ms since 1970, or 0.  It has ended. */
extern void bc_opencode_tool_begun(BcStreamTurn *turn, const json_t *part, const char *status, int64_t at);
extern void bc_opencode_tool_ended(BcStreamTurn *turn, const json_t *part);

/* An error, as {"name", "data": {"message", "statusCode"}}: the turn failed for that. */
extern void bc_opencode_error(BcStreamTurn *turn, const json_t *error);

/* Nothing more comes: how the turn ended follows from the reason of its last step. */
extern void bc_opencode_judge(BcStreamTurn *turn, bool rejected);

#endif							/* BC_RUNNER_OPENCODE_PARTS_H */
