-- SPDX-License-Identifier: PostgreSQL
-- What agents tell besides their work: requests for a person, modes, commands.  For the dispatcher only.

CREATE FUNCTION boocoder._paths(tool_call jsonb, worktree text) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce(array_agg(DISTINCT CASE WHEN starts_with(p.path, worktree || '/') THEN substr(p.path, length(worktree) + 2)
											ELSE p.path END), '{}')
	  FROM (SELECT jsonb_path_query(tool_call, 'lax $.locations[*].path') #>> '{}'
			UNION ALL
			SELECT jsonb_path_query(tool_call, 'lax $.content[*].path') #>> '{}'
			UNION ALL
			SELECT jsonb_path_query(tool_call, 'lax $.raw_input ? (@.type() == "object").keyvalue() ? (@.key like_regex "^(file_?path|path|abs_path|notebook_path)$" flag "i").value') #>> '{}'
		   ) p (path)
	 WHERE p.path IS NOT NULL
$$;
COMMENT ON FUNCTION boocoder._paths(jsonb, text) IS 'the files a tool call names, relative to the worktree where they lie in it';

CREATE FUNCTION boocoder._command(tool_call jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE jsonb_typeof(tool_call #> '{raw_input,command}')
		WHEN 'string' THEN tool_call #>> '{raw_input,command}'
		WHEN 'array' THEN (SELECT string_agg(c, ' ') FROM jsonb_array_elements_text(tool_call #> '{raw_input,command}') c)
		ELSE CASE WHEN tool_call ->> 'kind' = 'execute' THEN tool_call ->> 'title' END
	END
$$;
COMMENT ON FUNCTION boocoder._command(jsonb) IS 'the shell command of a tool call';

-- The most conditions win, then the narrowest scope, then the strictest answer.  What a user said of a task never
-- turns the reject of an administrator into something milder.
CREATE FUNCTION boocoder._verdict(t boocoder.tasks, tool_call jsonb, OUT answer text, OUT rule text) RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	paths text[];
	kind text := coalesce(tool_call ->> 'kind', 'other');
	command text := boocoder._command(tool_call);
	c record;
BEGIN
	SELECT boocoder._paths(tool_call, w.path) INTO paths
	  FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL;
	FOR c IN
		SELECT r.answer, 'rule ' || r.id AS name,
			   (r.tool_kind IS NOT NULL)::integer + (r.path_pattern IS NOT NULL)::integer
				+ (r.command_pattern IS NOT NULL)::integer AS conditions,
			   CASE WHEN r.task_id IS NOT NULL THEN 3 WHEN r.project_id IS NOT NULL THEN 2
					WHEN r.provider IS NOT NULL THEN 1 ELSE 0 END AS scope
		  FROM boocoder.permission_rules r
		 WHERE (r.task_id IS NULL OR r.task_id = t.id) AND (r.project_id IS NULL OR r.project_id = t.project_id)
		   AND (r.provider IS NULL OR r.provider = t.agent)
		   AND (r.tool_kind IS NULL OR r.tool_kind = kind)
		   AND (r.command_pattern IS NULL OR command LIKE r.command_pattern)
		   AND (r.path_pattern IS NULL OR CASE r.answer
				WHEN 'allow' THEN cardinality(paths) > 0 AND NOT EXISTS (
					SELECT 1 FROM unnest(paths) x WHERE x NOT LIKE r.path_pattern OR x ~ '(^|/)[.][.](/|$)')
				ELSE EXISTS (SELECT 1 FROM unnest(paths) x WHERE x LIKE r.path_pattern) END)
		UNION ALL
		SELECT t.permission_policy, 'policy of the task', 0, 3 WHERE t.permission_policy IS NOT NULL
		UNION ALL
		SELECT p.permission_policy, 'policy of the project', 0, 2
		  FROM boocoder.projects p WHERE p.id = t.project_id AND p.permission_policy IS NOT NULL
		UNION ALL
		SELECT v.permission_policy, 'policy of the provider', 0, 1 FROM boocoder.providers v WHERE v.name = t.agent
		 ORDER BY 3 DESC, 4 DESC, 1 DESC		-- reject, ask, allow: the alphabet has them from strict to mild
	LOOP
		IF answer IS NULL THEN
			answer := c.answer;
			rule := c.name;
			EXIT WHEN c.scope < 3 OR c.answer = 'reject';
		ELSIF c.scope < 3 THEN
			IF c.answer = 'reject' THEN
				answer := c.answer;
				rule := c.name;
			END IF;
			EXIT;
		END IF;
	END LOOP;
	answer := coalesce(answer, 'reject');
END
$$;
COMMENT ON FUNCTION boocoder._verdict(boocoder.tasks, jsonb) IS 'what the rules answer to a tool call of a task: allow, reject or ask; and which one does';

-- Once rather than always: an answer is for this request.
CREATE FUNCTION boocoder._option(options jsonb, answer text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT o ->> 'optionId' FROM jsonb_array_elements(options) WITH ORDINALITY AS x (o, n)
	 WHERE o ->> 'kind' IN (answer || '_once', answer || '_always')
	 ORDER BY o ->> 'kind' DESC, n LIMIT 1
$$;
COMMENT ON FUNCTION boocoder._option(jsonb, text) IS 'the option of a request that means allow or reject';

CREATE FUNCTION boocoder._ask(t boocoder.tasks, payload jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	r boocoder.permission_requests;
	verdict record;
	timeout_ms bigint := (boocoder._host() ->> 'permission_timeout_ms')::bigint;
BEGIN
	r.kind := CASE payload ->> 'kind' WHEN 'elicitation' THEN 'elicitation' ELSE 'permission' END;
	r.options := boocoder._array(payload -> 'options');
	r.status := 'pending';
	IF r.kind = 'permission' THEN
		verdict := boocoder._verdict(t, coalesce(payload -> 'tool_call', '{}'));
		IF verdict.answer <> 'ask' THEN
			r.status := 'answered';
			r.chosen_option := boocoder._option(r.options, verdict.answer);
			r.rule := verdict.rule;
			r.answered_at := clock_timestamp();
		END IF;
	END IF;
	INSERT INTO boocoder.permission_requests (task_id, fence, request, kind, message, schema, tool_call, options, status,
		chosen_option, rule, answered_at, deadline)
	VALUES (t.id, t.fence, coalesce(payload ->> 'request', ''), r.kind, payload ->> 'message', payload -> 'schema',
		payload -> 'tool_call', r.options, r.status, r.chosen_option, r.rule, r.answered_at,
		CASE WHEN r.status = 'pending' AND timeout_ms > 0 THEN clock_timestamp() + make_interval(secs => timeout_ms / 1000.0) END)
	ON CONFLICT DO NOTHING;
	PERFORM boocoder._wake_now();
END
$$;
COMMENT ON FUNCTION boocoder._ask(boocoder.tasks, jsonb) IS 'records a request of an agent: answered by a rule, or left to a person';

-- Rows that a client holds a lock on are left out: what they would have told is said again, or less than the others' events.
CREATE FUNCTION boocoder._note(e boocoder.events) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
BEGIN
	SELECT * INTO t FROM boocoder.tasks x WHERE x.id = e.task_id;
	IF e.kind = 'permission_request' THEN
		PERFORM boocoder._ask(t, e.payload);
		RETURN;
	ELSIF e.kind = 'permission_withdrawn' THEN
		-- who is answering it right now is too late: the agent leaves that answer unread
		UPDATE boocoder.permission_requests r SET status = 'cancelled', delivered_at = now()
		 WHERE r.id IN (SELECT q.id FROM boocoder.permission_requests q
						 WHERE q.task_id = t.id AND q.fence = t.fence AND q.request = e.payload ->> 'request' AND q.status = 'pending'
						   FOR NO KEY UPDATE SKIP LOCKED);
		PERFORM boocoder._wake_now();
		RETURN;
	END IF;

	PERFORM 1 FROM boocoder.sessions s, boocoder.chats c
	 WHERE s.id = t.session_id AND c.id = t.chat_id FOR KEY SHARE OF s SKIP LOCKED FOR NO KEY UPDATE OF c SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	PERFORM 1 FROM boocoder.agent_sessions s WHERE s.chat_id = t.chat_id AND s.agent = t.agent FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		PERFORM 1 FROM boocoder.agent_sessions s WHERE s.chat_id = t.chat_id AND s.agent = t.agent;
		IF FOUND THEN
			RETURN;
		END IF;
		INSERT INTO boocoder.agent_sessions (chat_id, agent, session_id, worktree_id, status)
		VALUES (t.chat_id, t.agent, t.session_id,
			(SELECT w.id FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL FOR KEY SHARE SKIP LOCKED),
			'active');
	END IF;
	IF e.kind = 'command' THEN
		DELETE FROM boocoder.agent_commands c WHERE c.chat_id = t.chat_id AND c.agent = t.agent;
		INSERT INTO boocoder.agent_commands (chat_id, agent, name, description, hint)
		SELECT DISTINCT ON (c ->> 'name') t.chat_id, t.agent, c ->> 'name', c ->> 'description',
			   coalesce(c ->> 'hint', c #>> '{input,hint}')
		  FROM jsonb_array_elements(boocoder._array(e.payload -> 'commands')) WITH ORDINALITY AS x (c, n)
		 WHERE c ->> 'name' IS NOT NULL ORDER BY c ->> 'name', n;
		RETURN;
	END IF;
	UPDATE boocoder.agent_sessions s
	   SET mode = CASE e.kind WHEN 'mode' THEN coalesce(e.payload ->> 'mode', s.mode)
							  WHEN 'modes' THEN coalesce(e.payload ->> 'current', s.mode) ELSE s.mode END,
		   wanted_mode = CASE e.kind WHEN 'mode_failed' THEN NULL ELSE s.wanted_mode END,
		   mode_error = CASE e.kind WHEN 'mode_failed' THEN e.payload ->> 'message' WHEN 'mode' THEN NULL ELSE s.mode_error END,
		   modes = CASE WHEN e.kind = 'modes' THEN boocoder._array(e.payload -> 'modes') ELSE s.modes END,
		   models = CASE WHEN e.kind = 'models' THEN boocoder._array(e.payload -> 'models') ELSE s.models END,
		   model = CASE e.kind WHEN 'models' THEN coalesce(e.payload ->> 'current', s.model) ELSE s.model END,
		   title = CASE e.kind WHEN 'title' THEN e.payload ->> 'title' ELSE s.title END,
		   plan = CASE e.kind WHEN 'plan' THEN e.payload -> 'entries' ELSE s.plan END,
		   status = 'active',
		   last_active_at = now()
	 WHERE s.chat_id = t.chat_id AND s.agent = t.agent;
END
$$;
COMMENT ON FUNCTION boocoder._note(boocoder.events) IS 'takes note of an event that tells more than what the agent does';

-- What the dispatcher is to tell agents: answers, and modes asked for; and which tasks wait for a person now.
CREATE FUNCTION boocoder._attend() RETURNS TABLE (kind text, task_id bigint, fence bigint, answer jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	r record;
BEGIN
	-- what was being answered when its agent ended
	UPDATE boocoder.permission_requests x SET status = 'cancelled', delivered_at = now()
	 WHERE x.id IN (SELECT q.id FROM boocoder.permission_requests q
					 WHERE q.status = 'pending'
					   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = q.task_id AND t.fence = q.fence)
					   FOR NO KEY UPDATE SKIP LOCKED);
	FOR r IN
		SELECT q.id, q.options FROM boocoder.permission_requests q
		 WHERE q.status = 'pending' AND q.deadline <= now() FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		UPDATE boocoder.permission_requests q
		   SET status = 'expired', answered_at = now(), rule = 'deadline', chosen_option = boocoder._option(r.options, 'reject')
		 WHERE q.id = r.id;
	END LOOP;

	kind := 'answer';
	FOR r IN
		SELECT q.id, q.task_id, q.fence, q.kind, q.request, q.chosen_option, q.content, q.rule
		  FROM boocoder.permission_requests q JOIN boocoder.tasks t ON t.id = q.task_id AND t.fence = q.fence
		 WHERE q.delivered_at IS NULL AND q.status IN ('answered', 'expired') ORDER BY q.id FOR NO KEY UPDATE OF q SKIP LOCKED
	LOOP
		UPDATE boocoder.permission_requests q SET delivered_at = now() WHERE q.id = r.id;
		task_id := r.task_id;
		fence := r.fence;
		answer := jsonb_build_object('request', r.request, 'kind', r.kind, 'option', r.chosen_option,
			'content', r.content, 'rule', r.rule);
		RETURN NEXT;
	END LOOP;
	FOR r IN
		SELECT s.chat_id, s.agent, s.wanted_mode, t.id, t.fence
		  FROM boocoder.tasks t JOIN boocoder.agent_sessions s ON s.chat_id = t.chat_id AND s.agent = t.agent
		 WHERE t.state IN ('running', 'blocked') AND s.mode_sent_at IS NULL AND s.wanted_mode IS NOT NULL
		   AND s.mode_asked_at > t.started_at
		   FOR NO KEY UPDATE OF s SKIP LOCKED
	LOOP
		UPDATE boocoder.agent_sessions s SET mode_sent_at = now() WHERE s.chat_id = r.chat_id AND s.agent = r.agent;
		task_id := r.id;
		fence := r.fence;
		answer := jsonb_build_object('request', 'mode', 'mode', r.wanted_mode);
		RETURN NEXT;
	END LOOP;

	answer := NULL;
	FOR kind, task_id, fence IN
		SELECT CASE t.state WHEN 'running' THEN 'blocked' ELSE 'unblocked' END, t.id, t.fence FROM boocoder.tasks t
		 WHERE t.state IN ('running', 'blocked')
		   AND (t.state = 'blocked') <> EXISTS (SELECT 1 FROM boocoder.permission_requests q
												 WHERE q.task_id = t.id AND q.status = 'pending' AND q.fence = t.fence)
		   FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		UPDATE boocoder.tasks t SET state = CASE _attend.kind WHEN 'blocked' THEN 'blocked' ELSE 'running' END WHERE t.id = _attend.task_id;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION boocoder._attend() IS 'answers and modes to pass on, tasks that begin or cease to wait for a person';
