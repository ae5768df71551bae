-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
-- One task of each tenant, with everything that can hang on it.
SET ROLE regress_alice;
SELECT boocoder.run('secret of alice', 'alpha') AS alice;
SET ROLE regress_bob;
SELECT boocoder.run('secret of bob', 'beta') AS bob;
SELECT boocoder.run('for all', 'common') AS common;
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.claim(3);
SELECT pg_temp.prepare(t) FROM generate_series(1, 3) t;
SELECT boocoder._append(ARRAY[t], ARRAY[pg_temp.fence(t)], ARRAY['{"events": [{"kind": "text", "payload": {"delta": "x"}},
	{"kind": "permission_request", "payload": {"request": "1"}}, {"kind": "command", "payload": {"commands": [{"name": "init"}]}}],
	"parts": [{"seq": 1, "kind": "text", "payload": {"text": "x"}}, {"seq": 2, "kind": "tool_call", "payload": {"id": "1"}}]}'::jsonb]) FROM generate_series(1, 3) t;
SELECT pg_temp.settle(t, jsonb_build_array(pg_temp.change('file')),
	'{"outcome": "failed", "reason": "exit_nonzero", "usage": {"input_tokens": 10, "output_tokens": 5}}') FROM generate_series(1, 3) t;
RESET ROLE;
INSERT INTO boocoder.permission_rules (task_id, answer) SELECT t, 'ask' FROM generate_series(1, 3) t;
UPDATE boocoder.pending_changes SET status = 'applying';
SET ROLE boocoder_worker;
SELECT kind FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(j, '{"ok": false, "reason": "conflict", "message": "no"}') FROM generate_series(1, 3) j;
RESET ROLE;

-- What each of them sees: relation by relation.
CREATE TABLE pg_temp.seen (who text, relation text, n bigint);
GRANT ALL ON pg_temp.seen TO PUBLIC;
CREATE FUNCTION pg_temp.look() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	relation text;
	n bigint;
BEGIN
	FOR relation IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relkind IN ('r', 'v')
			AND c.relname NOT IN ('status', 'task_transitions', 'providers', 'available_agents', 'home') LOOP
		EXECUTE format('SELECT count(*) FROM boocoder.%I', relation) INTO n;
		INSERT INTO pg_temp.seen VALUES (current_user, relation, n);
	END LOOP;
END $$;
SELECT pg_temp.look();
SET ROLE regress_alice;
SELECT pg_temp.look();
SET ROLE regress_bob;
SELECT pg_temp.look();
SET ROLE regress_viewer;
SELECT pg_temp.look();
SET ROLE regress_admin;
SELECT pg_temp.look();
RESET ROLE;
SELECT relation, max(n) FILTER (WHERE who = 'regress_alice') AS alice, max(n) FILTER (WHERE who = 'regress_bob') AS bob,
	   max(n) FILTER (WHERE who = 'regress_viewer') AS viewer, max(n) FILTER (WHERE who = 'regress_admin') AS admin,
	   max(n) FILTER (WHERE who NOT LIKE 'regress%') AS "all"
  FROM pg_temp.seen GROUP BY relation ORDER BY relation COLLATE "C";
-- Somebody without a role sees nothing.
SET ROLE regress_nobody;
SELECT pg_temp.attempt('SELECT 1 FROM boocoder.' || r) FROM unnest('{tasks,providers,inbox,status}'::text[]) r;
SELECT pg_temp.attempt('SELECT boocoder.ls()');

-- Function by function: bob and the task of alice.
SET ROLE regress_bob;
SELECT id, project, input FROM boocoder.ls();
SELECT q, pg_temp.attempt(q) FROM unnest(ARRAY[
	'SELECT boocoder.task_detail(1)', 'SELECT boocoder.wait(1, ''1 s'')', 'SELECT boocoder.send(1, ''x'')',
	'SELECT boocoder.cancel(1)', 'SELECT boocoder.retry(1)', 'SELECT boocoder.inbox_retry(1)',
	'SELECT boocoder.diff(1)', 'SELECT boocoder.apply(1)', 'SELECT boocoder.reject(1)',
	'SELECT boocoder.apply_changes(''{1}'')', 'SELECT boocoder.reject_changes(''{1}'')',
	'SELECT boocoder.run(''x'', ''alpha'')', 'SELECT boocoder.run(''x'', ''beta'', session => 1)',
	'SELECT boocoder.run(''x'', ''beta'', chat => 1)',
	'SELECT boocoder.answer_permission(1, ''allow'')', 'SELECT boocoder.answer_elicitation(1, NULL)',
	'SELECT boocoder.set_mode(1, ''shell'', ''plan'')', 'SELECT boocoder.add_permission_rule(''allow'', task => 1)',
	'SELECT boocoder.add_permission_rule(''allow'', project => ''alpha'')', 'SELECT boocoder.add_permission_rule(''allow'', project => ''beta'')',
	'CALL boocoder.attach(1)']) q;
SELECT count(*) FROM boocoder.events_since(1);
SELECT count(*) FROM boocoder.list_pending(1);
SELECT key, tasks, input_tokens FROM boocoder.cost_stats();
SELECT task_id, project FROM boocoder.inbox ORDER BY 1;
SELECT pending, running FROM boocoder.status;

