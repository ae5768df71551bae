/* SPDX-License-Identifier: PostgreSQL */
/*
 * models_http.c
 *	  The models of an OpenAI-compatible server, over HTTP.
 */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/models_http.h"
#include "runner/stream.h"

#define MAX_ANSWER (4 * 1024 * 1024)	/* bytes, headers included */
#define CONNECT_MS 5000L
#define LOOK_MS 100				/* how often "cancelled" is asked */

typedef struct Answer
{
	BcBuf		body;
	size_t		received;		/* headers, too */
	bool		too_large;
} Answer;

/* Counts; false ends the transfer. */
static bool
fits(Answer *answer, size_t n)
{
	answer->received += n;
	answer->too_large |= answer->received > MAX_ANSWER;
	return !answer->too_large;
}

static size_t
take_header(char *data, size_t size, size_t n, void *arg)
{
	(void) data;
	return fits(arg, size * n) ? size * n : 0;
}

static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	Answer	   *answer = arg;

	if (!fits(answer, size * n))
		return 0;
	bc_buf_add(&answer->body, data, size * n);
	return size * n;
}

static bool
has_part(CURLU *url, CURLUPart part)
{
	char	   *value = NULL;
	bool		has = curl_url_get(url, part, &value, 0) == CURLUE_OK;

	curl_free(value);
	return has;
}

/* Makes "base"/models out of the base; NULL, or why it can't be used. */
static const char *
complete_url(CURLU *url, const char *base)
{
	char	   *scheme = NULL;
	char	   *path = NULL;
	char	   *longer;
	size_t		n;
	bool		is_http;

	if (curl_url_set(url, CURLUPART_URL, base, 0) != CURLUE_OK ||
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK)
		return "its address is no URL";
	is_http = strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0;
	curl_free(scheme);
	if (!is_http)
		return "its address is neither http nor https";
	if (has_part(url, CURLUPART_USER) || has_part(url, CURLUPART_PASSWORD))
		return "its address has credentials in it, which belong into the key";
	if (curl_url_get(url, CURLUPART_PATH, &path, 0) != CURLUE_OK)
		return "its address is no URL";
	for (n = strlen(path); n > 0 && path[n - 1] == '/';)
		n--;
	longer = bc_asprintf("%.*s/models", (int) n, path);
	curl_free(path);
	(void) curl_url_set(url, CURLUPART_PATH, longer, 0);
	(void) curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0);
	free(longer);
	return NULL;
}

/* "Authorization: Bearer KEY" as a list of headers; NULL when the key is none that can be sent. */
static struct curl_slist *
make_headers(const char *key)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Accept: application/json");
	struct curl_slist *more;
	char	   *line;

	if (key == NULL || headers == NULL)
		return headers;
	for (const char *c = key; *c != '\0'; c++)
	{
		if ((unsigned char) *c >= 0x20 && *c != 0x7f)
			continue;
		curl_slist_free_all(headers);
		return NULL;
	}
	line = bc_asprintf("Authorization: Bearer %s", key);
	more = curl_slist_append(headers, line);
	free(line);
	if (more == NULL)
		curl_slist_free_all(headers);
	return more;
}

static void
set_options(CURL *curl, CURLU *url, struct curl_slist *headers, Answer *answer)
{
	curl_easy_setopt(curl, CURLOPT_CURLU, url);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "boocoder/" BC_VERSION);
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, answer);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
}

/* True once the transfer is over, well or not; false when the time was before. */
static bool
transfer(CURLM *multi, int64_t until, bool (*cancelled) (void), CURLcode *code)
{
	int			running = 1;
	CURLMsg    *message;

	while (running > 0)
	{
		int64_t		left = until - bc_now();

		if (curl_multi_perform(multi, &running) != CURLM_OK || left <= 0 || cancelled())
			return false;
		if (running > 0)
			(void) curl_multi_poll(multi, NULL, 0, left < LOOK_MS ? (int) left : LOOK_MS, NULL);
	}
	message = curl_multi_info_read(multi, &running);
	*code = message != NULL ? message->data.result : CURLE_OK;
	return true;
}

/* What the server answered, or why it did not; NULL when the models were added. */
static char *
judge(CURL *curl, CURLcode code, const Answer *answer, BcModels *models, const char *prefix)
{
	long		status = 0;

	if (answer->too_large)
		return bc_asprintf("its answer is larger than %d MB", MAX_ANSWER / 1024 / 1024);
	if (code != CURLE_OK)
		return bc_strdup(curl_easy_strerror(code));
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 300 && status < 400)
		return bc_asprintf("it answered HTTP status %ld, and redirects are not followed", status);
	if (status != 200)
		return bc_asprintf("it answered HTTP status %ld", status);
	if (!bc_models_add_answer(models, prefix, answer->body.data, answer->body.len))
		return bc_strdup("its answer is no list of models");
	return NULL;
}

char *
bc_models_fetch(BcModels *models, const char *base, const char *key, const char *prefix,
				int64_t until, bool (*cancelled) (void))
{
	Answer		answer = {BC_BUF_INIT, 0, false};
	CURLcode	code = CURLE_OK;
	CURLU	   *url = NULL;
	CURL	   *curl = NULL;
	CURLM	   *multi = NULL;
	struct curl_slist *headers = NULL;
	const char *unusable = NULL;
	char	   *problem = NULL;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || (url = curl_url()) == NULL ||
		(curl = curl_easy_init()) == NULL || (multi = curl_multi_init()) == NULL)
		unusable = "libcurl can't be used";
	else if ((unusable = complete_url(url, base)) == NULL &&
			 (headers = make_headers(key)) == NULL)
		unusable = "its key has characters that can't be sent";
	if (unusable == NULL)
	{
		set_options(curl, url, headers, &answer);
		if (curl_multi_add_handle(multi, curl) != CURLM_OK)
			unusable = "libcurl can't be used";
		else if (!transfer(multi, until, cancelled, &code))
		{
			/* Nothing is freed: that may wait for a resolver, and the process ends soon anyway. */
			return bc_strdup("it did not answer in time");
		}
		else
			problem = judge(curl, code, &answer, models, prefix);
		(void) curl_multi_remove_handle(multi, curl);
	}
	curl_multi_cleanup(multi);
	curl_easy_cleanup(curl);
	curl_slist_free_all(headers);
	curl_url_cleanup(url);
	bc_buf_free(&answer.body);
	return unusable != NULL ? bc_strdup(unusable) : problem;
}
