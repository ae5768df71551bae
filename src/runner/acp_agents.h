/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_agents.h
 *	  Peculiarities of known ACP agents: who one is, and what it tells as text
 *	  that others tell as an error.  Pure.
 */
#ifndef BC_RUNNER_ACP_AGENTS_H
#define BC_RUNNER_ACP_AGENTS_H

#include <stdbool.h>

/*
 * The known agent behind the name it gives itself (NULL: none) and the kind its
 * provider has (NULL: unknown): "opencode", "goose", "claude", "qwen", "codex",
 * "gemini", ..., or "".  A name that is known counts more than the kind.
 */
extern const char *bc_acp_known(const char *kind, const char *name);

/*
 * The error that is the end of the turn although the agent calls it a success;
 * NULL when there is none.  "last_text" is what it said last, NULL when that was
 * no text; "system_error": did it report its session as broken?  The caller
 * frees.
 */
extern char *bc_acp_hidden_error(const char *known, const char *last_text, bool system_error);

#endif							/* BC_RUNNER_ACP_AGENTS_H */
