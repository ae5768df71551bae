-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
-- Which agents are kept: the truth table.
SELECT agent, session, chat, creator, boocoder.use_warm_backend(agent, session, chat, creator)
  FROM unnest(ARRAY['speaker', 'shell', 'nobody']) agent,
	   unnest(ARRAY[1, NULL]::bigint[]) session, unnest(ARRAY[1, NULL]::bigint[]) chat,
	   unnest(ARRAY['api', 'chat', 'skill', 'arena', 'mcp', 'new_task', 'native']) creator
 WHERE boocoder.use_warm_backend(agent, session, chat, creator)
 ORDER BY 1, 4;
SELECT count(*) AS not_kept
  FROM unnest(ARRAY['speaker', 'shell', 'nobody']) agent,
	   unnest(ARRAY[1, NULL]::bigint[]) session, unnest(ARRAY[1, NULL]::bigint[]) chat,
	   unnest(ARRAY['api', 'chat', 'skill', 'arena', 'mcp', 'new_task', 'native']) creator
 WHERE NOT boocoder.use_warm_backend(agent, session, chat, creator);

-- Turns of one chat share a backend; the row says what it is doing.
INSERT INTO boocoder.sessions (project_id) VALUES (1), (1);
INSERT INTO boocoder.chats (session_id) VALUES (1), (1), (2);
CREATE FUNCTION pg_temp.enqueue(chat bigint, what text DEFAULT 'go', who text DEFAULT 'speaker', creator text DEFAULT 'chat') RETURNS bigint LANGUAGE sql AS $$
	INSERT INTO boocoder.tasks (project_id, session_id, chat_id, agent, input, creator)
	SELECT 1, c.session_id, c.id, who, what, creator FROM boocoder.chats c WHERE c.id = chat RETURNING id
$$;
CREATE FUNCTION pg_temp.take() RETURNS TABLE (kind text, task_id bigint, backend bigint, warm text, resume text) LANGUAGE sql AS $$
	SELECT n.kind, n.task_id, n.backend, n.agent ->> 'warm', n.agent #>> '{resume,session_id}'
	  FROM boocoder._next_actions(1, 0, false) n
