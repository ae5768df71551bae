-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
SET ROLE regress_alice;
SELECT boocoder.run(i, 'alpha') FROM unnest('{one,two}'::text[]) i;
SET ROLE boocoder_worker;
SELECT boocoder._start(0);
SELECT * FROM pg_temp.claim(9);
-- The order of payloads, and of events within them, is the order of seq.
SELECT boocoder._append(ARRAY[1, 2, 1], ARRAY[pg_temp.fence(1), pg_temp.fence(2), pg_temp.fence(1)], ARRAY[
	'{"events": [{"kind": "text", "payload": {"delta": "a"}}, {"kind": "text", "payload": {"delta": "b"}}]}',
	'{"events": [{"kind": "reasoning", "payload": {"delta": "c"}}],
	  "parts": [{"seq": 1, "kind": "reasoning", "payload": {"text": "c"}}]}',
	'{"events": [{"kind": "text", "payload": {"delta": "d"}}], "parts": [{"seq": 2, "kind": "tool_call", "payload": {"id": "1"}},
	  {"seq": 1, "kind": "text", "payload": {"text": "abd"}}]}']::jsonb[]);
SELECT seq, task_id, chat_id, kind, payload FROM boocoder.events ORDER BY seq;
SELECT p.message_id = t.message_id AS current, p.task_id, p.seq, p.kind, p.payload
  FROM boocoder.message_parts p JOIN boocoder.tasks t ON t.id = p.task_id WHERE p.message_id = t.message_id ORDER BY 2, 3;
-- Nothing to store.
SELECT boocoder._append('{}', '{}', '{}') AS nothing;
SELECT boocoder._append('{1}', ARRAY[pg_temp.fence(1)], ARRAY['{}'::jsonb]) AS nothing;
SELECT boocoder._append('{1}', ARRAY[pg_temp.fence(1)], ARRAY['{"events": []}'::jsonb]) AS nothing;
-- An old fence, and a task that is not there, are left out; the others are not.
SELECT boocoder._append('{1,1,99,2}', ARRAY[pg_temp.fence(1) - 100, NULL, 1, pg_temp.fence(2)],
	ARRAY(SELECT jsonb_build_object('events', jsonb_build_array(jsonb_build_object('kind', 'log', 'payload', jsonb_build_object('n', n))))
		  FROM generate_series(1, 4) n));
SELECT task_id, payload FROM boocoder.events WHERE kind = 'log';
-- Bad payloads are refused whole.
SELECT e, pg_temp.attempt(format('SELECT boocoder._append(%L, %L, ARRAY[%L::jsonb])', '{1}', ARRAY[pg_temp.fence(1)], e))
  FROM unnest(ARRAY['{"events": {}}', '{"events": [{"payload": {}}]}', '{"events": [{"kind": "text"}]}', '{"events": [1]}',
	'{"parts": [{"seq": 1, "kind": "text", "payload": {}}]}', '{"parts": [{"seq": 9, "kind": "nonsense", "payload": {}}]}',
	'{"parts": [{"kind": "text", "payload": {}}]}', '{"parts": [{"seq": "x", "kind": "text", "payload": {}}]}',
	'{"events": [{"kind": "text", "payload": {"delta": "kept?"}}], "parts": [{"seq": 1, "kind": "text", "payload": {}}]}']) e;
SELECT count(*) FROM boocoder.events WHERE payload ->> 'delta' = 'kept?';
-- events_since(): the exact remainder.
SET ROLE regress_alice;
SELECT seq, kind FROM boocoder.events_since(1);
SELECT seq, kind FROM boocoder.events_since(1, 1);
SELECT seq, kind FROM boocoder.events_since(task => 1, seq => 1000);
-- Append-only, for the owner too; the events of a task go with it.
RESET ROLE;
UPDATE boocoder.events SET payload = '{}';
SET ROLE boocoder_worker;
SELECT pg_temp.settle(1), pg_temp.settle(2);
SELECT boocoder._append('{1}', '{1}', ARRAY['{"events": [{"kind": "text", "payload": {"delta": "after the end"}}]}'::jsonb]);
RESET ROLE;
DELETE FROM boocoder.tasks WHERE id = 1;
SELECT task_id, count(*) FROM boocoder.events GROUP BY 1;
