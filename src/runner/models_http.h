/* SPDX-License-Identifier: PostgreSQL */
/*
 * models_http.h
 *	  The models of an OpenAI-compatible server, over HTTP.
 *
 * The server is whoever the administrator named, so it is asked directly: no
 * proxy of the environment, no .netrc, and no redirect, which could carry the
 * key elsewhere.
 */
#ifndef BC_RUNNER_MODELS_HTTP_H
#define BC_RUNNER_MODELS_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "runner/models.h"

/*
 * GET "base"/models, over by "until" of bc_now(); "key", which may be NULL, is
 * sent as bearer token.  "cancelled" is asked while it waits.  NULL when the
 * models were added, with "prefix" before each id; else what was wrong, without
 * a word of the server's own or the key: the caller frees.
 */
extern char *bc_models_fetch(BcModels *models, const char *base, const char *key,
							 const char *prefix, int64_t until, bool (*cancelled) (void));

#endif							/* BC_RUNNER_MODELS_HTTP_H */
