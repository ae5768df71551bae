/* SPDX-License-Identifier: PostgreSQL */
/*
 * payload.h
 *	  Keeps what an agent sends within the size of an event or a part.
 */
#ifndef BC_RUNNER_PAYLOAD_H
#define BC_RUNNER_PAYLOAD_H

#include <jansson.h>
#include <stddef.h>

#define BC_PAYLOAD_EVENT	(256 * 1024)

/* About the size of a value as JSON text; what is nested too deeply does not count. */
extern size_t bc_payload_size(const json_t *value);

/*
 * Returns "payload" (an object, stolen) if it is not larger than "max" bytes.
 * Otherwise a copy that is: small members are kept, long texts end early
 * (never within a character), long lists end early; "truncated" is true and
 * "bytes" says how large it was.
 */
extern json_t *bc_payload_limit(json_t *payload, size_t max);

#endif							/* BC_RUNNER_PAYLOAD_H */
