-- SPDX-License-Identifier: PostgreSQL
-- Rights that end, calls that take each other back, and who is told to have decided.
\i test/regress.psql
UPDATE boocoder.providers SET permission_policy = 'ask' WHERE name = 'speaker';
SET ROLE regress_alice;
SELECT boocoder.run('one', 'common'), boocoder.run('two', 'common', agent => 'shell'), boocoder.run('three', 'common', agent => 'shell');
SET ROLE boocoder_worker;
SELECT boocoder._start(0);
SELECT count(*) FROM pg_temp.claim(2);
SELECT pg_temp.prepare(t) FROM generate_series(1, 2) t;
SELECT boocoder._append('{1}', ARRAY[pg_temp.fence(1)],
	ARRAY['{"events": [{"kind": "permission_request", "payload": {"request": "1", "options": [{"optionId": "a", "kind": "allow_once"}]}}]}'::jsonb]) IS NOT NULL AS stored;
SELECT pg_temp.settle(2, jsonb_build_array(pg_temp.change('a')), '{"outcome": "failed", "reason": "exit_nonzero"}');
-- The project is shared no longer: alice sees what she asked for, and may end it, not more.
RESET ROLE;
UPDATE boocoder.projects SET shared = false WHERE name = 'common';
SET ROLE regress_alice;
SELECT id, state FROM boocoder.tasks ORDER BY id;
SELECT count(*) FROM boocoder.pending_changes;
SELECT q, pg_temp.attempt(q) FROM unnest(ARRAY['SELECT boocoder.retry(2)', 'SELECT boocoder.retry(1)',
	'UPDATE boocoder.tasks SET retry_requested = true WHERE id = 1', 'SELECT boocoder.send(2, ''more'')',
	'SELECT boocoder.answer_permission(1, ''a'')', 'SELECT boocoder.add_permission_rule(''allow'', task => 1)',
	'SELECT boocoder.cancel(1)']) q;
SELECT pg_temp.attempt('SELECT boocoder.apply(2)'), pg_temp.attempt('SELECT boocoder.reject_changes(''{1}'')');
SELECT id, status FROM boocoder.pending_changes;
SELECT id, status FROM boocoder.permission_requests;
-- What she had in the queue is not run.
SET ROLE boocoder_worker;
SELECT count(*) FROM pg_temp.claim();
SELECT state, failure_reason, error FROM boocoder.tasks WHERE id = 3;
-- Nor what a role had that is no user any more; one for whom there are no rows to be hidden may.
RESET ROLE;
CREATE ROLE regress_app IN ROLE boocoder_user;
SET ROLE regress_app;
SELECT pg_temp.attempt($$SELECT boocoder.run('x', 'alpha')$$);
RESET ROLE;
ALTER ROLE regress_app BYPASSRLS;
SET ROLE regress_app;
SELECT boocoder.run('x', 'alpha') AS seeing, boocoder.run('y', 'alpha') AS blind \gset
SET ROLE boocoder_worker;
SELECT kind, task_id = :seeing AS seeing FROM pg_temp.claim();
RESET ROLE;
ALTER ROLE regress_app NOBYPASSRLS;
REVOKE boocoder_user FROM regress_app;
SET ROLE boocoder_worker;
SELECT count(*) FROM pg_temp.claim();
SELECT failure_reason FROM boocoder.tasks WHERE id = :blind;
RESET ROLE;
DROP ROLE regress_app;

-- Rules of a task: everybody takes back one's own only.
SET ROLE regress_alice;
SELECT boocoder.run('with rules', 'alpha') AS task \gset
SELECT boocoder.add_permission_rule('allow', task => :task) AS mine \gset
SET ROLE regress_admin;
SELECT boocoder.add_permission_rule('reject', task => :task) AS theirs \gset
SET ROLE regress_alice;
SELECT boocoder.remove_permission_rule(:theirs) AS theirs, boocoder.remove_permission_rule(:mine) AS mine, boocoder.remove_permission_rule(4711) AS nobodys;
SELECT pg_temp.attempt('DELETE FROM boocoder.permission_rules');
SELECT answer, created_by FROM boocoder.permission_rules;
SET ROLE regress_admin;
SELECT boocoder.remove_permission_rule(:theirs);
SELECT count(*) FROM boocoder.permission_rules;

