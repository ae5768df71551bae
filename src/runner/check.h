/* SPDX-License-Identifier: PostgreSQL */
/*
 * check.h
 *	  Does this host have what agents need?
 */
#ifndef BC_RUNNER_CHECK_H
#define BC_RUNNER_CHECK_H

#include <jansson.h>

/* The RESULT of an order of the role "check": see doc/protocol.md. */
extern json_t *bc_check_run(const json_t *order);

#endif							/* BC_RUNNER_CHECK_H */
