-- SPDX-License-Identifier: PostgreSQL
-- From 0.5.0 to 0.6.0: no client, and no row, keeps the dispatcher from the work of others.
\echo Use "ALTER EXTENSION boocoder UPDATE" to load this file. \quit

-- Rows that the constraints below would refuse.
UPDATE boocoder.tasks SET run_at = CASE WHEN run_at < now() THEN NULL ELSE '9999-12-31 00:00:00+00'::timestamptz END
 WHERE NOT isfinite(run_at);
UPDATE boocoder.permission_rules SET path_pattern = path_pattern || E'\\' WHERE path_pattern ~ E'(^|[^\\\\])(\\\\\\\\)*\\\\$';
UPDATE boocoder.permission_rules SET command_pattern = command_pattern || E'\\' WHERE command_pattern ~ E'(^|[^\\\\])(\\\\\\\\)*\\\\$';
-- Requests that nobody can carry out.
UPDATE boocoder.worktrees SET request = NULL, request_error = 'not understood'
 WHERE request IS NOT NULL
   AND (coalesce(request ->> 'do', '') NOT IN ('stash', 'restore', 'rewind', 'edit') OR coalesce(request ->> 'task', '0') !~ '^[0-9]{1,18}$');

ALTER TABLE boocoder.tasks ADD CONSTRAINT tasks_run_at_finite CHECK (isfinite(run_at));
ALTER TABLE boocoder.permission_rules
	ADD CONSTRAINT permission_rules_path_pattern_ends CHECK (path_pattern !~ E'(^|[^\\\\])(\\\\\\\\)*\\\\$'),
	ADD CONSTRAINT permission_rules_command_pattern_ends CHECK (command_pattern !~ E'(^|[^\\\\])(\\\\\\\\)*\\\\$'),
	ADD COLUMN discarded boolean NOT NULL DEFAULT false;
ALTER TABLE boocoder.sessions ADD COLUMN discarded boolean NOT NULL DEFAULT false;
ALTER TABLE boocoder.chats ADD COLUMN discarded boolean NOT NULL DEFAULT false;
ALTER TABLE boocoder.worktrees ADD COLUMN changes_at timestamptz;
COMMENT ON COLUMN boocoder.sessions.discarded IS 'true deletes the row';
COMMENT ON COLUMN boocoder.chats.discarded IS 'true deletes the row';
COMMENT ON COLUMN boocoder.permission_rules.discarded IS 'true deletes the row';
COMMENT ON COLUMN boocoder.worktrees.changes_at IS 'when the changes of a turn were stored last: what was offered before is out of date';
CREATE INDEX tasks_chat ON boocoder.tasks (chat_id) WHERE chat_id IS NOT NULL;
CREATE INDEX message_parts_tools ON boocoder.message_parts (task_id, message_id, seq) WHERE kind = 'tool_call';
CREATE INDEX pending_changes_applied ON boocoder.pending_changes (session_id, path) WHERE status = 'applied';
-- Two in the trash may have the same: who takes one back leases others.
UPDATE boocoder.worktrees SET port_first = NULL WHERE status <> 'removed' AND deleted_at IS NOT NULL;
CREATE INDEX worktrees_session ON boocoder.worktrees (session_id);
DROP INDEX boocoder.worktrees_ports;
CREATE UNIQUE INDEX worktrees_ports ON boocoder.worktrees (port_first) WHERE status <> 'removed' AND port_first IS NOT NULL;

ALTER TABLE boocoder.pending_changes ALTER COLUMN diff SET STORAGE EXTERNAL;
COMMENT ON COLUMN boocoder.projects.allowed_read_paths IS 'absolute paths that its agents can read besides, in the sandbox';

DROP FUNCTION boocoder._make_jobs();
DROP FUNCTION boocoder._candidate(bigint[], bigint[], bigint[], boolean);

-- Functions.

CREATE FUNCTION boocoder._refuse_delete() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RAISE EXCEPTION 'an agent is at work on task %', OLD.id
		USING ERRCODE = 'BC004', HINT = 'Cancel it first: boocoder.cancel().';
END
$$;
COMMENT ON FUNCTION boocoder._refuse_delete() IS 'trigger: keeps a task while its agent is at work (SQLSTATE BC004)';

CREATE OR REPLACE FUNCTION boocoder._guard_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF (OLD.status, NEW.status) IN (('pending', 'applying'), ('pending', 'rejected'),
									('conflict', 'applying'), ('conflict', 'rejected')) THEN
		-- only a function that decides for somebody may say who
		IF NEW.decided_by IS NOT DISTINCT FROM OLD.decided_by THEN
			NEW.decided_by := current_user;
		END IF;
		NEW.decided_at := now();
		NEW.job_id := NULL;
		NEW.error := NULL;
		PERFORM boocoder._wake_now();
	ELSIF (OLD.status, NEW.status) IN (('pending', 'superseded'), ('conflict', 'superseded'),
			('applying', 'applied'), ('applying', 'conflict'), ('applying', 'pending'), ('applying', 'superseded'))
		AND pg_has_role('boocoder_worker', 'MEMBER') THEN
		NULL;
	ELSE
		RAISE EXCEPTION 'change % is %, it cannot become %', OLD.id, OLD.status, NEW.status
			USING ERRCODE = 'BC001',
				  HINT = 'A change that is pending or in conflict can be applied or rejected.';
	END IF;
	RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._guard_worktree() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	what text := NEW.request ->> 'do';
	s boocoder.worktree_saves;
BEGIN
	IF NEW.request IS NOT NULL AND NEW.request IS DISTINCT FROM OLD.request THEN
		IF OLD.request IS NOT NULL THEN
			RAISE EXCEPTION 'worktree % is being changed already', OLD.id
				USING ERRCODE = 'BC004', HINT = 'See boocoder.wait_worktree().';
		END IF;
		NEW.request_error := NULL;
		-- the column is open to people: what the dispatcher reads of it later is written here
		IF what = 'stash' THEN
			NEW.request := '{"do": "stash"}';
		ELSIF what IN ('restore', 'rewind') THEN
			SELECT * INTO s FROM boocoder.worktree_saves x WHERE x.worktree_id = OLD.id AND x.ref = NEW.request ->> 'to';
			IF NOT FOUND THEN
				RAISE EXCEPTION 'worktree % has no content "%"', OLD.id, NEW.request ->> 'to'
					USING ERRCODE = 'BC002', HINT = 'See boocoder.worktree_saves.';
			END IF;
			NEW.request := jsonb_build_object('do', what, 'to', s.ref)
				|| CASE WHEN s.task_id IS NOT NULL THEN jsonb_build_object('task', s.task_id) ELSE '{}' END;
		ELSIF what = 'edit' AND NEW.request ->> 'path' <> '' AND jsonb_typeof(NEW.request -> 'path') = 'string'
			AND coalesce(jsonb_typeof(NEW.request -> 'content'), 'null') IN ('string', 'null') THEN
			NEW.request := jsonb_build_object('do', 'edit', 'path', NEW.request -> 'path', 'content', NEW.request -> 'content');
		ELSE
			RAISE EXCEPTION 'this is no request about a worktree: %', left(NEW.request::text, 100)
				USING ERRCODE = 'BC005',
					  HINT = 'Use boocoder.worktree_stash(), worktree_restore(), rewind() or queue_manual_change().';
		END IF;
	END IF;
	IF NEW.status = OLD.status THEN
		RETURN NEW;
	ELSIF (OLD.status, NEW.status) IN (('trashed', 'active'), ('removed', 'creating')) THEN
		NEW.deleted_at := NULL;
		NEW.orphaned_at := NULL;
		NEW.forced := false;
		-- another one may have its ports by now: the next claim leases some
		NEW.port_first := CASE OLD.status WHEN 'trashed' THEN NEW.port_first END;
		RETURN NEW;
	ELSIF (NEW.status NOT IN ('trashed', 'removing') OR OLD.status = 'removing') AND pg_has_role('boocoder_worker', 'MEMBER') THEN
		RETURN NEW;
	ELSIF NOT (NEW.status = 'trashed' AND OLD.status IN ('active', 'creating'))
		AND NOT (NEW.status = 'removing' AND OLD.status IN ('active', 'creating', 'trashed')) THEN
		RAISE EXCEPTION 'worktree % is %, it cannot become %', OLD.id, OLD.status, NEW.status
			USING ERRCODE = 'BC001';
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.tasks t
				WHERE t.session_id = OLD.session_id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in worktree %', OLD.id
			USING ERRCODE = 'BC004', HINT = 'Cancel its task first.';
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.pending_changes c
				WHERE c.worktree_id = OLD.id AND c.status IN ('pending', 'conflict', 'applying')) THEN
		RAISE EXCEPTION 'worktree % has changes that nobody has decided about', OLD.id
			USING ERRCODE = 'BC004', HINT = 'Apply or reject them, or use force, which rejects them.';
	END IF;
	IF NOT NEW.forced AND OLD.status <> 'trashed'
		AND ((OLD.facts ->> 'dirty_count')::bigint > 0 OR (OLD.facts ->> 'unpushed_count')::bigint > 0) THEN
		RAISE EXCEPTION 'worktree % holds % changed files that no task has reported, and % commits that no other branch has',
			OLD.id, OLD.facts ->> 'dirty_count', OLD.facts ->> 'unpushed_count'
			USING ERRCODE = 'BC004',
				  HINT = 'Look with boocoder.worktree_risk(); push or merge the commits, or use force, which archives all of it.';
	END IF;
	NEW.deleted_at := coalesce(NEW.deleted_at, CASE NEW.status WHEN 'trashed' THEN now() END);
	PERFORM boocoder._wake_now();
	RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._session_ends() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	risks text[];
	force boolean;
BEGIN
	IF TG_OP = 'UPDATE' THEN
		UPDATE boocoder.worktrees w
		   SET orphaned_at = CASE WHEN NEW.closed_at IS NULL THEN NULL ELSE now() END, assess_requested_at = now()
		 WHERE w.session_id = NEW.id AND w.deleted_at IS NULL;
		RETURN NEW;
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = OLD.id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in session %', OLD.id
			USING ERRCODE = 'BC004', HINT = 'boocoder.close_session() cancels its tasks.';
	END IF;
	-- a session that never called the library knows no settings of it
	force := coalesce(nullif(current_setting('boocoder.force_delete', true), '')::boolean, false);
	SELECT boocoder._risks_of(w) INTO risks FROM boocoder.worktrees w
	 WHERE w.session_id = OLD.id AND w.status = 'active' AND w.deleted_at IS NULL;
	IF risks && '{dirty,unpushed,undecided}' AND NOT force THEN
		RAISE EXCEPTION 'the worktree of session % is %', OLD.id, array_to_string(risks, ', ')
			USING ERRCODE = 'BC004',
				  HINT = 'See boocoder.worktree_risk(). SET boocoder.force_delete = on leaves the worktree to be archived and removed.';
	END IF;
	UPDATE boocoder.worktrees w
	   SET orphaned_at = now(), assess_requested_at = now(), forced = w.forced OR force
	 WHERE w.session_id = OLD.id AND w.deleted_at IS NULL;
	IF force THEN
		-- by whom: here, current_user is the owner of this function
		UPDATE boocoder.pending_changes c SET decided_by = NULL WHERE c.session_id = OLD.id AND c.status IN ('pending', 'conflict');
		UPDATE boocoder.pending_changes c
		   SET status = 'rejected', decided_by = coalesce(nullif(current_setting('role'), 'none'), session_user)
		 WHERE c.session_id = OLD.id AND c.status IN ('pending', 'conflict');
	END IF;
	UPDATE boocoder.tasks t SET state = 'cancelled' WHERE t.session_id = OLD.id AND t.state = 'pending';
	UPDATE boocoder.tasks t SET session_id = NULL, chat_id = NULL WHERE t.session_id = OLD.id;
	RETURN OLD;
END
$$;

CREATE FUNCTION boocoder._discard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	EXECUTE format('DELETE FROM boocoder.%I x WHERE x.id = $1', TG_TABLE_NAME) USING NEW.id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION boocoder._discard() IS 'trigger: deletes a row that is marked as discarded';

CREATE FUNCTION boocoder._new_agent_session() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF current_user <> 'boocoder_worker' THEN
		PERFORM 1 FROM boocoder.chats c WHERE c.id = NEW.chat_id FOR NO KEY UPDATE;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._new_agent_session() IS 'trigger: a client that adds a row keeps the dispatcher from adding the same and waiting for it';

