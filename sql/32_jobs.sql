-- SPDX-License-Identifier: PostgreSQL
-- Jobs: what decisions cause in repositories, and looking at agents.  For the dispatcher only.

CREATE FUNCTION boocoder._make_jobs(host jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	decision record;
	the_job bigint;
	free_rows bigint;
BEGIN
	-- what one transaction decided about one worktree is one job: all of it or nothing
	FOR decision IN
		SELECT c.worktree_id, c.decided_at, c.base_commit, w.project_id, count(*) AS n
		  FROM boocoder.pending_changes c JOIN boocoder.worktrees w ON w.id = c.worktree_id
		 WHERE c.status = 'applying' AND c.job_id IS NULL
		 GROUP BY 1, 2, 3, 4 ORDER BY 2, 1
	LOOP
		-- a client that holds a lock on one of them delays this decision only
		PERFORM 1 FROM boocoder.worktrees w, boocoder.projects p
		 WHERE w.id = decision.worktree_id AND p.id = decision.project_id FOR KEY SHARE OF w, p SKIP LOCKED;
		CONTINUE WHEN NOT FOUND;
		WITH free AS (
			SELECT c.id FROM boocoder.pending_changes c
			 WHERE c.worktree_id = decision.worktree_id AND c.decided_at = decision.decided_at
			   AND c.base_commit IS NOT DISTINCT FROM decision.base_commit
			   AND c.status = 'applying' AND c.job_id IS NULL
			   FOR NO KEY UPDATE SKIP LOCKED
		) SELECT count(*) INTO free_rows FROM free;
		CONTINUE WHEN free_rows < decision.n;
		INSERT INTO boocoder.jobs (kind, project_id, worktree_id)
		VALUES ('apply', decision.project_id, decision.worktree_id) RETURNING id INTO the_job;
		UPDATE boocoder.pending_changes c SET job_id = the_job
		 WHERE c.worktree_id = decision.worktree_id AND c.decided_at = decision.decided_at
		   AND c.base_commit IS NOT DISTINCT FROM decision.base_commit
		   AND c.status = 'applying' AND c.job_id IS NULL;
	END LOOP;
	INSERT INTO boocoder.jobs (kind, project_id, worktree_id)
	SELECT CASE WHEN w.teardown_done_at IS NULL AND w.setup_done_at IS NOT NULL AND cardinality(p.teardown) > 0
				THEN 'teardown' ELSE 'remove' END, w.project_id, w.id
	  FROM boocoder.worktrees w JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE w.status = 'removing' AND w.origin = host ->> 'origin'
	   -- of agents that were kept nothing may run any more
	   AND NOT EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.worktree_id = w.id)
	   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j
						WHERE j.worktree_id = w.id AND j.state IN ('queued', 'running'))
	   -- claimed before the removal was committed: the agent ends first
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks t
						WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked'))
	   FOR KEY SHARE OF w, p SKIP LOCKED;
END
$$;
COMMENT ON FUNCTION boocoder._make_jobs(jsonb) IS 'turns decisions that nobody acted on yet into jobs';

