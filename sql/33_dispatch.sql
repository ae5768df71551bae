-- SPDX-License-Identifier: PostgreSQL
-- What the dispatcher calls.  None of it waits for a lock.

-- CREATE DATABASE ... TEMPLATE copies the queue too.  Another database of the same cluster
-- is such a copy; another cluster is pg_upgrade, or a standby that was promoted: the same work goes on.
CREATE FUNCTION boocoder._leave_the_original() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	here record;
	home boocoder.home;
BEGIN
	SELECT boocoder._host() ->> 'system_identifier' AS system_identifier, d.oid AS database INTO here
	  FROM pg_database d WHERE d.datname = current_database();
	SELECT * INTO home FROM boocoder.home;
	IF home.database = here.database AND home.system_identifier = here.system_identifier THEN
		RETURN;
	END IF;
	IF home.database IS NOT NULL AND home.system_identifier = here.system_identifier THEN
		UPDATE boocoder.messages m SET status = 'cancelled', finished_at = now()
		  FROM boocoder.tasks t WHERE m.id = t.message_id AND m.status = 'streaming';
		UPDATE boocoder.tasks t SET state = 'cancelled', failure_reason = 'copied',
			   error = 'this database is a copy; the task belongs to the original'
		 WHERE t.state IN ('pending', 'running', 'blocked');
		UPDATE boocoder.pending_changes c SET status = 'pending' WHERE c.status = 'applying';
		UPDATE boocoder.pending_changes c SET status = 'superseded', error = 'belongs to the original of this database'
		 WHERE c.status IN ('pending', 'conflict');
		UPDATE boocoder.jobs j SET state = 'failed', error = 'belongs to the original of this database', ended_at = now()
		 WHERE j.state IN ('queued', 'running');
		-- its worktrees, even those in the trash, are of another origin: _disown()
	ELSIF home.database IS NOT NULL THEN
		UPDATE boocoder.worktrees w SET origin = boocoder._host() ->> 'origin'
		 WHERE w.origin = home.system_identifier || '-' || home.database;
	END IF;
	DELETE FROM boocoder.home;
	INSERT INTO boocoder.home VALUES (here.system_identifier, here.database);
END
$$;
COMMENT ON FUNCTION boocoder._leave_the_original() IS 'in a copy of a database, gives up what the original is at work on';

CREATE FUNCTION boocoder._withdraw(t boocoder.tasks) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- one that somebody is answering right now is left to _attend()
	UPDATE boocoder.permission_requests r SET status = 'cancelled', delivered_at = now()
	 WHERE r.id IN (SELECT q.id FROM boocoder.permission_requests q
					 WHERE q.task_id = t.id AND q.status = 'pending' FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
COMMENT ON FUNCTION boocoder._withdraw(boocoder.tasks) IS 'the agent of a task has ended: what it asked needs no answer any more';

CREATE FUNCTION boocoder._can_end(t boocoder.tasks) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM 1 FROM boocoder.projects p, boocoder.sessions s, boocoder.chats c
	 WHERE p.id = t.project_id AND s.id = t.session_id AND c.id = t.chat_id
	   FOR KEY SHARE OF p, s SKIP LOCKED FOR NO KEY UPDATE OF c SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM 1 FROM boocoder.agent_sessions s WHERE s.chat_id = t.chat_id AND s.agent = t.agent FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND AND EXISTS (SELECT 1 FROM boocoder.agent_sessions s WHERE s.chat_id = t.chat_id AND s.agent = t.agent) THEN
		RETURN false;
	END IF;
	PERFORM 1 FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL FOR NO KEY UPDATE SKIP LOCKED;
	RETURN FOUND OR NOT EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL);
END
$$;
COMMENT ON FUNCTION boocoder._can_end(boocoder.tasks) IS
	'locks the rows beside its own that the end of a claimed task writes or refers to; false: a client has one of them';

