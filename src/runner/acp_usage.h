/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_usage.h
 *	  What a turn of an ACP agent used, made of the reports agents give: at the
 *	  end of the turn, for each call of the model, or both.  Pure.
 *
 * Nothing is counted twice: the report on the whole turn counts if there is
 * one, otherwise the sum over the calls.  Cost is what the agent's session has
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
	BcAcpTokens calls;			/* sum over the calls */
	BcAcpTokens turn;
	double		cost_usd;
	bool		has_cost;
} BcAcpUsage;

/* Who the agent says it is, "" when it does not. */
extern void bc_acp_usage_agent(BcAcpUsage *usage, const char *name);

/* The _meta of an update: some agents report each call there.  True when this one did. */
extern bool bc_acp_usage_call(BcAcpUsage *usage, const json_t *meta);

/* A usage_update: of this only the cost is used; tokens in it are of the context window. */
extern void bc_acp_usage_update(BcAcpUsage *usage, const json_t *update);

/* The result of session/prompt. */
extern void bc_acp_usage_turn(BcAcpUsage *usage, const json_t *result);

/*
 * Sets input_tokens, output_tokens, cached_tokens, reasoning_tokens and
 * cost_total_usd in "into", as far as known.  True when something is.
 */
extern bool bc_acp_usage_write(const BcAcpUsage *usage, json_t *into);

#endif							/* BC_RUNNER_ACP_USAGE_H */
