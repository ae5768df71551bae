/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_usage.c
 *	  What a turn of an ACP agent used.
 */
#include <stddef.h>
#include <string.h>

#include "runner/acp_usage.h"

#define MAX_TOKENS ((json_int_t) 1000 * 1000 * 1000 * 1000)
#define MAX_COST 1e9

/*
 * Agents whose input tokens contain those read from the cache.  Needed only
 * where a report has no total to tell it from.
 */
static const char *const cached_in_input[] = {
	"qwen-code",
	"gemini-cli",
	"",							/* goose */
};

void
bc_acp_usage_agent(BcAcpUsage *usage, const char *name)
{
	for (size_t i = 0; i < sizeof(cached_in_input) / sizeof(cached_in_input[0]); i++)
		if (strcmp(name, cached_in_input[i]) == 0)
			usage->cached_in_input = true;
}

/* The first of the fields that is a number, within reason; 0 when none is. */
static json_int_t
count(const json_t *report, const char *const *names)
{
	for (; *names != NULL; names++)
	{
		const json_t *value = json_object_get(report, *names);
		double		number = json_number_value(value);

		if (!json_is_number(value) || !(number > 0))
			continue;
		return number < (double) MAX_TOKENS ? (json_int_t) number : MAX_TOKENS;
	}
	return 0;
}

/* Reads a report of tokens in any of the forms seen; false when it has none. */
static bool
read_tokens(const BcAcpUsage *usage, const json_t *report, BcAcpTokens *tokens)
{
	static const char *const input[] = {"inputTokens", "input_tokens", NULL};
	static const char *const output[] = {"outputTokens", "output_tokens", NULL};
	static const char *const cached[] = {"cachedReadTokens", "cachedInputTokens",
	"cached_input_tokens", "cached_tokens", NULL};
	static const char *const written[] = {"cachedWriteTokens", "cacheWriteInputTokens", NULL};
	static const char *const reasoning[] = {"thoughtTokens", "reasoningOutputTokens",
	"reasoning_tokens", NULL};
	static const char *const totals[] = {"totalTokens", "total_tokens", NULL};
	json_int_t	total = count(report, totals);
	json_int_t	extra = count(report, written);
	json_int_t	sum;
	bool		inside = usage->cached_in_input;

	tokens->input = count(report, input);
	tokens->output = count(report, output);
	tokens->cached = count(report, cached);
	tokens->reasoning = count(report, reasoning);
	sum = tokens->input + tokens->output;
	if (total == sum || total == sum + tokens->reasoning)
		inside = true;
	else if (total == sum + tokens->cached + extra ||
			 total == sum + tokens->cached + extra + tokens->reasoning)
		inside = false;
	if (!inside)
		tokens->input += extra;
	else if (tokens->input >= tokens->cached)
		tokens->input -= tokens->cached;
	return sum + tokens->cached > 0;
}

static void
add(json_int_t *to, json_int_t value)
{
	*to = *to + value < MAX_TOKENS ? *to + value : MAX_TOKENS;
}

bool
bc_acp_usage_call(BcAcpUsage *usage, const json_t *meta)
{
	BcAcpTokens tokens;

	if (!read_tokens(usage, json_object_get(meta, "usage"), &tokens))
		return false;
	add(&usage->calls.input, tokens.input);
	add(&usage->calls.output, tokens.output);
	add(&usage->calls.cached, tokens.cached);
	add(&usage->calls.reasoning, tokens.reasoning);
	return true;
}

void
bc_acp_usage_update(BcAcpUsage *usage, const json_t *update)
{
	const json_t *cost = json_object_get(update, "cost");
	const json_t *amount = json_object_get(cost, "amount");
	const char *currency = json_string_value(json_object_get(cost, "currency"));
	double		value = json_number_value(amount);

	if (!json_is_number(amount) || currency == NULL || strcmp(currency, "USD") != 0)
		return;
	if (!(value >= usage->cost_usd) || value > MAX_COST)
		return;
	usage->cost_usd = value;
	usage->has_cost = true;
}

void
bc_acp_usage_turn(BcAcpUsage *usage, const json_t *result)
{
	const json_t *quota = json_object_get(json_object_get(result, "_meta"), "quota");
	BcAcpTokens tokens;

	if (read_tokens(usage, json_object_get(result, "usage"), &tokens) ||
		read_tokens(usage, json_object_get(quota, "token_count"), &tokens))
		usage->turn = tokens;
}

static json_int_t
sum_of(const BcAcpTokens *tokens)
{
	return tokens->input + tokens->output + tokens->cached + tokens->reasoning;
}

bool
bc_acp_usage_write(const BcAcpUsage *usage, json_t *into)
{
	const BcAcpTokens *tokens = sum_of(&usage->turn) > 0 ? &usage->turn : &usage->calls;

	if (usage->has_cost)
		json_object_set_new(into, "cost_total_usd", json_real(usage->cost_usd));
	if (sum_of(tokens) == 0)
		return usage->has_cost;
	json_object_set_new(into, "input_tokens", json_integer(tokens->input));
	json_object_set_new(into, "output_tokens", json_integer(tokens->output));
	json_object_set_new(into, "cached_tokens", json_integer(tokens->cached));
	json_object_set_new(into, "reasoning_tokens", json_integer(tokens->reasoning));
	return true;
}
