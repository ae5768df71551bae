-- SPDX-License-Identifier: PostgreSQL
-- From 0.4.0 to 0.5.0: a claim is on disk before an agent begins, not before it is seen.
\echo Use "ALTER EXTENSION boocoder UPDATE" to load this file. \quit

CREATE OR REPLACE FUNCTION boocoder._prepared(task_id bigint, fence bigint, result jsonb)
RETURNS TABLE (agent jsonb, diff jsonb, server bigint, server_order jsonb, server_ends bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
	r record;
	project boocoder.projects;
	provider boocoder.providers;
	worktree boocoder.worktrees;
	orders record;
	host jsonb := boocoder._host();
BEGIN
	SELECT * INTO t FROM boocoder.tasks x WHERE x.id = _prepared.task_id AND x.fence = _prepared.fence;
	IF NOT FOUND OR NOT coalesce((result ->> 'ok')::boolean, false) THEN
		RETURN;
	END IF;
	UPDATE boocoder.worktrees w
	   SET status = 'active', branch = coalesce(result ->> 'branch', w.branch), path = coalesce(result ->> 'path', w.path),
		   base_commit = coalesce(w.base_commit, result ->> 'base_commit'),
		   diff_base = coalesce(w.diff_base, result ->> 'base_commit'),
		   git_dir = result ->> 'git_dir', admin_dir = result ->> 'admin_dir',
		   setup_done_at = CASE WHEN (result ->> 'created')::boolean THEN NULL ELSE w.setup_done_at END
	 WHERE w.session_id = t.session_id AND w.deleted_at IS NULL;
	IF t.cancel_requested_at IS NOT NULL THEN
		RETURN;
	END IF;
	SELECT p AS project, v AS provider, w AS worktree, boocoder._argv(v, a.install_path) AS argv, m.wanted_mode, m.agent_session_id,
		   m.status AS agent_status, m.config_hash, b.id AS backend, b.config_hash AS new_hash
	  INTO STRICT r
	  FROM boocoder.projects p
	  JOIN boocoder.worktrees w ON w.session_id = t.session_id AND w.deleted_at IS NULL
	  JOIN boocoder.providers v ON v.name = t.agent
	  LEFT JOIN boocoder.available_agents a ON a.name = v.name
	  LEFT JOIN boocoder.agent_sessions m ON m.chat_id = t.chat_id AND m.agent = v.name
	  LEFT JOIN boocoder.backends b ON b.task_id = t.id AND b.state = 'busy'
	 WHERE p.id = t.project_id;
	project := r.project;
	provider := r.provider;
	worktree := r.worktree;
	orders := boocoder._orders(t, project, worktree, provider, r.argv, coalesce(t.mode, r.wanted_mode), host);
	agent := boocoder._continued(orders.agent, coalesce(t.warm, false),
		CASE WHEN NOT boocoder._asks_once(t.creator) THEN r.agent_session_id END,
		boocoder._stale(provider.transport, r.agent_status, r.config_hash, r.new_hash));
	diff := orders.diff;
	IF provider.transport = 'opencode_server' THEN
		SELECT s.server, s.start_order, s.ends INTO server, server_order, server_ends
		  FROM boocoder._take_server(r.backend, provider, worktree, r.argv, boocoder._agent_prefix(project, provider), host) s;
	END IF;
	RETURN NEXT;
END
$$;
CREATE OR REPLACE FUNCTION boocoder._append(task_ids bigint[], fences bigint[], payloads jsonb[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	last_seq bigint;
	first_seq bigint;
	tasks bigint[];
	telling text[] := ARRAY['permission_request', 'permission_withdrawn', 'mode', 'modes', 'mode_failed', 'models', 'command',
							'title', 'plan'];
	noteworthy boolean;
	event boocoder.events;
BEGIN
	WITH batch AS MATERIALIZED (
		SELECT b.n, t.id, t.chat_id, t.message_id, b.payload
		  FROM unnest(task_ids, fences, payloads) WITH ORDINALITY AS b (task_id, fence, payload, n)
		  JOIN boocoder.tasks t ON t.id = b.task_id AND t.fence = b.fence
	), new_events AS (
		INSERT INTO boocoder.events (task_id, chat_id, kind, payload)
		SELECT b.id, b.chat_id, e ->> 'kind', e -> 'payload'
		  FROM batch b, jsonb_array_elements(coalesce(b.payload -> 'events', '[]')) WITH ORDINALITY AS x (e, k)
		 ORDER BY b.n, x.k
		RETURNING seq, task_id, kind
	), new_parts AS (
		INSERT INTO boocoder.message_parts (message_id, task_id, seq, kind, payload)
		SELECT b.message_id, b.id, (p ->> 'seq')::integer, p ->> 'kind', p -> 'payload'
		  FROM batch b, jsonb_array_elements(coalesce(b.payload -> 'parts', '[]')) WITH ORDINALITY AS x (p, k)
		 ORDER BY b.n, x.k
	)
	SELECT min(seq), max(seq), array_agg(DISTINCT task_id), bool_or(kind = ANY (telling))
	  INTO first_seq, last_seq, tasks, noteworthy FROM new_events;
	IF noteworthy THEN
		FOR event IN SELECT * FROM boocoder.events x
					  WHERE x.seq BETWEEN first_seq AND last_seq AND x.kind = ANY (telling) ORDER BY x.seq
		LOOP
			PERFORM boocoder._note(event);
		END LOOP;
	END IF;

	-- A listener that does not read must not make our commits fail: the queue has an end.
	IF last_seq IS NOT NULL AND pg_notification_queue_usage() < 0.5 THEN
		PERFORM pg_notify('boocoder_events', jsonb_build_object('seq', last_seq, 'tasks', tasks[1:200],
			'more', cardinality(tasks) > 200)::text);
	END IF;
	RETURN last_seq;
END
$$;
-- The content is the whole file's: it takes the place of what was offered for it.
CREATE OR REPLACE FUNCTION boocoder._store_manual(w boocoder.worktrees, changes jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	paths text[] := boocoder._manual_paths(w);
BEGIN
	UPDATE boocoder.pending_changes c SET status = 'superseded'
	 WHERE c.id IN (SELECT o.id FROM boocoder.pending_changes o
					 WHERE o.worktree_id = w.id AND o.status IN ('pending', 'conflict')
					   AND ARRAY[o.path, o.old_path] && paths
					   FOR NO KEY UPDATE SKIP LOCKED);
	INSERT INTO boocoder.pending_changes (session_id, worktree_id, path, old_path, kind, diff, base_commit, additions, deletions)
	SELECT w.session_id, w.id, c ->> 'path', c ->> 'old_path', c ->> 'kind', c ->> 'diff', coalesce(w.diff_base, w.base_commit),
		   (c ->> 'additions')::integer, (c ->> 'deletions')::integer
	  FROM jsonb_array_elements(changes) c;
END
$$;
CREATE OR REPLACE FUNCTION boocoder._backend_started(backend bigint, pid integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.backends b SET pid = _backend_started.pid WHERE b.id = backend;
	RETURN backend;
END
$$;
-- A snapshot that stays, or a row that nobody else sees yet: one would wait for ever.
CREATE FUNCTION boocoder._check_wait(what text, written_by xid) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
		RAISE EXCEPTION 'a transaction that is % does not see what becomes of %', current_setting('transaction_isolation'), what
			USING ERRCODE = 'active_sql_transaction', HINT = 'Wait in a transaction that is read committed.';
	ELSIF written_by = pg_current_xact_id_if_assigned()::xid THEN
		RAISE EXCEPTION '% was written in this transaction, and waits for its commit', what
			USING ERRCODE = 'active_sql_transaction', HINT = 'Commit first; wait in a statement of its own.';
	END IF;
END
$$;
CREATE OR REPLACE FUNCTION boocoder.wait(task bigint, timeout interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	until timestamptz := clock_timestamp() + timeout;
	generation bigint;
	checked boolean := false;
	t boocoder.tasks;
BEGIN
	LOOP
		generation := boocoder._change_generation();
		t := boocoder._task(task);
		EXIT WHEN t.state IN ('completed', 'failed', 'cancelled') OR clock_timestamp() >= until;
		IF NOT checked THEN
			PERFORM boocoder._check_wait('task ' || t.id, (SELECT x.xmin FROM boocoder.tasks x WHERE x.id = t.id));
			checked := true;
		END IF;
		PERFORM boocoder._wait_change(generation,
			least(1000, ceil(extract(epoch FROM until - clock_timestamp()) * 1000))::integer);
	END LOOP;
	RETURN t.state;
END
$$;
CREATE OR REPLACE FUNCTION boocoder.wait_worktree(worktree bigint, timeout interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	until timestamptz := clock_timestamp() + timeout;
	w boocoder.worktrees;
	seen bigint;
	checked boolean := false;
BEGIN
	LOOP
		seen := boocoder._change_generation();
		w := boocoder._worktree(worktree);
		IF (w.request IS NULL AND w.assess_requested_at IS NULL AND w.status <> 'removing') OR clock_timestamp() >= until THEN
			RETURN coalesce(w.request_error, CASE WHEN w.request IS NOT NULL THEN w.request ->> 'do' ELSE w.status END);
		END IF;
		IF NOT checked THEN
			PERFORM boocoder._check_wait('worktree ' || w.id, (SELECT x.xmin FROM boocoder.worktrees x WHERE x.id = w.id));
			checked := true;
		END IF;
		PERFORM boocoder._wait_change(seen, least(1000, coalesce(extract(epoch FROM until - clock_timestamp()) * 1000, 1000))::integer);
	END LOOP;
END
$$;

-- Rights: all of them again, as what is granted already stays as it is.

REVOKE ALL ON SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA boocoder FROM PUBLIC;
GRANT SELECT ON boocoder.projects, boocoder.sessions, boocoder.chats, boocoder.tasks, boocoder.messages,
	boocoder.message_parts, boocoder.events, boocoder.worktrees, boocoder.pending_changes, boocoder.usage_events,
	boocoder.available_agents, boocoder.task_transitions, boocoder.inbox, boocoder.status, boocoder.jobs,
	boocoder.agent_sessions, boocoder.agent_commands, boocoder.permission_rules, boocoder.permission_requests,
	boocoder.tool_timeline, boocoder.backends, boocoder.worktree_saves, boocoder.worktree_disk, boocoder.servers TO boocoder_viewer;
GRANT INSERT (kind, provider) ON boocoder.jobs TO boocoder_viewer;
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
GRANT INSERT (project_id, session_id, chat_id, parent_task_id, agent, model, mode, input, creator, priority, run_at,
	max_attempts, timeout, idempotency_key, permission_policy) ON boocoder.tasks TO boocoder_user;
GRANT UPDATE (state, cancel_requested_at, retry_requested, priority, run_at) ON boocoder.tasks TO boocoder_user;
GRANT INSERT (project_id, title), UPDATE (title, closed_at) ON boocoder.sessions TO boocoder_user;
GRANT INSERT (session_id, title, model), UPDATE (title, model, closed_at) ON boocoder.chats TO boocoder_user;
GRANT UPDATE (status, chosen_option, content) ON boocoder.permission_requests TO boocoder_user;
GRANT INSERT (chat_id, agent, session_id, wanted_mode, mode_asked_at), UPDATE (wanted_mode, mode_asked_at, mode_sent_at, mode_error)
	ON boocoder.agent_sessions TO boocoder_user;
GRANT INSERT (provider, project_id, task_id, tool_kind, path_pattern, command_pattern, answer), DELETE
	ON boocoder.permission_rules TO boocoder_user;
GRANT UPDATE (status, staged) ON boocoder.pending_changes TO boocoder_user;
GRANT UPDATE (status, forced, request, assess_requested_at) ON boocoder.worktrees TO boocoder_user;
GRANT DELETE ON boocoder.sessions, boocoder.chats TO boocoder_user;
GRANT EXECUTE ON FUNCTION
	boocoder.run(text, text, text, text, text, bigint, bigint, integer, timestamptz, interval, integer, text, text),
	boocoder.send(bigint, text), boocoder.cancel(bigint), boocoder.retry(bigint), boocoder.inbox_retry(bigint),
	boocoder._request(bigint), boocoder._option(jsonb, text), boocoder.answer_permission(bigint, text),
	boocoder.answer_elicitation(bigint, jsonb), boocoder.set_mode(bigint, text, text),
	boocoder.add_permission_rule(text, text, text, bigint, text, text, text), boocoder._decide(bigint[], text), boocoder._undecided(bigint), boocoder.apply(bigint),
	boocoder.apply_changes(bigint[]), boocoder.reject(bigint), boocoder.reject_changes(bigint[]), boocoder.queue_manual_change(bigint, text, text),
	boocoder.remove_worktree(bigint, boolean), boocoder.close_session(bigint, boolean), boocoder.close_chat(bigint),
	boocoder._cancel_tasks(bigint, bigint), boocoder.undelete_worktree(bigint), boocoder._change_worktree(bigint, jsonb),
	boocoder.refresh_worktree(bigint), boocoder.worktree_stash(bigint), boocoder.worktree_restore(bigint, bigint),
	boocoder.rewind(bigint, bigint), boocoder.stage_changes(bigint[], boolean) TO boocoder_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON boocoder.projects, boocoder.providers TO boocoder_admin;
GRANT EXECUTE ON FUNCTION
	boocoder.add_project(text, text, text, text, text, text[], name, boolean, text[], text[], text[], text, text[], text),
	boocoder.archive_project(text), boocoder.register_provider(text, text, text[], jsonb, text, jsonb),
	boocoder.remove_provider(text), boocoder.launch_spec(text),
	boocoder._argv(boocoder.providers, text), boocoder._worktree_root(boocoder.projects, jsonb), boocoder._inspect(text, text[], text, jsonb), boocoder._check_host(),
	boocoder._host(), boocoder._below(text, text), boocoder._repository_checks(), boocoder._drift_lines(text, jsonb) TO boocoder_admin;
GRANT SELECT ON ALL TABLES IN SCHEMA boocoder TO boocoder_worker;
GRANT INSERT ON boocoder.sessions, boocoder.chats, boocoder.messages, boocoder.message_parts, boocoder.events,
	boocoder.worktrees, boocoder.jobs, boocoder.pending_changes, boocoder.usage_events, boocoder.agent_sessions,
	boocoder.agent_commands, boocoder.permission_requests, boocoder.available_agents, boocoder.backends, boocoder.worktree_saves, boocoder.servers TO boocoder_worker;
GRANT UPDATE (title) ON boocoder.sessions, boocoder.chats TO boocoder_worker;
GRANT UPDATE (archived_at) ON boocoder.projects TO boocoder_worker;
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
	boocoder._candidate(bigint[], bigint[], bigint[], boolean), boocoder._make_jobs(), boocoder._job_order(boocoder.jobs, jsonb),
	boocoder._job_done(bigint, jsonb), boocoder._start(integer), boocoder._reconcile(),
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

-- Comments.

COMMENT ON FUNCTION boocoder._check_wait(text, xid) IS 'refuses to wait for what this transaction would never see (SQLSTATE 25001)';
COMMENT ON FUNCTION boocoder.wait(bigint, interval) IS
	'waits until a task has ended, or the time is over; its state (SQLSTATE BC002; 25001 where the end would never be seen).  The task must be committed before.';
COMMENT ON FUNCTION boocoder.wait_worktree(bigint, interval) IS
	'waits until nothing is to be done to a worktree any more, or the time is over; its status, or what went wrong (SQLSTATE BC002; 25001 where that would never be seen).  The request must be committed before.';
