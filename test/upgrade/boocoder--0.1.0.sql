-- SPDX-License-Identifier: PostgreSQL
-- boocoder: install script, assembled from sql/NN_*.sql in the order of their numbers.
-- SQLSTATEs of this extension:
--   BC001  a move between states that is not allowed
--   BC002  no such row, or it is not yours
--   BC003  not a usable repository
--   BC004  the call does not fit the state of its object
--   BC005  bad argument
\echo Use "CREATE EXTENSION boocoder" to load this file. \quit

DO $$
BEGIN
	IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
		RAISE EXCEPTION 'boocoder needs a database with the encoding UTF8'
			USING ERRCODE = 'feature_not_supported',
				  HINT = 'Create one with CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0.';
	END IF;
END
$$;

-- Not the control file's schema: that would adopt one that somebody else prepared.
CREATE SCHEMA boocoder;
COMMENT ON SCHEMA boocoder IS 'coding agents: tasks, what they stream, what they changed, what they cost';
REVOKE ALL ON SCHEMA boocoder FROM PUBLIC;
-- SPDX-License-Identifier: PostgreSQL
-- Roles belong to the cluster, so another database may have made them already.
-- One that somebody else prepared with more rights than it should have is refused.
DO $$
DECLARE
	name text;
	role record;
BEGIN
	FOREACH name IN ARRAY ARRAY['boocoder_viewer', 'boocoder_user', 'boocoder_admin', 'boocoder_worker'] LOOP
		SELECT r.oid, r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls AS strong
		  INTO role FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) name::pg_catalog.name;
		IF NOT FOUND THEN
			EXECUTE pg_catalog.format('CREATE ROLE %I %s', name,
				CASE name WHEN 'boocoder_worker' THEN 'LOGIN NOINHERIT' ELSE 'NOLOGIN' END);
		ELSIF role.strong THEN
			RAISE EXCEPTION 'role "%" exists and has rights that boocoder does not give it', name
				USING ERRCODE = 'BC004', HINT = 'Rename that role, or take its special attributes away.';
		ELSIF name OPERATOR(pg_catalog.=) 'boocoder_worker' AND EXISTS (
				SELECT 1 FROM pg_catalog.pg_auth_members m
				  JOIN pg_catalog.pg_roles g ON g.oid OPERATOR(pg_catalog.=) m.member
				 WHERE m.roleid OPERATOR(pg_catalog.=) role.oid AND NOT g.rolsuper) THEN
			RAISE EXCEPTION 'role "boocoder_worker" has members'
				USING ERRCODE = 'BC004', HINT = 'Only the dispatcher may act as that role; revoke it from its members.';
		ELSIF name OPERATOR(pg_catalog.=) 'boocoder_worker' AND (
				EXISTS (SELECT 1 FROM pg_catalog.pg_auth_members m WHERE m.member OPERATOR(pg_catalog.=) role.oid)
				OR EXISTS (SELECT 1 FROM pg_catalog.pg_authid a
							WHERE a.oid OPERATOR(pg_catalog.=) role.oid
							  AND (a.rolpassword IS NOT NULL OR NOT a.rolcanlogin OR a.rolinherit))) THEN
			RAISE EXCEPTION 'role "boocoder_worker" is not as boocoder makes it'
				USING ERRCODE = 'BC004',
					  HINT = 'It is LOGIN NOINHERIT, has no password and is a member of no role; drop it to have it made anew.';
		END IF;
	END LOOP;
	EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO boocoder_worker', pg_catalog.current_database());
END
$$;

GRANT boocoder_viewer TO boocoder_user;
GRANT boocoder_user TO boocoder_admin;
COMMENT ON ROLE boocoder_viewer IS 'boocoder: may see its own and shared projects';
COMMENT ON ROLE boocoder_user IS 'boocoder: may enqueue tasks and decide about their changes';
COMMENT ON ROLE boocoder_admin IS 'boocoder: may manage projects and providers, and sees everything';
COMMENT ON ROLE boocoder_worker IS 'boocoder: the dispatcher acts as this role; nobody else should';
GRANT USAGE ON SCHEMA boocoder TO boocoder_viewer, boocoder_worker;
-- SPDX-License-Identifier: PostgreSQL
-- Tables.  Run once: an update script changes them by hand.

CREATE TABLE boocoder.providers (
	name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
	label text NOT NULL,
	transport text NOT NULL CHECK (transport IN ('native', 'acp', 'opencode', 'pty', 'stream_json', 'command')),
	command text[] NOT NULL DEFAULT '{}' CHECK (array_position(command, NULL) IS NULL),
	env jsonb NOT NULL DEFAULT '{}'
		CHECK (jsonb_typeof(env) = 'object' AND NOT jsonb_path_exists(env, '$.* ? (@.type() != "string")')),
	models jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(models) = 'array'),
	modes jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(modes) = 'array'),
	default_model text,
	permission_policy text NOT NULL DEFAULT 'allow' CHECK (permission_policy IN ('allow', 'reject')),
	enabled boolean NOT NULL DEFAULT true,
	builtin boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE boocoder.providers IS 'the coding agents that tasks may name; only administrators write here';
COMMENT ON COLUMN boocoder.providers.env IS 'environment of the agent, over the allow-listed one; readable by the dispatcher only';
COMMENT ON COLUMN boocoder.providers.permission_policy IS 'how requests of the agent for permission are answered';

CREATE TABLE boocoder.available_agents (
	name text PRIMARY KEY REFERENCES boocoder.providers ON DELETE CASCADE,
	label text NOT NULL,
	transport text NOT NULL,
	install_path text,
	version text,
	supports_acp boolean NOT NULL DEFAULT false,
	models jsonb NOT NULL DEFAULT '[]',
	status text NOT NULL DEFAULT 'loading' CHECK (status IN ('loading', 'ready', 'unavailable', 'error')),
	probed_at timestamptz
);
COMMENT ON TABLE boocoder.available_agents IS 'what was found out about each provider on this host';

CREATE TABLE boocoder.projects (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
	path text NOT NULL CHECK (path ~ '^/'),
	base_branch text,
	default_agent text,
	default_model text,
	allowed_read_paths text[] NOT NULL DEFAULT '{}',
	setup text[] NOT NULL DEFAULT '{}' CHECK (array_position(setup, NULL) IS NULL),
	shared boolean NOT NULL DEFAULT false,
	owner name NOT NULL DEFAULT current_user,
	created_at timestamptz NOT NULL DEFAULT now(),
	archived_at timestamptz
);
COMMENT ON TABLE boocoder.projects IS 'git repositories that agents work on';
COMMENT ON COLUMN boocoder.projects.base_branch IS 'where new worktrees begin; NULL: what is checked out';
COMMENT ON COLUMN boocoder.projects.setup IS 'shell commands run once in each new worktree, inside the sandbox';
COMMENT ON COLUMN boocoder.projects.shared IS 'everybody with a boocoder role sees the project and all of its tasks';

CREATE TABLE boocoder.sessions (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	project_id bigint NOT NULL REFERENCES boocoder.projects,
	title text,
	owner name NOT NULL DEFAULT current_user,
	created_at timestamptz NOT NULL DEFAULT now(),
	closed_at timestamptz,
	UNIQUE (id, project_id)
);
CREATE INDEX ON boocoder.sessions (project_id);
COMMENT ON TABLE boocoder.sessions IS 'a workspace: its chats share one worktree';

CREATE TABLE boocoder.chats (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	session_id bigint NOT NULL REFERENCES boocoder.sessions ON DELETE CASCADE,
	title text,
	created_at timestamptz NOT NULL DEFAULT now(),
	closed_at timestamptz,
	UNIQUE (id, session_id)
);
CREATE INDEX ON boocoder.chats (session_id);
COMMENT ON TABLE boocoder.chats IS 'a conversation within a session: the unit of an agent''s context';

CREATE SEQUENCE boocoder.fence_seq;
COMMENT ON SEQUENCE boocoder.fence_seq IS 'numbers of claims: what an older claim sends is refused';

