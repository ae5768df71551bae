/* SPDX-License-Identifier: PostgreSQL */
/*
 * llm_error.c
 *	  What it means to a task that an agent's model could not be used.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/llm_error.h"

#define MAX_WORDS (16 * 1024)	/* bytes of an error that are looked at */
#define MAX_DEPTH 5				/* of an error's data */
#define AUTH_REQUIRED (-32000)	/* of the Agent Client Protocol */

static const char rate_limited[] = "rate_limited";
static const char auth_required[] = "auth_required";
static const char overloaded[] = "overloaded";
static const char context_exceeded[] = "context_exceeded";
static const char agent_error[] = "agent_error";

static const struct
{
	int			status;
	const char *reason;
}			statuses[] = {
	{401, auth_required},
	{403, auth_required},
	{429, rate_limited},
	{503, overloaded},
	{529, overloaded},
};

/* In plain words, as words_of() makes them; the first that is found counts. */
static const struct
{
	const char *words;
	const char *reason;
}			phrases[] = {
	{" rate limit", rate_limited},
	{" too many requests", rate_limited},
	{" usage limit", rate_limited},
	{" quota exceeded ", rate_limited},
	{" exceeded your current quota ", rate_limited},
	{" insufficient quota ", rate_limited},
	{" resource exhausted ", rate_limited},
	{" unauthorized ", auth_required},
	{" authentication", auth_required},
	{" not authenticated ", auth_required},
	{" not logged in ", auth_required},
	{" invalid api key ", auth_required},
	{" incorrect api key ", auth_required},
	{" api key not valid ", auth_required},
	{" no api key ", auth_required},
	{" invalid x api key ", auth_required},
	{" overloaded ", overloaded},
	{" at capacity ", overloaded},
	{" service unavailable ", overloaded},
};

/* Told with a status that says little, such as 400 */
static const char *const context_phrases[] = {
	" context length",
	" context window",
	" context limit",
	" maximum context ",
	" prompt is too long ",
};

/*
 * Appends text as plain words: lower case, one blank before and behind each,
 * nothing but letters and digits.  What is written "likeThis" is two of them.
 */
static void
words_of(BcBuf *words, const char *text)
{
	char		last = ' ';

	if (words->len == 0)
		bc_buf_add(words, " ", 1);
	for (; *text != '\0' && words->len < MAX_WORDS; text++)
	{
		unsigned char c = (unsigned char) *text;
		char		low = isalnum(c) && c < 0x80 ? (char) tolower(c) : ' ';

		if (isupper(c) && islower((unsigned char) last))
			bc_buf_add(words, " ", 1);
		if (low != ' ' || words->data[words->len - 1] != ' ')
			bc_buf_add(words, &low, 1);
		last = (char) c;
	}
	if (words->data[words->len - 1] != ' ')
		bc_buf_add(words, " ", 1);
}

static const char *
by_status(int status)
{
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		if (statuses[i].status == status)
			return statuses[i].reason;
	return NULL;
}

static bool
ends_with(const char *text, size_t len, const char *end)
{
	size_t		n = strlen(end);

	return len >= n && memcmp(text + len - n, end, n) == 0;
}

/* Is the number at "at" a status, and not one of a line or of bytes? */
static bool
is_status(const char *words, size_t at)
{
	static const char *const before[] =
	{" status ", " code ", " error ", " http ", " status code is "};
	static const char *const behind[] =
	{"unauthorized ", "forbidden ", "too many ", "service unavailable ", "overloaded "};
	const char *rest = words + at + strcspn(words + at, " ");

	for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++)
		if (ends_with(words, at, before[i]))
			return true;
	for (size_t i = 0; *rest != '\0' && i < sizeof(behind) / sizeof(behind[0]); i++)
		if (strncmp(rest + 1, behind[i], strlen(behind[i])) == 0)
			return true;
	return false;
}

static const char *
by_status_in(const char *words)
{
	for (size_t at = 1; words[at - 1] != '\0' && words[at] != '\0'; at++)
	{
		const char *reason;

		if (words[at - 1] != ' ' || strcspn(words + at, " ") != 3)
			continue;
		reason = by_status(atoi(words + at));
		if (reason != NULL && is_status(words, at))
			return reason;
	}
	return NULL;
}

static const char *
by_words(int status, const char *words)
{
	const char *reason;

	for (size_t i = 0; i < sizeof(context_phrases) / sizeof(context_phrases[0]); i++)
		if (strstr(words, context_phrases[i]) != NULL)
			return context_exceeded;
	reason = by_status(status);
	if (reason == NULL)
		reason = by_status_in(words);
	for (size_t i = 0; reason == NULL && i < sizeof(phrases) / sizeof(phrases[0]); i++)
		if (strstr(words, phrases[i].words) != NULL)
			reason = phrases[i].reason;
	return reason != NULL ? reason : agent_error;
}

const char *
bc_llm_error(int status, const char *text)
{
	BcBuf		words = BC_BUF_INIT;
	const char *reason;

	words_of(&words, text != NULL ? text : "");
	reason = by_words(status, words.data);
	bc_buf_free(&words);
	return reason;
}

static int
status_of(const json_t *value)
{
	const char *text = json_string_value(value);
	double		number = text != NULL ? atoi(text) : json_number_value(value);

	return number >= 400 && number < 600 ? (int) number : 0;
}

/* The words and the status that are somewhere in an error's data */
static void
collect(const json_t *value, int depth, BcBuf *words, int *status)
{
	const char *key;
	json_t	   *member;
	size_t		i;

	if (depth > MAX_DEPTH)
		return;
	if (json_is_string(value))
		words_of(words, json_string_value(value));
	json_array_foreach(value, i, member)
		collect(member, depth + 1, words, status);
	json_object_foreach((json_t *) value, key, member)
	{
		/* "status", "statusCode", "httpStatusCode", "code" */
		if (*status == 0 && (strcasestr(key, "status") != NULL || strcmp(key, "code") == 0))
			*status = status_of(member);
		collect(member, depth + 1, words, status);
	}
}

const char *
bc_llm_error_rpc(const json_t *error)
{
	const json_t *code = json_object_get(error, "code");
	int			status = status_of(code);
	BcBuf		words = BC_BUF_INIT;
	const char *reason;

	if (json_integer_value(code) == AUTH_REQUIRED)
		return auth_required;
	words_of(&words, "");
	collect(json_object_get(error, "message"), 0, &words, &status);
	collect(json_object_get(error, "data"), 0, &words, &status);
	reason = by_words(status, words.data);
	bc_buf_free(&words);
	return reason;
}
