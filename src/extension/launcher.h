/* SPDX-License-Identifier: PostgreSQL */
/*
 * launcher.h
 *	  The one worker of the server that keeps a dispatcher in every database
 *	  with the extension.
 */
#ifndef BC_EXTENSION_LAUNCHER_H
#define BC_EXTENSION_LAUNCHER_H

#include "postgres.h"

/* The role as which dispatchers connect; created by the install script. */
#define BC_WORKER_ROLE "boocoder_worker"

/* Registers the launcher; only while preloading. */
extern void bc_launcher_register(void);

/* Entry point of the launcher process. */
extern PGDLLEXPORT void bc_launcher_main(Datum arg);

#endif							/* BC_EXTENSION_LAUNCHER_H */
