/* SPDX-License-Identifier: PostgreSQL */
/*
 * checkout.h
 *	  Looking at, and replacing, single files of a project's checkout.
 *
 * No symbolic link is ever followed: every directory on the way to a file is
 * opened by its real name.  Replacements are prepared beside their targets and
 * then moved into place one after the other; when one of them fails, those
 * before it are undone.
 */
#ifndef BC_RUNNER_CHECKOUT_H
#define BC_RUNNER_CHECKOUT_H

#include <git2.h>
#include <jansson.h>

/* A file as git sees it; mode 0: there is none. */
typedef struct BcEntry
{
	git_oid		id;
	git_filemode_t mode;
} BcEntry;

typedef enum BcLook
{
	BC_LOOK_OK,
	BC_LOOK_OBSTACLE,			/* a directory, a device, a link on the way to it */
	BC_LOOK_FAILED
} BcLook;

/* What the checkout has at "path". */
extern BcLook bc_checkout_look(git_repository *repo, const char *path, BcEntry *entry);

/* Prepares the file's next form.  NULL, or a RESULT that says what failed. */
extern json_t *bc_checkout_stage(git_repository *repo, const char *path, const BcEntry *entry);

/* Moves everything that is staged into place, or nothing. */
extern json_t *bc_checkout_commit(void);

/* Removes what was prepared, and forgets it. */
extern void bc_checkout_clear(void);

#endif							/* BC_RUNNER_CHECKOUT_H */
