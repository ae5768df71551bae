-- SPDX-License-Identifier: PostgreSQL
-- Claiming: from a pending task to the orders for its runners.  For the dispatcher only.

CREATE FUNCTION boocoder._fail(task_id bigint, reason text, message text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	UPDATE boocoder.tasks SET state = 'failed', failure_reason = reason, error = message WHERE id = task_id
$$;
COMMENT ON FUNCTION boocoder._fail(bigint, text, text) IS 'a task ends without having run';

CREATE FUNCTION boocoder._below(path text, root text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT path = rtrim(root, '/') OR starts_with(path, rtrim(root, '/') || '/')
$$;
COMMENT ON FUNCTION boocoder._below(text, text) IS 'is a path the directory root or below it?';

CREATE FUNCTION boocoder._bypasses_rights(role name) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT r.rolbypassrls FROM pg_roles r WHERE r.rolname = role
$$;
COMMENT ON FUNCTION boocoder._bypasses_rights(name) IS 'is a role one that row-level security does not hold for?';

-- Why a task can't be run, as {reason, message}; NULL when it can.
CREATE FUNCTION boocoder._obstacle(submitter name, project boocoder.projects, agent text, provider boocoder.providers, host jsonb)
RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF project.archived_at IS NOT NULL THEN
		RETURN ARRAY['project_archived', format('project "%s" is archived', project.name)];
	ELSIF to_regrole(quote_ident(submitter)) IS NULL THEN
		RETURN ARRAY['submitter_missing', format('role "%s" does not exist any more', submitter)];
	ELSIF NOT (pg_has_role(submitter, 'boocoder_user', 'USAGE')
			   AND (project.shared OR project.owner = submitter OR pg_has_role(submitter, 'boocoder_admin', 'USAGE'))
			   OR boocoder._bypasses_rights(submitter)) THEN
		RETURN ARRAY['permission_denied', format('role "%s" may not use project "%s" any more', submitter, project.name)];
	ELSIF provider.name IS NULL THEN
		RETURN ARRAY['unknown_agent', format('there is no provider "%s"', agent)];
	ELSIF NOT provider.enabled THEN
		RETURN ARRAY['agent_disabled', format('provider "%s" is disabled', agent)];
	ELSIF provider.transport = 'native' THEN
		RETURN ARRAY['transport_unsupported',
			format('this version does not run the transport "%s" of provider "%s"', provider.transport, agent)];
	ELSIF cardinality(provider.command) = 0 AND cardinality(provider.builtin_command) = 0 THEN
		RETURN ARRAY['program_not_found', format('provider "%s" names no program', agent)];
	END IF;
	-- asked last and by itself: as a query it costs more than all of the above
	IF jsonb_array_length(host -> 'allowed_roots') > 0 THEN
		PERFORM 1 FROM jsonb_array_elements_text(host -> 'allowed_roots') r WHERE boocoder._below(project.path, r);
		IF NOT FOUND THEN
			RETURN ARRAY['path_not_allowed', format('"%s" is outside of boocoder.allowed_roots', project.path)];
		END IF;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION boocoder._obstacle(name, boocoder.projects, text, boocoder.providers, jsonb) IS
	'why a task cannot be run, as {reason, message}';

-- Behind the last range that is leased, or else the first gap; NULL when there is none, or ports are not leased.
CREATE FUNCTION boocoder._free_ports(host jsonb) RETURNS integer
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	lowest integer := (host #>> '{ports,first}')::integer;
	highest integer := (host #>> '{ports,last}')::integer;
	n integer := (host #>> '{ports,count}')::integer;
	candidate integer;
BEGIN
	IF n = 0 THEN
		RETURN NULL;
	END IF;
	SELECT w.port_first + w.port_count INTO candidate FROM boocoder.worktrees w
	 WHERE w.status <> 'removed' AND w.port_first BETWEEN lowest AND highest ORDER BY w.port_first DESC LIMIT 1;
	IF candidate + n - 1 <= highest THEN
		RETURN candidate;
	END IF;
	SELECT g.port INTO candidate FROM generate_series(lowest, highest - n + 1, n) g (port)
	 WHERE NOT EXISTS (SELECT 1 FROM boocoder.worktrees w
						WHERE w.status <> 'removed' AND w.port_first IS NOT NULL
						  AND w.port_first < g.port + n AND w.port_first + w.port_count > g.port)
	 LIMIT 1;
	RETURN candidate;
END
$$;
COMMENT ON FUNCTION boocoder._free_ports(jsonb) IS 'the first port of a range for a new worktree';

CREATE FUNCTION boocoder._new_path(wanted text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	result text := wanted;
	n integer := 1;
BEGIN
	WHILE EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.path = result AND w.status <> 'removed') LOOP
		n := n + 1;
		result := wanted || '-' || n;
	END LOOP;
	RETURN result;
END
$$;
COMMENT ON FUNCTION boocoder._new_path(text) IS 'a path for a worktree that no other one has, not even one that is trashed';

-- Gives the task what it lacks (session, chat, messages, worktree) and marks it running.
-- fence is NULL when it was failed instead, or has to wait.
CREATE FUNCTION boocoder._claim(t boocoder.tasks, host jsonb,
	OUT fence bigint, OUT prepare jsonb, OUT agent jsonb, OUT diff jsonb, OUT git_prefix text[], OUT agent_prefix text[],
	OUT backend bigint, OUT ends bigint, OUT server bigint, OUT server_order jsonb, OUT server_ends bigint)
RETURNS record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	-- Few statements: each costs tens of microseconds between a commit and its claim.
	r record;
	project boocoder.projects;
	provider boocoder.providers;
	worktree boocoder.worktrees;
	agent_name text;
	obstacle text[];
	the_message bigint;
	argv text[];
	hash text;
	is_warm boolean;
	orders record;
BEGIN
	SELECT p AS project, v AS provider, w AS worktree, s.closed_at, s.owner, c.model, c.closed_at AS chat_closed_at, a.install_path, m.wanted_mode, m.agent_session_id, m.status AS agent_status, m.config_hash,
		   coalesce(nullif(t.agent, ''), nullif(p.default_agent, ''), nullif(host ->> 'default_agent', ''), 'boocode') AS agent
	  INTO STRICT r
	  FROM boocoder.projects p
	  LEFT JOIN boocoder.providers v
		ON v.name = coalesce(nullif(t.agent, ''), nullif(p.default_agent, ''), nullif(host ->> 'default_agent', ''), 'boocode')
	  LEFT JOIN boocoder.available_agents a ON a.name = v.name
	  LEFT JOIN boocoder.sessions s ON s.id = t.session_id
	  LEFT JOIN boocoder.chats c ON c.id = t.chat_id
	  LEFT JOIN boocoder.agent_sessions m ON m.chat_id = t.chat_id AND m.agent = v.name
	  LEFT JOIN boocoder.worktrees w ON w.session_id = t.session_id AND w.deleted_at IS NULL
	 WHERE p.id = t.project_id;
	project := r.project;
	host := boocoder._for_project(host, project);
	provider := r.provider;
	worktree := r.worktree;
	agent_name := r.agent;
	obstacle := boocoder._obstacle(t.submitted_by, project, agent_name, provider, host);
	IF obstacle IS NULL AND r.closed_at IS NOT NULL THEN
		obstacle := ARRAY['session_closed', format('session %s is closed', t.session_id)];
	ELSIF obstacle IS NULL AND r.chat_closed_at IS NOT NULL THEN
		obstacle := ARRAY['chat_closed', format('chat %s is closed', t.chat_id)];
	END IF;
	IF obstacle IS NOT NULL THEN
		PERFORM boocoder._fail(t.id, obstacle[1], obstacle[2]);
		RETURN;
	END IF;

	IF worktree.origin <> host ->> 'origin' THEN
		-- from a dump: the directory belongs to another database
		UPDATE boocoder.worktrees w SET status = 'removed', deleted_at = now() WHERE w.id = worktree.id;
		worktree := NULL;
	END IF;
	IF worktree.id IS NULL AND (host ->> 'worktree_budget')::bigint > 0
		AND (SELECT sum(w.size_bytes) FROM boocoder.worktrees w WHERE w.status <> 'removed') >= (host ->> 'worktree_budget')::bigint THEN
		PERFORM boocoder._fail(t.id, 'disk_budget', 'the worktrees take more than boocoder.worktree_budget; see boocoder.worktree_disk');
		RETURN;
	END IF;
	is_warm := coalesce(t.warm, boocoder._warm(provider, t.session_id, t.chat_id, t.creator)) AND (host ->> 'max_warm')::integer > 0;
	IF t.session_id IS NULL THEN
		INSERT INTO boocoder.sessions (project_id, title, owner)
		VALUES (t.project_id, left(t.input, 80), t.submitted_by) RETURNING id INTO t.session_id;
	END IF;
	IF t.chat_id IS NULL THEN
		INSERT INTO boocoder.chats (session_id, title) VALUES (t.session_id, left(t.input, 80))
		RETURNING id INTO t.chat_id;
	END IF;
	IF worktree.id IS NULL THEN
		INSERT INTO boocoder.worktrees (session_id, project_id, path, branch, origin, port_first, port_count)
		VALUES (t.session_id, t.project_id, boocoder._new_path(boocoder._worktree_root(project, host)
				|| boocoder._worktree_place(t.project_id, coalesce(r.owner, t.submitted_by), t.session_id)),
				'boocoder/' || t.session_id, host ->> 'origin', boocoder._free_ports(host), (host #>> '{ports,count}')::integer)
		RETURNING * INTO worktree;
	ELSIF worktree.port_first IS NULL AND (host #>> '{ports,count}')::integer > 0 THEN
		UPDATE boocoder.worktrees w SET port_first = boocoder._free_ports(host), port_count = (host #>> '{ports,count}')::integer
		 WHERE w.id = worktree.id RETURNING w.* INTO worktree;
	END IF;
	-- A retry asks the same question; it is in the chat already.
	WITH question AS (
		INSERT INTO boocoder.messages (chat_id, task_id, role)
		SELECT t.chat_id, t.id, 'user'
		 WHERE t.attempt = 1 OR NOT EXISTS (SELECT 1 FROM boocoder.messages m WHERE m.task_id = t.id AND m.role = 'user')
		RETURNING id
	), its_text AS (
		INSERT INTO boocoder.message_parts (message_id, task_id, seq, kind, payload)
		SELECT q.id, t.id, 1, 'text', jsonb_build_object('text', t.input) FROM question q
	)
	INSERT INTO boocoder.messages (chat_id, task_id, role, status)
	SELECT t.chat_id, t.id, 'assistant', 'streaming' FROM (SELECT count(*) FROM question) asked_first
	RETURNING id INTO the_message;

	UPDATE boocoder.tasks x
	   SET state = 'running', agent = agent_name, session_id = t.session_id, chat_id = t.chat_id,
		   model = coalesce(t.model, r.model, project.default_model, provider.default_model, nullif(host ->> 'default_model', '')),
		   transport = provider.transport, warm = is_warm,
		   message_id = the_message, fence = nextval('boocoder.fence_seq'), started_at = clock_timestamp(), ended_at = NULL
	 WHERE x.id = t.id RETURNING x.* INTO t;
	fence := t.fence;

	argv := boocoder._argv(provider, r.install_path);
	orders := boocoder._orders(t, project, worktree, provider, argv, coalesce(t.mode, r.wanted_mode), host);
	git_prefix := nullif(project.launch_prefix, '{}');
	agent_prefix := boocoder._agent_prefix(project, provider);
	IF is_warm THEN
		hash := boocoder._config_hash(provider, worktree, argv, agent_prefix, host);
		IF provider.transport = 'opencode_server' THEN
			hash := md5(concat_ws(E'\x01', hash, t.model, coalesce(t.mode, r.wanted_mode)));
		END IF;
		SELECT b.backend, b.ends INTO backend, ends FROM boocoder._take_backend(t, worktree, hash) b;
	END IF;
	IF is_warm OR (r.agent_session_id IS NOT NULL AND NOT boocoder._asks_once(t.creator)) THEN
		orders.agent := boocoder._continued(orders.agent, is_warm, r.agent_session_id,
			boocoder._stale(provider.transport, r.agent_status, r.config_hash, hash));
	END IF;
	diff := orders.diff;
	-- one for a worktree that is not made yet is taken when it is
	IF worktree.status = 'active' AND provider.transport = 'opencode_server' THEN
		SELECT s.server, s.start_order, s.ends INTO server, server_order, server_ends
		  FROM boocoder._take_server(backend, provider, worktree, argv, agent_prefix, host) s;
	END IF;
	IF worktree.status = 'active' THEN
		agent := orders.agent;
	ELSE
		prepare := orders.worktree;
	END IF;
END
$$;
COMMENT ON FUNCTION boocoder._claim(boocoder.tasks, jsonb) IS 'makes one pending task running, or failed when it cannot run';

-- The rows that a claim refers to are locked here: whoever holds a lock on one delays its tasks, not the others.
CREATE FUNCTION boocoder._obstructed(t boocoder.tasks) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_rows bigint;
	live bigint;
BEGIN
	IF t.session_id IS NULL THEN
		PERFORM 1 FROM boocoder.projects p WHERE p.id = t.project_id FOR KEY SHARE SKIP LOCKED;
		RETURN CASE WHEN NOT FOUND THEN 'project' END;
	ELSIF t.chat_id IS NULL THEN
		PERFORM 1 FROM boocoder.projects p, boocoder.sessions s
		 WHERE p.id = t.project_id AND s.id = t.session_id FOR KEY SHARE OF p, s SKIP LOCKED;
	ELSE
		PERFORM 1 FROM boocoder.projects p, boocoder.sessions s, boocoder.chats c
		 WHERE p.id = t.project_id AND s.id = t.session_id AND c.id = t.chat_id FOR KEY SHARE OF p, s, c SKIP LOCKED;
	END IF;
	IF NOT FOUND THEN
		PERFORM 1 FROM boocoder.projects p WHERE p.id = t.project_id FOR KEY SHARE SKIP LOCKED;
		RETURN CASE WHEN FOUND THEN 'session' ELSE 'project' END;
	END IF;
	-- A claim and a removal that do not see each other yet must not both succeed; and what was asked of the
	-- worktree before comes before.
	PERFORM 1 FROM boocoder.worktrees w
	 WHERE w.session_id = t.session_id AND w.deleted_at IS NULL AND w.status <> 'removing' AND w.request IS NULL
	   FOR NO KEY UPDATE SKIP LOCKED;
	IF FOUND THEN
		RETURN NULL;
	END IF;
	-- No other one either that a client is about to bring back.
	SELECT count(*), count(*) FILTER (WHERE w.deleted_at IS NULL) INTO found_rows, live
	  FROM boocoder.worktrees w WHERE w.session_id = t.session_id;
	IF live = 0 AND found_rows > 0 THEN
		WITH free AS (
			SELECT 1 FROM boocoder.worktrees w WHERE w.session_id = t.session_id FOR NO KEY UPDATE SKIP LOCKED
		) SELECT found_rows - count(*) INTO live FROM free;
	END IF;
	RETURN CASE WHEN live > 0 THEN 'session' END;
END
$$;
COMMENT ON FUNCTION boocoder._obstructed(boocoder.tasks) IS
	'project or session, when a client holds a lock on its row, or the session''s worktree is locked, being removed, or to be changed first';

-- The pending task that is next: by priority, then age, one of a session at a time; behind the given place if there is one.
-- The arrays name sessions and projects that are to wait; scheduled tasks are left out unless asked for.
CREATE FUNCTION boocoder._candidate(behind_priority integer, behind_id bigint, skipped_sessions bigint[], skipped_projects bigint[],
	scheduled boolean) RETURNS boocoder.tasks
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	ready boocoder.tasks;
	due boocoder.tasks;
BEGIN
	IF behind_id IS NOT NULL THEN
		-- from there on in the index, not from its beginning
		SELECT * INTO ready FROM boocoder.tasks t
		 WHERE t.state = 'pending' AND t.run_at IS NULL AND t.priority = behind_priority AND t.id > behind_id
		   AND t.project_id <> ALL (skipped_projects)
		   AND (t.session_id IS NULL OR t.session_id <> ALL (skipped_sessions))
		   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks r
							WHERE r.session_id = t.session_id AND r.state IN ('running', 'blocked'))
		 ORDER BY t.priority DESC, t.id LIMIT 1 FOR NO KEY UPDATE OF t SKIP LOCKED;
	END IF;
	IF ready.id IS NULL THEN
		SELECT * INTO ready FROM boocoder.tasks t
		 WHERE t.state = 'pending' AND t.run_at IS NULL AND (behind_id IS NULL OR t.priority < behind_priority)
		   AND t.project_id <> ALL (skipped_projects)
		   AND (t.session_id IS NULL OR t.session_id <> ALL (skipped_sessions))
		   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks r
							WHERE r.session_id = t.session_id AND r.state IN ('running', 'blocked'))
		 ORDER BY t.priority DESC, t.id LIMIT 1 FOR NO KEY UPDATE OF t SKIP LOCKED;
	END IF;
	IF NOT scheduled THEN
		RETURN ready;
	END IF;
	SELECT * INTO due FROM boocoder.tasks t
	 WHERE t.state = 'pending' AND t.run_at <= now()
	   AND (behind_id IS NULL OR t.priority < behind_priority OR (t.priority = behind_priority AND t.id > behind_id))
	   AND t.project_id <> ALL (skipped_projects)
	   AND (t.session_id IS NULL OR t.session_id <> ALL (skipped_sessions))
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks r
						WHERE r.session_id = t.session_id AND r.state IN ('running', 'blocked'))
	 ORDER BY t.priority DESC, t.id LIMIT 1 FOR NO KEY UPDATE OF t SKIP LOCKED;
	IF ready.id IS NULL OR (due.priority, -due.id) > (ready.priority, -ready.id) THEN
		RETURN due;
	END IF;
	RETURN ready;
END
$$;
COMMENT ON FUNCTION boocoder._candidate(integer, bigint, bigint[], bigint[], boolean) IS 'the pending task that is to run next, its row locked';

-- A client was at the same rows a moment ago; what clashes again is not a client.
CREATE FUNCTION boocoder._clashes_again(task bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	before text := coalesce(current_setting('boocoder_dispatcher.clashed', true), '');
BEGIN
	IF strpos(before, ' ' || task || ' ') > 0 THEN
		RETURN true;
	END IF;
	PERFORM set_config('boocoder_dispatcher.clashed', right(before, 1000) || ' ' || task || ' ', false);
	RETURN false;
END
$$;
COMMENT ON FUNCTION boocoder._clashes_again(bigint) IS 'has the claim of this task failed on a unique index before?';
