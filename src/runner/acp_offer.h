/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_offer.h
 *	  What an ACP agent offers: models, modes, commands, ways to sign in.  In
 *	  one form, whatever generation of the protocol it told them by.  Pure;
 *	  takes any JSON, and what it returns is bounded.
 */
#ifndef BC_RUNNER_ACP_OFFER_H
#define BC_RUNNER_ACP_OFFER_H

#include <jansson.h>

#include "runner/models.h"

/* The models in the result of session/new. */
extern void bc_acp_offer_models(BcModels *models, const json_t *session);

/* Its modes, as a new list of {"id", "name", "description"}. */
extern json_t *bc_acp_offer_modes(const json_t *session);

/* The mode in use, or NULL.  Borrowed. */
extern const char *bc_acp_offer_mode(const json_t *session);

/* An available_commands_update, as a new list of {"name", "description", "hint"}. */
extern json_t *bc_acp_offer_commands(const json_t *update);

/* The authMethods of initialize, as a new list of {"id", "name", "description", "type"}. */
extern json_t *bc_acp_offer_auth(const json_t *initialized);

/* What to do when the agent wants to be signed in by one of these; the caller frees. */
extern char *bc_acp_offer_hint(const json_t *auth_methods);

#endif							/* BC_RUNNER_ACP_OFFER_H */
