-- SPDX-License-Identifier: PostgreSQL
-- Who may do what.  Nothing is left to PUBLIC.  People get column rights and
-- row-level security, no SECURITY DEFINER: a function can do for its caller
-- what the caller could do without it.

REVOKE ALL ON ALL TABLES IN SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA boocoder FROM PUBLIC;

-- viewers
GRANT SELECT ON boocoder.projects, boocoder.sessions, boocoder.chats, boocoder.tasks, boocoder.messages,
	boocoder.message_parts, boocoder.events, boocoder.worktrees, boocoder.pending_changes, boocoder.usage_events,
	boocoder.available_agents, boocoder.task_transitions, boocoder.inbox, boocoder.status, boocoder.jobs,
	boocoder.agent_sessions, boocoder.agent_commands, boocoder.permission_rules, boocoder.permission_requests,
	boocoder.tool_timeline, boocoder.backends, boocoder.worktree_saves, boocoder.worktree_disk, boocoder.servers TO boocoder_viewer;
GRANT INSERT (kind, provider) ON boocoder.jobs TO boocoder_viewer;		-- to look at agents again, see the policy
GRANT SELECT (name, label, kind, transport, command, builtin_command, fallback, fallback_command, version_args, launch_prefix,
	persistent_home, keep_raw, models_url, models_prefix, models, modes, default_model, permission_policy, enabled, builtin)
	ON boocoder.providers TO boocoder_viewer;
GRANT EXECUTE ON FUNCTION boocoder._project_id(text), boocoder._task(bigint), boocoder._check_wait(text, xid), boocoder.wait(bigint, interval),
	boocoder.events_since(bigint, bigint), boocoder._event_line(text, jsonb), boocoder.ls(text, text),
	boocoder.task_detail(bigint), boocoder.list_pending(bigint), boocoder.diff(bigint), boocoder._inbox(),
	boocoder.cost_stats(text, timestamptz, timestamptz), boocoder._status(), boocoder.doctor(),
	boocoder._preloaded(), boocoder._worker_status(), boocoder._change_generation(),
	boocoder._wait_change(bigint, integer), boocoder._probe_ttl_ms(), boocoder._probe(text), boocoder._wake_now(),
	boocoder.probe_agents(text), boocoder.provider_snapshot(),
	boocoder._worktree(bigint), boocoder._risks(jsonb, bigint, bigint), boocoder._risks_of(boocoder.worktrees), boocoder.worktree_risk(bigint),
	boocoder.wait_worktree(bigint, interval), boocoder.agent_sessions_for(bigint), boocoder._worktree_disk(),
	boocoder._asks_once(text), boocoder._warm(boocoder.providers, bigint, bigint, text), boocoder.use_warm_backend(text, bigint, bigint, text), boocoder._tool_timeline() TO boocoder_viewer;
GRANT EXECUTE ON PROCEDURE boocoder.attach(bigint, bigint) TO boocoder_viewer;

-- users
GRANT INSERT (project_id, session_id, chat_id, parent_task_id, agent, model, mode, input, creator, priority, run_at,
	max_attempts, timeout, idempotency_key, permission_policy) ON boocoder.tasks TO boocoder_user;
GRANT UPDATE (state, cancel_requested_at, retry_requested, priority, run_at) ON boocoder.tasks TO boocoder_user;
-- No right on a whole table: with it comes LOCK TABLE, and with that everybody waits.  Hence "discarded" instead of DELETE.
GRANT INSERT (project_id, title), UPDATE (title, closed_at, discarded) ON boocoder.sessions TO boocoder_user;
GRANT INSERT (session_id, title, model), UPDATE (title, model, closed_at, discarded) ON boocoder.chats TO boocoder_user;
GRANT UPDATE (status, chosen_option, content) ON boocoder.permission_requests TO boocoder_user;
GRANT INSERT (chat_id, agent, session_id, wanted_mode, mode_asked_at), UPDATE (wanted_mode, mode_asked_at, mode_sent_at, mode_error)
	ON boocoder.agent_sessions TO boocoder_user;
