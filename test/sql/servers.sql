-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
-- What becomes of a server.  20 failures are too many; 2 minutes of grace; minutes since it is unhealthy.
SELECT state, failures, busy, minutes,
	   boocoder._server_decision(state, failures, busy, '2026-01-01 12:00'::timestamptz - make_interval(mins => minutes), '2026-01-01 12:00', 20, '2 min')
  FROM (VALUES
	('ready', 0, false, NULL), ('ready', 0, true, NULL),
	('ready', 19, false, NULL), ('ready', 19, true, NULL),		-- not often enough
	('ready', 20, false, 0), ('ready', 20, true, 0),			-- a turn is not interrupted
	('ready', 24, true, 1), ('ready', 28, true, 2), ('ready', 28, true, 3),		-- unless it lasts for too long
	('ready', 28, false, 3),
	('starting', 0, false, NULL), ('starting', 99, true, 99),	-- its runner has a limit of its own
	('exited', 0, false, NULL), ('exited', 0, true, NULL),		-- at once
	('failed', 0, true, NULL), ('ending', 99, false, 99)) x (state, failures, busy, minutes);

-- A failure more, a failure less: whatever the limit is.
SELECT n AS max_failures, string_agg(boocoder._server_decision('ready', f, false, CASE WHEN f >= n THEN now() END, now(), n, '0'), ' ' ORDER BY f)
  FROM generate_series(1, 3) n, generate_series(0, 4) f GROUP BY n ORDER BY n;

-- Who shares one: sessions of one owner in one project.
SELECT boocoder._worktree_place(1, 'regress_alice', 7) AS alice, boocoder._worktree_place(1, 'regress_bob', 8) AS bob;
SELECT path, boocoder._server_folder(path), boocoder._root(path) FROM (VALUES
	('/r' || boocoder._worktree_place(1, 'regress_alice', 7)), ('/r' || boocoder._worktree_place(1, 'regress_alice', 8)),
	('/r' || boocoder._worktree_place(1, 'regress_bob', 9)), ('/r' || boocoder._worktree_place(2, 'regress_alice', 10)),
	('/r/worktrees/s12'),		-- made before there were folders
	('~/r/worktrees/p1-0123abcd/s1'), ('/r/worktrees/p1/s1')) x (path);

INSERT INTO boocoder.providers (name, label, kind, transport, command, env) VALUES
	('oc', 'oc', 'opencode', 'opencode_server', '{opencode,serve}', '{"A": "b"}'), ('other', 'other', 'opencode', 'opencode_server', '{opencode,serve}', '{}');
SELECT boocoder.use_warm_backend('oc', 1, 1) AS kept;
INSERT INTO boocoder.sessions (project_id, owner) VALUES (1, 'regress_alice'), (1, 'regress_alice'), (1, 'regress_bob'), (2, 'regress_alice');
INSERT INTO boocoder.worktrees (session_id, project_id, path, branch, origin, git_dir)
SELECT s.id, s.project_id, '/r' || boocoder._worktree_place(s.project_id, s.owner, s.id), 'b' || s.id, 'o', '/srv/' || s.project_id || '/.git'
  FROM boocoder.sessions s ORDER BY s.id;
CREATE FUNCTION pg_temp.take(session bigint, agent text DEFAULT 'oc', prefix text[] DEFAULT '{}') RETURNS TABLE (server bigint, starts boolean, ends bigint) LANGUAGE sql AS $$
	SELECT x.server, x.start_order IS NOT NULL, x.ends
	  FROM boocoder.worktrees w, boocoder.providers v, boocoder._take_server(NULL, v, w, v.command, prefix, boocoder._host()) x
	 WHERE w.session_id = session AND v.name = agent
$$;
CREATE FUNCTION pg_temp.told(server bigint, variadic messages text[]) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(boocoder._server_told(server, m::jsonb), ' ' ORDER BY n) FROM unnest(messages) WITH ORDINALITY x (m, n)
$$;
CREATE VIEW pg_temp.seen AS
	SELECT s.id, s.provider, s.state, s.url, s.pid, s.failures, s.unhealthy_since IS NOT NULL AS unhealthy, s.restarts, s.problem FROM boocoder.servers s ORDER BY s.id;
