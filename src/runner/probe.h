/* SPDX-License-Identifier: PostgreSQL */
/*
 * probe.h
 *	  The role "probe": what one provider has to offer on this host.
 *
 * Whatever the program does, the answer is a status with a reason, in time, and
 * nothing of it runs afterwards.
 */
#ifndef BC_RUNNER_PROBE_H
#define BC_RUNNER_PROBE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runner/models.h"
#include "runner/talk.h"

extern json_t *bc_probe_run(const json_t *order);

/* --- between the parts of the role --- */

typedef struct BcProbe
{
	json_t	   *order;			/* of the program: its cwd is the scratch directory */
	json_t	   *result;
	BcModels	models;
	char	   *program;		/* its path, once it is found */
	int64_t		began;
	int64_t		deadline;		/* of bc_now(), for everything */
} BcProbe;

/* A limit of the order, or "fallback" where it has none. */
extern int64_t bc_probe_limit(const BcProbe *probe, const char *name, int64_t fallback);

/* When something that may take "ms" has to be over. */
extern int64_t bc_probe_until(const BcProbe *probe, int64_t ms);

/* Settles status and reason unless that has been done; "message" is freed. */
extern void bc_probe_settle(BcProbe *probe, const char *status, const char *reason,
							char *message);
extern bool bc_probe_settled(const BcProbe *probe);

/* Adds something worth knowing to the message, whatever the status will be; "text" is freed. */
extern void bc_probe_note(BcProbe *probe, char *text);

/* The same as bc_talk_start(), and the problem is settled. */
extern bool bc_probe_start(BcProbe *probe, BcTalk *talk, const json_t *command);

/* Ends the program in the time that the order gives it. */
extern void bc_probe_finish(BcProbe *probe, BcTalk *talk);

/* How a program that is finished ended, and its last words: "ended with status 1: no such file". */
extern char *bc_probe_ending(const BcTalk *talk);

/* Settles why a program that is finished said too little; "doing" is what it should have done. */
extern void bc_probe_unheard(BcProbe *probe, const BcTalk *talk, BcTalkStatus status,
							 const char *doing);

/* The handshake of the Agent Client Protocol, up to a session that is closed again. */
extern void bc_probe_acp(BcProbe *probe);

/* The models that the program tells of outside of the protocol. */
extern void bc_probe_models(BcProbe *probe);

#endif							/* BC_RUNNER_PROBE_H */
