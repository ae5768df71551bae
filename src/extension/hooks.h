/* SPDX-License-Identifier: PostgreSQL */
/*
 * hooks.h
 *	  How ordinary backends tell the workers what they committed.
 */
#ifndef BC_EXTENSION_HOOKS_H
#define BC_EXTENSION_HOOKS_H

#include "postgres.h"

/* Installs the object access and utility hooks; only while preloading. */
extern void bc_hooks_install(void);

/*
 * Marks the current transaction: when it commits, the dispatcher of this
 * database is woken with the given BC_WORK_* bits.  Does nothing when it
 * rolls back, and nothing at all in a server without the preload.
 */
extern void bc_wake_at_commit(uint32 work);

#endif							/* BC_EXTENSION_HOOKS_H */
