-- SPDX-License-Identifier: PostgreSQL
-- From 0.2.0 to 0.3.0: agents kept between turns, servers, worktrees that can be looked at and gone back in.
\echo Use "ALTER EXTENSION boocoder UPDATE" to load this file. \quit

-- Tables.

ALTER TABLE boocoder.providers
	DROP CONSTRAINT providers_transport_check,
	ADD CONSTRAINT providers_transport_check CHECK (transport IN ('native', 'acp', 'opencode', 'opencode_server', 'pty', 'stream_json', 'command'));
-- A trigger makes a changed built-in provider an administrator's; these are not.
ALTER TABLE boocoder.providers DISABLE TRIGGER own;
UPDATE boocoder.providers SET builtin_command = builtin_command || '{--resume,"{session}"}' WHERE name = 'claude' AND builtin;
UPDATE boocoder.providers SET builtin_command = builtin_command || '{--session,"{session}"}' WHERE name = 'pi' AND builtin;
ALTER TABLE boocoder.providers ENABLE TRIGGER own;
ALTER TABLE boocoder.tasks ADD COLUMN warm boolean;
ALTER TABLE boocoder.agent_sessions
	ADD COLUMN config_hash text,
	ADD COLUMN input_tokens bigint NOT NULL DEFAULT 0,
	ADD COLUMN output_tokens bigint NOT NULL DEFAULT 0,
	ADD COLUMN cost numeric NOT NULL DEFAULT 0,
	ADD COLUMN pid integer;
ALTER TABLE boocoder.worktrees
	ADD COLUMN facts jsonb,
	ADD COLUMN assessed_at timestamptz,
	ADD COLUMN assess_requested_at timestamptz,
	ADD COLUMN request jsonb,
	ADD COLUMN request_error text,
	ADD COLUMN forced boolean NOT NULL DEFAULT false,
	ADD COLUMN orphaned_at timestamptz,
	DROP CONSTRAINT worktrees_status_check,
	ADD CONSTRAINT worktrees_status_check CHECK (status IN ('creating', 'active', 'trashed', 'removing', 'removed'));
DROP INDEX boocoder.worktrees_removing;
ALTER TABLE boocoder.jobs
	DROP CONSTRAINT jobs_kind_check,
	ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('apply', 'remove', 'teardown', 'probe', 'assess', 'rewrite', 'revive'));
