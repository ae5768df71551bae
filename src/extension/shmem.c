/* SPDX-License-Identifier: PostgreSQL */
/*
 * shmem.c
 *	  Creation of the shared state, and the search for a database's slot.
 */
#include "postgres.h"

#include "extension/compat.h"
#include "extension/guc.h"
#include "extension/shmem.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#define TRANCHE "boocoder"

BcShared   *bc_shared = NULL;

static shmem_startup_hook_type previous_startup;
#ifndef BC_NO_SHMEM_REQUEST_HOOK
static shmem_request_hook_type previous_request;
#endif

static Size
shared_size(void)
{
	return add_size(offsetof(BcShared, databases),
					mul_size(bc_max_databases, sizeof(BcDatabase)));
}

static void
request(void)
{
#ifndef BC_NO_SHMEM_REQUEST_HOOK
	if (previous_request)
		previous_request();
#endif
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche(TRANCHE, 1);
}

static void
startup(void)
{
	bool		found;

	if (previous_startup)
		previous_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	bc_shared = ShmemInitStruct("boocoder", shared_size(), &found);
	if (!found)
	{
		memset(bc_shared, 0, shared_size());
		bc_shared->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
		bc_shared->ndatabases = bc_max_databases;
		for (int i = 0; i < bc_max_databases; i++)
		{
			BcDatabase *db = &bc_shared->databases[i];

			pg_atomic_init_u32(&db->work, 0);
			pg_atomic_init_u64(&db->generation, 0);
			ConditionVariableInit(&db->changed);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

void
bc_shmem_install(void)
{
#ifdef BC_NO_SHMEM_REQUEST_HOOK
	request();
#else
	previous_request = shmem_request_hook;
	shmem_request_hook = request;
#endif
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
}

static BcDatabase *
take_slot(BcDatabase *db, Oid database)
{
	db->oid = database;
	db->state = BC_DB_PROBE;
	db->holds = 0;
	db->recheck = false;
	db->pid = 0;
	db->latch = NULL;
	db->failures = 0;
	db->next_start = 0;
	db->started_at = 0;
	db->turns = db->jobs = db->spares = 0;
	db->events = 0;
	db->last_error[0] = '\0';
	pg_atomic_write_u32(&db->work, 0);
	return db;
}

BcDatabase *
bc_shmem_find(Oid database, bool create)
{
	BcDatabase *free_slot = NULL;

	for (int i = 0; i < bc_shared->ndatabases; i++)
	{
		BcDatabase *db = &bc_shared->databases[i];

		if (db->oid == database)
			return db;
		if (free_slot == NULL && !OidIsValid(db->oid))
			free_slot = db;
	}
	return create && free_slot != NULL ? take_slot(free_slot, database) : NULL;
}

BcDatabase *
bc_shmem_recycle(Oid database, Oid *given_up)
{
	for (int i = 0; i < bc_shared->ndatabases; i++)
	{
		BcDatabase *db = &bc_shared->databases[i];

		if (db->state != BC_DB_ABSENT || db->pid != 0 || db->holds != 0 || db->recheck)
			continue;
		if (given_up != NULL)
			*given_up = db->oid;
		return take_slot(db, database);
	}
	return NULL;
}

BcDatabase *
bc_shmem_my_database(void)
{
	static BcDatabase *mine = NULL;

	if (bc_shared == NULL)
		return NULL;
	/* Nobody can drop the database we are connected to; without the extension its slot may be given to another. */
	if (mine == NULL || mine->oid != MyDatabaseId)
	{
		LWLockAcquire(bc_shared->lock, LW_SHARED);
		mine = bc_shmem_find(MyDatabaseId, false);
		LWLockRelease(bc_shared->lock);
	}
	return mine;
}

void
bc_shmem_wake_launcher(void)
{
	if (bc_shared->launcher_latch != NULL)
		SetLatch(bc_shared->launcher_latch);
}
