-- SPDX-License-Identifier: PostgreSQL
-- People answer what agents ask.

CREATE FUNCTION boocoder._request(request bigint) RETURNS boocoder.permission_requests
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	r boocoder.permission_requests;
BEGIN
	SELECT * INTO r FROM boocoder.permission_requests x WHERE x.id = _request.request;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no request %', _request.request USING ERRCODE = 'BC002', HINT = 'See boocoder.inbox.';
	END IF;
	RETURN r;
END
$$;
COMMENT ON FUNCTION boocoder._request(bigint) IS 'a request one may see (SQLSTATE BC002)';

CREATE FUNCTION boocoder._check_answered(done boolean, request bigint) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT done THEN
		RAISE EXCEPTION 'request % is not yours to answer', request
			USING ERRCODE = 'BC002', HINT = 'Its project is one that you do not see any more.';
	END IF;
END
$$;
COMMENT ON FUNCTION boocoder._check_answered(boolean, bigint) IS 'refuses an answer that reached no row (SQLSTATE BC002)';

CREATE FUNCTION boocoder.answer_permission(request bigint, option text) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	r boocoder.permission_requests := boocoder._request(request);
	chosen text := option;
BEGIN
	IF r.kind <> 'permission' THEN
		RAISE EXCEPTION 'request % asks for more than a choice', r.id
			USING ERRCODE = 'BC005', HINT = 'Answer it with boocoder.answer_elicitation().';
	ELSIF option IN ('allow', 'reject') AND NOT EXISTS (
			SELECT 1 FROM jsonb_array_elements(r.options) o WHERE o ->> 'optionId' = option) THEN
		chosen := boocoder._option(r.options, option);
	END IF;
	UPDATE boocoder.permission_requests x SET status = 'answered', chosen_option = coalesce(chosen, option) WHERE x.id = r.id;
	PERFORM boocoder._check_answered(FOUND, r.id);
	RETURN coalesce(chosen, option);
END
$$;
COMMENT ON FUNCTION boocoder.answer_permission(bigint, text) IS
	'answers a request by one of its options, or by allow or reject; the option (SQLSTATE BC001, BC002, BC005)';

CREATE FUNCTION boocoder.answer_elicitation(request bigint, content jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	r boocoder.permission_requests := boocoder._request(request);
BEGIN
	IF r.kind <> 'elicitation' OR jsonb_typeof(content) <> 'object' THEN
		RAISE EXCEPTION 'request % is not answered that way', r.id
			USING ERRCODE = 'BC005', HINT = CASE r.kind WHEN 'elicitation' THEN 'The answer is an object as the schema of the request says, or NULL to decline.'
				ELSE 'Use boocoder.answer_permission().' END;
	END IF;
	UPDATE boocoder.permission_requests x
	   SET status = 'answered', content = answer_elicitation.content,
		   chosen_option = CASE WHEN answer_elicitation.content IS NULL THEN 'decline' ELSE 'accept' END
	 WHERE x.id = r.id;
	PERFORM boocoder._check_answered(FOUND, r.id);
END
$$;
COMMENT ON FUNCTION boocoder.answer_elicitation(bigint, jsonb) IS
	'answers a question of an agent by an object as its schema says; NULL declines (SQLSTATE BC001, BC002, BC005)';

CREATE FUNCTION boocoder.add_permission_rule(answer text, provider text DEFAULT NULL, project text DEFAULT NULL, task bigint DEFAULT NULL,
	tool_kind text DEFAULT NULL, path_pattern text DEFAULT NULL, command_pattern text DEFAULT NULL) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	INSERT INTO boocoder.permission_rules (answer, provider, project_id, task_id, tool_kind, path_pattern, command_pattern)
	VALUES (answer, provider, CASE WHEN project IS NOT NULL THEN boocoder._project_id(project) END,
		CASE WHEN task IS NOT NULL THEN (SELECT t.id FROM boocoder._task(task) t) END, tool_kind, path_pattern, command_pattern)
	RETURNING id
$$;
COMMENT ON FUNCTION boocoder.add_permission_rule(text, text, text, bigint, text, text, text) IS
	'allow, reject or ask, for a provider, a project, a task, a kind of tool, paths or commands (LIKE patterns); users may make rules for tasks (SQLSTATE BC002)';

CREATE FUNCTION boocoder.remove_permission_rule(rule bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.permission_rules r SET discarded = true WHERE r.id = rule;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION boocoder.remove_permission_rule(bigint) IS
	'removes a rule: users those that they made for tasks, administrators any; false when there is none';
