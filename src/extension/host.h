/* SPDX-License-Identifier: PostgreSQL */
/*
 * host.h
 *	  Facts about the server and its settings, for the orders of runners.
 */
#ifndef BC_EXTENSION_HOST_H
#define BC_EXTENSION_HOST_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* The worktree root of the current database, an absolute path, palloc'd. */
extern char *bc_host_worktree_root(void);

/* What tells this database from all others: the cluster's system identifier and its OID; palloc'd. */
extern char *bc_host_origin(void);

/* Appends the JSON array of the directories no worktree or project may touch. */
extern void bc_host_forbidden(StringInfo json);

/* Appends the JSON array of the server's abstract sockets. */
extern void bc_host_abstract_sockets(StringInfo json);

/* Appends the JSON object that describes the sandbox. */
extern void bc_host_sandbox(StringInfo json);

#endif							/* BC_EXTENSION_HOST_H */
