/* SPDX-License-Identifier: PostgreSQL */
/*
 * llm_error.h
 *	  What it means to a task that an agent's model could not be reached or
 *	  used.  Pure; takes any bytes.
 *
 * All return one of "rate_limited", "auth_required", "overloaded",
 * "context_exceeded", or "agent_error" for whatever is none of these.
 */
#ifndef BC_RUNNER_LLM_ERROR_H
#define BC_RUNNER_LLM_ERROR_H

#include <jansson.h>

/* By what is known: a status of HTTP (0: none), the words of the error (may be NULL). */
extern const char *bc_llm_error(int status, const char *words);

/* By the error of a JSON-RPC response, in the forms agents give it: {"code", "message", "data"}. */
extern const char *bc_llm_error_rpc(const json_t *error);

#endif							/* BC_RUNNER_LLM_ERROR_H */
