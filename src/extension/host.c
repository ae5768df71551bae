/* SPDX-License-Identifier: PostgreSQL */
/*
 * host.c
 *	  Facts about the server and its settings, for the orders of runners.
 *
 * Runs in the dispatcher, whose role may not read data_directory and the like
 * by SHOW: the values are taken from the server's own variables.
 */
#include "postgres.h"

#include <pwd.h>
#include <unistd.h>

#include "access/xlog.h"
#include "commands/extension.h"
#include "extension/guc.h"
#include "extension/host.h"
#include "extension/runners.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(bc_sql_host);

static void
key(StringInfo json, const char *name)
{
	char		last = json->len > 0 ? json->data[json->len - 1] : '\0';

	if (last != '{')
		appendStringInfoChar(json, ',');
	escape_json(json, name);
	appendStringInfoChar(json, ':');
}

static void
add_text(StringInfo json, const char *name, const char *value)
{
	key(json, name);
	escape_json(json, value);
}

static void
add_int(StringInfo json, const char *name, int64 value)
{
	key(json, name);
	appendStringInfo(json, INT64_FORMAT, value);
}

static void
element(StringInfo json, const char *value)
{
	if (json->data[json->len - 1] != '[')
		appendStringInfoChar(json, ',');
	escape_json(json, value);
}

/* A colon-separated list, empty parts left out. */
static void
add_paths(StringInfo json, const char *name, const char *list)
{
	char	   *copy = pstrdup(list);
	char	   *state = NULL;

	key(json, name);
	appendStringInfoChar(json, '[');
	for (char *part = strtok_r(copy, ":", &state); part != NULL;
		 part = strtok_r(NULL, ":", &state))
	{
		while (*part == ' ')
			part++;
		if (*part != '\0')
			element(json, part);
	}
	appendStringInfoChar(json, ']');
	pfree(copy);
}

/* Where the server's sockets are: directories, or the names of abstract ones, which begin with '@'. */
static void
sockets(StringInfo json, char first)
{
	char	   *copy = pstrdup(Unix_socket_directories);
	List	   *directories;
	ListCell   *cell;

	appendStringInfoChar(json, '[');
	if (SplitDirectoriesString(copy, ',', &directories))
	{
		foreach(cell, directories)
		{
			const char *directory = lfirst(cell);

			if (directory[0] == first)
				element(json, directory);
		}
		list_free_deep(directories);
	}
	appendStringInfoChar(json, ']');
}

/* Where tablespaces are, read once: false again when one is created or dropped. */
static List *tablespace_targets = NIL;
static bool tablespaces_known = false;

static void
forget_tablespaces(Datum arg, int cache, uint32 hash)
{
	tablespaces_known = false;
}

static void
read_tablespaces(void)
{
	static bool registered = false;
	MemoryContext old;
	DIR		   *dir;
	struct dirent *entry;

	if (!registered)
		CacheRegisterSyscacheCallback(TABLESPACEOID, forget_tablespaces, (Datum) 0);
	registered = true;
	list_free_deep(tablespace_targets);
	tablespace_targets = NIL;
	tablespaces_known = true;
	dir = AllocateDir("pg_tblspc");
	old = MemoryContextSwitchTo(TopMemoryContext);
	while (dir != NULL && (entry = ReadDirExtended(dir, "pg_tblspc", LOG)) != NULL)
	{
		char		path[MAXPGPATH];
		char		target[MAXPGPATH];
		ssize_t		length;

		snprintf(path, sizeof(path), "pg_tblspc/%s", entry->d_name);
		length = readlink(path, target, sizeof(target) - 1);
		if (length <= 0)
			continue;
		target[length] = '\0';
		tablespace_targets = lappend(tablespace_targets, pstrdup(target));
	}
	MemoryContextSwitchTo(old);
	if (dir != NULL)
		FreeDir(dir);
}

static void
tablespaces(StringInfo json)
{
	ListCell   *cell;

	if (!tablespaces_known)
		read_tablespaces();
	foreach(cell, tablespace_targets)
		element(json, lfirst(cell));
}

char *
bc_host_origin(void)
{
	return psprintf(UINT64_FORMAT "-%u", GetSystemIdentifier(), MyDatabaseId);
}

/*
 * Clusters and databases that share a root must not share worktrees; nor must
 * two lives of the extension in one database, whose ids begin at 1 again.
 */
static char *
place(void)
{
	return psprintf("%s-%u", bc_host_origin(), get_extension_oid("boocoder", true));
}

