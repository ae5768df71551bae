/* SPDX-License-Identifier: PostgreSQL */
/*
 * paths.h
 *	  Rules about where things may lie.
 */
#ifndef BC_RUNNER_PATHS_H
#define BC_RUNNER_PATHS_H

#include <jansson.h>
#include <stdbool.h>

/* Is "path" the directory "base" or below it?  Both absolute and normalised. */
extern bool bc_paths_is_below(const char *path, const char *base);

/*
 * The real path of the longest existing part of "path", with the rest
 * appended.  NULL when it is no absolute path, or has a ".." in it.  The
 * caller frees.
 */
extern char *bc_paths_resolve(const char *path);

/* The user that this process runs as; looked up once, "nobody" where there is no entry. */
typedef struct BcUser
{
	const char *name;
	const char *home;
} BcUser;

extern const BcUser *bc_paths_user(void);

/*
 * Replaces a leading "~/" in the places an order names by the home directory
 * of the user this process runs as: who sends the order need not know it.
 */
extern void bc_paths_expand_home(json_t *order);

/*
 * Makes the worktree root (mode 0700) and checks that it is the server user's
 * own, writable, and neither inside one of "forbidden" nor inside "project"
 * (which may be NULL), nor the other way round.  NULL when all is well, else
 * what is wrong; the caller frees.
 */
extern char *bc_paths_check_root(const char *root, const json_t *forbidden, const char *project);

#endif							/* BC_RUNNER_PATHS_H */