GRANT INSERT (provider, project_id, task_id, tool_kind, path_pattern, command_pattern, answer), UPDATE (discarded)
	ON boocoder.permission_rules TO boocoder_user;
GRANT UPDATE (status, staged) ON boocoder.pending_changes TO boocoder_user;
GRANT UPDATE (status, forced, request, assess_requested_at) ON boocoder.worktrees TO boocoder_user;
GRANT EXECUTE ON FUNCTION
	boocoder.run(text, text, text, text, text, bigint, bigint, integer, timestamptz, interval, integer, text, text),
	boocoder.send(bigint, text), boocoder.cancel(bigint), boocoder.retry(bigint), boocoder.inbox_retry(bigint),
	boocoder._request(bigint), boocoder._check_answered(boolean, bigint), boocoder._option(jsonb, text), boocoder.answer_permission(bigint, text),
	boocoder.answer_elicitation(bigint, jsonb), boocoder.set_mode(bigint, text, text),
	boocoder.add_permission_rule(text, text, text, bigint, text, text, text), boocoder._decide(bigint[], text), boocoder._undecided(bigint), boocoder.apply(bigint),
	boocoder.apply_changes(bigint[]), boocoder.reject(bigint), boocoder.reject_changes(bigint[]), boocoder.queue_manual_change(bigint, text, text),
	boocoder.remove_worktree(bigint, boolean), boocoder.close_session(bigint, boolean), boocoder.close_chat(bigint),
	boocoder._cancel_tasks(bigint, bigint), boocoder.undelete_worktree(bigint), boocoder._change_worktree(bigint, jsonb),
	boocoder.refresh_worktree(bigint), boocoder.worktree_stash(bigint), boocoder.worktree_restore(bigint, bigint),
	boocoder.rewind(bigint, bigint), boocoder.stage_changes(bigint[], boolean),
	boocoder.delete_session(bigint, boolean), boocoder.delete_chat(bigint), boocoder.remove_permission_rule(bigint) TO boocoder_user;

-- administrators
GRANT SELECT, INSERT, UPDATE, DELETE ON boocoder.projects, boocoder.providers TO boocoder_admin;
GRANT DELETE ON boocoder.sessions, boocoder.chats, boocoder.permission_rules TO boocoder_admin;
GRANT EXECUTE ON FUNCTION
	boocoder.add_project(text, text, text, text, text, text[], name, boolean, text[], text[], text[], text, text[], text),
	boocoder.archive_project(text), boocoder.register_provider(text, text, text[], jsonb, text, jsonb),
	boocoder.remove_provider(text), boocoder.launch_spec(text),
	boocoder._argv(boocoder.providers, text), boocoder._worktree_root(boocoder.projects, jsonb), boocoder._inspect(text, text[], text, jsonb), boocoder._check_host(),
	boocoder._host(), boocoder._below(text, text), boocoder._repository_checks(), boocoder._drift_lines(text, jsonb) TO boocoder_admin;

-- the dispatcher
GRANT SELECT ON ALL TABLES IN SCHEMA boocoder TO boocoder_worker;
GRANT INSERT ON boocoder.sessions, boocoder.chats, boocoder.messages, boocoder.message_parts, boocoder.events,
	boocoder.worktrees, boocoder.jobs, boocoder.pending_changes, boocoder.usage_events, boocoder.agent_sessions,
	boocoder.agent_commands, boocoder.permission_requests, boocoder.available_agents, boocoder.backends, boocoder.worktree_saves, boocoder.servers TO boocoder_worker;
