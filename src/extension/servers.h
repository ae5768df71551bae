/* SPDX-License-Identifier: PostgreSQL */
/*
 * servers.h
 *	  Agents of which one program serves many chats, each with a runner.
 *
 * Who shares one, when it is started again and when it ends, the database
 * decides (boocoder.servers); here is what stands for those rows in this
 * process.  What a runner tells of its server is passed on unread.
 */
#ifndef BC_EXTENSION_SERVERS_H
#define BC_EXTENSION_SERVERS_H

#include "postgres.h"

#include "datatype/timestamp.h"

extern void bc_servers_init(void);

/* Starts the server "id" with this order and launch prefix; both are copied. */
extern void bc_servers_start(int64 id, char *const *prefix, const char *order);

/*
 * The ANSWER that tells a chat where its server is, or that there is none;
 * palloc'd.  NULL: that will be told by bc_tasks_server() when it is known.
 */
extern char *bc_servers_answer(int64 id);

/* Nobody needs the server any more. */
extern void bc_servers_end(int64 id);

/* Tells the database what is due.  When to be called again; 0: not by time. */
extern TimestampTz bc_servers_tick(TimestampTz now);

#endif							/* BC_EXTENSION_SERVERS_H */
