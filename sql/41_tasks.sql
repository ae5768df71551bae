-- SPDX-License-Identifier: PostgreSQL
-- Tasks: enqueue, cancel, retry, wait, watch.

CREATE FUNCTION boocoder.run(input text, project text, agent text DEFAULT NULL, model text DEFAULT NULL,
	mode text DEFAULT NULL, session bigint DEFAULT NULL, chat bigint DEFAULT NULL, priority integer DEFAULT 0,
	run_at timestamptz DEFAULT NULL, timeout interval DEFAULT NULL, max_attempts integer DEFAULT 2,
	idempotency_key text DEFAULT NULL, permission_policy text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	result bigint;
BEGIN
	IF run.chat IS NOT NULL AND run.session IS NULL THEN
		SELECT c.session_id INTO run.session FROM boocoder.chats c WHERE c.id = run.chat;
	END IF;
	INSERT INTO boocoder.tasks AS t (project_id, session_id, chat_id, agent, model, mode, input, priority, run_at,
		timeout, max_attempts, idempotency_key, permission_policy)
	VALUES (boocoder._project_id(run.project), run.session, run.chat, run.agent, run.model, run.mode, run.input,
		coalesce(run.priority, 0), run.run_at, run.timeout, coalesce(run.max_attempts, 2), run.idempotency_key,
		run.permission_policy)
	ON CONFLICT (submitted_by, idempotency_key) WHERE t.idempotency_key IS NOT NULL DO NOTHING
	RETURNING id INTO result;
	IF result IS NULL THEN
		SELECT t.id INTO STRICT result FROM boocoder.tasks t
		 WHERE t.submitted_by = current_user AND t.idempotency_key = run.idempotency_key;
	END IF;
	RETURN result;
END
$$;
COMMENT ON FUNCTION boocoder.run(text, text, text, text, text, bigint, bigint, integer, timestamptz, interval, integer, text, text) IS
	'enqueues a task; its id, or that of the task with the same idempotency key';

CREATE FUNCTION boocoder._task(task bigint) RETURNS boocoder.tasks
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
BEGIN
	SELECT * INTO t FROM boocoder.tasks x WHERE x.id = task;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no task %', task USING ERRCODE = 'BC002', HINT = 'See boocoder.ls().';
	END IF;
	RETURN t;
END
$$;
COMMENT ON FUNCTION boocoder._task(bigint) IS 'a task one may see (SQLSTATE BC002)';

CREATE FUNCTION boocoder.send(task bigint, input text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks := boocoder._task(task);
	result bigint;
BEGIN
	IF t.chat_id IS NULL THEN
		RAISE EXCEPTION 'task % has not begun: there is no chat to go on with', t.id
			USING ERRCODE = 'BC004', HINT = 'Wait for it with boocoder.wait().';
	ELSIF EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = t.chat_id AND c.closed_at IS NOT NULL) THEN
		RAISE EXCEPTION 'chat % is closed', t.chat_id
			USING ERRCODE = 'BC004', HINT = 'boocoder.run() begins another chat.';
	END IF;
	INSERT INTO boocoder.tasks (project_id, session_id, chat_id, agent, model, mode, permission_policy, input, priority, creator)
	VALUES (t.project_id, t.session_id, t.chat_id, t.agent, t.model, t.mode, t.permission_policy, send.input, t.priority, 'chat')
	RETURNING id INTO result;
	RETURN result;
END
$$;
COMMENT ON FUNCTION boocoder.send(bigint, text) IS 'a follow-up task in the same chat and worktree (SQLSTATE BC002, BC004); its id';

CREATE FUNCTION boocoder.cancel(task bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks := boocoder._task(task);
BEGIN
	-- The state is looked at under the lock: a task that is being claimed or repeated just now is neither missed nor lost.
	SELECT * INTO t FROM boocoder.tasks x WHERE x.id = task FOR NO KEY UPDATE;
	IF t.state = 'pending' THEN
		UPDATE boocoder.tasks x SET state = 'cancelled' WHERE x.id = t.id;
	ELSIF t.state IN ('running', 'blocked') THEN
		UPDATE boocoder.tasks x SET cancel_requested_at = coalesce(x.cancel_requested_at, now()), retry_requested = false WHERE x.id = t.id;
	ELSE
		RETURN false;
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION boocoder.cancel(bigint) IS
	'a pending task is cancelled at once, a running one is asked to end; false when it has ended (SQLSTATE BC002)';

CREATE FUNCTION boocoder.retry(task bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks := boocoder._task(task);
BEGIN
	UPDATE boocoder.tasks x SET state = 'pending' WHERE x.id = t.id AND x.state IN ('failed', 'cancelled');
	IF NOT FOUND THEN
		-- its agent ends first
		UPDATE boocoder.tasks x SET retry_requested = true, cancel_requested_at = coalesce(x.cancel_requested_at, now())
		 WHERE x.id = t.id AND x.state = 'blocked';
	END IF;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'task % is %: only a failed, blocked or cancelled task is retried', t.id, t.state
			USING ERRCODE = 'BC004', HINT = 'boocoder.send() goes on in the same chat.';
	END IF;
	RETURN t.id;
END
$$;
COMMENT ON FUNCTION boocoder.retry(bigint) IS 'another attempt in the same session (SQLSTATE BC002, BC004); the task''s id';

CREATE FUNCTION boocoder.inbox_retry(task bigint) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder.retry(task)
$$;
COMMENT ON FUNCTION boocoder.inbox_retry(bigint) IS 'retry(), under the name it has in the inbox';

-- A snapshot that stays, or a row that nobody else sees yet: one would wait for ever.
CREATE FUNCTION boocoder._check_wait(what text, written_by xid) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	epoch constant bigint := 4294967296;
	mine bigint := pg_current_xact_id_if_assigned()::text::bigint;
	-- a savepoint has a number of its own, behind that of its transaction
	behind bigint := (written_by::text::bigint - mine % epoch + epoch) % epoch;
BEGIN
	IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
		RAISE EXCEPTION 'a transaction that is % does not see what becomes of %', current_setting('transaction_isolation'), what
			USING ERRCODE = 'active_sql_transaction', HINT = 'Wait in a transaction that is read committed.';
	ELSIF behind < epoch / 2 AND pg_xact_status((mine + behind)::text::xid8) = 'in progress' THEN
		RAISE EXCEPTION '% was written in this transaction, and waits for its commit', what
			USING ERRCODE = 'active_sql_transaction', HINT = 'Commit first; wait in a statement of its own.';
	END IF;
END
$$;
COMMENT ON FUNCTION boocoder._check_wait(text, xid) IS 'refuses to wait for what this transaction would never see (SQLSTATE 25001)';

CREATE FUNCTION boocoder.wait(task bigint, timeout interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	until timestamptz := clock_timestamp() + timeout;
	generation bigint;
	checked boolean := false;
	t boocoder.tasks;
BEGIN
	LOOP
		generation := boocoder._change_generation();
		t := boocoder._task(task);
		EXIT WHEN t.state IN ('completed', 'failed', 'cancelled') OR clock_timestamp() >= until;
		IF NOT checked THEN
			PERFORM boocoder._check_wait('task ' || t.id, (SELECT x.xmin FROM boocoder.tasks x WHERE x.id = t.id));
			checked := true;
		END IF;
		PERFORM boocoder._wait_change(generation,
			least(1000, ceil(extract(epoch FROM until - clock_timestamp()) * 1000))::integer);
	END LOOP;
	RETURN t.state;
END
$$;
COMMENT ON FUNCTION boocoder.wait(bigint, interval) IS
	'waits until a task has ended, or the time is over; its state (SQLSTATE BC002; 25001 where the end would never be seen).  The task must be committed before.';

CREATE FUNCTION boocoder.events_since(task bigint, seq bigint DEFAULT 0) RETURNS SETOF boocoder.events
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT e.* FROM boocoder.events e WHERE e.task_id = task AND e.seq > events_since.seq ORDER BY e.seq
$$;
COMMENT ON FUNCTION boocoder.events_since(bigint, bigint) IS
	'the events of a task after a number: no gap, no duplicate, as one process writes them in the order of their numbers';

CREATE FUNCTION boocoder._event_line(kind text, payload jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE kind
		WHEN 'text' THEN payload ->> 'delta'
		WHEN 'reasoning' THEN 'thinks: ' || (payload ->> 'delta')
		WHEN 'log' THEN (payload ->> 'stream') || ': ' || rtrim(payload ->> 'text', E'\n')
		WHEN 'tool_call' THEN concat_ws(' ', 'tool', coalesce(payload ->> 'title', payload ->> 'id'), payload ->> 'status')
		WHEN 'error' THEN concat_ws(': ', 'error', payload ->> 'reason', payload ->> 'message')
		WHEN 'status' THEN '[' || (payload ->> 'phase') || ']'
		WHEN 'permission' THEN concat_ws(' ', 'permission', payload ->> 'title', payload ->> 'outcome')
		ELSE kind || ' ' || left(payload::text, 200)
	END
$$;
COMMENT ON FUNCTION boocoder._event_line(text, jsonb) IS 'an event as a line for people';

-- A procedure that commits can't have SET clauses: every name is qualified instead.
CREATE PROCEDURE boocoder.attach(task bigint, from_seq bigint DEFAULT 0)
LANGUAGE plpgsql AS $$
DECLARE
	generation bigint;
	state text;
	event record;
BEGIN
	LOOP
		generation := boocoder._change_generation();
		-- the state first: what was streamed before it ended is then there
		SELECT t.state INTO state FROM boocoder._task(task) t;
		FOR event IN SELECT e.seq, boocoder._event_line(e.kind, e.payload) AS line FROM boocoder.events_since(task, from_seq) e LOOP
			from_seq := event.seq;
			RAISE INFO '%', event.line;
		END LOOP;
		EXIT WHEN state OPERATOR(pg_catalog.=) ANY (ARRAY['completed', 'failed', 'cancelled']);
		COMMIT;
		PERFORM boocoder._wait_change(generation, 1000);
	END LOOP;
	RAISE INFO 'task % %', task, state;
END
$$;
COMMENT ON PROCEDURE boocoder.attach(bigint, bigint) IS
	'shows the events of a task as they happen (as INFO messages), and ends with it (SQLSTATE BC002)';

CREATE FUNCTION boocoder.ls(state text DEFAULT NULL, project text DEFAULT NULL)
RETURNS TABLE (id bigint, project text, agent text, state text, attempt integer, priority integer, input text,
	failure_reason text, cost_usd numeric, created_at timestamptz, started_at timestamptz, ended_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT t.id, p.name, t.agent, t.state, t.attempt, t.priority, left(t.input, 60), t.failure_reason, t.cost_usd,
		   t.created_at, t.started_at, t.ended_at
	  FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id
	 WHERE (ls.state IS NULL OR t.state = ls.state) AND (ls.project IS NULL OR p.name = ls.project)
	 ORDER BY t.id
$$;
COMMENT ON FUNCTION boocoder.ls(text, text) IS 'tasks, all or of one state or project';

CREATE FUNCTION boocoder.task_detail(task bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT to_jsonb(t) - 'fence' || jsonb_build_object(
		'project', (SELECT p.name FROM boocoder.projects p WHERE p.id = t.project_id),
		'messages', (SELECT coalesce(jsonb_agg(to_jsonb(m) || jsonb_build_object('parts',
				(SELECT coalesce(jsonb_agg(jsonb_build_object('seq', x.seq, 'kind', x.kind, 'payload', x.payload) ORDER BY x.seq), '[]')
				   FROM boocoder.message_parts x WHERE x.message_id = m.id)) ORDER BY m.id), '[]')
			FROM boocoder.messages m WHERE m.task_id = t.id),
		'usage', (SELECT coalesce(jsonb_agg(to_jsonb(u) ORDER BY u.id), '[]') FROM boocoder.usage_events u WHERE u.task_id = t.id),
		'changes', (SELECT coalesce(jsonb_agg(to_jsonb(c) ORDER BY c.id), '[]') FROM boocoder.pending_changes c WHERE c.task_id = t.id),
		'children', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', k.id, 'state', k.state, 'output_summary', k.output_summary)
				ORDER BY k.id), '[]') FROM boocoder.tasks k WHERE k.parent_task_id = t.id))
	  FROM boocoder._task(task) t
$$;
COMMENT ON FUNCTION boocoder.task_detail(bigint) IS 'one task whole: row, messages, usage, changes, children (SQLSTATE BC002)';