-- Plain SQL.
SELECT q, pg_temp.attempt(q) FROM unnest(ARRAY[
	'INSERT INTO boocoder.tasks (project_id, input) VALUES (1, ''x'')',
	'INSERT INTO boocoder.tasks (project_id, input) VALUES (99, ''x'')',
	'INSERT INTO boocoder.tasks (project_id, input) VALUES (4, ''x'')',
	'INSERT INTO boocoder.tasks (project_id, session_id, input) VALUES (2, 1, ''x'')',
	'INSERT INTO boocoder.tasks (project_id, input, state) VALUES (2, ''x'', ''completed'')',
	'INSERT INTO boocoder.tasks (project_id, input, submitted_by) VALUES (2, ''x'', ''regress_alice'')',
	'INSERT INTO boocoder.tasks (project_id, input, fence) VALUES (2, ''x'', 1)',
	'UPDATE boocoder.tasks SET submitted_by = current_user',
	'UPDATE boocoder.tasks SET input = ''rm''', 'DELETE FROM boocoder.tasks', 'TRUNCATE boocoder.tasks',
	'INSERT INTO boocoder.sessions (project_id) VALUES (1)', 'INSERT INTO boocoder.chats (session_id) VALUES (1)',
	'INSERT INTO boocoder.sessions (project_id, owner) VALUES (2, ''regress_alice'')',
	'INSERT INTO boocoder.events (task_id, kind, payload) VALUES (2, ''text'', ''{}'')',
	'UPDATE boocoder.events SET payload = ''{}''', 'DELETE FROM boocoder.events',
	'INSERT INTO boocoder.usage_events (agent) VALUES (''x'')', 'UPDATE boocoder.usage_events SET cost_usd = 0',
	'UPDATE boocoder.pending_changes SET diff = ''evil''', 'UPDATE boocoder.worktrees SET path = ''/etc''',
	'INSERT INTO boocoder.jobs (kind, project_id) VALUES (''remove'', 2)',
	'INSERT INTO boocoder.projects (name, path) VALUES (''x'', ''/'')', 'UPDATE boocoder.projects SET setup = ''{reboot}''',
	'INSERT INTO boocoder.providers (name, label, transport) VALUES (''x'', ''x'', ''command'')',
	'UPDATE boocoder.providers SET command = ''{sh}''', 'UPDATE boocoder.task_transitions SET worker_only = false',
	'SELECT env FROM boocoder.providers', 'SELECT * FROM boocoder.providers', 'SELECT p FROM boocoder.providers p',
	'SELECT name, command FROM boocoder.providers',
	'SELECT boocoder.launch_spec(''shell'')', 'SELECT boocoder._host()', 'SELECT boocoder._inspect(''/'')',
	'SELECT boocoder.add_project(''x'', ''/'')', 'SELECT boocoder.archive_project(''beta'')',
	'SELECT boocoder.register_provider(''x'', ''command'', ''{sh}'')', 'SELECT boocoder.remove_provider(''shell'')',
	'SELECT boocoder._next_actions(1, 1)', 'SELECT boocoder._start(1)', 'SELECT boocoder._settle(2, 1, ''{}'', NULL)',
	'SELECT boocoder._append(''{}'', ''{}'', ''{}'')', 'SELECT nextval(''boocoder.fence_seq'')',
	'LOCK boocoder.tasks IN EXCLUSIVE MODE', 'CREATE TABLE boocoder.mine ()',
	'CREATE TRIGGER t AFTER INSERT ON boocoder.tasks EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()']) q;
-- An UPDATE does not reach what one does not see.
UPDATE boocoder.tasks SET priority = 9 WHERE id = 1;
UPDATE boocoder.pending_changes SET status = 'rejected' WHERE task_id = 1;
SELECT boocoder.close_session(1), boocoder.remove_worktree(1, true);
-- A viewer looks.
SET ROLE regress_viewer;
SELECT q, pg_temp.attempt(q) FROM unnest(ARRAY['SELECT boocoder.task_detail(3)', 'SELECT boocoder.run(''x'', ''common'')',
	'SELECT boocoder.cancel(3)', 'SELECT boocoder.retry(3)', 'SELECT boocoder.apply(3)',
	'INSERT INTO boocoder.tasks (project_id, input) VALUES (3, ''x'')', 'UPDATE boocoder.tasks SET state = ''pending''']) q;
-- The administrator reads what is secret, and sees all.
SET ROLE regress_admin;
SELECT * FROM boocoder.launch_spec('shell');
SELECT id, project, input FROM boocoder.ls();
-- One's own task stays one's own when the project is shared no longer.
SET ROLE regress_alice;
SELECT boocoder.run('in common', 'common') AS task \gset
RESET ROLE;
UPDATE boocoder.projects SET shared = false WHERE name = 'common';
SET ROLE regress_alice;
SELECT boocoder.cancel(:task);
SELECT pg_temp.attempt('SELECT boocoder.run(''x'', ''common'')');
