-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
SET ROLE regress_alice;
-- By priority, then age; a plain INSERT and run() alike.
INSERT INTO boocoder.tasks (project_id, input, priority) VALUES (1, 'one', 0), (1, 'two', 5), (1, 'three', 0);
SELECT boocoder.run('four', 'alpha', priority => 5);
SELECT boocoder.run(input => 'five', project => 'alpha', agent => 'shell', model => 'm', mode => 'plan', priority => -1,
	timeout => '90 s', max_attempts => 3);
-- Not before their time, and one whose time has come.
SELECT boocoder.run('later', 'alpha', priority => 900, run_at => now() + interval '1 hour');
SELECT boocoder.run('due', 'alpha', priority => 3, run_at => now() - interval '1 hour');
SET ROLE boocoder_worker;
SELECT boocoder._start(0);
-- without a free slot nothing is claimed; delay_ms tells when the next one is due
SELECT kind, delay_ms BETWEEN 3590000 AND 3600000 AS in_an_hour FROM boocoder._next_actions(0, 0);
SELECT * FROM pg_temp.claim(2);
SELECT * FROM pg_temp.claim(1);
SELECT * FROM pg_temp.claim(9);
SELECT * FROM pg_temp.claim(9);
SELECT id, state, agent, model, session_id, chat_id, attempt, fence IS NOT NULL AS fenced FROM boocoder.tasks ORDER BY id;
SELECT m.chat_id, m.task_id, m.role, m.status, p.kind, p.payload FROM boocoder.messages m
  LEFT JOIN boocoder.message_parts p ON p.message_id = m.id WHERE m.task_id = 5 ORDER BY m.id;
SELECT id, session_id, status, branch, path LIKE '%/s' || session_id AS path FROM boocoder.worktrees ORDER BY id LIMIT 2;

-- The orders.
RESET ROLE;
CREATE TABLE pg_temp.orders AS SELECT o.* FROM boocoder.tasks t, boocoder.projects p, boocoder.worktrees w, boocoder.providers v,
	boocoder._orders(t, p, w, v, boocoder._argv(v, NULL), t.mode, boocoder._host()) o
 WHERE t.id = 5 AND p.id = t.project_id AND w.session_id = t.session_id AND w.deleted_at IS NULL AND v.name = t.agent;
