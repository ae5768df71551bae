/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_options.h
 *	  What to choose where an ACP agent offers a choice.  Pure.
 */
#ifndef BC_RUNNER_ACP_OPTIONS_H
#define BC_RUNNER_ACP_OPTIONS_H

#include <jansson.h>

/*
 * The option of category "category" ("model", "mode") in a list of
 * configOptions, or NULL.  Borrowed.
 */
extern const json_t *bc_acp_option(const json_t *config_options, const char *category);

/*
 * The value of the option that "wanted" means: one with this value, else one
 * with this name, else the only one that ends in "/wanted" (models are named
 * "provider/model" by some), else "wanted" itself (agents know aliases).
 * Borrowed.
 */
extern const char *bc_acp_option_value(const json_t *option, const char *wanted);

/*
 * The model in use, as the result of session/new or of a change of options
 * says; NULL when it does not.  Borrowed.
 */
extern const char *bc_acp_current_model(const json_t *result);

#endif							/* BC_RUNNER_ACP_OPTIONS_H */
