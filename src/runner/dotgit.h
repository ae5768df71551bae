/* SPDX-License-Identifier: PostgreSQL */
/*
 * dotgit.h
 *	  Which names may be written into a checkout.  Pure functions.
 */
#ifndef BC_RUNNER_DOTGIT_H
#define BC_RUNNER_DOTGIT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Is this component of a path ".git", or does a file system of another kind
 * (NTFS, HFS+) take it for that?
 */
extern bool bc_git_is_dotgit(const char *name, size_t length);

/* NULL when the relative path may be used in a checkout, else why not. */
extern const char *bc_git_path_unsafe(const char *path);

#endif							/* BC_RUNNER_DOTGIT_H */