CREATE OR REPLACE FUNCTION boocoder._worktree_root(p boocoder.projects, host jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF p.worktree_root IS NULL AND cardinality(p.launch_prefix) = 0 THEN
		RETURN host ->> 'worktree_root';
	END IF;
	-- clusters and databases that share a root must not share worktrees, nor must two lives of the extension
	RETURN rtrim(coalesce(p.worktree_root, '~/.local/share/boocoder'), '/') || '/' || (host ->> 'place');
END
$$;

CREATE FUNCTION boocoder._for_project(host jsonb, p boocoder.projects) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF cardinality(p.allowed_read_paths) = 0 THEN
		RETURN host;
	END IF;
	RETURN jsonb_set(host, '{sandbox,ro_paths}', (host #> '{sandbox,ro_paths}') || to_jsonb(p.allowed_read_paths));
END
$$;
COMMENT ON FUNCTION boocoder._for_project(jsonb, boocoder.projects) IS 'the facts about the host, with what agents of a project may read besides';

CREATE FUNCTION boocoder._bypasses_rights(role name) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT r.rolbypassrls FROM pg_roles r WHERE r.rolname = role
$$;
COMMENT ON FUNCTION boocoder._bypasses_rights(name) IS 'is a role one that row-level security does not hold for?';

CREATE OR REPLACE FUNCTION boocoder._obstacle(submitter name, project boocoder.projects, agent text, provider boocoder.providers, host jsonb)
RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF project.archived_at IS NOT NULL THEN
		RETURN ARRAY['project_archived', format('project "%s" is archived', project.name)];
	ELSIF to_regrole(quote_ident(submitter)) IS NULL THEN
		RETURN ARRAY['submitter_missing', format('role "%s" does not exist any more', submitter)];
	ELSIF NOT (pg_has_role(submitter, 'boocoder_user', 'USAGE')
			   AND (project.shared OR project.owner = submitter OR pg_has_role(submitter, 'boocoder_admin', 'USAGE'))
			   OR boocoder._bypasses_rights(submitter)) THEN
		RETURN ARRAY['permission_denied', format('role "%s" may not use project "%s" any more', submitter, project.name)];
	ELSIF provider.name IS NULL THEN
		RETURN ARRAY['unknown_agent', format('there is no provider "%s"', agent)];
	ELSIF NOT provider.enabled THEN
		RETURN ARRAY['agent_disabled', format('provider "%s" is disabled', agent)];
	ELSIF provider.transport = 'native' THEN
		RETURN ARRAY['transport_unsupported',
			format('this version does not run the transport "%s" of provider "%s"', provider.transport, agent)];
	ELSIF cardinality(provider.command) = 0 AND cardinality(provider.builtin_command) = 0 THEN
		RETURN ARRAY['program_not_found', format('provider "%s" names no program', agent)];
	END IF;
	-- asked last and by itself: as a query it costs more than all of the above
	IF jsonb_array_length(host -> 'allowed_roots') > 0 THEN
		PERFORM 1 FROM jsonb_array_elements_text(host -> 'allowed_roots') r WHERE boocoder._below(project.path, r);
		IF NOT FOUND THEN
			RETURN ARRAY['path_not_allowed', format('"%s" is outside of boocoder.allowed_roots', project.path)];
		END IF;
	END IF;
	RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._free_ports(host jsonb) RETURNS integer
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	lowest integer := (host #>> '{ports,first}')::integer;
	highest integer := (host #>> '{ports,last}')::integer;
	n integer := (host #>> '{ports,count}')::integer;
	candidate integer;
BEGIN
	IF n = 0 THEN
		RETURN NULL;
	END IF;
	SELECT w.port_first + w.port_count INTO candidate FROM boocoder.worktrees w
	 WHERE w.status <> 'removed' AND w.port_first BETWEEN lowest AND highest ORDER BY w.port_first DESC LIMIT 1;
	IF candidate + n - 1 <= highest THEN
		RETURN candidate;
	END IF;
	SELECT g.port INTO candidate FROM generate_series(lowest, highest - n + 1, n) g (port)
	 WHERE NOT EXISTS (SELECT 1 FROM boocoder.worktrees w
						WHERE w.status <> 'removed' AND w.port_first IS NOT NULL
						  AND w.port_first < g.port + n AND w.port_first + w.port_count > g.port)
	 LIMIT 1;
	RETURN candidate;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._claim(t boocoder.tasks, host jsonb,
	OUT fence bigint, OUT prepare jsonb, OUT agent jsonb, OUT diff jsonb, OUT git_prefix text[], OUT agent_prefix text[],
	OUT backend bigint, OUT ends bigint, OUT server bigint, OUT server_order jsonb, OUT server_ends bigint)
RETURNS record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	-- Few statements: each costs tens of microseconds between a commit and its claim.
	r record;
	project boocoder.projects;
	provider boocoder.providers;
	worktree boocoder.worktrees;
	agent_name text;
	obstacle text[];
	the_message bigint;
	argv text[];
	hash text;
	is_warm boolean;
	orders record;
BEGIN
	SELECT p AS project, v AS provider, w AS worktree, s.closed_at, s.owner, c.model, c.closed_at AS chat_closed_at, a.install_path, m.wanted_mode, m.agent_session_id, m.status AS agent_status, m.config_hash,
		   coalesce(nullif(t.agent, ''), nullif(p.default_agent, ''), nullif(host ->> 'default_agent', ''), 'boocode') AS agent
	  INTO STRICT r
	  FROM boocoder.projects p
	  LEFT JOIN boocoder.providers v
		ON v.name = coalesce(nullif(t.agent, ''), nullif(p.default_agent, ''), nullif(host ->> 'default_agent', ''), 'boocode')
	  LEFT JOIN boocoder.available_agents a ON a.name = v.name
	  LEFT JOIN boocoder.sessions s ON s.id = t.session_id
	  LEFT JOIN boocoder.chats c ON c.id = t.chat_id
	  LEFT JOIN boocoder.agent_sessions m ON m.chat_id = t.chat_id AND m.agent = v.name
	  LEFT JOIN boocoder.worktrees w ON w.session_id = t.session_id AND w.deleted_at IS NULL
	 WHERE p.id = t.project_id;
	project := r.project;
	host := boocoder._for_project(host, project);
	provider := r.provider;
	worktree := r.worktree;
	agent_name := r.agent;
	obstacle := boocoder._obstacle(t.submitted_by, project, agent_name, provider, host);
	IF obstacle IS NULL AND r.closed_at IS NOT NULL THEN
		obstacle := ARRAY['session_closed', format('session %s is closed', t.session_id)];
	ELSIF obstacle IS NULL AND r.chat_closed_at IS NOT NULL THEN
		obstacle := ARRAY['chat_closed', format('chat %s is closed', t.chat_id)];
	END IF;
	IF obstacle IS NOT NULL THEN
		PERFORM boocoder._fail(t.id, obstacle[1], obstacle[2]);
		RETURN;
	END IF;

	IF worktree.origin <> host ->> 'origin' THEN
		-- from a dump: the directory belongs to another database
		UPDATE boocoder.worktrees w SET status = 'removed', deleted_at = now() WHERE w.id = worktree.id;
		worktree := NULL;
	END IF;
	IF worktree.id IS NULL AND (host ->> 'worktree_budget')::bigint > 0
		AND (SELECT sum(w.size_bytes) FROM boocoder.worktrees w WHERE w.status <> 'removed') >= (host ->> 'worktree_budget')::bigint THEN
		PERFORM boocoder._fail(t.id, 'disk_budget', 'the worktrees take more than boocoder.worktree_budget; see boocoder.worktree_disk');
		RETURN;
	END IF;
	is_warm := coalesce(t.warm, boocoder._warm(provider, t.session_id, t.chat_id, t.creator)) AND (host ->> 'max_warm')::integer > 0;
	IF t.session_id IS NULL THEN
		INSERT INTO boocoder.sessions (project_id, title, owner)
		VALUES (t.project_id, left(t.input, 80), t.submitted_by) RETURNING id INTO t.session_id;
	END IF;
	IF t.chat_id IS NULL THEN
		INSERT INTO boocoder.chats (session_id, title) VALUES (t.session_id, left(t.input, 80))
		RETURNING id INTO t.chat_id;
	END IF;
	IF worktree.id IS NULL THEN
		INSERT INTO boocoder.worktrees (session_id, project_id, path, branch, origin, port_first, port_count)
		VALUES (t.session_id, t.project_id, boocoder._new_path(boocoder._worktree_root(project, host)
				|| boocoder._worktree_place(t.project_id, coalesce(r.owner, t.submitted_by), t.session_id)),
				'boocoder/' || t.session_id, host ->> 'origin', boocoder._free_ports(host), (host #>> '{ports,count}')::integer)
		RETURNING * INTO worktree;
	ELSIF worktree.port_first IS NULL AND (host #>> '{ports,count}')::integer > 0 THEN
		UPDATE boocoder.worktrees w SET port_first = boocoder._free_ports(host), port_count = (host #>> '{ports,count}')::integer
		 WHERE w.id = worktree.id RETURNING w.* INTO worktree;
	END IF;
	-- A retry asks the same question; it is in the chat already.
	WITH question AS (
		INSERT INTO boocoder.messages (chat_id, task_id, role)
		SELECT t.chat_id, t.id, 'user'
		 WHERE t.attempt = 1 OR NOT EXISTS (SELECT 1 FROM boocoder.messages m WHERE m.task_id = t.id AND m.role = 'user')
		RETURNING id
	), its_text AS (
		INSERT INTO boocoder.message_parts (message_id, task_id, seq, kind, payload)
		SELECT q.id, t.id, 1, 'text', jsonb_build_object('text', t.input) FROM question q
	)
	INSERT INTO boocoder.messages (chat_id, task_id, role, status)
	SELECT t.chat_id, t.id, 'assistant', 'streaming' FROM (SELECT count(*) FROM question) asked_first
	RETURNING id INTO the_message;

	UPDATE boocoder.tasks x
	   SET state = 'running', agent = agent_name, session_id = t.session_id, chat_id = t.chat_id,
		   model = coalesce(t.model, r.model, project.default_model, provider.default_model, nullif(host ->> 'default_model', '')),
		   transport = provider.transport, warm = is_warm,
		   message_id = the_message, fence = nextval('boocoder.fence_seq'), started_at = clock_timestamp(), ended_at = NULL
	 WHERE x.id = t.id RETURNING x.* INTO t;
	fence := t.fence;

	argv := boocoder._argv(provider, r.install_path);
	orders := boocoder._orders(t, project, worktree, provider, argv, coalesce(t.mode, r.wanted_mode), host);
	git_prefix := nullif(project.launch_prefix, '{}');
	agent_prefix := boocoder._agent_prefix(project, provider);
	IF is_warm THEN
		hash := boocoder._config_hash(provider, worktree, argv, agent_prefix, host);
		IF provider.transport = 'opencode_server' THEN
			hash := md5(concat_ws(E'\x01', hash, t.model, coalesce(t.mode, r.wanted_mode)));
		END IF;
		SELECT b.backend, b.ends INTO backend, ends FROM boocoder._take_backend(t, worktree, hash) b;
	END IF;
	IF is_warm OR (r.agent_session_id IS NOT NULL AND NOT boocoder._asks_once(t.creator)) THEN
		orders.agent := boocoder._continued(orders.agent, is_warm, r.agent_session_id,
			boocoder._stale(provider.transport, r.agent_status, r.config_hash, hash));
	END IF;
	diff := orders.diff;
	-- one for a worktree that is not made yet is taken when it is
	IF worktree.status = 'active' AND provider.transport = 'opencode_server' THEN
		SELECT s.server, s.start_order, s.ends INTO server, server_order, server_ends
		  FROM boocoder._take_server(backend, provider, worktree, argv, agent_prefix, host) s;
	END IF;
	IF worktree.status = 'active' THEN
		agent := orders.agent;
	ELSE
		prepare := orders.worktree;
	END IF;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._obstructed(t boocoder.tasks) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_rows bigint;
	live bigint;
BEGIN
	IF t.session_id IS NULL THEN
		PERFORM 1 FROM boocoder.projects p WHERE p.id = t.project_id FOR KEY SHARE SKIP LOCKED;
		RETURN CASE WHEN NOT FOUND THEN 'project' END;
	ELSIF t.chat_id IS NULL THEN
		PERFORM 1 FROM boocoder.projects p, boocoder.sessions s
		 WHERE p.id = t.project_id AND s.id = t.session_id FOR KEY SHARE OF p, s SKIP LOCKED;
	ELSE
		PERFORM 1 FROM boocoder.projects p, boocoder.sessions s, boocoder.chats c
		 WHERE p.id = t.project_id AND s.id = t.session_id AND c.id = t.chat_id FOR KEY SHARE OF p, s, c SKIP LOCKED;
	END IF;
	IF NOT FOUND THEN
		PERFORM 1 FROM boocoder.projects p WHERE p.id = t.project_id FOR KEY SHARE SKIP LOCKED;
		RETURN CASE WHEN FOUND THEN 'session' ELSE 'project' END;
	END IF;
	-- A claim and a removal that do not see each other yet must not both succeed; and what was asked of the
	-- worktree before comes before.
	PERFORM 1 FROM boocoder.worktrees w
	 WHERE w.session_id = t.session_id AND w.deleted_at IS NULL AND w.status <> 'removing' AND w.request IS NULL
	   FOR NO KEY UPDATE SKIP LOCKED;
	IF FOUND THEN
		RETURN NULL;
	END IF;
	-- No other one either that a client is about to bring back.
	SELECT count(*), count(*) FILTER (WHERE w.deleted_at IS NULL) INTO found_rows, live
	  FROM boocoder.worktrees w WHERE w.session_id = t.session_id;
	IF live = 0 AND found_rows > 0 THEN
		WITH free AS (
			SELECT 1 FROM boocoder.worktrees w WHERE w.session_id = t.session_id FOR NO KEY UPDATE SKIP LOCKED
		) SELECT found_rows - count(*) INTO live FROM free;
	END IF;
	RETURN CASE WHEN live > 0 THEN 'session' END;
END
$$;
COMMENT ON FUNCTION boocoder._obstructed(boocoder.tasks) IS
	'project or session, when a client holds a lock on its row, or the session''s worktree is locked, being removed, or to be changed first';

CREATE FUNCTION boocoder._candidate(behind_priority integer, behind_id bigint, skipped_sessions bigint[], skipped_projects bigint[],
	scheduled boolean) RETURNS boocoder.tasks
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	ready boocoder.tasks;
	due boocoder.tasks;
BEGIN
	IF behind_id IS NOT NULL THEN
		-- from there on in the index, not from its beginning
		SELECT * INTO ready FROM boocoder.tasks t
		 WHERE t.state = 'pending' AND t.run_at IS NULL AND t.priority = behind_priority AND t.id > behind_id
		   AND t.project_id <> ALL (skipped_projects)
		   AND (t.session_id IS NULL OR t.session_id <> ALL (skipped_sessions))
		   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks r
							WHERE r.session_id = t.session_id AND r.state IN ('running', 'blocked'))
		 ORDER BY t.priority DESC, t.id LIMIT 1 FOR NO KEY UPDATE OF t SKIP LOCKED;
	END IF;
	IF ready.id IS NULL THEN
		SELECT * INTO ready FROM boocoder.tasks t
		 WHERE t.state = 'pending' AND t.run_at IS NULL AND (behind_id IS NULL OR t.priority < behind_priority)
		   AND t.project_id <> ALL (skipped_projects)
		   AND (t.session_id IS NULL OR t.session_id <> ALL (skipped_sessions))
		   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks r
							WHERE r.session_id = t.session_id AND r.state IN ('running', 'blocked'))
		 ORDER BY t.priority DESC, t.id LIMIT 1 FOR NO KEY UPDATE OF t SKIP LOCKED;
	END IF;
	IF NOT scheduled THEN
		RETURN ready;
	END IF;
	SELECT * INTO due FROM boocoder.tasks t
	 WHERE t.state = 'pending' AND t.run_at <= now()
	   AND (behind_id IS NULL OR t.priority < behind_priority OR (t.priority = behind_priority AND t.id > behind_id))
	   AND t.project_id <> ALL (skipped_projects)
	   AND (t.session_id IS NULL OR t.session_id <> ALL (skipped_sessions))
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks r
						WHERE r.session_id = t.session_id AND r.state IN ('running', 'blocked'))
	 ORDER BY t.priority DESC, t.id LIMIT 1 FOR NO KEY UPDATE OF t SKIP LOCKED;
	IF ready.id IS NULL OR (due.priority, -due.id) > (ready.priority, -ready.id) THEN
		RETURN due;
	END IF;
	RETURN ready;
END
$$;
COMMENT ON FUNCTION boocoder._candidate(integer, bigint, bigint[], bigint[], boolean) IS 'the pending task that is to run next, its row locked';

CREATE FUNCTION boocoder._clashes_again(task bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	before text := coalesce(current_setting('boocoder_dispatcher.clashed', true), '');
BEGIN
	IF strpos(before, ' ' || task || ' ') > 0 THEN
		RETURN true;
	END IF;
	PERFORM set_config('boocoder_dispatcher.clashed', right(before, 1000) || ' ' || task || ' ', false);
	RETURN false;
END
$$;
COMMENT ON FUNCTION boocoder._clashes_again(bigint) IS 'has the claim of this task failed on a unique index before?';

CREATE FUNCTION boocoder._make_jobs(host jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	decision record;
	the_job bigint;
	free_rows bigint;
BEGIN
	-- what one transaction decided about one worktree is one job: all of it or nothing
	FOR decision IN
		SELECT c.worktree_id, c.decided_at, c.base_commit, w.project_id, count(*) AS n
		  FROM boocoder.pending_changes c JOIN boocoder.worktrees w ON w.id = c.worktree_id
		 WHERE c.status = 'applying' AND c.job_id IS NULL
		 GROUP BY 1, 2, 3, 4 ORDER BY 2, 1
	LOOP
		-- a client that holds a lock on one of them delays this decision only
		PERFORM 1 FROM boocoder.worktrees w, boocoder.projects p
		 WHERE w.id = decision.worktree_id AND p.id = decision.project_id FOR KEY SHARE OF w, p SKIP LOCKED;
		CONTINUE WHEN NOT FOUND;
		WITH free AS (
			SELECT c.id FROM boocoder.pending_changes c
			 WHERE c.worktree_id = decision.worktree_id AND c.decided_at = decision.decided_at
			   AND c.base_commit IS NOT DISTINCT FROM decision.base_commit
			   AND c.status = 'applying' AND c.job_id IS NULL
			   FOR NO KEY UPDATE SKIP LOCKED
		) SELECT count(*) INTO free_rows FROM free;
		CONTINUE WHEN free_rows < decision.n;
		INSERT INTO boocoder.jobs (kind, project_id, worktree_id)
		VALUES ('apply', decision.project_id, decision.worktree_id) RETURNING id INTO the_job;
		UPDATE boocoder.pending_changes c SET job_id = the_job
		 WHERE c.worktree_id = decision.worktree_id AND c.decided_at = decision.decided_at
		   AND c.base_commit IS NOT DISTINCT FROM decision.base_commit
		   AND c.status = 'applying' AND c.job_id IS NULL;
	END LOOP;
	INSERT INTO boocoder.jobs (kind, project_id, worktree_id)
	SELECT CASE WHEN w.teardown_done_at IS NULL AND w.setup_done_at IS NOT NULL AND cardinality(p.teardown) > 0
				THEN 'teardown' ELSE 'remove' END, w.project_id, w.id
	  FROM boocoder.worktrees w JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE w.status = 'removing' AND w.origin = host ->> 'origin'
	   -- of agents that were kept nothing may run any more
	   AND NOT EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.worktree_id = w.id)
	   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j
						WHERE j.worktree_id = w.id AND j.state IN ('queued', 'running'))
	   -- claimed before the removal was committed: the agent ends first
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks t
						WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked'))
	   FOR KEY SHARE OF w, p SKIP LOCKED;
END
$$;
COMMENT ON FUNCTION boocoder._make_jobs(jsonb) IS 'turns decisions that nobody acted on yet into jobs';

CREATE OR REPLACE FUNCTION boocoder._job_order(j boocoder.jobs, host jsonb, OUT job_order jsonb, OUT prefix text[]) RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	p boocoder.projects;
	w boocoder.worktrees;
	v boocoder.providers;
	root text;
	n bigint;
	max_bytes constant bigint := 64 * 1024 * 1024;	-- more than any one task is allowed; a message has to hold them all
BEGIN
	IF j.kind = 'probe' THEN
		SELECT * INTO STRICT v FROM boocoder.providers x WHERE x.name = j.provider;
		job_order := boocoder._probe_order(v, host);
		prefix := nullif(v.launch_prefix, '{}');
		RETURN;
	END IF;
	SELECT * INTO STRICT p FROM boocoder.projects x WHERE x.id = j.project_id;
	SELECT * INTO STRICT w FROM boocoder.worktrees x WHERE x.id = j.worktree_id;
	host := boocoder._for_project(host, p);
	prefix := nullif(p.launch_prefix, '{}');
	root := boocoder._root(w.path);
	IF j.kind IN ('assess', 'rewrite', 'revive') THEN
		job_order := boocoder._worktree_job_order(j, p, w, host);
		RETURN;
	ELSIF j.kind = 'teardown' THEN
		job_order := jsonb_build_object(
			-- the commands are its setup, and behind them there is nothing to run
			'role', 'agent', 'transport', 'command', 'command', '["true"]'::jsonb, 'env', '{}'::jsonb,
			'cwd', w.path, 'git_dir', w.git_dir, 'admin_dir', w.admin_dir,
			'setup', to_jsonb(p.teardown), 'setup_timeout_ms', host -> 'setup_timeout_ms',
			'place', jsonb_build_object('project', p.name, 'session', w.session_id, 'branch', w.branch,
				'base_commit', w.base_commit, 'port_first', w.port_first, 'port_count', w.port_count),
			'sandbox', (host -> 'sandbox') || jsonb_build_object('home', root || '/homes/' || boocoder._home(w)),
			'limits', host -> 'limits');
		RETURN;
	END IF;
	SELECT sum(octet_length(c.diff)) INTO n FROM boocoder.pending_changes c WHERE c.job_id = j.id AND c.status = 'applying';
	IF n > max_bytes THEN
		RAISE EXCEPTION 'these changes have % together, and no more than % are applied at once: apply them in parts',
			pg_size_pretty(n), pg_size_pretty(max_bytes) USING ERRCODE = 'BC005';
	END IF;
	job_order := jsonb_build_object(
		'role', j.kind, 'resume', j.resumed, 'root', root, 'delete_branch', true,
		'careful', NOT w.forced AND w.status = 'removing',
		'base_commit', (SELECT min(c.base_commit) FROM boocoder.pending_changes c WHERE c.job_id = j.id),
		'project', jsonb_build_object('id', p.id, 'path', p.path),
		'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'branch', w.branch,
			'admin_dir', w.admin_dir, 'diff_base', coalesce(w.diff_base, w.base_commit), 'snapshot_tree', w.snapshot_tree),
		'changes', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'path', c.path,
						'old_path', c.old_path, 'kind', c.kind, 'diff', c.diff) ORDER BY c.id), '[]')
					  FROM boocoder.pending_changes c WHERE c.job_id = j.id AND c.status = 'applying'));
	-- a session may have another worktree meanwhile, whose agents live there
	IF NOT EXISTS (SELECT 1 FROM boocoder.worktrees o WHERE o.session_id = w.session_id AND o.id <> w.id AND o.deleted_at IS NULL) THEN
		job_order := job_order || jsonb_build_object('home', root || '/homes/' || boocoder._home(w));
	END IF;
END
$$;

CREATE FUNCTION boocoder._outdated(c boocoder.pending_changes) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT c.agent IS NOT NULL AND c.created_at < (SELECT w.changes_at FROM boocoder.worktrees w WHERE w.id = c.worktree_id)
		   -- a person's change is out of date when there is another one of the same file
		   OR EXISTS (SELECT 1 FROM boocoder.pending_changes n
					   WHERE n.worktree_id = c.worktree_id AND n.path = c.path AND n.id > c.id AND n.status IN ('pending', 'conflict', 'applying'))
$$;
COMMENT ON FUNCTION boocoder._outdated(boocoder.pending_changes) IS 'has a later turn, or a person, changed that since?';

CREATE OR REPLACE FUNCTION boocoder._job_done(job_id bigint, result jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	j boocoder.jobs;
	ok boolean := coalesce((result ->> 'ok')::boolean, false);
	note text := concat_ws(': ', result ->> 'reason', result ->> 'message');
BEGIN
	SELECT * INTO j FROM boocoder.jobs x WHERE x.id = job_id AND x.state = 'running' FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN CASE WHEN EXISTS (SELECT 1 FROM boocoder.jobs x WHERE x.id = job_id AND x.state = 'running')
			THEN NULL ELSE 'stale' END;
	END IF;
	IF j.kind = 'probe' THEN
		PERFORM boocoder._probed(j.provider, result);
		-- the row it was asked for in says all there is to say
		DELETE FROM boocoder.jobs x WHERE x.id = j.id;
		RETURN CASE WHEN ok THEN 'done' ELSE 'failed' END;
	END IF;
	PERFORM 1 FROM boocoder.worktrees w WHERE w.id = j.worktree_id FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND OR (SELECT count(*) FROM boocoder.pending_changes c WHERE c.job_id = j.id AND c.status = 'applying')
		> (SELECT count(*) FROM (SELECT 1 FROM boocoder.pending_changes c WHERE c.job_id = j.id AND c.status = 'applying'
									FOR NO KEY UPDATE SKIP LOCKED) free) THEN
		RETURN NULL;
	END IF;
	-- A runner that was killed may have written half of the files: the next one finishes that.
	IF NOT ok AND NOT j.resumed AND result ->> 'reason' IN ('runner_crashed', 'git_timeout', 'runner_start_failed') THEN
		UPDATE boocoder.jobs x SET state = 'queued', resumed = true, error = note WHERE x.id = j.id;
		RETURN 'failed';
	END IF;
	IF j.kind IN ('assess', 'rewrite', 'revive') THEN
		PERFORM boocoder._worktree_job_done(j, ok, result, note);
	ELSIF j.kind = 'teardown' THEN
		-- what a teardown leaves undone keeps nobody from removing the worktree
		ok := ok AND result ->> 'outcome' = 'completed';
		note := concat_ws(E'\n', nullif(note, ''), nullif(right(result ->> 'stderr_tail', 4000), ''));
		UPDATE boocoder.worktrees w SET teardown_done_at = now() WHERE w.id = j.worktree_id;
		PERFORM boocoder._wake_now();
	ELSIF j.kind = 'apply' AND ok THEN
		UPDATE boocoder.pending_changes c SET status = 'applied' WHERE c.job_id = j.id AND c.status = 'applying';
		UPDATE boocoder.worktrees w SET diff_base = coalesce(result ->> 'diff_base', w.diff_base) WHERE w.id = j.worktree_id;
	ELSIF j.kind = 'apply' THEN
		-- Nothing was touched.  Who is not to blame waits for the next decision, unless there is a later change to decide about.
		WITH blamed AS (
			SELECT DISTINCT ON (e ->> 'id') (e ->> 'id')::bigint AS id, concat_ws(' at ', e ->> 'message', e ->> 'hunk') AS text
			  FROM jsonb_array_elements(coalesce(result -> 'conflicts', '[]')) e
		)
		UPDATE boocoder.pending_changes c
		   SET status = CASE WHEN boocoder._outdated(c) THEN 'superseded'
							 WHEN b.id IS NULL AND EXISTS (SELECT 1 FROM blamed) THEN 'pending' ELSE 'conflict' END,
			   error = coalesce(b.text, CASE WHEN EXISTS (SELECT 1 FROM blamed)
											 THEN 'not applied: another file of the same decision is in conflict' ELSE note END)
		  FROM boocoder.pending_changes x LEFT JOIN blamed b ON b.id = x.id
		 WHERE x.job_id = j.id AND x.status = 'applying' AND c.id = x.id;
	ELSIF ok THEN
		UPDATE boocoder.worktrees w
		   SET status = 'removed', deleted_at = coalesce(w.deleted_at, now()), archived_ref = result ->> 'archived',
			   request = NULL, assess_requested_at = NULL
		 WHERE w.id = j.worktree_id;
		-- the contents of single turns go with it
		DELETE FROM boocoder.worktree_saves s WHERE s.worktree_id = j.worktree_id AND s.kind = 'turn';
		PERFORM boocoder._save(j.worktree_id, 'archive', result ->> 'archived', NULL, NULL);
	ELSE
		-- It stays, for people to look at; if its session has another one meanwhile, out of its way.
		UPDATE boocoder.worktrees w
		   SET status = CASE WHEN taken.yes THEN 'trashed' ELSE 'active' END,
			   deleted_at = CASE WHEN taken.yes THEN coalesce(w.deleted_at, now()) END,
			   orphaned_at = NULL, assess_requested_at = now(), request_error = note
		  FROM (SELECT EXISTS (SELECT 1 FROM boocoder.worktrees o JOIN boocoder.worktrees me ON me.id = j.worktree_id
								WHERE o.session_id = me.session_id AND o.id <> me.id AND o.deleted_at IS NULL) AS yes) taken
		 WHERE w.id = j.worktree_id;
	END IF;
	UPDATE boocoder.jobs x
	   SET state = CASE WHEN ok THEN 'done' ELSE 'failed' END, error = CASE WHEN NOT ok THEN note END, ended_at = now()
	 WHERE x.id = j.id;
	RETURN CASE WHEN ok THEN 'done' ELSE 'failed' END;
END
$$;

CREATE FUNCTION boocoder._begin_job(j boocoder.jobs, host jsonb, OUT job_order jsonb, OUT prefix text[]) RETURNS record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	problem text;
BEGIN
	PERFORM 1 FROM boocoder.jobs q WHERE q.id = j.id AND q.state = 'queued' FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	UPDATE boocoder.jobs q SET state = 'running' WHERE q.id = j.id;
	BEGIN
		SELECT o.job_order, o.prefix INTO job_order, prefix FROM boocoder._job_order(j, host) o;
		RETURN;
	EXCEPTION WHEN OTHERS THEN
		problem := SQLERRM;
	END;
	IF boocoder._job_done(j.id, jsonb_build_object('ok', false, 'reason', 'not_possible', 'message', problem)) IS NULL THEN
		RAISE EXCEPTION 'its rows are locked' USING ERRCODE = 'lock_not_available';
	END IF;
EXCEPTION WHEN OTHERS THEN
	-- it is queued still
	RAISE LOG 'boocoder: job % can neither begin nor fail: %', j.id, coalesce(problem || '; ', '') || SQLERRM;
END
$$;
COMMENT ON FUNCTION boocoder._begin_job(boocoder.jobs, jsonb) IS 'marks a job as running; its order, NULL when it failed or has to wait';

CREATE OR REPLACE FUNCTION boocoder._leave_the_original() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	here record;
	home boocoder.home;
BEGIN
	SELECT boocoder._host() ->> 'system_identifier' AS system_identifier, d.oid AS database INTO here
	  FROM pg_database d WHERE d.datname = current_database();
	SELECT * INTO home FROM boocoder.home;
	IF home.database = here.database AND home.system_identifier = here.system_identifier THEN
		RETURN;
	END IF;
	IF home.database IS NOT NULL AND home.system_identifier = here.system_identifier THEN
		UPDATE boocoder.messages m SET status = 'cancelled', finished_at = now()
		  FROM boocoder.tasks t WHERE m.id = t.message_id AND m.status = 'streaming';
		UPDATE boocoder.tasks t SET state = 'cancelled', failure_reason = 'copied',
			   error = 'this database is a copy; the task belongs to the original'
		 WHERE t.state IN ('pending', 'running', 'blocked');
		UPDATE boocoder.pending_changes c SET status = 'pending' WHERE c.status = 'applying';
		UPDATE boocoder.pending_changes c SET status = 'superseded', error = 'belongs to the original of this database'
		 WHERE c.status IN ('pending', 'conflict');
		UPDATE boocoder.jobs j SET state = 'failed', error = 'belongs to the original of this database', ended_at = now()
		 WHERE j.state IN ('queued', 'running');
		-- its worktrees, even those in the trash, are of another origin: _disown()
	ELSIF home.database IS NOT NULL THEN
		UPDATE boocoder.worktrees w SET origin = boocoder._host() ->> 'origin'
		 WHERE w.origin = home.system_identifier || '-' || home.database;
	END IF;
	DELETE FROM boocoder.home;
	INSERT INTO boocoder.home VALUES (here.system_identifier, here.database);
END
$$;

CREATE OR REPLACE FUNCTION boocoder._withdraw(t boocoder.tasks) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- one that somebody is answering right now is left to _attend()
	UPDATE boocoder.permission_requests r SET status = 'cancelled', delivered_at = now()
	 WHERE r.id IN (SELECT q.id FROM boocoder.permission_requests q
					 WHERE q.task_id = t.id AND q.status = 'pending' FOR NO KEY UPDATE SKIP LOCKED);
END
$$;

CREATE FUNCTION boocoder._can_end(t boocoder.tasks) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM 1 FROM boocoder.projects p, boocoder.sessions s, boocoder.chats c
	 WHERE p.id = t.project_id AND s.id = t.session_id AND c.id = t.chat_id
	   FOR KEY SHARE OF p, s SKIP LOCKED FOR NO KEY UPDATE OF c SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM 1 FROM boocoder.agent_sessions s WHERE s.chat_id = t.chat_id AND s.agent = t.agent FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND AND EXISTS (SELECT 1 FROM boocoder.agent_sessions s WHERE s.chat_id = t.chat_id AND s.agent = t.agent) THEN
		RETURN false;
	END IF;
	PERFORM 1 FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL FOR NO KEY UPDATE SKIP LOCKED;
	RETURN FOUND OR NOT EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL);
END
$$;
COMMENT ON FUNCTION boocoder._can_end(boocoder.tasks) IS
	'locks the rows beside its own that the end of a claimed task writes or refers to; false: a client has one of them';

CREATE OR REPLACE FUNCTION boocoder._reconcile() RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
	first_fence bigint := coalesce(nullif(current_setting('boocoder_dispatcher.first_fence', true), '')::bigint, 0);
	touched bigint := 0;
BEGIN
	FOR t IN
		SELECT * FROM boocoder.tasks x
		 WHERE x.state IN ('running', 'blocked') AND coalesce(x.fence, 0) < first_fence
		   FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		-- what is locked is left to the next call
		CONTINUE WHEN NOT boocoder._can_end(t);
		BEGIN
			UPDATE boocoder.messages m SET status = 'failed', finished_at = now()
			 WHERE m.id = t.message_id AND m.status = 'streaming';
			PERFORM boocoder._charge(t.id, NULL, NULL);
			PERFORM boocoder._withdraw(t);
			PERFORM boocoder._turn_ended(t, '{"reason": "interrupted"}');
			UPDATE boocoder.tasks x
			   SET state = CASE WHEN t.retry_requested THEN 'pending'
								WHEN t.cancel_requested_at IS NOT NULL THEN 'cancelled'
								WHEN t.attempt < t.max_attempts THEN 'pending' ELSE 'failed' END,
				   failure_reason = CASE WHEN t.cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE 'interrupted' END,
				   error = CASE WHEN t.cancel_requested_at IS NOT NULL THEN 'cancelled on request'
								ELSE 'the dispatcher ended while the task was running' END
			 WHERE x.id = t.id;
			touched := touched + 1;
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'boocoder: task % was interrupted, and cannot be ended: %', t.id, SQLERRM;
		END;
	END LOOP;
	RETURN touched;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._start(pid integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	touched bigint;
	more bigint;
BEGIN
	PERFORM boocoder._leave_the_original();
	PERFORM boocoder._disown(boocoder._host());
	-- One dispatcher serves a database, so whatever runs now belongs to one that is gone.
	PERFORM set_config('boocoder_dispatcher.first_fence', nextval('boocoder.fence_seq')::text, false);
	touched := boocoder._reconcile();
	PERFORM boocoder._forget_backends();
	PERFORM boocoder._forget_servers();
	UPDATE boocoder.jobs j SET state = 'queued', resumed = true WHERE j.state = 'running';
	GET DIAGNOSTICS more = ROW_COUNT;
	-- not here: a client that has asked for the same and has not committed would keep us from starting
	PERFORM set_config('boocoder_dispatcher.probe_at', CASE WHEN (boocoder._host() ->> 'probe_ttl_ms')::bigint > 0
															THEN now()::text ELSE '' END, false);
	RETURN touched + more;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._next_actions(free_slots integer, free_jobs integer, everything boolean DEFAULT true)
RETURNS TABLE (kind text, task_id bigint, fence bigint, job_id bigint,
			   prepare jsonb, agent jsonb, diff jsonb, git_prefix text[], agent_prefix text[], delay_ms bigint, backend bigint,
			   server bigint, server_order jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	host jsonb;
	began constant timestamptz := clock_timestamp();
	-- where the last pass stopped, when too much was in its way; after a while it is looked at again
	stopped jsonb := nullif(current_setting('boocoder_dispatcher.stopped', true), '')::jsonb;
	resumes constant boolean := coalesce((stopped ->> 'until')::timestamptz > began, false);
	behind_priority integer := CASE WHEN resumes THEN (stopped ->> 'priority')::integer END;
	behind_id bigint := CASE WHEN resumes THEN (stopped ->> 'id')::bigint END;
	skipped_sessions bigint[] := '{}';
	skipped_projects bigint[] := '{}';
	looked boolean := false;
	begun integer := 0;
	too_much boolean := false;
	obstructed text;
	ends bigint;
	server_ends bigint;
	t boocoder.tasks;
	j boocoder.jobs;
	next_due timestamptz;
BEGIN
	IF everything THEN
		IF EXISTS (SELECT 1 FROM boocoder.tasks x WHERE x.state IN ('running', 'blocked')
					AND coalesce(x.fence, 0) < coalesce(nullif(current_setting('boocoder_dispatcher.first_fence', true), '')::bigint, 0)) THEN
			PERFORM boocoder._reconcile();
		END IF;
		FOR task_id, fence IN
			SELECT x.id, x.fence FROM boocoder.tasks x
			 WHERE x.cancel_requested_at IS NOT NULL AND x.state IN ('running', 'blocked')
		LOOP
			kind := 'cancel';
			RETURN NEXT;
		END LOOP;
		BEGIN
			FOR kind, task_id, fence, prepare IN SELECT a.kind, a.task_id, a.fence, a.answer FROM boocoder._attend() a LOOP
				RETURN NEXT;
			END LOOP;
		EXCEPTION WHEN OTHERS THEN
			-- it fails before its first row is here
			RAISE LOG 'boocoder: answers cannot be passed on: %', SQLERRM;
		END;
		IF EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.state <> 'busy') THEN
			host := boocoder._host();
			kind := 'evict';
			prepare := NULL;
			FOR backend IN SELECT boocoder._evict(host) LOOP
				RETURN NEXT;
			END LOOP;
		END IF;
		IF EXISTS (SELECT 1 FROM boocoder.servers) THEN
			host := coalesce(host, boocoder._host());
			kind := 'end_server';
			FOR server IN SELECT boocoder._end_servers(host) LOOP
				RETURN NEXT;
			END LOOP;
			server := NULL;
		END IF;
	END IF;

	-- One claim, or tasks that can't run for as long as a transaction may last.
	WHILE free_slots > 0 LOOP
		t := boocoder._candidate(behind_priority, behind_id, skipped_sessions, skipped_projects, everything);
		EXIT WHEN t.id IS NULL;
		too_much := looked AND clock_timestamp() > began + interval '50 ms';
		EXIT WHEN too_much;
		looked := true;
		behind_priority := t.priority;
		behind_id := t.id;
		obstructed := boocoder._obstructed(t);
		IF obstructed = 'project' THEN
			skipped_projects := skipped_projects || t.project_id;
			CONTINUE;
		ELSIF obstructed = 'session' THEN
			skipped_sessions := skipped_sessions || t.session_id;
			CONTINUE;
		END IF;
		host := coalesce(host, boocoder._host());
		-- What is wrong with one task is that task's failure.
		BEGIN
			SELECT c.fence, c.prepare, c.agent, c.diff, c.git_prefix, c.agent_prefix, c.backend, c.ends,
				   c.server, c.server_order, c.server_ends
			  INTO fence, prepare, agent, diff, git_prefix, agent_prefix, backend, ends, server, server_order, server_ends
			  FROM boocoder._claim(t, host) c;
		EXCEPTION
			WHEN lock_not_available OR deadlock_detected OR query_canceled THEN
				fence := NULL;
			WHEN OTHERS THEN
				fence := NULL;
				BEGIN
					CONTINUE WHEN SQLSTATE = '23505' AND NOT boocoder._clashes_again(t.id);
					PERFORM boocoder._fail(t.id, 'internal_error', SQLERRM);
				EXCEPTION WHEN OTHERS THEN
					RAISE LOG 'boocoder: task % can neither run nor fail: %', t.id, SQLERRM;
				END;
		END;
		IF fence IS NOT NULL THEN
			IF ends IS NOT NULL THEN
				RETURN QUERY SELECT 'evict', NULL::bigint, NULL::bigint, NULL::bigint, NULL::jsonb, NULL::jsonb, NULL::jsonb,
					NULL::text[], NULL::text[], NULL::bigint, ends, NULL::bigint, NULL::jsonb;
			END IF;
			IF server_ends IS NOT NULL THEN
				RETURN QUERY SELECT 'end_server', NULL::bigint, NULL::bigint, NULL::bigint, NULL::jsonb, NULL::jsonb, NULL::jsonb,
					NULL::text[], NULL::text[], NULL::bigint, NULL::bigint, server_ends, NULL::jsonb;
			END IF;
			kind := 'task';
			task_id := t.id;
			RETURN NEXT;
			-- Its agent is not to wait for the rest of this pass, nor for the claims of the others.
			RETURN;
		END IF;
	END LOOP;

	IF too_much THEN
		PERFORM set_config('boocoder_dispatcher.stopped', jsonb_build_object('priority', behind_priority, 'id', behind_id,
			'until', CASE WHEN resumes THEN (stopped ->> 'until')::timestamptz ELSE began + interval '2 s' END)::text, false);
	ELSIF stopped IS NOT NULL THEN
		PERFORM set_config('boocoder_dispatcher.stopped', '', false);
	END IF;
	IF NOT everything AND NOT too_much THEN
		RETURN;
	END IF;

	kind := 'job';
	task_id := NULL;
	fence := NULL;
	agent := NULL;
	diff := NULL;
	prepare := NULL;
	backend := NULL;
	server := NULL;
	server_order := NULL;
	IF free_jobs > 0 AND (EXISTS (SELECT 1 FROM boocoder.pending_changes c WHERE c.status = 'applying' AND c.job_id IS NULL)
			OR EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.status = 'removing')
			OR EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.status = 'trashed' OR (w.status = 'active' AND w.orphaned_at IS NOT NULL))
			OR EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.request IS NOT NULL OR w.assess_requested_at IS NOT NULL)) THEN
		host := coalesce(host, boocoder._host());
		BEGIN
			PERFORM boocoder._make_worktree_jobs(host);
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'boocoder: no jobs can be made for worktrees now: %', SQLERRM;
		END;
		BEGIN
			PERFORM boocoder._make_jobs(host);
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'boocoder: no jobs can be made for decisions now: %', SQLERRM;
		END;
	END IF;
	IF nullif(current_setting('boocoder_dispatcher.probe_at', true), '')::timestamptz <= began THEN
		BEGIN
			PERFORM boocoder._probe(NULL);
			PERFORM set_config('boocoder_dispatcher.probe_at', '', false);
		EXCEPTION WHEN OTHERS THEN
			-- a client has asked for the same, perhaps
			PERFORM set_config('boocoder_dispatcher.probe_at', (began + interval '5 s')::text, false);
		END;
	END IF;
	FOR j IN
		-- one at a time in a project; looking at agents does not wait for that
		SELECT DISTINCT ON (coalesce(q.project_id, -q.id)) q.* FROM boocoder.jobs q
		 WHERE q.state = 'queued' AND free_jobs > 0
		   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs r WHERE r.project_id = q.project_id AND r.state = 'running')
		 ORDER BY coalesce(q.project_id, -q.id), q.id
	LOOP
		EXIT WHEN begun = free_jobs;
		job_id := j.id;
		host := coalesce(host, boocoder._host());
		SELECT b.job_order, b.prefix INTO prepare, git_prefix FROM boocoder._begin_job(j, host) b;
		CONTINUE WHEN prepare IS NULL;
		begun := begun + 1;
		RETURN NEXT;
	END LOOP;

	IF too_much THEN
		next_due := clock_timestamp() + interval '20 ms';
	ELSE
		SELECT least((SELECT min(x.run_at) FROM boocoder.tasks x
					   WHERE x.state = 'pending' AND x.run_at IS NOT NULL AND x.run_at > now()),
					 (SELECT min(r.deadline) FROM boocoder.permission_requests r
					   WHERE r.status = 'pending' AND r.deadline IS NOT NULL AND r.deadline > now()),
					 -- mostly none waits, and nothing has to be looked up
					 (SELECT min(b.last_active_at) + make_interval(secs => (coalesce(host, boocoder._host()) ->> 'idle_ttl_ms')::bigint / 1000.0)
						FROM boocoder.backends b WHERE b.state = 'idle' HAVING min(b.last_active_at) IS NOT NULL)) INTO next_due;
	END IF;
	IF next_due IS NOT NULL THEN
		kind := 'due';
		job_id := NULL;
		prepare := NULL;
		delay_ms := greatest(1, ceil(extract(epoch FROM least(next_due, now() + interval '1 day') - clock_timestamp()) * 1000))::bigint;
		RETURN NEXT;
	END IF;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._prepared(task_id bigint, fence bigint, result jsonb)