GRANT UPDATE (title) ON boocoder.sessions, boocoder.chats TO boocoder_worker;	-- to lock rows, FOR KEY SHARE
GRANT UPDATE (archived_at) ON boocoder.projects TO boocoder_worker;	-- likewise
GRANT UPDATE ON boocoder.tasks, boocoder.messages, boocoder.worktrees, boocoder.jobs, boocoder.pending_changes,
	boocoder.agent_sessions, boocoder.permission_requests, boocoder.available_agents, boocoder.backends, boocoder.worktree_saves, boocoder.servers TO boocoder_worker;
GRANT DELETE ON boocoder.agent_commands, boocoder.jobs, boocoder.backends, boocoder.worktree_saves, boocoder.servers TO boocoder_worker;
GRANT USAGE ON SEQUENCE boocoder.fence_seq TO boocoder_worker;
GRANT INSERT, DELETE ON boocoder.home TO boocoder_worker;
GRANT EXECUTE ON FUNCTION boocoder._host(), boocoder._wake_now(),
	boocoder._orders(boocoder.tasks, boocoder.projects, boocoder.worktrees, boocoder.providers, text[], text, jsonb),
	boocoder._worktree_root(boocoder.projects, jsonb), boocoder._argv(boocoder.providers, text),
	boocoder._agent_prefix(boocoder.projects, boocoder.providers), boocoder._sandbox(boocoder.providers, text, text, jsonb), boocoder._free_ports(jsonb), boocoder._fail(bigint, text, text), boocoder._below(text, text), boocoder._root(text),
	boocoder._obstacle(name, boocoder.projects, text, boocoder.providers, jsonb), boocoder._claim(boocoder.tasks, jsonb),
	boocoder._candidate(integer, bigint, bigint[], bigint[], boolean), boocoder._clashes_again(bigint), boocoder._make_jobs(jsonb), boocoder._job_order(boocoder.jobs, jsonb), boocoder._begin_job(boocoder.jobs, jsonb),
	boocoder._for_project(jsonb, boocoder.projects), boocoder._outdated(boocoder.pending_changes), boocoder._job_done(bigint, jsonb), boocoder._disown(jsonb), boocoder._can_end(boocoder.tasks),
	boocoder._bypasses_rights(name), boocoder._start(integer), boocoder._reconcile(),
	boocoder._obstructed(boocoder.tasks), boocoder._leave_the_original(), boocoder._next_actions(integer, integer, boolean),
	boocoder._prepared(bigint, bigint, jsonb), boocoder._append(bigint[], bigint[], jsonb[]),
	boocoder._array(jsonb), boocoder._probe_order(boocoder.providers, jsonb), boocoder._probed(text, jsonb), boocoder._probe(text),
	boocoder._paths(jsonb, text), boocoder._command(jsonb), boocoder._verdict(boocoder.tasks, jsonb), boocoder._option(jsonb, text),
	boocoder._ask(boocoder.tasks, jsonb), boocoder._note(boocoder.events), boocoder._attend(), boocoder._withdraw(boocoder.tasks),
	boocoder._asks_once(text), boocoder._warm(boocoder.providers, bigint, bigint, text),
	boocoder._config_hash(boocoder.providers, boocoder.worktrees, text[], text[], jsonb),
	boocoder._take_backend(boocoder.tasks, boocoder.worktrees, text), boocoder._continued(jsonb, boolean, text, text), boocoder._stale(text, text, text, text),
	boocoder._turn_ended(boocoder.tasks, jsonb), boocoder._evictions(timestamptz, interval, integer), boocoder._evict(jsonb),
	boocoder._backend_started(bigint, integer), boocoder._backend_ended(bigint), boocoder._forget_backends(),
	boocoder._home(boocoder.worktrees), boocoder._new_path(text), boocoder._risks(jsonb, bigint, bigint), boocoder._risks_of(boocoder.worktrees),
	boocoder._reapable(timestamptz, interval, bigint), boocoder._reap(jsonb), boocoder._make_worktree_jobs(jsonb),
	boocoder._worktree_job_order(boocoder.jobs, boocoder.projects, boocoder.worktrees, jsonb),
	boocoder._save(bigint, text, text, text, bigint), boocoder._manual_paths(boocoder.worktrees), boocoder._store_manual(boocoder.worktrees, jsonb), boocoder._worktree_job_done(boocoder.jobs, boolean, jsonb, text),
	boocoder._worktree_place(bigint, name, bigint), boocoder._server_folder(text),
	boocoder._server_decision(text, integer, boolean, timestamptz, timestamptz, integer, interval), boocoder._server_busy(bigint),
	boocoder._server_order(boocoder.providers, boocoder.worktrees, text[], jsonb),
	boocoder._take_server(bigint, boocoder.providers, boocoder.worktrees, text[], text[], jsonb), boocoder._server_told(bigint, jsonb),
	boocoder._idle_servers(timestamptz, interval), boocoder._end_servers(jsonb), boocoder._server_ended(bigint), boocoder._forget_servers(),
	boocoder._charge(bigint, jsonb, text), boocoder._store_changes(boocoder.tasks, jsonb),
	boocoder._settle(bigint, bigint, jsonb, jsonb) TO boocoder_worker;

