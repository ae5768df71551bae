-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
-- What would be run: the command of the provider, or the built-in one, with the program where it was found.
SELECT s.* FROM boocoder.providers p, boocoder.launch_spec(p.name) s WHERE p.builtin ORDER BY p.name COLLATE "C";
INSERT INTO boocoder.available_agents (name, label, transport, install_path) VALUES ('goose', 'goose', 'acp', '/opt/goose/bin/goose'),
	('qwen', 'qwen', 'acp', '/opt/qwen');
SELECT boocoder.register_provider('qwen', 'acp', '{node,/srv/qwen.js,--acp}', '{"KEY": {"from_file": "/etc/key"}, "HOME": {"from_env": "QWEN_HOME"}}');
SELECT name, s.* FROM unnest('{goose,qwen,nobody}'::text[]) name, boocoder.launch_spec(name) s;
SELECT q, pg_temp.attempt(q) FROM unnest(ARRAY[
	'SELECT boocoder.register_provider(''x'', ''acp'', ''{x}'', ''{"A": {"from_disk": "x"}}'')',
	'SELECT boocoder.register_provider(''x'', ''acp'', ''{x}'', ''{"A": {"from_file": 1}}'')',
	'UPDATE boocoder.providers SET env = ''{"A": [1]}'' WHERE name = ''qwen''']) q;
SET ROLE regress_alice;
SELECT pg_temp.attempt('SELECT env FROM boocoder.providers'), pg_temp.attempt('SELECT boocoder.launch_spec(''qwen'')');

-- Looking at agents.
SET ROLE regress_viewer;
SELECT boocoder.probe_agents('goose'), boocoder.probe_agents('goose') AS already;
SELECT pg_temp.attempt('SELECT boocoder.probe_agents(''nobody'')');
SELECT pg_temp.attempt('INSERT INTO boocoder.jobs (kind, project_id) VALUES (''remove'', 1)');
SELECT x ->> 'id' AS id, x ->> 'status' AS status, x ->> 'probing' AS probing FROM jsonb_array_elements(boocoder.provider_snapshot()) x
 WHERE x ->> 'id' IN ('boocode', 'goose', 'opencode') ORDER BY 1;
RESET ROLE;
UPDATE boocoder.providers SET models_url = 'http://127.0.0.1:1/v1', models_prefix = 'llama-swap/' WHERE name = 'goose';
SET ROLE boocoder_worker;
SELECT kind, job_id, jsonb_pretty(prepare - 'sandbox' - 'cwd' - 'limits') AS job_order, prepare #> '{limits,deadline_ms}' AS deadline
  FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(1, '{"ok": true, "status": "ready", "install_path": "/usr/bin/goose", "version": "1.34.0", "supports_acp": true,
	"models": [{"id": "m1", "name": "M 1"}], "modes": [{"id": "auto", "name": "Auto"}], "commands": [{"name": "init"}], "current_mode": "auto"}');
SELECT count(*) AS jobs FROM boocoder.jobs;
SET ROLE regress_viewer;
SELECT jsonb_pretty(x - 'probed_at') FROM jsonb_array_elements(boocoder.provider_snapshot()) x WHERE x ->> 'id' = 'goose';
-- what an administrator lists overrides what was found; what went wrong is a status with a reason
SET ROLE regress_admin;
UPDATE boocoder.providers SET models = '["mine"]' WHERE name = 'goose';
SELECT boocoder.probe_agents('goose');
SET ROLE boocoder_worker;
SELECT kind FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done((SELECT id FROM boocoder.jobs), '{"ok": false, "reason": "runner_crashed", "message": "gone"}');
SET ROLE regress_viewer;
SELECT x -> 'models' AS models, x ->> 'status' AS status, x ->> 'reason' AS reason, x ->> 'message' AS message, x ->> 'version' AS version
  FROM jsonb_array_elements(boocoder.provider_snapshot()) x WHERE x ->> 'id' = 'goose';

-- Modes, models, commands, title, plan: what agents say is known; what is asked of them is passed on.
SET ROLE regress_alice;
SELECT boocoder.run('one', 'alpha', agent => 'shell');
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.prepare(1);
SELECT boocoder._append('{1}', ARRAY[pg_temp.fence(1)], ARRAY['{"events": [
	{"kind": "modes", "payload": {"modes": [{"id": "plan", "name": "Plan"}, {"id": "code", "name": "Code"}], "current": "code"}},
	{"kind": "models", "payload": {"models": [{"id": "m1"}], "current": "m1"}},
	{"kind": "command", "payload": {"commands": [{"name": "init", "description": "begin", "hint": "where"}, {"name": "init"}, {}, 7]}},
	{"kind": "title", "payload": {"title": "A talk"}}, {"kind": "plan", "payload": {"entries": [{"content": "think"}]}}]}'::jsonb]);
SELECT chat_id, agent, status, title, model, mode, wanted_mode, plan FROM boocoder.agent_sessions;
SELECT * FROM boocoder.agent_commands;
SET ROLE regress_alice;
SELECT pg_temp.attempt('SELECT boocoder.set_mode(1, ''shell'', ''dream'')'), pg_temp.attempt('SELECT boocoder.set_mode(9, ''shell'', ''plan'')'),
	pg_temp.attempt('SELECT boocoder.set_mode(1, ''nobody'', ''plan'')');
