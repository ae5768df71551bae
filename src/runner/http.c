/* SPDX-License-Identifier: PostgreSQL */
/*
 * http.c
 *	  HTTP to one server, inside of an event loop that waits for other things.
 *
 * libcurl must not be called from its own callbacks: what comes is collected
 * there, and passed on when libcurl has returned.
 */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/http.h"
#include "runner/stream.h"
#include "runner/text.h"

#define MAX_SOCKETS 16
#define MAX_ANSWER (64 * 1024 * 1024)
#define MAX_STREAM_BUFFER (256 * 1024)	/* what one pass may bring; the rest stays in the socket */
#define CONNECT_MS 5000L

typedef struct Transfer
{
	struct Transfer *next;
	CURL	   *curl;
	struct curl_slist *headers;
	char	   *sent;			/* the body of the request */
	BcBuf		body;			/* of the answer; of the stream: not yet passed on */
	bool		too_large;
	bool		is_stream;
	bool		paused;
	bool		over;
	BcHttpHandler handler;
	void	   *arg;
	void		(*bytes) (const char *bytes, size_t len);
	void		(*ended) (int status, const char *problem);
	CURLcode	code;
} Transfer;

static CURLM *multi;
static char *base;				/* without a slash at its end */
static char *user;
static char *secret;
static Transfer *transfers;
static int64_t stream_life;
static int64_t timer;			/* when libcurl wants to be called; 0: not by time */
static struct pollfd sockets[MAX_SOCKETS];
static size_t nsockets;

/* --- libcurl's wishes --- */

static int
want_socket(CURL *curl, curl_socket_t fd, int what, void *arg, void *of_socket)
{
	size_t		i = 0;

	(void) curl;
	(void) arg;
	(void) of_socket;
	while (i < nsockets && sockets[i].fd != fd)
		i++;
	if (what == CURL_POLL_REMOVE)
	{
		if (i < nsockets)
			sockets[i] = sockets[--nsockets];
		return 0;
	}
	if (i == MAX_SOCKETS)
		return -1;
	nsockets += i == nsockets;
	sockets[i] = (struct pollfd) {.fd = fd,
		.events = (short) ((what & CURL_POLL_IN ? POLLIN : 0) | (what & CURL_POLL_OUT ? POLLOUT : 0))};
	return 0;
}

static int
want_timer(CURLM *of, long ms, void *arg)
{
	(void) of;
	(void) arg;
	timer = ms < 0 ? 0 : bc_now() + ms;
	return 0;
}

static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	Transfer   *transfer = arg;
	long		status = 0;

	size *= n;
	curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
	if (!transfer->is_stream || status != 200)
	{
		transfer->too_large |= transfer->body.len + size > MAX_ANSWER;
		if (transfer->too_large)
			return 0;
	}
	else
	{
		if (transfer->body.len >= MAX_STREAM_BUFFER)
		{
			transfer->paused = true;
			return CURL_WRITEFUNC_PAUSE;
		}
		stream_life = bc_now();
	}
	bc_buf_add(&transfer->body, data, size);
	return size;
}

/* --- transfers --- */

static bool
ready(void)
{
	if (multi != NULL)
		return true;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || (multi = curl_multi_init()) == NULL)
		return false;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, want_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, want_timer);
	curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long) MAX_SOCKETS);
	return true;
}

static void
release(Transfer *transfer)
{
	if (transfer->curl != NULL)
	{
		(void) curl_multi_remove_handle(multi, transfer->curl);
		curl_easy_cleanup(transfer->curl);
	}
	curl_slist_free_all(transfer->headers);
	free(transfer->sent);
	bc_buf_free(&transfer->body);
	free(transfer);
}

void
bc_http_forget(void)
{
	while (transfers != NULL)
	{
		Transfer   *transfer = transfers;

		transfers = transfer->next;
		release(transfer);
	}
	stream_life = 0;
}

static void
replace(char **where, const char *text)
{
	free(*where);
	*where = text != NULL ? bc_strdup(text) : NULL;
}