RETURNS TABLE (agent jsonb, diff jsonb, server bigint, server_order jsonb, server_ends bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
	r record;
	project boocoder.projects;
	provider boocoder.providers;
	worktree boocoder.worktrees;
	orders record;
	host jsonb := boocoder._host();
BEGIN
	SELECT * INTO t FROM boocoder.tasks x WHERE x.id = _prepared.task_id AND x.fence = _prepared.fence;
	IF NOT FOUND OR NOT coalesce((result ->> 'ok')::boolean, false) THEN
		RETURN;
	END IF;
	UPDATE boocoder.worktrees w
	   SET status = 'active', branch = coalesce(result ->> 'branch', w.branch), path = coalesce(result ->> 'path', w.path),
		   base_commit = coalesce(w.base_commit, result ->> 'base_commit'),
		   diff_base = coalesce(w.diff_base, result ->> 'base_commit'),
		   git_dir = result ->> 'git_dir', admin_dir = result ->> 'admin_dir',
		   setup_done_at = CASE WHEN (result ->> 'created')::boolean THEN NULL ELSE w.setup_done_at END
	 WHERE w.session_id = t.session_id AND w.deleted_at IS NULL;
	IF t.cancel_requested_at IS NOT NULL THEN
		RETURN;
	END IF;
	SELECT p AS project, v AS provider, w AS worktree, boocoder._argv(v, a.install_path) AS argv, m.wanted_mode, m.agent_session_id,
		   m.status AS agent_status, m.config_hash, b.id AS backend, b.config_hash AS new_hash
	  INTO STRICT r
	  FROM boocoder.projects p
	  JOIN boocoder.worktrees w ON w.session_id = t.session_id AND w.deleted_at IS NULL
	  JOIN boocoder.providers v ON v.name = t.agent
	  LEFT JOIN boocoder.available_agents a ON a.name = v.name
	  LEFT JOIN boocoder.agent_sessions m ON m.chat_id = t.chat_id AND m.agent = v.name
	  LEFT JOIN boocoder.backends b ON b.task_id = t.id AND b.state = 'busy'
	 WHERE p.id = t.project_id;
	project := r.project;
	host := boocoder._for_project(host, project);
	provider := r.provider;
	worktree := r.worktree;
	orders := boocoder._orders(t, project, worktree, provider, r.argv, coalesce(t.mode, r.wanted_mode), host);
	agent := boocoder._continued(orders.agent, coalesce(t.warm, false),
		CASE WHEN NOT boocoder._asks_once(t.creator) THEN r.agent_session_id END,
		boocoder._stale(provider.transport, r.agent_status, r.config_hash, r.new_hash));
	diff := orders.diff;
	IF provider.transport = 'opencode_server' THEN
		SELECT s.server, s.start_order, s.ends INTO server, server_order, server_ends
		  FROM boocoder._take_server(r.backend, provider, worktree, r.argv, boocoder._agent_prefix(project, provider), host) s;
	END IF;
	RETURN NEXT;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._charge(task_id bigint, usage jsonb, agent_session text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
	charged record;
	of_session integer;
	its_cost numeric;
	u boocoder.usage_events;
BEGIN
	SELECT * INTO t FROM boocoder.tasks x WHERE x.id = task_id;
	-- A runner that crashed could not sum up; its last report was streamed.
	IF usage IS NULL THEN
		SELECT e.payload, e.payload ->> 'agent_session_id' INTO usage, agent_session
		  FROM boocoder.events e
		 WHERE e.task_id = t.id AND e.kind = 'usage' AND e.created_at >= t.started_at
		 ORDER BY e.seq DESC LIMIT 1;
	END IF;
	IF usage IS NULL THEN
		RETURN;
	END IF;
	SELECT coalesce(sum(x.cost_usd), 0) AS cost, coalesce(sum(x.input_tokens), 0) AS input, coalesce(sum(x.output_tokens), 0) AS output,
		   coalesce(sum(x.cached_tokens), 0) AS cached, coalesce(sum(x.reasoning_tokens), 0) AS reasoning
	  INTO charged FROM boocoder.usage_events x
	 WHERE x.agent = t.agent AND x.agent_session_id = agent_session AND x.chat_id IS NOT DISTINCT FROM t.chat_id;
	of_session := coalesce((usage ->> 'of_session')::boolean, false)::integer;
	its_cost := greatest(0, coalesce((usage ->> 'cost_total_usd')::numeric - charged.cost, (usage ->> 'cost_usd')::numeric, 0));
	u.input_tokens := greatest(0, coalesce((usage ->> 'input_tokens')::numeric, 0) - of_session * charged.input);
	u.output_tokens := greatest(0, coalesce((usage ->> 'output_tokens')::numeric, 0) - of_session * charged.output);
	u.cached_tokens := greatest(0, coalesce((usage ->> 'cached_tokens')::numeric, 0) - of_session * charged.cached);
	u.reasoning_tokens := greatest(0, coalesce((usage ->> 'reasoning_tokens')::numeric, 0) - of_session * charged.reasoning);
	IF its_cost = 0 AND u.input_tokens + u.output_tokens + u.cached_tokens + u.reasoning_tokens = 0 THEN
		RETURN;
	END IF;
	INSERT INTO boocoder.usage_events (task_id, chat_id, project_id, agent, model, agent_session_id,
		input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_usd)
	VALUES (t.id, t.chat_id, t.project_id, t.agent, coalesce(usage ->> 'model', t.model), agent_session,
		u.input_tokens, u.output_tokens, u.cached_tokens, u.reasoning_tokens, its_cost);
	UPDATE boocoder.tasks x
	   SET input_tokens = s.input, output_tokens = s.output, cost_tokens = s.input + s.output, cost_usd = s.cost
	  FROM (SELECT sum(e.input_tokens) AS input, sum(e.output_tokens) AS output, sum(e.cost_usd) AS cost
			  FROM boocoder.usage_events e WHERE e.task_id = t.id) s
	 WHERE x.id = t.id;
	UPDATE boocoder.agent_sessions s
	   SET input_tokens = s.input_tokens + u.input_tokens, output_tokens = s.output_tokens + u.output_tokens,
		   cost = s.cost + its_cost
	 WHERE (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
									 WHERE q.chat_id = t.chat_id AND q.agent = t.agent FOR NO KEY UPDATE SKIP LOCKED);
	UPDATE boocoder.messages m SET tokens_used = u.input_tokens + u.output_tokens WHERE m.id = t.message_id;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._store_changes(t boocoder.tasks, diff jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees;
	kept integer := coalesce(current_setting('boocoder.max_turn_snapshots', true), '0')::integer;
BEGIN
	SELECT * INTO w FROM boocoder.worktrees x WHERE x.session_id = t.session_id AND x.deleted_at IS NULL;
	IF NOT FOUND THEN
		-- it was removed by somebody who did not see the claim yet; its changes are not lost for that
		SELECT * INTO w FROM boocoder.worktrees x WHERE x.session_id = t.session_id ORDER BY x.id DESC LIMIT 1;
	END IF;
	-- A row that somebody is deciding about right now keeps its decision.
	UPDATE boocoder.pending_changes c SET status = 'superseded'
	 WHERE c.id IN (SELECT o.id FROM boocoder.pending_changes o
					 WHERE o.session_id = t.session_id AND o.status IN ('pending', 'conflict')
					   -- What a person wrote is in the worktree, and stays that person's until an agent changes it.
					   AND NOT (o.agent IS NULL AND o.status = 'pending' AND EXISTS (
							SELECT 1 FROM jsonb_array_elements(_store_changes.diff -> 'changes') c
							 WHERE c ->> 'path' = o.path AND c ->> 'diff' = o.diff))
					   FOR NO KEY UPDATE SKIP LOCKED);
	INSERT INTO boocoder.pending_changes (session_id, task_id, worktree_id, agent, path, old_path, kind, diff,
		base_commit, additions, deletions)
	SELECT t.session_id, t.id, w.id, t.agent, c ->> 'path', c ->> 'old_path', c ->> 'kind', c ->> 'diff',
		   coalesce(diff ->> 'base', w.diff_base, w.base_commit), (c ->> 'additions')::integer, (c ->> 'deletions')::integer
	  FROM jsonb_array_elements(diff -> 'changes') WITH ORDINALITY AS x (c, n)
		   -- What was applied while the agent worked is in its diff still, but needs no second decision.
	 WHERE NOT EXISTS (SELECT 1 FROM boocoder.pending_changes a
						WHERE a.session_id = t.session_id AND a.status = 'applied' AND a.decided_at >= t.started_at
						  AND a.path = c ->> 'path' AND a.diff = c ->> 'diff')
		   -- What a person rejected stays in the worktree, and stays rejected, until it changes.
	   AND NOT EXISTS (SELECT 1 FROM boocoder.pending_changes r
						WHERE r.session_id = t.session_id AND r.status = 'rejected'
						  AND r.path = c ->> 'path' AND r.diff = c ->> 'diff')
	   AND NOT EXISTS (SELECT 1 FROM boocoder.pending_changes m
						WHERE m.session_id = t.session_id AND m.status = 'pending' AND m.agent IS NULL
						  AND m.path = c ->> 'path' AND m.diff = c ->> 'diff')
	 ORDER BY n;
	UPDATE boocoder.worktrees x
	   SET snapshot_tree = diff ->> 'tree', changes_at = now(), facts = coalesce(diff -> 'facts', x.facts),
		   assessed_at = CASE WHEN diff ? 'facts' THEN now() ELSE x.assessed_at END,
		   -- what it skipped is looked at once more: perhaps none of it would be missed
		   assess_requested_at = CASE WHEN diff ? 'skipped' OR x.size_bytes IS NULL AND coalesce(current_setting('boocoder.worktree_budget', true), '0') <> '0' THEN now()
									  ELSE x.assess_requested_at END
	 WHERE x.id = w.id;
	-- what no diff can hold is not passed over in silence
	INSERT INTO boocoder.events (task_id, chat_id, kind, payload)
	SELECT t.id, t.chat_id, 'log', jsonb_build_object('stream', 'boocoder', 'text',
		   E'not part of the diff:\n' || string_agg(s, E'\n') || E'\n')
	  FROM jsonb_array_elements_text(boocoder._array(diff -> 'skipped')) s HAVING count(*) > 0;
	PERFORM boocoder._save(w.id, 'turn', diff ->> 'turn_ref', diff ->> 'tree', t.id);
	-- as the runner did with the refs
	IF kept > 0 THEN
		DELETE FROM boocoder.worktree_saves s
		 WHERE s.id IN (SELECT o.id FROM boocoder.worktree_saves o
						 WHERE o.worktree_id = w.id AND o.kind = 'turn' AND o.task_id <> t.id
						 ORDER BY o.task_id DESC OFFSET kept - 1);
	END IF;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._settle(task_id bigint, fence bigint, result jsonb, diff jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
	outcome text := CASE WHEN (result ->> 'ok')::boolean THEN result ->> 'outcome' ELSE 'failed' END;
	reason text := result ->> 'reason';
	message text := result ->> 'message';
BEGIN
	SELECT * INTO t FROM boocoder.tasks x
	 WHERE x.id = _settle.task_id AND x.fence = _settle.fence FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN CASE WHEN EXISTS (SELECT 1 FROM boocoder.tasks x WHERE x.id = _settle.task_id AND x.fence = _settle.fence)
			THEN NULL ELSE 'stale' END;
	END IF;
	-- Rows that others may lock: look before waiting.
	IF NOT boocoder._can_end(t) THEN
		RETURN NULL;
	END IF;

	-- a worktree's result: there was nothing to run any more
	IF outcome IS NULL THEN
		outcome := CASE WHEN t.cancel_requested_at IS NULL THEN 'failed' ELSE 'cancelled' END;
		reason := CASE outcome WHEN 'failed' THEN 'internal_error' ELSE 'cancelled' END;
	END IF;
	-- an event was refused of an agent that was not to go on anyway
	IF reason = 'bad_event' AND t.cancel_requested_at IS NOT NULL THEN
		outcome := 'cancelled';
		reason := 'cancelled';
	END IF;
	IF (diff ->> 'ok')::boolean THEN
		PERFORM boocoder._store_changes(t, diff);
	ELSIF diff IS NOT NULL AND outcome <> 'failed' THEN
		-- never completed without its diff
		outcome := 'failed';
		reason := coalesce(diff ->> 'reason', 'internal_error');
		message := diff ->> 'message';
	END IF;
	IF outcome = 'completed' THEN
		reason := NULL;
		message := NULL;
	END IF;
	PERFORM boocoder._turn_ended(t, result);
	IF result ? 'usage' OR reason = 'runner_crashed' THEN
		PERFORM boocoder._charge(t.id, result -> 'usage', result ->> 'agent_session_id');
	END IF;
	-- The setup is done when the agent was started after it; a sandbox that failed, or a cancel, may have come before.
	UPDATE boocoder.worktrees w SET setup_done_at = now()
	 WHERE w.session_id = t.session_id AND w.deleted_at IS NULL AND w.setup_done_at IS NULL
	   AND (outcome = 'completed' OR EXISTS (
			SELECT 1 FROM boocoder.events e
			 WHERE e.task_id = t.id AND e.kind = 'status' AND e.payload ->> 'phase' = 'spawned' AND e.created_at >= t.started_at));
	UPDATE boocoder.messages m
	   SET status = CASE outcome WHEN 'completed' THEN 'complete' ELSE outcome END, finished_at = now()
	 WHERE m.id = t.message_id;
	PERFORM boocoder._withdraw(t);
	IF reason = 'worktree_missing' THEN
		-- somebody removed the directory: the next attempt makes it again, as it was at the end of the last turn
		UPDATE boocoder.worktrees w SET status = 'creating' WHERE w.session_id = t.session_id AND w.deleted_at IS NULL AND w.status = 'active';
		t.retry_requested := t.retry_requested OR (t.cancel_requested_at IS NULL AND t.attempt < t.max_attempts);
	END IF;
	IF t.retry_requested AND outcome <> 'completed' THEN
		-- asked for while it waited for a person
		UPDATE boocoder.tasks x SET state = 'pending', transport = coalesce(result ->> 'transport', x.transport) WHERE x.id = t.id;
		RETURN 'pending';
	END IF;
	UPDATE boocoder.tasks x
	   SET state = outcome, failure_reason = reason, transport = coalesce(result ->> 'transport', x.transport),
		   error = nullif(concat_ws(E'\n', message, result ->> 'detail', result ->> 'hint',
						  CASE WHEN outcome = 'failed' THEN nullif(right(result ->> 'stderr_tail', 4000), '') END), ''),
		   output_summary = coalesce(nullif(result ->> 'summary', ''), x.output_summary)
	 WHERE x.id = t.id;
	IF pg_notification_queue_usage() < 0.5 THEN
		PERFORM pg_notify('boocoder_events', jsonb_build_object('tasks', ARRAY[t.id], 'state', outcome)::text);
	END IF;
	RETURN outcome;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._verdict(t boocoder.tasks, tool_call jsonb, OUT answer text, OUT rule text) RETURNS record
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

CREATE OR REPLACE FUNCTION boocoder._note(e boocoder.events) RETURNS void
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

CREATE OR REPLACE FUNCTION boocoder._attend() RETURNS TABLE (kind text, task_id bigint, fence bigint, answer jsonb)
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

CREATE OR REPLACE FUNCTION boocoder._home(w boocoder.worktrees) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- also when the session was deleted
	RETURN 's' || coalesce(w.session_id::text, substring(w.path from '/s([0-9]+)(-[0-9]+)?$'));
END
$$;

CREATE OR REPLACE FUNCTION boocoder._reapable(at timestamptz, grace interval, budget bigint) RETURNS TABLE (worktree bigint, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w record;
	excess bigint := 0;
BEGIN
	IF budget > 0 THEN
		SELECT sum(x.size_bytes) - budget INTO excess FROM boocoder.worktrees x WHERE x.status <> 'removed';
	END IF;
	FOR w IN
		SELECT x.id, x.status, x.size_bytes, coalesce(x.deleted_at, x.orphaned_at) AS since,
			   NOT 'running' = ANY (risks) AND (x.forced OR CASE x.status WHEN 'trashed' THEN NOT 'undecided' = ANY (risks)
																		  ELSE cardinality(risks) = 0 END) AS safe
		  FROM boocoder.worktrees x, boocoder._risks_of(x) risks
		 WHERE (x.status = 'trashed' OR (x.status = 'active' AND x.orphaned_at IS NOT NULL))
		   -- one that could not be removed is not tried again and again
		   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j
							WHERE j.worktree_id = x.id AND j.kind = 'remove' AND j.state = 'failed' AND j.ended_at > at - interval '10 min'
							  AND j.ended_at > coalesce(x.deleted_at, x.orphaned_at))
		 ORDER BY x.status = 'trashed' DESC, coalesce(x.deleted_at, x.orphaned_at), x.id
	LOOP
		CONTINUE WHEN NOT w.safe;
		IF w.since + grace <= at THEN
			reason := CASE w.status WHEN 'trashed' THEN 'deleted' ELSE 'orphaned' END;
		ELSIF excess > 0 THEN
			reason := 'budget';
		ELSE
			CONTINUE;
		END IF;
		worktree := w.id;
		excess := excess - coalesce(w.size_bytes, 0);
		RETURN NEXT;
	END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._reap(host jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w record;
BEGIN
	FOR w IN
		SELECT q.id, q.forced FROM boocoder.worktrees q
		 WHERE q.id IN (SELECT r.worktree FROM boocoder._reapable(now(),
							make_interval(secs => (host ->> 'worktree_grace_ms')::bigint / 1000.0),
							(host ->> 'worktree_budget')::bigint) r)
		   FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		-- of a turn that ended after it was decided that all goes
		UPDATE boocoder.pending_changes c SET status = 'rejected'
		 WHERE w.forced
		   AND c.id IN (SELECT o.id FROM boocoder.pending_changes o
						 WHERE o.worktree_id = w.id AND o.status IN ('pending', 'conflict') FOR NO KEY UPDATE SKIP LOCKED);
		-- one that is being applied, or that a client has, is waited for
		CONTINUE WHEN EXISTS (SELECT 1 FROM boocoder.pending_changes c
							   WHERE c.worktree_id = w.id AND c.status IN ('pending', 'conflict', 'applying'));
		BEGIN
			UPDATE boocoder.worktrees x SET status = 'removing' WHERE x.id = w.id;
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'boocoder: worktree % cannot be removed: %', w.id, SQLERRM;
		END;
	END LOOP;
END
$$;

CREATE FUNCTION boocoder._disown(host jsonb) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	UPDATE boocoder.worktrees w
	   SET status = 'removed', deleted_at = coalesce(w.deleted_at, now()), request = NULL, assess_requested_at = NULL
	 WHERE w.id IN (SELECT q.id FROM boocoder.worktrees q
					 WHERE q.status <> 'removed' AND q.origin <> host ->> 'origin' FOR NO KEY UPDATE SKIP LOCKED)
$$;
COMMENT ON FUNCTION boocoder._disown(jsonb) IS 'marks the worktrees that another database made as removed: nothing of theirs is touched';

CREATE OR REPLACE FUNCTION boocoder._make_worktree_jobs(host jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM boocoder._disown(host);
	IF EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.status = 'trashed' OR (w.status = 'active' AND w.orphaned_at IS NOT NULL)) THEN
		PERFORM boocoder._reap(host);
	END IF;
	INSERT INTO boocoder.jobs (kind, project_id, worktree_id)
	SELECT CASE WHEN w.request IS NULL THEN 'assess' WHEN w.status = 'creating' THEN 'revive' ELSE 'rewrite' END, w.project_id, w.id
	  FROM boocoder.worktrees w JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE (w.request IS NOT NULL OR w.assess_requested_at IS NOT NULL) AND w.status IN ('active', 'creating') AND w.origin = host ->> 'origin'
	   AND (w.request IS NOT NULL OR w.status = 'active')
	   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j WHERE j.worktree_id = w.id AND j.state IN ('queued', 'running'))
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked'))
	   FOR KEY SHARE OF w, p SKIP LOCKED;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._worktree_job_done(j boocoder.jobs, ok boolean, result jsonb, note text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees;
BEGIN
	SELECT * INTO w FROM boocoder.worktrees x WHERE x.id = j.worktree_id;
	IF j.kind = 'assess' THEN
		-- a worktree that is gone, or can't be read, is not asked about again and again
		UPDATE boocoder.worktrees x
		   SET facts = CASE WHEN ok THEN result - 'ok' ELSE x.facts END, assessed_at = CASE WHEN ok THEN now() ELSE x.assessed_at END,
			   size_bytes = CASE WHEN ok THEN (result ->> 'size_bytes')::bigint ELSE x.size_bytes END,
			   assess_requested_at = NULL
		 WHERE x.id = w.id;
	ELSIF NOT ok THEN
		UPDATE boocoder.worktrees x
		   SET request = NULL, request_error = note,
			   status = CASE WHEN x.status = 'creating' AND j.kind = 'revive' THEN 'removed' ELSE x.status END,
			   deleted_at = CASE WHEN x.status = 'creating' AND j.kind = 'revive' THEN now() ELSE x.deleted_at END
		 WHERE x.id = w.id;
	ELSIF j.kind = 'revive' THEN
		UPDATE boocoder.worktrees x
		   SET status = 'active', path = result ->> 'path', branch = result ->> 'branch', base_commit = result ->> 'base_commit',
			   git_dir = result ->> 'git_dir', admin_dir = result ->> 'admin_dir', setup_done_at = NULL
		 WHERE x.id = w.id;
		PERFORM boocoder._wake_now();
	ELSIF w.request ->> 'do' = 'edit' THEN
		PERFORM boocoder._save(w.id, 'undo', result ->> 'saved', result ->> 'saved_tree', NULL);
		PERFORM boocoder._store_manual(w, result -> 'changes');
		UPDATE boocoder.worktrees x
		   SET request = NULL, request_error = NULL, assess_requested_at = now(),
			   snapshot_tree = coalesce(result ->> 'known_tree', x.snapshot_tree)
		 WHERE x.id = w.id;
	ELSE
		PERFORM boocoder._save(w.id, CASE w.request ->> 'do' WHEN 'stash' THEN 'stash' ELSE 'undo' END, result ->> 'saved',
			result ->> 'saved_tree', NULL);
		UPDATE boocoder.pending_changes c SET status = 'superseded'
		 WHERE w.request ? 'task'
		   AND c.id IN (SELECT o.id FROM boocoder.pending_changes o
						 WHERE o.worktree_id = w.id AND o.status IN ('pending', 'conflict') FOR NO KEY UPDATE SKIP LOCKED);
		-- What was offered when that was the content is offered again.
		INSERT INTO boocoder.pending_changes (session_id, task_id, worktree_id, agent, path, old_path, kind, diff, base_commit, additions, deletions)
		SELECT c.session_id, c.task_id, c.worktree_id, c.agent, c.path, c.old_path, c.kind, c.diff, c.base_commit, c.additions, c.deletions
		  FROM boocoder.pending_changes c
		 WHERE c.task_id = (w.request ->> 'task')::bigint AND c.worktree_id = w.id AND c.status = 'superseded'
		   AND c.base_commit IS NOT DISTINCT FROM coalesce(w.diff_base, w.base_commit)
		   AND c.created_at = (SELECT max(m.created_at) FROM boocoder.pending_changes m
								WHERE m.task_id = c.task_id AND m.created_at < now())
		 ORDER BY c.id;
		UPDATE boocoder.worktrees x
		   SET request = NULL, request_error = NULL, assess_requested_at = now(),
			   snapshot_tree = CASE WHEN w.request ? 'task' THEN result ->> 'tree' ELSE x.snapshot_tree END,
			   changes_at = CASE WHEN w.request ? 'task' THEN now() ELSE x.changes_at END
		 WHERE x.id = w.id;
	END IF;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._turn_ended(t boocoder.tasks, result jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	b boocoder.backends;
	session text := result ->> 'agent_session_id';
	kept boolean := coalesce((result ->> 'warm')::boolean, false);
BEGIN
	IF t.chat_id IS NULL THEN
		RETURN;
	END IF;
	IF session IS NULL AND result ->> 'reason' IN ('runner_crashed', 'interrupted', 'agent_exited') THEN
		SELECT e.payload ->> 'agent_session_id' INTO session FROM boocoder.events e
		 WHERE e.task_id = t.id AND e.kind = 'status' AND e.payload ? 'agent_session_id' AND e.created_at >= t.started_at
		 ORDER BY e.seq DESC LIMIT 1;
	END IF;
	SELECT * INTO b FROM boocoder.backends x WHERE x.task_id = t.id AND x.state = 'busy';
	IF b.id IS NOT NULL AND kept THEN
		UPDATE boocoder.backends x SET state = 'idle', task_id = NULL, last_active_at = clock_timestamp() WHERE x.id = b.id;
	ELSIF b.id IS NOT NULL THEN
		DELETE FROM boocoder.backends x WHERE x.id = b.id;
	END IF;
	IF session IS NULL AND b.id IS NULL
		AND NOT EXISTS (SELECT 1 FROM boocoder.agent_sessions s WHERE s.chat_id = t.chat_id AND s.agent = t.agent) THEN
		RETURN;
	END IF;
	INSERT INTO boocoder.agent_sessions AS s (chat_id, agent, session_id, worktree_id, agent_session_id, config_hash, pid, status)
	VALUES (t.chat_id, t.agent, t.session_id,
		(SELECT w.id FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL), session, b.config_hash,
		CASE WHEN kept THEN b.pid END,
		CASE WHEN kept AND b.id IS NOT NULL THEN 'idle'
			 WHEN result ->> 'reason' IN ('runner_crashed', 'interrupted', 'agent_exited', 'killed_by_signal', 'protocol_error',
										  'line_too_long', 'inactivity_timeout') THEN 'crashed'
			 ELSE 'closed' END)
	ON CONFLICT ON CONSTRAINT agent_sessions_pkey DO UPDATE
		SET session_id = excluded.session_id, worktree_id = excluded.worktree_id,
			agent_session_id = coalesce(excluded.agent_session_id, s.agent_session_id),
			config_hash = coalesce(excluded.config_hash, s.config_hash), pid = excluded.pid, status = excluded.status,
			last_active_at = now()
		-- a task that stands by itself leaves the chat's session alone
		WHERE s.agent_session_id IS NULL OR NOT boocoder._asks_once(t.creator);
END
$$;

CREATE OR REPLACE FUNCTION boocoder.register_provider(name text, transport text, command text[] DEFAULT '{}',
	env jsonb DEFAULT '{}', label text DEFAULT NULL, models jsonb DEFAULT '[]') RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM jsonb_each(env) e
				WHERE e.key !~ '^[A-Za-z_][A-Za-z0-9_]*$' OR jsonb_typeof(e.value) <> 'string'
				  AND NOT coalesce(jsonb_typeof(e.value -> 'from_env') = 'string' OR jsonb_typeof(e.value -> 'from_file') = 'string', false)) THEN
		RAISE EXCEPTION 'the environment of a provider is an object of names and strings' USING ERRCODE = 'BC005',
			HINT = 'A value may also be {"from_env": "NAME"} or {"from_file": "/path"}.';
	END IF;
	-- not one INSERT: that takes the place of a built-in one, and with its row goes what refers to it
	UPDATE boocoder.providers p
	   SET label = coalesce(register_provider.label, p.label), transport = register_provider.transport,
		   command = register_provider.command, env = register_provider.env, models = register_provider.models
	 WHERE p.name = register_provider.name;
	IF NOT FOUND THEN
		INSERT INTO boocoder.providers (name, label, transport, command, env, models)
		VALUES (register_provider.name, coalesce(register_provider.label, register_provider.name),
			register_provider.transport, register_provider.command, register_provider.env, register_provider.models);
	END IF;
	RETURN register_provider.name;
END
$$;

CREATE OR REPLACE FUNCTION boocoder.send(task bigint, input text) RETURNS bigint
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

CREATE OR REPLACE FUNCTION boocoder.cancel(task bigint) RETURNS boolean
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

CREATE OR REPLACE FUNCTION boocoder._check_wait(what text, written_by xid) RETURNS void
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

CREATE OR REPLACE FUNCTION boocoder._decide(ids bigint[], status text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	n bigint;
BEGIN
	IF EXISTS (SELECT 1 FROM unnest(ids) i WHERE NOT EXISTS (SELECT 1 FROM boocoder.pending_changes c WHERE c.id = i)) THEN
		RAISE EXCEPTION 'some of these changes do not exist' USING ERRCODE = 'BC002', HINT = 'See boocoder.list_pending().';
	END IF;
	-- the guard refuses what is decided already
	UPDATE boocoder.pending_changes c SET status = _decide.status WHERE c.id = ANY (ids);
	GET DIAGNOSTICS n = ROW_COUNT;
	IF n < (SELECT count(DISTINCT i) FROM unnest(ids) i) THEN
		RAISE EXCEPTION 'some of these changes are not yours to decide about'
			USING ERRCODE = 'BC002', HINT = 'Their project is one that you do not see any more.';
	END IF;
	RETURN n;
END
$$;

CREATE OR REPLACE FUNCTION boocoder._inbox()
RETURNS TABLE (task_id bigint, project text, agent text, state text, reason text, error text, age interval,
	attempt integer, last_output text, input text, what_to_do text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT t.id, p.name, t.agent, t.state, t.failure_reason, t.error, now() - coalesce(t.ended_at, t.started_at, t.created_at),
		   t.attempt, t.output_summary, left(t.input, 200),
		   format('SELECT boocoder.inbox_retry(%s);  or  SELECT boocoder.send(%s, ''...'');', t.id, t.id)
	  FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id
	 WHERE t.state = 'failed' OR t.state = 'blocked'
	   AND NOT EXISTS (SELECT 1 FROM boocoder.permission_requests r WHERE r.task_id = t.id AND r.status = 'pending' AND r.fence = t.fence)
	UNION ALL
	SELECT t.id, p.name, t.agent, 'blocked', r.kind,
		   coalesce(r.message, r.tool_call ->> 'title', r.tool_call ->> 'kind')
			|| coalesce(' (until ' || to_char(r.deadline, 'HH24:MI:SS') || ')', ''),
		   now() - r.requested_at, t.attempt, t.output_summary, left(t.input, 200),
		   CASE r.kind WHEN 'permission' THEN format('SELECT boocoder.answer_permission(%s, ...);  with ', r.id)
				|| (SELECT string_agg(format('%L (%s)', o ->> 'optionId', o ->> 'name'), ', ' ORDER BY n)
					  FROM jsonb_array_elements(r.options) WITH ORDINALITY AS x (o, n))
			ELSE format('SELECT boocoder.answer_elicitation(%s, ''{...}'');  as its schema says, or NULL to decline', r.id) END
	  FROM boocoder.permission_requests r JOIN boocoder.tasks t ON t.id = r.task_id JOIN boocoder.projects p ON p.id = t.project_id
	 WHERE r.status = 'pending' AND r.fence = t.fence
	UNION ALL
	SELECT c.task_id, p.name, c.agent, 'conflict', 'conflict', string_agg(c.path || ': ' || coalesce(c.error, ''), E'\n' ORDER BY c.id),
		   now() - max(c.decided_at), NULL, NULL, NULL,
		   CASE WHEN c.task_id IS NOT NULL THEN format('SELECT boocoder.apply(%s);  or  SELECT boocoder.reject(%s);', c.task_id, c.task_id)
				ELSE format('SELECT boocoder.apply_changes(%1$L);  or  SELECT boocoder.reject_changes(%1$L);', array_agg(c.id ORDER BY c.id)) END
	  FROM boocoder.pending_changes c JOIN boocoder.worktrees w ON w.id = c.worktree_id JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE c.status = 'conflict' GROUP BY c.task_id, p.name, c.agent
	 ORDER BY 7 DESC
$$;

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

CREATE OR REPLACE FUNCTION boocoder.answer_permission(request bigint, option text) RETURNS text
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

CREATE OR REPLACE FUNCTION boocoder.answer_elicitation(request bigint, content jsonb) RETURNS void
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

CREATE FUNCTION boocoder.remove_permission_rule(rule bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.permission_rules r SET discarded = true WHERE r.id = rule;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION boocoder.remove_permission_rule(bigint) IS
	'removes a rule: users those that they made for tasks, administrators any; false when there is none';

CREATE OR REPLACE FUNCTION boocoder._tool_timeline()
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

CREATE FUNCTION boocoder.delete_session(session bigint, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	before text := current_setting('boocoder.force_delete', true);
	done boolean;
BEGIN
	IF force THEN
		PERFORM set_config('boocoder.force_delete', 'on', true);
	END IF;
	UPDATE boocoder.sessions s SET discarded = true WHERE s.id = session;
	done := FOUND;
	IF force THEN
		PERFORM set_config('boocoder.force_delete', coalesce(before, 'off'), true);
	END IF;
	RETURN done;
END
$$;
COMMENT ON FUNCTION boocoder.delete_session(bigint, boolean) IS
	'deletes a session with its chats; its tasks and their costs stay, its worktree goes by the rules for orphans; refused while an agent is at work, and, without force, while its worktree holds what would be missed (SQLSTATE BC004); false when there is none';

CREATE FUNCTION boocoder.delete_chat(chat bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.chats c SET discarded = true WHERE c.id = chat;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION boocoder.delete_chat(bigint) IS
	'deletes a chat with its messages; its tasks and their costs stay; refused while an agent is at work (SQLSTATE BC004); false when there is none';

-- Triggers.

CREATE TRIGGER discard AFTER UPDATE ON boocoder.sessions FOR EACH ROW WHEN (NEW.discarded) EXECUTE FUNCTION boocoder._discard();
CREATE TRIGGER discard AFTER UPDATE ON boocoder.chats FOR EACH ROW WHEN (NEW.discarded) EXECUTE FUNCTION boocoder._discard();
CREATE TRIGGER discard AFTER UPDATE ON boocoder.permission_rules FOR EACH ROW WHEN (NEW.discarded) EXECUTE FUNCTION boocoder._discard();
COMMENT ON TRIGGER discard ON boocoder.sessions IS 'deletes the row';
COMMENT ON TRIGGER discard ON boocoder.chats IS 'deletes the row';
COMMENT ON TRIGGER discard ON boocoder.permission_rules IS 'deletes the row';
CREATE TRIGGER appears BEFORE INSERT ON boocoder.agent_sessions FOR EACH ROW EXECUTE FUNCTION boocoder._new_agent_session();
COMMENT ON TRIGGER appears ON boocoder.agent_sessions IS 'keeps the dispatcher from waiting for a client';

CREATE TRIGGER goes BEFORE DELETE ON boocoder.tasks FOR EACH ROW WHEN (OLD.state IN ('running', 'blocked'))
	EXECUTE FUNCTION boocoder._refuse_delete();
COMMENT ON TRIGGER goes ON boocoder.tasks IS 'keeps a task while its agent is at work';
-- Policies.

DROP POLICY decide ON boocoder.tasks;
DROP POLICY visible ON boocoder.agent_sessions;
DROP POLICY own_tasks ON boocoder.permission_rules;
DROP POLICY visible ON boocoder.permission_requests;
DROP POLICY visible ON boocoder.pending_changes;
CREATE POLICY decide ON boocoder.tasks FOR UPDATE TO boocoder_user
	USING (submitted_by = current_user OR project_id IN (SELECT p.id FROM boocoder.projects p))
	WITH CHECK (project_id IN (SELECT p.id FROM boocoder.projects p)
				OR (submitted_by = current_user AND state <> 'pending' AND NOT retry_requested));
COMMENT ON POLICY decide ON boocoder.tasks IS 'whoever sees a task may cancel it, and retry it if the project is visible, too';
CREATE POLICY visible ON boocoder.agent_sessions TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id))
	-- a foreign key would look up, and lock, a session that one does not see
	WITH CHECK (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id
						   AND (agent_sessions.session_id IS NULL OR agent_sessions.session_id = c.session_id)));
COMMENT ON POLICY visible ON boocoder.agent_sessions IS 'those of visible chats';
CREATE POLICY own_tasks ON boocoder.permission_rules FOR INSERT TO boocoder_user
	WITH CHECK (EXISTS (SELECT 1 FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id
						 WHERE t.id = task_id AND (permission_rules.project_id IS NULL OR permission_rules.project_id = p.id)));
COMMENT ON POLICY own_tasks ON boocoder.permission_rules IS 'users make rules for tasks in projects they see';
CREATE POLICY own_rules ON boocoder.permission_rules FOR UPDATE TO boocoder_user
	USING (created_by = current_user AND task_id IN (SELECT t.id FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id));
COMMENT ON POLICY own_rules ON boocoder.permission_rules IS 'users discard the rules that they made';
CREATE POLICY visible ON boocoder.permission_requests FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.permission_requests IS 'those of visible tasks';
CREATE POLICY answer ON boocoder.permission_requests FOR UPDATE TO boocoder_user
	USING (EXISTS (SELECT 1 FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id WHERE t.id = task_id));
COMMENT ON POLICY answer ON boocoder.permission_requests IS 'those of tasks in visible projects';
CREATE POLICY visible ON boocoder.pending_changes FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.id = worktree_id)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.pending_changes IS 'those of visible worktrees and tasks';
CREATE POLICY decide ON boocoder.pending_changes FOR UPDATE TO boocoder_user
	USING (EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.id = worktree_id)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id WHERE t.id = task_id));
COMMENT ON POLICY decide ON boocoder.pending_changes IS 'those in visible projects';

-- Rights: all of them anew.

REVOKE ALL ON ALL TABLES IN SCHEMA boocoder FROM PUBLIC, boocoder_viewer, boocoder_user, boocoder_admin, boocoder_worker;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA boocoder FROM PUBLIC, boocoder_viewer, boocoder_user, boocoder_admin, boocoder_worker;
REVOKE ALL ON ALL ROUTINES IN SCHEMA boocoder FROM PUBLIC, boocoder_viewer, boocoder_user, boocoder_admin, boocoder_worker;

-- viewers
GRANT SELECT ON boocoder.projects, boocoder.sessions, boocoder.chats, boocoder.tasks, boocoder.messages,
	boocoder.message_parts, boocoder.events, boocoder.worktrees, boocoder.pending_changes, boocoder.usage_events,
	boocoder.available_agents, boocoder.task_transitions, boocoder.inbox, boocoder.status, boocoder.jobs,
	boocoder.agent_sessions, boocoder.agent_commands, boocoder.permission_rules, boocoder.permission_requests,
	boocoder.tool_timeline, boocoder.backends, boocoder.worktree_saves, boocoder.worktree_disk, boocoder.servers TO boocoder_viewer;
GRANT INSERT (kind, provider) ON boocoder.jobs TO boocoder_viewer;		-- to look at agents again, see the policy
GRANT SELECT (name, label, kind, transport, command, builtin_command, fallback, fallback_command, version_args, launch_prefix,
	persistent_home, keep_raw, models_url, models_prefix, models, modes, default_model, permission_policy, enabled, builtin)
	ON boocoder.providers TO boocoder_viewer;
GRANT EXECUTE ON FUNCTION boocoder._project_id(text), boocoder._task(bigint), boocoder._check_wait(text, xid), boocoder.wait(bigint, interval),
	boocoder.events_since(bigint, bigint), boocoder._event_line(text, jsonb), boocoder.ls(text, text),
	boocoder.task_detail(bigint), boocoder.list_pending(bigint), boocoder.diff(bigint), boocoder._inbox(),
	boocoder.cost_stats(text, timestamptz, timestamptz), boocoder._status(), boocoder.doctor(),
	boocoder._preloaded(), boocoder._worker_status(), boocoder._change_generation(),
	boocoder._wait_change(bigint, integer), boocoder._probe_ttl_ms(), boocoder._probe(text), boocoder._wake_now(),
	boocoder.probe_agents(text), boocoder.provider_snapshot(),
	boocoder._worktree(bigint), boocoder._risks(jsonb, bigint, bigint), boocoder._risks_of(boocoder.worktrees), boocoder.worktree_risk(bigint),
	boocoder.wait_worktree(bigint, interval), boocoder.agent_sessions_for(bigint), boocoder._worktree_disk(),
	boocoder._asks_once(text), boocoder._warm(boocoder.providers, bigint, bigint, text), boocoder.use_warm_backend(text, bigint, bigint, text), boocoder._tool_timeline() TO boocoder_viewer;
GRANT EXECUTE ON PROCEDURE boocoder.attach(bigint, bigint) TO boocoder_viewer;

-- users
GRANT INSERT (project_id, session_id, chat_id, parent_task_id, agent, model, mode, input, creator, priority, run_at,
	max_attempts, timeout, idempotency_key, permission_policy) ON boocoder.tasks TO boocoder_user;
GRANT UPDATE (state, cancel_requested_at, retry_requested, priority, run_at) ON boocoder.tasks TO boocoder_user;
-- No right on a whole table: with it comes LOCK TABLE, and with that everybody waits.  Hence "discarded" instead of DELETE.
GRANT INSERT (project_id, title), UPDATE (title, closed_at, discarded) ON boocoder.sessions TO boocoder_user;
GRANT INSERT (session_id, title, model), UPDATE (title, model, closed_at, discarded) ON boocoder.chats TO boocoder_user;
GRANT UPDATE (status, chosen_option, content) ON boocoder.permission_requests TO boocoder_user;
GRANT INSERT (chat_id, agent, session_id, wanted_mode, mode_asked_at), UPDATE (wanted_mode, mode_asked_at, mode_sent_at, mode_error)
	ON boocoder.agent_sessions TO boocoder_user;
GRANT INSERT (provider, project_id, task_id, tool_kind, path_pattern, command_pattern, answer), UPDATE (discarded)
	ON boocoder.permission_rules TO boocoder_user;
GRANT UPDATE (status, staged) ON boocoder.pending_changes TO boocoder_user;
GRANT UPDATE (status, forced, request, assess_requested_at) ON boocoder.worktrees TO boocoder_user;
GRANT EXECUTE ON FUNCTION
	boocoder.run(text, text, text, text, text, bigint, bigint, integer, timestamptz, interval, integer, text, text),
	boocoder.send(bigint, text), boocoder.cancel(bigint), boocoder.retry(bigint), boocoder.inbox_retry(bigint),
	boocoder._request(bigint), boocoder._check_answered(boolean, bigint), boocoder._option(jsonb, text), boocoder.answer_permission(bigint, text),
	boocoder.answer_elicitation(bigint, jsonb), boocoder.set_mode(bigint, text, text),
	boocoder.add_permission_rule(text, text, text, bigint, text, text, text), boocoder._decide(bigint[], text), boocoder._undecided(bigint), boocoder.apply(bigint),
	boocoder.apply_changes(bigint[]), boocoder.reject(bigint), boocoder.reject_changes(bigint[]), boocoder.queue_manual_change(bigint, text, text),
	boocoder.remove_worktree(bigint, boolean), boocoder.close_session(bigint, boolean), boocoder.close_chat(bigint),
	boocoder._cancel_tasks(bigint, bigint), boocoder.undelete_worktree(bigint), boocoder._change_worktree(bigint, jsonb),
	boocoder.refresh_worktree(bigint), boocoder.worktree_stash(bigint), boocoder.worktree_restore(bigint, bigint),
	boocoder.rewind(bigint, bigint), boocoder.stage_changes(bigint[], boolean),
	boocoder.delete_session(bigint, boolean), boocoder.delete_chat(bigint), boocoder.remove_permission_rule(bigint) TO boocoder_user;

-- administrators
GRANT SELECT, INSERT, UPDATE, DELETE ON boocoder.projects, boocoder.providers TO boocoder_admin;
GRANT DELETE ON boocoder.sessions, boocoder.chats, boocoder.permission_rules TO boocoder_admin;
GRANT EXECUTE ON FUNCTION
	boocoder.add_project(text, text, text, text, text, text[], name, boolean, text[], text[], text[], text, text[], text),
	boocoder.archive_project(text), boocoder.register_provider(text, text, text[], jsonb, text, jsonb),
	boocoder.remove_provider(text), boocoder.launch_spec(text),
	boocoder._argv(boocoder.providers, text), boocoder._worktree_root(boocoder.projects, jsonb), boocoder._inspect(text, text[], text, jsonb), boocoder._check_host(),
	boocoder._host(), boocoder._below(text, text), boocoder._repository_checks(), boocoder._drift_lines(text, jsonb) TO boocoder_admin;

-- the dispatcher
GRANT SELECT ON ALL TABLES IN SCHEMA boocoder TO boocoder_worker;
GRANT INSERT ON boocoder.sessions, boocoder.chats, boocoder.messages, boocoder.message_parts, boocoder.events,
	boocoder.worktrees, boocoder.jobs, boocoder.pending_changes, boocoder.usage_events, boocoder.agent_sessions,
	boocoder.agent_commands, boocoder.permission_requests, boocoder.available_agents, boocoder.backends, boocoder.worktree_saves, boocoder.servers TO boocoder_worker;
GRANT UPDATE (title) ON boocoder.sessions, boocoder.chats TO boocoder_worker;	-- to lock rows, FOR KEY SHARE
GRANT UPDATE (archived_at) ON boocoder.projects TO boocoder_worker;	-- likewise
GRANT UPDATE ON boocoder.tasks, boocoder.messages, boocoder.worktrees, boocoder.jobs, boocoder.pending_changes,
	boocoder.agent_sessions, boocoder.permission_requests, boocoder.available_agents, boocoder.backends, boocoder.worktree_saves, boocoder.servers TO boocoder_worker;
GRANT DELETE ON boocoder.agent_commands, boocoder.jobs, boocoder.backends, boocoder.worktree_saves, boocoder.servers TO boocoder_worker;
GRANT USAGE ON SEQUENCE boocoder.fence_seq TO boocoder_worker;
GRANT INSERT, DELETE ON boocoder.home TO boocoder_worker;
GRANT EXECUTE ON FUNCTION boocoder._host(), boocoder._wake_now(),
	boocoder._orders(boocoder.tasks, boocoder.projects, boocoder.worktrees, boocoder.providers, text[], text, jsonb),
	boocoder._worktree_root(boocoder.projects, jsonb), boocoder._argv(boocoder.providers, text),
	boocoder._agent_prefix(boocoder.projects, boocoder.providers), boocoder._sandbox(boocoder.providers, text, text, jsonb), boocoder._free_ports(jsonb), boocoder._fail(bigint, text, text), boocoder._below(text, text), boocoder._root(text),
	boocoder._obstacle(name, boocoder.projects, text, boocoder.providers, jsonb), boocoder._claim(boocoder.tasks, jsonb),
	boocoder._candidate(integer, bigint, bigint[], bigint[], boolean), boocoder._clashes_again(bigint), boocoder._make_jobs(jsonb), boocoder._job_order(boocoder.jobs, jsonb), boocoder._begin_job(boocoder.jobs, jsonb),
	boocoder._for_project(jsonb, boocoder.projects), boocoder._outdated(boocoder.pending_changes), boocoder._job_done(bigint, jsonb), boocoder._disown(jsonb), boocoder._can_end(boocoder.tasks),
	boocoder._bypasses_rights(name), boocoder._start(integer), boocoder._reconcile(),
	boocoder._obstructed(boocoder.tasks), boocoder._leave_the_original(), boocoder._next_actions(integer, integer, boolean),
	boocoder._prepared(bigint, bigint, jsonb), boocoder._append(bigint[], bigint[], jsonb[]),
	boocoder._array(jsonb), boocoder._probe_order(boocoder.providers, jsonb), boocoder._probed(text, jsonb), boocoder._probe(text),
	boocoder._paths(jsonb, text), boocoder._command(jsonb), boocoder._verdict(boocoder.tasks, jsonb), boocoder._option(jsonb, text),
	boocoder._ask(boocoder.tasks, jsonb), boocoder._note(boocoder.events), boocoder._attend(), boocoder._withdraw(boocoder.tasks),
	boocoder._asks_once(text), boocoder._warm(boocoder.providers, bigint, bigint, text),
	boocoder._config_hash(boocoder.providers, boocoder.worktrees, text[], text[], jsonb),
	boocoder._take_backend(boocoder.tasks, boocoder.worktrees, text), boocoder._continued(jsonb, boolean, text, text), boocoder._stale(text, text, text, text),
	boocoder._turn_ended(boocoder.tasks, jsonb), boocoder._evictions(timestamptz, interval, integer), boocoder._evict(jsonb),
	boocoder._backend_started(bigint, integer), boocoder._backend_ended(bigint), boocoder._forget_backends(),
	boocoder._home(boocoder.worktrees), boocoder._new_path(text), boocoder._risks(jsonb, bigint, bigint), boocoder._risks_of(boocoder.worktrees),
	boocoder._reapable(timestamptz, interval, bigint), boocoder._reap(jsonb), boocoder._make_worktree_jobs(jsonb),
	boocoder._worktree_job_order(boocoder.jobs, boocoder.projects, boocoder.worktrees, jsonb),
	boocoder._save(bigint, text, text, text, bigint), boocoder._manual_paths(boocoder.worktrees), boocoder._store_manual(boocoder.worktrees, jsonb), boocoder._worktree_job_done(boocoder.jobs, boolean, jsonb, text),
	boocoder._worktree_place(bigint, name, bigint), boocoder._server_folder(text),
	boocoder._server_decision(text, integer, boolean, timestamptz, timestamptz, integer, interval), boocoder._server_busy(bigint),
	boocoder._server_order(boocoder.providers, boocoder.worktrees, text[], jsonb),
	boocoder._take_server(bigint, boocoder.providers, boocoder.worktrees, text[], text[], jsonb), boocoder._server_told(bigint, jsonb),
	boocoder._idle_servers(timestamptz, interval), boocoder._end_servers(jsonb), boocoder._server_ended(bigint), boocoder._forget_servers(),
	boocoder._charge(bigint, jsonb, text), boocoder._store_changes(boocoder.tasks, jsonb),
	boocoder._settle(bigint, bigint, jsonb, jsonb) TO boocoder_worker;

-- Dumps.

SELECT pg_catalog.pg_extension_config_dump('boocoder.worktrees', '');
SELECT pg_catalog.pg_extension_config_dump('boocoder.worktree_saves', '');
SELECT pg_catalog.pg_extension_config_dump('boocoder.pending_changes',
	$$WHERE status <> 'applying'
		AND (task_id IS NULL OR task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled')))$$);
