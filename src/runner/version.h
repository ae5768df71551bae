/* SPDX-License-Identifier: PostgreSQL */
/*
 * version.h
 *	  The version number in what a program says of itself.  Pure.
 */
#ifndef BC_RUNNER_VERSION_H
#define BC_RUNNER_VERSION_H

#include <stddef.h>

/*
 * The first x.y, x.y.z, ... in a line, with what may follow as in 1.2.3-beta.1;
 * NULL when there is none.  The caller frees.
 */
extern char *bc_version_find(const char *line, size_t len);

#endif							/* BC_RUNNER_VERSION_H */
