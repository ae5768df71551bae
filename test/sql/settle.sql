-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
UPDATE boocoder.projects SET setup = '{make deps}' WHERE name = 'alpha';
SET ROLE regress_alice;
SELECT boocoder.run('edit', 'alpha');
SET ROLE boocoder_worker;
SELECT boocoder._start(0);
SELECT * FROM pg_temp.claim(9);
SELECT agent ->> 'setup' AS setup, agent ->> 'git_dir' AS git_dir, diff -> 'worktree' ->> 'diff_base' AS diff_base
  FROM boocoder._prepared(1, pg_temp.fence(1), '{"ok": true, "created": true, "branch": "boocoder/1-2", "base_commit": "b0",
	"git_dir": "/srv/alpha/.git", "admin_dir": "/srv/alpha/.git/worktrees/s1"}');
SELECT status, branch, base_commit, diff_base, setup_done_at FROM boocoder.worktrees;
-- Completed: state, changes, summary, usage and message in one transaction.
SELECT pg_temp.settle(1, jsonb_build_array(pg_temp.change('b.txt'), pg_temp.change('a.txt', 'modify')),
	'{"summary": "did it", "agent_session_id": "s", "usage": {"input_tokens": 100, "output_tokens": 10, "cached_tokens": 5,
	  "reasoning_tokens": 2, "cost_total_usd": 0.5, "model": "big"}}');
SELECT state, output_summary, failure_reason, error, input_tokens, output_tokens, cost_tokens, cost_usd, ended_at >= started_at AS ended
  FROM boocoder.tasks;
SELECT id, session_id, task_id, worktree_id, agent, path, kind, status, base_commit FROM boocoder.pending_changes ORDER BY id;
SELECT role, status, tokens_used, finished_at IS NOT NULL AS finished FROM boocoder.messages ORDER BY id;
SELECT snapshot_tree, setup_done_at IS NOT NULL AS setup_done FROM boocoder.worktrees;
SET ROLE regress_alice;
SELECT boocoder.diff(1);
-- The next turn of the session: no setup, the older changes superseded, only the new cost charged.
SELECT boocoder.send(1, 'more');
SET ROLE boocoder_worker;
SELECT agent ->> 'setup' AS setup FROM boocoder._next_actions(1, 0);
SELECT pg_temp.settle(2, jsonb_build_array(pg_temp.change('a.txt', 'modify')),
	'{"agent_session_id": "s", "usage": {"input_tokens": 50, "output_tokens": 5, "cost_total_usd": 0.75}}');
SET ROLE regress_alice;
SELECT boocoder.send(2, 'and more');
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.settle(3, '[]', '{"agent_session_id": "s", "usage": {"input_tokens": 1, "output_tokens": 1, "cost_total_usd": 0.75}}');
SELECT id, task_id, path, status FROM boocoder.pending_changes ORDER BY id;
SELECT task_id, agent, model, input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_usd FROM boocoder.usage_events ORDER BY id;
SELECT id, cost_tokens, cost_usd FROM boocoder.tasks ORDER BY id;
-- another session of the agent starts to count anew
SET ROLE regress_alice;
SELECT boocoder.run('elsewhere', 'alpha');
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.settle(4, NULL, '{"agent_session_id": "other", "usage": {"cost_total_usd": 0.1}}');
SELECT task_id, cost_usd FROM boocoder.usage_events WHERE task_id = 4;
-- the diff of a superseded task can still be read
SET ROLE regress_alice;
SELECT boocoder.diff(1), boocoder.diff(2), boocoder.diff(3);

