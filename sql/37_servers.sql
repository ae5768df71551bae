-- SPDX-License-Identifier: PostgreSQL
-- Servers: agents of which one program serves many chats.  Who shares one, and when it is started again, is decided
-- here; the dispatcher carries it out.

CREATE TABLE boocoder.servers (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	key text NOT NULL,
	provider text NOT NULL,
	project_id bigint NOT NULL,
	folder text NOT NULL,
	config_hash text NOT NULL,
	state text NOT NULL DEFAULT 'starting' CHECK (state IN ('starting', 'ready', 'exited', 'failed', 'ending')),
	url text,
	pid integer,
	pid_started bigint,
	version text,
	failures integer NOT NULL DEFAULT 0,
	unhealthy_since timestamptz,
	looked_at timestamptz,
	answer_ms integer,
	problem text,
	restarts integer NOT NULL DEFAULT 0,
	started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	ready_at timestamptz,
	last_used_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX servers_live ON boocoder.servers (key) WHERE state <> 'ending';
COMMENT ON TABLE boocoder.servers IS 'agents that serve many chats, one process each; no foreign keys: a row is there until its process has ended';
COMMENT ON COLUMN boocoder.servers.key IS 'who shares it: one provider, one folder of worktrees';
COMMENT ON COLUMN boocoder.servers.folder IS 'what its sandbox lets it write: the worktrees of one owner''s sessions in one project';
COMMENT ON COLUMN boocoder.servers.config_hash IS 'what it was started with';
COMMENT ON COLUMN boocoder.servers.url IS 'where it listens, on loopback; the password is nowhere but in its runner, the dispatcher and its chats';
COMMENT ON COLUMN boocoder.servers.pid_started IS 'when its process began, in clock ticks since the system did: with pid, that process and no other';
COMMENT ON COLUMN boocoder.servers.failures IS 'looks in a row at which it was not healthy';
COMMENT ON COLUMN boocoder.servers.unhealthy_since IS 'since when those are too many; NULL: they are not';

CREATE FUNCTION boocoder._server_folder(worktree_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN coalesce(substring(worktree_path FROM '^(.*/worktrees/p[0-9]+-[0-9a-f]{8})/[^/]+$'), worktree_path);
END
$$;
COMMENT ON FUNCTION boocoder._server_folder(text) IS
	'the folder that a worktree shares with others of its owner and project; one made before there were such folders stands alone';

-- The truth about one server.  Its own end asks for a start at once; anything else for patience.
CREATE FUNCTION boocoder._server_decision(state text, failures integer, busy boolean, unhealthy_since timestamptz, at timestamptz,
	max_failures integer, stale_grace interval) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF state = 'exited' THEN
		RETURN 'restart';
	ELSIF state <> 'ready' OR failures < max_failures OR unhealthy_since IS NULL THEN
		RETURN 'keep';
	ELSIF NOT busy THEN
		RETURN 'restart';
	ELSIF unhealthy_since + stale_grace <= at THEN
		RETURN 'restart_forced';
	END IF;
	RETURN 'keep';
END
$$;
COMMENT ON FUNCTION boocoder._server_decision(text, integer, boolean, timestamptz, timestamptz, integer, interval) IS
	'keep, restart, or restart_forced: a server that was unhealthy too often in a row is started again, but not while a turn runs, unless that lasts for too long';

CREATE FUNCTION boocoder._server_busy(server bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.server_id = server AND b.state = 'busy');
END
$$;
COMMENT ON FUNCTION boocoder._server_busy(bigint) IS 'does a chat on this server have a turn?';

CREATE FUNCTION boocoder._server_order(v boocoder.providers, w boocoder.worktrees, argv text[], host jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	folder text := boocoder._server_folder(w.path);
BEGIN
	RETURN jsonb_build_object(
		'role', 'server', 'provider', v.name, 'agent_kind', v.kind, 'command', to_jsonb(argv), 'env', v.env,
		'cwd', folder, 'git_dir', w.git_dir,
		'sandbox', boocoder._sandbox(v, boocoder._root(w.path), regexp_replace(folder, '^.*/', '') || '-' || v.name, host),
		'limits', (host -> 'limits') || jsonb_build_object('health_interval_ms', host #> '{server,health_interval_ms}',
			'health_timeout_ms', host #> '{server,health_timeout_ms}'));
END
$$;
COMMENT ON FUNCTION boocoder._server_order(boocoder.providers, boocoder.worktrees, text[], jsonb) IS 'the order of a server for the chats of a folder of worktrees';

-- Like _take_backend(): the one there is if it was started as it would be now, otherwise another one.
CREATE FUNCTION boocoder._take_server(backend bigint, v boocoder.providers, w boocoder.worktrees, argv text[], prefix text[], host jsonb,
	OUT server bigint, OUT start_order jsonb, OUT ends bigint) RETURNS record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted text := v.name || ' ' || boocoder._server_folder(w.path);
	hash text := md5(concat_ws(E'\x01', v.kind, v.transport, argv, v.env, prefix, v.persistent_home, w.git_dir,
		host -> 'sandbox', host ->> 'agent_home'));
	s boocoder.servers;
BEGIN
	SELECT * INTO s FROM boocoder.servers x WHERE x.key = wanted AND x.state <> 'ending';
	IF s.state IN ('starting', 'ready', 'exited') AND s.config_hash = hash THEN
		UPDATE boocoder.servers x SET last_used_at = clock_timestamp() WHERE x.id = s.id RETURNING x.id INTO server;
	ELSE
		UPDATE boocoder.servers x SET state = 'ending' WHERE x.id = s.id RETURNING x.id INTO ends;
		INSERT INTO boocoder.servers (key, provider, project_id, folder, config_hash)
		VALUES (wanted, v.name, w.project_id, boocoder._server_folder(w.path), hash) RETURNING id INTO server;
		start_order := boocoder._server_order(v, w, argv, host);
	END IF;
	UPDATE boocoder.backends b SET server_id = server WHERE b.id = backend;
END
$$;
COMMENT ON FUNCTION boocoder._take_server(bigint, boocoder.providers, boocoder.worktrees, text[], text[], jsonb) IS
	'the server for a chat, noted with its backend (NULL: none is kept); its order if it is to be started, and one that is to end before';

-- What its runner told of it (a SERVER message), and what is to be done.  The dispatcher keeps the order: starting
-- again is starting the same.
CREATE FUNCTION boocoder._server_told(server bigint, message jsonb) RETURNS text
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
COMMENT ON FUNCTION boocoder._server_told(bigint, jsonb) IS
	'records how a server is; keep, ready (with this address), restart (the same order again), restart_forced (though turns run on it), give_up (and, behind a blank, what its chats are told: reason and message), or end';

CREATE FUNCTION boocoder._idle_servers(at timestamptz, idle_ttl interval) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN QUERY
	SELECT s.id FROM boocoder.servers s
	 WHERE s.state <> 'ending' AND s.last_used_at + idle_ttl <= at
	   AND NOT EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.server_id = s.id);
END
$$;
COMMENT ON FUNCTION boocoder._idle_servers(timestamptz, interval) IS 'servers that no chat has been on for so long, and that are to end';

CREATE FUNCTION boocoder._end_servers(host jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.servers s SET state = 'ending'
	 WHERE s.id IN (SELECT boocoder._idle_servers(now(), make_interval(secs => (host ->> 'idle_ttl_ms')::bigint / 1000.0)));
	-- those again of which the dispatcher has not said that they are gone
	RETURN QUERY SELECT s.id FROM boocoder.servers s WHERE s.state = 'ending';
END
$$;
COMMENT ON FUNCTION boocoder._end_servers(jsonb) IS 'marks the servers that are to end; all that are marked';

CREATE FUNCTION boocoder._server_ended(server bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.servers s WHERE s.id = server;
	RETURN server;
END
$$;
COMMENT ON FUNCTION boocoder._server_ended(bigint) IS 'the process of a server is gone, and is not started again';

CREATE FUNCTION boocoder._forget_servers() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.servers;
END
$$;
COMMENT ON FUNCTION boocoder._forget_servers() IS 'at the start of a dispatcher: no server outlives the one that started it';
