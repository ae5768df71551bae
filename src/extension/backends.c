/* SPDX-License-Identifier: PostgreSQL */
/*
 * backends.c
 *	  Agents that are kept between turns.
 */
#include "postgres.h"

#include "extension/backends.h"
#include "extension/db.h"
#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

typedef enum BcBackendState
{
	BACKEND_BUSY,				/* the turn owns its runner */
	BACKEND_IDLE,
	BACKEND_ENDING,				/* its runner was closed, but is not reaped yet */
	BACKEND_ENDED				/* to be reported */
} BcBackendState;

typedef struct BcBackend
{
	dlist_node	node;
	int64		id;
	BcBackendState state;
	BcRunner   *runner;			/* NULL: it was closed, or is gone */
	pid_t		pid;
	bool		told;			/* the database knows the pid */
	TimestampTz due;			/* of the next look or try; 0: none */
} BcBackend;

static dlist_head backends;

static void
on_message(void *owner, BcRunner *runner, BcFrameType type, const StringInfoData *payload)
{
	/* Between two turns there is nothing to say. */
}

static void
on_gone(void *owner, BcRunner *runner, const char *why)
{
	BcBackend  *backend = owner;

	ereport(LOG,
			(errmsg("boocoder: backend " INT64_FORMAT " ended while it waited: %s", backend->id, why)));
	backend->runner = NULL;
	backend->state = BACKEND_ENDING;
	backend->due = GetCurrentTimestamp();
}

static const BcRunnerOwner idle_owner = {on_message, on_gone};

void
bc_backends_init(void)
{
	dlist_init(&backends);
}

static BcBackend *
find(int64 id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &backends)
	{
		BcBackend  *backend = dlist_container(BcBackend, node, iter.cur);

		if (backend->id == id)
			return backend;
	}
	return NULL;
}

static BcBackend *
add(int64 id)
{
	BcBackend  *backend = MemoryContextAllocZero(TopMemoryContext, sizeof(BcBackend));

	backend->id = id;
	dlist_push_tail(&backends, &backend->node);
	return backend;
}

static void
drop(BcBackend *backend)
{
	dlist_delete(&backend->node);
	pfree(backend);
}

BcRunner *
bc_backends_order(int64 id, const BcRunnerOwner *owner, void *owner_data, char *const *prefix,
				  const char *order)
{
	BcBackend  *backend = find(id);
	BcRunner   *runner;

	if (backend != NULL && backend->state == BACKEND_IDLE)
	{
		backend->state = BACKEND_BUSY;
		bc_runners_order_again(backend->runner, owner, owner_data, order);
		return backend->runner;
	}
	runner = bc_runners_order(owner, owner_data, prefix, order);
	if (runner == NULL)
		return NULL;
	/* What was to be reported of the one that has ended is no more true. */
	if (backend == NULL)
		backend = add(id);
	backend->state = BACKEND_BUSY;
	backend->runner = runner;
	backend->pid = runner->pid;
	backend->told = false;
	backend->due = GetCurrentTimestamp();
	return runner;
}

void
bc_backends_rest(int64 id)
{
	BcBackend  *backend = find(id);

	backend->state = BACKEND_IDLE;
	bc_runners_hand_over(backend->runner, &idle_owner, backend);
}

void
bc_backends_forget(int64 id)
{
	BcBackend  *backend = find(id);

	/* The end of the turn removes the row. */
	if (backend != NULL)
		drop(backend);
}

void
bc_backends_evict(int64 id)
{
	BcBackend  *backend = find(id);

	if (backend == NULL)
	{
		backend = add(id);
		backend->state = BACKEND_ENDED;
		backend->due = GetCurrentTimestamp();
	}
	else if (backend->state == BACKEND_IDLE)
	{
		BcRunner   *runner = backend->runner;

		backend->runner = NULL;
		backend->state = BACKEND_ENDING;
		backend->due = GetCurrentTimestamp();
		bc_runners_close(runner);
	}
}

static void
report_start(BcBackend *backend)
{
	BcDbStatus	status = bc_db_backend_started(backend->id, backend->pid);

	backend->told = status == BC_DB_OK;
	backend->due = backend->told ? 0 : bc_db_retry_at(status);
}

/* True when it is done and "backend" freed. */
static bool
report_end(BcBackend *backend)
{
	BcDbStatus	status = bc_db_backend_ended(backend->id);

	if (status == BC_DB_OK)
	{
		drop(backend);
		return true;
	}
	backend->due = bc_db_retry_at(status);
	return false;
}

/* False: it is gone. */
static bool
look_after(BcBackend *backend, TimestampTz now)
{
	switch (backend->state)
	{
		case BACKEND_BUSY:
		case BACKEND_IDLE:
			if (!backend->told)
				report_start(backend);
			return true;
		case BACKEND_ENDING:
			if (bc_runners_ending(backend->pid))
			{
				backend->due = TimestampTzPlusMilliseconds(now, BC_REAP_INTERVAL_MS);
				return true;
			}
			backend->state = BACKEND_ENDED;
			return !report_end(backend);
		case BACKEND_ENDED:
			return !report_end(backend);
	}
	return true;
}

TimestampTz
bc_backends_tick(TimestampTz now)
{
	dlist_mutable_iter iter;
	TimestampTz next = 0;

	dlist_foreach_modify(iter, &backends)
	{
		BcBackend  *backend = dlist_container(BcBackend, node, iter.cur);

		if (backend->due != 0 && backend->due <= now && !look_after(backend, now))
			continue;
		if (backend->due != 0 && (next == 0 || backend->due < next))
			next = backend->due;
	}
	return next;
}
