/* SPDX-License-Identifier: PostgreSQL */
/*
 * server.h
 *	  Role "server": an agent that serves many chats over HTTP, on loopback and
 *	  behind a password that is made here.
 *
 * It is started, waited for, looked after, and ended with the dispatcher or on
 * a CANCEL.  SERVER messages tell how it is: {"state": "ready", "url",
 * "username", "password", "pid", "start_time", "version"}; after each look
 * {"state": "health", "ok", "ms", "problem"}; and {"state": "exited",
 * "exit_code", "signal"}.  It is never started again from here, that is
 * decided elsewhere; and its port is a free one that it finds by itself, so
 * nobody has to make room for it.
 */
#ifndef BC_RUNNER_SERVER_H
#define BC_RUNNER_SERVER_H

#include <jansson.h>

/* The RESULT */
extern json_t *bc_server_run(const json_t *order);

#endif							/* BC_RUNNER_SERVER_H */
