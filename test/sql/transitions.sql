-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
-- Every move of a task: as the dispatcher, and as the one who submitted it.
CREATE TABLE pg_temp.moves (old text, new text, who text, result text);
GRANT ALL ON pg_temp.moves TO PUBLIC;
CREATE FUNCTION pg_temp.moves() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t boocoder.tasks;
	new text;
	result text;
BEGIN
	FOR t IN SELECT * FROM boocoder.tasks ORDER BY id LOOP
		FOREACH new IN ARRAY '{pending,running,blocked,completed,failed,cancelled}'::text[] LOOP
			BEGIN
				UPDATE boocoder.tasks x SET state = new WHERE x.id = t.id;
				RAISE EXCEPTION 'done' USING ERRCODE = 'ZZ000';
			EXCEPTION
				WHEN SQLSTATE 'ZZ000' THEN result := CASE WHEN new = t.state THEN '-' ELSE 'yes' END;
				WHEN OTHERS THEN result := SQLSTATE;
			END;
			INSERT INTO pg_temp.moves VALUES (t.state, new, current_user, result);
		END LOOP;
	END LOOP;
END $$;
INSERT INTO boocoder.tasks (project_id, input, submitted_by, state)
SELECT 1, 'x', 'regress_alice', s FROM unnest('{pending,running,blocked,completed,failed,cancelled}'::text[]) s;
SET ROLE boocoder_worker;
SELECT pg_temp.moves();
SET ROLE regress_alice;
SELECT pg_temp.moves();
RESET ROLE;
SELECT who, old, max(result) FILTER (WHERE new = 'pending') AS pending, max(result) FILTER (WHERE new = 'running') AS running,
	   max(result) FILTER (WHERE new = 'blocked') AS blocked, max(result) FILTER (WHERE new = 'completed') AS completed,
	   max(result) FILTER (WHERE new = 'failed') AS failed, max(result) FILTER (WHERE new = 'cancelled') AS cancelled
  FROM pg_temp.moves GROUP BY who, old
 ORDER BY who, array_position('{pending,running,blocked,completed,failed,cancelled}', old);
-- The table says the same.
SELECT m.old, m.new, m.who, m.result FROM pg_temp.moves m
  LEFT JOIN boocoder.task_transitions t ON t.from_state = m.old AND t.to_state = m.new
 WHERE m.old <> m.new
   AND (m.result = 'yes') IS DISTINCT FROM (t.from_state IS NOT NULL AND (m.who = 'boocoder_worker' OR NOT t.worker_only));
-- What it says to people.
SET ROLE regress_alice;
UPDATE boocoder.tasks SET state = 'pending' WHERE state = 'completed';
UPDATE boocoder.tasks SET state = 'completed' WHERE state = 'running';
RESET ROLE;
UPDATE boocoder.tasks SET state = 'nonsense' WHERE state = 'pending';
-- Another attempt begins without what the last one left.
UPDATE boocoder.tasks SET failure_reason = 'r', error = 'e', started_at = now(), ended_at = now(), fence = 7,
	cancel_requested_at = now(), output_summary = 'kept' WHERE state = 'failed';
SET ROLE regress_alice;
UPDATE boocoder.tasks SET state = 'pending' WHERE state = 'failed'
RETURNING attempt, failure_reason, error, started_at, ended_at, fence, cancel_requested_at, output_summary;
RESET ROLE;
-- An end has its time, and no fence.
UPDATE boocoder.tasks SET fence = 9 WHERE state = 'running';
SET ROLE boocoder_worker;
UPDATE boocoder.tasks SET state = 'completed' WHERE state = 'running' RETURNING ended_at IS NOT NULL AS ended, fence;
RESET ROLE;

-- Every move of a change.
TRUNCATE pg_temp.moves;
INSERT INTO boocoder.worktrees (project_id, path, branch, origin, status) VALUES (1, '/w', 'b', 'o', 'active');
INSERT INTO boocoder.pending_changes (task_id, worktree_id, path, kind, diff, status)
SELECT 1, 1, s, 'add', '', s FROM unnest('{pending,applying,applied,conflict,rejected,superseded}'::text[]) s;
CREATE FUNCTION pg_temp.change_moves() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c boocoder.pending_changes;
	new text;
	result text;
BEGIN
	FOR c IN SELECT * FROM boocoder.pending_changes ORDER BY id LOOP
		FOREACH new IN ARRAY '{pending,applying,applied,conflict,rejected,superseded}'::text[] LOOP
			BEGIN
				UPDATE boocoder.pending_changes x SET status = new WHERE x.id = c.id;
				RAISE EXCEPTION 'done' USING ERRCODE = 'ZZ000';
			EXCEPTION
				WHEN SQLSTATE 'ZZ000' THEN result := CASE WHEN new = c.status THEN '-' ELSE 'yes' END;
				WHEN OTHERS THEN result := SQLSTATE;
			END;
			INSERT INTO pg_temp.moves VALUES (c.status, new, current_user, result);
		END LOOP;
	END LOOP;
END $$;
SET ROLE boocoder_worker;
SELECT pg_temp.change_moves();
SET ROLE regress_alice;
SELECT pg_temp.change_moves();
RESET ROLE;
SELECT who, old, max(result) FILTER (WHERE new = 'pending') AS pending, max(result) FILTER (WHERE new = 'applying') AS applying,
	   max(result) FILTER (WHERE new = 'applied') AS applied, max(result) FILTER (WHERE new = 'conflict') AS conflict,
	   max(result) FILTER (WHERE new = 'rejected') AS rejected, max(result) FILTER (WHERE new = 'superseded') AS superseded
  FROM pg_temp.moves GROUP BY who, old
 ORDER BY who, array_position('{pending,applying,applied,conflict,rejected,superseded}', old);
