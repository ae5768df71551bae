-- SPDX-License-Identifier: PostgreSQL
-- Warm backends: which agents stay for another turn, and how long.  Decided here, carried out by the dispatcher.

CREATE FUNCTION boocoder._asks_once(creator text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN creator IN ('arena', 'mcp', 'new_task');
END
$$;
COMMENT ON FUNCTION boocoder._asks_once(text) IS 'does such a task stand by itself, whatever chat it is in?';

-- What the task named when it was enqueued counts: the first turn of a task by itself is not worth an agent that waits.
CREATE FUNCTION boocoder._warm(v boocoder.providers, session bigint, chat bigint, creator text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN session IS NOT NULL AND chat IS NOT NULL AND v.transport IN ('acp', 'opencode_server')
		AND NOT boocoder._asks_once(creator);
END
$$;
COMMENT ON FUNCTION boocoder._warm(boocoder.providers, bigint, bigint, text) IS
	'does such a task use an agent that stays? Only in a chat, with a transport that can, and not for those who ask once';

CREATE FUNCTION boocoder.use_warm_backend(agent text, session bigint, chat bigint, creator text DEFAULT 'api') RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce((SELECT boocoder._warm(jsonb_populate_record(NULL::boocoder.providers, jsonb_build_object('transport', v.transport)),
										   session, chat, creator)
					   FROM boocoder.providers v WHERE v.name = agent), false)
$$;
COMMENT ON FUNCTION boocoder.use_warm_backend(text, bigint, bigint, text) IS
	'would a task of this agent, session, chat and creator be given to an agent that is kept between turns?';

-- What an agent was started with.  Model and mode are not of it: they are changed within a session.
CREATE FUNCTION boocoder._config_hash(v boocoder.providers, w boocoder.worktrees, argv text[], prefix text[], host jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN md5(concat_ws(E'\x01', v.name, v.kind, v.transport, argv, v.env, prefix, v.persistent_home, w.id, w.path,
		host -> 'sandbox', host ->> 'agent_home'));
END
$$;
COMMENT ON FUNCTION boocoder._config_hash(boocoder.providers, boocoder.worktrees, text[], text[], jsonb) IS
	'a fingerprint of how an agent is started: another one means another process';

-- The one that waits for this chat if it was started as it would be now; otherwise a new one, in whose favour
-- the other one ends.
CREATE FUNCTION boocoder._take_backend(t boocoder.tasks, w boocoder.worktrees, config_hash text,
	OUT backend bigint, OUT ends bigint) RETURNS record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	b boocoder.backends;
BEGIN
	SELECT * INTO b FROM boocoder.backends x WHERE x.chat_id = t.chat_id AND x.agent = t.agent AND x.state <> 'ending';
	IF b.state = 'idle' AND b.config_hash = _take_backend.config_hash THEN
		UPDATE boocoder.backends x SET state = 'busy', task_id = t.id, turns = x.turns + 1, last_active_at = clock_timestamp()
		 WHERE x.id = b.id;
		backend := b.id;
	ELSE
		UPDATE boocoder.backends x SET state = 'ending' WHERE x.id = b.id RETURNING x.id INTO ends;
		INSERT INTO boocoder.backends (chat_id, agent, session_id, worktree_id, task_id, config_hash)
		VALUES (t.chat_id, t.agent, t.session_id, w.id, t.id, config_hash) RETURNING id INTO backend;
	END IF;
	UPDATE boocoder.agent_sessions s SET status = 'active', last_active_at = clock_timestamp()
	 WHERE (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
									 WHERE q.chat_id = t.chat_id AND q.agent = t.agent FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
COMMENT ON FUNCTION boocoder._take_backend(boocoder.tasks, boocoder.worktrees, text) IS
	'the backend for a turn, busy from now on; and one that is to end before';

-- A server's session that crashed, or was begun with another model, mode or provider, is not gone on with.
CREATE FUNCTION boocoder._stale(transport text, status text, old_hash text, new_hash text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF transport <> 'opencode_server' THEN
		RETURN NULL;
	ELSIF status = 'crashed' THEN
		RETURN 'the session has crashed';
	ELSIF old_hash <> new_hash THEN
		RETURN 'model, mode or provider is another one';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION boocoder._stale(text, text, text, text) IS 'why an agent is not to go on with its earlier session; NULL: it is';

CREATE FUNCTION boocoder._continued(agent jsonb, warm boolean, session text, stale text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF session IS NOT NULL THEN
		agent := agent || jsonb_build_object('resume', jsonb_build_object('session_id', session) ||
			CASE WHEN stale IS NOT NULL THEN jsonb_build_object('allowed', false, 'reason', stale) ELSE '{}' END);
	END IF;
	IF warm THEN
		agent := agent || '{"warm": true}';
	END IF;
	RETURN agent;
END
$$;
COMMENT ON FUNCTION boocoder._continued(jsonb, boolean, text, text) IS 'an agent''s order with what goes on: its process, its session';

-- What an attempt leaves of its agent: a session to go on with, and perhaps a process.  After _can_end().
CREATE FUNCTION boocoder._turn_ended(t boocoder.tasks, result jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	b boocoder.backends;
	session text := result ->> 'agent_session_id';
	kept boolean := coalesce((result ->> 'warm')::boolean, false);
BEGIN
	IF t.chat_id IS NULL THEN
		RETURN;
	END IF;
	IF session IS NULL AND result ->> 'reason' IN ('runner_crashed', 'interrupted', 'agent_exited') THEN
		SELECT e.payload ->> 'agent_session_id' INTO session FROM boocoder.events e
		 WHERE e.task_id = t.id AND e.kind = 'status' AND e.payload ? 'agent_session_id' AND e.created_at >= t.started_at
		 ORDER BY e.seq DESC LIMIT 1;
	END IF;
	SELECT * INTO b FROM boocoder.backends x WHERE x.task_id = t.id AND x.state = 'busy';
	IF b.id IS NOT NULL AND kept THEN
		UPDATE boocoder.backends x SET state = 'idle', task_id = NULL, last_active_at = clock_timestamp() WHERE x.id = b.id;
	ELSIF b.id IS NOT NULL THEN
		DELETE FROM boocoder.backends x WHERE x.id = b.id;
	END IF;
	IF session IS NULL AND b.id IS NULL
		AND NOT EXISTS (SELECT 1 FROM boocoder.agent_sessions s WHERE s.chat_id = t.chat_id AND s.agent = t.agent) THEN
		RETURN;
	END IF;
	INSERT INTO boocoder.agent_sessions AS s (chat_id, agent, session_id, worktree_id, agent_session_id, config_hash, pid, status)
	VALUES (t.chat_id, t.agent, t.session_id,
		(SELECT w.id FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL), session, b.config_hash,
		CASE WHEN kept THEN b.pid END,
		CASE WHEN kept AND b.id IS NOT NULL THEN 'idle'
			 WHEN result ->> 'reason' IN ('runner_crashed', 'interrupted', 'agent_exited', 'killed_by_signal', 'protocol_error',
										  'line_too_long', 'inactivity_timeout') THEN 'crashed'
			 ELSE 'closed' END)
	ON CONFLICT ON CONSTRAINT agent_sessions_pkey DO UPDATE
		SET session_id = excluded.session_id, worktree_id = excluded.worktree_id,
			agent_session_id = coalesce(excluded.agent_session_id, s.agent_session_id),
			config_hash = coalesce(excluded.config_hash, s.config_hash), pid = excluded.pid, status = excluded.status,
			last_active_at = now()
		-- a task that stands by itself leaves the chat's session alone
		WHERE s.agent_session_id IS NULL OR NOT boocoder._asks_once(t.creator);
END
$$;
COMMENT ON FUNCTION boocoder._turn_ended(boocoder.tasks, jsonb) IS
	'after a turn: the agent''s session, for the next one to go on with, and whether its process waits for that';

-- Only those that wait are ever ended.
CREATE FUNCTION boocoder._evictions(at timestamptz, idle_ttl interval, max_warm integer) RETURNS TABLE (backend bigint, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN QUERY
	WITH judged AS (
		SELECT b.id, b.state, b.last_active_at,
			   CASE WHEN b.state <> 'idle' THEN NULL
					WHEN c.id IS NULL OR c.closed_at IS NOT NULL OR s.closed_at IS NOT NULL THEN 'closed'
					WHEN w.id IS NULL OR w.deleted_at IS NOT NULL OR w.status <> 'active' THEN 'worktree'
					WHEN v.name IS NULL OR NOT v.enabled THEN 'provider'
					WHEN b.last_active_at + idle_ttl <= at THEN 'idle' END AS why
		  FROM boocoder.backends b
		  LEFT JOIN boocoder.chats c ON c.id = b.chat_id
		  LEFT JOIN boocoder.sessions s ON s.id = c.session_id
		  LEFT JOIN boocoder.worktrees w ON w.id = b.worktree_id
		  LEFT JOIN boocoder.providers v ON v.name = b.agent
		 WHERE b.state <> 'ending'
	), ranked AS (
		-- Those at work count, but can't make room.
		SELECT j.*, row_number() OVER (ORDER BY j.state = 'busy' DESC, j.last_active_at DESC, j.id DESC) AS place
		  FROM judged j WHERE j.why IS NULL
	)
	SELECT j.id, j.why FROM judged j WHERE j.why IS NOT NULL
	UNION ALL
	SELECT r.id, 'cap' FROM ranked r WHERE r.state = 'idle' AND r.place > max_warm;
END
$$;
COMMENT ON FUNCTION boocoder._evictions(timestamptz, interval, integer) IS
	'the backends that are to end, and why: closed, worktree, provider, idle for too long, or too many (the least recently used)';

CREATE FUNCTION boocoder._evict(host jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	e record;
BEGIN
	FOR e IN
		SELECT x.backend, x.reason, b.chat_id, b.agent
		  FROM boocoder._evictions(now(), make_interval(secs => (host ->> 'idle_ttl_ms')::bigint / 1000.0), (host ->> 'max_warm')::integer) x
		  JOIN boocoder.backends b ON b.id = x.backend
	LOOP
		UPDATE boocoder.backends b SET state = 'ending' WHERE b.id = e.backend;
		UPDATE boocoder.agent_sessions s SET status = CASE WHEN e.reason IN ('idle', 'cap') THEN 'evicted' ELSE 'closed' END, pid = NULL
		 WHERE (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
										 WHERE q.chat_id = e.chat_id AND q.agent = e.agent FOR NO KEY UPDATE SKIP LOCKED);
	END LOOP;
	-- those again of which the dispatcher has not said that they are gone
	RETURN QUERY SELECT b.id FROM boocoder.backends b WHERE b.state = 'ending';
END
$$;
COMMENT ON FUNCTION boocoder._evict(jsonb) IS 'marks the backends that are to end; all that are marked';

CREATE FUNCTION boocoder._backend_started(backend bigint, pid integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.backends b SET pid = _backend_started.pid WHERE b.id = backend;
	RETURN backend;
END
$$;
COMMENT ON FUNCTION boocoder._backend_started(bigint, integer) IS 'the process of a backend';

CREATE FUNCTION boocoder._backend_ended(backend bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	b boocoder.backends;
BEGIN
	DELETE FROM boocoder.backends x WHERE x.id = backend RETURNING * INTO b;
	UPDATE boocoder.agent_sessions s SET status = 'crashed', pid = NULL
	 WHERE b.state = 'idle'
	   AND (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
									 WHERE q.chat_id = b.chat_id AND q.agent = b.agent AND q.status = 'idle' FOR NO KEY UPDATE SKIP LOCKED);
	RETURN backend;
END
$$;
COMMENT ON FUNCTION boocoder._backend_ended(bigint) IS 'the process of a backend is gone: by itself, unless it was to end';

-- At the start of a dispatcher: no process of an earlier one is left.
CREATE FUNCTION boocoder._forget_backends() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.backends;
	UPDATE boocoder.agent_sessions s SET status = 'crashed', pid = NULL
	 WHERE (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
									 WHERE q.status IN ('active', 'idle') FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
COMMENT ON FUNCTION boocoder._forget_backends() IS 'no backend outlives its dispatcher: those that were warm have crashed';
