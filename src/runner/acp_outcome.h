/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_outcome.h
 *	  What the end of a conversation with an ACP agent means: which outcome and
 *	  reason an answer or an error stands for.  They go to bc_agent_finish().
 */
#ifndef BC_RUNNER_ACP_OUTCOME_H
#define BC_RUNNER_ACP_OUTCOME_H

#include <jansson.h>

#include "runner/acp_map.h"

/* The prompt was answered. */
extern void bc_acp_outcome_ended(BcAcpMap *map, const json_t *result, const json_t *auth_methods);

/*
 * A request was answered with an error.  "what" names it for people; "choice":
 * it was one of a model or a mode.
 */
extern void bc_acp_outcome_refused(const json_t *error, const char *what, bool choice,
								   const json_t *auth_methods);

/* Failed for "reason", with a message of two halves. */
extern void bc_acp_outcome_fail(const char *reason, const char *message, const char *detail);

#endif							/* BC_RUNNER_ACP_OUTCOME_H */
