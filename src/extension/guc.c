/* SPDX-License-Identifier: PostgreSQL */
/*
 * guc.c
 *	  Definition of the boocoder.* settings.
 *
 * All but force_delete are PGC_SIGHUP: they steer the dispatcher, a process of the
 * server, so a session cannot change them, and a reload is enough.
 */
#include "postgres.h"

#include <limits.h>

#include "extension/compat.h"
#include "extension/guc.h"
#include "utils/guc.h"

int			bc_max_databases = 64;
int			bc_max_running;
int			bc_spare_runners;
int			bc_poll_interval_ms;
int			bc_task_timeout_ms;
int			bc_turn_inactivity_timeout_ms;
int			bc_handshake_timeout_ms;
int			bc_cancel_grace_ms;
int			bc_term_grace_ms;
int			bc_setup_timeout_ms;
int			bc_git_timeout_ms;
int			bc_max_line_kb;
int			bc_max_diff_kb;
int			bc_sandbox = BC_SANDBOX_ON;
bool		bc_sandbox_network;
char	   *bc_sandbox_ro_paths;
char	   *bc_agent_path;
char	   *bc_worktree_root;
char	   *bc_allowed_roots;
char	   *bc_default_agent;
char	   *bc_default_model;
int			bc_probe_ttl_ms;
int			bc_probe_timeout_ms;
int			bc_permission_timeout_ms;
int			bc_idle_ttl_ms;
int			bc_max_warm;
int			bc_worktree_grace_ms;
int			bc_worktree_budget_mb;
int			bc_max_turns;
bool		bc_force_delete;
int			bc_server_health_interval_ms;
int			bc_server_health_timeout_ms;
int			bc_server_health_failures;
int			bc_server_stale_grace_ms;
int			bc_ports_per_worktree;
int			bc_port_first;
int			bc_port_last;
char	   *bc_agent_home;
char	   *bc_env_allow;

static const struct config_enum_entry sandbox_modes[] = {
	{"on", BC_SANDBOX_ON, false},
	{"off", BC_SANDBOX_OFF, false},
	{NULL, 0, false}
};

typedef struct IntSetting
{
	const char *name;
	const char *brief;
	const char *detail;
	int		   *variable;
	int			boot;
	int			min;
	int			max;
	int			flags;
} IntSetting;

typedef struct StringSetting
{
	const char *name;
	const char *brief;
	const char *detail;
	char	  **variable;
	const char *boot;
	int			flags;
} StringSetting;

#define HOUR_MS (60 * 60 * 1000)

