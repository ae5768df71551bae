-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
-- A dispatcher that ended left these running.
SET ROLE regress_alice;
SELECT boocoder.run('again', 'alpha'), boocoder.run('enough', 'alpha', max_attempts => 1), boocoder.run('unwanted', 'alpha'),
	boocoder.run('waiting', 'alpha', run_at => now() + interval '1 day');
SET ROLE boocoder_worker;
SELECT boocoder._start(1);
SELECT * FROM pg_temp.claim(9);
SELECT pg_temp.prepare(1);
SELECT boocoder._append('{1}', ARRAY[pg_temp.fence(1)],
	ARRAY['{"events": [{"kind": "usage", "payload": {"input_tokens": 4, "output_tokens": 2}}]}'::jsonb]) IS NOT NULL AS stored;
SET ROLE regress_alice;
SELECT boocoder.cancel(3);
RESET ROLE;
INSERT INTO boocoder.jobs (kind, project_id, worktree_id, state) VALUES ('remove', 1, 1, 'running');
SELECT fence AS old FROM boocoder.tasks WHERE id = 1 \gset
-- The next one brings them in order, once.
SET ROLE boocoder_worker;
SELECT boocoder._start(2);
SELECT boocoder._start(2);
SELECT id, state, attempt, failure_reason, error, fence, output_tokens FROM boocoder.tasks ORDER BY id;
SELECT task_id, role, status FROM boocoder.messages WHERE role = 'assistant' ORDER BY id;
SELECT state, resumed FROM boocoder.jobs;
-- What comes late is not taken; the new attempt has the same session.
SELECT boocoder._settle(1, :old, '{"ok": true, "outcome": "completed"}', NULL);
SELECT * FROM pg_temp.claim(9);
SELECT id, attempt, session_id FROM boocoder.tasks WHERE state = 'running';
-- Attempts end.
SELECT boocoder._start(3);
SELECT id, state, attempt, failure_reason FROM boocoder.tasks WHERE id = 1;
SELECT count(*) FROM boocoder.tasks WHERE state IN ('running', 'blocked');
