/* SPDX-License-Identifier: PostgreSQL */
/*
 * http.h
 *	  HTTP to one server, inside of an event loop that waits for other things,
 *	  too: requests with an answer in JSON, and one stream that stays open.
 *	  Nothing blocks.
 *
 * Handlers are called by bc_http_served() and bc_http_tick(), never by what
 * begins a transfer, and may begin others.
 */
#ifndef BC_RUNNER_HTTP_H
#define BC_RUNNER_HTTP_H

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct BcHttpAnswer
{
	int			status;			/* of HTTP; 0: there is no answer */
	const json_t *body;			/* NULL: it is no JSON */
	const char *problem;		/* why there is no answer, or not all of it; NULL: there is */
} BcHttpAnswer;

typedef void (*BcHttpHandler) (const BcHttpAnswer *answer, void *arg);

/* Is it the server that is known already? */
extern bool bc_http_is_server(const char *url, const char *username, const char *password);

/* Where the server is: "http://127.0.0.1:PORT".  What is under way is forgotten.  False: no such URL. */
extern bool bc_http_server(const char *url, const char *username, const char *password);

/*
 * Sends a request; "path" with its query, "body" (stolen) may be NULL.  Its
 * handler is called once, within about "timeout_ms".
 */
extern void bc_http_request(const char *method, const char *path, json_t *body, int timeout_ms,
							BcHttpHandler handler, void *arg);

/*
 * Opens the stream, in place of one that is open.  "bytes" gets what comes
 * after the headers of an answer 200; "ended" is called once when no more does,
 * with the status (0: none) and why.
 */
extern void bc_http_stream(const char *path, void (*bytes) (const char *bytes, size_t len),
						   void (*ended) (int status, const char *problem));

/* When the stream last brought something, in ms of bc_now(); 0: there is none. */
extern int64_t bc_http_stream_life(void);

/* Forgets all that is under way; no handler is called. */
extern void bc_http_forget(void);

/* The path with a parameter added, its value quoted; the caller frees. */
extern char *bc_http_path(const char *path, const char *parameter, const char *value);

/* For the event loop */
extern size_t bc_http_pollfds(struct pollfd *fds, size_t max);
extern void bc_http_served(const struct pollfd *fds, size_t n);
extern int64_t bc_http_due(void);
extern void bc_http_tick(void);

#endif							/* BC_RUNNER_HTTP_H */