static const IntSetting int_settings[] = {
	{"boocoder.max_running", "Tasks of one database that may run at the same time.",
	NULL, &bc_max_running, 4, 0, 1000, 0},
	{"boocoder.spare_runners", "Idle runner processes kept ready in each database.",
	"A spare runner has been started and linked already, which saves its start-up time "
	"when a task arrives.", &bc_spare_runners, 2, 0, 64, 0},
	{"boocoder.poll_interval", "Time between two looks for work that nothing announced.",
	"Inserts wake the dispatcher at commit; the poll finds the rest: prepared transactions, "
	"rows applied by replication, scheduled tasks.",
	&bc_poll_interval_ms, 2000, 10, HOUR_MS, GUC_UNIT_MS},
	{"boocoder.task_timeout", "Longest time a task may run when it names no timeout of its own.",
	"Zero means no limit.", &bc_task_timeout_ms, 0, 0, INT_MAX, GUC_UNIT_MS},
	{"boocoder.turn_inactivity_timeout", "Longest silence of an agent that speaks a protocol.",
	"Zero means no limit.  Agents of the transport \"command\" may be silent.",
	&bc_turn_inactivity_timeout_ms, 180 * 1000, 0, INT_MAX, GUC_UNIT_MS},
	{"boocoder.handshake_timeout", "Longest time an agent may take to answer the handshake.",
	NULL, &bc_handshake_timeout_ms, 30 * 1000, 100, INT_MAX, GUC_UNIT_MS},
	{"boocoder.cancel_grace", "Time an agent has to end a cancelled turn by itself.",
	NULL, &bc_cancel_grace_ms, 5 * 1000, 0, HOUR_MS, GUC_UNIT_MS},
	{"boocoder.term_grace", "Time between SIGTERM and SIGKILL for an agent that must end.",
	NULL, &bc_term_grace_ms, 2 * 1000, 0, HOUR_MS, GUC_UNIT_MS},
	{"boocoder.setup_timeout", "Longest time the setup commands of a project may take.",
	NULL, &bc_setup_timeout_ms, 60 * 1000, 100, INT_MAX, GUC_UNIT_MS},
	{"boocoder.git_timeout", "Longest time one git operation may take.",
	NULL, &bc_git_timeout_ms, 10 * 60 * 1000, 100, INT_MAX, GUC_UNIT_MS},
	{"boocoder.probe_ttl", "Age at which what is known about the agents is looked up again.",
	"When somebody asks, by boocoder.provider_snapshot().  Zero: never unasked, not at the start "
	"of the dispatcher either.", &bc_probe_ttl_ms, 300 * 1000, 0, INT_MAX, GUC_UNIT_MS},
	{"boocoder.probe_timeout", "Longest time a look at one agent may take.",
	NULL, &bc_probe_timeout_ms, 30 * 1000, 100, HOUR_MS, GUC_UNIT_MS},
	{"boocoder.permission_timeout", "Time a person has to answer a request of an agent.",
	"It is then rejected.  Zero means no limit: the task waits in the inbox.",
	&bc_permission_timeout_ms, 0, 0, INT_MAX, GUC_UNIT_MS},
	{"boocoder.idle_ttl", "Time an agent is kept after its last turn.",
	"Its next turn then starts it again, and it goes on with its session if it can.",
	&bc_idle_ttl_ms, 30 * 60 * 1000, 0, INT_MAX, GUC_UNIT_MS},
	{"boocoder.max_warm_backends", "Agents of one database that are kept between turns.",
	"The least recently used one ends in favour of another; those at work count, but never end.  "
	"Zero: none are kept.", &bc_max_warm, 8, 0, 1000, 0},
	{"boocoder.worktree_grace", "Time between the removal of a worktree and that of its directory.",
	"Also the age at which the worktree of a closed or deleted session goes, if it holds nothing that would be missed.",
	&bc_worktree_grace_ms, HOUR_MS, 0, INT_MAX, GUC_UNIT_MS},
	{"boocoder.worktree_budget", "Disk space that the worktrees of one database may take.",
	"Over it, worktrees whose time is not over yet go as well, if they are safe, and no new ones are made.  Zero: no limit.",
	&bc_worktree_budget_mb, 0, 0, INT_MAX / 2, GUC_UNIT_MB},
	{"boocoder.max_turn_snapshots", "Turns of a worktree whose contents are kept for rewind().",
	"Those of the oldest tasks go.  Zero: all are kept as long as the worktree.",
	&bc_max_turns, 100, 0, 1000000, 0},
	{"boocoder.server_health_interval", "Time between two looks at an agent that serves many chats.",
	NULL, &bc_server_health_interval_ms, 15 * 1000, 100, INT_MAX, GUC_UNIT_MS},
	{"boocoder.server_health_timeout", "Time such a server has to answer.",
	NULL, &bc_server_health_timeout_ms, 5 * 1000, 100, INT_MAX, GUC_UNIT_MS},
	{"boocoder.server_health_failures", "Looks in a row at which a server was not healthy, until it is started again.",
	"It is not while a turn runs on it.", &bc_server_health_failures, 20, 1, 10000, 0},
	{"boocoder.server_stale_grace", "Time a server that is to be started again waits for turns that run on it.",
	"They fail then.", &bc_server_stale_grace_ms, 120 * 1000, 0, INT_MAX, GUC_UNIT_MS},
	{"boocoder.ports_per_worktree", "TCP ports leased to each worktree.",
	"Its agent finds them in BOOCODER_PORT and BOOCODER_PORT_COUNT.  Zero: none.",
	&bc_ports_per_worktree, 10, 0, 1000, 0},
	{"boocoder.port_first", "First of the TCP ports that are leased to worktrees.",
	"Databases of one host need ranges of their own.", &bc_port_first, 20000, 1024, 65535, 0},
	{"boocoder.port_last", "Last of the TCP ports that are leased to worktrees.",
	NULL, &bc_port_last, 29999, 1024, 65535, 0},
	{"boocoder.max_line", "Longest protocol line accepted from an agent.",
	NULL, &bc_max_line_kb, 16 * 1024, 64, 60 * 1024, GUC_UNIT_KB},
	{"boocoder.max_diff", "Largest diff of one task that is stored.",
	NULL, &bc_max_diff_kb, 32 * 1024, 64, 60 * 1024, GUC_UNIT_KB},
};

