-- SPDX-License-Identifier: PostgreSQL
-- From 0.3.0 to 0.4.0: changes of people, worktrees without a row.
\echo Use "ALTER EXTENSION boocoder UPDATE" to load this file. \quit

DROP FUNCTION boocoder._inspect(text,text[],text);
CREATE FUNCTION boocoder._inspect(path text, launch_prefix text[] DEFAULT '{}', worktree_root text DEFAULT '',
	drift jsonb DEFAULT 'null') RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bc_sql_inspect';
CREATE OR REPLACE FUNCTION boocoder._guard_worktree() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NEW.request IS NOT NULL AND NEW.request IS DISTINCT FROM OLD.request THEN
		IF OLD.request IS NOT NULL THEN
			RAISE EXCEPTION 'worktree % is being changed already', OLD.id
				USING ERRCODE = 'BC004', HINT = 'See boocoder.wait_worktree().';
		END IF;
		NEW.request_error := NULL;
		IF NEW.request ->> 'to' IS NOT NULL AND NOT EXISTS (SELECT 1 FROM boocoder.worktree_saves s
				WHERE s.worktree_id = OLD.id AND s.ref = NEW.request ->> 'to') THEN
			RAISE EXCEPTION 'worktree % has no content "%"', OLD.id, NEW.request ->> 'to'
				USING ERRCODE = 'BC002', HINT = 'See boocoder.worktree_saves.';
		END IF;
	END IF;
	IF NEW.status = OLD.status THEN
		RETURN NEW;
	ELSIF (OLD.status, NEW.status) IN (('trashed', 'active'), ('removed', 'creating')) THEN
		NEW.deleted_at := NULL;
		NEW.orphaned_at := NULL;
		NEW.forced := false;
		RETURN NEW;
	ELSIF (NEW.status NOT IN ('trashed', 'removing') OR OLD.status = 'removing') AND pg_has_role('boocoder_worker', 'MEMBER') THEN
		RETURN NEW;
	ELSIF NOT (NEW.status = 'trashed' AND OLD.status IN ('active', 'creating'))
		AND NOT (NEW.status = 'removing' AND OLD.status IN ('active', 'creating', 'trashed')) THEN
		RAISE EXCEPTION 'worktree % is %, it cannot become %', OLD.id, OLD.status, NEW.status
			USING ERRCODE = 'BC001';
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.tasks t
				WHERE t.session_id = OLD.session_id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in worktree %', OLD.id
			USING ERRCODE = 'BC004', HINT = 'Cancel its task first.';
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.pending_changes c
				WHERE c.worktree_id = OLD.id AND c.status IN ('pending', 'conflict', 'applying')) THEN
		RAISE EXCEPTION 'worktree % has changes that nobody has decided about', OLD.id
			USING ERRCODE = 'BC004', HINT = 'Apply or reject them, or use force, which rejects them.';
	END IF;
	IF NOT NEW.forced AND OLD.status <> 'trashed'
		AND ((OLD.facts ->> 'dirty_count')::bigint > 0 OR (OLD.facts ->> 'unpushed_count')::bigint > 0) THEN
		RAISE EXCEPTION 'worktree % holds % changed files that no task has reported, and % commits that no other branch has',
			OLD.id, OLD.facts ->> 'dirty_count', OLD.facts ->> 'unpushed_count'
			USING ERRCODE = 'BC004',
				  HINT = 'Look with boocoder.worktree_risk(); push or merge the commits, or use force, which archives all of it.';
	END IF;
	NEW.deleted_at := coalesce(NEW.deleted_at, CASE NEW.status WHEN 'trashed' THEN now() END);
	PERFORM boocoder._wake_now();
	RETURN NEW;
END
$$;
CREATE OR REPLACE FUNCTION boocoder._session_ends() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	risks text[];
	force boolean;