GRANT SELECT ON pg_temp.seen TO PUBLIC;
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.take(1);
SELECT * FROM pg_temp.take(2);
SELECT * FROM pg_temp.take(3);
SELECT * FROM pg_temp.take(4);
SELECT * FROM pg_temp.take(1, 'other');
SELECT * FROM pg_temp.seen;
SELECT o.x - 'limits' - 'sandbox' AS server_order, o.x #> '{limits,health_interval_ms}' AS every, o.x #> '{limits,health_timeout_ms}' AS timeout,
	   o.x #>> '{sandbox,home}' AS home
  FROM boocoder.worktrees w, boocoder.providers v, LATERAL (SELECT boocoder._server_order(v, w, v.command, boocoder._host())) o (x)
 WHERE w.session_id = 1 AND v.name = 'oc';

-- What it tells, and what is to be done.
\set ready '{"state": "ready", "url": "http://127.0.0.1:5", "password": "secret", "pid": 77, "start_time": 123, "version": "1"}'
\set well '{"state": "health", "ok": true, "ms": 3}'
\set ill '{"state": "health", "ok": false, "ms": 5000, "problem": "no answer"}'
\set gone '{"state": "ended", "result": {"exit_code": null, "signal": 9}}'
SELECT pg_temp.told(1, :'ready', :'well', :'ill', :'ill', :'well', :'ill');
SELECT * FROM pg_temp.seen WHERE id = 1;
SELECT count(*) AS secrets FROM boocoder.servers s WHERE s::text LIKE '%secret%';
RESET ROLE;
UPDATE boocoder.servers SET failures = 18 WHERE id = 1;
INSERT INTO boocoder.backends (chat_id, agent, state, config_hash, server_id) VALUES (1, 'oc', 'busy', '', 1);
SET ROLE boocoder_worker;
SELECT pg_temp.told(1, :'ill', :'ill', :'ill');
SELECT * FROM pg_temp.seen WHERE id = 1;
RESET ROLE;
UPDATE boocoder.servers SET unhealthy_since = now() - interval '3 min' WHERE id = 1;
SET ROLE boocoder_worker;
SELECT pg_temp.told(1, :'ill');
SELECT * FROM pg_temp.seen WHERE id = 1;
SELECT pg_temp.told(1, :'ready');
RESET ROLE;
UPDATE boocoder.servers SET failures = 19 WHERE id = 1;
UPDATE boocoder.backends SET state = 'idle';
SET ROLE boocoder_worker;
SELECT pg_temp.told(1, :'ill');
SELECT pg_temp.told(1, :'ready');
RESET ROLE;
UPDATE boocoder.servers SET ready_at = now() - interval '1 min' WHERE id = 1;
SET ROLE boocoder_worker;
-- its end: at once, unless it never was, or has hardly been
SELECT pg_temp.told(1, :'gone');
SELECT * FROM pg_temp.seen WHERE id = 1;
SELECT pg_temp.told(1, :'ready', :'gone');
SELECT * FROM pg_temp.seen WHERE id = 1;
SELECT pg_temp.told(2, '{"state": "ended", "result": {"exit_code": 1, "signal": null}}');
SELECT * FROM pg_temp.seen WHERE id = 2;
-- the next one that needs it tries again
SELECT * FROM pg_temp.take(3);
SELECT pg_temp.told(2, :'ready');
SELECT boocoder._server_ended(2);
SELECT pg_temp.told(2, :'ready');
-- another configuration: another server
SELECT * FROM pg_temp.take(4, prefix => '{sudo}');
SELECT * FROM pg_temp.take(4, prefix => '{sudo}');

-- Those that no chat is on end in time.
RESET ROLE;
UPDATE boocoder.servers SET last_used_at = '2026-01-01 12:00', state = CASE WHEN id = 3 THEN 'ending' ELSE 'ready' END;
SELECT id, minutes FROM generate_series(29, 31) minutes, boocoder._idle_servers('2026-01-01 12:00'::timestamptz + make_interval(mins => minutes), '30 min') id ORDER BY 2, 1;

-- Seen by who sees the project.
SET ROLE regress_alice;
SELECT count(*) FROM boocoder.servers;
SET ROLE regress_nobody;
SELECT pg_temp.attempt('SELECT count(*) FROM boocoder.servers');
SET ROLE boocoder_worker;
SELECT boocoder._forget_servers();
SELECT count(*) FROM boocoder.servers;
