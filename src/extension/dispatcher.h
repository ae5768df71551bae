/* SPDX-License-Identifier: PostgreSQL */
/*
 * dispatcher.h
 *	  The worker that serves one database.
 */
#ifndef BC_EXTENSION_DISPATCHER_H
#define BC_EXTENSION_DISPATCHER_H

#include "postgres.h"

/* Entry point; the argument is the database's OID, bgw_extra holds the role's. */
extern PGDLLEXPORT void bc_dispatcher_main(Datum arg);

#endif							/* BC_EXTENSION_DISPATCHER_H */