-- Outcomes.  Each task: what the runners said, what becomes of it.
RESET ROLE;
CREATE TABLE pg_temp.outcomes (n bigint GENERATED ALWAYS AS IDENTITY, result jsonb, diff jsonb);
GRANT SELECT ON pg_temp.outcomes TO PUBLIC;
INSERT INTO pg_temp.outcomes (result, diff) VALUES
	('{"ok": true, "outcome": "failed", "reason": "exit_nonzero", "message": "exit status 3", "stderr_tail": "oops"}', '{"ok": true, "changes": []}'),
	('{"ok": true, "outcome": "completed"}', '{"ok": false, "reason": "diff_too_large", "message": "40 MB"}'),
	('{"ok": true, "outcome": "completed", "reason": "stale", "message": "stale"}', NULL),
	('{"ok": true, "outcome": "failed", "reason": "timeout"}', '{"ok": false, "reason": "git_error", "message": "no"}'),
	('{"ok": false, "reason": "sandbox_unavailable", "message": "bwrap: no", "hint": "set it off"}', '{"ok": true, "changes": []}'),
	('{"ok": false, "reason": "repository_missing", "message": "gone"}', NULL),
	('{"ok": true, "created": true}', NULL),
	('{"ok": true, "outcome": "cancelled", "reason": "cancelled"}', '{"ok": true, "changes": [{"path": "p", "kind": "add", "diff": "partial\n"}]}');
SET ROLE regress_alice;
INSERT INTO boocoder.tasks (project_id, input) SELECT 1, 'outcome ' || n FROM pg_temp.outcomes ORDER BY n;
SET ROLE boocoder_worker;
SELECT count(*) FROM pg_temp.claim(9);
SELECT pg_temp.prepare(id) FROM boocoder.tasks WHERE state = 'running' ORDER BY id;
SELECT n, boocoder._settle(n + 4, pg_temp.fence(n + 4), result, diff) FROM pg_temp.outcomes ORDER BY n;
SELECT t.id - 4 AS n, t.state, t.failure_reason, t.error, m.status, w.setup_done_at IS NOT NULL AS setup_done
  FROM boocoder.tasks t JOIN boocoder.messages m ON m.id = t.message_id
  JOIN boocoder.worktrees w ON w.session_id = t.session_id WHERE t.id > 4 ORDER BY t.id;
-- what a cancelled task had done is not lost
SELECT task_id, path, status FROM boocoder.pending_changes WHERE task_id = 12;
-- Settled once.
SELECT boocoder._settle(12, 1, '{"ok": true, "outcome": "completed"}', NULL);
SELECT boocoder._settle(4711, 1, '{"ok": true, "outcome": "completed"}', NULL);

-- A retry of that: its diff is the new one, not both.
SET ROLE regress_alice;
SELECT boocoder.retry(12);
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.settle(12, '[{"path": "p", "kind": "add", "diff": "whole\n"}, {"path": "q", "kind": "add", "diff": "more\n"}]');
SET ROLE regress_alice;
SELECT boocoder.diff(12);

-- A runner that crashed did not sum up: its last report counts.
SELECT boocoder.run('crash', 'alpha') AS task \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT boocoder._append(ARRAY[:task], ARRAY[pg_temp.fence(:task)], ARRAY['{"events": [
	{"kind": "usage", "payload": {"input_tokens": 1, "output_tokens": 1}},
	{"kind": "usage", "payload": {"input_tokens": 7, "output_tokens": 3}}]}'::jsonb]) IS NOT NULL AS stored;
SELECT pg_temp.settle(:task, NULL, '{"outcome": "failed", "reason": "runner_crashed", "message": "signal 11"}');
SELECT input_tokens, output_tokens FROM boocoder.usage_events WHERE task_id = :task;
-- A broken report of usage is refused; the dispatcher then settles without it.
SET ROLE regress_alice;
SELECT boocoder.run('nonsense', 'alpha') AS task \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.settle(:task, NULL, '{"usage": {"input_tokens": "many"}}');
SELECT pg_temp.settle(:task, NULL, '{"outcome": "weird"}');
SELECT pg_temp.settle(:task, '[{"path": "p", "kind": "nonsense", "diff": ""}]');
SELECT pg_temp.settle(:task, NULL, '{"usage": null, "outcome": "failed", "reason": "internal_error", "message": "could not store the outcome"}');
SELECT state, failure_reason FROM boocoder.tasks WHERE id = :task;
