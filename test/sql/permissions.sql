-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
UPDATE boocoder.providers SET permission_policy = 'ask' WHERE name = 'shell';
CREATE FUNCTION pg_temp.ask(task bigint, requests text[], tool_call jsonb DEFAULT '{"kind": "edit", "title": "write", "locations": [{"path": "src/a.c"}]}')
RETURNS bigint LANGUAGE sql AS $$
	SELECT boocoder._append(ARRAY[task], ARRAY[pg_temp.fence(task)], ARRAY[jsonb_build_object('events',
		(SELECT jsonb_agg(jsonb_build_object('kind', 'permission_request', 'payload', jsonb_build_object('request', r, 'kind', 'permission',
			'tool_call', tool_call, 'options', '[{"optionId": "always", "name": "Always", "kind": "allow_always"},
				{"optionId": "yes", "name": "Yes", "kind": "allow_once"}, {"optionId": "no", "name": "No", "kind": "reject_once"}]'::jsonb)))
			FROM unnest(requests) r))])
$$;
CREATE FUNCTION pg_temp.actions() RETURNS TABLE (kind text, task_id bigint, prepare jsonb) LANGUAGE sql AS $$
	SELECT a.kind, a.task_id, a.prepare FROM boocoder._next_actions(0, 0) a WHERE a.kind <> 'due'
$$;
SET ROLE regress_alice;
SELECT boocoder.run('one', 'alpha'), boocoder.run('two', 'alpha');
SET ROLE boocoder_worker;
SELECT count(*) FROM pg_temp.claim(9);
SELECT pg_temp.prepare(1), pg_temp.prepare(2);

-- Two at once: the task waits for a person until both are answered.
SELECT pg_temp.ask(1, '{a,b}');
SELECT * FROM pg_temp.actions();
SELECT * FROM pg_temp.actions();
SET ROLE regress_alice;
SELECT id, state FROM boocoder.tasks ORDER BY id;
SELECT task_id, state, reason, error, what_to_do FROM boocoder.inbox ORDER BY what_to_do;
SELECT pg_temp.attempt('SELECT boocoder.answer_permission(1, ''maybe'')');
SELECT pg_temp.attempt('SELECT boocoder.answer_permission(99, ''yes'')');
SELECT pg_temp.attempt('SELECT boocoder.answer_elicitation(1, ''{}'')');
SELECT boocoder.answer_permission(1, 'yes');
SELECT pg_temp.attempt('SELECT boocoder.answer_permission(1, ''no'')');
SELECT pg_temp.attempt('UPDATE boocoder.permission_requests SET status = ''expired'' WHERE id = 2');
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.actions();
SET ROLE regress_alice;
-- a word that every agent understands
SELECT boocoder.answer_permission(2, 'reject');
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.actions();
SELECT * FROM pg_temp.actions();
SELECT id, state, fence IS NOT NULL AS claimed FROM boocoder.tasks ORDER BY id;
SELECT id, status, chosen_option, answered_by, rule, answered_at IS NOT NULL AS answered, delivered_at IS NOT NULL AS delivered
  FROM boocoder.permission_requests ORDER BY id;
-- told twice, recorded once; of an attempt that is over, not at all
SELECT pg_temp.ask(1, '{a}');
SELECT count(*) FROM boocoder.permission_requests;

-- Which rule answers.
CREATE FUNCTION pg_temp.verdict(task bigint, tool_call jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT v.answer || ' by ' || v.rule FROM boocoder.tasks t, boocoder._verdict(t, tool_call) v WHERE t.id = task
$$;
SET ROLE regress_admin;
SELECT boocoder.add_permission_rule('allow', tool_kind => 'read') AS r1,
	boocoder.add_permission_rule('reject', command_pattern => 'rm %') AS r2,
	boocoder.add_permission_rule('allow', provider => 'shell', tool_kind => 'edit', path_pattern => 'src/%') AS r3,
	boocoder.add_permission_rule('ask', project => 'alpha', tool_kind => 'edit', path_pattern => 'src/secret%') AS r4;
SET ROLE regress_alice;
SELECT pg_temp.attempt('SELECT boocoder.add_permission_rule(''allow'', project => ''alpha'')');
SELECT boocoder.add_permission_rule('allow', task => 1, command_pattern => 'make %') AS r5,
	boocoder.add_permission_rule('allow', task => 1, command_pattern => '%') AS r6;
SET ROLE boocoder_worker;
SELECT what, pg_temp.verdict(1, call::jsonb) FROM (VALUES
	('nothing said', '{}'),
	('read', '{"kind": "read"}'),
	('edit elsewhere', '{"kind": "edit", "locations": [{"path": "doc/x"}]}'),
	('edit', '{"kind": "edit", "locations": [{"path": "src/x"}]}'),
	('one of two', '{"kind": "edit", "locations": [{"path": "src/x"}, {"path": "doc/x"}]}'),
	('way out', '{"kind": "edit", "locations": [{"path": "src/../../etc/passwd"}]}'),
	('project before provider', '{"kind": "edit", "locations": [{"path": "src/secret.c"}]}'),
	('in the input', '{"kind": "edit", "raw_input": {"file_path": "src/x"}}'),
	('no path', '{"kind": "edit"}'),
	('command', '{"kind": "execute", "raw_input": {"command": "make all"}}'),
	('command as a list', '{"kind": "execute", "raw_input": {"command": ["make", "all"]}}'),
	('command as the title', '{"kind": "execute", "title": "make all"}'),
	('a user does not overrule', '{"kind": "execute", "raw_input": {"command": "rm -rf /"}}'),
	('garbage', '{"kind": 7, "locations": "x", "raw_input": [1], "content": {"path": {}}}')) c (what, call);
-- policies: the task's over the project's over the provider's; reject stays
RESET ROLE;
CREATE FUNCTION pg_temp.policies(provider text, project text, task text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	UPDATE boocoder.providers SET permission_policy = policies.provider WHERE name = 'shell';
	UPDATE boocoder.projects SET permission_policy = policies.project WHERE id = 1;
	UPDATE boocoder.tasks SET permission_policy = policies.task WHERE id = 2;
	RETURN pg_temp.verdict(2, '{"kind": "other"}');
END $$;
SELECT a, b, c, pg_temp.policies(a, b, c) FROM (VALUES ('allow', NULL, NULL), ('allow', 'ask', NULL), ('allow', 'ask', 'allow'),
	('allow', 'reject', 'allow'), ('reject', 'ask', 'allow'), ('reject', NULL, 'allow'), ('ask', NULL, 'reject'), ('allow', 'allow', 'ask')) v (a, b, c);
-- an answer of a rule is recorded, passed on, and never "always"
SELECT pg_temp.policies('allow', NULL, NULL);
SET ROLE boocoder_worker;
SELECT pg_temp.ask(2, '{x}', '{"kind": "other"}');
SELECT * FROM pg_temp.actions();
SELECT status, chosen_option, answered_by, rule FROM boocoder.permission_requests WHERE task_id = 2;

-- Questions, withdrawn requests, deadlines.
SELECT boocoder._append('{2}', ARRAY[pg_temp.fence(2)], ARRAY['{"events": [
	{"kind": "permission_request", "payload": {"request": "q", "kind": "elicitation", "message": "Which colour?", "schema": {"type": "object"}}},
	{"kind": "permission_request", "payload": {"request": "r", "kind": "elicitation", "message": "Which size?"}},
	{"kind": "permission_request", "payload": {"request": "s", "kind": "elicitation", "message": "Why?"}},
	{"kind": "permission_withdrawn", "payload": {"request": "s"}}]}'::jsonb]);
SELECT kind, task_id FROM pg_temp.actions();
SET ROLE regress_alice;
SELECT reason, error, what_to_do FROM boocoder.inbox WHERE task_id = 2 ORDER BY 2;
SELECT pg_temp.attempt('SELECT boocoder.answer_permission(5, ''yes'')');
SELECT pg_temp.attempt('SELECT boocoder.answer_elicitation(5, ''[]'')');
SELECT boocoder.answer_elicitation(5, '{"colour": "red"}');
RESET ROLE;
SET session_replication_role = replica;
UPDATE boocoder.permission_requests SET deadline = now() - interval '1 second' WHERE id = 6;
RESET session_replication_role;
SET ROLE boocoder_worker;
SELECT * FROM pg_temp.actions();
SELECT id, status, chosen_option, content, rule, answered_by FROM boocoder.permission_requests WHERE task_id = 2 ORDER BY id;

-- Whoever retries a task that waits, has its agent end first.
RESET ROLE;
SELECT pg_temp.policies('ask', NULL, NULL);
SET ROLE boocoder_worker;
SELECT pg_temp.ask(2, '{y}', '{"kind": "other"}');
SELECT * FROM pg_temp.actions();
SET ROLE regress_alice;
SELECT boocoder.retry(2);
SET ROLE boocoder_worker;
SELECT kind, task_id FROM boocoder._next_actions(0, 0);
SELECT pg_temp.settle(2, NULL, '{"outcome": "cancelled", "reason": "cancelled", "transport": "pty"}');
SELECT state, attempt, retry_requested, cancel_requested_at, transport FROM boocoder.tasks WHERE id = 2;
SELECT status FROM boocoder.permission_requests WHERE task_id = 2 ORDER BY id DESC LIMIT 1;
-- The dispatcher goes: nothing waits for an answer any more.
SELECT pg_temp.ask(1, '{z}', '{"kind": "other"}');
SELECT count(*) FROM pg_temp.actions();
SELECT boocoder._start(1);
SELECT state, attempt FROM boocoder.tasks WHERE id = 1;
SELECT status FROM boocoder.permission_requests WHERE task_id = 1 ORDER BY id DESC LIMIT 1;
-- Requests go with their task.
RESET ROLE;
DELETE FROM boocoder.messages; DELETE FROM boocoder.tasks;
SELECT count(*) FROM boocoder.permission_requests;