BEGIN
	IF TG_OP = 'UPDATE' THEN
		UPDATE boocoder.worktrees w
		   SET orphaned_at = CASE WHEN NEW.closed_at IS NULL THEN NULL ELSE now() END, assess_requested_at = now()
		 WHERE w.session_id = NEW.id AND w.deleted_at IS NULL;
		RETURN NEW;
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = OLD.id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in session %', OLD.id
			USING ERRCODE = 'BC004', HINT = 'boocoder.close_session() cancels its tasks.';
	END IF;
	-- a session that never called the library knows no settings of it
	force := coalesce(nullif(current_setting('boocoder.force_delete', true), '')::boolean, false);
	SELECT boocoder._risks_of(w) INTO risks FROM boocoder.worktrees w
	 WHERE w.session_id = OLD.id AND w.status = 'active' AND w.deleted_at IS NULL;
	IF risks && '{dirty,unpushed,undecided}' AND NOT force THEN
		RAISE EXCEPTION 'the worktree of session % is %', OLD.id, array_to_string(risks, ', ')
			USING ERRCODE = 'BC004',
				  HINT = 'See boocoder.worktree_risk(). SET boocoder.force_delete = on leaves the worktree to be archived and removed.';
	END IF;
	UPDATE boocoder.worktrees w
	   SET orphaned_at = now(), assess_requested_at = now(), forced = w.forced OR force
	 WHERE w.session_id = OLD.id AND w.deleted_at IS NULL;
	IF force THEN
		UPDATE boocoder.pending_changes c SET status = 'rejected' WHERE c.session_id = OLD.id AND c.status IN ('pending', 'conflict');
	END IF;
	UPDATE boocoder.tasks t SET state = 'cancelled' WHERE t.session_id = OLD.id AND t.state = 'pending';
	UPDATE boocoder.tasks t SET session_id = NULL, chat_id = NULL WHERE t.session_id = OLD.id;
	RETURN OLD;
END
$$;
-- The rows are given, not looked up: the claim has them, and every microsecond of it is latency.
CREATE OR REPLACE FUNCTION boocoder._orders(t boocoder.tasks, p boocoder.projects, w boocoder.worktrees, provider boocoder.providers,
	argv text[], mode text, host jsonb, OUT worktree jsonb, OUT agent jsonb, OUT diff jsonb) RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	repository jsonb;
	root text := boocoder._root(w.path);
BEGIN
	repository := jsonb_build_object('id', p.id, 'path', p.path);
	worktree := jsonb_build_object(
		'role', 'worktree', 'project', repository,
		'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'branch', w.branch,
			'base_ref', p.base_branch, 'base_commit', w.base_commit, 'admin_dir', w.admin_dir),
		'copy', to_jsonb(p.copy_files), 'root', root, 'forbidden', host -> 'forbidden');
	agent := jsonb_build_object(
		'role', 'agent', 'task_id', t.id, 'provider', provider.name, 'agent_kind', provider.kind,
		'transport', provider.transport, 'command', to_jsonb(argv), 'env', provider.env, 'cwd', w.path,
		'input', t.input, 'model', t.model, 'mode', mode, 'raw', provider.keep_raw,
		'git_dir', w.git_dir, 'admin_dir', w.admin_dir,
		'setup', CASE WHEN w.setup_done_at IS NULL THEN to_jsonb(p.setup) ELSE '[]' END,
		'setup_timeout_ms', host -> 'setup_timeout_ms',
		'fallback', CASE WHEN provider.fallback IS NOT NULL THEN jsonb_build_object('transport', provider.fallback,
			'command', to_jsonb(CASE WHEN cardinality(provider.fallback_command) > 0 THEN provider.fallback_command ELSE argv END)) END,
		'place', jsonb_build_object('project', p.name, 'session', t.session_id, 'task', t.id, 'branch', w.branch,
			'base_commit', w.base_commit, 'port_first', w.port_first, 'port_count', w.port_count),
		'sandbox', boocoder._sandbox(provider, root, boocoder._home(w), host),
		'limits', (host -> 'limits') || CASE WHEN t.timeout IS NULL THEN '{}' ELSE
			jsonb_build_object('timeout_ms', ceil(extract(epoch FROM t.timeout) * 1000)::bigint) END);
	diff := jsonb_build_object(
		'role', 'diff', 'project', repository,
		'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'admin_dir', w.admin_dir,
			'diff_base', coalesce(w.diff_base, w.base_commit)),
		'turn', t.id, 'max_turns', host -> 'max_turns', 'max_bytes', host -> 'max_diff_bytes');