static bool
same(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool
bc_http_is_server(const char *url, const char *username, const char *password)
{
	return base != NULL && same(url, base) && same(username, user) && same(password, secret);
}

bool
bc_http_server(const char *url, const char *username, const char *password)
{
	size_t		n = url != NULL ? strlen(url) : 0;

	bc_http_forget();
	if (n == 0 || strncmp(url, "http://", 7) != 0 || !ready())
		return false;
	replace(&base, url);
	while (n > 0 && base[n - 1] == '/')
		base[--n] = '\0';
	replace(&user, username);
	replace(&secret, password);
	return true;
}

static void
add_header(Transfer *transfer, const char *line)
{
	struct curl_slist *longer = curl_slist_append(transfer->headers, line);

	if (longer != NULL)
		transfer->headers = longer;
}

/* Begins a transfer.  One that can't begin is over at once, which tick() tells. */
static Transfer *
begin(const char *path)
{
	Transfer   *transfer = bc_alloc(sizeof(Transfer));
	char	   *url = bc_asprintf("%s%s", base != NULL ? base : "", path);

	transfer->code = CURLE_FAILED_INIT;
	transfer->curl = base != NULL && ready() ? curl_easy_init() : NULL;
	transfer->next = transfers;
	transfers = transfer;
	if (transfer->curl != NULL)
	{
		CURL	   *curl = transfer->curl;

		curl_easy_setopt(curl, CURLOPT_URL, url);
		curl_easy_setopt(curl, CURLOPT_PRIVATE, transfer);
		curl_easy_setopt(curl, CURLOPT_USERAGENT, "boocoder/" BC_VERSION);
		curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
		curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
		curl_easy_setopt(curl, CURLOPT_PROXY, "");
		curl_easy_setopt(curl, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
		curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
		curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long) CURLAUTH_BASIC);
		curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
		curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
		if (secret != NULL)
		{
			curl_easy_setopt(curl, CURLOPT_USERNAME, user != NULL ? user : "");
			curl_easy_setopt(curl, CURLOPT_PASSWORD, secret);
		}
	}
	free(url);
	return transfer;
}

static void
go(Transfer *transfer)
{
	if (transfer->curl != NULL)
	{
		curl_easy_setopt(transfer->curl, CURLOPT_HTTPHEADER, transfer->headers);
		if (curl_multi_add_handle(multi, transfer->curl) == CURLM_OK)
			return;
		curl_easy_cleanup(transfer->curl);
		transfer->curl = NULL;
	}
	transfer->over = true;
	timer = bc_now();
}

void
bc_http_request(const char *method, const char *path, json_t *body, int timeout_ms,
				BcHttpHandler handler, void *arg)
{
	Transfer   *transfer = begin(path);

	transfer->handler = handler;
	transfer->arg = arg;
	add_header(transfer, "Accept: application/json");
	if (transfer->curl != NULL)
	{
		curl_easy_setopt(transfer->curl, CURLOPT_CUSTOMREQUEST, method);
		curl_easy_setopt(transfer->curl, CURLOPT_TIMEOUT_MS, (long) timeout_ms);
	}
	if (strcmp(method, "POST") == 0)
	{
		transfer->sent = body != NULL ? json_dumps(body, JSON_COMPACT) : bc_strdup("{}");
		add_header(transfer, "Content-Type: application/json");
		/* Without this, libcurl would wait for the server's leave to send more than a little. */
		add_header(transfer, "Expect:");
		if (transfer->curl != NULL)
		{
			curl_easy_setopt(transfer->curl, CURLOPT_POSTFIELDS, transfer->sent);
			/* On a connection that was used before, libcurl might send it twice. */
			curl_easy_setopt(transfer->curl, CURLOPT_FRESH_CONNECT, 1L);
		}
	}
	json_decref(body);
	go(transfer);
}

static Transfer *
stream(void)
{
	Transfer   *transfer = transfers;

	while (transfer != NULL && !transfer->is_stream)
		transfer = transfer->next;
	return transfer;
}

static void
unlink_transfer(Transfer *transfer)
{
	Transfer  **at = &transfers;

	while (*at != transfer)
		at = &(*at)->next;
	*at = transfer->next;
}

void
bc_http_stream(const char *path, void (*bytes) (const char *bytes, size_t len),
			   void (*ended) (int status, const char *problem))
{
	Transfer   *transfer = stream();

	if (transfer != NULL)
	{
		unlink_transfer(transfer);
		release(transfer);
	}
	transfer = begin(path);
	transfer->is_stream = true;
	transfer->bytes = bytes;
	transfer->ended = ended;
	add_header(transfer, "Accept: text/event-stream");
	stream_life = bc_now();
	go(transfer);
}

