-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
SET ROLE regress_alice;
SELECT boocoder.run(i, 'alpha') FROM unnest('{one,two,three}'::text[]) i;
-- Pending: at once, and it never runs.
SELECT boocoder.cancel(1), boocoder.cancel(1) AS again;
SELECT state, ended_at IS NOT NULL AS ended, session_id FROM boocoder.tasks WHERE id = 1;
SET ROLE boocoder_worker;
SELECT boocoder._start(0);
SELECT * FROM pg_temp.claim(9);
-- Running: the dispatcher is told, until it has ended.
SET ROLE regress_alice;
SELECT boocoder.cancel(2), boocoder.cancel(2) AS again;
SELECT state, cancel_requested_at IS NOT NULL AS requested FROM boocoder.tasks WHERE id = 2;
SET ROLE boocoder_worker;
SELECT kind, task_id, fence = pg_temp.fence(2) AS fence FROM boocoder._next_actions(9, 9);
SELECT kind, task_id FROM boocoder._next_actions(0, 0);
-- one that was cancelled before its worktree was there gets no order
SELECT pg_temp.prepare(2);
SELECT pg_temp.settle(2, NULL, '{"outcome": "cancelled", "reason": "cancelled"}');
SELECT kind, task_id FROM boocoder._next_actions(9, 9);
SELECT state, failure_reason, fence FROM boocoder.tasks WHERE id = 2;
-- What was completed in spite of the cancel is completed.
SET ROLE regress_alice;
SELECT boocoder.cancel(3);
SET ROLE boocoder_worker;
SELECT pg_temp.prepare(3);
SELECT pg_temp.settle(3, '[]');
SET ROLE regress_alice;
SELECT state, failure_reason FROM boocoder.tasks WHERE id = 3;
SELECT boocoder.cancel(3);
SELECT boocoder.cancel(4711);

-- Retry: the same task, session and chat; the question is not asked twice.
SELECT boocoder.retry(1), boocoder.inbox_retry(2);
SELECT boocoder.retry(3);
SELECT boocoder.retry(4711);
SELECT id, state, attempt, failure_reason, cancel_requested_at IS NOT NULL AS cancel, session_id FROM boocoder.tasks ORDER BY id;
SELECT boocoder.retry(1);
SET ROLE boocoder_worker;
-- the worktree of the second is there already: its orders come at once
SELECT * FROM pg_temp.claim(9);
SELECT t.id, t.session_id, t.chat_id, m.role, m.status, m.id = t.message_id AS current
  FROM boocoder.tasks t JOIN boocoder.messages m ON m.task_id = t.id WHERE t.id < 3 ORDER BY t.id, m.id;
-- What the first attempt still sends is not taken.
SELECT boocoder._append('{2}', '{1}', ARRAY['{"events": [{"kind": "text", "payload": {"delta": "late"}}]}'::jsonb]);
SELECT boocoder._settle(2, 1, '{"ok": true, "outcome": "completed"}', NULL);
SELECT count(*) FROM boocoder._prepared(2, 1, '{"ok": true}');
SELECT state, attempt FROM boocoder.tasks WHERE id = 2;

-- Follow-ups share the chat, and what the first one was told.
SET ROLE regress_alice;
SELECT boocoder.run('talk', 'alpha', agent => 'shell', model => 'm', mode => 'plan', priority => 7) AS talk \gset
SELECT boocoder.send(:talk, 'too early');
SET ROLE boocoder_worker;
SELECT kind FROM pg_temp.claim(9);
SET ROLE regress_alice;
SELECT boocoder.send(:talk, 'go on') AS follow \gset
SELECT boocoder.send(:talk, '');
SELECT f.session_id = t.session_id AS session, f.chat_id = t.chat_id AS chat, f.agent, f.model, f.mode, f.priority, f.creator, f.state
  FROM boocoder.tasks t, boocoder.tasks f WHERE t.id = :talk AND f.id = :follow;
-- A follow-up by plain INSERT.
INSERT INTO boocoder.tasks (project_id, session_id, chat_id, input)
SELECT project_id, session_id, chat_id, 'the same' FROM boocoder.tasks WHERE id = :talk;

-- wait() returns the state when the task has ended, or the time is over.
SELECT boocoder.wait(3, '1 s'), boocoder.wait(:talk, '50 ms'), boocoder.wait(:talk, '-1 s');
SELECT boocoder.wait(4711, '1 s');
-- attach() shows what there is and ends with the task.
SET ROLE boocoder_worker;
SELECT boocoder._append(ARRAY[:talk], ARRAY[pg_temp.fence(:talk)], ARRAY['{"events": [
	{"kind": "status", "payload": {"phase": "spawned"}}, {"kind": "text", "payload": {"delta": "hello"}},
	{"kind": "tool_call", "payload": {"id": "t1", "title": "edit file", "status": "completed"}},
	{"kind": "mystery", "payload": {"a": 1}}]}'::jsonb]);
SELECT pg_temp.settle(:talk);
SET ROLE regress_alice;
CALL boocoder.attach(:talk);
CALL boocoder.attach(:talk, 3);
CALL boocoder.attach(4711);
BEGIN;
CALL boocoder.attach(1);
ROLLBACK;
-- What is not committed, or does not show, would be waited for for ever.
SET ROLE regress_alice;
SELECT boocoder.wait(boocoder.run('not yet', 'alpha'));
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT boocoder.wait(:follow, '0 s');
SELECT boocoder.wait(:follow);
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT boocoder.wait(:talk);
ROLLBACK;
RESET ROLE;