CREATE TABLE boocoder.tasks (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	project_id bigint NOT NULL REFERENCES boocoder.projects,
	session_id bigint,
	chat_id bigint,
	parent_task_id bigint,
	agent text,
	model text,
	mode text,
	input text NOT NULL CHECK (length(input) BETWEEN 1 AND 1000000),
	creator text NOT NULL DEFAULT 'api' CHECK (creator IN ('api', 'chat', 'skill', 'arena', 'mcp', 'new_task', 'native')),
	state text NOT NULL DEFAULT 'pending'
		CHECK (state IN ('pending', 'running', 'blocked', 'completed', 'failed', 'cancelled')),
	priority integer NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1000 AND 1000),
	run_at timestamptz,
	attempt integer NOT NULL DEFAULT 1,
	max_attempts integer NOT NULL DEFAULT 2 CHECK (max_attempts BETWEEN 1 AND 100),
	timeout interval CHECK (timeout > interval '0' AND timeout <= interval '24 days'),
	idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 500),
	output_summary text,
	failure_reason text,
	error text,
	input_tokens bigint NOT NULL DEFAULT 0,
	output_tokens bigint NOT NULL DEFAULT 0,
	cost_tokens bigint NOT NULL DEFAULT 0,
	cost_usd numeric NOT NULL DEFAULT 0,
	submitted_by name NOT NULL DEFAULT current_user,
	created_at timestamptz NOT NULL DEFAULT now(),
	started_at timestamptz,
	ended_at timestamptz,
	cancel_requested_at timestamptz,
	fence bigint,
	message_id bigint,
	CONSTRAINT tasks_session_fkey FOREIGN KEY (session_id, project_id) REFERENCES boocoder.sessions (id, project_id),
	CONSTRAINT tasks_chat_fkey FOREIGN KEY (chat_id, session_id) REFERENCES boocoder.chats (id, session_id),
	CONSTRAINT tasks_chat_needs_session CHECK (chat_id IS NULL OR session_id IS NOT NULL)
) WITH (fillfactor = 70);
CREATE INDEX tasks_ready ON boocoder.tasks (priority DESC, id) WHERE state = 'pending' AND run_at IS NULL;
CREATE INDEX tasks_scheduled ON boocoder.tasks (run_at) WHERE state = 'pending' AND run_at IS NOT NULL;
CREATE UNIQUE INDEX tasks_one_per_session ON boocoder.tasks (session_id) WHERE state IN ('running', 'blocked');
CREATE INDEX tasks_cancelling ON boocoder.tasks (id) WHERE cancel_requested_at IS NOT NULL AND state IN ('running', 'blocked');
CREATE INDEX tasks_inbox ON boocoder.tasks (id) WHERE state IN ('failed', 'blocked');
CREATE UNIQUE INDEX tasks_idempotency ON boocoder.tasks (submitted_by, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX tasks_session ON boocoder.tasks (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX tasks_parent ON boocoder.tasks (parent_task_id) WHERE parent_task_id IS NOT NULL;
COMMENT ON TABLE boocoder.tasks IS 'jobs for agents: a plain INSERT enqueues one, its commit wakes the dispatcher';
COMMENT ON COLUMN boocoder.tasks.parent_task_id IS 'who asked for it; kept when that task is deleted';
COMMENT ON COLUMN boocoder.tasks.run_at IS 'not before that time; NULL: at once';
COMMENT ON COLUMN boocoder.tasks.max_attempts IS 'an interrupted attempt is repeated until so many were made; a failure of the agent is not';
COMMENT ON COLUMN boocoder.tasks.timeout IS 'longest time of one attempt; NULL: boocoder.task_timeout';
COMMENT ON COLUMN boocoder.tasks.idempotency_key IS 'a second task of the same submitter with the same key is refused';
COMMENT ON COLUMN boocoder.tasks.cost_tokens IS 'input and output tokens of all attempts';
COMMENT ON COLUMN boocoder.tasks.fence IS 'number of the claim; NULL while not running';
COMMENT ON COLUMN boocoder.tasks.message_id IS 'the agent''s message of the current attempt';

CREATE TABLE boocoder.messages (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	chat_id bigint NOT NULL REFERENCES boocoder.chats ON DELETE CASCADE,
	task_id bigint REFERENCES boocoder.tasks ON DELETE SET NULL,
	role text NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
	status text NOT NULL DEFAULT 'complete' CHECK (status IN ('streaming', 'complete', 'failed', 'cancelled')),
	tokens_used bigint NOT NULL DEFAULT 0,
	created_at timestamptz NOT NULL DEFAULT now(),
	finished_at timestamptz
);
CREATE INDEX ON boocoder.messages (chat_id);
CREATE INDEX ON boocoder.messages (task_id);
COMMENT ON TABLE boocoder.messages IS 'what people and agents said in a chat; the content is in message_parts';

CREATE TABLE boocoder.message_parts (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	message_id bigint NOT NULL REFERENCES boocoder.messages ON DELETE CASCADE,
	task_id bigint,
	seq integer NOT NULL,
	kind text NOT NULL CHECK (kind IN ('text', 'reasoning', 'tool_call', 'tool_result', 'plan', 'diff', 'permission', 'usage', 'error', 'command', 'raw')),
	payload jsonb NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	UNIQUE (message_id, seq)
);
COMMENT ON TABLE boocoder.message_parts IS 'finished pieces of a message: a text, a tool call with its result, a plan';

-- No foreign key: a check for each of thousands of rows a second, and a lock on
-- the task's row, for a log that only the dispatcher writes.
CREATE TABLE boocoder.events (
	seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	task_id bigint NOT NULL,
	chat_id bigint,
	kind text NOT NULL,
	payload jsonb NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX events_task ON boocoder.events (task_id, seq);
COMMENT ON TABLE boocoder.events IS 'everything an agent did, as it happened; append-only';
COMMENT ON COLUMN boocoder.events.seq IS 'order of commit: one dispatcher writes, in order';

CREATE TABLE boocoder.worktrees (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	session_id bigint REFERENCES boocoder.sessions ON DELETE SET NULL,
	project_id bigint NOT NULL REFERENCES boocoder.projects,
	path text NOT NULL,
	branch text NOT NULL,
	base_commit text,
	diff_base text,
	snapshot_tree text,
	git_dir text,
	admin_dir text,
	status text NOT NULL DEFAULT 'creating' CHECK (status IN ('creating', 'active', 'removing', 'removed')),
	setup_done_at timestamptz,
	size_bytes bigint,
	archived_ref text,
	origin text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	deleted_at timestamptz
);
CREATE UNIQUE INDEX worktrees_live ON boocoder.worktrees (session_id) WHERE deleted_at IS NULL;
CREATE INDEX worktrees_removing ON boocoder.worktrees (id) WHERE status = 'removing' AND deleted_at IS NULL;
CREATE INDEX ON boocoder.worktrees (project_id);
COMMENT ON TABLE boocoder.worktrees IS 'the git worktree of each session';
COMMENT ON COLUMN boocoder.worktrees.base_commit IS 'where the worktree began';
COMMENT ON COLUMN boocoder.worktrees.diff_base IS 'what diffs are made against: base_commit and all that was applied since';
COMMENT ON COLUMN boocoder.worktrees.origin IS 'cluster and database that made it: the directory of another one''s is not touched';
COMMENT ON COLUMN boocoder.worktrees.archived_ref IS 'the ref that keeps the content of a removed worktree';

CREATE TABLE boocoder.jobs (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	kind text NOT NULL CHECK (kind IN ('apply', 'remove')),
	project_id bigint NOT NULL REFERENCES boocoder.projects,
	worktree_id bigint REFERENCES boocoder.worktrees,
	state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed')),
	resumed boolean NOT NULL DEFAULT false,
	error text,
	created_at timestamptz NOT NULL DEFAULT now(),
	ended_at timestamptz
);
CREATE INDEX jobs_open ON boocoder.jobs (id) WHERE state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_one_per_project ON boocoder.jobs (project_id) WHERE state = 'running';
COMMENT ON TABLE boocoder.jobs IS 'git work that decisions caused: changes to apply, worktrees to remove';

CREATE TABLE boocoder.pending_changes (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	session_id bigint REFERENCES boocoder.sessions ON DELETE SET NULL,
	task_id bigint REFERENCES boocoder.tasks ON DELETE SET NULL,
	worktree_id bigint REFERENCES boocoder.worktrees ON DELETE SET NULL,
	job_id bigint,
	agent text,
	path text NOT NULL,
	old_path text,
	kind text NOT NULL CHECK (kind IN ('add', 'modify', 'delete', 'rename', 'mode')),
	diff text NOT NULL,
	base_commit text,
	additions integer,
	deletions integer,
	status text NOT NULL DEFAULT 'pending'
		CHECK (status IN ('pending', 'applying', 'applied', 'conflict', 'rejected', 'superseded')),
	created_at timestamptz NOT NULL DEFAULT now(),
	decided_by name,
	decided_at timestamptz,
	error text
);
CREATE INDEX ON boocoder.pending_changes (task_id);
CREATE INDEX ON boocoder.pending_changes (session_id) WHERE status IN ('pending', 'conflict');
CREATE INDEX ON boocoder.pending_changes (worktree_id) WHERE status IN ('pending', 'conflict', 'applying');
CREATE INDEX pending_changes_applying ON boocoder.pending_changes (id) WHERE status = 'applying';
CREATE INDEX ON boocoder.pending_changes (job_id) WHERE job_id IS NOT NULL;
COMMENT ON TABLE boocoder.pending_changes IS 'what agents changed, a row a file, waiting for a decision; decided rows stay as history';
COMMENT ON COLUMN boocoder.pending_changes.agent IS 'who made the change; NULL: a person';
COMMENT ON COLUMN boocoder.pending_changes.base_commit IS 'the commit the diff applies to';

CREATE TABLE boocoder.usage_events (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	task_id bigint REFERENCES boocoder.tasks ON DELETE SET NULL,
	chat_id bigint,
	project_id bigint REFERENCES boocoder.projects,
	agent text NOT NULL,
	model text,
	agent_session_id text,
	input_tokens bigint NOT NULL DEFAULT 0,
	output_tokens bigint NOT NULL DEFAULT 0,
	cached_tokens bigint NOT NULL DEFAULT 0,
	reasoning_tokens bigint NOT NULL DEFAULT 0,
	cost_usd numeric NOT NULL DEFAULT 0,
	created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON boocoder.usage_events (task_id);
CREATE INDEX ON boocoder.usage_events (agent, agent_session_id) WHERE agent_session_id IS NOT NULL;
CREATE INDEX ON boocoder.usage_events (created_at);
COMMENT ON TABLE boocoder.usage_events IS 'ledger: one row a charge, never changed';
COMMENT ON COLUMN boocoder.usage_events.agent_session_id IS 'the agent''s own session, within which its cost reports are cumulative';

CREATE TABLE boocoder.home (
	system_identifier text NOT NULL,
	database oid NOT NULL
);
COMMENT ON TABLE boocoder.home IS 'the database these rows were made in: a copy of it must not do the original''s work';
-- SPDX-License-Identifier: PostgreSQL
-- Functions in C.  See src/extension/.

CREATE FUNCTION boocoder._wake() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'bc_sql_wake';
COMMENT ON FUNCTION boocoder._wake() IS 'trigger: wakes the dispatcher when the transaction commits';

CREATE FUNCTION boocoder._wake_now() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bc_sql_wake_now';
COMMENT ON FUNCTION boocoder._wake_now() IS 'wakes the dispatcher when the transaction commits';

CREATE FUNCTION boocoder._preloaded() RETURNS boolean
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bc_sql_preloaded';
COMMENT ON FUNCTION boocoder._preloaded() IS 'is the library in shared_preload_libraries?';

CREATE FUNCTION boocoder._host() RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bc_sql_host';
COMMENT ON FUNCTION boocoder._host() IS 'facts about the server and the settings, for the orders of runners';

CREATE FUNCTION boocoder._inspect(path text) RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bc_sql_inspect';
COMMENT ON FUNCTION boocoder._inspect(text) IS 'what is at a path, as the server''s operating system user sees it';

CREATE FUNCTION boocoder._check_host() RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bc_sql_check_host';
COMMENT ON FUNCTION boocoder._check_host() IS 'tries out the sandbox and the worktree root';

CREATE FUNCTION boocoder._change_generation() RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bc_sql_change_generation';
COMMENT ON FUNCTION boocoder._change_generation() IS 'a number that grows whenever the dispatcher commits';

CREATE FUNCTION boocoder._wait_change(generation bigint, timeout_ms integer) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bc_sql_wait_change';
COMMENT ON FUNCTION boocoder._wait_change(bigint, integer) IS 'waits until _change_generation() is another one, or the time is over';

CREATE FUNCTION boocoder._worker_status(
	OUT dispatcher_pid integer, OUT started_at timestamptz, OUT running integer, OUT jobs integer,
	OUT spare_runners integer, OUT last_seq bigint, OUT last_error text) RETURNS record
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bc_sql_worker_status';
COMMENT ON FUNCTION boocoder._worker_status() IS 'what the dispatcher of this database tells of itself';

DO $$
BEGIN
	IF NOT boocoder._preloaded() THEN
		RAISE WARNING 'boocoder is not in shared_preload_libraries: tasks will wait, nothing will run them'
			USING HINT = 'Set shared_preload_libraries = ''boocoder'' (beside what is there) and restart the server.';
	END IF;
END
$$;
-- SPDX-License-Identifier: PostgreSQL
-- State machines of rows: which moves are legal, and who may make them.

CREATE TABLE boocoder.task_transitions (
	from_state text NOT NULL,
	to_state text NOT NULL,
	worker_only boolean NOT NULL,
	PRIMARY KEY (from_state, to_state)
);
COMMENT ON TABLE boocoder.task_transitions IS 'the legal moves of a task between states';
INSERT INTO boocoder.task_transitions VALUES
	('pending', 'running', true),
	('pending', 'failed', true),
	('pending', 'cancelled', false),
	('running', 'completed', true),
	('running', 'failed', true),
	('running', 'cancelled', true),
	('running', 'blocked', true),
	('running', 'pending', true),
	('blocked', 'running', true),
	('blocked', 'failed', true),
	('blocked', 'cancelled', true),
	('blocked', 'pending', false),
	('failed', 'pending', false),
	('cancelled', 'pending', false);

CREATE FUNCTION boocoder._guard_task() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	move boocoder.task_transitions;
BEGIN
	IF NEW.state IS DISTINCT FROM OLD.state THEN
		SELECT * INTO move FROM boocoder.task_transitions m
		 WHERE m.from_state = OLD.state AND m.to_state = NEW.state;
		IF NOT FOUND THEN
			RAISE EXCEPTION 'task % is %, it cannot become %', OLD.id, OLD.state, NEW.state
				USING ERRCODE = 'BC001',
					  HINT = 'boocoder.task_transitions lists the moves there are.';
		ELSIF move.worker_only AND NOT pg_has_role('boocoder_worker', 'MEMBER') THEN
			RAISE EXCEPTION 'only the dispatcher makes a task that is % become %', OLD.state, NEW.state
				USING ERRCODE = 'BC001',
					  HINT = 'Use boocoder.cancel(), boocoder.retry() or boocoder.inbox_retry().';
		END IF;
		IF NEW.state = 'pending' THEN
			-- another attempt: what belonged to the last one is history
			NEW.attempt := OLD.attempt + 1;
			NEW.cancel_requested_at := NULL;
			NEW.started_at := NULL;
			NEW.ended_at := NULL;
			NEW.failure_reason := NULL;
			NEW.error := NULL;
			NEW.fence := NULL;
			NEW.run_at := NULL;
		ELSIF NEW.state IN ('completed', 'failed', 'cancelled') THEN
			NEW.ended_at := coalesce(NEW.ended_at, now());
			NEW.fence := NULL;
		END IF;
	END IF;
	IF NEW.state = 'pending' OR NEW.cancel_requested_at IS NOT NULL THEN
		PERFORM boocoder._wake_now();
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._guard_task() IS 'trigger: refuses illegal moves of a task (SQLSTATE BC001)';

CREATE TRIGGER guard BEFORE UPDATE ON boocoder.tasks FOR EACH ROW
	WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.cancel_requested_at IS DISTINCT FROM NEW.cancel_requested_at)
	EXECUTE FUNCTION boocoder._guard_task();
COMMENT ON TRIGGER guard ON boocoder.tasks IS 'refuses illegal moves';

CREATE TRIGGER wake AFTER INSERT ON boocoder.tasks FOR EACH STATEMENT EXECUTE FUNCTION boocoder._wake();
COMMENT ON TRIGGER wake ON boocoder.tasks IS 'wakes the dispatcher when the transaction commits';

CREATE FUNCTION boocoder._forget_events() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.events e USING gone WHERE e.task_id = gone.id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION boocoder._forget_events() IS 'trigger: events go with their task';
CREATE TRIGGER forget_events AFTER DELETE ON boocoder.tasks REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION boocoder._forget_events();
COMMENT ON TRIGGER forget_events ON boocoder.tasks IS 'events go with their task';

CREATE FUNCTION boocoder._refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RAISE EXCEPTION 'rows of boocoder.% are never changed', TG_TABLE_NAME USING ERRCODE = 'BC001';
END
$$;
COMMENT ON FUNCTION boocoder._refuse_change() IS 'trigger: keeps a log append-only (SQLSTATE BC001)';
CREATE TRIGGER append_only BEFORE UPDATE ON boocoder.events FOR EACH ROW EXECUTE FUNCTION boocoder._refuse_change();
COMMENT ON TRIGGER append_only ON boocoder.events IS 'events are never changed';

CREATE FUNCTION boocoder._guard_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF (OLD.status, NEW.status) IN (('pending', 'applying'), ('pending', 'rejected'),
									('conflict', 'applying'), ('conflict', 'rejected')) THEN
		NEW.decided_by := current_user;
		NEW.decided_at := now();
		NEW.job_id := NULL;
		NEW.error := NULL;
		PERFORM boocoder._wake_now();
	ELSIF (OLD.status, NEW.status) IN (('pending', 'superseded'), ('conflict', 'superseded'),
			('applying', 'applied'), ('applying', 'conflict'), ('applying', 'pending'))
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
COMMENT ON FUNCTION boocoder._guard_change() IS 'trigger: refuses illegal moves of a change (SQLSTATE BC001)';
CREATE TRIGGER guard BEFORE UPDATE ON boocoder.pending_changes FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION boocoder._guard_change();
COMMENT ON TRIGGER guard ON boocoder.pending_changes IS 'refuses illegal moves';

CREATE FUNCTION boocoder._guard_worktree() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF pg_has_role('boocoder_worker', 'MEMBER') AND NEW.status <> 'removing' THEN
		RETURN NEW;
	END IF;
	IF NEW.status <> 'removing' OR OLD.status NOT IN ('active', 'creating') THEN
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
	PERFORM boocoder._wake_now();
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._guard_worktree() IS 'trigger: keeps a worktree while it is needed (SQLSTATE BC001, BC004)';
CREATE TRIGGER guard BEFORE UPDATE ON boocoder.worktrees FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION boocoder._guard_worktree();
COMMENT ON TRIGGER guard ON boocoder.worktrees IS 'keeps a worktree while it is needed';

-- A built-in provider that an administrator changed is data of that database: a dump holds it, and its
-- row replaces the one that CREATE EXTENSION makes in the restored database.
CREATE FUNCTION boocoder._own_provider() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'UPDATE' THEN
		NEW.builtin := false;
	ELSIF NOT NEW.builtin THEN
		DELETE FROM boocoder.providers p WHERE p.name = NEW.name AND p.builtin;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._own_provider() IS 'trigger: a built-in provider that is changed is built in no longer';
CREATE TRIGGER own BEFORE INSERT OR UPDATE ON boocoder.providers FOR EACH ROW EXECUTE FUNCTION boocoder._own_provider();
COMMENT ON TRIGGER own ON boocoder.providers IS 'a built-in provider that is changed is built in no longer';
-- SPDX-License-Identifier: PostgreSQL
-- Orders: what a runner is told.  doc/protocol.md describes their fields.

CREATE FUNCTION boocoder._root(worktree_path text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT regexp_replace(worktree_path, '/worktrees/[^/]+$', '')
$$;
COMMENT ON FUNCTION boocoder._root(text) IS 'the root below which a worktree lies, also when boocoder.worktree_root was changed since';

-- The rows are given, not looked up: the claim has them, and every microsecond of it is latency.
CREATE FUNCTION boocoder._orders(t boocoder.tasks, p boocoder.projects, w boocoder.worktrees, provider boocoder.providers,
	host jsonb, OUT worktree jsonb, OUT agent jsonb, OUT diff jsonb) RETURNS record
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
		'root', root, 'forbidden', host -> 'forbidden');
	agent := jsonb_build_object(
		'role', 'agent', 'task_id', t.id, 'transport', provider.transport,
		'command', to_jsonb(provider.command), 'env', provider.env, 'cwd', w.path,
		'input', t.input, 'model', t.model, 'mode', t.mode,
		'git_dir', w.git_dir, 'admin_dir', w.admin_dir,
		'setup', CASE WHEN w.setup_done_at IS NULL THEN to_jsonb(p.setup) ELSE '[]' END,
		'setup_timeout_ms', host -> 'setup_timeout_ms',
		'permission_policy', provider.permission_policy,
		'sandbox', (host -> 'sandbox') || jsonb_build_object('home',
			root || '/homes/s' || t.session_id),
		'limits', (host -> 'limits') || CASE WHEN t.timeout IS NULL THEN '{}' ELSE
			jsonb_build_object('timeout_ms', ceil(extract(epoch FROM t.timeout) * 1000)::bigint) END);
	diff := jsonb_build_object(
		'role', 'diff', 'project', repository,
		'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'admin_dir', w.admin_dir,
			'diff_base', coalesce(w.diff_base, w.base_commit)),
		'max_bytes', host -> 'max_diff_bytes');
END
$$;
COMMENT ON FUNCTION boocoder._orders(boocoder.tasks, boocoder.projects, boocoder.worktrees, boocoder.providers, jsonb) IS 'the three orders of a claimed task';
-- SPDX-License-Identifier: PostgreSQL
-- Claiming: from a pending task to the orders for its runners.  For the dispatcher only.

CREATE FUNCTION boocoder._fail(task_id bigint, reason text, message text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	UPDATE boocoder.tasks SET state = 'failed', failure_reason = reason, error = message WHERE id = task_id
$$;
COMMENT ON FUNCTION boocoder._fail(bigint, text, text) IS 'a task ends without having run';

CREATE FUNCTION boocoder._below(path text, root text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT path = rtrim(root, '/') OR starts_with(path, rtrim(root, '/') || '/')
$$;
COMMENT ON FUNCTION boocoder._below(text, text) IS 'is a path the directory root or below it?';

-- Why a task can't be run, as {reason, message}; NULL when it can.
CREATE FUNCTION boocoder._obstacle(submitter name, project boocoder.projects, agent text, provider boocoder.providers, host jsonb)
RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF project.archived_at IS NOT NULL THEN
		RETURN ARRAY['project_archived', format('project "%s" is archived', project.name)];
	ELSIF NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = submitter) THEN
		RETURN ARRAY['submitter_missing', format('role "%s" does not exist any more', submitter)];
	ELSIF jsonb_array_length(host -> 'allowed_roots') > 0 AND NOT EXISTS (
			SELECT 1 FROM jsonb_array_elements_text(host -> 'allowed_roots') r
			 WHERE boocoder._below(project.path, r)) THEN
		RETURN ARRAY['path_not_allowed',
			format('"%s" is outside of boocoder.allowed_roots', project.path)];
	ELSIF provider.name IS NULL THEN
		RETURN ARRAY['unknown_agent', format('there is no provider "%s"', agent)];
	ELSIF NOT provider.enabled THEN
		RETURN ARRAY['agent_disabled', format('provider "%s" is disabled', agent)];
	ELSIF provider.transport NOT IN ('acp', 'command') THEN
		RETURN ARRAY['transport_unsupported',
			format('this version does not run the transport "%s" of provider "%s"', provider.transport, agent)];
	ELSIF cardinality(provider.command) = 0 THEN
		RETURN ARRAY['program_not_found', format('provider "%s" names no program', agent)];
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION boocoder._obstacle(name, boocoder.projects, text, boocoder.providers, jsonb) IS
	'why a task cannot be run, as {reason, message}';

-- Gives the task what it lacks (session, chat, messages, worktree) and marks it running.
-- fence is NULL when it was failed instead, or has to wait.
CREATE FUNCTION boocoder._claim(t boocoder.tasks, host jsonb,
	OUT fence bigint, OUT prepare jsonb, OUT agent jsonb, OUT diff jsonb) RETURNS record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	project boocoder.projects;
	provider boocoder.providers;
	worktree boocoder.worktrees;
	agent_name text;
	obstacle text[];
	the_message bigint;
	orders record;
BEGIN
	SELECT * INTO STRICT project FROM boocoder.projects p WHERE p.id = t.project_id;
	agent_name := coalesce(nullif(t.agent, ''), nullif(project.default_agent, ''), nullif(host ->> 'default_agent', ''), 'boocode');
	SELECT * INTO provider FROM boocoder.providers p WHERE p.name = agent_name;
	obstacle := boocoder._obstacle(t.submitted_by, project, agent_name, provider, host);
	IF obstacle IS NOT NULL THEN
		PERFORM boocoder._fail(t.id, obstacle[1], obstacle[2]);
		RETURN;
	END IF;

	IF EXISTS (SELECT 1 FROM boocoder.sessions x WHERE x.id = t.session_id AND x.closed_at IS NOT NULL) THEN
		PERFORM boocoder._fail(t.id, 'session_closed', format('session %s is closed', t.session_id));
		RETURN;
	END IF;
	IF t.session_id IS NULL THEN
		INSERT INTO boocoder.sessions (project_id, title, owner)
		VALUES (t.project_id, left(t.input, 80), t.submitted_by) RETURNING id INTO t.session_id;
	ELSE
		SELECT * INTO worktree FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL;
		IF worktree.status = 'removing' THEN
			RETURN;
		ELSIF worktree.origin <> host ->> 'origin' THEN
			-- from a dump: the directory belongs to another database
			UPDATE boocoder.worktrees w SET status = 'removed', deleted_at = now() WHERE w.id = worktree.id;
			worktree := NULL;
		END IF;
	END IF;
	IF t.chat_id IS NULL THEN
		INSERT INTO boocoder.chats (session_id, title) VALUES (t.session_id, left(t.input, 80))
		RETURNING id INTO t.chat_id;
	END IF;
	IF worktree.id IS NULL THEN
		INSERT INTO boocoder.worktrees (session_id, project_id, path, branch, origin)
		VALUES (t.session_id, t.project_id, (host ->> 'worktree_root') || '/worktrees/s' || t.session_id,
				'boocoder/' || t.session_id, host ->> 'origin')
		RETURNING * INTO worktree;
	END IF;
	-- A retry asks the same question; it is in the chat already.
	IF t.attempt = 1 OR NOT EXISTS (SELECT 1 FROM boocoder.messages m WHERE m.task_id = t.id AND m.role = 'user') THEN
		INSERT INTO boocoder.messages (chat_id, task_id, role) VALUES (t.chat_id, t.id, 'user')
		RETURNING id INTO the_message;
		INSERT INTO boocoder.message_parts (message_id, task_id, seq, kind, payload)
		VALUES (the_message, t.id, 1, 'text', jsonb_build_object('text', t.input));
	END IF;
	INSERT INTO boocoder.messages (chat_id, task_id, role, status) VALUES (t.chat_id, t.id, 'assistant', 'streaming')
	RETURNING id INTO the_message;

	fence := nextval('boocoder.fence_seq');
	UPDATE boocoder.tasks x
	   SET state = 'running', agent = agent_name, session_id = t.session_id, chat_id = t.chat_id,
		   model = coalesce(t.model, project.default_model, provider.default_model, nullif(host ->> 'default_model', '')),
		   message_id = the_message, fence = _claim.fence, started_at = clock_timestamp(), ended_at = NULL
	 WHERE x.id = t.id RETURNING x.* INTO t;

	orders := boocoder._orders(t, project, worktree, provider, host);
	diff := orders.diff;
	IF worktree.status = 'active' THEN
		agent := orders.agent;
	ELSE
		prepare := orders.worktree;
	END IF;
END
$$;
COMMENT ON FUNCTION boocoder._claim(boocoder.tasks, jsonb) IS 'makes one pending task running, or failed when it cannot run';

-- False while a client holds a lock on the session or the chat, or the session's worktree is being removed.
CREATE FUNCTION boocoder._session_free(session bigint, chat bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM boocoder.worktrees w
				WHERE w.session_id = session AND w.deleted_at IS NULL AND w.status = 'removing') THEN
		RETURN false;
	END IF;
	PERFORM 1 FROM boocoder.sessions s WHERE s.id = session FOR KEY SHARE SKIP LOCKED;
	IF FOUND AND chat IS NOT NULL THEN
		PERFORM 1 FROM boocoder.chats c WHERE c.id = chat FOR KEY SHARE SKIP LOCKED;
	END IF;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION boocoder._session_free(bigint, bigint) IS 'can a task of the session be claimed without waiting?';

-- The pending task that is next: by priority, then age, one of a session at a time.
-- The arrays name tasks, sessions and projects that are to wait in this pass.
CREATE FUNCTION boocoder._candidate(skipped bigint[], skipped_sessions bigint[], skipped_projects bigint[])
RETURNS boocoder.tasks
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
-- The plan must walk the index from its start whatever the statistics say about a queue that is empty now and full later.
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
-- Such plans look so costly that they would be compiled, which takes 100 ms.
SET jit = off AS $$
DECLARE
	ready boocoder.tasks;
	due boocoder.tasks;
BEGIN
	SELECT * INTO ready FROM boocoder.tasks t
	 WHERE t.state = 'pending' AND t.run_at IS NULL AND t.id <> ALL (skipped)
	   AND t.project_id <> ALL (skipped_projects)
	   AND (t.session_id IS NULL OR t.session_id <> ALL (skipped_sessions))
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks r
						WHERE r.session_id = t.session_id AND r.state IN ('running', 'blocked'))
	 ORDER BY t.priority DESC, t.id LIMIT 1 FOR NO KEY UPDATE OF t SKIP LOCKED;
	SELECT * INTO due FROM boocoder.tasks t
	 WHERE t.state = 'pending' AND t.run_at <= now() AND t.id <> ALL (skipped)
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
COMMENT ON FUNCTION boocoder._candidate(bigint[], bigint[], bigint[]) IS 'the pending task that is to run next, its row locked';
-- SPDX-License-Identifier: PostgreSQL
-- Git jobs that decisions cause.  For the dispatcher only.

CREATE FUNCTION boocoder._make_jobs() RETURNS void
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
	SELECT 'remove', w.project_id, w.id FROM boocoder.worktrees w
	 WHERE w.status = 'removing' AND w.deleted_at IS NULL
	   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j
						WHERE j.worktree_id = w.id AND j.kind = 'remove' AND j.state IN ('queued', 'running'))
	   -- claimed before the removal was committed: the agent ends first
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks t
						WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked'))
	   FOR KEY SHARE OF w SKIP LOCKED;
END
$$;
COMMENT ON FUNCTION boocoder._make_jobs() IS 'turns decisions that nobody acted on yet into jobs';

CREATE FUNCTION boocoder._job_order(j boocoder.jobs, host jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT jsonb_build_object(
			'role', j.kind, 'resume', j.resumed, 'root', boocoder._root(w.path), 'delete_branch', true,
			'home', boocoder._root(w.path) || '/homes/s' || w.session_id,
			'base_commit', (SELECT min(c.base_commit) FROM boocoder.pending_changes c WHERE c.job_id = j.id),
			'project', jsonb_build_object('id', p.id, 'path', p.path),
			'worktree', jsonb_build_object('id', w.id, 'path', w.path, 'branch', w.branch,
				'admin_dir', w.admin_dir, 'diff_base', coalesce(w.diff_base, w.base_commit)),
			'changes', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'path', c.path,
							'old_path', c.old_path, 'kind', c.kind, 'diff', c.diff) ORDER BY c.id), '[]')
						  FROM boocoder.pending_changes c WHERE c.job_id = j.id AND c.status = 'applying'))
	  FROM boocoder.projects p, boocoder.worktrees w
	 WHERE p.id = j.project_id AND w.id = j.worktree_id
