/* SPDX-License-Identifier: PostgreSQL */
/*
 * hooks.c
 *	  What happens in ordinary backends: waking the dispatcher at commit,
 *	  noticing CREATE and DROP of the extension and of databases, and making
 *	  way for commands that need a database without other connections.
 *
 * All of it is bound to the end of the transaction, so that what rolls back
 * has no effect.  Nothing here may fail once the transaction has committed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "extension/compat.h"
#include "extension/hooks.h"
#include "extension/shmem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"

/* How long a database command waits for a dispatcher to leave. */
#define LEAVE_TIMEOUT_MS 5000

/* What the current transaction will do at its commit */
static uint32 pending_work = 0;
static bool extension_changed = false;
static bool databases_changed = false;

/* The databases this backend keeps free of a dispatcher; one transaction can rename several */
#define MAX_HELD 16
static Oid	held[MAX_HELD];
static int	nheld = 0;

static object_access_hook_type previous_object_access;
static ProcessUtility_hook_type previous_utility;

static void
wake_dispatcher(uint32 work)
{
	BcDatabase *db = bc_shmem_my_database();

	if (db == NULL)
		return;
	/* One SetLatch until the dispatcher has looked: thousands of commits cost one. */
	if ((pg_atomic_read_u32(&db->work) & work) == work ||
		(pg_atomic_fetch_or_u32(&db->work, work) & work) == work)
		return;
	LWLockAcquire(bc_shared->lock, LW_SHARED);
	if (db->latch != NULL)
		SetLatch(db->latch);
	LWLockRelease(bc_shared->lock);
}

static void
announce_extension_change(void)
{
	BcDatabase *db;

	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	db = bc_shmem_find(MyDatabaseId, true);
	if (db == NULL)
		db = bc_shmem_recycle(MyDatabaseId, NULL);
	bc_shared->look_again |= db == NULL;
	if (db != NULL)
	{
		db->recheck = true;
		db->next_start = 0;
		db->failures = 0;
		if (db->state == BC_DB_ABSENT)
			db->state = BC_DB_PROBE;
		pg_atomic_fetch_or_u32(&db->work, BC_WORK_RECHECK);
		if (db->latch != NULL)
			SetLatch(db->latch);
	}
	bc_shared->rescan = true;	/* the worker's role may be a new one */
	bc_shmem_wake_launcher();
	LWLockRelease(bc_shared->lock);
	if (db == NULL)
		ereport(WARNING,
				(errmsg("boocoder cannot serve this database: all slots are taken"),
				 errhint("Increase boocoder.max_databases and restart the server.")));
}

static void
release_databases(void)
{
	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < nheld; i++)
	{
		BcDatabase *db = bc_shmem_find(held[i], false);

		if (db == NULL)
			continue;
		db->holds--;
		db->next_start = 0;
		if (db->state != BC_DB_ABSENT)
			db->state = BC_DB_PROBE;
	}
	bc_shared->rescan = true;
	bc_shmem_wake_launcher();
	LWLockRelease(bc_shared->lock);
	nheld = 0;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	bool		committed;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
			committed = true;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:	/* see after_commit_prepared() */
			committed = false;
			break;
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
		default:
			return;
	}

	if (committed && pending_work != 0)
		wake_dispatcher(pending_work);
	if (committed && extension_changed)
		announce_extension_change();
	if (committed && databases_changed)
	{
		LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
		bc_shared->rescan = true;
		bc_shmem_wake_launcher();
		LWLockRelease(bc_shared->lock);
	}
	if (nheld > 0)
		release_databases();
	pending_work = 0;
	extension_changed = false;
	databases_changed = false;
}

/* Registers at_transaction_end() once for the life of the backend. */
static void
watch_transaction(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		registered = true;
	}
}

void
bc_wake_at_commit(uint32 work)
{
	if (bc_shared == NULL)
		return;
	watch_transaction();
	pending_work |= work;
}

static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (previous_object_access)
		previous_object_access(access, class_id, object_id, sub_id, arg);

	if (access != OAT_POST_CREATE && access != OAT_DROP && access != OAT_POST_ALTER)
		return;
	/* Which extension it is shows when the worker looks; such changes are rare. */
	if (class_id == ExtensionRelationId)
	{
		watch_transaction();
		extension_changed = true;
	}
	else if (class_id == DatabaseRelationId)
	{
		/* altered: perhaps it allows connections now */
		watch_transaction();
		databases_changed = true;
	}
}