$$;
CREATE FUNCTION pg_temp.finish(task bigint, result jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT boocoder._settle(task, pg_temp.fence(task), '{"ok": true, "outcome": "completed"}'::jsonb || result, '{"ok": true, "changes": []}')
$$;
CREATE VIEW pg_temp.seen AS
	SELECT b.id, b.chat_id, b.agent, b.task_id, b.state, b.turns, s.status, s.agent_session_id
	  FROM boocoder.backends b LEFT JOIN boocoder.agent_sessions s USING (chat_id, agent) ORDER BY b.id;
GRANT SELECT ON pg_temp.seen TO PUBLIC;
SELECT pg_temp.enqueue(1);
SET ROLE boocoder_worker;
SELECT boocoder._start(0);
-- a worktree has to be made first: the order comes when it is there
SELECT * FROM pg_temp.take();
SELECT agent ->> 'warm' AS warm, agent -> 'resume' AS resume
  FROM boocoder._prepared(1, pg_temp.fence(1), '{"ok": true, "created": true, "base_commit": "b0", "git_dir": "/srv/alpha/.git", "admin_dir": "/a"}');
SELECT boocoder._backend_started(1, 4711);
SELECT * FROM pg_temp.seen;
SELECT pg_temp.finish(1, '{"warm": true, "agent_session_id": "S1"}');
SELECT * FROM pg_temp.seen;
SELECT pid FROM boocoder.agent_sessions;
RESET ROLE;
SELECT pg_temp.enqueue(1);
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.take();
SELECT * FROM pg_temp.seen;
-- not kept: the row goes, the session stays
SELECT pg_temp.finish(2, '{"agent_session_id": "S1", "outcome": "failed", "reason": "inactivity_timeout"}');
SELECT * FROM pg_temp.seen;
SELECT status, agent_session_id, pid FROM boocoder.agent_sessions;
RESET ROLE;
SELECT pg_temp.enqueue(1);
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.take();
SELECT pg_temp.finish(3, '{"warm": true, "agent_session_id": "S1"}');
-- it dies while it waits
SELECT boocoder._backend_ended(2);
SELECT status, agent_session_id FROM boocoder.agent_sessions;
-- another configuration: the one that waits ends, another one begins
RESET ROLE;
SELECT pg_temp.enqueue(1);
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.take();
SELECT pg_temp.finish(4, '{"warm": true, "agent_session_id": "S1"}');
RESET ROLE;
UPDATE boocoder.providers SET env = '{"A": "b"}' WHERE name = 'speaker';
SELECT pg_temp.enqueue(1);
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.take();
SELECT * FROM pg_temp.seen;
SELECT boocoder._backend_ended(3);
SELECT pg_temp.finish(5, '{"warm": true, "agent_session_id": "S1"}');
-- those who ask once; a chat's other agent; another chat
RESET ROLE;
SELECT pg_temp.enqueue(1, creator => 'arena');
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.take();
SELECT pg_temp.finish(6, '{"agent_session_id": "S2"}');
SELECT * FROM pg_temp.seen;
RESET ROLE;
SELECT pg_temp.enqueue(2);
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.take();
SELECT pg_temp.finish(7, '{"warm": true, "agent_session_id": "S3"}');
SELECT * FROM pg_temp.seen;
-- the dispatcher is gone
SELECT boocoder._start(0);
SELECT * FROM pg_temp.seen;
SELECT chat_id, status, agent_session_id FROM boocoder.agent_sessions ORDER BY 1;

-- Evictions.  Minutes since the last turn; TTL 30 min, cap 3 unless told.
RESET ROLE;
CREATE FUNCTION pg_temp.evicted(fleet text, ttl interval DEFAULT '30 min', cap integer DEFAULT 3) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	DELETE FROM boocoder.backends;
	INSERT INTO boocoder.backends (chat_id, agent, worktree_id, state, config_hash, last_active_at)
	SELECT coalesce(nullif(f[4], '')::bigint, 1), f[1], 1, f[2], '', '2026-01-01 12:00'::timestamptz - make_interval(mins => f[3]::integer)
	  FROM string_to_table(fleet, ' ') one, regexp_match(one, '^(\w+):(\w+):(\d+):?(\d*)$') f;
	SELECT string_agg(b.agent || ':' || e.reason, ' ' ORDER BY b.id) INTO result
	  FROM boocoder._evictions('2026-01-01 12:00', ttl, cap) e JOIN boocoder.backends b ON b.id = e.backend;
	RETURN coalesce(result, '-');
END
$$;
INSERT INTO boocoder.providers (name, label, transport, command) SELECT x, x, 'acp', '{x}' FROM string_to_table('a b c d e', ' ') x;
UPDATE boocoder.worktrees SET status = 'active' WHERE id = 1;
SELECT fleet, pg_temp.evicted(fleet) FROM (VALUES
	('a:idle:1'), ('a:idle:29 b:idle:30'), ('a:busy:99'),
	('a:idle:1 b:idle:2 c:idle:3 d:idle:4'),			-- the least recent one
	('a:idle:1 b:idle:2 c:busy:50 d:idle:4'),			-- one at work counts, and stays
	('a:busy:1 b:busy:2 c:busy:50 d:busy:4'),			-- all at work: over the cap
	('a:busy:1 b:busy:2 c:busy:50 d:idle:0'),			-- they leave no room
	('a:idle:40 b:idle:2 c:idle:3 d:idle:4'),			-- one is too old, so there is room
	('a:ending:40 b:idle:2 c:idle:3 d:idle:4')			-- on its way out already
) x (fleet);
SELECT pg_temp.evicted('a:idle:1 b:busy:1', cap => 0) AS none_kept, pg_temp.evicted('a:idle:0', ttl => '0') AS at_once;
SELECT pg_temp.evicted('a:idle:1:99 b:busy:1:99') AS chat_is_gone;
UPDATE boocoder.providers SET enabled = false WHERE name = 'a';
SELECT pg_temp.evicted('a:idle:1 b:idle:1 gone:idle:1') AS provider_disabled;
UPDATE boocoder.chats SET closed_at = now() WHERE id = 2;
SELECT pg_temp.evicted('b:idle:1:1 c:idle:1:2') AS chat_closed;
UPDATE boocoder.worktrees SET status = 'removing' WHERE id = 1;
SELECT pg_temp.evicted('b:idle:1 c:busy:1') AS worktree_to_be_removed;
UPDATE boocoder.worktrees SET status = 'active' WHERE id = 1;

-- The decision is carried out once; the row stays until the process is gone.
SELECT pg_temp.evicted('b:idle:40');
SET ROLE boocoder_worker;
SELECT kind, backend IS NOT NULL AS backend FROM boocoder._next_actions(0, 0) WHERE kind = 'evict';
SELECT state FROM boocoder.backends;
SELECT kind FROM boocoder._next_actions(0, 0) WHERE kind = 'evict';
SELECT boocoder._backend_ended(id) IS NOT NULL AS reported FROM boocoder.backends;
SELECT count(*) FROM boocoder.backends;
-- the first one that will have waited for too long says when to look again
RESET ROLE;
SELECT pg_temp.evicted('b:busy:1');
UPDATE boocoder.backends SET state = 'idle', last_active_at = now() - interval '29 min';
SET ROLE boocoder_worker;
SELECT kind, delay_ms BETWEEN 55000 AND 60000 AS in_a_minute FROM boocoder._next_actions(0, 0);

-- Rows are for those who see the chat.
RESET ROLE;
SET ROLE regress_alice;
SELECT count(*) AS alice FROM boocoder.backends;
SET ROLE regress_bob;
SELECT count(*) AS bob FROM boocoder.backends;
SELECT pg_temp.attempt('DELETE FROM boocoder.backends') AS bob_ends_one;
RESET ROLE;