char *
bc_host_worktree_root(void)
{
	const char *base = bc_worktree_root;

	if (base[0] == '\0')
	{
		struct passwd *user = getpwuid(geteuid());

		base = psprintf("%s/.local/share/boocoder",
						user != NULL && user->pw_dir != NULL ? user->pw_dir : "/nonexistent");
	}
	return psprintf("%s/%s", base, place());
}

void
bc_host_forbidden(StringInfo json)
{
	appendStringInfoChar(json, '[');
	element(json, DataDir);
	tablespaces(json);
	appendStringInfoChar(json, ']');
}

void
bc_host_abstract_sockets(StringInfo json)
{
	sockets(json, '@');
}

void
bc_host_sandbox(StringInfo json)
{
	appendStringInfoChar(json, '{');
	add_text(json, "mode", bc_sandbox == BC_SANDBOX_ON ? "bwrap" : "off");
	add_paths(json, "ro_paths", bc_sandbox_ro_paths);
	key(json, "hide");
	sockets(json, '/');
	/* The list above ends with ']': put the data directory into it. */
	json->data[--json->len] = '\0';
	element(json, DataDir);
	tablespaces(json);
	appendStringInfoChar(json, ']');
	add_text(json, "agent_path", bc_agent_path);
	key(json, "network");
	appendStringInfoString(json, bc_sandbox_network ? "true" : "false");
	appendStringInfoChar(json, '}');
}

/* boocoder._host(): see the comment on the SQL function. */
Datum
bc_sql_host(PG_FUNCTION_ARGS)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	add_text(&json, "system_identifier", psprintf(UINT64_FORMAT, GetSystemIdentifier()));
	add_text(&json, "origin", bc_host_origin());
	add_text(&json, "place", place());
	add_text(&json, "worktree_root", bc_host_worktree_root());
	key(&json, "forbidden");
	bc_host_forbidden(&json);
	key(&json, "sandbox");
	bc_host_sandbox(&json);
	add_paths(&json, "allowed_roots", bc_allowed_roots);
	add_text(&json, "default_agent", bc_default_agent);
	add_text(&json, "default_model", bc_default_model);
	add_text(&json, "agent_home", bc_agent_home);
	add_int(&json, "setup_timeout_ms", bc_setup_timeout_ms);
	add_int(&json, "probe_ttl_ms", bc_probe_ttl_ms);
	add_int(&json, "probe_timeout_ms", bc_probe_timeout_ms);
	add_int(&json, "permission_timeout_ms", bc_permission_timeout_ms);
	add_int(&json, "idle_ttl_ms", bc_idle_ttl_ms);
	/* those that are at work need descriptors, too */
	add_int(&json, "max_warm", Min(bc_max_warm, bc_runners_limit() / 2));
	add_int(&json, "worktree_grace_ms", bc_worktree_grace_ms);
	add_int(&json, "worktree_budget", (int64) bc_worktree_budget_mb * 1024 * 1024);
	add_int(&json, "max_turns", bc_max_turns);
	add_int(&json, "max_diff_bytes", (int64) bc_max_diff_kb * 1024);
	key(&json, "server");
	appendStringInfoChar(&json, '{');
	add_int(&json, "health_interval_ms", bc_server_health_interval_ms);
	add_int(&json, "health_timeout_ms", bc_server_health_timeout_ms);
	add_int(&json, "health_failures", bc_server_health_failures);
	add_int(&json, "stale_grace_ms", bc_server_stale_grace_ms);
	appendStringInfoChar(&json, '}');
	key(&json, "ports");
	appendStringInfoChar(&json, '{');
	add_int(&json, "first", bc_port_first);
	add_int(&json, "last", bc_port_last);
	add_int(&json, "count", bc_ports_per_worktree);
	appendStringInfoChar(&json, '}');
	key(&json, "limits");
	appendStringInfoChar(&json, '{');
	add_int(&json, "timeout_ms", bc_task_timeout_ms);
	add_int(&json, "inactivity_ms", bc_turn_inactivity_timeout_ms);
	add_int(&json, "handshake_ms", bc_handshake_timeout_ms);
	add_int(&json, "cancel_grace_ms", bc_cancel_grace_ms);
	add_int(&json, "term_grace_ms", bc_term_grace_ms);
	add_int(&json, "max_line", (int64) bc_max_line_kb * 1024);
	appendStringInfoString(&json, "}}");
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}
