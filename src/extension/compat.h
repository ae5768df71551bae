/* SPDX-License-Identifier: PostgreSQL */
/*
 * compat.h
 *	  The one place that knows how PostgreSQL 14 to 18 differ.
 *
 * Include after postgres.h.
 */
#ifndef BC_EXTENSION_COMPAT_H
#define BC_EXTENSION_COMPAT_H

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

#if PG_VERSION_NUM < 140000 || PG_VERSION_NUM >= 190000
#error "boocoder supports PostgreSQL 14 to 18"
#endif

#if PG_VERSION_NUM >= 170000
#define BC_HAS_TRANSACTION_TIMEOUT
#define bc_create_wait_event_set(nevents) CreateWaitEventSet(NULL, nevents)
/* A named wait event; "cache" is a static uint32 that holds its number. */
#define bc_wait_event(cache, name) \
	((cache) != 0 ? (cache) : ((cache) = WaitEventExtensionNew(name)))
#else
#define bc_create_wait_event_set(nevents) CreateWaitEventSet(TopMemoryContext, nevents)
#define bc_wait_event(cache, name) ((void) (cache), PG_WAIT_EXTENSION)
#endif

/*
 * CHECK_FOR_INTERRUPTS() for a worker outside of a transaction: there is
 * nothing to cancel then, and pg_cancel_backend() must not end it.  What came
 * together with the time-out of a lock is looked at, too: ProcessInterrupts()
 * raises the error of that first, with InterruptPending off, and a barrier
 * would stay unanswered (DROP DATABASE waits for it) through all the time-outs
 * that follow.
 */
static inline void
bc_serve_interrupts(void)
{
	QueryCancelPending = false;
	InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}

/* May "role" connect to "database"? */
static inline bool
bc_may_connect(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(DatabaseRelationId, database, role, ACL_CONNECT) == ACLCHECK_OK;
#else
	return pg_database_aclcheck(database, role, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

static inline bool
bc_owns_database(Oid database)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
	return pg_database_ownercheck(database, GetUserId());
#endif
}

static inline bool
bc_is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* The server has a function for this, too; but 14, and the earlier minor versions of 15, do not export it. */
static inline bool
bc_may_create_databases(void)
{
	HeapTuple	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	bool		result = superuser();

	if (HeapTupleIsValid(role))
	{
		result = result || ((Form_pg_authid) GETSTRUCT(role))->rolcreatedb;
		ReleaseSysCache(role);
	}
	return result;
}

#if PG_VERSION_NUM < 150000
/* Before 15 shared memory is asked for in _PG_init() itself. */
#define BC_NO_SHMEM_REQUEST_HOOK
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

#endif							/* BC_EXTENSION_COMPAT_H */