$$;
COMMENT ON FUNCTION boocoder._job_order(boocoder.jobs, jsonb) IS 'the order of a job';

CREATE FUNCTION boocoder._job_done(job_id bigint, result jsonb) RETURNS text
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
	IF j.kind = 'apply' AND ok THEN
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
		   SET status = 'removed', deleted_at = now(), archived_ref = result ->> 'archived'
		 WHERE w.id = j.worktree_id;
	ELSE
		UPDATE boocoder.worktrees w SET status = 'active' WHERE w.id = j.worktree_id;
	END IF;
	UPDATE boocoder.jobs x
	   SET state = CASE WHEN ok THEN 'done' ELSE 'failed' END, error = CASE WHEN NOT ok THEN note END, ended_at = now()
	 WHERE x.id = j.id;
	RETURN CASE WHEN ok THEN 'done' ELSE 'failed' END;
END
$$;
COMMENT ON FUNCTION boocoder._job_done(bigint, jsonb) IS
	'records the result of a job: done, failed or stale; NULL when a lock keeps it from that';
-- SPDX-License-Identifier: PostgreSQL
-- What the dispatcher calls.  None of it waits for a lock.

-- CREATE DATABASE ... TEMPLATE copies the queue too.  Another database of the same cluster
-- is such a copy; another cluster is pg_upgrade, or a standby that was promoted: the same work goes on.
CREATE FUNCTION boocoder._leave_the_original() RETURNS void
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
		UPDATE boocoder.worktrees w SET status = 'removed', deleted_at = now() WHERE w.deleted_at IS NULL;
	ELSIF home.database IS NOT NULL THEN
		UPDATE boocoder.worktrees w SET origin = boocoder._host() ->> 'origin'
		 WHERE w.origin = home.system_identifier || '-' || home.database;
	END IF;
	DELETE FROM boocoder.home;
	INSERT INTO boocoder.home VALUES (here.system_identifier, here.database);