-- Nobody but an administrator can lock a whole table.
SET ROLE regress_alice;
SELECT c.relname, pg_temp.attempt(format('LOCK TABLE boocoder.%I IN ROW EXCLUSIVE MODE', c.relname)) AS locked FROM pg_class c
 WHERE c.relnamespace = 'boocoder'::regnamespace AND c.relkind = 'r'
   AND pg_temp.attempt(format('LOCK TABLE boocoder.%I IN SHARE MODE', c.relname)) = 'ok';

-- A retry that is taken back by a cancel.
SELECT boocoder.cancel(:task);
SELECT boocoder.run('asks', 'alpha') AS task \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.prepare(:task);
UPDATE boocoder.tasks SET state = 'blocked' WHERE id = :task;
SET ROLE regress_alice;
SELECT boocoder.retry(:task) = :task AS retried;
SELECT boocoder.cancel(:task);
SET ROLE boocoder_worker;
SELECT pg_temp.settle(:task, NULL, '{"outcome": "cancelled", "reason": "cancelled"}');
-- A worktree that vanished is made again for the next attempt, but not for a task that is not wanted.
SET ROLE regress_alice;
SELECT boocoder.run('vanishes', 'alpha') AS task \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.prepare(:task);
SET ROLE regress_alice;
SELECT boocoder.cancel(:task);
SET ROLE boocoder_worker;
SELECT pg_temp.settle(:task, NULL, '{"outcome": "failed", "reason": "worktree_missing"}');

-- A closed chat takes no more tasks; one that has some already does not run them.
SET ROLE regress_alice;
SELECT chat_id AS chat FROM boocoder.tasks WHERE id = :task \gset
SELECT boocoder.close_chat(:chat);
SELECT pg_temp.attempt(format('SELECT boocoder.send(%s, ''more'')', :task));
SELECT boocoder.run('more', 'alpha', chat => :chat) AS task \gset
SET ROLE boocoder_worker;
SELECT count(*) FROM pg_temp.claim();
SELECT state, failure_reason, error FROM boocoder.tasks WHERE id = :task;

-- Who waits for what one's own transaction has written, in a savepoint or not, would wait for ever.
SET ROLE regress_alice;
BEGIN;
SELECT 1 AS before FROM boocoder.run('in a savepoint', 'alpha');
SAVEPOINT s;
SELECT boocoder.run('in a savepoint', 'alpha') AS task \gset
SELECT pg_temp.attempt(format('SELECT boocoder.wait(%s, ''1 min'')', :task));
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT boocoder.run('in a savepoint', 'alpha') AS task \gset
RELEASE s;
SELECT pg_temp.attempt(format('SELECT boocoder.wait(%s, ''1 min'')', :task));
ROLLBACK;

-- Deleted by people, who have no DELETE; the one who did it decided about the changes.
SELECT boocoder.run('to delete', 'alpha') AS task \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.prepare(:task);
SELECT pg_temp.settle(:task, jsonb_build_array(pg_temp.change('z')));
SELECT session_id AS session, chat_id AS chat FROM boocoder.tasks WHERE id = :task \gset
SET ROLE regress_bob;
SELECT boocoder.delete_session(:session, true), boocoder.delete_chat(:chat);
SET ROLE regress_alice;
SELECT pg_temp.attempt(format('DELETE FROM boocoder.sessions WHERE id = %s', :session));
SELECT pg_temp.attempt(format('SELECT boocoder.delete_session(%s)', :session));
SELECT boocoder.delete_chat(:chat), boocoder.delete_session(:session, force => true), boocoder.delete_session(:session);
SELECT current_setting('boocoder.force_delete') AS force_again;
SELECT status, decided_by FROM boocoder.pending_changes WHERE task_id = :task;
SELECT session_id, chat_id FROM boocoder.tasks WHERE id = :task;

