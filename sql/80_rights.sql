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
	boocoder.available_agents, boocoder.task_transitions, boocoder.inbox, boocoder.status, boocoder.jobs
	TO boocoder_viewer;
GRANT SELECT (name, label, transport, command, models, modes, default_model, permission_policy, enabled, builtin)
	ON boocoder.providers TO boocoder_viewer;
GRANT EXECUTE ON FUNCTION boocoder._project_id(text), boocoder._task(bigint), boocoder.wait(bigint, interval),
	boocoder.events_since(bigint, bigint), boocoder._event_line(text, jsonb), boocoder.ls(text, text),
	boocoder.task_detail(bigint), boocoder.list_pending(bigint), boocoder.diff(bigint), boocoder._inbox(),
	boocoder.cost_stats(text, timestamptz, timestamptz), boocoder._status(), boocoder.doctor(),
	boocoder._preloaded(), boocoder._worker_status(), boocoder._change_generation(),
	boocoder._wait_change(bigint, integer) TO boocoder_viewer;
GRANT EXECUTE ON PROCEDURE boocoder.attach(bigint, bigint) TO boocoder_viewer;

-- users
GRANT INSERT (project_id, session_id, chat_id, parent_task_id, agent, model, mode, input, creator, priority, run_at,
	max_attempts, timeout, idempotency_key) ON boocoder.tasks TO boocoder_user;
GRANT UPDATE (state, cancel_requested_at, priority, run_at) ON boocoder.tasks TO boocoder_user;
GRANT INSERT (project_id, title), UPDATE (title, closed_at) ON boocoder.sessions TO boocoder_user;
GRANT INSERT (session_id, title), UPDATE (title, closed_at) ON boocoder.chats TO boocoder_user;
GRANT UPDATE (status) ON boocoder.pending_changes, boocoder.worktrees TO boocoder_user;
GRANT EXECUTE ON FUNCTION
	boocoder.run(text, text, text, text, text, bigint, bigint, integer, timestamptz, interval, integer, text),
	boocoder.send(bigint, text), boocoder.cancel(bigint), boocoder.retry(bigint), boocoder.inbox_retry(bigint),
	boocoder._wake_now(), boocoder._decide(bigint[], text), boocoder._undecided(bigint), boocoder.apply(bigint),
	boocoder.apply_changes(bigint[]), boocoder.reject(bigint), boocoder.reject_changes(bigint[]),
	boocoder.remove_worktree(bigint, boolean), boocoder.close_session(bigint, boolean) TO boocoder_user;

-- administrators
GRANT SELECT, INSERT, UPDATE, DELETE ON boocoder.projects, boocoder.providers TO boocoder_admin;
GRANT EXECUTE ON FUNCTION
	boocoder.add_project(text, text, text, text, text, text[], name, boolean, text[]),
	boocoder.archive_project(text), boocoder.register_provider(text, text, text[], jsonb, text, jsonb),
	boocoder.remove_provider(text), boocoder.launch_spec(text), boocoder._inspect(text), boocoder._check_host(),
	boocoder._host(), boocoder._below(text, text), boocoder._repository_checks() TO boocoder_admin;

-- the dispatcher
GRANT SELECT ON ALL TABLES IN SCHEMA boocoder TO boocoder_worker;
GRANT INSERT ON boocoder.sessions, boocoder.chats, boocoder.messages, boocoder.message_parts, boocoder.events,
	boocoder.worktrees, boocoder.jobs, boocoder.pending_changes, boocoder.usage_events TO boocoder_worker;
GRANT UPDATE (title) ON boocoder.sessions, boocoder.chats TO boocoder_worker;	-- to lock rows, FOR KEY SHARE
GRANT UPDATE (archived_at) ON boocoder.projects TO boocoder_worker;	-- likewise
GRANT UPDATE ON boocoder.tasks, boocoder.messages, boocoder.worktrees, boocoder.jobs, boocoder.pending_changes
	TO boocoder_worker;
GRANT USAGE ON SEQUENCE boocoder.fence_seq TO boocoder_worker;
GRANT INSERT, DELETE ON boocoder.home TO boocoder_worker;
GRANT EXECUTE ON FUNCTION boocoder._host(), boocoder._wake_now(),
	boocoder._orders(boocoder.tasks, boocoder.projects, boocoder.worktrees, boocoder.providers, jsonb), boocoder._fail(bigint, text, text), boocoder._below(text, text), boocoder._root(text),
	boocoder._obstacle(name, boocoder.projects, text, boocoder.providers, jsonb), boocoder._claim(boocoder.tasks, jsonb),
	boocoder._candidate(bigint[], bigint[], bigint[], boolean), boocoder._make_jobs(), boocoder._job_order(boocoder.jobs, jsonb),
	boocoder._job_done(bigint, jsonb), boocoder._start(integer), boocoder._reconcile(),
	boocoder._obstructed(boocoder.tasks), boocoder._leave_the_original(), boocoder._next_actions(integer, integer, boolean),
	boocoder._prepared(bigint, bigint, jsonb), boocoder._append(bigint[], bigint[], jsonb[]),
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
	USING (submitted_by = current_user OR project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY decide ON boocoder.tasks IS 'whoever sees a task may cancel and retry it';
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
CREATE POLICY visible ON boocoder.jobs FOR SELECT TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.jobs IS 'those of visible projects';
CREATE POLICY visible ON boocoder.pending_changes TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.id = worktree_id)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.pending_changes IS 'those of visible worktrees and tasks';
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