CREATE FUNCTION boocoder._array(value jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE '[]' END
$$;
COMMENT ON FUNCTION boocoder._array(jsonb) IS 'the value if it is an array, an empty one otherwise';

CREATE FUNCTION boocoder._probe_order(v boocoder.providers, host jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT jsonb_build_object(
		'role', 'probe', 'provider', v.name, 'agent_kind', v.kind, 'transport', v.transport, 'command', to_jsonb(a.argv),
		'program', a.argv[1], 'version_args', to_jsonb(v.version_args), 'env', v.env, 'cwd', a.root || '/probes/' || v.name,
		'sandbox', boocoder._sandbox(v, a.root, 'probe-' || v.name, host),
		'limits', (host -> 'limits') || jsonb_build_object('deadline_ms', host -> 'probe_timeout_ms'),
		'models_url', v.models_url, 'models_key', v.models_key, 'models_prefix', v.models_prefix)
	  FROM (SELECT boocoder._argv(v, NULL) AS argv,
				   CASE WHEN cardinality(v.launch_prefix) > 0 THEN '~/.local/share/boocoder/' || (host ->> 'origin')
						ELSE host ->> 'worktree_root' END AS root) a
$$;
COMMENT ON FUNCTION boocoder._probe_order(boocoder.providers, jsonb) IS 'the order to look at an agent; where it was found last time does not count';

CREATE FUNCTION boocoder._job_order(j boocoder.jobs, host jsonb, OUT job_order jsonb, OUT prefix text[]) RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	p boocoder.projects;
	w boocoder.worktrees;
	v boocoder.providers;
	root text;
	n bigint;
	max_bytes constant bigint := 64 * 1024 * 1024;	-- more than any one task is allowed; a message has to hold them all
BEGIN
	IF j.kind = 'probe' THEN
		SELECT * INTO STRICT v FROM boocoder.providers x WHERE x.name = j.provider;
		job_order := boocoder._probe_order(v, host);
		prefix := nullif(v.launch_prefix, '{}');
		RETURN;
	END IF;
	SELECT * INTO STRICT p FROM boocoder.projects x WHERE x.id = j.project_id;
	SELECT * INTO STRICT w FROM boocoder.worktrees x WHERE x.id = j.worktree_id;
	host := boocoder._for_project(host, p);
	prefix := nullif(p.launch_prefix, '{}');
	root := boocoder._root(w.path);
	IF j.kind IN ('assess', 'rewrite', 'revive') THEN
		job_order := boocoder._worktree_job_order(j, p, w, host);
		RETURN;
	ELSIF j.kind = 'teardown' THEN
		job_order := jsonb_build_object(
			-- the commands are its setup, and behind them there is nothing to run
			'role', 'agent', 'transport', 'command', 'command', '["true"]'::jsonb, 'env', '{}'::jsonb,
			'cwd', w.path, 'git_dir', w.git_dir, 'admin_dir', w.admin_dir,
			'setup', to_jsonb(p.teardown), 'setup_timeout_ms', host -> 'setup_timeout_ms',
			'place', jsonb_build_object('project', p.name, 'session', w.session_id, 'branch', w.branch,
				'base_commit', w.base_commit, 'port_first', w.port_first, 'port_count', w.port_count),
			'sandbox', (host -> 'sandbox') || jsonb_build_object('home', root || '/homes/' || boocoder._home(w)),
			'limits', host -> 'limits');
		RETURN;
	END IF;
	SELECT sum(octet_length(c.diff)) INTO n FROM boocoder.pending_changes c WHERE c.job_id = j.id AND c.status = 'applying';
	IF n > max_bytes THEN
		RAISE EXCEPTION 'these changes have % together, and no more than % are applied at once: apply them in parts',
			pg_size_pretty(n), pg_size_pretty(max_bytes) USING ERRCODE = 'BC005';
	END IF;
	job_order := jsonb_build_object(
		'role', j.kind, 'resume', j.resumed, 'root', root, 'delete_branch', true,
		'careful', NOT w.forced AND w.status = 'removing',
		'base_commit', (SELECT min(c.base_commit) FROM boocoder.pending_changes c WHERE c.job_id = j.id),
		'project', jsonb_build_object('id', p.id, 'path', p.path),
		'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'branch', w.branch,
			'admin_dir', w.admin_dir, 'diff_base', coalesce(w.diff_base, w.base_commit), 'snapshot_tree', w.snapshot_tree),
		'changes', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'path', c.path,
						'old_path', c.old_path, 'kind', c.kind, 'diff', c.diff) ORDER BY c.id), '[]')
					  FROM boocoder.pending_changes c WHERE c.job_id = j.id AND c.status = 'applying'));
	-- a session may have another worktree meanwhile, whose agents live there
	IF NOT EXISTS (SELECT 1 FROM boocoder.worktrees o WHERE o.session_id = w.session_id AND o.id <> w.id AND o.deleted_at IS NULL) THEN
		job_order := job_order || jsonb_build_object('home', root || '/homes/' || boocoder._home(w));
	END IF;
END
$$;
COMMENT ON FUNCTION boocoder._job_order(boocoder.jobs, jsonb) IS 'the order of a job, and the launch prefix of its runner';

