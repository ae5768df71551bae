/* SPDX-License-Identifier: PostgreSQL */
/*
 * env.h
 *	  The environment of the programs of an order.
 *
 * Nothing is inherited: a short list, where the worktree is, and what the
 * provider sets.  A value of a provider is a string, {"from_env": NAME}, a
 * variable of the runner's own environment, or {"from_file": PATH}, a file
 * that nobody else can read.  Values are in no message.
 */
#ifndef BC_RUNNER_ENV_H
#define BC_RUNNER_ENV_H

#include <jansson.h>

/*
 * One value of a provider.  NULL when it can't be had; *problem then says why,
 * without the value.  The caller frees both.
 */
extern char *bc_env_value(const json_t *value, char **problem);

/*
 * The environment for an order, "NAME=value", ending in NULL; NULL with
 * *problem set when a value can't be had.  The caller frees the strings, the
 * array and the problem.
 */
extern char **bc_env_build(const json_t *order, char **problem);

#endif							/* BC_RUNNER_ENV_H */