/*
 * The database that a command needs for itself, or NULL.  These commands
 * refuse to work while anybody else, our dispatcher included, is connected.
 */
static const char *
database_to_clear(Node *statement)
{
	ListCell   *cell;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				return ((RenameStmt *) statement)->subname;
			return NULL;
		case T_AlterDatabaseStmt:
			foreach(cell, ((AlterDatabaseStmt *) statement)->options)
			{
				if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
					return ((AlterDatabaseStmt *) statement)->dbname;
			}
			return NULL;
		case T_CreatedbStmt:
			foreach(cell, ((CreatedbStmt *) statement)->options)
			{
				DefElem    *option = lfirst(cell);

				if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
					return defGetString(option);
			}
			return NULL;
		default:
			return NULL;
	}
}

/* May the current user do that at all?  Who may not must not stop a worker. */
static bool
may_clear(Node *statement, Oid database)
{
	return bc_owns_database(database) ||
		(IsA(statement, CreatedbStmt) && bc_is_template(database) && bc_may_create_databases());
}

/* Keeps the dispatcher out of "database" until the transaction ends; waits for it to leave. */
static void
hold_database(Oid database)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LEAVE_TIMEOUT_MS);
	static uint32 wait_event = 0;
	BcDatabase *db;

	for (int i = 0; i < nheld; i++)
		if (held[i] == database)
			return;
	if (nheld == MAX_HELD)
		return;
	watch_transaction();
	LWLockAcquire(bc_shared->lock, LW_EXCLUSIVE);
	/* one that is so new that the launcher has not seen it gets its slot here, or a worker could still come */
	db = bc_shmem_find(database, true);
	if (db != NULL)
	{
		held[nheld++] = database;
		db->holds++;
		if (db->latch != NULL)
			SetLatch(db->latch);
	}
	LWLockRelease(bc_shared->lock);

	while (db != NULL && GetCurrentTimestamp() < deadline)
	{
		bool		gone;

		LWLockAcquire(bc_shared->lock, LW_SHARED);
		db = bc_shmem_find(database, false);
		gone = db == NULL || (db->pid == 0 && db->state != BC_DB_STARTING);
		LWLockRelease(bc_shared->lock);
		if (gone)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 bc_wait_event(wait_event, "BoocoderDispatcherLeave"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * What was prepared is done now, perhaps by another backend and long ago, so
 * nobody knows what it was.  That it inserted tasks is assumed; whether it
 * made or dropped the extension is seen.
 */
static void
after_commit_prepared(void)
{
	BcDatabase *db = bc_shmem_my_database();
	bool		served = db != NULL && db->state != BC_DB_ABSENT;

	bc_wake_at_commit(BC_WORK_TASKS | BC_WORK_REQUESTS);
	if (OidIsValid(get_extension_oid("boocoder", true)) != served)
		extension_changed = true;
}

/* A database that lets more people in may let the dispatcher in. */
static bool
opens_databases(Node *statement)
{
	return IsA(statement, GrantStmt) && ((GrantStmt *) statement)->objtype == OBJECT_DATABASE;
}

static bool
commits_prepared(Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED;
}

static void
utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
		ProcessUtilityContext context, ParamListInfo params,
		QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	/* Where the command is a COMMIT, say, the statement is not there any more afterwards. */
	const char *name = database_to_clear(pstmt->utilityStmt);
	bool		prepared = commits_prepared(pstmt->utilityStmt);
	bool		opens = opens_databases(pstmt->utilityStmt);

	if (name != NULL)
	{
		Oid			database = get_database_oid(name, true);

		if (OidIsValid(database) && database != MyDatabaseId &&
			may_clear(pstmt->utilityStmt, database))
			hold_database(database);
	}
	if (previous_utility)
		previous_utility(pstmt, query, read_only_tree, context, params, environment, dest,
						 completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
								dest, completion);

	if (prepared)
		after_commit_prepared();
	if (opens)
	{
		watch_transaction();
		databases_changed = true;
	}
}

void
bc_hooks_install(void)
{
	previous_object_access = object_access_hook;
	object_access_hook = object_access;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}