static const StringSetting string_settings[] = {
	{"boocoder.worktree_root", "Directory below which the worktrees of tasks are made.",
	"Must lie outside the data directory.  Empty means .local/share/boocoder in the home "
	"directory of the server's operating system user.",
	&bc_worktree_root, "", GUC_SUPERUSER_ONLY},
	{"boocoder.allowed_roots", "Directories below which projects may lie, separated by colons.",
	"Empty means anywhere.", &bc_allowed_roots, "", GUC_SUPERUSER_ONLY},
	{"boocoder.sandbox_ro_paths", "Further paths an agent may read, separated by colons.",
	"The system directories are always readable; this is for agents installed elsewhere.",
	&bc_sandbox_ro_paths, "/opt", GUC_SUPERUSER_ONLY},
	{"boocoder.agent_path", "Directories in which agents are looked up; their PATH.",
	NULL, &bc_agent_path, "/usr/local/bin:/usr/bin:/bin", GUC_SUPERUSER_ONLY},
	{"boocoder.agent_home", "Directory with a lasting home for each provider that wants one.",
	"For agents that must be logged in; one subdirectory a provider (providers.persistent_home).",
	&bc_agent_home, "", GUC_SUPERUSER_ONLY},
	{"boocoder.env_allow", "Variables of the server's environment that providers may refer to.",
	"Names separated by commas; see providers.env.", &bc_env_allow, "", GUC_SUPERUSER_ONLY},
	{"boocoder.default_agent", "Agent of tasks that name none, in projects that name none.",
	NULL, &bc_default_agent, "", 0},
	{"boocoder.default_model", "Model of tasks for which nothing else names one.",
	NULL, &bc_default_model, "", 0},
};

void
bc_guc_define(bool preloading)
{
	if (preloading)
		DefineCustomIntVariable("boocoder.max_databases",
								"Databases with the extension that one server can serve.",
								NULL, &bc_max_databases, 64, 1, 10000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);

	for (int i = 0; i < (int) lengthof(int_settings); i++)
	{
		const IntSetting *s = &int_settings[i];

		DefineCustomIntVariable(s->name, s->brief, s->detail, s->variable, s->boot, s->min,
								s->max, PGC_SIGHUP, s->flags, NULL, NULL, NULL);
	}
	for (int i = 0; i < (int) lengthof(string_settings); i++)
	{
		const StringSetting *s = &string_settings[i];

		DefineCustomStringVariable(s->name, s->brief, s->detail, s->variable, s->boot,
								   PGC_SIGHUP, s->flags, NULL, NULL, NULL);
	}
	DefineCustomEnumVariable("boocoder.sandbox", "Whether agents run inside bubblewrap.",
							 "Without the sandbox an agent has the rights of the server's "
							 "operating system user, which include the data directory.",
							 &bc_sandbox, BC_SANDBOX_ON, sandbox_modes,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("boocoder.sandbox_network",
							 "Whether agents inside the sandbox can use the network.",
							 "Agents that talk to a language model need it.",
							 &bc_sandbox_network, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("boocoder.force_delete",
							 "Whether a session may be deleted whatever its worktree holds.",
							 "The worktree is then archived and removed.",
							 &bc_force_delete, false, PGC_USERSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("boocoder");
}
