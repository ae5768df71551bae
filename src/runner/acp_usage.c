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
	"qwen",
	"gemini",
	"goose",
};

/* Agents whose report on a turn is about its last call of the model */
static const char *const last_call_only[] = {
	"opencode",
	"goose",
};

static bool
is_one_of(const char *name, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

void
bc_acp_usage_agent(BcAcpUsage *usage, const char *known)
{
	usage->cached_in_input = is_one_of(known, cached_in_input,
									   sizeof(cached_in_input) / sizeof(cached_in_input[0]));
	usage->last_call_only = is_one_of(known, last_call_only,
									  sizeof(last_call_only) / sizeof(last_call_only[0]));
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

static json_int_t
sum_of(const BcAcpTokens *tokens)
{
	return tokens->input + tokens->output + tokens->cached + tokens->reasoning;
}

static void
add_tokens(BcAcpTokens *to, const BcAcpTokens *tokens)
{
	add(&to->input, tokens->input);
	add(&to->output, tokens->output);
	add(&to->cached, tokens->cached);
	add(&to->reasoning, tokens->reasoning);
}

/* "costUsd" is what the stream transports add to a report: what the call or the turn cost. */
static double
cost_of(const json_t *report)
{
	double		cost = json_number_value(json_object_get(report, "costUsd"));

	return cost > 0 && cost < MAX_COST ? cost : 0;
}

bool
bc_acp_usage_call(BcAcpUsage *usage, const json_t *meta)
{
	BcAcpTokens tokens;

	if (!read_tokens(usage, json_object_get(meta, "usage"), &tokens))
		return false;
	add_tokens(&usage->calls, &tokens);
	usage->turn_cost_usd += cost_of(json_object_get(meta, "usage"));
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
bc_acp_usage_again(BcAcpUsage *usage)
{
	usage->called_again = true;
}

/* A report by model has the calls of helper models, too, such as the maker of titles. */
static void
read_by_model(BcAcpUsage *usage, const json_t *list)
{
	BcAcpTokens sum = {0};
	size_t		i;
	json_t	   *entry;

	json_array_foreach(list, i, entry)
	{
		BcAcpTokens tokens;

		if (read_tokens(usage, json_object_get(entry, "token_count"), &tokens))
			add_tokens(&sum, &tokens);
	}
	if (sum_of(&sum) > sum_of(&usage->turn))
		usage->turn = sum;
}

void
bc_acp_usage_turn(BcAcpUsage *usage, const json_t *result)
{
	const json_t *quota = json_object_get(json_object_get(result, "_meta"), "quota");
	double		cost = cost_of(json_object_get(result, "usage"));
	BcAcpTokens tokens;

	if (cost > 0)
		usage->turn_cost_usd = cost;
	if (read_tokens(usage, json_object_get(result, "usage"), &tokens) ||
		read_tokens(usage, json_object_get(quota, "token_count"), &tokens))
		usage->turn = tokens;
	read_by_model(usage, json_object_get(quota, "model_usage"));
}

bool
bc_acp_usage_write(const BcAcpUsage *usage, json_t *into)
{
	const BcAcpTokens *tokens = sum_of(&usage->turn) > 0 ? &usage->turn : &usage->calls;

	if (usage->has_cost)
		json_object_set_new(into, "cost_total_usd", json_real(usage->cost_usd));
	else if (usage->turn_cost_usd > 0)
		json_object_set_new(into, "cost_usd", json_real(usage->turn_cost_usd));
	if (sum_of(tokens) == 0)
		return usage->has_cost || usage->turn_cost_usd > 0;
	json_object_set_new(into, "input_tokens", json_integer(tokens->input));
	json_object_set_new(into, "output_tokens", json_integer(tokens->output));
	json_object_set_new(into, "cached_tokens", json_integer(tokens->cached));
	json_object_set_new(into, "reasoning_tokens", json_integer(tokens->reasoning));
	if (usage->last_call_only && usage->called_again && tokens == &usage->turn)
		json_object_set_new(into, "partial", json_true());
	return true;
}