-- A claim with a number below boocoder_dispatcher.first_fence belongs to a dispatcher that is gone.  The number
-- is kept in the session of the dispatcher, as it dies with it.
CREATE FUNCTION boocoder._reconcile() RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
	first_fence bigint := coalesce(nullif(current_setting('boocoder_dispatcher.first_fence', true), '')::bigint, 0);
	touched bigint := 0;
BEGIN
	FOR t IN
		SELECT * FROM boocoder.tasks x
		 WHERE x.state IN ('running', 'blocked') AND coalesce(x.fence, 0) < first_fence
		   FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		-- what is locked is left to the next call
		CONTINUE WHEN NOT boocoder._can_end(t);
		BEGIN
			UPDATE boocoder.messages m SET status = 'failed', finished_at = now()
			 WHERE m.id = t.message_id AND m.status = 'streaming';
			PERFORM boocoder._charge(t.id, NULL, NULL);
			PERFORM boocoder._withdraw(t);
			PERFORM boocoder._turn_ended(t, '{"reason": "interrupted"}');
			UPDATE boocoder.tasks x
			   SET state = CASE WHEN t.retry_requested THEN 'pending'
								WHEN t.cancel_requested_at IS NOT NULL THEN 'cancelled'
								WHEN t.attempt < t.max_attempts THEN 'pending' ELSE 'failed' END,
				   failure_reason = CASE WHEN t.cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE 'interrupted' END,
				   error = CASE WHEN t.cancel_requested_at IS NOT NULL THEN 'cancelled on request'
								ELSE 'the dispatcher ended while the task was running' END
			 WHERE x.id = t.id;
			touched := touched + 1;
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'boocoder: task % was interrupted, and cannot be ended: %', t.id, SQLERRM;
		END;
	END LOOP;
	RETURN touched;
END
$$;
COMMENT ON FUNCTION boocoder._reconcile() IS
	'repeats, fails or cancels what a dispatcher that is gone had running; rows that are locked wait for the next call';