SELECT boocoder.set_mode(1, 'shell', 'plan');
SET ROLE boocoder_worker;
SELECT kind, task_id, prepare FROM boocoder._next_actions(0, 0);
SELECT kind FROM boocoder._next_actions(0, 0);
SELECT mode, wanted_mode, mode_error FROM boocoder.agent_sessions;
SELECT boocoder._append('{1}', ARRAY[pg_temp.fence(1)], ARRAY['{"events": [{"kind": "mode_failed", "payload": {"mode": "plan", "message": "not now"}}]}'::jsonb]);
SELECT mode, wanted_mode, mode_error FROM boocoder.agent_sessions;
SET ROLE regress_alice;
SELECT boocoder.set_mode(1, 'shell', 'plan');
SET ROLE boocoder_worker;
SELECT boocoder._append('{1}', ARRAY[pg_temp.fence(1)], ARRAY['{"events": [{"kind": "mode", "payload": {"mode": "plan"}},
	{"kind": "command", "payload": {"commands": [{"name": "compact"}]}}]}'::jsonb]);
SELECT mode, wanted_mode, mode_error FROM boocoder.agent_sessions;
SELECT name FROM boocoder.agent_commands;
SELECT pg_temp.settle(1);
SELECT status FROM boocoder.agent_sessions;
-- The mode asked for is that of the next turn, too; the task's own is stronger.  The model: task, chat, project, provider.
SET ROLE regress_alice;
SELECT boocoder.send(1, 'two');
SET ROLE boocoder_worker;
SELECT agent ->> 'mode' AS mode, agent ->> 'model' AS model FROM boocoder._next_actions(1, 0) WHERE kind = 'task';
SELECT pg_temp.settle(2);
RESET ROLE;
CREATE FUNCTION pg_temp.model(of_task text, of_chat text, of_project text, of_provider text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	task bigint;
	result text;
BEGIN
	UPDATE boocoder.chats SET model = of_chat WHERE id = 1;
	UPDATE boocoder.projects SET default_model = of_project WHERE id = 1;
	UPDATE boocoder.providers SET default_model = of_provider WHERE name = 'shell';
	task := boocoder.run('x', 'alpha', agent => 'shell', model => of_task, mode => 'code', chat => 1);
	SELECT a.agent ->> 'model' || ' ' || (a.agent ->> 'mode') INTO result FROM boocoder._next_actions(1, 0) a WHERE a.kind = 'task';
	PERFORM pg_temp.settle(task);
	RETURN result;
END $$;
SELECT pg_temp.model('t', 'c', 'p', 'v'), pg_temp.model(NULL, 'c', 'p', 'v'), pg_temp.model(NULL, NULL, 'p', 'v'), pg_temp.model(NULL, NULL, NULL, 'v');

-- Ports: a range for each live worktree, and an end of them.
SELECT boocoder._free_ports('{"ports": {"first": 20000, "last": 20029, "count": 10}}') AS second,
	boocoder._free_ports('{"ports": {"first": 20000, "last": 20014, "count": 10}}') AS full,
	boocoder._free_ports('{"ports": {"first": 19995, "last": 20029, "count": 10}}') AS behind,
	boocoder._free_ports('{"ports": {"first": 19990, "last": 20009, "count": 10}}') AS gap,
	boocoder._free_ports('{"ports": {"first": 20000, "last": 20029, "count": 0}}') AS none;
SELECT pg_temp.attempt('INSERT INTO boocoder.worktrees (project_id, path, branch, origin, port_first, port_count) VALUES (1, ''/x'', ''x'', ''x'', 20000, 10)');

-- Launch prefixes and roots of one's own.
UPDATE boocoder.projects SET launch_prefix = '{sudo,-n,-u,alice}' WHERE id = 1;
SELECT boocoder.run('prefixed', 'alpha', agent => 'shell') AS task;
SELECT kind, git_prefix, agent_prefix, prepare ->> 'root' ~ '^~/.local/share/boocoder/\d+-\d+-\d+$' AS root FROM boocoder._next_actions(1, 0);
UPDATE boocoder.providers SET launch_prefix = '{nice}' WHERE name = 'shell';
UPDATE boocoder.projects SET worktree_root = '/srv/trees/' WHERE id = 1;
SELECT boocoder.run('prefixed', 'alpha', agent => 'shell') AS task;
SELECT kind, git_prefix, agent_prefix, prepare ->> 'root' ~ '^/srv/trees/\d+-\d+-\d+$' AS root FROM boocoder._next_actions(1, 0);
-- A project's teardown comes before the removal of a worktree, whatever comes of it.
UPDATE boocoder.projects SET teardown = '{"make clean"}', launch_prefix = '{}' WHERE id = 1;
UPDATE boocoder.worktrees SET setup_done_at = now() WHERE session_id = 1;
SELECT boocoder.remove_worktree(w.id, force => true) FROM boocoder.worktrees w WHERE w.session_id = 1;
SELECT kind, job_id, prepare - 'sandbox' - 'cwd' - 'limits' AS job_order FROM boocoder._next_actions(0, 9) WHERE kind = 'job';
SELECT boocoder._job_done(j.id, '{"ok": true, "outcome": "failed", "reason": "teardown_failed", "message": "no make"}') FROM boocoder.jobs j WHERE j.kind = 'teardown';
SELECT kind, prepare ->> 'role' AS role FROM boocoder._next_actions(0, 9) WHERE kind = 'job';
SELECT kind, state, error FROM boocoder.jobs ORDER BY id;
