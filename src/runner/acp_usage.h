/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_usage.h
 *	  What a turn of an ACP agent used, made of the reports agents give: at the
 *	  end of the turn, for each call of the model, or both.  Pure.
 *
 * Nothing is counted twice: the report on the whole turn counts if there is
 * one, otherwise the sum over the calls.  What an agent calls the usage of a
 * turn is only that of its last call with some; then it is "partial" as soon as
 * the model was called more than once.  Cost is what the agent's session has
 * cost since it began, so of several reports the highest counts.
 */
#ifndef BC_RUNNER_ACP_USAGE_H
#define BC_RUNNER_ACP_USAGE_H

#include <jansson.h>
#include <stdbool.h>

typedef struct BcAcpTokens
{
	json_int_t	input;			/* without those from a cache */
	json_int_t	output;
	json_int_t	cached;
	json_int_t	reasoning;
} BcAcpTokens;

/* All zero: nothing reported yet. */
typedef struct BcAcpUsage
{
	bool		cached_in_input;	/* of this agent, where its numbers don't tell */
	bool		last_call_only; /* so are this agent's reports on a turn */
	bool		called_again;	/* the model, after a tool */
	BcAcpTokens calls;			/* sum over the calls */
	BcAcpTokens turn;
	double		cost_usd;
	bool		has_cost;
	double		turn_cost_usd;	/* of the turn alone; 0: unknown */
} BcAcpUsage;

/* Which agent it is, as acp_agents.h knows it. */
extern void bc_acp_usage_agent(BcAcpUsage *usage, const char *known);

/* The _meta of an update: some agents report each call there.  True when this one did. */
extern bool bc_acp_usage_call(BcAcpUsage *usage, const json_t *meta);

/* The model was called again in this turn. */
extern void bc_acp_usage_again(BcAcpUsage *usage);

/* A usage_update: of this only the cost is used; tokens in it are of the context window. */
extern void bc_acp_usage_update(BcAcpUsage *usage, const json_t *update);

/* The result of session/prompt. */
extern void bc_acp_usage_turn(BcAcpUsage *usage, const json_t *result);

/*
 * Sets input_tokens, output_tokens, cached_tokens, reasoning_tokens and
 * cost_total_usd or cost_usd in "into", as far as known, and "partial" when
 * there must have been more tokens.  True when something is known.
 */
extern bool bc_acp_usage_write(const BcAcpUsage *usage, json_t *into);

#endif							/* BC_RUNNER_ACP_USAGE_H */
