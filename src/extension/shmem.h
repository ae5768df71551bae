/* SPDX-License-Identifier: PostgreSQL */
/*
 * shmem.h
 *	  What the launcher, the dispatchers and ordinary backends share.
 *
 * One slot a database.  All fields but the atomics and the condition variable
 * are protected by bc_shared->lock; nothing that may fail or wait is done
 * while it is held.
 *
 * State of a slot:
 *
 *	  PROBE ---launcher registers a worker--> STARTING ---extension found---> RUNNING
 *	    ^                                        |                              |
 *	    |                                        +--extension not found--> ABSENT
 *	    +-------- CREATE/DROP EXTENSION committed, or the worker ended ---------+
 */
#ifndef BC_EXTENSION_SHMEM_H
#define BC_EXTENSION_SHMEM_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

typedef enum BcDatabaseState
{
	BC_DB_PROBE,				/* nobody has looked yet, or must look again */
	BC_DB_STARTING,				/* a worker is on its way */
	BC_DB_RUNNING,				/* served */
	BC_DB_ABSENT				/* looked: the extension is not there */
} BcDatabaseState;

/* Reasons to wake a dispatcher: bits of BcDatabase.work */
#define BC_WORK_TASKS		0x01	/* tasks were inserted */
#define BC_WORK_REQUESTS	0x02	/* cancels, decisions: useful without a free slot */
#define BC_WORK_RECHECK		0x04	/* the extension may be gone */

typedef struct BcDatabase
{
	Oid			oid;			/* InvalidOid: the slot is free */
	BcDatabaseState state;
	int			holds;			/* backends that want no worker in this database now */
	bool		recheck;		/* pg_extension changed since the worker last looked */
	pid_t		pid;			/* of the dispatcher; 0: none */
	Latch	   *latch;			/* of the dispatcher; NULL: none */
	int			failures;		/* ends in a row before it served anything */
	TimestampTz next_start;		/* not before */
	TimestampTz started_at;

	/* What the dispatcher tells of itself */
	int			turns;
	int			jobs;
	int			spares;
	uint64		events;
	char		last_error[256];

	pg_atomic_uint32 work;		/* BC_WORK_* since the dispatcher last looked */
	pg_atomic_uint64 generation;	/* commits of the dispatcher */
	ConditionVariable changed;	/* broadcast when generation moves */
} BcDatabase;

typedef struct BcShared
{
	LWLock	   *lock;
	Latch	   *launcher_latch; /* NULL: no launcher now */
	bool		rescan;			/* databases were created or dropped */
	bool		look_again;		/* the extension came to one for which there was no slot */
	int			ndatabases;		/* slots */
	BcDatabase	databases[FLEXIBLE_ARRAY_MEMBER];
} BcShared;

/* NULL in a server that did not preload the library */
extern BcShared *bc_shared;

/* Installs the shared memory hooks; only while preloading. */
extern void bc_shmem_install(void);

/*
 * The slot of a database.  The caller holds the lock, exclusively when
 * "create".  NULL when there is none (or, with "create", none is free).
 */
extern BcDatabase *bc_shmem_find(Oid database, bool create);

/*
 * A slot for "database" when none is free: that of a database without the
 * extension, which "given_up" (unless NULL) then names.  NULL when there is
 * none.  The caller holds the lock, exclusively.
 */
extern BcDatabase *bc_shmem_recycle(Oid database, Oid *given_up);

/* The slot of the own database, taking the lock itself for the search. */
extern BcDatabase *bc_shmem_my_database(void);

/* Sets the launcher's latch.  The caller holds the lock. */
extern void bc_shmem_wake_launcher(void);

#endif							/* BC_EXTENSION_SHMEM_H */
