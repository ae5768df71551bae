/* SPDX-License-Identifier: PostgreSQL */
/*
 * jobs.h
 *	  One-shot git jobs: apply changes to a checkout, remove a worktree.
 */
#ifndef BC_EXTENSION_JOBS_H
#define BC_EXTENSION_JOBS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "extension/db.h"

/* Jobs that may run at the same time */
#define BC_MAX_JOBS 2

extern void bc_jobs_init(void);

/* Starts a job that the database handed out. */
extern void bc_jobs_start(const BcDbAction *action);

/* Like bc_tasks_tick(). */
extern TimestampTz bc_jobs_tick(TimestampTz now);

extern int	bc_jobs_count(void);

/* Jobs that ended since the last call */
extern int	bc_jobs_ended(void);

#endif							/* BC_EXTENSION_JOBS_H */