-- Costs of agents that name their sessions alike.
SELECT boocoder.run('a', 'alpha') AS a, boocoder.run('b', 'alpha') AS b \gset
SET ROLE boocoder_worker;
SELECT count(*) FROM pg_temp.claim(2);
SELECT pg_temp.settle(t, NULL, '{"agent_session_id": "session-1", "usage": {"cost_total_usd": 0.5, "input_tokens": 3}}') FROM (VALUES (:a), (:b)) t (t);
SELECT cost_usd FROM boocoder.tasks WHERE id IN (:a, :b);

-- A provider that is registered again keeps its rules.
SET ROLE regress_admin;
SELECT boocoder.add_permission_rule('reject', provider => 'claude', tool_kind => 'execute') AS rule \gset
SELECT boocoder.register_provider('claude', 'command', '{true}');
SELECT count(*) FROM boocoder.permission_rules WHERE id = :rule;
SELECT builtin, transport FROM boocoder.providers WHERE name = 'claude';

-- A request whose agent has ended does not wait for a person.
RESET ROLE;
INSERT INTO boocoder.permission_requests (task_id, fence, request) VALUES (:a, 1, 'left');
SET ROLE regress_alice;
SELECT count(*) FROM boocoder.inbox WHERE task_id = :a;
SET ROLE boocoder_worker;
SELECT count(*) FROM boocoder._next_actions(0, 0);
SELECT status FROM boocoder.permission_requests WHERE request = 'left';

-- A task whose agent is at work is not deleted; and nobody refers to rows of others.
SET ROLE regress_alice;
SELECT boocoder.run('at work', 'alpha') AS task \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT session_id AS session, chat_id AS chat FROM boocoder.tasks WHERE id = :task \gset
RESET ROLE;
SELECT pg_temp.attempt(format('DELETE FROM boocoder.tasks WHERE id = %s', :task));
SET ROLE regress_bob;
INSERT INTO boocoder.sessions (project_id) SELECT id FROM boocoder.projects WHERE name = 'beta' RETURNING id AS mine \gset
INSERT INTO boocoder.chats (session_id) VALUES (:mine) RETURNING id AS my_chat \gset
SELECT pg_temp.attempt(format('INSERT INTO boocoder.agent_sessions (chat_id, agent, session_id) VALUES (%s, ''shell'', %s)', :my_chat, :session));
SELECT pg_temp.attempt(format('INSERT INTO boocoder.agent_sessions (chat_id, agent, session_id) VALUES (%s, ''shell'', %s)', :my_chat, :mine));
SELECT boocoder.run('x', 'beta') AS my_task \gset
SELECT pg_temp.attempt(format('INSERT INTO boocoder.permission_rules (answer, task_id, project_id) VALUES (''allow'', %s, 1)', :my_task));
SELECT pg_temp.attempt(format('INSERT INTO boocoder.permission_rules (answer, task_id, project_id) VALUES (''allow'', %s, 2)', :my_task));
-- What a project lets its agents read is in their orders.
RESET ROLE;
UPDATE boocoder.projects SET allowed_read_paths = '{/srv/reference}' WHERE name = 'beta';
SET ROLE boocoder_worker;
SELECT a.prepare IS NOT NULL AS begins FROM boocoder._next_actions(1, 0) a;
SELECT p.agent #> '{sandbox,ro_paths}' @> '["/srv/reference"]' AS told FROM boocoder._prepared(:my_task, pg_temp.fence(:my_task),
	'{"ok": true, "created": true, "branch": "b", "base_commit": "b0", "git_dir": "/srv/beta/.git", "admin_dir": "/srv/beta/.git/worktrees/x"}') p;
