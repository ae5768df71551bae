-- SPDX-License-Identifier: PostgreSQL
-- What is wrong with one row, or with what one person asks, is that one's alone.
\i test/regress.psql
-- the next job that is more than a look at a worktree
CREATE FUNCTION pg_temp.job(OUT job bigint, OUT role text, OUT changes integer) RETURNS record LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 9 LOOP
		job := NULL;
		role := NULL;
		SELECT n.job_id, n.prepare ->> 'role', jsonb_array_length(n.prepare -> 'changes') INTO job, role, changes
		  FROM boocoder._next_actions(0, 9) n WHERE n.kind = 'job';
		EXIT WHEN role IS DISTINCT FROM 'assess';
		PERFORM boocoder._job_done(job, '{"ok": true, "dirty_count": 0, "unpushed_count": 0, "size_bytes": 1}');
	END LOOP;
END
$$;
-- A time that nobody can wait for.
SET ROLE regress_alice;
SELECT pg_temp.attempt($$SELECT boocoder.run('never', 'alpha', run_at => 'infinity')$$);
SELECT pg_temp.attempt($$INSERT INTO boocoder.tasks (project_id, input, run_at) VALUES (1, 'always', '-infinity')$$);
SELECT boocoder.run('late', 'alpha', run_at => '294276-12-31') AS late;
SET ROLE boocoder_worker;
SELECT boocoder._start(0);
SELECT kind, delay_ms <= 86400000 AS soon_enough FROM boocoder._next_actions(9, 9);
SET ROLE regress_alice;
SELECT oldest_pending FROM boocoder.status;
SELECT max(id) AS late FROM boocoder.tasks \gset
SELECT boocoder.cancel(:late);

-- A request about a worktree is understood where it is made, or refused there.
SELECT boocoder.run('edit', 'alpha') AS task \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.prepare(:task);
SELECT boocoder._settle(:task, pg_temp.fence(:task), '{"ok": true, "outcome": "completed"}', jsonb_build_object('ok', true, 'tree', 'f00',
	'turn_ref', 'refs/boocoder/turns/1/1', 'changes', jsonb_build_array(pg_temp.change('a'), pg_temp.change('b'))));
SET ROLE regress_alice;
SELECT q, pg_temp.attempt(format('UPDATE boocoder.worktrees SET request = %L WHERE id = 1', q)) FROM unnest(ARRAY[
	'{"do": "x", "task": "abc"}', '[]', '"stash"', '1', 'null', '{}', '{"do": "rewind"}', '{"do": "rewind", "to": "refs/heads/main"}',
	'{"do": "restore", "to": 7}', '{"do": "edit"}', '{"do": "edit", "path": ""}', '{"do": "edit", "path": ["a"]}',
	'{"do": "edit", "path": "a", "content": {}}']) q;
UPDATE boocoder.worktrees SET request = '{"do": "rewind", "to": "refs/boocoder/turns/1/1", "task": "abc", "more": 1}' WHERE id = 1;
SELECT request FROM boocoder.worktrees WHERE id = 1;
-- It comes before the next task of the session, also when that is there before its job.
SELECT boocoder.send(:task, 'go on') AS next \gset
SET ROLE boocoder_worker;
SELECT kind, prepare ->> 'role' AS role FROM boocoder._next_actions(9, 9);
SELECT count(*) FROM boocoder._next_actions(9, 9, false);
SELECT boocoder._job_done(1, '{"ok": true, "saved": "refs/boocoder/undo/1", "saved_tree": "f01", "tree": "f00"}');
SELECT kind, task_id = :next AS next FROM boocoder._next_actions(9, 0, false);
SELECT pg_temp.settle(:next, jsonb_build_array(pg_temp.change('a'), pg_temp.change('b')));