CREATE FUNCTION boocoder._probed(provider text, result jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	a boocoder.available_agents;
	ok boolean := coalesce((result ->> 'ok')::boolean, false);
BEGIN
	SELECT v.name, v.label, v.transport INTO a.name, a.label, a.transport FROM boocoder.providers v WHERE v.name = _probed.provider;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	a.status := CASE WHEN ok AND result ->> 'status' IN ('ready', 'unavailable') THEN result ->> 'status' ELSE 'error' END;
	INSERT INTO boocoder.available_agents (name, label, transport, install_path, version, supports_acp, models, modes, commands,
		current_model, current_mode, capabilities, auth_methods, status, reason, message, probed_at)
	VALUES (a.name, a.label, a.transport, result ->> 'install_path', result ->> 'version',
		coalesce((result ->> 'supports_acp')::boolean, false),
		boocoder._array(result -> 'models'), boocoder._array(result -> 'modes'), boocoder._array(result -> 'commands'),
		result ->> 'current_model', result ->> 'current_mode', coalesce(result -> 'capabilities', '{}'),
		boocoder._array(result -> 'auth_methods'), a.status, result ->> 'reason',
		nullif(concat_ws(E'\n', result ->> 'message', result ->> 'hint'), ''), now())
	ON CONFLICT (name) DO UPDATE
	   SET label = EXCLUDED.label, transport = EXCLUDED.transport, install_path = EXCLUDED.install_path, version = EXCLUDED.version,
		   supports_acp = EXCLUDED.supports_acp, models = EXCLUDED.models, modes = EXCLUDED.modes, commands = EXCLUDED.commands,
		   current_model = EXCLUDED.current_model, current_mode = EXCLUDED.current_mode, capabilities = EXCLUDED.capabilities,
		   auth_methods = EXCLUDED.auth_methods, status = EXCLUDED.status, reason = EXCLUDED.reason, message = EXCLUDED.message,
		   probed_at = EXCLUDED.probed_at;
END
$$;
COMMENT ON FUNCTION boocoder._probed(text, jsonb) IS 'what was found out about an agent';

CREATE FUNCTION boocoder._outdated(c boocoder.pending_changes) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT c.agent IS NOT NULL AND c.created_at < (SELECT w.changes_at FROM boocoder.worktrees w WHERE w.id = c.worktree_id)
		   -- a person's change is out of date when there is another one of the same file
		   OR EXISTS (SELECT 1 FROM boocoder.pending_changes n
					   WHERE n.worktree_id = c.worktree_id AND n.path = c.path AND n.id > c.id AND n.status IN ('pending', 'conflict', 'applying'))
$$;
COMMENT ON FUNCTION boocoder._outdated(boocoder.pending_changes) IS 'has a later turn, or a person, changed that since?';

CREATE FUNCTION boocoder._job_done(job_id bigint, result jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	j boocoder.jobs;
	ok boolean := coalesce((result ->> 'ok')::boolean, false);
	note text := concat_ws(': ', result ->> 'reason', result ->> 'message');
BEGIN
	SELECT * INTO j FROM boocoder.jobs x WHERE x.id = job_id AND x.state = 'running' FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN CASE WHEN EXISTS (SELECT 1 FROM boocoder.jobs x WHERE x.id = job_id AND x.state = 'running')
			THEN NULL ELSE 'stale' END;
	END IF;
	IF j.kind = 'probe' THEN
		PERFORM boocoder._probed(j.provider, result);
		-- the row it was asked for in says all there is to say
		DELETE FROM boocoder.jobs x WHERE x.id = j.id;
		RETURN CASE WHEN ok THEN 'done' ELSE 'failed' END;
	END IF;
	PERFORM 1 FROM boocoder.worktrees w WHERE w.id = j.worktree_id FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND OR (SELECT count(*) FROM boocoder.pending_changes c WHERE c.job_id = j.id AND c.status = 'applying')
		> (SELECT count(*) FROM (SELECT 1 FROM boocoder.pending_changes c WHERE c.job_id = j.id AND c.status = 'applying'
									FOR NO KEY UPDATE SKIP LOCKED) free) THEN
		RETURN NULL;
	END IF;
	-- A runner that was killed may have written half of the files: the next one finishes that.
	IF NOT ok AND NOT j.resumed AND result ->> 'reason' IN ('runner_crashed', 'git_timeout', 'runner_start_failed') THEN
		UPDATE boocoder.jobs x SET state = 'queued', resumed = true, error = note WHERE x.id = j.id;
		RETURN 'failed';
	END IF;
	IF j.kind IN ('assess', 'rewrite', 'revive') THEN
		PERFORM boocoder._worktree_job_done(j, ok, result, note);
	ELSIF j.kind = 'teardown' THEN
		-- what a teardown leaves undone keeps nobody from removing the worktree
		ok := ok AND result ->> 'outcome' = 'completed';
		note := concat_ws(E'\n', nullif(note, ''), nullif(right(result ->> 'stderr_tail', 4000), ''));
		UPDATE boocoder.worktrees w SET teardown_done_at = now() WHERE w.id = j.worktree_id;
		PERFORM boocoder._wake_now();
	ELSIF j.kind = 'apply' AND ok THEN
		UPDATE boocoder.pending_changes c SET status = 'applied' WHERE c.job_id = j.id AND c.status = 'applying';
		UPDATE boocoder.worktrees w SET diff_base = coalesce(result ->> 'diff_base', w.diff_base) WHERE w.id = j.worktree_id;
	ELSIF j.kind = 'apply' THEN
		-- Nothing was touched.  Who is not to blame waits for the next decision, unless there is a later change to decide about.
		WITH blamed AS (
			SELECT DISTINCT ON (e ->> 'id') (e ->> 'id')::bigint AS id, concat_ws(' at ', e ->> 'message', e ->> 'hunk') AS text
			  FROM jsonb_array_elements(coalesce(result -> 'conflicts', '[]')) e
		)
		UPDATE boocoder.pending_changes c
		   SET status = CASE WHEN boocoder._outdated(c) THEN 'superseded'
							 WHEN b.id IS NULL AND EXISTS (SELECT 1 FROM blamed) THEN 'pending' ELSE 'conflict' END,
			   error = coalesce(b.text, CASE WHEN EXISTS (SELECT 1 FROM blamed)
											 THEN 'not applied: another file of the same decision is in conflict' ELSE note END)
		  FROM boocoder.pending_changes x LEFT JOIN blamed b ON b.id = x.id
		 WHERE x.job_id = j.id AND x.status = 'applying' AND c.id = x.id;
	ELSIF ok THEN
		UPDATE boocoder.worktrees w
		   SET status = 'removed', deleted_at = coalesce(w.deleted_at, now()), archived_ref = result ->> 'archived',
			   request = NULL, assess_requested_at = NULL
		 WHERE w.id = j.worktree_id;
		-- the contents of single turns go with it
		DELETE FROM boocoder.worktree_saves s WHERE s.worktree_id = j.worktree_id AND s.kind = 'turn';
		PERFORM boocoder._save(j.worktree_id, 'archive', result ->> 'archived', NULL, NULL);
	ELSE
		-- It stays, for people to look at; if its session has another one meanwhile, out of its way.
		UPDATE boocoder.worktrees w
		   SET status = CASE WHEN taken.yes THEN 'trashed' ELSE 'active' END,
			   deleted_at = CASE WHEN taken.yes THEN coalesce(w.deleted_at, now()) END,
			   orphaned_at = NULL, assess_requested_at = now(), request_error = note
		  FROM (SELECT EXISTS (SELECT 1 FROM boocoder.worktrees o JOIN boocoder.worktrees me ON me.id = j.worktree_id
								WHERE o.session_id = me.session_id AND o.id <> me.id AND o.deleted_at IS NULL) AS yes) taken
		 WHERE w.id = j.worktree_id;
	END IF;
	UPDATE boocoder.jobs x
	   SET state = CASE WHEN ok THEN 'done' ELSE 'failed' END, error = CASE WHEN NOT ok THEN note END, ended_at = now()
	 WHERE x.id = j.id;
	RETURN CASE WHEN ok THEN 'done' ELSE 'failed' END;
END
$$;
COMMENT ON FUNCTION boocoder._job_done(bigint, jsonb) IS
	'records the result of a job: done, failed or stale; NULL when a lock keeps it from that';

-- What is wrong with one job is that job's failure, and keeps nobody from anything else.
CREATE FUNCTION boocoder._begin_job(j boocoder.jobs, host jsonb, OUT job_order jsonb, OUT prefix text[]) RETURNS record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	problem text;
BEGIN
	PERFORM 1 FROM boocoder.jobs q WHERE q.id = j.id AND q.state = 'queued' FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	UPDATE boocoder.jobs q SET state = 'running' WHERE q.id = j.id;
	BEGIN
		SELECT o.job_order, o.prefix INTO job_order, prefix FROM boocoder._job_order(j, host) o;
		RETURN;
	EXCEPTION WHEN OTHERS THEN
		problem := SQLERRM;
	END;
	IF boocoder._job_done(j.id, jsonb_build_object('ok', false, 'reason', 'not_possible', 'message', problem)) IS NULL THEN
		RAISE EXCEPTION 'its rows are locked' USING ERRCODE = 'lock_not_available';
	END IF;
EXCEPTION WHEN OTHERS THEN
	-- it is queued still
	RAISE LOG 'boocoder: job % can neither begin nor fail: %', j.id, coalesce(problem || '; ', '') || SQLERRM;
END
$$;
COMMENT ON FUNCTION boocoder._begin_job(boocoder.jobs, jsonb) IS 'marks a job as running; its order, NULL when it failed or has to wait';