CREATE FUNCTION boocoder._start(pid integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	touched bigint;
	more bigint;
BEGIN
	PERFORM boocoder._leave_the_original();
	PERFORM boocoder._disown(boocoder._host());
	-- One dispatcher serves a database, so whatever runs now belongs to one that is gone.
	PERFORM set_config('boocoder_dispatcher.first_fence', nextval('boocoder.fence_seq')::text, false);
	touched := boocoder._reconcile();
	PERFORM boocoder._forget_backends();
	PERFORM boocoder._forget_servers();
	UPDATE boocoder.jobs j SET state = 'queued', resumed = true WHERE j.state = 'running';
	GET DIAGNOSTICS more = ROW_COUNT;
	-- not here: a client that has asked for the same and has not committed would keep us from starting
	PERFORM set_config('boocoder_dispatcher.probe_at', CASE WHEN (boocoder._host() ->> 'probe_ttl_ms')::bigint > 0
															THEN now()::text ELSE '' END, false);
	RETURN touched + more;
END
$$;
COMMENT ON FUNCTION boocoder._start(integer) IS
	'begins the work of a dispatcher: interrupted tasks are repeated or failed, jobs resumed';

-- Only claims when not everything is asked for: that is what a commit of tasks waits for.
CREATE FUNCTION boocoder._next_actions(free_slots integer, free_jobs integer, everything boolean DEFAULT true)
RETURNS TABLE (kind text, task_id bigint, fence bigint, job_id bigint,
			   prepare jsonb, agent jsonb, diff jsonb, git_prefix text[], agent_prefix text[], delay_ms bigint, backend bigint,
			   server bigint, server_order jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	host jsonb;
	began constant timestamptz := clock_timestamp();
	-- where the last pass stopped, when too much was in its way; after a while it is looked at again
	stopped jsonb := nullif(current_setting('boocoder_dispatcher.stopped', true), '')::jsonb;
	resumes constant boolean := coalesce((stopped ->> 'until')::timestamptz > began, false);
	behind_priority integer := CASE WHEN resumes THEN (stopped ->> 'priority')::integer END;
	behind_id bigint := CASE WHEN resumes THEN (stopped ->> 'id')::bigint END;
	skipped_sessions bigint[] := '{}';
	skipped_projects bigint[] := '{}';
	looked boolean := false;
	begun integer := 0;
	too_much boolean := false;
	obstructed text;
	ends bigint;
	server_ends bigint;
	t boocoder.tasks;
	j boocoder.jobs;
	next_due timestamptz;
BEGIN
	IF everything THEN
		IF EXISTS (SELECT 1 FROM boocoder.tasks x WHERE x.state IN ('running', 'blocked')
					AND coalesce(x.fence, 0) < coalesce(nullif(current_setting('boocoder_dispatcher.first_fence', true), '')::bigint, 0)) THEN
			PERFORM boocoder._reconcile();
		END IF;
		FOR task_id, fence IN
			SELECT x.id, x.fence FROM boocoder.tasks x
			 WHERE x.cancel_requested_at IS NOT NULL AND x.state IN ('running', 'blocked')
		LOOP
			kind := 'cancel';
			RETURN NEXT;
		END LOOP;
		BEGIN
			FOR kind, task_id, fence, prepare IN SELECT a.kind, a.task_id, a.fence, a.answer FROM boocoder._attend() a LOOP
				RETURN NEXT;
			END LOOP;
		EXCEPTION WHEN OTHERS THEN
			-- it fails before its first row is here
			RAISE LOG 'boocoder: answers cannot be passed on: %', SQLERRM;
		END;
		IF EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.state <> 'busy') THEN
			host := boocoder._host();
			kind := 'evict';
			prepare := NULL;
			FOR backend IN SELECT boocoder._evict(host) LOOP
				RETURN NEXT;
			END LOOP;
		END IF;
		IF EXISTS (SELECT 1 FROM boocoder.servers) THEN
			host := coalesce(host, boocoder._host());
			kind := 'end_server';
			FOR server IN SELECT boocoder._end_servers(host) LOOP
				RETURN NEXT;
			END LOOP;
			server := NULL;
		END IF;
	END IF;

	-- One claim, or tasks that can't run for as long as a transaction may last.
	WHILE free_slots > 0 LOOP
		t := boocoder._candidate(behind_priority, behind_id, skipped_sessions, skipped_projects, everything);
		EXIT WHEN t.id IS NULL;
		too_much := looked AND clock_timestamp() > began + interval '50 ms';
		EXIT WHEN too_much;
		looked := true;
		behind_priority := t.priority;
		behind_id := t.id;
		obstructed := boocoder._obstructed(t);
		IF obstructed = 'project' THEN
			skipped_projects := skipped_projects || t.project_id;
			CONTINUE;
		ELSIF obstructed = 'session' THEN
			skipped_sessions := skipped_sessions || t.session_id;
			CONTINUE;
		END IF;
		host := coalesce(host, boocoder._host());
		-- What is wrong with one task is that task's failure.
		BEGIN
			SELECT c.fence, c.prepare, c.agent, c.diff, c.git_prefix, c.agent_prefix, c.backend, c.ends,
				   c.server, c.server_order, c.server_ends
			  INTO fence, prepare, agent, diff, git_prefix, agent_prefix, backend, ends, server, server_order, server_ends
			  FROM boocoder._claim(t, host) c;
		EXCEPTION
			WHEN lock_not_available OR deadlock_detected OR query_canceled THEN
				fence := NULL;
			WHEN OTHERS THEN
				fence := NULL;
				BEGIN
					CONTINUE WHEN SQLSTATE = '23505' AND NOT boocoder._clashes_again(t.id);
					PERFORM boocoder._fail(t.id, 'internal_error', SQLERRM);
				EXCEPTION WHEN OTHERS THEN
					RAISE LOG 'boocoder: task % can neither run nor fail: %', t.id, SQLERRM;
				END;
		END;
		IF fence IS NOT NULL THEN
			IF ends IS NOT NULL THEN
				RETURN QUERY SELECT 'evict', NULL::bigint, NULL::bigint, NULL::bigint, NULL::jsonb, NULL::jsonb, NULL::jsonb,
					NULL::text[], NULL::text[], NULL::bigint, ends, NULL::bigint, NULL::jsonb;
			END IF;
			IF server_ends IS NOT NULL THEN
				RETURN QUERY SELECT 'end_server', NULL::bigint, NULL::bigint, NULL::bigint, NULL::jsonb, NULL::jsonb, NULL::jsonb,
					NULL::text[], NULL::text[], NULL::bigint, NULL::bigint, server_ends, NULL::jsonb;
			END IF;
			kind := 'task';
			task_id := t.id;
			RETURN NEXT;
			-- Its agent is not to wait for the rest of this pass, nor for the claims of the others.
			RETURN;
		END IF;
	END LOOP;

	IF too_much THEN
		PERFORM set_config('boocoder_dispatcher.stopped', jsonb_build_object('priority', behind_priority, 'id', behind_id,
			'until', CASE WHEN resumes THEN (stopped ->> 'until')::timestamptz ELSE began + interval '2 s' END)::text, false);
	ELSIF stopped IS NOT NULL THEN
		PERFORM set_config('boocoder_dispatcher.stopped', '', false);
	END IF;
	IF NOT everything AND NOT too_much THEN
		RETURN;
	END IF;

	kind := 'job';
	task_id := NULL;
	fence := NULL;
	agent := NULL;
	diff := NULL;
	prepare := NULL;
	backend := NULL;
	server := NULL;
	server_order := NULL;
	IF free_jobs > 0 AND (EXISTS (SELECT 1 FROM boocoder.pending_changes c WHERE c.status = 'applying' AND c.job_id IS NULL)
			OR EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.status = 'removing')
			OR EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.status = 'trashed' OR (w.status = 'active' AND w.orphaned_at IS NOT NULL))
			OR EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.request IS NOT NULL OR w.assess_requested_at IS NOT NULL)) THEN
		host := coalesce(host, boocoder._host());
		BEGIN
			PERFORM boocoder._make_worktree_jobs(host);
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'boocoder: no jobs can be made for worktrees now: %', SQLERRM;
		END;
		BEGIN
			PERFORM boocoder._make_jobs(host);
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'boocoder: no jobs can be made for decisions now: %', SQLERRM;
		END;
	END IF;
	IF nullif(current_setting('boocoder_dispatcher.probe_at', true), '')::timestamptz <= began THEN
		BEGIN
			PERFORM boocoder._probe(NULL);
			PERFORM set_config('boocoder_dispatcher.probe_at', '', false);
		EXCEPTION WHEN OTHERS THEN
			-- a client has asked for the same, perhaps
			PERFORM set_config('boocoder_dispatcher.probe_at', (began + interval '5 s')::text, false);
		END;
	END IF;
	FOR j IN
		-- one at a time in a project; looking at agents does not wait for that
		SELECT DISTINCT ON (coalesce(q.project_id, -q.id)) q.* FROM boocoder.jobs q
		 WHERE q.state = 'queued' AND free_jobs > 0
		   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs r WHERE r.project_id = q.project_id AND r.state = 'running')
		 ORDER BY coalesce(q.project_id, -q.id), q.id
	LOOP
		EXIT WHEN begun = free_jobs;
		job_id := j.id;
		host := coalesce(host, boocoder._host());
		SELECT b.job_order, b.prefix INTO prepare, git_prefix FROM boocoder._begin_job(j, host) b;
		CONTINUE WHEN prepare IS NULL;
		begun := begun + 1;
		RETURN NEXT;
	END LOOP;

	IF too_much THEN
		next_due := clock_timestamp() + interval '20 ms';
	ELSE
		SELECT least((SELECT min(x.run_at) FROM boocoder.tasks x
					   WHERE x.state = 'pending' AND x.run_at IS NOT NULL AND x.run_at > now()),
					 (SELECT min(r.deadline) FROM boocoder.permission_requests r
					   WHERE r.status = 'pending' AND r.deadline IS NOT NULL AND r.deadline > now()),
					 -- mostly none waits, and nothing has to be looked up
					 (SELECT min(b.last_active_at) + make_interval(secs => (coalesce(host, boocoder._host()) ->> 'idle_ttl_ms')::bigint / 1000.0)
						FROM boocoder.backends b WHERE b.state = 'idle' HAVING min(b.last_active_at) IS NOT NULL)) INTO next_due;
	END IF;
	IF next_due IS NOT NULL THEN
		kind := 'due';
		job_id := NULL;
		prepare := NULL;
		delay_ms := greatest(1, ceil(extract(epoch FROM least(next_due, now() + interval '1 day') - clock_timestamp()) * 1000))::bigint;
		RETURN NEXT;
	END IF;
