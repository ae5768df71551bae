-- SPDX-License-Identifier: PostgreSQL
-- Agents: what would be run, what there is, in which mode.

CREATE FUNCTION boocoder.launch_spec(agent text, OUT "binary" text, OUT args text[], OUT env jsonb) RETURNS record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT x.argv[1], coalesce(x.argv[2:], '{}'), v.env
	  FROM boocoder.providers v
	  LEFT JOIN boocoder.available_agents a ON a.name = v.name
	 CROSS JOIN LATERAL boocoder._argv(v, a.install_path) x (argv)
	 WHERE v.name = agent
$$;
COMMENT ON FUNCTION boocoder.launch_spec(text) IS
	'what would be run for an agent; a name without a slash is looked up on boocoder.agent_path; for administrators, as the environment may hold secrets';

CREATE FUNCTION boocoder._probe(agent text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	n bigint;
BEGIN
	INSERT INTO boocoder.jobs (kind, provider)
	SELECT 'probe', v.name FROM boocoder.providers v
	 WHERE v.enabled AND v.transport <> 'native' AND (agent IS NULL OR v.name = agent)
	ON CONFLICT (provider) WHERE kind = 'probe' AND state IN ('queued', 'running') DO NOTHING;
	GET DIAGNOSTICS n = ROW_COUNT;
	IF n > 0 THEN
		PERFORM boocoder._wake_now();
	END IF;
	RETURN n;
END
$$;
COMMENT ON FUNCTION boocoder._probe(text) IS 'asks the dispatcher to look at one agent, or at all that are enabled; how many looks that adds';

CREATE FUNCTION boocoder.probe_agents(agent text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF agent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM boocoder.providers v WHERE v.name = agent) THEN
		RAISE EXCEPTION 'there is no provider "%"', agent USING ERRCODE = 'BC002', HINT = 'See boocoder.provider_snapshot().';
	END IF;
	RETURN boocoder._probe(agent);
END
$$;
COMMENT ON FUNCTION boocoder.probe_agents(text) IS
	'looks at the agents again, after commit: program, version, models, modes; how many looks that adds (SQLSTATE BC002)';

CREATE FUNCTION boocoder.provider_snapshot() RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	ttl_ms bigint := boocoder._probe_ttl_ms();
	stale text;
BEGIN
	IF ttl_ms > 0 AND NOT current_setting('transaction_read_only')::boolean THEN
		FOR stale IN
			SELECT v.name FROM boocoder.providers v LEFT JOIN boocoder.available_agents a ON a.name = v.name
			 WHERE v.enabled AND (a.probed_at IS NULL OR a.probed_at < now() - make_interval(secs => ttl_ms / 1000.0))
		LOOP
			PERFORM boocoder._probe(stale);
		END LOOP;
	END IF;
	RETURN (
		SELECT coalesce(jsonb_agg(jsonb_build_object(
			'id', v.name, 'label', v.label, 'enabled', v.enabled, 'builtin', v.builtin,
			'status', CASE WHEN v.transport = 'native' THEN 'unavailable' ELSE coalesce(a.status, 'loading') END,
			'reason', CASE WHEN v.transport = 'native' THEN 'transport_unsupported' ELSE a.reason END,
			'message', a.message, 'version', a.version, 'install_path', a.install_path,
			'transport', v.transport, 'fallback', v.fallback, 'supports_acp', coalesce(a.supports_acp, false),
			-- what an administrator lists overrides what was found
			'models', CASE WHEN jsonb_array_length(v.models) > 0 THEN v.models ELSE coalesce(a.models, '[]') END,
			'default_model', coalesce(v.default_model, a.current_model),
			'modes', CASE WHEN jsonb_array_length(v.modes) > 0 THEN v.modes ELSE coalesce(a.modes, '[]') END,
			'default_mode', a.current_mode, 'commands', coalesce(a.commands, '[]'),
			'probed_at', a.probed_at,
			'probing', EXISTS (SELECT 1 FROM boocoder.jobs j
								WHERE j.kind = 'probe' AND j.provider = v.name AND j.state IN ('queued', 'running')))
			ORDER BY v.name), '[]')
		  FROM boocoder.providers v LEFT JOIN boocoder.available_agents a ON a.name = v.name);
END
$$;
COMMENT ON FUNCTION boocoder.provider_snapshot() IS
	'each agent with status (ready, unavailable, error, loading), version, models, modes, commands, transport and its fallback; looks again when it is older than boocoder.probe_ttl';

CREATE FUNCTION boocoder.set_mode(chat bigint, agent text, mode text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	of_session bigint;
	known jsonb;
BEGIN
	SELECT c.session_id INTO of_session FROM boocoder.chats c WHERE c.id = chat;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no chat %', chat USING ERRCODE = 'BC002';
	ELSIF NOT EXISTS (SELECT 1 FROM boocoder.providers v WHERE v.name = agent) THEN
		RAISE EXCEPTION 'there is no provider "%"', agent USING ERRCODE = 'BC002', HINT = 'See boocoder.provider_snapshot().';
	END IF;
	SELECT s.modes INTO known FROM boocoder.agent_sessions s WHERE s.chat_id = chat AND s.agent = set_mode.agent;
	IF jsonb_array_length(known) > 0 AND NOT EXISTS (SELECT 1 FROM jsonb_array_elements(known) m WHERE m ->> 'id' = mode) THEN
		RAISE EXCEPTION 'agent "%" has no mode "%"', agent, mode
			USING ERRCODE = 'BC005', HINT = 'It has: ' || (SELECT string_agg(m ->> 'id', ', ') FROM jsonb_array_elements(known) m);
	END IF;
	INSERT INTO boocoder.agent_sessions AS s (chat_id, agent, session_id, wanted_mode, mode_asked_at)
	VALUES (chat, agent, of_session, mode, clock_timestamp())
	ON CONFLICT ON CONSTRAINT agent_sessions_pkey DO UPDATE
	   SET wanted_mode = EXCLUDED.wanted_mode, mode_asked_at = EXCLUDED.mode_asked_at, mode_sent_at = NULL, mode_error = NULL;
	PERFORM boocoder._wake_now();
END
$$;
COMMENT ON FUNCTION boocoder.set_mode(bigint, text, text) IS
	'asks an agent for a mode, now if it runs, and for the turns that follow; agent_sessions.mode tells once the agent has agreed, mode_error when it has not (SQLSTATE BC002, BC005)';

CREATE FUNCTION boocoder._tool_timeline()
RETURNS TABLE (task_id bigint, message_id bigint, seq integer, tool_call_id text, kind text, title text, status text,
	locations jsonb, raw_input jsonb, started_at timestamptz, ended_at timestamptz, duration interval)
LANGUAGE sql STABLE
-- Its names are resolved when it is made.  A SET would keep the planner from looking into it, and a condition on the
-- view from reaching the index.
BEGIN ATOMIC
	SELECT p.task_id, p.message_id, p.seq, p.payload ->> 'id', p.payload ->> 'kind', p.payload ->> 'title', p.payload ->> 'status',
		   p.payload -> 'locations', p.payload -> 'raw_input', to_timestamp((p.payload ->> 'started_ms')::numeric / 1000),
		   to_timestamp((p.payload ->> 'ended_ms')::numeric / 1000),
		   make_interval(secs => ((p.payload ->> 'ended_ms')::numeric - (p.payload ->> 'started_ms')::numeric)::double precision / 1000)
	  FROM boocoder.message_parts p WHERE p.kind = 'tool_call';
END;
COMMENT ON FUNCTION boocoder._tool_timeline() IS 'the rows of the view tool_timeline';
CREATE VIEW boocoder.tool_timeline AS SELECT * FROM boocoder._tool_timeline();
COMMENT ON VIEW boocoder.tool_timeline IS 'what tools agents used, on what, how long and with what end';
