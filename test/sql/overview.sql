-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
SET ROLE regress_alice;
SELECT boocoder.run('fails', 'alpha'), boocoder.run('ends well', 'alpha', model => 'small'), boocoder.run('waits', 'common', run_at => now() + interval '1 day');
SET ROLE boocoder_worker;
SELECT boocoder._start(0);
SELECT count(*) FROM pg_temp.claim(9);
SELECT pg_temp.settle(1, NULL, '{"outcome": "failed", "reason": "exit_nonzero", "message": "exit status 1", "summary": "I could not",
	"usage": {"input_tokens": 10, "output_tokens": 1, "cost_usd": 0.01}}');
SELECT pg_temp.settle(2, NULL, '{"summary": "done", "usage": {"input_tokens": 20, "output_tokens": 2, "cost_usd": 0.02, "model": "large"}}');
RESET ROLE;
INSERT INTO boocoder.tasks (project_id, input, state, submitted_by) VALUES (1, 'asks', 'blocked', 'regress_alice');
SET ROLE regress_alice;
SELECT task_id, project, agent, state, reason, error, last_output, attempt, age < interval '1 hour' AS fresh, what_to_do
  FROM boocoder.inbox ORDER BY task_id;
SELECT id, project, agent, state, attempt, input, failure_reason, cost_usd FROM boocoder.ls();
SELECT id FROM boocoder.ls('failed');
SELECT id FROM boocoder.ls(project => 'common');
SELECT id FROM boocoder.ls('pending', 'alpha');
SELECT * FROM boocoder.cost_stats();
SELECT * FROM boocoder.cost_stats('agent');
SELECT * FROM boocoder.cost_stats('model');
SELECT key = to_char(now(), 'YYYY-MM-DD') AS today, tasks, cost_usd FROM boocoder.cost_stats('day');
SELECT * FROM boocoder.cost_stats('project', since => now() + interval '1 hour');
SELECT * FROM boocoder.cost_stats('project', until => now() - interval '1 hour');
SELECT * FROM boocoder.cost_stats('weather');
SELECT * FROM boocoder.cost_stats(NULL);
SELECT d ->> 'state' AS state, d ->> 'project' AS project, jsonb_array_length(d -> 'messages') AS messages,
	   d -> 'messages' -> 0 -> 'parts' -> 0 -> 'payload' ->> 'text' AS input, jsonb_array_length(d -> 'usage') AS usage,
	   d -> 'changes' AS changes, d -> 'children' AS children, d ? 'fence' AS fence FROM boocoder.task_detail(2) d;
SELECT pending, running, blocked, jobs FROM boocoder.status;
-- doctor() never fails, whoever asks; the checks of the host are for administrators.
SELECT "check", status FROM boocoder.doctor() WHERE "check" NOT IN ('preload', 'dispatcher') ORDER BY 1;
SELECT count(*) FROM boocoder.doctor() WHERE "check" IN ('preload', 'dispatcher') AND status IN ('ok', 'error') AND detail IS NOT NULL;
SET ROLE regress_viewer;
SELECT count(*) > 0 AS answers FROM boocoder.doctor();
SET ROLE regress_admin;
SELECT bool_and(status IN ('ok', 'warning', 'error')) AS statuses, bool_or("check" = 'project "alpha"') AS alpha,
	   bool_or("check" = 'project "old"') AS archived FROM boocoder.doctor();

-- A condition on the view of tools reaches an index, however many parts there are.
RESET ROLE;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
CREATE FUNCTION pg_temp.plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS off) ' || query; END$$;
SELECT bool_or(p ~ 'message_parts_tools') AS by_task FROM pg_temp.plan('SELECT * FROM boocoder.tool_timeline WHERE task_id = 1') p;
RESET enable_seqscan;
RESET enable_bitmapscan;
