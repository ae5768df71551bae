-- SPDX-License-Identifier: PostgreSQL
-- What waits for a person, what it costs, how it goes.
-- A view reads tables with the rights of its owner; these read through functions
-- that have the rights of the caller, so that row-level security holds on every version.

CREATE FUNCTION boocoder._inbox()
RETURNS TABLE (task_id bigint, project text, agent text, state text, reason text, error text, age interval,
	attempt integer, last_output text, input text, what_to_do text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT t.id, p.name, t.agent, t.state, t.failure_reason, t.error, now() - coalesce(t.ended_at, t.started_at, t.created_at),
		   t.attempt, t.output_summary, left(t.input, 200),
		   format('SELECT boocoder.inbox_retry(%s);  or  SELECT boocoder.send(%s, ''...'');', t.id, t.id)
	  FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id
	 WHERE t.state = 'failed' OR t.state = 'blocked'
	   AND NOT EXISTS (SELECT 1 FROM boocoder.permission_requests r WHERE r.task_id = t.id AND r.status = 'pending' AND r.fence = t.fence)
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
	 WHERE r.status = 'pending' AND r.fence = t.fence
	UNION ALL
	SELECT c.task_id, p.name, c.agent, 'conflict', 'conflict', string_agg(c.path || ': ' || coalesce(c.error, ''), E'\n' ORDER BY c.id),
		   now() - max(c.decided_at), NULL, NULL, NULL,
		   CASE WHEN c.task_id IS NOT NULL THEN format('SELECT boocoder.apply(%s);  or  SELECT boocoder.reject(%s);', c.task_id, c.task_id)
				ELSE format('SELECT boocoder.apply_changes(%1$L);  or  SELECT boocoder.reject_changes(%1$L);', array_agg(c.id ORDER BY c.id)) END
	  FROM boocoder.pending_changes c JOIN boocoder.worktrees w ON w.id = c.worktree_id JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE c.status = 'conflict' GROUP BY c.task_id, p.name, c.agent
	 ORDER BY 7 DESC
$$;
COMMENT ON FUNCTION boocoder._inbox() IS 'the rows of the view inbox';
CREATE VIEW boocoder.inbox AS SELECT * FROM boocoder._inbox();
COMMENT ON VIEW boocoder.inbox IS 'what waits for a person: failed tasks, requests of agents, changes in conflict; with the reason and what to call';

CREATE FUNCTION boocoder.cost_stats(group_by text DEFAULT 'project', since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS TABLE (key text, tasks bigint, input_tokens numeric, output_tokens numeric, cached_tokens numeric,
	reasoning_tokens numeric, cost_usd numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF group_by IS NULL OR group_by NOT IN ('project', 'agent', 'model', 'day') THEN
		RAISE EXCEPTION 'cannot group costs by "%"', group_by
			USING ERRCODE = 'BC005', HINT = 'Use project, agent, model or day.';
	END IF;
	RETURN QUERY
	SELECT k.key, count(DISTINCT u.task_id), sum(u.input_tokens), sum(u.output_tokens), sum(u.cached_tokens),
		   sum(u.reasoning_tokens), sum(u.cost_usd)
	  FROM boocoder.usage_events u LEFT JOIN boocoder.projects p ON p.id = u.project_id,
		   LATERAL (SELECT CASE group_by WHEN 'project' THEN p.name WHEN 'agent' THEN u.agent WHEN 'model' THEN u.model
						   ELSE to_char(u.created_at, 'YYYY-MM-DD') END AS key) k
	 WHERE (since IS NULL OR u.created_at >= since) AND (until IS NULL OR u.created_at < until)
	 GROUP BY k.key ORDER BY k.key;
END
$$;
COMMENT ON FUNCTION boocoder.cost_stats(text, timestamptz, timestamptz) IS
	'the ledger summed by project, agent, model or day, in US dollars; until is not included (SQLSTATE BC005)';

CREATE FUNCTION boocoder._status()
RETURNS TABLE (dispatcher_pid integer, started_at timestamptz, pending bigint, running bigint, blocked bigint,
	oldest_pending interval, jobs bigint, spare_runners integer, last_seq bigint, last_error text,
	warm_backends bigint, servers bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT w.dispatcher_pid, w.started_at, ready.n + scheduled.n, open.running, open.blocked,
		   now() - least(ready.oldest, scheduled.oldest),
		   (SELECT count(*) FROM boocoder.jobs j WHERE j.state IN ('queued', 'running')),
		   w.spare_runners, w.last_seq, w.last_error,
		   (SELECT count(*) FROM boocoder.backends b WHERE b.state = 'idle'), (SELECT count(*) FROM boocoder.servers s)
	  FROM boocoder._worker_status() w,
		   (SELECT count(*) AS n, min(t.created_at) AS oldest FROM boocoder.tasks t
			 WHERE t.state = 'pending' AND t.run_at IS NULL) ready,
		   (SELECT count(*) AS n, min(t.run_at) FILTER (WHERE t.run_at <= now()) AS oldest FROM boocoder.tasks t
			 WHERE t.state = 'pending' AND t.run_at IS NOT NULL) scheduled,
		   (SELECT count(*) FILTER (WHERE t.state = 'running') AS running, count(*) FILTER (WHERE t.state = 'blocked') AS blocked
			  FROM boocoder.tasks t WHERE t.state IN ('running', 'blocked')) open
$$;
COMMENT ON FUNCTION boocoder._status() IS 'the row of the view status';
CREATE VIEW boocoder.status AS SELECT * FROM boocoder._status();
COMMENT ON VIEW boocoder.status IS 'the dispatcher of this database, and the queue as far as one may see it';

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
COMMENT ON FUNCTION boocoder._drift_lines(text, jsonb) IS 'the lines of doctor() about worktrees without a row';

CREATE FUNCTION boocoder._repository_checks() RETURNS TABLE ("check" text, status text, detail text, hint text)
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
COMMENT ON FUNCTION boocoder._repository_checks() IS 'the lines of doctor() for each project';

CREATE FUNCTION boocoder.doctor() RETURNS TABLE ("check" text, status text, detail text, hint text)
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
COMMENT ON FUNCTION boocoder.doctor() IS 'everything a person needs to find out why nothing runs; never fails';
