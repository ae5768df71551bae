/* SPDX-License-Identifier: PostgreSQL */
/*
 * init.c
 *	  Entry point of the library.
 *
 * Loaded by shared_preload_libraries it installs everything; loaded later, by
 * a function call in a server that did not preload it, it only defines the
 * settings, so that SHOW works and doctor() can say what is wrong.
 */
#include "postgres.h"

#include "extension/compat.h"
#include "extension/guc.h"
#include "extension/hooks.h"
#include "extension/launcher.h"
#include "extension/shmem.h"
#include "fmgr.h"
#include "miscadmin.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	bool		preloading = process_shared_preload_libraries_in_progress;

	bc_guc_define(preloading);
	/* pg_upgrade starts servers that must not act on what they hold */
	if (!preloading || IsBinaryUpgrade)
		return;
	bc_shmem_install();
	bc_hooks_install();
	bc_launcher_register();
}
