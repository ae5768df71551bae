/* SPDX-License-Identifier: PostgreSQL */
/*
 * guc.h
 *	  The settings of boocoder, as the server's configuration holds them.
 *
 * The variables belong to the GUC machinery: read them, never write them.
 * Units are in the names.  doc/configuration.md is the description for users.
 */
#ifndef BC_EXTENSION_GUC_H
#define BC_EXTENSION_GUC_H

extern int	bc_max_databases;
extern int	bc_max_running;
extern int	bc_spare_runners;
extern int	bc_poll_interval_ms;
extern int	bc_task_timeout_ms;
extern int	bc_turn_inactivity_timeout_ms;
extern int	bc_handshake_timeout_ms;
extern int	bc_cancel_grace_ms;
extern int	bc_term_grace_ms;
extern int	bc_setup_timeout_ms;
extern int	bc_git_timeout_ms;
extern int	bc_max_line_kb;
extern int	bc_max_diff_kb;
extern int	bc_sandbox;
extern bool bc_sandbox_network;
extern char *bc_sandbox_ro_paths;
extern char *bc_agent_path;
extern char *bc_worktree_root;
extern char *bc_allowed_roots;
extern char *bc_default_agent;
extern char *bc_default_model;
extern int	bc_probe_ttl_ms;
extern int	bc_probe_timeout_ms;
extern int	bc_permission_timeout_ms;
extern int	bc_idle_ttl_ms;
extern int	bc_max_warm;
extern int	bc_worktree_grace_ms;
extern int	bc_worktree_budget_mb;
extern int	bc_max_turns;
extern bool bc_force_delete;
extern int	bc_server_health_interval_ms;
extern int	bc_server_health_timeout_ms;
extern int	bc_server_health_failures;
extern int	bc_server_stale_grace_ms;
extern int	bc_ports_per_worktree;
extern int	bc_port_first;
extern int	bc_port_last;
extern char *bc_agent_home;
extern char *bc_env_allow;

typedef enum BcSandboxMode
{
	BC_SANDBOX_OFF,
	BC_SANDBOX_ON
} BcSandboxMode;

/*
 * Defines all settings.  Called once from _PG_init(); settings that need a
 * server start are only defined when "preloading".
 */
extern void bc_guc_define(bool preloading);

#endif							/* BC_EXTENSION_GUC_H */