-- An apply that no message can hold is a conflict: it can be made in parts, or rejected; the others go on.
RESET ROLE;
UPDATE boocoder.pending_changes SET diff = repeat('x', 33 * 1024 * 1024) WHERE task_id = :next;
SET ROLE regress_alice;
SELECT boocoder.apply(:next);
SELECT boocoder.run('elsewhere', 'alpha') AS other \gset
SET ROLE boocoder_worker;
SELECT role FROM pg_temp.job();
SELECT path, status, error FROM boocoder.pending_changes WHERE task_id = :next ORDER BY id;
SELECT kind FROM pg_temp.claim();
SET ROLE regress_alice;
SELECT boocoder.apply_changes(ARRAY[min(id)]), boocoder.reject_changes(ARRAY[max(id)]) FROM boocoder.pending_changes WHERE task_id = :next;
SET ROLE boocoder_worker;
SELECT job, role, changes FROM pg_temp.job() \gset
SELECT :'role' AS role, :changes AS changes;
SELECT boocoder._job_done(:job, '{"ok": true, "diff_base": "b1"}');

-- A trigger that refuses what one job comes to fails that job.
RESET ROLE;
CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'not that'; END$$;
CREATE TRIGGER refuse BEFORE UPDATE ON boocoder.jobs FOR EACH ROW WHEN (NEW.kind = 'assess') EXECUTE FUNCTION pg_temp.refuse();
SET ROLE regress_alice;
SELECT boocoder.refresh_worktree(1);
SELECT boocoder.cancel(:other);
SET ROLE boocoder_worker;
SELECT kind FROM boocoder._next_actions(0, 9);
RESET ROLE;
DROP TRIGGER refuse ON boocoder.jobs;
SET ROLE boocoder_worker;
SELECT pg_temp.settle(:other, NULL, '{"outcome": "cancelled", "reason": "cancelled"}');
SELECT kind, prepare ->> 'role' AS role FROM boocoder._next_actions(0, 9);
SELECT boocoder._job_done(max(id), '{"ok": true, "dirty_count": 0, "unpushed_count": 0, "size_bytes": 1}') FROM boocoder.jobs;

-- A session that is closed by force while its agent is at work: what that leaves is rejected, and goes.
SET ROLE regress_alice;
SELECT boocoder.send(:task, 'at work') AS working \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SET ROLE regress_alice;
SELECT boocoder.close_session(1, force => true);
SET ROLE boocoder_worker;
SELECT pg_temp.settle(:working, jsonb_build_array(pg_temp.change('c')), '{"outcome": "cancelled", "reason": "cancelled"}');
SELECT path, status FROM boocoder.pending_changes WHERE task_id = :working;
SELECT job, role FROM pg_temp.job() \gset
SELECT :'role' AS role;
SELECT path, status FROM boocoder.pending_changes WHERE task_id = :working;
SELECT status, forced FROM boocoder.worktrees WHERE id = 1;
SELECT boocoder._job_done(:job, '{"ok": true, "archived": "refs/boocoder/archive/1"}');

-- A rule whose pattern LIKE would refuse.
SET ROLE regress_admin;
SELECT p, pg_temp.attempt(format('SELECT boocoder.add_permission_rule(''allow'', path_pattern => %L)', p)),
	pg_temp.attempt(format('SELECT boocoder.add_permission_rule(''allow'', command_pattern => %L)', p))
  FROM unnest(ARRAY[E'src\\', E'\\', E'a\\\\\\', E'src\\\\', E'a\\%', '%']) p;

-- A worktree that cannot be had leaves no session behind.
SET ROLE regress_alice;
SELECT boocoder.run('too much', 'alpha') AS task \gset
SELECT count(*) AS sessions FROM boocoder.sessions \gset
SET ROLE boocoder_worker;
UPDATE boocoder.worktrees SET size_bytes = 2 * 1024 * 1024 WHERE id = 2;
SELECT c.fence FROM boocoder.tasks t, boocoder._claim(t, boocoder._host() || '{"worktree_budget": 1048576}') c WHERE t.id = :task;
SELECT state, failure_reason, session_id FROM boocoder.tasks WHERE id = :task;
SELECT count(*) - :sessions AS more_sessions FROM boocoder.sessions;

