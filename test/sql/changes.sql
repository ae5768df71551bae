-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
SET ROLE regress_alice;
SELECT boocoder.run('edit ' || n, 'alpha') FROM generate_series(1, 4) n;
SET ROLE boocoder_worker;
SELECT boocoder._start(0);
SELECT count(*) FROM pg_temp.claim(9);
SELECT pg_temp.prepare(n) FROM generate_series(1, 4) n;
SELECT pg_temp.settle(n, jsonb_build_array(pg_temp.change('a' || n), pg_temp.change('b' || n), pg_temp.change('c' || n)))
  FROM generate_series(1, 4) n;
SET ROLE regress_alice;
SELECT id, task_id, path, status FROM boocoder.list_pending(1);
-- A decision is recorded; its effect comes after commit.
SELECT boocoder.apply(1);
SELECT id, status, decided_by, decided_at IS NOT NULL AS decided FROM boocoder.pending_changes WHERE task_id = 1 ORDER BY id;
SELECT boocoder.apply(1);
SELECT boocoder.reject(1);
SELECT boocoder.apply(4711);
-- One transaction's decision about one worktree is one job; one job of a project runs at a time.
SELECT boocoder.apply(2);
SET ROLE boocoder_worker;
CREATE TEMP TABLE actions AS SELECT * FROM boocoder._next_actions(0, 9);
SELECT kind, job_id, jsonb_pretty(prepare - 'root' - 'home' #- '{worktree,path}') FROM actions;
SELECT id, kind, state FROM boocoder.jobs ORDER BY id;
SELECT count(*) FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(1, '{"ok": true, "applied": [1, 2, 3], "diff_base": "b1"}');
SELECT boocoder._job_done(1, '{"ok": true}');
SELECT boocoder._job_done(4711, '{"ok": true}');
SELECT id, status, decided_by, error FROM boocoder.pending_changes WHERE task_id = 1 ORDER BY id;
SELECT id, base_commit, diff_base FROM boocoder.worktrees ORDER BY id LIMIT 2;
-- A conflict: the file to blame says where, the others wait for the next decision.
SELECT kind, job_id, jsonb_array_length(prepare -> 'changes') AS changes FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(2, '{"ok": false, "reason": "conflict", "message": "1 file",
	"conflicts": [{"id": 5, "path": "b2", "hunk": "@@ -1 +1 @@", "message": "the file differs"}]}');
SELECT id, path, status, error FROM boocoder.pending_changes WHERE task_id = 2 ORDER BY id;
SET ROLE regress_alice;
SELECT task_id, state, reason, error, what_to_do FROM boocoder.inbox;
-- The person decides again: one by one.
SELECT boocoder.apply_changes('{4,5}'), boocoder.reject_changes('{6}');
SELECT boocoder.apply_changes('{6}');
SELECT boocoder.apply_changes('{7,4711}');
SELECT boocoder.apply_changes('{}'), boocoder.reject_changes(NULL);
SELECT id, path, status, error FROM boocoder.pending_changes WHERE task_id = 2 ORDER BY id;
-- A runner that was killed may have written half of it: the job is resumed, once.
SET ROLE boocoder_worker;
SELECT kind, job_id, prepare ->> 'resume' AS resume FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(3, '{"ok": false, "reason": "runner_crashed", "message": "killed"}');
SELECT kind, job_id, prepare ->> 'resume' AS resume FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(3, '{"ok": false, "reason": "runner_crashed", "message": "killed"}');
SELECT count(*) FROM boocoder._next_actions(0, 9);
SELECT id, path, status, error FROM boocoder.pending_changes WHERE task_id = 2 ORDER BY id;
-- Another transaction's decision is another job; nothing is applied that was rolled back.
SET ROLE regress_alice;
BEGIN;
SELECT boocoder.apply_changes('{7}');
ROLLBACK;
SELECT boocoder.apply_changes('{7}');
SELECT boocoder.apply_changes('{8}');
SET ROLE boocoder_worker;
SELECT kind, job_id, prepare -> 'changes' -> 0 ->> 'path' AS path FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(4, '{"ok": true, "applied": [7], "diff_base": "b3"}');
SELECT kind, job_id, prepare -> 'changes' -> 0 ->> 'path' AS path, prepare -> 'worktree' ->> 'diff_base' AS base FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(5, '{"ok": true, "applied": [8], "diff_base": "b4"}');

-- A worktree stays while it is needed.
SET ROLE regress_alice;
SELECT boocoder.remove_worktree(3);
UPDATE boocoder.worktrees SET status = 'removing' WHERE id = 4;
UPDATE boocoder.worktrees SET status = 'removed' WHERE id = 4;
SELECT boocoder.send(3, 'go on') AS task \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SET ROLE regress_alice;
SELECT boocoder.remove_worktree(3, true);
SET ROLE boocoder_worker;
SELECT pg_temp.settle(:task, '[]');
-- Forced: what nobody decided about is rejected, the content archived by the runner.
SET ROLE regress_alice;
SELECT boocoder.close_session(4, true), boocoder.close_session(4) AS again;
SELECT boocoder.remove_worktree(3);
SELECT task_id, status, count(*) FROM boocoder.pending_changes WHERE task_id > 2 GROUP BY 1, 2 ORDER BY 1, 2;
SET ROLE boocoder_worker;
SELECT kind, job_id, prepare ->> 'role' AS role, prepare -> 'worktree' ->> 'id' AS worktree FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(6, '{"ok": true, "archived": "refs/boocoder/archive/3"}');
SELECT kind, job_id, prepare ->> 'role' AS role, prepare -> 'worktree' ->> 'id' AS worktree FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(7, '{"ok": false, "reason": "git_error", "message": "no"}');
SELECT count(*) FROM boocoder._next_actions(0, 9);
SELECT id, status, archived_ref, deleted_at IS NOT NULL AS deleted FROM boocoder.worktrees ORDER BY id;
SELECT id, kind, state, error FROM boocoder.jobs ORDER BY id;
-- A session whose worktree is gone gets a new one.
SET ROLE regress_alice;
SELECT boocoder.send(3, 'once more') AS task \gset
SET ROLE boocoder_worker;
SELECT kind, ready FROM pg_temp.claim();
SELECT session_id, status, deleted_at IS NULL AS live FROM boocoder.worktrees WHERE session_id = 3 ORDER BY id;