END
$$;
COMMENT ON FUNCTION boocoder._next_actions(integer, integer, boolean) IS
	'what the dispatcher is to do: cancel, answer, blocked, unblocked, evict, end_server, task, job, due; after a task it is to ask again';

CREATE FUNCTION boocoder._prepared(task_id bigint, fence bigint, result jsonb)
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
	host := boocoder._for_project(host, project);
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
COMMENT ON FUNCTION boocoder._prepared(bigint, bigint, jsonb) IS
	'records a worktree that is there; the orders for agent and diff, no row when there is nothing to run';

CREATE FUNCTION boocoder._append(task_ids bigint[], fences bigint[], payloads jsonb[]) RETURNS bigint
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
COMMENT ON FUNCTION boocoder._append(bigint[], bigint[], jsonb[]) IS
	'stores events and parts; those of an attempt that is over are left out; the last event''s number';

-- The ledger gets what is new: an agent's cost report counts from the start of its session, and with of_session its tokens do, too.
CREATE FUNCTION boocoder._charge(task_id bigint, usage jsonb, agent_session text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
	charged record;
	of_session integer;
	its_cost numeric;
	u boocoder.usage_events;
BEGIN
	SELECT * INTO t FROM boocoder.tasks x WHERE x.id = task_id;
	-- A runner that crashed could not sum up; its last report was streamed.
	IF usage IS NULL THEN
		SELECT e.payload, e.payload ->> 'agent_session_id' INTO usage, agent_session
		  FROM boocoder.events e
		 WHERE e.task_id = t.id AND e.kind = 'usage' AND e.created_at >= t.started_at
		 ORDER BY e.seq DESC LIMIT 1;
	END IF;
	IF usage IS NULL THEN
		RETURN;
	END IF;
	SELECT coalesce(sum(x.cost_usd), 0) AS cost, coalesce(sum(x.input_tokens), 0) AS input, coalesce(sum(x.output_tokens), 0) AS output,
		   coalesce(sum(x.cached_tokens), 0) AS cached, coalesce(sum(x.reasoning_tokens), 0) AS reasoning
	  INTO charged FROM boocoder.usage_events x
	 WHERE x.agent = t.agent AND x.agent_session_id = agent_session AND x.chat_id IS NOT DISTINCT FROM t.chat_id;
	of_session := coalesce((usage ->> 'of_session')::boolean, false)::integer;
	its_cost := greatest(0, coalesce((usage ->> 'cost_total_usd')::numeric - charged.cost, (usage ->> 'cost_usd')::numeric, 0));
	u.input_tokens := greatest(0, coalesce((usage ->> 'input_tokens')::numeric, 0) - of_session * charged.input);
	u.output_tokens := greatest(0, coalesce((usage ->> 'output_tokens')::numeric, 0) - of_session * charged.output);
	u.cached_tokens := greatest(0, coalesce((usage ->> 'cached_tokens')::numeric, 0) - of_session * charged.cached);
	u.reasoning_tokens := greatest(0, coalesce((usage ->> 'reasoning_tokens')::numeric, 0) - of_session * charged.reasoning);
	IF its_cost = 0 AND u.input_tokens + u.output_tokens + u.cached_tokens + u.reasoning_tokens = 0 THEN
		RETURN;
	END IF;
	INSERT INTO boocoder.usage_events (task_id, chat_id, project_id, agent, model, agent_session_id,
		input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_usd)
	VALUES (t.id, t.chat_id, t.project_id, t.agent, coalesce(usage ->> 'model', t.model), agent_session,
		u.input_tokens, u.output_tokens, u.cached_tokens, u.reasoning_tokens, its_cost);
	UPDATE boocoder.tasks x
	   SET input_tokens = s.input, output_tokens = s.output, cost_tokens = s.input + s.output, cost_usd = s.cost
	  FROM (SELECT sum(e.input_tokens) AS input, sum(e.output_tokens) AS output, sum(e.cost_usd) AS cost
			  FROM boocoder.usage_events e WHERE e.task_id = t.id) s
	 WHERE x.id = t.id;
	UPDATE boocoder.agent_sessions s
	   SET input_tokens = s.input_tokens + u.input_tokens, output_tokens = s.output_tokens + u.output_tokens,
		   cost = s.cost + its_cost
	 WHERE (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
									 WHERE q.chat_id = t.chat_id AND q.agent = t.agent FOR NO KEY UPDATE SKIP LOCKED);
	UPDATE boocoder.messages m SET tokens_used = u.input_tokens + u.output_tokens WHERE m.id = t.message_id;
END
$$;
COMMENT ON FUNCTION boocoder._charge(bigint, jsonb, text) IS
	'one ledger row for what an attempt used; cumulative reports become the difference to what was charged';

CREATE FUNCTION boocoder._store_changes(t boocoder.tasks, diff jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees;
	kept integer := coalesce(current_setting('boocoder.max_turn_snapshots', true), '0')::integer;
BEGIN
	SELECT * INTO w FROM boocoder.worktrees x WHERE x.session_id = t.session_id AND x.deleted_at IS NULL;
	IF NOT FOUND THEN
		-- it was removed by somebody who did not see the claim yet; its changes are not lost for that
		SELECT * INTO w FROM boocoder.worktrees x WHERE x.session_id = t.session_id ORDER BY x.id DESC LIMIT 1;
	END IF;
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
	   SET snapshot_tree = diff ->> 'tree', changes_at = now(), facts = coalesce(diff -> 'facts', x.facts),
		   assessed_at = CASE WHEN diff ? 'facts' THEN now() ELSE x.assessed_at END,
		   -- what it skipped is looked at once more: perhaps none of it would be missed
		   assess_requested_at = CASE WHEN diff ? 'skipped' OR x.size_bytes IS NULL AND coalesce(current_setting('boocoder.worktree_budget', true), '0') <> '0' THEN now()
									  ELSE x.assess_requested_at END
	 WHERE x.id = w.id;
	-- what no diff can hold is not passed over in silence
	INSERT INTO boocoder.events (task_id, chat_id, kind, payload)
	SELECT t.id, t.chat_id, 'log', jsonb_build_object('stream', 'boocoder', 'text',
		   E'not part of the diff:\n' || string_agg(s, E'\n') || E'\n')
	  FROM jsonb_array_elements_text(boocoder._array(diff -> 'skipped')) s HAVING count(*) > 0;
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
COMMENT ON FUNCTION boocoder._store_changes(boocoder.tasks, jsonb) IS 'the changes of a turn replace the undecided ones of its session';

CREATE FUNCTION boocoder._settle(task_id bigint, fence bigint, result jsonb, diff jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
	outcome text := CASE WHEN (result ->> 'ok')::boolean THEN result ->> 'outcome' ELSE 'failed' END;
	reason text := result ->> 'reason';
	message text := result ->> 'message';
BEGIN
	SELECT * INTO t FROM boocoder.tasks x
	 WHERE x.id = _settle.task_id AND x.fence = _settle.fence FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN CASE WHEN EXISTS (SELECT 1 FROM boocoder.tasks x WHERE x.id = _settle.task_id AND x.fence = _settle.fence)
			THEN NULL ELSE 'stale' END;
	END IF;
	-- Rows that others may lock: look before waiting.
	IF NOT boocoder._can_end(t) THEN
		RETURN NULL;
	END IF;

	-- a worktree's result: there was nothing to run any more
	IF outcome IS NULL THEN
		outcome := CASE WHEN t.cancel_requested_at IS NULL THEN 'failed' ELSE 'cancelled' END;
		reason := CASE outcome WHEN 'failed' THEN 'internal_error' ELSE 'cancelled' END;
	END IF;
	-- an event was refused of an agent that was not to go on anyway
	IF reason = 'bad_event' AND t.cancel_requested_at IS NOT NULL THEN
		outcome := 'cancelled';
		reason := 'cancelled';
	END IF;
	IF (diff ->> 'ok')::boolean THEN
		PERFORM boocoder._store_changes(t, diff);
	ELSIF diff IS NOT NULL AND outcome <> 'failed' THEN
		-- never completed without its diff
		outcome := 'failed';
		reason := coalesce(diff ->> 'reason', 'internal_error');
		message := diff ->> 'message';
	END IF;
	IF outcome = 'completed' THEN
		reason := NULL;
		message := NULL;
	END IF;
	PERFORM boocoder._turn_ended(t, result);
	IF result ? 'usage' OR reason = 'runner_crashed' THEN
		PERFORM boocoder._charge(t.id, result -> 'usage', result ->> 'agent_session_id');
	END IF;
	-- The setup is done when the agent was started after it; a sandbox that failed, or a cancel, may have come before.
	UPDATE boocoder.worktrees w SET setup_done_at = now()
	 WHERE w.session_id = t.session_id AND w.deleted_at IS NULL AND w.setup_done_at IS NULL
	   AND (outcome = 'completed' OR EXISTS (
			SELECT 1 FROM boocoder.events e
			 WHERE e.task_id = t.id AND e.kind = 'status' AND e.payload ->> 'phase' = 'spawned' AND e.created_at >= t.started_at));
	UPDATE boocoder.messages m
	   SET status = CASE outcome WHEN 'completed' THEN 'complete' ELSE outcome END, finished_at = now()
	 WHERE m.id = t.message_id;
	PERFORM boocoder._withdraw(t);
	IF reason = 'worktree_missing' THEN
		-- somebody removed the directory: the next attempt makes it again, as it was at the end of the last turn
		UPDATE boocoder.worktrees w SET status = 'creating' WHERE w.session_id = t.session_id AND w.deleted_at IS NULL AND w.status = 'active';
		t.retry_requested := t.retry_requested OR (t.cancel_requested_at IS NULL AND t.attempt < t.max_attempts);
	END IF;
	IF t.retry_requested AND outcome <> 'completed' THEN
		-- asked for while it waited for a person
		UPDATE boocoder.tasks x SET state = 'pending', transport = coalesce(result ->> 'transport', x.transport) WHERE x.id = t.id;
		RETURN 'pending';
	END IF;
	UPDATE boocoder.tasks x
	   SET state = outcome, failure_reason = reason, transport = coalesce(result ->> 'transport', x.transport),
		   error = nullif(concat_ws(E'\n', message, result ->> 'detail', result ->> 'hint',
						  CASE WHEN outcome = 'failed' THEN nullif(right(result ->> 'stderr_tail', 4000), '') END), ''),
		   output_summary = coalesce(nullif(result ->> 'summary', ''), x.output_summary)
	 WHERE x.id = t.id;
	IF pg_notification_queue_usage() < 0.5 THEN
		PERFORM pg_notify('boocoder_events', jsonb_build_object('tasks', ARRAY[t.id], 'state', outcome)::text);
	END IF;
	RETURN outcome;
END
$$;
COMMENT ON FUNCTION boocoder._settle(bigint, bigint, jsonb, jsonb) IS
	'ends an attempt: state, changes, usage, message in one transaction; NULL when a lock keeps it from that';