END
$$;
COMMENT ON FUNCTION boocoder._leave_the_original() IS 'in a copy of a database, gives up what the original is at work on';

-- A claim with a number below boocoder_dispatcher.first_fence belongs to a dispatcher that is gone.  The number
-- is kept in the session of the dispatcher, as it dies with it.
CREATE FUNCTION boocoder._reconcile() RETURNS bigint
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
		UPDATE boocoder.tasks x
		   SET state = CASE WHEN t.cancel_requested_at IS NOT NULL THEN 'cancelled'
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
COMMENT ON FUNCTION boocoder._reconcile() IS
	'repeats, fails or cancels what a dispatcher that is gone had running; rows that are locked wait for the next call';

CREATE FUNCTION boocoder._start(pid integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	touched bigint;
	more bigint;
BEGIN
	PERFORM boocoder._leave_the_original();
	-- One dispatcher serves a database, so whatever runs now belongs to one that is gone.
	PERFORM set_config('boocoder_dispatcher.first_fence', nextval('boocoder.fence_seq')::text, false);
	touched := boocoder._reconcile();
	UPDATE boocoder.jobs j SET state = 'queued', resumed = true WHERE j.state = 'running';
	GET DIAGNOSTICS more = ROW_COUNT;
	RETURN touched + more;
END
$$;
COMMENT ON FUNCTION boocoder._start(integer) IS
	'begins the work of a dispatcher: interrupted tasks are repeated or failed, jobs resumed';

CREATE FUNCTION boocoder._next_actions(free_slots integer, free_jobs integer)
RETURNS TABLE (kind text, task_id bigint, fence bigint, job_id bigint,
			   prepare jsonb, agent jsonb, diff jsonb, delay_ms bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	host jsonb;
	skipped bigint[] := '{}';
	skipped_sessions bigint[] := '{}';
	skipped_projects bigint[] := '{}';
	looks integer := 0;
	t boocoder.tasks;
	j boocoder.jobs;
	next_due timestamptz;
BEGIN
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

	-- Tasks that can't run cost no slot: their number is limited, so that no transaction gets old.
	WHILE free_slots > 0 AND looks < 100 LOOP
		looks := looks + 1;
		t := boocoder._candidate(skipped, skipped_sessions, skipped_projects);
		EXIT WHEN t.id IS NULL;
		skipped := skipped || t.id;
		-- The rows that the claim refers to: whoever holds a lock on one delays its tasks, not the others.
		PERFORM 1 FROM boocoder.projects p WHERE p.id = t.project_id FOR KEY SHARE SKIP LOCKED;
		IF NOT FOUND THEN
			skipped_projects := skipped_projects || t.project_id;
			CONTINUE;
		END IF;
		IF t.session_id IS NOT NULL AND NOT boocoder._session_free(t.session_id, t.chat_id) THEN
			skipped_sessions := skipped_sessions || t.session_id;
			CONTINUE;
		END IF;
		host := coalesce(host, boocoder._host());
		-- What is wrong with one task is that task's failure.
		BEGIN
			SELECT c.fence, c.prepare, c.agent, c.diff INTO fence, prepare, agent, diff
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
			kind := 'task';
			task_id := t.id;
			free_slots := free_slots - 1;
			RETURN NEXT;
		END IF;
	END LOOP;

	kind := 'job';
	task_id := NULL;
	fence := NULL;
	agent := NULL;
	diff := NULL;
	prepare := NULL;
	IF free_jobs > 0 AND (EXISTS (SELECT 1 FROM boocoder.pending_changes c WHERE c.status = 'applying' AND c.job_id IS NULL)
			OR EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.status = 'removing' AND w.deleted_at IS NULL)) THEN
		BEGIN
			PERFORM boocoder._make_jobs();
		EXCEPTION WHEN lock_not_available OR deadlock_detected OR query_canceled THEN
			NULL;				-- later; the tasks claimed above are not to suffer from it
		END;
	END IF;
	FOR j IN
		SELECT DISTINCT ON (q.project_id) q.* FROM boocoder.jobs q
		 WHERE q.state = 'queued' AND free_jobs > 0
		   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs r WHERE r.project_id = q.project_id AND r.state = 'running')
		 ORDER BY q.project_id, q.id LIMIT free_jobs
	LOOP
		UPDATE boocoder.jobs q SET state = 'running' WHERE q.id = j.id;
		job_id := j.id;
		prepare := boocoder._job_order(j, coalesce(host, boocoder._host()));
		RETURN NEXT;
	END LOOP;

	IF looks = 100 AND free_slots > 0 THEN
		next_due := now();
	ELSE
		SELECT min(x.run_at) INTO next_due FROM boocoder.tasks x
		 WHERE x.state = 'pending' AND x.run_at IS NOT NULL AND x.run_at > now();
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
COMMENT ON FUNCTION boocoder._next_actions(integer, integer) IS
	'what the dispatcher is to do: cancel, task, job, due';