SELECT jsonb_pretty(worktree - 'root' - 'forbidden' #- '{worktree,path}') FROM pg_temp.orders;
SELECT jsonb_pretty(agent - 'cwd' - 'sandbox') FROM pg_temp.orders;
SELECT jsonb_pretty(diff #- '{worktree,path}') FROM pg_temp.orders;
SELECT agent ->> 'cwd' = worktree -> 'worktree' ->> 'path' AS same_place,
	   starts_with(agent ->> 'cwd', worktree ->> 'root') AS below_root,
	   worktree -> 'forbidden' ? current_setting('data_directory') AS data_forbidden,
	   agent -> 'sandbox' -> 'hide' ? current_setting('data_directory') AS data_hidden,
	   (agent -> 'sandbox' ->> 'home') <> (agent ->> 'cwd') AS own_home FROM pg_temp.orders;

-- One running task of a session; the others of the session wait, others pass them.
SELECT pg_temp.settle(id) FROM boocoder.tasks WHERE state = 'running' ORDER BY id;
SET ROLE regress_alice;
SELECT boocoder.send(1, 'follow-up'), boocoder.send(1, 'another'), boocoder.run('elsewhere', 'alpha', priority => -9);
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.claim(9);
SELECT * FROM pg_temp.claim(9);
SELECT pg_temp.settle(8);
SELECT * FROM pg_temp.claim(9);
SELECT id, session_id, chat_id, creator FROM boocoder.tasks WHERE id >= 8 ORDER BY id;
SELECT pg_temp.settle(9), pg_temp.settle(10);
RESET ROLE;
INSERT INTO boocoder.tasks (project_id, session_id, input, state) VALUES (1, 1, 'x', 'running');
INSERT INTO boocoder.tasks (project_id, session_id, input, state) VALUES (1, 1, 'x', 'running');
UPDATE boocoder.tasks SET state = 'failed' WHERE id > 10;
DELETE FROM boocoder.tasks WHERE id > 10;

-- The same idempotency key is the same task, for each submitter.
SET ROLE regress_alice;
SELECT boocoder.run('pay', 'common', idempotency_key => 'k') AS first \gset
SELECT boocoder.run('pay again', 'common', idempotency_key => 'k') = :first AS same;
SET ROLE regress_bob;
SELECT count(DISTINCT boocoder.run('pay', 'common', idempotency_key => k)) FROM unnest('{k,k,l}'::text[]) k;
INSERT INTO boocoder.tasks (project_id, input, idempotency_key) VALUES (3, 'x', 'k');
RESET ROLE;
SELECT submitted_by, input, idempotency_key FROM boocoder.tasks WHERE idempotency_key IS NOT NULL ORDER BY 1, 3;
UPDATE boocoder.tasks SET state = 'cancelled' WHERE state = 'pending' AND run_at IS NULL;

-- A task that can't run fails with a reason, and the next one runs.
INSERT INTO boocoder.tasks (project_id, agent, input) VALUES (1, 'nope', 'x'), (1, 'retired', 'x'), (1, 'boocode', 'x'),
	(1, 'empty', 'x'), (4, 'shell', 'x'), (1, 'shell', 'runs');
SET ROLE boocoder_worker;
SELECT kind, ready FROM pg_temp.claim(1);
RESET ROLE;
SELECT agent, project_id, state, failure_reason, error, session_id IS NULL AS no_session FROM boocoder.tasks
 WHERE id > (SELECT max(id) - 6 FROM boocoder.tasks) ORDER BY id;
-- A broken claim is that task's failure.
CREATE FUNCTION pg_temp.boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'boom %', NEW.title; END $$;
CREATE TRIGGER boom BEFORE INSERT ON boocoder.sessions FOR EACH ROW WHEN (NEW.title = 'bang') EXECUTE FUNCTION pg_temp.boom();
INSERT INTO boocoder.tasks (project_id, input, priority) VALUES (1, 'bang', 1), (1, 'fine', 0);
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim(1);
RESET ROLE;
SELECT input, state, failure_reason, error FROM boocoder.tasks ORDER BY id DESC LIMIT 2;
DROP TRIGGER boom ON boocoder.sessions;

-- What can't be enqueued.
SET ROLE regress_alice;
SELECT q, pg_temp.attempt(q) FROM unnest(ARRAY[
	'SELECT boocoder.run('''', ''alpha'')', 'SELECT boocoder.run(NULL, ''alpha'')', 'SELECT boocoder.run(''x'', ''nowhere'')',
	'SELECT boocoder.run(''x'', NULL)', 'SELECT boocoder.run(''x'', ''old'')',
	'SELECT boocoder.run(repeat(''x'', 1000001), ''alpha'')', 'SELECT boocoder.run(''x'', ''alpha'', priority => 1001)',
	'SELECT boocoder.run(''x'', ''alpha'', timeout => ''0'')', 'SELECT boocoder.run(''x'', ''alpha'', timeout => ''-1 s'')',
	'SELECT boocoder.run(''x'', ''alpha'', max_attempts => 0)', 'SELECT boocoder.run(''x'', ''alpha'', session => 12345)',
	'SELECT boocoder.run(''x'', ''common'', session => 1)', 'SELECT boocoder.run(''x'', ''alpha'', session => 1, chat => 2)',
	'SELECT boocoder.run(''x'', ''alpha'', chat => 12345)',
	'SELECT boocoder.run(''x'', ''alpha'', idempotency_key => '''')',
	'INSERT INTO boocoder.tasks (project_id, chat_id, input) VALUES (1, 1, ''x'')',
	'INSERT INTO boocoder.tasks (project_id, input, creator) VALUES (1, ''x'', ''me'')']) q;
-- a chat is enough to name its session
SELECT boocoder.run('x', 'alpha', chat => 1) AS task \gset
SELECT session_id, chat_id FROM boocoder.tasks WHERE id = :task;