int64_t
bc_http_stream_life(void)
{
	return stream() != NULL ? stream_life : 0;
}

char *
bc_http_path(const char *path, const char *parameter, const char *value)
{
	char	   *quoted = curl_easy_escape(NULL, value, 0);
	char	   *made = bc_asprintf("%s%c%s=%s", path, strchr(path, '?') != NULL ? '&' : '?', parameter,
								   quoted != NULL ? quoted : "");

	curl_free(quoted);
	return made;
}

/* --- passing on --- */

/* Is the transfer still there?  A handler may have ended it. */
static bool
exists(const Transfer *wanted)
{
	const Transfer *transfer = transfers;

	while (transfer != NULL && transfer != wanted)
		transfer = transfer->next;
	return transfer != NULL;
}

static int
status_of(const Transfer *transfer)
{
	long		status = 0;

	if (transfer->curl != NULL)
		curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
	return (int) status;
}

static const char *
problem_of(const Transfer *transfer)
{
	if (transfer->too_large)
		return "the answer is too large";
	return transfer->code != CURLE_OK ? curl_easy_strerror(transfer->code) : NULL;
}

static void
finish(Transfer *transfer)
{
	int			status = status_of(transfer);
	const char *problem = problem_of(transfer);

	unlink_transfer(transfer);
	if (transfer->is_stream)
		transfer->ended(status, problem);
	else if (transfer->handler != NULL)
	{
		json_t	   *body = transfer->body.len > 0 ? bc_text_parse(transfer->body.data, transfer->body.len) : NULL;
		BcHttpAnswer answer = {status, body, problem};

		transfer->handler(&answer, transfer->arg);
		json_decref(body);
	}
	release(transfer);
}

/* Passes on what the stream brought; false when it ended meanwhile. */
static bool
pass_on_stream(Transfer *transfer)
{
	BcBuf		taken = transfer->body;
	bool		there;

	if (taken.len == 0 || status_of(transfer) != 200)
		return true;
	transfer->body = (BcBuf) BC_BUF_INIT;
	transfer->bytes(taken.data, taken.len);
	bc_buf_free(&taken);
	there = exists(transfer);
	if (there && transfer->paused)
	{
		transfer->paused = false;
		(void) curl_easy_pause(transfer->curl, CURLPAUSE_CONT);
	}
	return there;
}

static void
pass_on(void)
{
	Transfer   *transfer;
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
		transfer->over = true;
		transfer->code = message->data.result;
	}
	while ((transfer = stream()) != NULL && transfer->body.len > 0 && status_of(transfer) == 200)
		if (!pass_on_stream(transfer))
			break;
	/* From the start each time: a handler may change the list. */
	for (transfer = transfers; transfer != NULL;)
	{
		if (!transfer->over)
		{
			transfer = transfer->next;
			continue;
		}
		finish(transfer);
		transfer = transfers;
	}
}

/* --- for the event loop --- */

size_t
bc_http_pollfds(struct pollfd *fds, size_t max)
{
	size_t		n = nsockets < max ? nsockets : max;

	memcpy(fds, sockets, n * sizeof(struct pollfd));
	return n;
}

void
bc_http_served(const struct pollfd *fds, size_t n)
{
	int			running;

	if (multi == NULL)
		return;
	for (size_t i = 0; i < n; i++)
	{
		int			what = (fds[i].revents & (POLLIN | POLLHUP) ? CURL_CSELECT_IN : 0) |
			(fds[i].revents & POLLOUT ? CURL_CSELECT_OUT : 0) |
			(fds[i].revents & (POLLERR | POLLNVAL) ? CURL_CSELECT_ERR : 0);

		if (what != 0)
			(void) curl_multi_socket_action(multi, fds[i].fd, what, &running);
	}
	pass_on();
}

int64_t
bc_http_due(void)
{
	return timer;
}

void
bc_http_tick(void)
{
	int			running;

	if (multi == NULL || timer == 0 || timer > bc_now())
		return;
	timer = 0;
	(void) curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
	pass_on();
}