CREATE FUNCTION boocoder._prepared(task_id bigint, fence bigint, result jsonb)
RETURNS TABLE (agent jsonb, diff jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
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
	RETURN QUERY
	SELECT o.agent, o.diff
	  FROM boocoder.projects p, boocoder.worktrees w, boocoder.providers v,
		   boocoder._orders(t, p, w, v, boocoder._host()) o
	 WHERE p.id = t.project_id AND w.session_id = t.session_id AND w.deleted_at IS NULL AND v.name = t.agent;
END
$$;
COMMENT ON FUNCTION boocoder._prepared(bigint, bigint, jsonb) IS
	'records a worktree that is there; the orders for agent and diff, no row when there is nothing to run';

CREATE FUNCTION boocoder._append(task_ids bigint[], fences bigint[], payloads jsonb[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	last_seq bigint;
	tasks bigint[];
BEGIN
	-- for the transaction: a SET clause would end with the function, before the commit
	PERFORM set_config('synchronous_commit', 'off', true);
	WITH batch AS MATERIALIZED (
		SELECT b.n, t.id, t.chat_id, t.message_id, b.payload
		  FROM unnest(task_ids, fences, payloads) WITH ORDINALITY AS b (task_id, fence, payload, n)
		  JOIN boocoder.tasks t ON t.id = b.task_id AND t.fence = b.fence
	), new_events AS (
		INSERT INTO boocoder.events (task_id, chat_id, kind, payload)
		SELECT b.id, b.chat_id, e ->> 'kind', e -> 'payload'
		  FROM batch b, jsonb_array_elements(coalesce(b.payload -> 'events', '[]')) WITH ORDINALITY AS x (e, k)
		 ORDER BY b.n, x.k
		RETURNING seq, task_id
	), new_parts AS (
		INSERT INTO boocoder.message_parts (message_id, task_id, seq, kind, payload)
		SELECT b.message_id, b.id, (p ->> 'seq')::integer, p ->> 'kind', p -> 'payload'
		  FROM batch b, jsonb_array_elements(coalesce(b.payload -> 'parts', '[]')) WITH ORDINALITY AS x (p, k)
		 ORDER BY b.n, x.k
	)
	SELECT max(seq), array_agg(DISTINCT task_id) INTO last_seq, tasks FROM new_events;

	-- A listener that does not read must not make our commits fail: the queue has an end.
	IF last_seq IS NOT NULL AND pg_notification_queue_usage() < 0.5 THEN
		PERFORM pg_notify('boocoder_events', jsonb_build_object('seq', last_seq, 'tasks', tasks[1:200],
			'more', cardinality(tasks) > 200)::text);
	END IF;
	RETURN last_seq;
END
$$;
COMMENT ON FUNCTION boocoder._append(bigint[], bigint[], jsonb[]) IS
	'stores events and parts; those of an attempt that is over are left out; the last event''s number';

-- The ledger gets what is new: an agent's cost report counts from the start of its session.
CREATE FUNCTION boocoder._charge(task_id bigint, usage jsonb, agent_session text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks;
	charged numeric := 0;
	cost numeric;
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
	IF agent_session IS NOT NULL THEN
		SELECT coalesce(sum(x.cost_usd), 0) INTO charged FROM boocoder.usage_events x
		 WHERE x.agent = t.agent AND x.agent_session_id = agent_session;
	END IF;
	cost := greatest(0, coalesce((usage ->> 'cost_total_usd')::numeric - charged, (usage ->> 'cost_usd')::numeric, 0));
	u.input_tokens := greatest(0, coalesce((usage ->> 'input_tokens')::numeric, 0));
	u.output_tokens := greatest(0, coalesce((usage ->> 'output_tokens')::numeric, 0));
	u.cached_tokens := greatest(0, coalesce((usage ->> 'cached_tokens')::numeric, 0));
	u.reasoning_tokens := greatest(0, coalesce((usage ->> 'reasoning_tokens')::numeric, 0));
	IF cost = 0 AND u.input_tokens + u.output_tokens + u.cached_tokens + u.reasoning_tokens = 0 THEN
		RETURN;
	END IF;
	INSERT INTO boocoder.usage_events (task_id, chat_id, project_id, agent, model, agent_session_id,
		input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_usd)
	VALUES (t.id, t.chat_id, t.project_id, t.agent, coalesce(usage ->> 'model', t.model), agent_session,
		u.input_tokens, u.output_tokens, u.cached_tokens, u.reasoning_tokens, cost);
	UPDATE boocoder.tasks x
	   SET input_tokens = s.input, output_tokens = s.output, cost_tokens = s.input + s.output, cost_usd = s.cost
	  FROM (SELECT sum(e.input_tokens) AS input, sum(e.output_tokens) AS output, sum(e.cost_usd) AS cost
			  FROM boocoder.usage_events e WHERE e.task_id = t.id) s
	 WHERE x.id = t.id;
	UPDATE boocoder.messages m SET tokens_used = u.input_tokens + u.output_tokens WHERE m.id = t.message_id;
END
$$;
COMMENT ON FUNCTION boocoder._charge(bigint, jsonb, text) IS
	'one ledger row for what an attempt used; cumulative cost becomes the difference to what was charged';

CREATE FUNCTION boocoder._store_changes(t boocoder.tasks, diff jsonb) RETURNS void
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
	 ORDER BY n;
	UPDATE boocoder.worktrees x SET snapshot_tree = diff ->> 'tree' WHERE x.id = w.id;
END
$$;
COMMENT ON FUNCTION boocoder._store_changes(boocoder.tasks, jsonb) IS 'the changes of a turn replace the undecided ones of its session';

CREATE FUNCTION boocoder._settle(task_id bigint, fence bigint, result jsonb, diff jsonb) RETURNS text
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
	UPDATE boocoder.tasks x
	   SET state = outcome, failure_reason = reason,
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
COMMENT ON FUNCTION boocoder._settle(bigint, bigint, jsonb, jsonb) IS
	'ends an attempt: state, changes, usage, message in one transaction; NULL when a lock keeps it from that';
-- SPDX-License-Identifier: PostgreSQL
-- Projects and providers: for administrators.

CREATE FUNCTION boocoder.add_project(name text, path text, base_branch text DEFAULT NULL,
	default_agent text DEFAULT NULL, default_model text DEFAULT NULL, setup text[] DEFAULT '{}',
	owner name DEFAULT NULL, shared boolean DEFAULT false, allowed_read_paths text[] DEFAULT '{}') RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	facts jsonb := boocoder._inspect(path);
	roots jsonb := boocoder._host() -> 'allowed_roots';
	result bigint;
BEGIN
	IF NOT (facts ->> 'ok')::boolean THEN
		RAISE EXCEPTION 'cannot use "%" as a project: %', path, facts ->> 'message'
			USING ERRCODE = 'BC003', DETAIL = coalesce(facts ->> 'detail', facts ->> 'reason'),
				  HINT = coalesce(facts ->> 'hint', 'It must be a git repository of the server''s operating system user, with a commit.');
	ELSIF jsonb_array_length(roots) > 0 AND NOT EXISTS (
			SELECT 1 FROM jsonb_array_elements_text(roots) r WHERE boocoder._below(facts ->> 'path', r)) THEN
		RAISE EXCEPTION '"%" is outside of boocoder.allowed_roots', facts ->> 'path'
			USING ERRCODE = 'BC003', HINT = 'Add its parent directory to boocoder.allowed_roots.';
	ELSIF add_project.owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = add_project.owner) THEN
		RAISE EXCEPTION 'role "%" does not exist', add_project.owner USING ERRCODE = 'undefined_object';
	END IF;
	INSERT INTO boocoder.projects (name, path, base_branch, default_agent, default_model, setup, owner, shared, allowed_read_paths)
	VALUES (add_project.name, facts ->> 'path', add_project.base_branch, add_project.default_agent, add_project.default_model,
		coalesce(add_project.setup, '{}'), coalesce(add_project.owner, current_user), coalesce(add_project.shared, false),
		coalesce(add_project.allowed_read_paths, '{}'))
	RETURNING id INTO result;
	RETURN result;
END
$$;
COMMENT ON FUNCTION boocoder.add_project(text, text, text, text, text, text[], name, boolean, text[]) IS
	'registers a git repository (SQLSTATE BC003 when it cannot be used); its id';

CREATE FUNCTION boocoder._project_id(project text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	result bigint;
BEGIN
	SELECT p.id INTO result FROM boocoder.projects p WHERE p.name = project;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no project "%"', project
			USING ERRCODE = 'BC002', HINT = 'An administrator registers one with boocoder.add_project().';
	END IF;
	RETURN result;
END
$$;
COMMENT ON FUNCTION boocoder._project_id(text) IS 'id of a project one may see (SQLSTATE BC002)';

CREATE FUNCTION boocoder.archive_project(project text) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	UPDATE boocoder.projects p SET archived_at = now()
	 WHERE p.id = boocoder._project_id(project) AND p.archived_at IS NULL RETURNING true
$$;
COMMENT ON FUNCTION boocoder.archive_project(text) IS 'no new task is run in the project; NULL when it was archived already';

CREATE FUNCTION boocoder.register_provider(name text, transport text, command text[] DEFAULT '{}',
	env jsonb DEFAULT '{}', label text DEFAULT NULL, models jsonb DEFAULT '[]') RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM jsonb_each(env) e WHERE jsonb_typeof(e.value) <> 'string' OR e.key !~ '^[A-Za-z_][A-Za-z0-9_]*$') THEN
		RAISE EXCEPTION 'the environment of a provider is an object of names and strings' USING ERRCODE = 'BC005';
	END IF;
	INSERT INTO boocoder.providers AS p (name, label, transport, command, env, models)
	VALUES (register_provider.name, coalesce(register_provider.label, register_provider.name),
		register_provider.transport, register_provider.command, register_provider.env, register_provider.models)
	ON CONFLICT ON CONSTRAINT providers_pkey DO UPDATE
	   SET label = coalesce(register_provider.label, p.label), transport = EXCLUDED.transport,
		   command = EXCLUDED.command, env = EXCLUDED.env, models = EXCLUDED.models;
	RETURN register_provider.name;
END
$$;
COMMENT ON FUNCTION boocoder.register_provider(text, text, text[], jsonb, text, jsonb) IS
	'adds an agent, or changes it: tasks name it, it names the program';

CREATE FUNCTION boocoder.remove_provider(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM boocoder.providers p WHERE p.name = remove_provider.name AND p.builtin) THEN
		RAISE EXCEPTION 'provider "%" is built in', remove_provider.name
			USING ERRCODE = 'BC004', HINT = 'Disable it: UPDATE boocoder.providers SET enabled = false ...';
	END IF;
	DELETE FROM boocoder.providers p WHERE p.name = remove_provider.name;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION boocoder.remove_provider(text) IS 'removes an agent that is not built in; false when there is none';

CREATE FUNCTION boocoder.launch_spec(agent text, OUT "binary" text, OUT args text[], OUT env jsonb) RETURNS record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT p.command[1], coalesce(p.command[2:], '{}'), p.env FROM boocoder.providers p WHERE p.name = agent
$$;
COMMENT ON FUNCTION boocoder.launch_spec(text) IS 'what would be run for an agent; for administrators, as the environment may hold secrets';
-- SPDX-License-Identifier: PostgreSQL
-- Tasks: enqueue, cancel, retry, wait, watch.

CREATE FUNCTION boocoder.run(input text, project text, agent text DEFAULT NULL, model text DEFAULT NULL,
	mode text DEFAULT NULL, session bigint DEFAULT NULL, chat bigint DEFAULT NULL, priority integer DEFAULT 0,
	run_at timestamptz DEFAULT NULL, timeout interval DEFAULT NULL, max_attempts integer DEFAULT 2,
	idempotency_key text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	result bigint;
BEGIN
	IF run.chat IS NOT NULL AND run.session IS NULL THEN
		SELECT c.session_id INTO run.session FROM boocoder.chats c WHERE c.id = run.chat;
	END IF;
	INSERT INTO boocoder.tasks AS t (project_id, session_id, chat_id, agent, model, mode, input, priority, run_at,
		timeout, max_attempts, idempotency_key)
	VALUES (boocoder._project_id(run.project), run.session, run.chat, run.agent, run.model, run.mode, run.input,
		coalesce(run.priority, 0), run.run_at, run.timeout, coalesce(run.max_attempts, 2), run.idempotency_key)
	ON CONFLICT (submitted_by, idempotency_key) WHERE t.idempotency_key IS NOT NULL DO NOTHING
	RETURNING id INTO result;
	IF result IS NULL THEN
		SELECT t.id INTO STRICT result FROM boocoder.tasks t
		 WHERE t.submitted_by = current_user AND t.idempotency_key = run.idempotency_key;
	END IF;
	RETURN result;
END
$$;
COMMENT ON FUNCTION boocoder.run(text, text, text, text, text, bigint, bigint, integer, timestamptz, interval, integer, text) IS
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
	END IF;
	INSERT INTO boocoder.tasks (project_id, session_id, chat_id, agent, model, mode, input, priority, creator)
	VALUES (t.project_id, t.session_id, t.chat_id, t.agent, t.model, t.mode, send.input, t.priority, 'chat')
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
		UPDATE boocoder.tasks x SET cancel_requested_at = coalesce(x.cancel_requested_at, now()) WHERE x.id = t.id;
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
	UPDATE boocoder.tasks x SET state = 'pending' WHERE x.id = t.id AND x.state IN ('failed', 'blocked', 'cancelled');
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

CREATE FUNCTION boocoder.wait(task bigint, timeout interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	until timestamptz := clock_timestamp() + timeout;
	generation bigint;
	t boocoder.tasks;
BEGIN
	LOOP
		generation := boocoder._change_generation();
		t := boocoder._task(task);
		EXIT WHEN t.state IN ('completed', 'failed', 'cancelled') OR clock_timestamp() >= until;
		PERFORM boocoder._wait_change(generation,
			least(1000, ceil(extract(epoch FROM until - clock_timestamp()) * 1000))::integer);
	END LOOP;
	RETURN t.state;
END
$$;
COMMENT ON FUNCTION boocoder.wait(bigint, interval) IS
	'waits until a task has ended, or the time is over; its state (SQLSTATE BC002).  The task must be committed before.';

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
-- SPDX-License-Identifier: PostgreSQL
-- Changes: look at them, apply them, reject them.

CREATE FUNCTION boocoder.list_pending(session bigint) RETURNS SETOF boocoder.pending_changes
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT c.* FROM boocoder.pending_changes c
	 WHERE c.session_id = session AND c.status IN ('pending', 'applying', 'conflict') ORDER BY c.id
$$;
COMMENT ON FUNCTION boocoder.list_pending(bigint) IS 'the undecided changes of a session';

CREATE FUNCTION boocoder.diff(task bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	-- the rows of one attempt come from one transaction; those of an earlier attempt are history
	SELECT string_agg(c.diff, '' ORDER BY c.id)
	  FROM (SELECT p.id, p.diff, p.created_at = max(p.created_at) OVER () AS latest
			  FROM boocoder.pending_changes p WHERE p.task_id = (SELECT t.id FROM boocoder._task(task) t)) c
	 WHERE c.latest
$$;
COMMENT ON FUNCTION boocoder.diff(bigint) IS
	'what a task changed, as a patch that git apply takes on the base commit of the changes; NULL: nothing (SQLSTATE BC002)';

CREATE FUNCTION boocoder._decide(ids bigint[], status text) RETURNS bigint
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
	RETURN n;
END
$$;
COMMENT ON FUNCTION boocoder._decide(bigint[], text) IS 'one decision about some changes (SQLSTATE BC001, BC002); how many';

CREATE FUNCTION boocoder._undecided(task bigint) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t boocoder.tasks := boocoder._task(task);
	result bigint[];
BEGIN
	SELECT array_agg(c.id ORDER BY c.id) INTO result FROM boocoder.pending_changes c
	 WHERE c.task_id = t.id AND c.status IN ('pending', 'conflict');
	IF result IS NULL THEN
		RAISE EXCEPTION 'task % has no change to decide about', t.id
			USING ERRCODE = 'BC004', HINT = 'A later task of the session supersedes its changes; see boocoder.list_pending().';
	END IF;
	RETURN result;
END
$$;
COMMENT ON FUNCTION boocoder._undecided(bigint) IS 'the changes of a task that can be decided about (SQLSTATE BC002, BC004)';

CREATE FUNCTION boocoder.apply(task bigint) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder._decide(boocoder._undecided(task), 'applying')
$$;
COMMENT ON FUNCTION boocoder.apply(bigint) IS
	'decides to apply what a task changed to the project''s checkout, which happens after commit: applied or conflict; how many files';

CREATE FUNCTION boocoder.apply_changes(ids bigint[]) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder._decide(ids, 'applying')
$$;
COMMENT ON FUNCTION boocoder.apply_changes(bigint[]) IS 'the same for single changes: all of them or none';

CREATE FUNCTION boocoder.reject(task bigint) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder._decide(boocoder._undecided(task), 'rejected')
$$;
COMMENT ON FUNCTION boocoder.reject(bigint) IS 'decides against what a task changed; how many files';

CREATE FUNCTION boocoder.reject_changes(ids bigint[]) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder._decide(ids, 'rejected')
$$;
COMMENT ON FUNCTION boocoder.reject_changes(bigint[]) IS 'the same for single changes';

CREATE FUNCTION boocoder.remove_worktree(worktree bigint, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF force THEN
		UPDATE boocoder.pending_changes c SET status = 'rejected'
		 WHERE c.worktree_id = worktree AND c.status IN ('pending', 'conflict');
	END IF;
	UPDATE boocoder.worktrees w SET status = 'removing' WHERE w.id = worktree AND w.status IN ('active', 'creating');
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION boocoder.remove_worktree(bigint, boolean) IS
	'removes a worktree after commit, its content archived under refs/boocoder/archive; refuses while an agent works in it or changes are undecided (SQLSTATE BC004); force rejects them';

CREATE FUNCTION boocoder.close_session(session bigint, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.sessions s SET closed_at = now() WHERE s.id = session AND s.closed_at IS NULL;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	UPDATE boocoder.chats c SET closed_at = now() WHERE c.session_id = session AND c.closed_at IS NULL;
	PERFORM boocoder.remove_worktree(w.id, force) FROM boocoder.worktrees w
	 WHERE w.session_id = session AND w.deleted_at IS NULL;
	RETURN true;
END
$$;
COMMENT ON FUNCTION boocoder.close_session(bigint, boolean) IS
	'closes a session and its chats and removes its worktree, by the rules of remove_worktree()';
-- SPDX-License-Identifier: PostgreSQL
-- What waits for a person, what it costs, how it goes.
-- A view reads tables with the rights of its owner; these read through functions
-- that have the rights of the caller, so that row-level security holds on every version.

CREATE FUNCTION boocoder._inbox()
RETURNS TABLE (task_id bigint, project text, agent text, state text, reason text, error text, age interval,
	attempt integer, last_output text, input text, what_to_do text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT t.id, p.name, t.agent, t.state, t.failure_reason, t.error, now() - coalesce(t.ended_at, t.started_at, t.created_at),
		   t.attempt, t.output_summary, left(t.input, 200),
		   format('SELECT boocoder.inbox_retry(%s);  or  SELECT boocoder.send(%s, ''...'');', t.id, t.id)
	  FROM boocoder.tasks t JOIN boocoder.projects p ON p.id = t.project_id
	 WHERE t.state IN ('failed', 'blocked')
	UNION ALL
	SELECT c.task_id, p.name, c.agent, 'conflict', 'conflict', string_agg(c.path || ': ' || coalesce(c.error, ''), E'\n' ORDER BY c.id),
		   now() - max(c.decided_at), NULL, NULL, NULL,
		   format('SELECT boocoder.apply(%s);  or  SELECT boocoder.reject(%s);', c.task_id, c.task_id)
	  FROM boocoder.pending_changes c JOIN boocoder.worktrees w ON w.id = c.worktree_id JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE c.status = 'conflict' GROUP BY c.task_id, p.name, c.agent
	 ORDER BY 7 DESC
$$;
COMMENT ON FUNCTION boocoder._inbox() IS 'the rows of the view inbox';
CREATE VIEW boocoder.inbox AS SELECT * FROM boocoder._inbox();
COMMENT ON VIEW boocoder.inbox IS 'what waits for a person: failed and blocked tasks, changes in conflict; with the reason and what to call';

CREATE FUNCTION boocoder.cost_stats(group_by text DEFAULT 'project', since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS TABLE (key text, tasks bigint, input_tokens numeric, output_tokens numeric, cached_tokens numeric,
	reasoning_tokens numeric, cost_usd numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF group_by IS NULL OR group_by NOT IN ('project', 'agent', 'model', 'day') THEN
		RAISE EXCEPTION 'cannot group costs by "%"', group_by
			USING ERRCODE = 'BC005', HINT = 'Use project, agent, model or day.';
	END IF;
	RETURN QUERY
	SELECT k.key, count(DISTINCT u.task_id), sum(u.input_tokens), sum(u.output_tokens), sum(u.cached_tokens),
		   sum(u.reasoning_tokens), sum(u.cost_usd)
	  FROM boocoder.usage_events u LEFT JOIN boocoder.projects p ON p.id = u.project_id,
		   LATERAL (SELECT CASE group_by WHEN 'project' THEN p.name WHEN 'agent' THEN u.agent WHEN 'model' THEN u.model
						   ELSE to_char(u.created_at, 'YYYY-MM-DD') END AS key) k
	 WHERE (since IS NULL OR u.created_at >= since) AND (until IS NULL OR u.created_at < until)
	 GROUP BY k.key ORDER BY k.key;
END
$$;
COMMENT ON FUNCTION boocoder.cost_stats(text, timestamptz, timestamptz) IS
	'the ledger summed by project, agent, model or day, in US dollars; until is not included (SQLSTATE BC005)';

CREATE FUNCTION boocoder._status()
RETURNS TABLE (dispatcher_pid integer, started_at timestamptz, pending bigint, running bigint, blocked bigint,
	oldest_pending interval, jobs bigint, spare_runners integer, last_seq bigint, last_error text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT w.dispatcher_pid, w.started_at, ready.n + scheduled.n, open.running, open.blocked,
		   now() - least(ready.oldest, scheduled.oldest),
		   (SELECT count(*) FROM boocoder.jobs j WHERE j.state IN ('queued', 'running')),
		   w.spare_runners, w.last_seq, w.last_error
	  FROM boocoder._worker_status() w,
		   (SELECT count(*) AS n, min(t.created_at) AS oldest FROM boocoder.tasks t
			 WHERE t.state = 'pending' AND t.run_at IS NULL) ready,
		   (SELECT count(*) AS n, min(t.run_at) FILTER (WHERE t.run_at <= now()) AS oldest FROM boocoder.tasks t
			 WHERE t.state = 'pending' AND t.run_at IS NOT NULL) scheduled,
		   (SELECT count(*) FILTER (WHERE t.state = 'running') AS running, count(*) FILTER (WHERE t.state = 'blocked') AS blocked
			  FROM boocoder.tasks t WHERE t.state IN ('running', 'blocked')) open
$$;
COMMENT ON FUNCTION boocoder._status() IS 'the row of the view status';
CREATE VIEW boocoder.status AS SELECT * FROM boocoder._status();
COMMENT ON VIEW boocoder.status IS 'the dispatcher of this database, and the queue as far as one may see it';

CREATE FUNCTION boocoder._repository_checks() RETURNS TABLE ("check" text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	project record;
	facts jsonb;
BEGIN
	FOR project IN SELECT p.name, p.path FROM boocoder.projects p WHERE p.archived_at IS NULL ORDER BY p.id LOOP
		"check" := format('project "%s"', project.name);
		BEGIN
			facts := boocoder._inspect(project.path);
			status := CASE WHEN (facts ->> 'ok')::boolean THEN 'ok' ELSE 'error' END;
			detail := coalesce(facts ->> 'message', facts ->> 'path');
			hint := facts ->> 'hint';
		EXCEPTION WHEN OTHERS THEN
			status := 'error';
			detail := SQLERRM;
			hint := NULL;
		END;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION boocoder._repository_checks() IS 'a line of doctor() for each project';

CREATE FUNCTION boocoder.doctor() RETURNS TABLE ("check" text, status text, detail text, hint text)
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
		  FROM boocoder.providers p WHERE p.enabled AND p.transport IN ('acp', 'command') AND cardinality(p.command) = 0
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
COMMENT ON FUNCTION boocoder.doctor() IS 'everything a person needs to find out why nothing runs; never fails';
-- SPDX-License-Identifier: PostgreSQL
-- Who may do what.  Nothing is left to PUBLIC.  People get column rights and
-- row-level security, no SECURITY DEFINER: a function can do for its caller
-- what the caller could do without it.

REVOKE ALL ON ALL TABLES IN SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA boocoder FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA boocoder FROM PUBLIC;

-- viewers
GRANT SELECT ON boocoder.projects, boocoder.sessions, boocoder.chats, boocoder.tasks, boocoder.messages,
	boocoder.message_parts, boocoder.events, boocoder.worktrees, boocoder.pending_changes, boocoder.usage_events,
	boocoder.available_agents, boocoder.task_transitions, boocoder.inbox, boocoder.status, boocoder.jobs
	TO boocoder_viewer;
GRANT SELECT (name, label, transport, command, models, modes, default_model, permission_policy, enabled, builtin)
	ON boocoder.providers TO boocoder_viewer;
GRANT EXECUTE ON FUNCTION boocoder._project_id(text), boocoder._task(bigint), boocoder.wait(bigint, interval),
	boocoder.events_since(bigint, bigint), boocoder._event_line(text, jsonb), boocoder.ls(text, text),
	boocoder.task_detail(bigint), boocoder.list_pending(bigint), boocoder.diff(bigint), boocoder._inbox(),
	boocoder.cost_stats(text, timestamptz, timestamptz), boocoder._status(), boocoder.doctor(),
	boocoder._preloaded(), boocoder._worker_status(), boocoder._change_generation(),
	boocoder._wait_change(bigint, integer) TO boocoder_viewer;
GRANT EXECUTE ON PROCEDURE boocoder.attach(bigint, bigint) TO boocoder_viewer;

-- users
GRANT INSERT (project_id, session_id, chat_id, parent_task_id, agent, model, mode, input, creator, priority, run_at,
	max_attempts, timeout, idempotency_key) ON boocoder.tasks TO boocoder_user;
GRANT UPDATE (state, cancel_requested_at, priority, run_at) ON boocoder.tasks TO boocoder_user;
GRANT INSERT (project_id, title), UPDATE (title, closed_at) ON boocoder.sessions TO boocoder_user;
GRANT INSERT (session_id, title), UPDATE (title, closed_at) ON boocoder.chats TO boocoder_user;
GRANT UPDATE (status) ON boocoder.pending_changes, boocoder.worktrees TO boocoder_user;
GRANT EXECUTE ON FUNCTION
	boocoder.run(text, text, text, text, text, bigint, bigint, integer, timestamptz, interval, integer, text),
	boocoder.send(bigint, text), boocoder.cancel(bigint), boocoder.retry(bigint), boocoder.inbox_retry(bigint),
	boocoder._wake_now(), boocoder._decide(bigint[], text), boocoder._undecided(bigint), boocoder.apply(bigint),
	boocoder.apply_changes(bigint[]), boocoder.reject(bigint), boocoder.reject_changes(bigint[]),
	boocoder.remove_worktree(bigint, boolean), boocoder.close_session(bigint, boolean) TO boocoder_user;

-- administrators
GRANT SELECT, INSERT, UPDATE, DELETE ON boocoder.projects, boocoder.providers TO boocoder_admin;
GRANT EXECUTE ON FUNCTION
	boocoder.add_project(text, text, text, text, text, text[], name, boolean, text[]),
	boocoder.archive_project(text), boocoder.register_provider(text, text, text[], jsonb, text, jsonb),
	boocoder.remove_provider(text), boocoder.launch_spec(text), boocoder._inspect(text), boocoder._check_host(),
	boocoder._host(), boocoder._below(text, text), boocoder._repository_checks() TO boocoder_admin;

-- the dispatcher
GRANT SELECT ON ALL TABLES IN SCHEMA boocoder TO boocoder_worker;
GRANT INSERT ON boocoder.sessions, boocoder.chats, boocoder.messages, boocoder.message_parts, boocoder.events,
	boocoder.worktrees, boocoder.jobs, boocoder.pending_changes, boocoder.usage_events TO boocoder_worker;
GRANT UPDATE (title) ON boocoder.sessions, boocoder.chats TO boocoder_worker;	-- to lock rows, FOR KEY SHARE
GRANT UPDATE (archived_at) ON boocoder.projects TO boocoder_worker;	-- likewise
GRANT UPDATE ON boocoder.tasks, boocoder.messages, boocoder.worktrees, boocoder.jobs, boocoder.pending_changes
	TO boocoder_worker;
GRANT USAGE ON SEQUENCE boocoder.fence_seq TO boocoder_worker;
GRANT INSERT, DELETE ON boocoder.home TO boocoder_worker;
GRANT EXECUTE ON FUNCTION boocoder._host(), boocoder._wake_now(),
	boocoder._orders(boocoder.tasks, boocoder.projects, boocoder.worktrees, boocoder.providers, jsonb), boocoder._fail(bigint, text, text), boocoder._below(text, text), boocoder._root(text),
	boocoder._obstacle(name, boocoder.projects, text, boocoder.providers, jsonb), boocoder._claim(boocoder.tasks, jsonb),
	boocoder._candidate(bigint[], bigint[], bigint[]), boocoder._make_jobs(), boocoder._job_order(boocoder.jobs, jsonb),
	boocoder._job_done(bigint, jsonb), boocoder._start(integer), boocoder._reconcile(),
	boocoder._session_free(bigint, bigint), boocoder._leave_the_original(), boocoder._next_actions(integer, integer),
	boocoder._prepared(bigint, bigint, jsonb), boocoder._append(bigint[], bigint[], jsonb[]),
	boocoder._charge(bigint, jsonb, text), boocoder._store_changes(boocoder.tasks, jsonb),
	boocoder._settle(bigint, bigint, jsonb, jsonb) TO boocoder_worker;

-- Rows: one's own, and those of projects one may see.
ALTER TABLE boocoder.projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.chats ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.tasks ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.message_parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.events ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.worktrees ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.pending_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.usage_events ENABLE ROW LEVEL SECURITY;

CREATE POLICY visible ON boocoder.projects TO boocoder_viewer
	USING (owner = current_user OR shared OR pg_has_role('boocoder_admin', 'USAGE'));
COMMENT ON POLICY visible ON boocoder.projects IS 'the owner''s, shared ones, all for administrators';
CREATE POLICY visible ON boocoder.sessions TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.sessions IS 'those of visible projects';
CREATE POLICY visible ON boocoder.chats TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.sessions s WHERE s.id = session_id));
COMMENT ON POLICY visible ON boocoder.chats IS 'those of visible sessions';
CREATE POLICY visible ON boocoder.tasks FOR SELECT TO boocoder_viewer
	USING (submitted_by = current_user OR project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.tasks IS 'one''s own, and those of visible projects';
CREATE POLICY enqueue ON boocoder.tasks FOR INSERT TO boocoder_user
	WITH CHECK (project_id IN (SELECT p.id FROM boocoder.projects p WHERE p.archived_at IS NULL));
COMMENT ON POLICY enqueue ON boocoder.tasks IS 'in visible projects that are not archived';
CREATE POLICY decide ON boocoder.tasks FOR UPDATE TO boocoder_user
	USING (submitted_by = current_user OR project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY decide ON boocoder.tasks IS 'whoever sees a task may cancel and retry it';
CREATE POLICY visible ON boocoder.messages FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.messages IS 'those of visible chats and tasks';
CREATE POLICY visible ON boocoder.message_parts FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.messages m WHERE m.id = message_id));
COMMENT ON POLICY visible ON boocoder.message_parts IS 'those of visible messages';
CREATE POLICY visible ON boocoder.events FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.events IS 'those of visible tasks';
CREATE POLICY visible ON boocoder.worktrees TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.worktrees IS 'those of visible projects';
CREATE POLICY visible ON boocoder.jobs FOR SELECT TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.jobs IS 'those of visible projects';
CREATE POLICY visible ON boocoder.pending_changes TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.id = worktree_id)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.pending_changes IS 'those of visible worktrees and tasks';
CREATE POLICY visible ON boocoder.usage_events FOR SELECT TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p)
		   OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.usage_events IS 'those of visible projects and tasks';

DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT c.relname FROM pg_catalog.pg_class c
				 WHERE c.relnamespace OPERATOR(pg_catalog.=) 'boocoder'::pg_catalog.regnamespace AND c.relrowsecurity
	LOOP
		EXECUTE pg_catalog.format('CREATE POLICY dispatcher ON boocoder.%I TO boocoder_worker USING (true) WITH CHECK (true)', name);
		EXECUTE pg_catalog.format('COMMENT ON POLICY dispatcher ON boocoder.%I IS ''the dispatcher serves everybody''', name);
	END LOOP;
END
$$;
-- SPDX-License-Identifier: PostgreSQL
-- The agents that are known without being registered, and what a dump holds.

INSERT INTO boocoder.providers (name, label, transport, command, builtin) VALUES
	('boocode', 'boocode (built in)', 'native', '{}', true),
	('opencode', 'opencode', 'acp', '{opencode,acp}', true),
	('goose', 'goose', 'acp', '{goose,acp}', true),
	('claude', 'Claude Code', 'stream_json', '{claude}', true),
	('qwen', 'Qwen Code', 'acp', '{qwen,--acp}', true),
	('pi', 'pi', 'stream_json', '{pi}', true),
	('codex', 'Codex', 'acp', '{codex-acp}', true),
	('gemini', 'Gemini CLI', 'acp', '{gemini,--acp}', true);

-- A dump holds what has ended.  Work that is under way or waiting is left out:
-- a restored copy must never start an agent.
SELECT pg_catalog.pg_extension_config_dump('boocoder.providers', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('boocoder.projects', '');
SELECT pg_catalog.pg_extension_config_dump('boocoder.sessions', '');
SELECT pg_catalog.pg_extension_config_dump('boocoder.chats', '');
SELECT pg_catalog.pg_extension_config_dump('boocoder.tasks', $$WHERE state IN ('completed', 'failed', 'cancelled')$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.messages',
	$$WHERE task_id IS NULL OR task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled'))$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.message_parts',
	$$WHERE message_id IN (SELECT id FROM boocoder.messages WHERE task_id IS NULL
		OR task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled')))$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.events',
	$$WHERE task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled'))$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.worktrees', $$WHERE status IN ('active', 'removed')$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.pending_changes',
	$$WHERE status <> 'applying' AND worktree_id IN (SELECT id FROM boocoder.worktrees WHERE status IN ('active', 'removed'))
		AND task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled'))$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.usage_events',
	$$WHERE task_id IS NULL OR task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled'))$$);
DO $$
DECLARE
	sequence pg_catalog.regclass;
BEGIN
	FOR sequence IN SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c
		 WHERE c.relnamespace OPERATOR(pg_catalog.=) 'boocoder'::pg_catalog.regnamespace
		   AND c.relkind OPERATOR(pg_catalog.=) 'S'
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON SEQUENCE %s IS ''numbers of rows''', sequence::pg_catalog.regclass);
		PERFORM pg_catalog.pg_extension_config_dump(sequence, '');
	END LOOP;
END
$$;