-- Rows: one's own, and those of projects one may see.
ALTER TABLE boocoder.projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.chats ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.tasks ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.message_parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.events ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.worktrees ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.pending_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.usage_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.agent_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.backends ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.worktree_saves ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.servers ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.agent_commands ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.permission_rules ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.permission_requests ENABLE ROW LEVEL SECURITY;

CREATE POLICY visible ON boocoder.projects TO boocoder_viewer
	USING (owner = current_user OR shared OR pg_has_role('boocoder_admin', 'USAGE'));
COMMENT ON POLICY visible ON boocoder.projects IS 'the owner''s, shared ones, all for administrators';
CREATE POLICY visible ON boocoder.sessions TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.sessions IS 'those of visible projects';
CREATE POLICY visible ON boocoder.chats TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.sessions s WHERE s.id = session_id));
COMMENT ON POLICY visible ON boocoder.chats IS 'those of visible sessions';
CREATE POLICY visible ON boocoder.tasks FOR SELECT TO boocoder_viewer
	USING (submitted_by = current_user OR project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.tasks IS 'one''s own, and those of visible projects';
CREATE POLICY enqueue ON boocoder.tasks FOR INSERT TO boocoder_user
	WITH CHECK (project_id IN (SELECT p.id FROM boocoder.projects p WHERE p.archived_at IS NULL));
COMMENT ON POLICY enqueue ON boocoder.tasks IS 'in visible projects that are not archived';
CREATE POLICY decide ON boocoder.tasks FOR UPDATE TO boocoder_user
	USING (submitted_by = current_user OR project_id IN (SELECT p.id FROM boocoder.projects p))
	WITH CHECK (project_id IN (SELECT p.id FROM boocoder.projects p)
				OR (submitted_by = current_user AND state <> 'pending' AND NOT retry_requested));
COMMENT ON POLICY decide ON boocoder.tasks IS 'whoever sees a task may cancel it, and retry it if the project is visible, too';
CREATE POLICY visible ON boocoder.messages FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.messages IS 'those of visible chats and tasks';
CREATE POLICY visible ON boocoder.message_parts FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.messages m WHERE m.id = message_id));
COMMENT ON POLICY visible ON boocoder.message_parts IS 'those of visible messages';
CREATE POLICY visible ON boocoder.events FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.events IS 'those of visible tasks';
CREATE POLICY visible ON boocoder.worktrees TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.worktrees IS 'those of visible projects';
CREATE POLICY visible ON boocoder.worktree_saves FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.id = worktree_id));
COMMENT ON POLICY visible ON boocoder.worktree_saves IS 'those of visible worktrees';
CREATE POLICY visible ON boocoder.jobs FOR SELECT TO boocoder_viewer
	USING (kind = 'probe' OR project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.jobs IS 'those of visible projects, and all looks at agents';
CREATE POLICY probe ON boocoder.jobs FOR INSERT TO boocoder_viewer WITH CHECK (kind = 'probe');
COMMENT ON POLICY probe ON boocoder.jobs IS 'everybody may have agents looked at';
CREATE POLICY visible ON boocoder.agent_sessions TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id))
	-- a foreign key would look up, and lock, a session that one does not see
	WITH CHECK (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id
						   AND (agent_sessions.session_id IS NULL OR agent_sessions.session_id = c.session_id)));