ALTER TABLE boocoder.pending_changes ADD COLUMN staged boolean NOT NULL DEFAULT false;
DROP TRIGGER guard ON boocoder.worktrees;
DROP VIEW boocoder.status;
CREATE INDEX worktrees_removing ON boocoder.worktrees (id) WHERE status = 'removing';
CREATE INDEX worktrees_ending ON boocoder.worktrees (id) WHERE status = 'trashed' OR (status = 'active' AND orphaned_at IS NOT NULL);
CREATE INDEX worktrees_requested ON boocoder.worktrees (id) WHERE request IS NOT NULL OR assess_requested_at IS NOT NULL;
CREATE INDEX worktrees_path ON boocoder.worktrees (path) WHERE status <> 'removed';
CREATE TABLE boocoder.worktree_saves (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	worktree_id bigint NOT NULL REFERENCES boocoder.worktrees ON DELETE CASCADE,
	kind text NOT NULL CHECK (kind IN ('turn', 'stash', 'undo', 'archive')),
	ref text NOT NULL,
	tree text,
	task_id bigint,
	created_at timestamptz NOT NULL DEFAULT now(),
	UNIQUE (worktree_id, ref)
);
CREATE INDEX jobs_worktree ON boocoder.jobs (worktree_id) WHERE worktree_id IS NOT NULL;
CREATE INDEX pending_changes_rejected ON boocoder.pending_changes (session_id, path) WHERE status = 'rejected';
-- No foreign keys: a row stands for a process, and is there until that has ended.
CREATE TABLE boocoder.backends (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	chat_id bigint NOT NULL,
	agent text NOT NULL,
	session_id bigint,
	worktree_id bigint,
	task_id bigint,
	server_id bigint,
	state text NOT NULL DEFAULT 'busy' CHECK (state IN ('busy', 'idle', 'ending')),
	config_hash text NOT NULL,
	pid integer,
	turns integer NOT NULL DEFAULT 1,
	started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	last_active_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX backends_live ON boocoder.backends (chat_id, agent) WHERE state <> 'ending';
CREATE INDEX backends_task ON boocoder.backends (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX backends_worktree ON boocoder.backends (worktree_id);
CREATE INDEX backends_server ON boocoder.backends (server_id) WHERE server_id IS NOT NULL;
CREATE TABLE boocoder.servers (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	key text NOT NULL,
	provider text NOT NULL,
	project_id bigint NOT NULL,
	folder text NOT NULL,
	config_hash text NOT NULL,
	state text NOT NULL DEFAULT 'starting' CHECK (state IN ('starting', 'ready', 'exited', 'failed', 'ending')),
	url text,
	pid integer,
	pid_started bigint,
	version text,
	failures integer NOT NULL DEFAULT 0,
	unhealthy_since timestamptz,
	looked_at timestamptz,
	answer_ms integer,
	problem text,
	restarts integer NOT NULL DEFAULT 0,
	started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	ready_at timestamptz,
	last_used_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX servers_live ON boocoder.servers (key) WHERE state <> 'ending';

-- Functions, triggers and views.

DROP FUNCTION boocoder._claim(boocoder.tasks,jsonb);
DROP FUNCTION boocoder._next_actions(integer,integer,boolean);
DROP FUNCTION boocoder._prepared(bigint,bigint,jsonb);
DROP FUNCTION boocoder._status();
CREATE OR REPLACE FUNCTION boocoder._guard_worktree() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NEW.request IS NOT NULL AND NEW.request IS DISTINCT FROM OLD.request THEN
		NEW.request_error := NULL;
		IF NEW.request ->> 'to' IS NOT NULL AND NOT EXISTS (SELECT 1 FROM boocoder.worktree_saves s
				WHERE s.worktree_id = OLD.id AND s.ref = NEW.request ->> 'to') THEN
			RAISE EXCEPTION 'worktree % has no content "%"', OLD.id, NEW.request ->> 'to'
				USING ERRCODE = 'BC002', HINT = 'See boocoder.worktree_saves.';
		END IF;
	END IF;
	IF NEW.status = OLD.status THEN
		RETURN NEW;
	ELSIF (OLD.status, NEW.status) IN (('trashed', 'active'), ('removed', 'creating')) THEN
		NEW.deleted_at := NULL;
		NEW.orphaned_at := NULL;
		NEW.forced := false;
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
CREATE TRIGGER guard BEFORE UPDATE ON boocoder.worktrees FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.request IS DISTINCT FROM NEW.request)
	EXECUTE FUNCTION boocoder._guard_worktree();
CREATE FUNCTION boocoder._session_ends() RETURNS trigger
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
	force := current_setting('boocoder.force_delete')::boolean;
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
		UPDATE boocoder.pending_changes c SET status = 'rejected' WHERE c.session_id = OLD.id AND c.status IN ('pending', 'conflict');
	END IF;
	UPDATE boocoder.tasks t SET state = 'cancelled' WHERE t.session_id = OLD.id AND t.state = 'pending';
	UPDATE boocoder.tasks t SET session_id = NULL, chat_id = NULL WHERE t.session_id = OLD.id;
	RETURN OLD;
END
$$;
CREATE TRIGGER closes AFTER UPDATE ON boocoder.sessions FOR EACH ROW
	WHEN (OLD.closed_at IS DISTINCT FROM NEW.closed_at) EXECUTE FUNCTION boocoder._session_ends();
CREATE TRIGGER goes BEFORE DELETE ON boocoder.sessions FOR EACH ROW EXECUTE FUNCTION boocoder._session_ends();
CREATE FUNCTION boocoder._chat_goes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.chat_id = OLD.id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in chat %', OLD.id
			USING ERRCODE = 'BC004', HINT = 'boocoder.close_chat() cancels its tasks.';
	END IF;
	UPDATE boocoder.tasks t SET state = 'cancelled' WHERE t.chat_id = OLD.id AND t.state = 'pending';
	UPDATE boocoder.tasks t SET chat_id = NULL WHERE t.chat_id = OLD.id;
	PERFORM boocoder._wake_now();
	RETURN OLD;
END
$$;
CREATE TRIGGER goes BEFORE DELETE ON boocoder.chats FOR EACH ROW EXECUTE FUNCTION boocoder._chat_goes();
CREATE OR REPLACE FUNCTION boocoder._root(worktree_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- not LANGUAGE sql: that is planned anew at each call, which is a tenth of a claim
	RETURN regexp_replace(worktree_path, '/worktrees/(p[0-9]+-[0-9a-f]{8}/)?[^/]+$', '');
END
$$;
-- A server of agents may write the folder of its worktrees: so there is one for each owner in each project.
CREATE FUNCTION boocoder._worktree_place(project bigint, owner name, session bigint) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN '/worktrees/p' || project || '-' || left(md5(owner), 8) || '/s' || session;
END
$$;
CREATE FUNCTION boocoder._agent_prefix(p boocoder.projects, v boocoder.providers) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN nullif(CASE WHEN cardinality(v.launch_prefix) > 0 THEN v.launch_prefix ELSE p.launch_prefix END, '{}');
END
$$;
-- The rows are given, not looked up: the claim has them, and every microsecond of it is latency.
CREATE OR REPLACE FUNCTION boocoder._orders(t boocoder.tasks, p boocoder.projects, w boocoder.worktrees, provider boocoder.providers,
	argv text[], mode text, host jsonb, OUT worktree jsonb, OUT agent jsonb, OUT diff jsonb) RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	repository jsonb;
	root text := boocoder._root(w.path);
BEGIN
	repository := jsonb_build_object('id', p.id, 'path', p.path);
	worktree := jsonb_build_object(
		'role', 'worktree', 'project', repository,
		'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'branch', w.branch,
			'base_ref', p.base_branch, 'base_commit', w.base_commit, 'admin_dir', w.admin_dir),
		'copy', to_jsonb(p.copy_files), 'root', root, 'forbidden', host -> 'forbidden');
	agent := jsonb_build_object(
		'role', 'agent', 'task_id', t.id, 'provider', provider.name, 'agent_kind', provider.kind,
		'transport', provider.transport, 'command', to_jsonb(argv), 'env', provider.env, 'cwd', w.path,
		'input', t.input, 'model', t.model, 'mode', mode, 'raw', provider.keep_raw,
		'git_dir', w.git_dir, 'admin_dir', w.admin_dir,
		'setup', CASE WHEN w.setup_done_at IS NULL THEN to_jsonb(p.setup) ELSE '[]' END,
		'setup_timeout_ms', host -> 'setup_timeout_ms',
		'fallback', CASE WHEN provider.fallback IS NOT NULL THEN jsonb_build_object('transport', provider.fallback,
			'command', to_jsonb(CASE WHEN cardinality(provider.fallback_command) > 0 THEN provider.fallback_command ELSE argv END)) END,
		'place', jsonb_build_object('project', p.name, 'session', t.session_id, 'task', t.id, 'branch', w.branch,
			'base_commit', w.base_commit, 'port_first', w.port_first, 'port_count', w.port_count),
		'sandbox', boocoder._sandbox(provider, root, boocoder._home(w), host),
		'limits', (host -> 'limits') || CASE WHEN t.timeout IS NULL THEN '{}' ELSE
			jsonb_build_object('timeout_ms', ceil(extract(epoch FROM t.timeout) * 1000)::bigint) END);
	diff := jsonb_build_object(
		'role', 'diff', 'project', repository,
		'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'admin_dir', w.admin_dir,
			'diff_base', coalesce(w.diff_base, w.base_commit)),
		'turn', t.id, 'max_bytes', host -> 'max_diff_bytes');
END
$$;
CREATE FUNCTION boocoder._new_path(wanted text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	result text := wanted;
	n integer := 1;
BEGIN
	WHILE EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.path = result AND w.status <> 'removed') LOOP
		n := n + 1;
		result := wanted || '-' || n;
	END LOOP;
	RETURN result;
END
$$;
-- Gives the task what it lacks (session, chat, messages, worktree) and marks it running.
-- fence is NULL when it was failed instead, or has to wait.
CREATE FUNCTION boocoder._claim(t boocoder.tasks, host jsonb,
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
	SELECT p AS project, v AS provider, w AS worktree, s.closed_at, s.owner, c.model, a.install_path, m.wanted_mode, m.agent_session_id, m.status AS agent_status, m.config_hash,
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
	provider := r.provider;
	worktree := r.worktree;
	agent_name := r.agent;
	obstacle := boocoder._obstacle(t.submitted_by, project, agent_name, provider, host);
	IF obstacle IS NULL AND r.closed_at IS NOT NULL THEN
		obstacle := ARRAY['session_closed', format('session %s is closed', t.session_id)];
	END IF;
	IF obstacle IS NOT NULL THEN
		PERFORM boocoder._fail(t.id, obstacle[1], obstacle[2]);
		RETURN;
	END IF;

	IF worktree.status = 'removing' THEN
		RETURN;
	ELSIF worktree.origin <> host ->> 'origin' THEN
		-- from a dump: the directory belongs to another database
		UPDATE boocoder.worktrees w SET status = 'removed', deleted_at = now() WHERE w.id = worktree.id;
		worktree := NULL;
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
		IF (host ->> 'worktree_budget')::bigint > 0
			AND (SELECT sum(w.size_bytes) FROM boocoder.worktrees w WHERE w.status <> 'removed') >= (host ->> 'worktree_budget')::bigint THEN
			PERFORM boocoder._fail(t.id, 'disk_budget', 'the worktrees take more than boocoder.worktree_budget; see boocoder.worktree_disk');
			RETURN;
		END IF;
		INSERT INTO boocoder.worktrees (session_id, project_id, path, branch, origin, port_first, port_count)
		VALUES (t.session_id, t.project_id, boocoder._new_path(boocoder._worktree_root(project, host)
				|| boocoder._worktree_place(t.project_id, coalesce(r.owner, t.submitted_by), t.session_id)),
				'boocoder/' || t.session_id, host ->> 'origin', boocoder._free_ports(host), (host #>> '{ports,count}')::integer)
		RETURNING * INTO worktree;
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
CREATE OR REPLACE FUNCTION boocoder._make_jobs() RETURNS void
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
		PERFORM 1 FROM boocoder.worktrees w WHERE w.id = decision.worktree_id FOR KEY SHARE SKIP LOCKED;
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
	 WHERE w.status = 'removing'
	   -- of agents that were kept nothing may run any more
	   AND NOT EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.worktree_id = w.id)
	   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j
						WHERE j.worktree_id = w.id AND j.state IN ('queued', 'running'))
	   -- claimed before the removal was committed: the agent ends first
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks t
						WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked'))
	   FOR KEY SHARE OF w SKIP LOCKED;
END
$$;
CREATE OR REPLACE FUNCTION boocoder._job_order(j boocoder.jobs, host jsonb, OUT job_order jsonb, OUT prefix text[]) RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	p boocoder.projects;
	w boocoder.worktrees;
	v boocoder.providers;
	root text;
BEGIN
	IF j.kind = 'probe' THEN
		SELECT * INTO STRICT v FROM boocoder.providers x WHERE x.name = j.provider;
		job_order := boocoder._probe_order(v, host);
		prefix := nullif(v.launch_prefix, '{}');
		RETURN;
	END IF;
	SELECT * INTO STRICT p FROM boocoder.projects x WHERE x.id = j.project_id;
	SELECT * INTO STRICT w FROM boocoder.worktrees x WHERE x.id = j.worktree_id;
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
		UPDATE boocoder.pending_changes c SET status = 'conflict', error = x.text
		  FROM (SELECT (e ->> 'id')::bigint AS id, concat_ws(' at ', e ->> 'message', e ->> 'hunk') AS text
				  FROM jsonb_array_elements(coalesce(result -> 'conflicts', '[]')) e) x
		 WHERE c.id = x.id AND c.job_id = j.id AND c.status = 'applying';
		-- Nothing was touched.  Who is not to blame waits for the next decision.
		UPDATE boocoder.pending_changes c
		   SET status = CASE WHEN jsonb_array_length(coalesce(result -> 'conflicts', '[]')) > 0 THEN 'pending' ELSE 'conflict' END,
			   error = CASE WHEN jsonb_array_length(coalesce(result -> 'conflicts', '[]')) > 0
							THEN 'not applied: another file of the same decision is in conflict' ELSE note END
		 WHERE c.job_id = j.id AND c.status = 'applying';
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
CREATE OR REPLACE FUNCTION boocoder._withdraw(t boocoder.tasks) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.permission_requests r SET status = 'cancelled', delivered_at = now()
	 WHERE r.id IN (SELECT q.id FROM boocoder.permission_requests q
					 WHERE q.task_id = t.id AND q.status = 'pending' FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
-- A claim with a number below boocoder_dispatcher.first_fence belongs to a dispatcher that is gone.  The number
-- is kept in the session of the dispatcher, as it dies with it.
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
		PERFORM 1 FROM boocoder.projects p WHERE p.id = t.project_id FOR KEY SHARE SKIP LOCKED;
		CONTINUE WHEN NOT FOUND;
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
	-- One dispatcher serves a database, so whatever runs now belongs to one that is gone.
	PERFORM set_config('boocoder_dispatcher.first_fence', nextval('boocoder.fence_seq')::text, false);
	touched := boocoder._reconcile();
	PERFORM boocoder._forget_backends();
	PERFORM boocoder._forget_servers();
	UPDATE boocoder.jobs j SET state = 'queued', resumed = true WHERE j.state = 'running';
	GET DIAGNOSTICS more = ROW_COUNT;
	IF (boocoder._host() ->> 'probe_ttl_ms')::bigint > 0 THEN
		PERFORM boocoder._probe(NULL);
	END IF;
	RETURN touched + more;
END
$$;
-- Only claims when not everything is asked for: that is what a commit of tasks waits for.
CREATE FUNCTION boocoder._next_actions(free_slots integer, free_jobs integer, everything boolean DEFAULT true)
RETURNS TABLE (kind text, task_id bigint, fence bigint, job_id bigint,
			   prepare jsonb, agent jsonb, diff jsonb, git_prefix text[], agent_prefix text[], delay_ms bigint, backend bigint,
			   server bigint, server_order jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	host jsonb;
	skipped bigint[] := '{}';
	skipped_sessions bigint[] := '{}';
	skipped_projects bigint[] := '{}';
	looks integer := 0;
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
		FOR kind, task_id, fence, prepare IN SELECT a.kind, a.task_id, a.fence, a.answer FROM boocoder._attend() a LOOP
			RETURN NEXT;
		END LOOP;
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

	-- One claim, or a limited number of tasks that can't run: no transaction is to get old.
	WHILE free_slots > 0 AND looks < 100 LOOP
		looks := looks + 1;
		t := boocoder._candidate(skipped, skipped_sessions, skipped_projects, everything);
		EXIT WHEN t.id IS NULL;
		skipped := skipped || t.id;
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

	IF NOT everything AND looks < 100 THEN
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
		BEGIN
			host := coalesce(host, boocoder._host());
			PERFORM boocoder._make_worktree_jobs(host);
			PERFORM boocoder._make_jobs();
		EXCEPTION WHEN lock_not_available OR deadlock_detected OR query_canceled THEN
			NULL;				-- later; the tasks claimed above are not to suffer from it
		END;
	END IF;
	FOR j IN
		-- one at a time in a project; looking at agents does not wait for that
		SELECT DISTINCT ON (coalesce(q.project_id, -q.id)) q.* FROM boocoder.jobs q
		 WHERE q.state = 'queued' AND free_jobs > 0
		   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs r WHERE r.project_id = q.project_id AND r.state = 'running')
		 ORDER BY coalesce(q.project_id, -q.id), q.id LIMIT free_jobs
	LOOP
		UPDATE boocoder.jobs q SET state = 'running' WHERE q.id = j.id;
		job_id := j.id;
		host := coalesce(host, boocoder._host());
		SELECT o.job_order, o.prefix INTO prepare, git_prefix FROM boocoder._job_order(j, host) o;
		RETURN NEXT;
	END LOOP;

	IF looks = 100 THEN
		next_due := now();
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
		delay_ms := greatest(1, ceil(extract(epoch FROM next_due - clock_timestamp()) * 1000))::bigint;
		RETURN NEXT;
	END IF;
END
$$;
CREATE FUNCTION boocoder._prepared(task_id bigint, fence bigint, result jsonb)
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
	PERFORM set_config('synchronous_commit', 'off', true);
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
-- The ledger gets what is new: an agent's cost report counts from the start of its session, and with of_session its tokens do, too.
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
	 WHERE x.agent = t.agent AND x.agent_session_id = agent_session;
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
BEGIN
	SELECT * INTO w FROM boocoder.worktrees x WHERE x.session_id = t.session_id AND x.deleted_at IS NULL;
	-- A row that somebody is deciding about right now keeps its decision.
	UPDATE boocoder.pending_changes c SET status = 'superseded'
	 WHERE c.id IN (SELECT o.id FROM boocoder.pending_changes o
					 WHERE o.session_id = t.session_id AND o.status IN ('pending', 'conflict')
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
	 ORDER BY n;
	UPDATE boocoder.worktrees x
	   SET snapshot_tree = diff ->> 'tree', facts = coalesce(diff -> 'facts', x.facts),
		   assessed_at = CASE WHEN diff ? 'facts' THEN now() ELSE x.assessed_at END,
		   assess_requested_at = CASE WHEN x.size_bytes IS NULL AND coalesce(current_setting('boocoder.worktree_budget', true), '0') <> '0' THEN now()
									  ELSE x.assess_requested_at END
	 WHERE x.id = w.id;
	PERFORM boocoder._save(w.id, 'turn', diff ->> 'turn_ref', diff ->> 'tree', t.id);
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
	PERFORM 1 FROM boocoder.sessions s WHERE s.id = t.session_id FOR KEY SHARE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	PERFORM 1 FROM boocoder.projects p WHERE p.id = t.project_id FOR KEY SHARE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL) THEN
		PERFORM 1 FROM boocoder.worktrees w
		 WHERE w.session_id = t.session_id AND w.deleted_at IS NULL FOR NO KEY UPDATE SKIP LOCKED;
		IF NOT FOUND THEN
			RETURN NULL;
		END IF;
	END IF;

	-- a worktree's result: there was nothing to run any more
	IF outcome IS NULL THEN
		outcome := CASE WHEN t.cancel_requested_at IS NULL THEN 'failed' ELSE 'cancelled' END;
		reason := CASE outcome WHEN 'failed' THEN 'internal_error' ELSE 'cancelled' END;
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
		t.retry_requested := t.retry_requested OR t.attempt < t.max_attempts;
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
CREATE FUNCTION boocoder._home(w boocoder.worktrees) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- also when the session was deleted
	RETURN 's' || coalesce(w.session_id::text, substring(w.path from '/s(\d+)(-\d+)?$'));
END
$$;
-- Why a worktree is not to go, in words; none: it may.
CREATE FUNCTION boocoder._risks(facts jsonb, undecided bigint, running bigint) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT array_remove(ARRAY[
		CASE WHEN running > 0 THEN 'running' END,
		CASE WHEN undecided > 0 THEN 'undecided' END,
		CASE WHEN (facts ->> 'dirty_count')::bigint > 0 THEN 'dirty' END,
		CASE WHEN (facts ->> 'unpushed_count')::bigint > 0 THEN 'unpushed' END,
		CASE WHEN facts IS NULL THEN 'unknown' END], NULL)
$$;
CREATE FUNCTION boocoder._risks_of(w boocoder.worktrees) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder._risks(w.facts,
		(SELECT count(*) FROM boocoder.pending_changes c WHERE c.worktree_id = w.id AND c.status IN ('pending', 'conflict', 'applying')),
		(SELECT count(*) FROM boocoder.tasks t WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked')))
$$;
-- Decides, does nothing.  In the order in which they are to go.
CREATE FUNCTION boocoder._reapable(at timestamptz, grace interval, budget bigint) RETURNS TABLE (worktree bigint, reason text)
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
			   x.status = 'trashed' OR x.forced OR cardinality(risks) = 0 AS safe, 'running' = ANY (risks) AS busy
		  FROM boocoder.worktrees x, boocoder._risks_of(x) risks
		 WHERE (x.status = 'trashed' OR (x.status = 'active' AND x.orphaned_at IS NOT NULL))
		   -- one that could not be removed is not tried again and again
		   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j
							WHERE j.worktree_id = x.id AND j.kind = 'remove' AND j.state = 'failed' AND j.ended_at > at - interval '10 min'
							  AND j.ended_at > coalesce(x.deleted_at, x.orphaned_at))
		 ORDER BY x.status = 'trashed' DESC, coalesce(x.deleted_at, x.orphaned_at), x.id
	LOOP
		CONTINUE WHEN NOT w.safe OR w.busy;
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
CREATE FUNCTION boocoder._reap(host jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.worktrees w SET status = 'removing'
	 WHERE w.id IN (SELECT q.id FROM boocoder.worktrees q
					 WHERE q.id IN (SELECT r.worktree FROM boocoder._reapable(now(),
										make_interval(secs => (host ->> 'worktree_grace_ms')::bigint / 1000.0),
										(host ->> 'worktree_budget')::bigint) r)
					   FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
-- A request of people for a worktree is one job, once no agent is at work there.
CREATE FUNCTION boocoder._make_worktree_jobs(host jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.status = 'trashed' OR (w.status = 'active' AND w.orphaned_at IS NOT NULL)) THEN
		PERFORM boocoder._reap(host);
	END IF;
	INSERT INTO boocoder.jobs (kind, project_id, worktree_id)
	SELECT CASE WHEN w.request IS NULL THEN 'assess' WHEN w.status = 'creating' THEN 'revive' ELSE 'rewrite' END, w.project_id, w.id
	  FROM boocoder.worktrees w
	 WHERE (w.request IS NOT NULL OR w.assess_requested_at IS NOT NULL) AND w.status IN ('active', 'creating')
	   AND (w.request IS NOT NULL OR w.status = 'active')
	   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j WHERE j.worktree_id = w.id AND j.state IN ('queued', 'running'))
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked'))
	   FOR KEY SHARE OF w SKIP LOCKED;
END
$$;
CREATE FUNCTION boocoder._worktree_job_order(j boocoder.jobs, p boocoder.projects, w boocoder.worktrees, host jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	result jsonb;
BEGIN
	result := jsonb_build_object('project', jsonb_build_object('id', p.id, 'path', p.path),
		'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'branch', w.branch, 'admin_dir', w.admin_dir,
			'base_ref', p.base_branch, 'base_commit', w.base_commit, 'diff_base', coalesce(w.diff_base, w.base_commit),
			'snapshot_tree', w.snapshot_tree));
	CASE j.kind
		WHEN 'assess' THEN
			result := result || '{"role": "assess"}';
		WHEN 'rewrite' THEN
			result := result || jsonb_build_object('role', 'rewrite',
				'save', CASE w.request ->> 'do' WHEN 'stash' THEN 'stash' ELSE 'undo' END, 'to', w.request -> 'to');
		WHEN 'revive' THEN
			result := result || jsonb_build_object('role', 'worktree', 'copy', to_jsonb(p.copy_files),
				'root', boocoder._root(w.path), 'forbidden', host -> 'forbidden');
	END CASE;
	RETURN result;
END
$$;
CREATE FUNCTION boocoder._save(worktree bigint, kind text, ref text, tree text, task bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	INSERT INTO boocoder.worktree_saves (worktree_id, kind, ref, tree, task_id)
	SELECT worktree, kind, ref, tree, task WHERE ref IS NOT NULL
	ON CONFLICT (worktree_id, ref) DO UPDATE SET tree = excluded.tree, created_at = now()
$$;
CREATE FUNCTION boocoder._worktree_job_done(j boocoder.jobs, ok boolean, result jsonb, note text) RETURNS void
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
			   snapshot_tree = CASE WHEN w.request ? 'task' THEN result ->> 'tree' ELSE x.snapshot_tree END
		 WHERE x.id = w.id;
	END IF;
END
$$;
CREATE FUNCTION boocoder._asks_once(creator text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN creator IN ('arena', 'mcp', 'new_task');
END
$$;
-- What the task named when it was enqueued counts: the first turn of a task by itself is not worth an agent that waits.
CREATE FUNCTION boocoder._warm(v boocoder.providers, session bigint, chat bigint, creator text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN session IS NOT NULL AND chat IS NOT NULL AND v.transport IN ('acp', 'opencode_server')
		AND NOT boocoder._asks_once(creator);
END
$$;
CREATE FUNCTION boocoder.use_warm_backend(agent text, session bigint, chat bigint, creator text DEFAULT 'api') RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce((SELECT boocoder._warm(jsonb_populate_record(NULL::boocoder.providers, jsonb_build_object('transport', v.transport)),
										   session, chat, creator)
					   FROM boocoder.providers v WHERE v.name = agent), false)
$$;
-- What an agent was started with.  Model and mode are not of it: they are changed within a session.
CREATE FUNCTION boocoder._config_hash(v boocoder.providers, w boocoder.worktrees, argv text[], prefix text[], host jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN md5(concat_ws(E'\x01', v.name, v.kind, v.transport, argv, v.env, prefix, v.persistent_home, w.id, w.path,
		host -> 'sandbox', host ->> 'agent_home'));
END
$$;
-- The one that waits for this chat if it was started as it would be now; otherwise a new one, in whose favour
-- the other one ends.
CREATE FUNCTION boocoder._take_backend(t boocoder.tasks, w boocoder.worktrees, config_hash text,
	OUT backend bigint, OUT ends bigint) RETURNS record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	b boocoder.backends;
BEGIN
	SELECT * INTO b FROM boocoder.backends x WHERE x.chat_id = t.chat_id AND x.agent = t.agent AND x.state <> 'ending';
	IF b.state = 'idle' AND b.config_hash = _take_backend.config_hash THEN
		UPDATE boocoder.backends x SET state = 'busy', task_id = t.id, turns = x.turns + 1, last_active_at = clock_timestamp()
		 WHERE x.id = b.id;
		backend := b.id;
	ELSE
		UPDATE boocoder.backends x SET state = 'ending' WHERE x.id = b.id RETURNING x.id INTO ends;
		INSERT INTO boocoder.backends (chat_id, agent, session_id, worktree_id, task_id, config_hash)
		VALUES (t.chat_id, t.agent, t.session_id, w.id, t.id, config_hash) RETURNING id INTO backend;
	END IF;
	UPDATE boocoder.agent_sessions s SET status = 'active', last_active_at = clock_timestamp()
	 WHERE (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
									 WHERE q.chat_id = t.chat_id AND q.agent = t.agent FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
-- A server's session that crashed, or was begun with another model, mode or provider, is not gone on with.
CREATE FUNCTION boocoder._stale(transport text, status text, old_hash text, new_hash text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF transport <> 'opencode_server' THEN
		RETURN NULL;
	ELSIF status = 'crashed' THEN
		RETURN 'the session has crashed';
	ELSIF old_hash <> new_hash THEN
		RETURN 'model, mode or provider is another one';
	END IF;
	RETURN NULL;
END
$$;
CREATE FUNCTION boocoder._continued(agent jsonb, warm boolean, session text, stale text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF session IS NOT NULL THEN
		agent := agent || jsonb_build_object('resume', jsonb_build_object('session_id', session) ||
			CASE WHEN stale IS NOT NULL THEN jsonb_build_object('allowed', false, 'reason', stale) ELSE '{}' END);
	END IF;
	IF warm THEN
		agent := agent || '{"warm": true}';
	END IF;
	RETURN agent;
END
$$;
-- What an attempt leaves of its agent: a session to go on with, and perhaps a process.
CREATE FUNCTION boocoder._turn_ended(t boocoder.tasks, result jsonb) RETURNS void
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
	PERFORM 1 FROM boocoder.chats c WHERE c.id = t.chat_id FOR KEY SHARE SKIP LOCKED;
	IF NOT FOUND THEN
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
-- Only those that wait are ever ended.
CREATE FUNCTION boocoder._evictions(at timestamptz, idle_ttl interval, max_warm integer) RETURNS TABLE (backend bigint, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN QUERY
	WITH judged AS (
		SELECT b.id, b.state, b.last_active_at,
			   CASE WHEN b.state <> 'idle' THEN NULL
					WHEN c.id IS NULL OR c.closed_at IS NOT NULL OR s.closed_at IS NOT NULL THEN 'closed'
					WHEN w.id IS NULL OR w.deleted_at IS NOT NULL OR w.status <> 'active' THEN 'worktree'
					WHEN v.name IS NULL OR NOT v.enabled THEN 'provider'
					WHEN b.last_active_at + idle_ttl <= at THEN 'idle' END AS why
		  FROM boocoder.backends b
		  LEFT JOIN boocoder.chats c ON c.id = b.chat_id
		  LEFT JOIN boocoder.sessions s ON s.id = c.session_id
		  LEFT JOIN boocoder.worktrees w ON w.id = b.worktree_id
		  LEFT JOIN boocoder.providers v ON v.name = b.agent
		 WHERE b.state <> 'ending'
	), ranked AS (
		-- Those at work count, but can't make room.
		SELECT j.*, row_number() OVER (ORDER BY j.state = 'busy' DESC, j.last_active_at DESC, j.id DESC) AS place
		  FROM judged j WHERE j.why IS NULL
	)
	SELECT j.id, j.why FROM judged j WHERE j.why IS NOT NULL
	UNION ALL
	SELECT r.id, 'cap' FROM ranked r WHERE r.state = 'idle' AND r.place > max_warm;
END
$$;
CREATE FUNCTION boocoder._evict(host jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	e record;
BEGIN
	FOR e IN
		SELECT x.backend, x.reason, b.chat_id, b.agent
		  FROM boocoder._evictions(now(), make_interval(secs => (host ->> 'idle_ttl_ms')::bigint / 1000.0), (host ->> 'max_warm')::integer) x
		  JOIN boocoder.backends b ON b.id = x.backend
	LOOP
		UPDATE boocoder.backends b SET state = 'ending' WHERE b.id = e.backend;
		UPDATE boocoder.agent_sessions s SET status = CASE WHEN e.reason IN ('idle', 'cap') THEN 'evicted' ELSE 'closed' END, pid = NULL
		 WHERE (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
										 WHERE q.chat_id = e.chat_id AND q.agent = e.agent FOR NO KEY UPDATE SKIP LOCKED);
	END LOOP;
	-- those again of which the dispatcher has not said that they are gone
	RETURN QUERY SELECT b.id FROM boocoder.backends b WHERE b.state = 'ending';
END
$$;
CREATE FUNCTION boocoder._backend_started(backend bigint, pid integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM set_config('synchronous_commit', 'off', true);
	UPDATE boocoder.backends b SET pid = _backend_started.pid WHERE b.id = backend;
	RETURN backend;
END
$$;
CREATE FUNCTION boocoder._backend_ended(backend bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	b boocoder.backends;
BEGIN
	DELETE FROM boocoder.backends x WHERE x.id = backend RETURNING * INTO b;
	UPDATE boocoder.agent_sessions s SET status = 'crashed', pid = NULL
	 WHERE b.state = 'idle'
	   AND (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
									 WHERE q.chat_id = b.chat_id AND q.agent = b.agent AND q.status = 'idle' FOR NO KEY UPDATE SKIP LOCKED);
	RETURN backend;
END
$$;
-- At the start of a dispatcher: no process of an earlier one is left.
CREATE FUNCTION boocoder._forget_backends() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.backends;
	UPDATE boocoder.agent_sessions s SET status = 'crashed', pid = NULL
	 WHERE (s.chat_id, s.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
									 WHERE q.status IN ('active', 'idle') FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
CREATE FUNCTION boocoder._server_folder(worktree_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN coalesce(substring(worktree_path FROM '^(.*/worktrees/p[0-9]+-[0-9a-f]{8})/[^/]+$'), worktree_path);
END
$$;
-- The truth about one server.  Its own end asks for a start at once; anything else for patience.
CREATE FUNCTION boocoder._server_decision(state text, failures integer, busy boolean, unhealthy_since timestamptz, at timestamptz,
	max_failures integer, stale_grace interval) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF state = 'exited' THEN
		RETURN 'restart';
	ELSIF state <> 'ready' OR failures < max_failures OR unhealthy_since IS NULL THEN
		RETURN 'keep';
	ELSIF NOT busy THEN
		RETURN 'restart';
	ELSIF unhealthy_since + stale_grace <= at THEN
		RETURN 'restart_forced';
	END IF;
	RETURN 'keep';
END
$$;
CREATE FUNCTION boocoder._server_busy(server bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.server_id = server AND b.state = 'busy');
END
$$;
CREATE FUNCTION boocoder._server_order(v boocoder.providers, w boocoder.worktrees, argv text[], host jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	folder text := boocoder._server_folder(w.path);
BEGIN
	RETURN jsonb_build_object(
		'role', 'server', 'provider', v.name, 'agent_kind', v.kind, 'command', to_jsonb(argv), 'env', v.env,
		'cwd', folder, 'git_dir', w.git_dir,
		'sandbox', boocoder._sandbox(v, boocoder._root(w.path), regexp_replace(folder, '^.*/', '') || '-' || v.name, host),
		'limits', (host -> 'limits') || jsonb_build_object('health_interval_ms', host #> '{server,health_interval_ms}',
			'health_timeout_ms', host #> '{server,health_timeout_ms}'));
END
$$;
-- Like _take_backend(): the one there is if it was started as it would be now, otherwise another one.
CREATE FUNCTION boocoder._take_server(backend bigint, v boocoder.providers, w boocoder.worktrees, argv text[], prefix text[], host jsonb,
	OUT server bigint, OUT start_order jsonb, OUT ends bigint) RETURNS record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted text := v.name || ' ' || boocoder._server_folder(w.path);
	hash text := md5(concat_ws(E'\x01', v.kind, v.transport, argv, v.env, prefix, v.persistent_home, w.git_dir,
		host -> 'sandbox', host ->> 'agent_home'));
	s boocoder.servers;
BEGIN
	SELECT * INTO s FROM boocoder.servers x WHERE x.key = wanted AND x.state <> 'ending';
	IF s.state IN ('starting', 'ready', 'exited') AND s.config_hash = hash THEN
		UPDATE boocoder.servers x SET last_used_at = clock_timestamp() WHERE x.id = s.id RETURNING x.id INTO server;
	ELSE
		UPDATE boocoder.servers x SET state = 'ending' WHERE x.id = s.id RETURNING x.id INTO ends;
		INSERT INTO boocoder.servers (key, provider, project_id, folder, config_hash)
		VALUES (wanted, v.name, w.project_id, boocoder._server_folder(w.path), hash) RETURNING id INTO server;
		start_order := boocoder._server_order(v, w, argv, host);
	END IF;
	UPDATE boocoder.backends b SET server_id = server WHERE b.id = backend;
END
$$;
-- What its runner told of it (a SERVER message), and what is to be done.  The dispatcher keeps the order: starting
-- again is starting the same.
CREATE FUNCTION boocoder._server_told(server bigint, message jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	s boocoder.servers;
	settings jsonb := boocoder._host() -> 'server';
	ok boolean := coalesce((message ->> 'ok')::boolean, false);
	at timestamptz := clock_timestamp();
	decision text;
	tells text;
BEGIN
	SELECT * INTO s FROM boocoder.servers x WHERE x.id = server FOR UPDATE;
	IF s.id IS NULL OR s.state = 'ending' THEN
		RETURN 'end';
	END IF;
	CASE message ->> 'state'
		WHEN 'ready' THEN
			s.state := 'ready';
			s.url := message ->> 'url';
			s.pid := (message ->> 'pid')::integer;
			s.pid_started := (message ->> 'start_time')::bigint;
			s.version := message ->> 'version';
			s.ready_at := at;
			tells := 'ready';
			s.failures := 0;
			s.unhealthy_since := NULL;
			s.problem := NULL;
		WHEN 'health' THEN
			s.failures := CASE WHEN ok THEN 0 ELSE s.failures + 1 END;
			s.unhealthy_since := CASE WHEN s.failures >= (settings ->> 'health_failures')::integer THEN coalesce(s.unhealthy_since, at) END;
			s.looked_at := at;
			s.answer_ms := (message ->> 'ms')::integer;
			s.problem := message ->> 'problem';
		WHEN 'ended' THEN
			-- One that does not live is not started again and again: who waits for it is told, and the next one tries.
			s.state := CASE WHEN s.ready_at IS NULL OR (s.restarts > 0 AND s.ready_at > at - interval '10 s') THEN 'failed' ELSE 'exited' END;
			s.pid := NULL;
			s.url := NULL;
			-- its sessions have crashed with it
			UPDATE boocoder.agent_sessions m SET status = 'crashed', pid = NULL
			 WHERE (m.chat_id, m.agent) IN (SELECT q.chat_id, q.agent FROM boocoder.agent_sessions q
											  JOIN boocoder.backends b ON b.chat_id = q.chat_id AND b.agent = q.agent
											 WHERE b.server_id = s.id AND b.state = 'idle' FOR NO KEY UPDATE OF q SKIP LOCKED);
			UPDATE boocoder.backends b SET state = 'ending' WHERE b.server_id = s.id AND b.state = 'idle';
			s.problem := format('the server ended (%s)', coalesce(
				'signal ' || (message #>> '{result,signal}'), 'status ' || (message #>> '{result,exit_code}'), message #>> '{result,message}', 'unknown'));
		ELSE
			NULL;
	END CASE;
	decision := CASE s.state WHEN 'failed' THEN 'give_up'
		ELSE boocoder._server_decision(s.state, s.failures, boocoder._server_busy(s.id), s.unhealthy_since, at,
			(settings ->> 'health_failures')::integer, make_interval(secs => (settings ->> 'stale_grace_ms')::bigint / 1000.0)) END;
	IF decision IN ('restart', 'restart_forced') THEN
		s.state := 'starting';
		s.restarts := s.restarts + 1;
		s.started_at := at;
		s.ready_at := NULL;
		s.failures := 0;
		s.unhealthy_since := NULL;
		s.pid := NULL;
		s.url := NULL;
	END IF;
	UPDATE boocoder.servers x SET state = s.state, url = s.url, pid = s.pid, pid_started = s.pid_started, version = s.version,
		failures = s.failures, unhealthy_since = s.unhealthy_since, looked_at = s.looked_at, answer_ms = s.answer_ms,
		problem = s.problem, restarts = s.restarts, started_at = s.started_at, ready_at = s.ready_at
	 WHERE x.id = s.id;
	RETURN coalesce(nullif(decision, 'keep'), tells, 'keep');
END
$$;
CREATE FUNCTION boocoder._idle_servers(at timestamptz, idle_ttl interval) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN QUERY
	SELECT s.id FROM boocoder.servers s
	 WHERE s.state <> 'ending' AND s.last_used_at + idle_ttl <= at
	   AND NOT EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.server_id = s.id);
END
$$;
CREATE FUNCTION boocoder._end_servers(host jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.servers s SET state = 'ending'
	 WHERE s.id IN (SELECT boocoder._idle_servers(now(), make_interval(secs => (host ->> 'idle_ttl_ms')::bigint / 1000.0)));
	-- those again of which the dispatcher has not said that they are gone
	RETURN QUERY SELECT s.id FROM boocoder.servers s WHERE s.state = 'ending';
END
$$;
CREATE FUNCTION boocoder._server_ended(server bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.servers s WHERE s.id = server;
	RETURN server;
END
$$;
CREATE FUNCTION boocoder._forget_servers() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.servers;
END
$$;
CREATE FUNCTION boocoder._status()
RETURNS TABLE (dispatcher_pid integer, started_at timestamptz, pending bigint, running bigint, blocked bigint,
	oldest_pending interval, jobs bigint, spare_runners integer, last_seq bigint, last_error text,
	warm_backends bigint, servers bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT w.dispatcher_pid, w.started_at, ready.n + scheduled.n, open.running, open.blocked,
		   now() - least(ready.oldest, scheduled.oldest),
		   (SELECT count(*) FROM boocoder.jobs j WHERE j.state IN ('queued', 'running')),
		   w.spare_runners, w.last_seq, w.last_error,
		   (SELECT count(*) FROM boocoder.backends b WHERE b.state = 'idle'), (SELECT count(*) FROM boocoder.servers s)
	  FROM boocoder._worker_status() w,
		   (SELECT count(*) AS n, min(t.created_at) AS oldest FROM boocoder.tasks t
			 WHERE t.state = 'pending' AND t.run_at IS NULL) ready,
		   (SELECT count(*) AS n, min(t.run_at) FILTER (WHERE t.run_at <= now()) AS oldest FROM boocoder.tasks t
			 WHERE t.state = 'pending' AND t.run_at IS NOT NULL) scheduled,
		   (SELECT count(*) FILTER (WHERE t.state = 'running') AS running, count(*) FILTER (WHERE t.state = 'blocked') AS blocked
			  FROM boocoder.tasks t WHERE t.state IN ('running', 'blocked')) open
$$;
CREATE VIEW boocoder.status AS SELECT * FROM boocoder._status();
CREATE OR REPLACE FUNCTION boocoder.doctor() RETURNS TABLE ("check" text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w record;
	waiting bigint;
BEGIN
	"check" := 'preload';
	status := CASE WHEN boocoder._preloaded() THEN 'ok' ELSE 'error' END;
	detail := 'shared_preload_libraries ' || CASE WHEN boocoder._preloaded() THEN 'has' ELSE 'does not have' END || ' boocoder';
	hint := CASE WHEN NOT boocoder._preloaded() THEN 'Set shared_preload_libraries = ''boocoder'' and restart the server.' END;
	RETURN NEXT;

	SELECT * INTO w FROM boocoder._worker_status();
	"check" := 'dispatcher';
	status := CASE WHEN w.dispatcher_pid IS NOT NULL THEN 'ok' ELSE 'error' END;
	detail := CASE WHEN w.dispatcher_pid IS NOT NULL THEN 'runs since ' || w.started_at ELSE 'does not run' END
		|| coalesce('; last error: ' || w.last_error, '');
	hint := CASE WHEN w.dispatcher_pid IS NULL AND pg_is_in_recovery() THEN 'It starts when this standby is promoted.'
		WHEN w.dispatcher_pid IS NULL THEN 'See the server''s log; max_worker_processes may be too small.' END;
	RETURN NEXT;

	SELECT count(*) INTO waiting FROM boocoder.tasks t WHERE t.state = 'pending' AND coalesce(t.run_at, now()) <= now();
	"check" := 'queue';
	status := CASE WHEN waiting > 0 AND current_setting('boocoder.max_running')::integer = 0 THEN 'error' ELSE 'ok' END;
	detail := format('%s tasks are due, boocoder.max_running is %s', waiting, current_setting('boocoder.max_running'));
	hint := CASE status WHEN 'error' THEN 'Set boocoder.max_running to the number of agents this host can bear.' END;
	RETURN NEXT;

	FOR "check", status, detail, hint IN
		SELECT 'provider "' || p.name || '"', 'warning', 'is enabled, but names no program', 'Call boocoder.register_provider().'
		  FROM boocoder.providers p WHERE p.enabled AND p.transport <> 'native' AND cardinality(p.command) = 0 AND cardinality(p.builtin_command) = 0
	LOOP
		RETURN NEXT;
	END LOOP;
	FOR "check", status, detail, hint IN
		SELECT 'worktree ' || x.id, 'warning', coalesce(x.request_error, 'its session is gone, but it holds what would be missed: '
				|| array_to_string(boocoder._risks_of(x), ', ')),
			   'See boocoder.worktree_risk(); boocoder.remove_worktree(id, force => true) archives all of it.'
		  FROM boocoder.worktrees x
		 WHERE x.status IN ('active', 'trashed')
		   AND (x.request_error IS NOT NULL OR (x.orphaned_at IS NOT NULL AND x.status = 'active' AND NOT x.forced
				AND boocoder._risks_of(x) && '{dirty,unpushed,undecided}'))
		 ORDER BY x.id
	LOOP
		RETURN NEXT;
	END LOOP;
	IF pg_size_bytes(current_setting('boocoder.worktree_budget')) > 0 THEN
		SELECT sum(x.size_bytes) INTO waiting FROM boocoder.worktrees x WHERE x.status <> 'removed';
		"check" := 'worktree budget';
		status := CASE WHEN waiting >= pg_size_bytes(current_setting('boocoder.worktree_budget')) THEN 'error' ELSE 'ok' END;
		detail := format('worktrees take %s of %s', pg_size_pretty(coalesce(waiting, 0)), current_setting('boocoder.worktree_budget'));
		hint := CASE status WHEN 'error' THEN 'No worktree is made. See boocoder.worktree_disk; remove what is not needed, or raise boocoder.worktree_budget.' END;
		RETURN NEXT;
	END IF;
	FOR "check", status, detail, hint IN
		SELECT 'agent "' || a.name || '"', CASE a.status WHEN 'error' THEN 'warning' ELSE 'ok' END,
			   concat_ws(', ', a.status, a.version, a.reason), nullif(concat_ws(' ', a.message, CASE a.reason WHEN 'auth_required' THEN
				'To log it in for good: providers.persistent_home with boocoder.agent_home, or a launch_prefix to whom it is logged in as.' END), '')
		  FROM boocoder.available_agents a JOIN boocoder.providers p ON p.name = a.name
		 WHERE p.enabled AND a.status <> 'unavailable' ORDER BY a.name
	LOOP
		RETURN NEXT;
	END LOOP;

	IF NOT pg_has_role('boocoder_admin', 'USAGE') THEN
		"check" := 'host';
		status := 'warning';
		detail := 'the sandbox, the worktree root and the repositories are checked for administrators only';
		hint := NULL;
		RETURN NEXT;
		RETURN;
	END IF;
	FOR "check", status, detail, hint IN
		SELECT 'provider "' || p.name || '"', 'warning', 'wants a home that lasts, but boocoder.agent_home is not set',
			   'Set it, and log the agent in there; or give its project or provider a launch_prefix.'
		  FROM boocoder.providers p WHERE p.enabled AND p.persistent_home AND boocoder._host() ->> 'agent_home' = ''
	LOOP
		RETURN NEXT;
	END LOOP;
	BEGIN
		FOR "check", status, detail, hint IN
			SELECT c ->> 'check', c ->> 'status', c ->> 'detail', c ->> 'hint'
			  FROM jsonb_array_elements(boocoder._check_host() -> 'checks') c
		LOOP
			RETURN NEXT;
		END LOOP;
	EXCEPTION WHEN OTHERS THEN
		"check" := 'host';
		status := 'error';
		detail := SQLERRM;
		hint := 'Is boocoder-runner installed beside the library?';
		RETURN NEXT;
	END;
	RETURN QUERY SELECT * FROM boocoder._repository_checks();
END
$$;
CREATE FUNCTION boocoder._worktree(worktree bigint) RETURNS boocoder.worktrees
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees;
BEGIN
	SELECT * INTO w FROM boocoder.worktrees x WHERE x.id = worktree;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no worktree %', worktree USING ERRCODE = 'BC002', HINT = 'See boocoder.worktrees.';
	END IF;
	RETURN w;
END
$$;
CREATE FUNCTION boocoder.worktree_risk(worktree bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
	undecided bigint;
	running bigint;
	risks text[];
BEGIN
	SELECT count(*) INTO undecided FROM boocoder.pending_changes c
	 WHERE c.worktree_id = w.id AND c.status IN ('pending', 'conflict', 'applying');
	SELECT count(*) INTO running FROM boocoder.tasks t WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked');
	risks := boocoder._risks(w.facts, undecided, running);
	RETURN jsonb_build_object('worktree', w.id, 'status', w.status, 'path', w.path,
		'missing', coalesce((w.facts ->> 'missing')::boolean, false),
		'dirty', coalesce(w.facts -> 'dirty', '[]'), 'dirty_count', coalesce((w.facts ->> 'dirty_count')::bigint, 0),
		'unpushed', coalesce(w.facts -> 'unpushed', '[]'), 'unpushed_count', coalesce((w.facts ->> 'unpushed_count')::bigint, 0),
		'undecided', undecided, 'running', running,
		'agents', (SELECT count(*) FROM boocoder.backends b WHERE b.worktree_id = w.id),
		'size_bytes', w.size_bytes, 'assessed_at', w.assessed_at, 'safe', cardinality(risks) = 0, 'risks', to_jsonb(risks));
END
$$;
CREATE FUNCTION boocoder._change_worktree(worktree bigint, request jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
BEGIN
	IF w.request IS NOT NULL THEN
		RAISE EXCEPTION 'worktree % is being changed already', w.id USING ERRCODE = 'BC004', HINT = 'See boocoder.wait_worktree().';
	ELSIF w.status <> 'active' AND NOT (w.status = 'removed' AND request ->> 'do' = 'restore') THEN
		RAISE EXCEPTION 'worktree % is %', w.id, w.status
			USING ERRCODE = 'BC004', HINT = 'boocoder.undelete_worktree() brings back one that is trashed, boocoder.worktree_restore() one that is removed.';
	ELSIF EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in worktree %', w.id USING ERRCODE = 'BC004', HINT = 'Cancel its task first.';
	END IF;
	UPDATE boocoder.worktrees x
	   SET request = _change_worktree.request, status = CASE x.status WHEN 'removed' THEN 'creating' ELSE x.status END
	 WHERE x.id = w.id;
	PERFORM boocoder._wake_now();
END
$$;
CREATE FUNCTION boocoder.refresh_worktree(worktree bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
BEGIN
	UPDATE boocoder.worktrees x SET assess_requested_at = now() WHERE x.id = w.id AND x.status = 'active';
	PERFORM boocoder._wake_now();
END
$$;
CREATE FUNCTION boocoder.worktree_stash(worktree bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder._change_worktree(worktree, '{"do": "stash"}')
$$;
CREATE FUNCTION boocoder.worktree_restore(worktree bigint, save bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
	s boocoder.worktree_saves;
BEGIN
	SELECT * INTO s FROM boocoder.worktree_saves x
	 WHERE x.worktree_id = w.id AND CASE WHEN save IS NOT NULL THEN x.id = save
										 WHEN w.status = 'removed' THEN x.kind = 'archive' ELSE x.kind = 'stash' END
	 ORDER BY x.id DESC LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'worktree % has nothing to restore', w.id USING ERRCODE = 'BC002', HINT = 'See boocoder.worktree_saves.';
	END IF;
	PERFORM boocoder._change_worktree(w.id, jsonb_build_object('do', 'restore', 'to', s.ref) ||
		CASE WHEN s.task_id IS NOT NULL THEN jsonb_build_object('task', s.task_id) ELSE '{}' END);
END
$$;
CREATE FUNCTION boocoder.rewind(session bigint, task bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	s boocoder.worktree_saves;
BEGIN
	SELECT x.* INTO s FROM boocoder.worktree_saves x JOIN boocoder.worktrees w ON w.id = x.worktree_id
	 WHERE w.session_id = rewind.session AND w.deleted_at IS NULL AND x.kind = 'turn' AND x.task_id = rewind.task
	 ORDER BY x.id DESC LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the worktree of session % has no content of task %', session, task
			USING ERRCODE = 'BC002', HINT = 'See boocoder.worktree_saves.';
	END IF;
	PERFORM boocoder._change_worktree(s.worktree_id, jsonb_build_object('do', 'rewind', 'to', s.ref, 'task', s.task_id));
END
$$;
CREATE FUNCTION boocoder.wait_worktree(worktree bigint, timeout interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	until timestamptz := clock_timestamp() + timeout;
	w boocoder.worktrees;
	seen bigint;
BEGIN
	LOOP
		seen := boocoder._change_generation();
		w := boocoder._worktree(worktree);
		IF (w.request IS NULL AND w.assess_requested_at IS NULL AND w.status <> 'removing') OR clock_timestamp() >= until THEN
			RETURN coalesce(w.request_error, CASE WHEN w.request IS NOT NULL THEN w.request ->> 'do' ELSE w.status END);
		END IF;
		PERFORM boocoder._wait_change(seen, least(1000, coalesce(extract(epoch FROM until - clock_timestamp()) * 1000, 1000))::integer);
	END LOOP;
END
$$;
CREATE FUNCTION boocoder.undelete_worktree(worktree bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
BEGIN
	IF w.status = 'trashed' AND EXISTS (SELECT 1 FROM boocoder.worktrees x WHERE x.session_id = w.session_id AND x.deleted_at IS NULL) THEN
		RAISE EXCEPTION 'session % has another worktree meanwhile', w.session_id
			USING ERRCODE = 'BC004', HINT = 'Remove that one first.';
	END IF;
	UPDATE boocoder.worktrees x SET status = 'active'
	 WHERE x.id = w.id AND x.status = 'trashed';
	RETURN FOUND;
END
$$;
CREATE FUNCTION boocoder._cancel_tasks(chat bigint, session bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM boocoder.cancel(t.id) FROM boocoder.tasks t
	 WHERE (t.chat_id = chat OR t.session_id = session) AND t.state IN ('pending', 'running', 'blocked');
END
$$;
CREATE FUNCTION boocoder.close_chat(chat bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.chats c SET closed_at = now() WHERE c.id = chat AND c.closed_at IS NULL;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM boocoder._cancel_tasks(chat, NULL);
	PERFORM boocoder._wake_now();
	RETURN true;
END
$$;
CREATE FUNCTION boocoder.agent_sessions_for(session bigint)
RETURNS TABLE (chat_id bigint, agent text, status text, has_session boolean, last_active_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT s.chat_id, s.agent, s.status, s.agent_session_id IS NOT NULL, s.last_active_at
	  FROM boocoder.agent_sessions s JOIN boocoder.chats c ON c.id = s.chat_id
	 WHERE c.session_id = session ORDER BY s.chat_id, s.agent
$$;
CREATE FUNCTION boocoder._worktree_disk()
RETURNS TABLE (id bigint, session_id bigint, project text, status text, size_bytes bigint, assessed_at timestamptz,
	created_at timestamptz, deleted_at timestamptz, orphaned_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT w.id, w.session_id, p.name, w.status, w.size_bytes, w.assessed_at, w.created_at, w.deleted_at, w.orphaned_at
	  FROM boocoder.worktrees w JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE w.status <> 'removed' ORDER BY w.size_bytes DESC NULLS LAST, w.id
$$;
CREATE VIEW boocoder.worktree_disk AS SELECT * FROM boocoder._worktree_disk();
CREATE FUNCTION boocoder.stage_changes(ids bigint[], staged boolean DEFAULT true) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	n bigint;
BEGIN
	UPDATE boocoder.pending_changes c SET staged = stage_changes.staged
	 WHERE c.id = ANY (ids) AND c.status IN ('pending', 'conflict');
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;
CREATE OR REPLACE FUNCTION boocoder.remove_worktree(worktree bigint, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF force THEN
		UPDATE boocoder.pending_changes c SET status = 'rejected'
		 WHERE c.worktree_id = worktree AND c.status IN ('pending', 'conflict');
	END IF;
	UPDATE boocoder.worktrees w SET status = 'trashed', forced = force
	 WHERE w.id = worktree AND w.status IN ('active', 'creating');
	RETURN FOUND;
END
$$;
CREATE OR REPLACE FUNCTION boocoder.close_session(session bigint, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	at_work boolean;
BEGIN
	UPDATE boocoder.sessions s SET closed_at = now() WHERE s.id = session AND s.closed_at IS NULL;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	UPDATE boocoder.chats c SET closed_at = now() WHERE c.session_id = session AND c.closed_at IS NULL;
	PERFORM boocoder._cancel_tasks(NULL, session);
	at_work := EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = session AND t.state IN ('running', 'blocked'));
	IF at_work THEN
		-- its agent ends first; then the rules for orphans apply
		UPDATE boocoder.worktrees w SET forced = force WHERE w.session_id = session AND w.deleted_at IS NULL;
	ELSE
		PERFORM boocoder.remove_worktree(w.id, force) FROM boocoder.worktrees w
		 WHERE w.session_id = session AND w.deleted_at IS NULL;
	END IF;
	PERFORM boocoder._wake_now();
	RETURN true;
END
$$;

-- Rights: all of them again, as what is granted already stays as it is.

REVOKE UPDATE (status) ON boocoder.worktrees FROM boocoder_user;
REVOKE ALL ON SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA boocoder FROM PUBLIC;
GRANT SELECT ON boocoder.projects, boocoder.sessions, boocoder.chats, boocoder.tasks, boocoder.messages,
	boocoder.message_parts, boocoder.events, boocoder.worktrees, boocoder.pending_changes, boocoder.usage_events,
	boocoder.available_agents, boocoder.task_transitions, boocoder.inbox, boocoder.status, boocoder.jobs,
	boocoder.agent_sessions, boocoder.agent_commands, boocoder.permission_rules, boocoder.permission_requests,
	boocoder.tool_timeline, boocoder.backends, boocoder.worktree_saves, boocoder.worktree_disk, boocoder.servers TO boocoder_viewer;
GRANT INSERT (kind, provider) ON boocoder.jobs TO boocoder_viewer;
GRANT SELECT (name, label, kind, transport, command, builtin_command, fallback, fallback_command, version_args, launch_prefix,
	persistent_home, keep_raw, models_url, models_prefix, models, modes, default_model, permission_policy, enabled, builtin)
	ON boocoder.providers TO boocoder_viewer;
GRANT EXECUTE ON FUNCTION boocoder._project_id(text), boocoder._task(bigint), boocoder.wait(bigint, interval),
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
GRANT INSERT (project_id, session_id, chat_id, parent_task_id, agent, model, mode, input, creator, priority, run_at,
	max_attempts, timeout, idempotency_key, permission_policy) ON boocoder.tasks TO boocoder_user;
GRANT UPDATE (state, cancel_requested_at, retry_requested, priority, run_at) ON boocoder.tasks TO boocoder_user;
GRANT INSERT (project_id, title), UPDATE (title, closed_at) ON boocoder.sessions TO boocoder_user;
GRANT INSERT (session_id, title, model), UPDATE (title, model, closed_at) ON boocoder.chats TO boocoder_user;
GRANT UPDATE (status, chosen_option, content) ON boocoder.permission_requests TO boocoder_user;
GRANT INSERT (chat_id, agent, session_id, wanted_mode, mode_asked_at), UPDATE (wanted_mode, mode_asked_at, mode_sent_at, mode_error)
	ON boocoder.agent_sessions TO boocoder_user;
GRANT INSERT (provider, project_id, task_id, tool_kind, path_pattern, command_pattern, answer), DELETE
	ON boocoder.permission_rules TO boocoder_user;
GRANT UPDATE (status, staged) ON boocoder.pending_changes TO boocoder_user;
GRANT UPDATE (status, forced, request, assess_requested_at) ON boocoder.worktrees TO boocoder_user;
GRANT DELETE ON boocoder.sessions, boocoder.chats TO boocoder_user;
GRANT EXECUTE ON FUNCTION
	boocoder.run(text, text, text, text, text, bigint, bigint, integer, timestamptz, interval, integer, text, text),
	boocoder.send(bigint, text), boocoder.cancel(bigint), boocoder.retry(bigint), boocoder.inbox_retry(bigint),
	boocoder._request(bigint), boocoder._option(jsonb, text), boocoder.answer_permission(bigint, text),
	boocoder.answer_elicitation(bigint, jsonb), boocoder.set_mode(bigint, text, text),
	boocoder.add_permission_rule(text, text, text, bigint, text, text, text), boocoder._decide(bigint[], text), boocoder._undecided(bigint), boocoder.apply(bigint),
	boocoder.apply_changes(bigint[]), boocoder.reject(bigint), boocoder.reject_changes(bigint[]),
	boocoder.remove_worktree(bigint, boolean), boocoder.close_session(bigint, boolean), boocoder.close_chat(bigint),
	boocoder._cancel_tasks(bigint, bigint), boocoder.undelete_worktree(bigint), boocoder._change_worktree(bigint, jsonb),
	boocoder.refresh_worktree(bigint), boocoder.worktree_stash(bigint), boocoder.worktree_restore(bigint, bigint),
	boocoder.rewind(bigint, bigint), boocoder.stage_changes(bigint[], boolean) TO boocoder_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON boocoder.projects, boocoder.providers TO boocoder_admin;
GRANT EXECUTE ON FUNCTION
	boocoder.add_project(text, text, text, text, text, text[], name, boolean, text[], text[], text[], text, text[], text),
	boocoder.archive_project(text), boocoder.register_provider(text, text, text[], jsonb, text, jsonb),
	boocoder.remove_provider(text), boocoder.launch_spec(text),
	boocoder._argv(boocoder.providers, text), boocoder._worktree_root(boocoder.projects, jsonb), boocoder._inspect(text, text[], text), boocoder._check_host(),
	boocoder._host(), boocoder._below(text, text), boocoder._repository_checks() TO boocoder_admin;
GRANT SELECT ON ALL TABLES IN SCHEMA boocoder TO boocoder_worker;
GRANT INSERT ON boocoder.sessions, boocoder.chats, boocoder.messages, boocoder.message_parts, boocoder.events,
	boocoder.worktrees, boocoder.jobs, boocoder.pending_changes, boocoder.usage_events, boocoder.agent_sessions,
	boocoder.agent_commands, boocoder.permission_requests, boocoder.available_agents, boocoder.backends, boocoder.worktree_saves, boocoder.servers TO boocoder_worker;
GRANT UPDATE (title) ON boocoder.sessions, boocoder.chats TO boocoder_worker;
GRANT UPDATE (archived_at) ON boocoder.projects TO boocoder_worker;
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
	boocoder._candidate(bigint[], bigint[], bigint[], boolean), boocoder._make_jobs(), boocoder._job_order(boocoder.jobs, jsonb),
	boocoder._job_done(bigint, jsonb), boocoder._start(integer), boocoder._reconcile(),
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
	boocoder._save(bigint, text, text, text, bigint), boocoder._worktree_job_done(boocoder.jobs, boolean, jsonb, text),
	boocoder._worktree_place(bigint, name, bigint), boocoder._server_folder(text),
	boocoder._server_decision(text, integer, boolean, timestamptz, timestamptz, integer, interval), boocoder._server_busy(bigint),
	boocoder._server_order(boocoder.providers, boocoder.worktrees, text[], jsonb),
	boocoder._take_server(bigint, boocoder.providers, boocoder.worktrees, text[], text[], jsonb), boocoder._server_told(bigint, jsonb),
	boocoder._idle_servers(timestamptz, interval), boocoder._end_servers(jsonb), boocoder._server_ended(bigint), boocoder._forget_servers(),
	boocoder._charge(bigint, jsonb, text), boocoder._store_changes(boocoder.tasks, jsonb),
	boocoder._settle(bigint, bigint, jsonb, jsonb) TO boocoder_worker;
ALTER TABLE boocoder.backends ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.worktree_saves ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.servers ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON boocoder.worktree_saves FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.id = worktree_id));
CREATE POLICY visible ON boocoder.backends FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id));
CREATE POLICY visible ON boocoder.servers FOR SELECT TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p));
DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['backends', 'servers', 'worktree_saves'] LOOP
		EXECUTE pg_catalog.format('CREATE POLICY dispatcher ON boocoder.%I TO boocoder_worker USING (true) WITH CHECK (true)', name);
		EXECUTE pg_catalog.format('COMMENT ON POLICY dispatcher ON boocoder.%I IS ''the dispatcher serves everybody''', name);
	END LOOP;
END
$$;

-- Comments.
COMMENT ON COLUMN boocoder.tasks.warm IS 'its agent is one that is kept between turns; NULL: not decided yet';
COMMENT ON COLUMN boocoder.worktrees.status IS 'trashed: removed for people, its directory goes when boocoder.worktree_grace is over';
COMMENT ON COLUMN boocoder.worktrees.size_bytes IS 'on disk, as of the last look';
COMMENT ON COLUMN boocoder.worktrees.facts IS 'what a look at it found; see worktree_risk()';
COMMENT ON COLUMN boocoder.worktrees.request IS 'what people have asked for and is not done yet';
COMMENT ON COLUMN boocoder.worktrees.request_error IS 'why the last request failed';
COMMENT ON COLUMN boocoder.worktrees.forced IS 'it goes with all it holds, which is archived';
COMMENT ON COLUMN boocoder.worktrees.orphaned_at IS 'when its session was closed or deleted';
COMMENT ON TABLE boocoder.worktree_saves IS 'contents of worktrees that are kept in the project''s repository';
COMMENT ON COLUMN boocoder.worktree_saves.kind IS 'turn: at the end of a task; stash; undo: before a restore or a rewind; archive: at the removal, with which the turns go';
COMMENT ON COLUMN boocoder.worktree_saves.tree IS 'the hash of git''s tree';
COMMENT ON COLUMN boocoder.pending_changes.staged IS 'marked by stage_changes(); decides nothing';
COMMENT ON COLUMN boocoder.agent_sessions.agent_session_id IS 'the agent''s own name of its session, which the next turn goes on with';
COMMENT ON COLUMN boocoder.agent_sessions.status IS 'active: at work; idle: its process waits for the next turn; crashed, evicted, closed: the next turn starts one';
COMMENT ON COLUMN boocoder.agent_sessions.config_hash IS 'what the agent was last started with';
COMMENT ON COLUMN boocoder.agent_sessions.cost IS 'of all turns, in US dollars, as the ledger has it';
COMMENT ON COLUMN boocoder.agent_sessions.pid IS 'of the runner that keeps the agent; NULL: none does';
COMMENT ON TABLE boocoder.backends IS 'agents that are kept between turns, one process each';
COMMENT ON COLUMN boocoder.backends.task_id IS 'whose turn it is; NULL: it waits';
COMMENT ON COLUMN boocoder.backends.server_id IS 'the server it is on; NULL: it has a program of its own';
COMMENT ON COLUMN boocoder.backends.pid IS 'of its runner';
COMMENT ON TRIGGER guard ON boocoder.worktrees IS 'keeps a worktree while it is needed';
COMMENT ON FUNCTION boocoder._session_ends() IS
	'trigger: a session that is closed or deleted leaves its worktree to the reaper; refused while an agent is at work, or what is in the worktree would be missed (SQLSTATE BC004)';
COMMENT ON TRIGGER closes ON boocoder.sessions IS 'leaves the worktree to the reaper';
COMMENT ON TRIGGER goes ON boocoder.sessions IS 'keeps a session while its worktree holds what would be missed';
COMMENT ON FUNCTION boocoder._chat_goes() IS 'trigger: a chat goes with its messages, its tasks stay; refused while an agent is at work (SQLSTATE BC004)';
COMMENT ON TRIGGER goes ON boocoder.chats IS 'keeps a chat while an agent is at work in it';
COMMENT ON FUNCTION boocoder._worktree_place(bigint, name, bigint) IS 'where the worktree of a session is, below the root';
COMMENT ON FUNCTION boocoder._agent_prefix(boocoder.projects, boocoder.providers) IS
	'the launch prefix of an agent: its provider''s, or else its project''s; NULL: none';
COMMENT ON FUNCTION boocoder._new_path(text) IS 'a path for a worktree that no other one has, not even one that is trashed';
COMMENT ON FUNCTION boocoder._claim(boocoder.tasks, jsonb) IS 'makes one pending task running, or failed when it cannot run';
COMMENT ON FUNCTION boocoder._next_actions(integer, integer, boolean) IS
	'what the dispatcher is to do: cancel, answer, blocked, unblocked, evict, end_server, task, job, due; after a task it is to ask again';
COMMENT ON FUNCTION boocoder._prepared(bigint, bigint, jsonb) IS
	'records a worktree that is there; the orders for agent and diff, no row when there is nothing to run';
COMMENT ON FUNCTION boocoder._charge(bigint, jsonb, text) IS
	'one ledger row for what an attempt used; cumulative reports become the difference to what was charged';
COMMENT ON FUNCTION boocoder._home(boocoder.worktrees) IS 'the name of the directory that agents of a worktree have as HOME';
COMMENT ON FUNCTION boocoder._risks(jsonb, bigint, bigint) IS
	'why a worktree is not to go: running, undecided, dirty, unpushed, unknown (nobody has looked)';
COMMENT ON FUNCTION boocoder._risks_of(boocoder.worktrees) IS 'the same of a row, as the tables know it';
COMMENT ON FUNCTION boocoder._reapable(timestamptz, interval, bigint) IS
	'the worktrees that are to be removed now, and why: deleted or orphaned for longer than the grace, or over the budget; never one that holds what would be missed';
COMMENT ON FUNCTION boocoder._reap(jsonb) IS 'has those worktrees removed whose time has come';
COMMENT ON FUNCTION boocoder._make_worktree_jobs(jsonb) IS 'turns requests about worktrees into jobs, and the end of their time into removals';
COMMENT ON FUNCTION boocoder._worktree_job_order(boocoder.jobs, boocoder.projects, boocoder.worktrees, jsonb) IS
	'the order of a job that looks at a worktree, or gives it another content';
COMMENT ON FUNCTION boocoder._save(bigint, text, text, text, bigint) IS 'notes the ref under which a content is kept';
COMMENT ON FUNCTION boocoder._worktree_job_done(boocoder.jobs, boolean, jsonb, text) IS 'the result of such a job';
COMMENT ON FUNCTION boocoder._asks_once(text) IS 'does such a task stand by itself, whatever chat it is in?';
COMMENT ON FUNCTION boocoder._warm(boocoder.providers, bigint, bigint, text) IS
	'does such a task use an agent that stays? Only in a chat, with a transport that can, and not for those who ask once';
COMMENT ON FUNCTION boocoder.use_warm_backend(text, bigint, bigint, text) IS
	'would a task of this agent, session, chat and creator be given to an agent that is kept between turns?';
COMMENT ON FUNCTION boocoder._config_hash(boocoder.providers, boocoder.worktrees, text[], text[], jsonb) IS
	'a fingerprint of how an agent is started: another one means another process';
COMMENT ON FUNCTION boocoder._take_backend(boocoder.tasks, boocoder.worktrees, text) IS
	'the backend for a turn, busy from now on; and one that is to end before';
COMMENT ON FUNCTION boocoder._stale(text, text, text, text) IS 'why an agent is not to go on with its earlier session; NULL: it is';
COMMENT ON FUNCTION boocoder._continued(jsonb, boolean, text, text) IS 'an agent''s order with what goes on: its process, its session';
COMMENT ON FUNCTION boocoder._turn_ended(boocoder.tasks, jsonb) IS
	'after a turn: the agent''s session, for the next one to go on with, and whether its process waits for that';
COMMENT ON FUNCTION boocoder._evictions(timestamptz, interval, integer) IS
	'the backends that are to end, and why: closed, worktree, provider, idle for too long, or too many (the least recently used)';
COMMENT ON FUNCTION boocoder._evict(jsonb) IS 'marks the backends that are to end; all that are marked';
COMMENT ON FUNCTION boocoder._backend_started(bigint, integer) IS 'the process of a backend';
COMMENT ON FUNCTION boocoder._backend_ended(bigint) IS 'the process of a backend is gone: by itself, unless it was to end';
COMMENT ON FUNCTION boocoder._forget_backends() IS 'no backend outlives its dispatcher: those that were warm have crashed';
COMMENT ON TABLE boocoder.servers IS 'agents that serve many chats, one process each; no foreign keys: a row is there until its process has ended';
COMMENT ON COLUMN boocoder.servers.key IS 'who shares it: one provider, one folder of worktrees';
COMMENT ON COLUMN boocoder.servers.folder IS 'what its sandbox lets it write: the worktrees of one owner''s sessions in one project';
COMMENT ON COLUMN boocoder.servers.config_hash IS 'what it was started with';
COMMENT ON COLUMN boocoder.servers.url IS 'where it listens, on loopback; the password is nowhere but in its runner, the dispatcher and its chats';
COMMENT ON COLUMN boocoder.servers.pid_started IS 'when its process began, in clock ticks since the system did: with pid, that process and no other';
COMMENT ON COLUMN boocoder.servers.failures IS 'looks in a row at which it was not healthy';
COMMENT ON COLUMN boocoder.servers.unhealthy_since IS 'since when those are too many; NULL: they are not';
COMMENT ON FUNCTION boocoder._server_folder(text) IS
	'the folder that a worktree shares with others of its owner and project; one made before there were such folders stands alone';
COMMENT ON FUNCTION boocoder._server_decision(text, integer, boolean, timestamptz, timestamptz, integer, interval) IS
	'keep, restart, or restart_forced: a server that was unhealthy too often in a row is started again, but not while a turn runs, unless that lasts for too long';
COMMENT ON FUNCTION boocoder._server_busy(bigint) IS 'does a chat on this server have a turn?';
COMMENT ON FUNCTION boocoder._server_order(boocoder.providers, boocoder.worktrees, text[], jsonb) IS 'the order of a server for the chats of a folder of worktrees';
COMMENT ON FUNCTION boocoder._take_server(bigint, boocoder.providers, boocoder.worktrees, text[], text[], jsonb) IS
	'the server for a chat, noted with its backend (NULL: none is kept); its order if it is to be started, and one that is to end before';
COMMENT ON FUNCTION boocoder._server_told(bigint, jsonb) IS
	'records how a server is; keep, ready (with this address), restart (the same order again), restart_forced (though turns run on it), give_up, or end';
COMMENT ON FUNCTION boocoder._idle_servers(timestamptz, interval) IS 'servers that no chat has been on for so long, and that are to end';
COMMENT ON FUNCTION boocoder._end_servers(jsonb) IS 'marks the servers that are to end; all that are marked';
COMMENT ON FUNCTION boocoder._server_ended(bigint) IS 'the process of a server is gone, and is not started again';
COMMENT ON FUNCTION boocoder._forget_servers() IS 'at the start of a dispatcher: no server outlives the one that started it';
COMMENT ON FUNCTION boocoder._status() IS 'the row of the view status';
COMMENT ON VIEW boocoder.status IS 'the dispatcher of this database, and the queue as far as one may see it';
COMMENT ON FUNCTION boocoder._worktree(bigint) IS 'a worktree one may see (SQLSTATE BC002)';
COMMENT ON FUNCTION boocoder.worktree_risk(bigint) IS
	'what would be lost with a worktree: files that no task reported (dirty), commits that no other branch has, not even squashed or rebased (unpushed), undecided changes, agents at work; files and commits as of assessed_at, the end of the last turn or the last refresh_worktree() (SQLSTATE BC002)';
COMMENT ON FUNCTION boocoder._change_worktree(bigint, jsonb) IS 'has something done to a worktree after commit (SQLSTATE BC002, BC004)';
COMMENT ON FUNCTION boocoder.refresh_worktree(bigint) IS
	'has a worktree looked at after commit: size_bytes, and what worktree_risk() tells (SQLSTATE BC002)';
COMMENT ON FUNCTION boocoder.worktree_stash(bigint) IS
	'after commit, sets all that is not committed in a worktree aside under refs/boocoder/stash and leaves it clean; boocoder.worktree_saves then has the ref (SQLSTATE BC002, BC004)';
COMMENT ON FUNCTION boocoder.worktree_restore(bigint, bigint) IS
	'after commit, gives a worktree a content it had: a row of boocoder.worktree_saves, or the last stash, or the archive of one that was removed, which is made again; what it holds is kept first (SQLSTATE BC002, BC004)';
COMMENT ON FUNCTION boocoder.rewind(bigint, bigint) IS
	'after commit, gives a session''s worktree the content it had at the end of a task; later changes are superseded, what it holds is kept first (SQLSTATE BC002, BC004)';
COMMENT ON FUNCTION boocoder.wait_worktree(bigint, interval) IS
	'waits until nothing is to be done to a worktree any more, or the time is over; its status, or what went wrong (SQLSTATE BC002).  The request must be committed before.';
COMMENT ON FUNCTION boocoder.undelete_worktree(bigint) IS
	'takes back the removal of a worktree within boocoder.worktree_grace; false when it is not trashed (SQLSTATE BC002, BC004)';
COMMENT ON FUNCTION boocoder._cancel_tasks(bigint, bigint) IS 'cancels what has not ended of a chat or a session';
COMMENT ON FUNCTION boocoder.close_chat(bigint) IS
	'closes a chat: its tasks are cancelled and its agents end; the session''s worktree stays; false when it was closed already';
COMMENT ON FUNCTION boocoder.agent_sessions_for(bigint) IS 'the agents of the chats of a session, and whether they have a session to go on with';
COMMENT ON FUNCTION boocoder._worktree_disk() IS 'the rows of boocoder.worktree_disk';
COMMENT ON VIEW boocoder.worktree_disk IS 'the worktrees that take space, the largest first; size_bytes as of assessed_at';
COMMENT ON FUNCTION boocoder.stage_changes(bigint[], boolean) IS
	'marks undecided changes for the panels of frontends, or takes the mark away; it decides nothing; how many';
COMMENT ON FUNCTION boocoder.remove_worktree(bigint, boolean) IS
	'removes a worktree, its content archived under refs/boocoder/archive, when boocoder.worktree_grace is over; until then undelete_worktree() takes it back; refuses while an agent works in it, while changes are undecided, and what worktree_risk() calls dirty or unpushed (SQLSTATE BC004); force rejects the changes and archives the rest';
COMMENT ON FUNCTION boocoder.close_session(bigint, boolean) IS
	'closes a session and its chats: tasks are cancelled, agents end, and its worktree is removed by the rules of remove_worktree(), or, if an agent is still at work, once it holds nothing that would be missed';
COMMENT ON POLICY visible ON boocoder.worktree_saves IS 'those of visible worktrees';
COMMENT ON POLICY visible ON boocoder.backends IS 'those of visible chats';
COMMENT ON POLICY visible ON boocoder.servers IS 'those of visible projects';
-- What a dump holds.
SELECT pg_catalog.pg_extension_config_dump('boocoder.worktree_saves',
	$$WHERE worktree_id IN (SELECT id FROM boocoder.worktrees WHERE status IN ('active', 'removed'))$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.backends_id_seq', '');
COMMENT ON SEQUENCE boocoder.backends_id_seq IS 'numbers of rows';
SELECT pg_catalog.pg_extension_config_dump('boocoder.servers_id_seq', '');
COMMENT ON SEQUENCE boocoder.servers_id_seq IS 'numbers of rows';
SELECT pg_catalog.pg_extension_config_dump('boocoder.worktree_saves_id_seq', '');
COMMENT ON SEQUENCE boocoder.worktree_saves_id_seq IS 'numbers of rows';