END
$$;
CREATE OR REPLACE FUNCTION boocoder._store_changes(t boocoder.tasks, diff jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees;
	kept integer := coalesce(current_setting('boocoder.max_turn_snapshots', true), '0')::integer;
BEGIN
	SELECT * INTO w FROM boocoder.worktrees x WHERE x.session_id = t.session_id AND x.deleted_at IS NULL;
	-- A row that somebody is deciding about right now keeps its decision.
	UPDATE boocoder.pending_changes c SET status = 'superseded'
	 WHERE c.id IN (SELECT o.id FROM boocoder.pending_changes o
					 WHERE o.session_id = t.session_id AND o.status IN ('pending', 'conflict')
					   -- What a person wrote is in the worktree, and stays that person's until an agent changes it.
					   AND NOT (o.agent IS NULL AND o.status = 'pending' AND EXISTS (
							SELECT 1 FROM jsonb_array_elements(_store_changes.diff -> 'changes') c
							 WHERE c ->> 'path' = o.path AND c ->> 'diff' = o.diff))
					   FOR NO KEY UPDATE SKIP LOCKED);
	INSERT INTO boocoder.pending_changes (session_id, task_id, worktree_id, agent, path, old_path, kind, diff,
		base_commit, additions, deletions)
	SELECT t.session_id, t.id, w.id, t.agent, c ->> 'path', c ->> 'old_path', c ->> 'kind', c ->> 'diff',
		   coalesce(diff ->> 'base', w.diff_base, w.base_commit), (c ->> 'additions')::integer, (c ->> 'deletions')::integer
	  FROM jsonb_array_elements(diff -> 'changes') WITH ORDINALITY AS x (c, n)
		   -- What was applied while the agent worked is in its diff still, but needs no second decision.
	 WHERE NOT EXISTS (SELECT 1 FROM boocoder.pending_changes a
						WHERE a.session_id = t.session_id AND a.status = 'applied' AND a.decided_at >= t.started_at
						  AND a.path = c ->> 'path' AND a.diff = c ->> 'diff')
		   -- What a person rejected stays in the worktree, and stays rejected, until it changes.
	   AND NOT EXISTS (SELECT 1 FROM boocoder.pending_changes r
						WHERE r.session_id = t.session_id AND r.status = 'rejected'
						  AND r.path = c ->> 'path' AND r.diff = c ->> 'diff')
	   AND NOT EXISTS (SELECT 1 FROM boocoder.pending_changes m
						WHERE m.session_id = t.session_id AND m.status = 'pending' AND m.agent IS NULL
						  AND m.path = c ->> 'path' AND m.diff = c ->> 'diff')
	 ORDER BY n;
	UPDATE boocoder.worktrees x
	   SET snapshot_tree = diff ->> 'tree', facts = coalesce(diff -> 'facts', x.facts),
		   assessed_at = CASE WHEN diff ? 'facts' THEN now() ELSE x.assessed_at END,
		   assess_requested_at = CASE WHEN x.size_bytes IS NULL AND coalesce(current_setting('boocoder.worktree_budget', true), '0') <> '0' THEN now()
									  ELSE x.assess_requested_at END
	 WHERE x.id = w.id;
	PERFORM boocoder._save(w.id, 'turn', diff ->> 'turn_ref', diff ->> 'tree', t.id);
	-- as the runner did with the refs
	IF kept > 0 THEN
		DELETE FROM boocoder.worktree_saves s
		 WHERE s.id IN (SELECT o.id FROM boocoder.worktree_saves o
						 WHERE o.worktree_id = w.id AND o.kind = 'turn' AND o.task_id <> t.id
						 ORDER BY o.task_id DESC OFFSET kept - 1);
	END IF;
END
$$;
CREATE FUNCTION boocoder._manual_paths(w boocoder.worktrees) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT array_agg(DISTINCT x.path)
	  FROM (SELECT w.request ->> 'path' AS path
			 UNION ALL
			SELECT unnest(ARRAY[c.path, c.old_path]) FROM boocoder.pending_changes c
			 WHERE c.worktree_id = w.id AND c.status IN ('pending', 'conflict')
			   AND w.request ->> 'path' IN (c.path, c.old_path)) x
	 WHERE x.path IS NOT NULL
$$;
CREATE OR REPLACE FUNCTION boocoder._worktree_job_order(j boocoder.jobs, p boocoder.projects, w boocoder.worktrees, host jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	result jsonb;
BEGIN
	result := jsonb_build_object('project', jsonb_build_object('id', p.id, 'path', p.path),
		'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'branch', w.branch, 'admin_dir', w.admin_dir,
			'base_ref', p.base_branch, 'base_commit', w.base_commit, 'diff_base', coalesce(w.diff_base, w.base_commit),
			'snapshot_tree', w.snapshot_tree));
	CASE j.kind
		WHEN 'assess' THEN
			result := result || '{"role": "assess"}';
		WHEN 'rewrite' THEN
			result := result || jsonb_build_object('role', 'rewrite',
				'save', CASE w.request ->> 'do' WHEN 'stash' THEN 'stash' ELSE 'undo' END, 'to', w.request -> 'to',
				'edit', CASE w.request ->> 'do' WHEN 'edit' THEN jsonb_build_object('path', w.request -> 'path',
					'content', w.request -> 'content', 'paths', to_jsonb(boocoder._manual_paths(w)), 'known', w.snapshot_tree, 'max_bytes', host -> 'max_diff_bytes') END);
		WHEN 'revive' THEN
			result := result || jsonb_build_object('role', 'worktree', 'copy', to_jsonb(p.copy_files),
				'root', boocoder._root(w.path), 'forbidden', host -> 'forbidden');
	END CASE;
	RETURN result;
END
$$;
-- The content is the whole file's: it takes the place of what was offered for it.
CREATE FUNCTION boocoder._store_manual(w boocoder.worktrees, changes jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.pending_changes c SET status = 'superseded'
	 WHERE c.id IN (SELECT o.id FROM boocoder.pending_changes o
					 WHERE o.worktree_id = w.id AND o.status IN ('pending', 'conflict')
					   AND ARRAY[o.path, o.old_path] && boocoder._manual_paths(w)
					   FOR NO KEY UPDATE SKIP LOCKED);
	INSERT INTO boocoder.pending_changes (session_id, worktree_id, path, old_path, kind, diff, base_commit, additions, deletions)
	SELECT w.session_id, w.id, c ->> 'path', c ->> 'old_path', c ->> 'kind', c ->> 'diff', coalesce(w.diff_base, w.base_commit),
		   (c ->> 'additions')::integer, (c ->> 'deletions')::integer
	  FROM jsonb_array_elements(changes) c;
END
$$;
CREATE OR REPLACE FUNCTION boocoder._worktree_job_done(j boocoder.jobs, ok boolean, result jsonb, note text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees;
BEGIN
	SELECT * INTO w FROM boocoder.worktrees x WHERE x.id = j.worktree_id;
	IF j.kind = 'assess' THEN
		-- a worktree that is gone, or can't be read, is not asked about again and again
		UPDATE boocoder.worktrees x
		   SET facts = CASE WHEN ok THEN result - 'ok' ELSE x.facts END, assessed_at = CASE WHEN ok THEN now() ELSE x.assessed_at END,
			   size_bytes = CASE WHEN ok THEN (result ->> 'size_bytes')::bigint ELSE x.size_bytes END,
			   assess_requested_at = NULL
		 WHERE x.id = w.id;
	ELSIF NOT ok THEN
		UPDATE boocoder.worktrees x
		   SET request = NULL, request_error = note,
			   status = CASE WHEN x.status = 'creating' AND j.kind = 'revive' THEN 'removed' ELSE x.status END,
			   deleted_at = CASE WHEN x.status = 'creating' AND j.kind = 'revive' THEN now() ELSE x.deleted_at END
		 WHERE x.id = w.id;
	ELSIF j.kind = 'revive' THEN
		UPDATE boocoder.worktrees x
		   SET status = 'active', path = result ->> 'path', branch = result ->> 'branch', base_commit = result ->> 'base_commit',
			   git_dir = result ->> 'git_dir', admin_dir = result ->> 'admin_dir', setup_done_at = NULL
		 WHERE x.id = w.id;
		PERFORM boocoder._wake_now();
	ELSIF w.request ->> 'do' = 'edit' THEN
		PERFORM boocoder._save(w.id, 'undo', result ->> 'saved', result ->> 'saved_tree', NULL);
		PERFORM boocoder._store_manual(w, result -> 'changes');
		UPDATE boocoder.worktrees x
		   SET request = NULL, request_error = NULL, assess_requested_at = now(),
			   snapshot_tree = coalesce(result ->> 'known_tree', x.snapshot_tree)
		 WHERE x.id = w.id;
	ELSE
		PERFORM boocoder._save(w.id, CASE w.request ->> 'do' WHEN 'stash' THEN 'stash' ELSE 'undo' END, result ->> 'saved',
			result ->> 'saved_tree', NULL);
		UPDATE boocoder.pending_changes c SET status = 'superseded'
		 WHERE w.request ? 'task'
		   AND c.id IN (SELECT o.id FROM boocoder.pending_changes o
						 WHERE o.worktree_id = w.id AND o.status IN ('pending', 'conflict') FOR NO KEY UPDATE SKIP LOCKED);
		-- What was offered when that was the content is offered again.
		INSERT INTO boocoder.pending_changes (session_id, task_id, worktree_id, agent, path, old_path, kind, diff, base_commit, additions, deletions)
		SELECT c.session_id, c.task_id, c.worktree_id, c.agent, c.path, c.old_path, c.kind, c.diff, c.base_commit, c.additions, c.deletions
		  FROM boocoder.pending_changes c
		 WHERE c.task_id = (w.request ->> 'task')::bigint AND c.worktree_id = w.id AND c.status = 'superseded'
		   AND c.base_commit IS NOT DISTINCT FROM coalesce(w.diff_base, w.base_commit)
		   AND c.created_at = (SELECT max(m.created_at) FROM boocoder.pending_changes m
								WHERE m.task_id = c.task_id AND m.created_at < now())
		 ORDER BY c.id;
		UPDATE boocoder.worktrees x
		   SET request = NULL, request_error = NULL, assess_requested_at = now(),
			   snapshot_tree = CASE WHEN w.request ? 'task' THEN result ->> 'tree' ELSE x.snapshot_tree END
		 WHERE x.id = w.id;
	END IF;
END
$$;
-- What its runner told of it (a SERVER message), and what is to be done.  The dispatcher keeps the order: starting
-- again is starting the same.
CREATE OR REPLACE FUNCTION boocoder._server_told(server bigint, message jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	s boocoder.servers;
	settings jsonb := boocoder._host() -> 'server';
	ok boolean := coalesce((message ->> 'ok')::boolean, false);
	at timestamptz := clock_timestamp();
	decision text;
	tells text;
BEGIN
	SELECT * INTO s FROM boocoder.servers x WHERE x.id = server FOR UPDATE;
	IF s.id IS NULL OR s.state = 'ending' THEN
		RETURN 'end';
	END IF;
	CASE message ->> 'state'
		WHEN 'ready' THEN
			s.state := 'ready';
			s.url := message ->> 'url';
			s.pid := (message ->> 'pid')::integer;
			s.pid_started := (message ->> 'start_time')::bigint;
			s.version := message ->> 'version';
			s.ready_at := at;
			tells := 'ready';
			s.failures := 0;
			s.unhealthy_since := NULL;
			s.problem := NULL;
		WHEN 'health' THEN
			s.failures := CASE WHEN ok THEN 0 ELSE s.failures + 1 END;
			s.unhealthy_since := CASE WHEN s.failures >= (settings ->> 'health_failures')::integer THEN coalesce(s.unhealthy_since, at) END;
			s.looked_at := at;
			s.answer_ms := (message ->> 'ms')::integer;
			s.problem := message ->> 'problem';
		WHEN 'ended' THEN
			-- One that does not live is not started again and again: who waits for it is told, and the next one tries.
			s.state := CASE WHEN s.ready_at IS NULL OR (s.restarts > 0 AND s.ready_at > at - interval '10 s') THEN 'failed' ELSE 'exited' END;
			s.pid := NULL;
			s.url := NULL;
			-- its sessions have crashed with it
			UPDATE boocoder.agent_sessions m SET status = 'crashed', pid = NULL
			 WHERE (m.chat_id, m.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
											  JOIN boocoder.backends b ON b.chat_id = q.chat_id AND b.agent = q.agent
											 WHERE b.server_id = s.id AND b.state = 'idle' FOR NO KEY UPDATE OF q SKIP LOCKED);
			UPDATE boocoder.backends b SET state = 'ending' WHERE b.server_id = s.id AND b.state = 'idle';
			s.problem := format('the server ended (%s)', coalesce(
				'signal ' || (message #>> '{result,signal}'), 'status ' || (message #>> '{result,exit_code}'), message #>> '{result,message}', 'unknown'));
		ELSE
			NULL;
	END CASE;
	decision := CASE s.state WHEN 'failed' THEN 'give_up'
		ELSE boocoder._server_decision(s.state, s.failures, boocoder._server_busy(s.id), s.unhealthy_since, at,
			(settings ->> 'health_failures')::integer, make_interval(secs => (settings ->> 'stale_grace_ms')::bigint / 1000.0)) END;
	IF decision IN ('restart', 'restart_forced') THEN
		s.state := 'starting';
		s.restarts := s.restarts + 1;
		s.started_at := at;
		s.ready_at := NULL;
		s.failures := 0;
		s.unhealthy_since := NULL;
		s.pid := NULL;
		s.url := NULL;
	END IF;
	UPDATE boocoder.servers x SET state = s.state, url = s.url, pid = s.pid, pid_started = s.pid_started, version = s.version,
		failures = s.failures, unhealthy_since = s.unhealthy_since, looked_at = s.looked_at, answer_ms = s.answer_ms,
		problem = s.problem, restarts = s.restarts, started_at = s.started_at, ready_at = s.ready_at
	 WHERE x.id = s.id;
	IF decision = 'give_up' THEN
		decision := decision || ' ' || jsonb_build_object('reason', coalesce(message #>> '{result,reason}', 'agent_exited'),
			'message', coalesce(message #>> '{result,message}', s.problem));
	END IF;
	RETURN coalesce(nullif(decision, 'keep'), tells, 'keep');
END
$$;
CREATE FUNCTION boocoder.queue_manual_change(session bigint, path text, content text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	the_worktree bigint;
BEGIN
	SELECT w.id INTO the_worktree FROM boocoder.worktrees w WHERE w.session_id = session AND w.status = 'active';
	IF NOT FOUND THEN
		RAISE EXCEPTION 'session % has no worktree', session USING ERRCODE = 'BC002', HINT = 'Its first task makes one.';
	ELSIF coalesce(path, '') = '' THEN
		RAISE EXCEPTION 'no path is given' USING ERRCODE = 'BC005', HINT = 'Name a file by its path in the repository.';
	ELSIF octet_length(content) > pg_size_bytes(current_setting('boocoder.max_diff')) THEN
		RAISE EXCEPTION 'the content has % bytes, more than boocoder.max_diff', octet_length(content)
			USING ERRCODE = 'BC005', HINT = 'Write large files in the project itself.';
	END IF;
	PERFORM boocoder._change_worktree(the_worktree, jsonb_build_object('do', 'edit', 'path', path, 'content', content));
	RETURN the_worktree;
END
$$;
CREATE OR REPLACE FUNCTION boocoder._inbox()
RETURNS TABLE (task_id bigint, project text, agent text, state text, reason text, error text, age interval,
	attempt integer, last_output text, input text, what_to_do text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT t.id, p.name, t.agent, t.state, t.failure_reason, t.error, now() - coalesce(t.ended_at, t.started_at, t.created_at),
		   t.attempt, t.output_summary, left(t.input, 200),
		   format('SELECT boocoder.inbox_retry(%s);  or  SELECT boocoder.send(%s, ''...'');', t.id, t.id)
	  FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id
	 WHERE t.state = 'failed' OR t.state = 'blocked'
	   AND NOT EXISTS (SELECT 1 FROM boocoder.permission_requests r WHERE r.task_id = t.id AND r.status = 'pending')
	UNION ALL
	SELECT t.id, p.name, t.agent, 'blocked', r.kind,
		   coalesce(r.message, r.tool_call ->> 'title', r.tool_call ->> 'kind')
			|| coalesce(' (until ' || to_char(r.deadline, 'HH24:MI:SS') || ')', ''),
		   now() - r.requested_at, t.attempt, t.output_summary, left(t.input, 200),
		   CASE r.kind WHEN 'permission' THEN format('SELECT boocoder.answer_permission(%s, ...);  with ', r.id)
				|| (SELECT string_agg(format('%L (%s)', o ->> 'optionId', o ->> 'name'), ', ' ORDER BY n)
					  FROM jsonb_array_elements(r.options) WITH ORDINALITY AS x (o, n))
			ELSE format('SELECT boocoder.answer_elicitation(%s, ''{...}'');  as its schema says, or NULL to decline', r.id) END
	  FROM boocoder.permission_requests r JOIN boocoder.tasks t ON t.id = r.task_id JOIN boocoder.projects p ON p.id = t.project_id
	 WHERE r.status = 'pending'
	UNION ALL
	SELECT c.task_id, p.name, c.agent, 'conflict', 'conflict', string_agg(c.path || ': ' || coalesce(c.error, ''), E'\n' ORDER BY c.id),
		   now() - max(c.decided_at), NULL, NULL, NULL,
		   CASE WHEN c.task_id IS NOT NULL THEN format('SELECT boocoder.apply(%s);  or  SELECT boocoder.reject(%s);', c.task_id, c.task_id)
				ELSE format('SELECT boocoder.apply_changes(%1$L);  or  SELECT boocoder.reject_changes(%1$L);', array_agg(c.id ORDER BY c.id)) END
	  FROM boocoder.pending_changes c JOIN boocoder.worktrees w ON w.id = c.worktree_id JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE c.status = 'conflict' GROUP BY c.task_id, p.name, c.agent
	 ORDER BY 7 DESC
$$;
-- Reported, never touched: it may be somebody's.
CREATE FUNCTION boocoder._drift_lines(project text, drift jsonb) RETURNS TABLE ("check" text, status text, detail text, hint text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT 'worktree root', 'warning', format('"%s" is no worktree of this database', d),
		   'It is left alone. Look what it holds; if nobody needs it, remove it yourself.'
	  FROM jsonb_array_elements_text(drift -> 'directories') d
	UNION ALL
	SELECT format('project "%s"', project), 'warning',
		   format('git knows the worktree "%s" at "%s", of which there is no row', e ->> 'name', e ->> 'path'),
		   'It is left alone. If nobody needs it: git worktree remove, or git worktree prune if its directory is gone.'
	  FROM jsonb_array_elements(drift -> 'entries') e
	UNION ALL
	SELECT 'worktree root', 'warning', format('and %s more', drift ->> 'more'), NULL WHERE (drift ->> 'more')::bigint > 0
$$;
CREATE OR REPLACE FUNCTION boocoder._repository_checks() RETURNS TABLE ("check" text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	project record;
	facts jsonb;
	known jsonb;
	seen text[] := '{}';
BEGIN
	SELECT coalesce(jsonb_agg(w.path), '[]') INTO known FROM boocoder.worktrees w WHERE w.status <> 'removed';
	FOR project IN SELECT p.name, p.path, p.launch_prefix, r.root, format('%s %s', p.launch_prefix, r.root) AS place
					 FROM boocoder.projects p, boocoder._worktree_root(p, boocoder._host()) r (root) WHERE p.archived_at IS NULL ORDER BY p.id LOOP
		"check" := format('project "%s"', project.name);
		BEGIN
			-- a root that projects share is looked into once
			facts := boocoder._inspect(project.path, project.launch_prefix, project.root, jsonb_build_object('known', known,
				'look', NOT (project.place = ANY (seen))));
			seen := seen || project.place;
			status := CASE WHEN (facts ->> 'ok')::boolean THEN 'ok' ELSE 'error' END;
			detail := coalesce(facts ->> 'message', facts ->> 'path');
			hint := concat_ws(' ', facts ->> 'hint', CASE WHEN facts ->> 'reason' IN ('repository_not_owned', 'repository_unreadable')
				AND cardinality(project.launch_prefix) = 0 THEN 'Or let the runners of the project run as its owner: projects.launch_prefix.' END);
		EXCEPTION WHEN OTHERS THEN
			status := 'error';
			detail := SQLERRM;
			hint := NULL;
			facts := NULL;
		END;
		RETURN NEXT;
		RETURN QUERY SELECT * FROM boocoder._drift_lines(project.name, facts -> 'drift');
	END LOOP;
END
$$;
CREATE OR REPLACE FUNCTION boocoder.doctor() RETURNS TABLE ("check" text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w record;
	waiting bigint;
BEGIN
	"check" := 'preload';
	status := CASE WHEN boocoder._preloaded() THEN 'ok' ELSE 'error' END;
	detail := 'shared_preload_libraries ' || CASE WHEN boocoder._preloaded() THEN 'has' ELSE 'does not have' END || ' boocoder';
	hint := CASE WHEN NOT boocoder._preloaded() THEN 'Set shared_preload_libraries = ''boocoder'' and restart the server.' END;
	RETURN NEXT;

	SELECT * INTO w FROM boocoder._worker_status();
	"check" := 'dispatcher';
	status := CASE WHEN w.dispatcher_pid IS NOT NULL THEN 'ok' ELSE 'error' END;
	detail := CASE WHEN w.dispatcher_pid IS NOT NULL THEN 'runs since ' || w.started_at ELSE 'does not run' END
		|| coalesce('; last error: ' || w.last_error, '');
	hint := CASE WHEN w.dispatcher_pid IS NULL AND pg_is_in_recovery() THEN 'It starts when this standby is promoted.'
		WHEN w.dispatcher_pid IS NULL THEN 'See the server''s log; max_worker_processes may be too small.' END;
	RETURN NEXT;

	SELECT count(*) INTO waiting FROM boocoder.tasks t WHERE t.state = 'pending' AND coalesce(t.run_at, now()) <= now();
	"check" := 'queue';
	status := CASE WHEN waiting > 0 AND current_setting('boocoder.max_running')::integer = 0 THEN 'error' ELSE 'ok' END;
	detail := format('%s tasks are due, boocoder.max_running is %s', waiting, current_setting('boocoder.max_running'));
	hint := CASE status WHEN 'error' THEN 'Set boocoder.max_running to the number of agents this host can bear.' END;
	RETURN NEXT;

	FOR "check", status, detail, hint IN
		SELECT 'provider "' || p.name || '"', 'warning', 'is enabled, but names no program', 'Call boocoder.register_provider().'
		  FROM boocoder.providers p WHERE p.enabled AND p.transport <> 'native' AND cardinality(p.command) = 0 AND cardinality(p.builtin_command) = 0
	LOOP
		RETURN NEXT;
	END LOOP;
	FOR "check", status, detail, hint IN
		SELECT 'worktree ' || x.id, 'warning', 'its directory is gone',
			   'The next task of its session makes it again, from its branch; boocoder.worktree_saves tells what it held.'
		  FROM boocoder.worktrees x
		 WHERE x.status = 'active' AND x.request_error IS NULL AND (x.facts ->> 'missing')::boolean
		 UNION ALL
		SELECT 'worktree ' || x.id, 'warning', coalesce(x.request_error, 'its session is gone, but it holds what would be missed: '
				|| array_to_string(boocoder._risks_of(x), ', ')),
			   CASE WHEN x.request_error IS NOT NULL THEN 'What was asked for was not done. The note goes with the next request; boocoder.remove_worktree(id, force => true) archives all that a worktree holds.'
					ELSE 'See boocoder.worktree_risk(); boocoder.remove_worktree(id, force => true) archives all of it.' END
		  FROM boocoder.worktrees x
		 WHERE x.status IN ('active', 'trashed')
		   AND (x.request_error IS NOT NULL OR (x.orphaned_at IS NOT NULL AND x.status = 'active' AND NOT x.forced
				AND boocoder._risks_of(x) && '{dirty,unpushed,undecided}'))
		 ORDER BY 1
	LOOP
		RETURN NEXT;
	END LOOP;
	IF pg_size_bytes(current_setting('boocoder.worktree_budget')) > 0 THEN
		SELECT sum(x.size_bytes) INTO waiting FROM boocoder.worktrees x WHERE x.status <> 'removed';
		"check" := 'worktree budget';
		status := CASE WHEN waiting >= pg_size_bytes(current_setting('boocoder.worktree_budget')) THEN 'error' ELSE 'ok' END;
		detail := format('worktrees take %s of %s', pg_size_pretty(coalesce(waiting, 0)), current_setting('boocoder.worktree_budget'));
		hint := CASE status WHEN 'error' THEN 'No worktree is made. See boocoder.worktree_disk; remove what is not needed, or raise boocoder.worktree_budget.' END;
		RETURN NEXT;
	END IF;
	FOR "check", status, detail, hint IN
		SELECT 'agent "' || a.name || '"', CASE a.status WHEN 'error' THEN 'warning' ELSE 'ok' END,
			   concat_ws(', ', a.status, a.version, a.reason), nullif(concat_ws(' ', a.message, CASE a.reason WHEN 'auth_required' THEN
				'To log it in for good: providers.persistent_home with boocoder.agent_home, or a launch_prefix to whom it is logged in as.' END), '')
		  FROM boocoder.available_agents a JOIN boocoder.providers p ON p.name = a.name
		 WHERE p.enabled AND a.status <> 'unavailable' ORDER BY a.name
	LOOP
		RETURN NEXT;
	END LOOP;

	IF NOT pg_has_role('boocoder_admin', 'USAGE') THEN
		"check" := 'host';
		status := 'warning';
		detail := 'the sandbox, the worktree root and the repositories are checked for administrators only';
		hint := NULL;
		RETURN NEXT;
		RETURN;
	END IF;
	FOR "check", status, detail, hint IN
		SELECT 'provider "' || p.name || '"', 'warning', 'wants a home that lasts, but boocoder.agent_home is not set',
			   'Set it, and log the agent in there; or give its project or provider a launch_prefix.'
		  FROM boocoder.providers p WHERE p.enabled AND p.persistent_home AND boocoder._host() ->> 'agent_home' = ''
	LOOP
		RETURN NEXT;
	END LOOP;
	BEGIN
		FOR "check", status, detail, hint IN
			SELECT c ->> 'check', c ->> 'status', c ->> 'detail', c ->> 'hint'
			  FROM jsonb_array_elements(boocoder._check_host() -> 'checks') c
		LOOP
			RETURN NEXT;
		END LOOP;
	EXCEPTION WHEN OTHERS THEN
		"check" := 'host';
		status := 'error';
		detail := SQLERRM;
		hint := 'Is boocoder-runner installed beside the library?';
		RETURN NEXT;
	END;
	RETURN QUERY SELECT * FROM boocoder._repository_checks();
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
GRANT EXECUTE ON FUNCTION boocoder._project_id(text), boocoder._task(bigint), boocoder.wait(bigint, interval),
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

COMMENT ON FUNCTION boocoder._inspect(text, text[], text, jsonb) IS
	'what is at a path, as the server''s operating system user sees it, or the one that the prefix leads to; is there a place for its worktrees?  With drift = {known: paths, look: true}, also what lies there and is not known';
COMMENT ON FUNCTION boocoder._manual_paths(boocoder.worktrees) IS
	'the files that a manual change is about: the one it names, and the other end of a rename that is offered';
COMMENT ON FUNCTION boocoder._store_manual(boocoder.worktrees, jsonb) IS 'a change that a person made, instead of what was offered for the same file';
COMMENT ON FUNCTION boocoder._server_told(bigint, jsonb) IS
	'records how a server is; keep, ready (with this address), restart (the same order again), restart_forced (though turns run on it), give_up (and, behind a blank, what its chats are told: reason and message), or end';
COMMENT ON FUNCTION boocoder.queue_manual_change(bigint, text, text) IS
	'after commit, writes a file into the worktree of a session (content NULL: deletes it) and offers that as a change of nobody''s agent, instead of what was offered for the file; the worktree, for wait_worktree() (SQLSTATE BC002, BC004, BC005)';
COMMENT ON FUNCTION boocoder._drift_lines(text, jsonb) IS 'the lines of doctor() about worktrees without a row';
COMMENT ON FUNCTION boocoder._repository_checks() IS 'the lines of doctor() for each project';