-- Ports stay with a worktree until it is removed; one that is made again gets others.
SET ROLE regress_alice;
SELECT boocoder.run('with ports', 'alpha') AS first \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.prepare(:first);
SELECT pg_temp.settle(:first, '[]');
SELECT session_id AS session FROM boocoder.tasks WHERE id = :first \gset
SELECT id AS worktree, port_first AS ports FROM boocoder.worktrees WHERE session_id = :session \gset
SET ROLE regress_alice;
SELECT boocoder.remove_worktree(:worktree, true);
SELECT boocoder.run('the next', 'alpha') AS second \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT count(DISTINCT port_first) = count(*) AS different FROM boocoder.worktrees WHERE status <> 'removed';
SET ROLE regress_alice;
SELECT boocoder.undelete_worktree(:worktree);
SELECT port_first = :ports AS same FROM boocoder.worktrees WHERE id = :worktree;
SELECT boocoder.remove_worktree(:worktree, true);
SET ROLE boocoder_worker;
UPDATE boocoder.worktrees SET status = 'removing' WHERE id = :worktree;
UPDATE boocoder.worktrees SET status = 'removed' WHERE id = :worktree;
INSERT INTO boocoder.worktree_saves (worktree_id, kind, ref) VALUES (:worktree, 'archive', 'refs/boocoder/archive/x');
INSERT INTO boocoder.worktrees (project_id, path, branch, origin, port_first, port_count) VALUES (1, '/x', 'x', 'x', :ports, 10);
SET ROLE regress_alice;
SELECT boocoder.worktree_restore(:worktree);
SELECT status, port_first FROM boocoder.worktrees WHERE id = :worktree;

-- A conflict does not bring back what a later turn has made out of date.
SELECT boocoder.run('first turn', 'alpha') AS first \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT pg_temp.prepare(:first);
SELECT pg_temp.settle(:first, jsonb_build_array(pg_temp.change('p'), pg_temp.change('q')));
SET ROLE regress_alice;
SELECT boocoder.apply(:first);
SELECT boocoder.send(:first, 'second turn') AS second \gset
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim();
SELECT role FROM pg_temp.job();
SELECT boocoder._job_done(id, '{"ok": false, "reason": "git_error", "message": "no"}') FROM boocoder.jobs WHERE state = 'running';
SELECT role FROM pg_temp.job();
SELECT pg_temp.settle(:second, jsonb_build_array(pg_temp.change('p', 'modify')));
SELECT boocoder._job_done(max(c.job_id), jsonb_build_object('ok', false, 'reason', 'conflict', 'conflicts',
	jsonb_build_array(jsonb_build_object('id', min(c.id), 'message', 'differs')))) FROM boocoder.pending_changes c WHERE c.task_id = :first;
SELECT CASE task_id WHEN :first THEN 'first' ELSE 'second' END AS turn, path, status, error FROM boocoder.pending_changes WHERE task_id IN (:first, :second) ORDER BY id;

-- The database of another origin: a dump that was restored while the dispatcher ran.
RESET ROLE;
INSERT INTO boocoder.worktrees (project_id, path, branch, origin, status, deleted_at) VALUES (1, '/elsewhere/s1', 'b', 'other-1', 'trashed', now() - interval '1 day'),
	(1, '/elsewhere/s2', 'b', 'other-1', 'removing', now());
INSERT INTO boocoder.worktrees (project_id, path, branch, origin, status, request, assess_requested_at)
VALUES (1, '/elsewhere/s3', 'b', 'other-1', 'active', '{"do": "stash"}', now());
SET ROLE boocoder_worker;
SELECT count(*) FROM boocoder._next_actions(0, 9) WHERE kind = 'job';
SELECT path, status, request FROM boocoder.worktrees WHERE origin = 'other-1' ORDER BY path;