COMMENT ON POLICY visible ON boocoder.agent_sessions IS 'those of visible chats';
CREATE POLICY visible ON boocoder.backends FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id));
COMMENT ON POLICY visible ON boocoder.backends IS 'those of visible chats';
CREATE POLICY visible ON boocoder.servers FOR SELECT TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.servers IS 'those of visible projects';
CREATE POLICY visible ON boocoder.agent_commands FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id));
COMMENT ON POLICY visible ON boocoder.agent_commands IS 'those of visible chats';
CREATE POLICY visible ON boocoder.permission_rules FOR SELECT TO boocoder_viewer
	USING ((task_id IS NULL OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id))
		   AND (project_id IS NULL OR EXISTS (SELECT 1 FROM boocoder.projects p WHERE p.id = project_id)));
COMMENT ON POLICY visible ON boocoder.permission_rules IS 'general ones, and those of visible projects and tasks';
CREATE POLICY own_tasks ON boocoder.permission_rules FOR INSERT TO boocoder_user
	WITH CHECK (EXISTS (SELECT 1 FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id
						 WHERE t.id = task_id AND (permission_rules.project_id IS NULL OR permission_rules.project_id = p.id)));
COMMENT ON POLICY own_tasks ON boocoder.permission_rules IS 'users make rules for tasks in projects they see';
CREATE POLICY own_rules ON boocoder.permission_rules FOR UPDATE TO boocoder_user
	USING (created_by = current_user AND task_id IN (SELECT t.id FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id));
COMMENT ON POLICY own_rules ON boocoder.permission_rules IS 'users discard the rules that they made';
CREATE POLICY administer ON boocoder.permission_rules TO boocoder_admin USING (true) WITH CHECK (true);
COMMENT ON POLICY administer ON boocoder.permission_rules IS 'administrators make any';
CREATE POLICY visible ON boocoder.permission_requests FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.permission_requests IS 'those of visible tasks';
CREATE POLICY answer ON boocoder.permission_requests FOR UPDATE TO boocoder_user
	USING (EXISTS (SELECT 1 FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id WHERE t.id = task_id));
COMMENT ON POLICY answer ON boocoder.permission_requests IS 'those of tasks in visible projects';
CREATE POLICY visible ON boocoder.pending_changes FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.id = worktree_id)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.pending_changes IS 'those of visible worktrees and tasks';
CREATE POLICY decide ON boocoder.pending_changes FOR UPDATE TO boocoder_user
	USING (EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.id = worktree_id)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id WHERE t.id = task_id));
COMMENT ON POLICY decide ON boocoder.pending_changes IS 'those in visible projects';
CREATE POLICY visible ON boocoder.usage_events FOR SELECT TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.usage_events IS 'those of visible projects and tasks';

DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT c.relname FROM pg_catalog.pg_class c
				 WHERE c.relnamespace OPERATOR(pg_catalog.=) 'boocoder'::pg_catalog.regnamespace AND c.relrowsecurity
	LOOP
		EXECUTE pg_catalog.format('CREATE POLICY dispatcher ON boocoder.%I TO boocoder_worker USING (true) WITH CHECK (true)', name);
		EXECUTE pg_catalog.format('COMMENT ON POLICY dispatcher ON boocoder.%I IS ''the dispatcher serves everybody''', name);
	END LOOP;
END
$$;
