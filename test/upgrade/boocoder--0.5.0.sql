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
	transport text NOT NULL CHECK (transport IN ('native', 'acp', 'opencode', 'opencode_server', 'pty', 'stream_json', 'command')),
	kind text,
	command text[] NOT NULL DEFAULT '{}' CHECK (array_position(command, NULL) IS NULL),
	builtin_command text[] NOT NULL DEFAULT '{}' CHECK (array_position(builtin_command, NULL) IS NULL),
	fallback text CHECK (fallback IN ('pty', 'command')),
	fallback_command text[] NOT NULL DEFAULT '{}' CHECK (array_position(fallback_command, NULL) IS NULL),
	version_args text[] NOT NULL DEFAULT '{--version}' CHECK (array_position(version_args, NULL) IS NULL),
	launch_prefix text[] NOT NULL DEFAULT '{}' CHECK (array_position(launch_prefix, NULL) IS NULL),
	env jsonb NOT NULL DEFAULT '{}'
		CHECK (jsonb_typeof(env) = 'object' AND NOT jsonb_path_exists(env,
			'$.* ? (!(@.type() == "string" || @.type() == "object" && (exists (@.from_env) || exists (@.from_file))))')),
	persistent_home boolean NOT NULL DEFAULT false,
	keep_raw boolean NOT NULL DEFAULT false,
	models_url text CHECK (models_url ~ '^https?://'),
	models_key jsonb CHECK (jsonb_typeof(models_key) IN ('string', 'object')),
	models_prefix text,
	models jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(models) = 'array'),
	modes jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(modes) = 'array'),
	default_model text,
	permission_policy text NOT NULL DEFAULT 'allow' CHECK (permission_policy IN ('allow', 'reject', 'ask')),
	enabled boolean NOT NULL DEFAULT true,
	builtin boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE boocoder.providers IS 'the coding agents that tasks may name; only administrators write here';
COMMENT ON COLUMN boocoder.providers.kind IS 'which known program it is, for what is peculiar to it: opencode, goose, claude, qwen, pi, codex, gemini';
COMMENT ON COLUMN boocoder.providers.command IS 'program and arguments; empty: builtin_command';
COMMENT ON COLUMN boocoder.providers.builtin_command IS 'program and arguments that a built-in provider has';
COMMENT ON COLUMN boocoder.providers.fallback IS 'transport to fall back to when the handshake of the protocol fails';
COMMENT ON COLUMN boocoder.providers.launch_prefix IS 'starts the runner of the agent, for example {sudo,-n,-u,alice}; empty: that of the project';
COMMENT ON COLUMN boocoder.providers.env IS 'environment of the agent, over the allow-listed one; values are strings, {"from_env": name} or {"from_file": path}; readable by the dispatcher only';
COMMENT ON COLUMN boocoder.providers.persistent_home IS 'the agent''s HOME is below boocoder.agent_home and lasts, instead of one for each session';
COMMENT ON COLUMN boocoder.providers.keep_raw IS 'of the transport pty: what came from the terminal is kept byte by byte, too, as log events';
COMMENT ON COLUMN boocoder.providers.models_url IS 'OpenAI-compatible endpoint (.../v1) whose models are offered, too, under models_prefix';
COMMENT ON COLUMN boocoder.providers.permission_policy IS 'how requests of the agent for permission are answered where no rule, task or project says more';

CREATE TABLE boocoder.available_agents (
	name text PRIMARY KEY REFERENCES boocoder.providers ON DELETE CASCADE,
	label text NOT NULL,
	transport text NOT NULL,
	install_path text,
	version text,
	supports_acp boolean NOT NULL DEFAULT false,
	models jsonb NOT NULL DEFAULT '[]',
	modes jsonb NOT NULL DEFAULT '[]',
	commands jsonb NOT NULL DEFAULT '[]',
	current_model text,
	current_mode text,
	capabilities jsonb NOT NULL DEFAULT '{}',
	auth_methods jsonb NOT NULL DEFAULT '[]',
	status text NOT NULL DEFAULT 'loading' CHECK (status IN ('loading', 'ready', 'unavailable', 'error')),
	reason text,
	message text,
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
	teardown text[] NOT NULL DEFAULT '{}' CHECK (array_position(teardown, NULL) IS NULL),
	copy_files text[] NOT NULL DEFAULT '{}' CHECK (array_position(copy_files, NULL) IS NULL),
	permission_policy text CHECK (permission_policy IN ('allow', 'reject', 'ask')),
	launch_prefix text[] NOT NULL DEFAULT '{}' CHECK (array_position(launch_prefix, NULL) IS NULL),
	worktree_root text CHECK (worktree_root ~ '^(/|~/)'),
	shared boolean NOT NULL DEFAULT false,
	owner name NOT NULL DEFAULT current_user,
	created_at timestamptz NOT NULL DEFAULT now(),
	archived_at timestamptz
);
COMMENT ON TABLE boocoder.projects IS 'git repositories that agents work on';
COMMENT ON COLUMN boocoder.projects.base_branch IS 'where new worktrees begin; NULL: what is checked out';
COMMENT ON COLUMN boocoder.projects.setup IS 'shell commands run once in each new worktree, inside the sandbox';
COMMENT ON COLUMN boocoder.projects.teardown IS 'shell commands run in a worktree before it is removed, inside the sandbox';
COMMENT ON COLUMN boocoder.projects.copy_files IS 'patterns of ignored files that are copied from the checkout into each new worktree, beside those of its .worktreeinclude';
COMMENT ON COLUMN boocoder.projects.permission_policy IS 'overrides that of the provider';
COMMENT ON COLUMN boocoder.projects.launch_prefix IS 'starts the runners of the project, for example {sudo,-n,-u,alice}: repository, worktrees and agents are then that user''s';
COMMENT ON COLUMN boocoder.projects.worktree_root IS 'where its worktrees are, instead of boocoder.worktree_root; ~/ is the home of the user the runner runs as';
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
	model text,
	created_at timestamptz NOT NULL DEFAULT now(),
	closed_at timestamptz,
	UNIQUE (id, session_id)
);
CREATE INDEX ON boocoder.chats (session_id);
COMMENT ON COLUMN boocoder.chats.model IS 'for its tasks that name none';
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
	permission_policy text CHECK (permission_policy IN ('allow', 'reject', 'ask')),
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
	retry_requested boolean NOT NULL DEFAULT false,
	transport text,
	warm boolean,
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
COMMENT ON COLUMN boocoder.tasks.permission_policy IS 'overrides that of project and provider, unless they reject';
COMMENT ON COLUMN boocoder.tasks.transport IS 'how the agent was driven in the current or last attempt, a fallback included';
COMMENT ON COLUMN boocoder.tasks.warm IS 'its agent is one that is kept between turns; NULL: not decided yet';
COMMENT ON COLUMN boocoder.tasks.retry_requested IS 'once the current attempt has ended another one begins';
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
	status text NOT NULL DEFAULT 'creating' CHECK (status IN ('creating', 'active', 'trashed', 'removing', 'removed')),
	setup_done_at timestamptz,
	size_bytes bigint,
	facts jsonb,
	assessed_at timestamptz,
	assess_requested_at timestamptz,
	request jsonb,
	request_error text,
	forced boolean NOT NULL DEFAULT false,
	orphaned_at timestamptz,
	archived_ref text,
	port_first integer,
	port_count integer NOT NULL DEFAULT 0,
	teardown_done_at timestamptz,
	origin text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	deleted_at timestamptz
);
CREATE UNIQUE INDEX worktrees_live ON boocoder.worktrees (session_id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX worktrees_ports ON boocoder.worktrees (port_first) WHERE deleted_at IS NULL AND port_first IS NOT NULL;
CREATE INDEX worktrees_removing ON boocoder.worktrees (id) WHERE status = 'removing';
CREATE INDEX worktrees_ending ON boocoder.worktrees (id) WHERE status = 'trashed' OR (status = 'active' AND orphaned_at IS NOT NULL);
CREATE INDEX worktrees_requested ON boocoder.worktrees (id) WHERE request IS NOT NULL OR assess_requested_at IS NOT NULL;
CREATE INDEX worktrees_path ON boocoder.worktrees (path) WHERE status <> 'removed';
CREATE INDEX ON boocoder.worktrees (project_id);
COMMENT ON TABLE boocoder.worktrees IS 'the git worktree of each session';
COMMENT ON COLUMN boocoder.worktrees.base_commit IS 'where the worktree began';
COMMENT ON COLUMN boocoder.worktrees.diff_base IS 'what diffs are made against: base_commit and all that was applied since';
COMMENT ON COLUMN boocoder.worktrees.origin IS 'cluster and database that made it: the directory of another one''s is not touched';
COMMENT ON COLUMN boocoder.worktrees.port_first IS 'first of port_count TCP ports that are leased to it';
COMMENT ON COLUMN boocoder.worktrees.status IS 'trashed: removed for people, its directory goes when boocoder.worktree_grace is over';
COMMENT ON COLUMN boocoder.worktrees.size_bytes IS 'on disk, as of the last look';
COMMENT ON COLUMN boocoder.worktrees.facts IS 'what a look at it found; see worktree_risk()';
COMMENT ON COLUMN boocoder.worktrees.request IS 'what people have asked for and is not done yet';
COMMENT ON COLUMN boocoder.worktrees.request_error IS 'why the last request failed';
COMMENT ON COLUMN boocoder.worktrees.forced IS 'it goes with all it holds, which is archived';
COMMENT ON COLUMN boocoder.worktrees.orphaned_at IS 'when its session was closed or deleted';
COMMENT ON COLUMN boocoder.worktrees.archived_ref IS 'the ref that keeps the content of a removed worktree';

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
COMMENT ON TABLE boocoder.worktree_saves IS 'contents of worktrees that are kept in the project''s repository';
COMMENT ON COLUMN boocoder.worktree_saves.kind IS 'turn: at the end of a task; stash; undo: before a restore or a rewind; archive: at the removal, with which the turns go';
COMMENT ON COLUMN boocoder.worktree_saves.tree IS 'the hash of git''s tree';

CREATE TABLE boocoder.jobs (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	kind text NOT NULL CHECK (kind IN ('apply', 'remove', 'teardown', 'probe', 'assess', 'rewrite', 'revive')),
	project_id bigint REFERENCES boocoder.projects,
	worktree_id bigint REFERENCES boocoder.worktrees,
	provider text REFERENCES boocoder.providers ON UPDATE CASCADE ON DELETE CASCADE,
	state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed')),
	resumed boolean NOT NULL DEFAULT false,
	error text,
	created_at timestamptz NOT NULL DEFAULT now(),
	ended_at timestamptz,
	CONSTRAINT jobs_subject CHECK (CASE kind WHEN 'probe' THEN provider IS NOT NULL ELSE project_id IS NOT NULL END)
);
CREATE UNIQUE INDEX jobs_one_probe ON boocoder.jobs (provider) WHERE kind = 'probe' AND state IN ('queued', 'running');
CREATE INDEX jobs_worktree ON boocoder.jobs (worktree_id) WHERE worktree_id IS NOT NULL;
CREATE INDEX jobs_open ON boocoder.jobs (id) WHERE state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_one_per_project ON boocoder.jobs (project_id) WHERE state = 'running';
COMMENT ON TABLE boocoder.jobs IS 'work beside tasks: changes to apply, worktrees to remove, agents to look at';

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
	staged boolean NOT NULL DEFAULT false,
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
CREATE INDEX pending_changes_rejected ON boocoder.pending_changes (session_id, path) WHERE status = 'rejected';
COMMENT ON COLUMN boocoder.pending_changes.staged IS 'marked by stage_changes(); decides nothing';
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

CREATE TABLE boocoder.agent_sessions (
	chat_id bigint NOT NULL REFERENCES boocoder.chats ON DELETE CASCADE,
	agent text NOT NULL,
	session_id bigint REFERENCES boocoder.sessions ON DELETE SET NULL,
	worktree_id bigint REFERENCES boocoder.worktrees ON DELETE SET NULL,
	agent_session_id text,
	status text NOT NULL DEFAULT 'closed' CHECK (status IN ('active', 'idle', 'crashed', 'evicted', 'closed')),
	config_hash text,
	input_tokens bigint NOT NULL DEFAULT 0,
	output_tokens bigint NOT NULL DEFAULT 0,
	cost numeric NOT NULL DEFAULT 0,
	pid integer,
	title text,
	model text,
	mode text,
	wanted_mode text,
	mode_asked_at timestamptz,
	mode_sent_at timestamptz,
	mode_error text,
	models jsonb NOT NULL DEFAULT '[]',
	modes jsonb NOT NULL DEFAULT '[]',
	plan jsonb,
	last_active_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (chat_id, agent)
);
CREATE INDEX ON boocoder.agent_sessions (session_id);
CREATE INDEX ON boocoder.agent_sessions (worktree_id);
COMMENT ON TABLE boocoder.agent_sessions IS 'what is known of each agent in each chat: its session, mode, model, plan';
COMMENT ON COLUMN boocoder.agent_sessions.agent_session_id IS 'the agent''s own name of its session, which the next turn goes on with';
COMMENT ON COLUMN boocoder.agent_sessions.status IS 'active: at work; idle: its process waits for the next turn; crashed, evicted, closed: the next turn starts one';
COMMENT ON COLUMN boocoder.agent_sessions.config_hash IS 'what the agent was last started with';
COMMENT ON COLUMN boocoder.agent_sessions.cost IS 'of all turns, in US dollars, as the ledger has it';
COMMENT ON COLUMN boocoder.agent_sessions.pid IS 'of the runner that keeps the agent; NULL: none does';
COMMENT ON COLUMN boocoder.agent_sessions.mode IS 'the mode the agent said it is in';
COMMENT ON COLUMN boocoder.agent_sessions.wanted_mode IS 'asked for by set_mode(), for this turn and the next ones; NULL: none, or refused';
COMMENT ON COLUMN boocoder.agent_sessions.mode_error IS 'why the agent refused the mode that was asked for last';

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
COMMENT ON TABLE boocoder.backends IS 'agents that are kept between turns, one process each';
COMMENT ON COLUMN boocoder.backends.task_id IS 'whose turn it is; NULL: it waits';
COMMENT ON COLUMN boocoder.backends.server_id IS 'the server it is on; NULL: it has a program of its own';
COMMENT ON COLUMN boocoder.backends.pid IS 'of its runner';

CREATE TABLE boocoder.agent_commands (
	chat_id bigint NOT NULL REFERENCES boocoder.chats ON DELETE CASCADE,
	agent text NOT NULL,
	name text NOT NULL,
	description text,
	hint text,
	PRIMARY KEY (chat_id, agent, name)
);
COMMENT ON TABLE boocoder.agent_commands IS 'the commands each agent offers in each chat, as it said last';

CREATE TABLE boocoder.permission_rules (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	provider text REFERENCES boocoder.providers ON UPDATE CASCADE ON DELETE CASCADE,
	project_id bigint REFERENCES boocoder.projects ON DELETE CASCADE,
	task_id bigint REFERENCES boocoder.tasks ON DELETE CASCADE,
	tool_kind text,
	path_pattern text,
	command_pattern text,
	answer text NOT NULL CHECK (answer IN ('allow', 'reject', 'ask')),
	created_by name NOT NULL DEFAULT current_user,
	created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON boocoder.permission_rules (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX ON boocoder.permission_rules (project_id) WHERE project_id IS NOT NULL;
CREATE INDEX ON boocoder.permission_rules (provider) WHERE provider IS NOT NULL;
COMMENT ON TABLE boocoder.permission_rules IS 'how requests for permission are answered: the rule that is most specific decides';
COMMENT ON COLUMN boocoder.permission_rules.tool_kind IS 'read, edit, delete, move, search, execute, think, fetch, other; NULL: any';
COMMENT ON COLUMN boocoder.permission_rules.path_pattern IS 'LIKE pattern of paths, relative to the worktree; allow needs all paths of the request to match, reject and ask one';
COMMENT ON COLUMN boocoder.permission_rules.command_pattern IS 'LIKE pattern of the whole shell command';

-- No foreign key, as with events: it is written in the same batches.
CREATE TABLE boocoder.permission_requests (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	task_id bigint NOT NULL,
	fence bigint NOT NULL,
	request text NOT NULL,
	kind text NOT NULL DEFAULT 'permission' CHECK (kind IN ('permission', 'elicitation')),
	message text,
	schema jsonb,
	tool_call jsonb,
	options jsonb NOT NULL DEFAULT '[]',
	status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'answered', 'expired', 'cancelled')),
	chosen_option text,
	content jsonb,
	answered_by name,
	rule text,
	requested_at timestamptz NOT NULL DEFAULT now(),
	answered_at timestamptz,
	delivered_at timestamptz,
	deadline timestamptz,
	UNIQUE (task_id, fence, request)
);
CREATE INDEX permission_requests_pending ON boocoder.permission_requests (task_id) WHERE status = 'pending';
CREATE INDEX permission_requests_deadline ON boocoder.permission_requests (deadline) WHERE status = 'pending' AND deadline IS NOT NULL;
CREATE INDEX permission_requests_undelivered ON boocoder.permission_requests (task_id)
	WHERE delivered_at IS NULL AND status IN ('answered', 'expired');
COMMENT ON TABLE boocoder.permission_requests IS 'what agents asked, and how it was answered: by a person, by a rule, or by the deadline';
COMMENT ON COLUMN boocoder.permission_requests.fence IS 'the attempt that asked';
COMMENT ON COLUMN boocoder.permission_requests.rule IS 'what answered when it was no person';
COMMENT ON COLUMN boocoder.permission_requests.content IS 'the answer to an elicitation';
COMMENT ON COLUMN boocoder.permission_requests.delivered_at IS 'when the agent was told';

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

CREATE FUNCTION boocoder._probe_ttl_ms() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT (extract(epoch FROM current_setting('boocoder.probe_ttl', true)::interval) * 1000)::bigint
$$;
COMMENT ON FUNCTION boocoder._probe_ttl_ms() IS 'boocoder.probe_ttl in ms; 0: agents are not looked at unasked';

CREATE FUNCTION boocoder._inspect(path text, launch_prefix text[] DEFAULT '{}', worktree_root text DEFAULT '',
	drift jsonb DEFAULT 'null') RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bc_sql_inspect';
COMMENT ON FUNCTION boocoder._inspect(text, text[], text, jsonb) IS
	'what is at a path, as the server''s operating system user sees it, or the one that the prefix leads to; is there a place for its worktrees?  With drift = {known: paths, look: true}, also what lies there and is not known';

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
	('blocked', 'pending', true),
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
			NEW.retry_requested := false;
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
	DELETE FROM boocoder.permission_requests r USING gone WHERE r.task_id = gone.id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION boocoder._forget_events() IS 'trigger: events and permission requests go with their task';
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
	IF NEW.request IS NOT NULL AND NEW.request IS DISTINCT FROM OLD.request THEN
		IF OLD.request IS NOT NULL THEN
			RAISE EXCEPTION 'worktree % is being changed already', OLD.id
				USING ERRCODE = 'BC004', HINT = 'See boocoder.wait_worktree().';
		END IF;
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
COMMENT ON FUNCTION boocoder._guard_worktree() IS 'trigger: keeps a worktree while it is needed (SQLSTATE BC001, BC004)';
CREATE TRIGGER guard BEFORE UPDATE ON boocoder.worktrees FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.request IS DISTINCT FROM NEW.request)
	EXECUTE FUNCTION boocoder._guard_worktree();
COMMENT ON TRIGGER guard ON boocoder.worktrees IS 'keeps a worktree while it is needed';

-- Whoever may end a session may do what follows from it.
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
		UPDATE boocoder.pending_changes c SET status = 'rejected' WHERE c.session_id = OLD.id AND c.status IN ('pending', 'conflict');
	END IF;
	UPDATE boocoder.tasks t SET state = 'cancelled' WHERE t.session_id = OLD.id AND t.state = 'pending';
	UPDATE boocoder.tasks t SET session_id = NULL, chat_id = NULL WHERE t.session_id = OLD.id;
	RETURN OLD;
END
$$;
COMMENT ON FUNCTION boocoder._session_ends() IS
	'trigger: a session that is closed or deleted leaves its worktree to the reaper; refused while an agent is at work, or what is in the worktree would be missed (SQLSTATE BC004)';
CREATE TRIGGER closes AFTER UPDATE ON boocoder.sessions FOR EACH ROW
	WHEN (OLD.closed_at IS DISTINCT FROM NEW.closed_at) EXECUTE FUNCTION boocoder._session_ends();
COMMENT ON TRIGGER closes ON boocoder.sessions IS 'leaves the worktree to the reaper';
CREATE TRIGGER goes BEFORE DELETE ON boocoder.sessions FOR EACH ROW EXECUTE FUNCTION boocoder._session_ends();
COMMENT ON TRIGGER goes ON boocoder.sessions IS 'keeps a session while its worktree holds what would be missed';

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
COMMENT ON FUNCTION boocoder._chat_goes() IS 'trigger: a chat goes with its messages, its tasks stay; refused while an agent is at work (SQLSTATE BC004)';
CREATE TRIGGER goes BEFORE DELETE ON boocoder.chats FOR EACH ROW EXECUTE FUNCTION boocoder._chat_goes();
COMMENT ON TRIGGER goes ON boocoder.chats IS 'keeps a chat while an agent is at work in it';

CREATE FUNCTION boocoder._guard_permission() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF pg_has_role('boocoder_worker', 'MEMBER') AND NOT pg_has_role('boocoder_user', 'MEMBER') THEN
		RETURN NEW;
	END IF;
	IF (OLD.status, NEW.status) IS DISTINCT FROM ('pending', 'answered') THEN
		RAISE EXCEPTION 'request % is %, it cannot become %', OLD.id, OLD.status, NEW.status
			USING ERRCODE = 'BC001', HINT = 'Only a pending request can be answered; see boocoder.inbox.';
	ELSIF OLD.kind = 'permission' AND NOT EXISTS (
			SELECT 1 FROM jsonb_array_elements(OLD.options) o WHERE o ->> 'optionId' = NEW.chosen_option) THEN
		RAISE EXCEPTION 'request % has no option "%"', OLD.id, NEW.chosen_option
			USING ERRCODE = 'BC005', HINT = 'Its options: ' || coalesce(
				(SELECT string_agg(o ->> 'optionId', ', ') FROM jsonb_array_elements(OLD.options) o), 'none');
	END IF;
	NEW.answered_by := current_user;
	NEW.answered_at := clock_timestamp();
	NEW.rule := NULL;
	PERFORM boocoder._wake_now();
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._guard_permission() IS
	'trigger: a person answers a pending request, by one of its options (SQLSTATE BC001, BC005)';
CREATE TRIGGER guard BEFORE UPDATE ON boocoder.permission_requests FOR EACH ROW EXECUTE FUNCTION boocoder._guard_permission();
COMMENT ON TRIGGER guard ON boocoder.permission_requests IS 'refuses illegal answers';

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
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- not LANGUAGE sql: that is planned anew at each call, which is a tenth of a claim
	RETURN regexp_replace(worktree_path, '/worktrees/(p[0-9]+-[0-9a-f]{8}/)?[^/]+$', '');
END
$$;
COMMENT ON FUNCTION boocoder._root(text) IS 'the root below which a worktree lies, also when boocoder.worktree_root was changed since';

-- A server of agents may write the folder of its worktrees: so there is one for each owner in each project.
CREATE FUNCTION boocoder._worktree_place(project bigint, owner name, session bigint) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN '/worktrees/p' || project || '-' || left(md5(owner), 8) || '/s' || session;
END
$$;
COMMENT ON FUNCTION boocoder._worktree_place(bigint, name, bigint) IS 'where the worktree of a session is, below the root';

CREATE FUNCTION boocoder._worktree_root(p boocoder.projects, host jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF p.worktree_root IS NULL AND cardinality(p.launch_prefix) = 0 THEN
		RETURN host ->> 'worktree_root';
	END IF;
	-- clusters and databases that share a root must not share worktrees
	RETURN rtrim(coalesce(p.worktree_root, '~/.local/share/boocoder'), '/') || '/' || (host ->> 'origin');
END
$$;
COMMENT ON FUNCTION boocoder._worktree_root(boocoder.projects, jsonb) IS
	'where the worktrees of a project are made; ~/ is the home of the user that its runners run as';

CREATE FUNCTION boocoder._argv(v boocoder.providers, install_path text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF cardinality(v.command) > 0 THEN
		RETURN v.command;
	ELSIF cardinality(v.builtin_command) = 0 THEN
		RETURN '{}';
	END IF;
	RETURN coalesce(install_path, v.builtin_command[1]) || v.builtin_command[2:];
END
$$;
COMMENT ON FUNCTION boocoder._argv(boocoder.providers, text) IS
	'program and arguments of an agent: its own command, or the built-in one with the program where it was found';

CREATE FUNCTION boocoder._agent_prefix(p boocoder.projects, v boocoder.providers) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN nullif(CASE WHEN cardinality(v.launch_prefix) > 0 THEN v.launch_prefix ELSE p.launch_prefix END, '{}');
END
$$;
COMMENT ON FUNCTION boocoder._agent_prefix(boocoder.projects, boocoder.providers) IS
	'the launch prefix of an agent: its provider''s, or else its project''s; NULL: none';

CREATE FUNCTION boocoder._sandbox(v boocoder.providers, root text, home text, host jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF v.persistent_home AND host ->> 'agent_home' <> '' THEN
		RETURN (host -> 'sandbox') || jsonb_build_object('home', root || '/homes/' || home,
			'agent_home', jsonb_build_object('path', (host ->> 'agent_home') || '/' || v.name),
			-- where agents keep what was allowed once and for all
			'private', '[".config/goose/permission.yaml", ".codex/rules"]'::jsonb);
	END IF;
	RETURN (host -> 'sandbox') || jsonb_build_object('home', root || '/homes/' || home);
END
$$;
COMMENT ON FUNCTION boocoder._sandbox(boocoder.providers, text, text, jsonb) IS 'the sandbox of an agent''s order, with its home';

-- The rows are given, not looked up: the claim has them, and every microsecond of it is latency.
CREATE FUNCTION boocoder._orders(t boocoder.tasks, p boocoder.projects, w boocoder.worktrees, provider boocoder.providers,
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
		'turn', t.id, 'max_turns', host -> 'max_turns', 'max_bytes', host -> 'max_diff_bytes');
END
$$;
COMMENT ON FUNCTION boocoder._orders(boocoder.tasks, boocoder.projects, boocoder.worktrees, boocoder.providers, text[], text, jsonb) IS
	'the three orders of a claimed task';
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
	ELSIF to_regrole(quote_ident(submitter)) IS NULL THEN
		RETURN ARRAY['submitter_missing', format('role "%s" does not exist any more', submitter)];
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
COMMENT ON FUNCTION boocoder._obstacle(name, boocoder.projects, text, boocoder.providers, jsonb) IS
	'why a task cannot be run, as {reason, message}';

-- Behind the last range that is leased, or else the first gap; NULL when there is none, or ports are not leased.
CREATE FUNCTION boocoder._free_ports(host jsonb) RETURNS integer
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
	 WHERE w.deleted_at IS NULL AND w.port_first BETWEEN lowest AND highest ORDER BY w.port_first DESC LIMIT 1;
	IF candidate + n - 1 <= highest THEN
		RETURN candidate;
	END IF;
	SELECT g.port INTO candidate FROM generate_series(lowest, highest - n + 1, n) g (port)
	 WHERE NOT EXISTS (SELECT 1 FROM boocoder.worktrees w
						WHERE w.deleted_at IS NULL AND w.port_first IS NOT NULL
						  AND w.port_first < g.port + n AND w.port_first + w.port_count > g.port)
	 LIMIT 1;
	RETURN candidate;
END
$$;
COMMENT ON FUNCTION boocoder._free_ports(jsonb) IS 'the first port of a range for a new worktree';

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
COMMENT ON FUNCTION boocoder._new_path(text) IS 'a path for a worktree that no other one has, not even one that is trashed';

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
COMMENT ON FUNCTION boocoder._claim(boocoder.tasks, jsonb) IS 'makes one pending task running, or failed when it cannot run';

-- The rows that a claim refers to are locked here: whoever holds a lock on one delays its tasks, not the others.
CREATE FUNCTION boocoder._obstructed(t boocoder.tasks) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- mostly both are free
	IF t.session_id IS NOT NULL AND t.chat_id IS NULL THEN
		PERFORM 1 FROM boocoder.projects p, boocoder.sessions s
		 WHERE p.id = t.project_id AND s.id = t.session_id
		   AND NOT EXISTS (SELECT 1 FROM boocoder.worktrees w
							WHERE w.session_id = s.id AND w.deleted_at IS NULL AND w.status = 'removing')
		   FOR KEY SHARE OF p, s SKIP LOCKED;
	ELSIF t.session_id IS NOT NULL THEN
		PERFORM 1 FROM boocoder.projects p, boocoder.sessions s, boocoder.chats c
		 WHERE p.id = t.project_id AND s.id = t.session_id AND c.id = t.chat_id
		   AND NOT EXISTS (SELECT 1 FROM boocoder.worktrees w
							WHERE w.session_id = s.id AND w.deleted_at IS NULL AND w.status = 'removing')
		   FOR KEY SHARE OF p, s, c SKIP LOCKED;
	ELSE
		PERFORM 1 FROM boocoder.projects p WHERE p.id = t.project_id FOR KEY SHARE SKIP LOCKED;
	END IF;
	IF FOUND THEN
		RETURN NULL;
	END IF;
	PERFORM 1 FROM boocoder.projects p WHERE p.id = t.project_id FOR KEY SHARE SKIP LOCKED;
	RETURN CASE WHEN FOUND THEN 'session' ELSE 'project' END;
END
$$;
COMMENT ON FUNCTION boocoder._obstructed(boocoder.tasks) IS
	'project or session, when a client holds a lock on its row, or the session''s worktree is being removed';

-- The pending task that is next: by priority, then age, one of a session at a time.
-- The arrays name tasks, sessions and projects that are to wait in this pass; scheduled tasks are left out unless asked for.
CREATE FUNCTION boocoder._candidate(skipped bigint[], skipped_sessions bigint[], skipped_projects bigint[], scheduled boolean)
RETURNS boocoder.tasks
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
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
	IF NOT scheduled THEN
		RETURN ready;
	END IF;
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
COMMENT ON FUNCTION boocoder._candidate(bigint[], bigint[], bigint[], boolean) IS 'the pending task that is to run next, its row locked';
-- SPDX-License-Identifier: PostgreSQL
-- Jobs: what decisions cause in repositories, and looking at agents.  For the dispatcher only.

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
COMMENT ON FUNCTION boocoder._make_jobs() IS 'turns decisions that nobody acted on yet into jobs';

CREATE FUNCTION boocoder._array(value jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE '[]' END
$$;
COMMENT ON FUNCTION boocoder._array(jsonb) IS 'the value if it is an array, an empty one otherwise';

CREATE FUNCTION boocoder._probe_order(v boocoder.providers, host jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT jsonb_build_object(
		'role', 'probe', 'provider', v.name, 'agent_kind', v.kind, 'transport', v.transport, 'command', to_jsonb(a.argv),
		'program', a.argv[1], 'version_args', to_jsonb(v.version_args), 'env', v.env, 'cwd', a.root || '/probes/' || v.name,
		'sandbox', boocoder._sandbox(v, a.root, 'probe-' || v.name, host),
		'limits', (host -> 'limits') || jsonb_build_object('deadline_ms', host -> 'probe_timeout_ms'),
		'models_url', v.models_url, 'models_key', v.models_key, 'models_prefix', v.models_prefix)
	  FROM (SELECT boocoder._argv(v, NULL) AS argv,
				   CASE WHEN cardinality(v.launch_prefix) > 0 THEN '~/.local/share/boocoder/' || (host ->> 'origin')
						ELSE host ->> 'worktree_root' END AS root) a
$$;
COMMENT ON FUNCTION boocoder._probe_order(boocoder.providers, jsonb) IS 'the order to look at an agent; where it was found last time does not count';

CREATE FUNCTION boocoder._job_order(j boocoder.jobs, host jsonb, OUT job_order jsonb, OUT prefix text[]) RETURNS record
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
COMMENT ON FUNCTION boocoder._job_order(boocoder.jobs, jsonb) IS 'the order of a job, and the launch prefix of its runner';

CREATE FUNCTION boocoder._probed(provider text, result jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	a boocoder.available_agents;
	ok boolean := coalesce((result ->> 'ok')::boolean, false);
BEGIN
	SELECT v.name, v.label, v.transport INTO a.name, a.label, a.transport FROM boocoder.providers v WHERE v.name = _probed.provider;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	a.status := CASE WHEN ok AND result ->> 'status' IN ('ready', 'unavailable') THEN result ->> 'status' ELSE 'error' END;
	INSERT INTO boocoder.available_agents (name, label, transport, install_path, version, supports_acp, models, modes, commands,
		current_model, current_mode, capabilities, auth_methods, status, reason, message, probed_at)
	VALUES (a.name, a.label, a.transport, result ->> 'install_path', result ->> 'version',
		coalesce((result ->> 'supports_acp')::boolean, false),
		boocoder._array(result -> 'models'), boocoder._array(result -> 'modes'), boocoder._array(result -> 'commands'),
		result ->> 'current_model', result ->> 'current_mode', coalesce(result -> 'capabilities', '{}'),
		boocoder._array(result -> 'auth_methods'), a.status, result ->> 'reason',
		nullif(concat_ws(E'\n', result ->> 'message', result ->> 'hint'), ''), now())
	ON CONFLICT (name) DO UPDATE
	   SET label = EXCLUDED.label, transport = EXCLUDED.transport, install_path = EXCLUDED.install_path, version = EXCLUDED.version,
		   supports_acp = EXCLUDED.supports_acp, models = EXCLUDED.models, modes = EXCLUDED.modes, commands = EXCLUDED.commands,
		   current_model = EXCLUDED.current_model, current_mode = EXCLUDED.current_mode, capabilities = EXCLUDED.capabilities,
		   auth_methods = EXCLUDED.auth_methods, status = EXCLUDED.status, reason = EXCLUDED.reason, message = EXCLUDED.message,
		   probed_at = EXCLUDED.probed_at;
END
$$;
COMMENT ON FUNCTION boocoder._probed(text, jsonb) IS 'what was found out about an agent';

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

CREATE FUNCTION boocoder._withdraw(t boocoder.tasks) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.permission_requests r SET status = 'cancelled', delivered_at = now()
	 WHERE r.id IN (SELECT q.id FROM boocoder.permission_requests q
					 WHERE q.task_id = t.id AND q.status = 'pending' FOR NO KEY UPDATE SKIP LOCKED);
END
$$;
COMMENT ON FUNCTION boocoder._withdraw(boocoder.tasks) IS 'the agent of a task has ended: what it asked needs no answer any more';

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
COMMENT ON FUNCTION boocoder._start(integer) IS
	'begins the work of a dispatcher: interrupted tasks are repeated or failed, jobs resumed';

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
COMMENT ON FUNCTION boocoder._next_actions(integer, integer, boolean) IS
	'what the dispatcher is to do: cancel, answer, blocked, unblocked, evict, end_server, task, job, due; after a task it is to ask again';

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
COMMENT ON FUNCTION boocoder._prepared(bigint, bigint, jsonb) IS
	'records a worktree that is there; the orders for agent and diff, no row when there is nothing to run';

CREATE FUNCTION boocoder._append(task_ids bigint[], fences bigint[], payloads jsonb[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	last_seq bigint;
	first_seq bigint;
	tasks bigint[];
	telling text[] := ARRAY['permission_request', 'permission_withdrawn', 'mode', 'modes', 'mode_failed', 'models', 'command',
							'title', 'plan'];
	noteworthy boolean;
	event boocoder.events;
BEGIN
	WITH batch AS MATERIALIZED (
		SELECT b.n, t.id, t.chat_id, t.message_id, b.payload
		  FROM unnest(task_ids, fences, payloads) WITH ORDINALITY AS b (task_id, fence, payload, n)
		  JOIN boocoder.tasks t ON t.id = b.task_id AND t.fence = b.fence
	), new_events AS (
		INSERT INTO boocoder.events (task_id, chat_id, kind, payload)
		SELECT b.id, b.chat_id, e ->> 'kind', e -> 'payload'
		  FROM batch b, jsonb_array_elements(coalesce(b.payload -> 'events', '[]')) WITH ORDINALITY AS x (e, k)
		 ORDER BY b.n, x.k
		RETURNING seq, task_id, kind
	), new_parts AS (
		INSERT INTO boocoder.message_parts (message_id, task_id, seq, kind, payload)
		SELECT b.message_id, b.id, (p ->> 'seq')::integer, p ->> 'kind', p -> 'payload'
		  FROM batch b, jsonb_array_elements(coalesce(b.payload -> 'parts', '[]')) WITH ORDINALITY AS x (p, k)
		 ORDER BY b.n, x.k
	)
	SELECT min(seq), max(seq), array_agg(DISTINCT task_id), bool_or(kind = ANY (telling))
	  INTO first_seq, last_seq, tasks, noteworthy FROM new_events;
	IF noteworthy THEN
		FOR event IN SELECT * FROM boocoder.events x
					  WHERE x.seq BETWEEN first_seq AND last_seq AND x.kind = ANY (telling) ORDER BY x.seq
		LOOP
			PERFORM boocoder._note(event);
		END LOOP;
	END IF;

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

-- The ledger gets what is new: an agent's cost report counts from the start of its session, and with of_session its tokens do, too.
CREATE FUNCTION boocoder._charge(task_id bigint, usage jsonb, agent_session text) RETURNS void
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
COMMENT ON FUNCTION boocoder._charge(bigint, jsonb, text) IS
	'one ledger row for what an attempt used; cumulative reports become the difference to what was charged';

CREATE FUNCTION boocoder._store_changes(t boocoder.tasks, diff jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees;
	kept integer := coalesce(current_setting('boocoder.max_turn_snapshots', true), '0')::integer;
BEGIN
	SELECT * INTO w FROM boocoder.worktrees x WHERE x.session_id = t.session_id AND x.deleted_at IS NULL;
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
	   SET snapshot_tree = diff ->> 'tree', facts = coalesce(diff -> 'facts', x.facts),
		   assessed_at = CASE WHEN diff ? 'facts' THEN now() ELSE x.assessed_at END,
		   assess_requested_at = CASE WHEN x.size_bytes IS NULL AND coalesce(current_setting('boocoder.worktree_budget', true), '0') <> '0' THEN now()
									  ELSE x.assess_requested_at END
	 WHERE x.id = w.id;
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
COMMENT ON FUNCTION boocoder._settle(bigint, bigint, jsonb, jsonb) IS
	'ends an attempt: state, changes, usage, message in one transaction; NULL when a lock keeps it from that';
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
					SELECT 1 FROM unnest(paths) x WHERE x NOT LIKE r.path_pattern OR x ~ '(^|/)\.\.(/|$)')
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
		UPDATE boocoder.permission_requests r SET status = 'cancelled', delivered_at = now()
		 WHERE r.task_id = t.id AND r.fence = t.fence AND r.request = e.payload ->> 'request' AND r.status = 'pending';
		PERFORM boocoder._wake_now();
		RETURN;
	END IF;

	PERFORM 1 FROM boocoder.chats c WHERE c.id = t.chat_id FOR KEY SHARE SKIP LOCKED;
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
			(SELECT w.id FROM boocoder.worktrees w WHERE w.session_id = t.session_id AND w.deleted_at IS NULL), 'active');
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
-- SPDX-License-Identifier: PostgreSQL
-- Worktrees: what would be lost with one, when one may go, what is to be done about them.  For the dispatcher.

CREATE FUNCTION boocoder._home(w boocoder.worktrees) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- also when the session was deleted
	RETURN 's' || coalesce(w.session_id::text, substring(w.path from '/s(\d+)(-\d+)?$'));
END
$$;
COMMENT ON FUNCTION boocoder._home(boocoder.worktrees) IS 'the name of the directory that agents of a worktree have as HOME';

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
COMMENT ON FUNCTION boocoder._risks(jsonb, bigint, bigint) IS
	'why a worktree is not to go: running, undecided, dirty, unpushed, unknown (nobody has looked)';

CREATE FUNCTION boocoder._risks_of(w boocoder.worktrees) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder._risks(w.facts,
		(SELECT count(*) FROM boocoder.pending_changes c WHERE c.worktree_id = w.id AND c.status IN ('pending', 'conflict', 'applying')),
		(SELECT count(*) FROM boocoder.tasks t WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked')))
$$;
COMMENT ON FUNCTION boocoder._risks_of(boocoder.worktrees) IS 'the same of a row, as the tables know it';

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
COMMENT ON FUNCTION boocoder._reapable(timestamptz, interval, bigint) IS
	'the worktrees that are to be removed now, and why: deleted or orphaned for longer than the grace, or over the budget; never one that holds what would be missed';

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
COMMENT ON FUNCTION boocoder._reap(jsonb) IS 'has those worktrees removed whose time has come';

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
COMMENT ON FUNCTION boocoder._make_worktree_jobs(jsonb) IS 'turns requests about worktrees into jobs, and the end of their time into removals';

CREATE FUNCTION boocoder._manual_paths(w boocoder.worktrees) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT array_agg(DISTINCT x.path)
	  FROM (SELECT w.request ->> 'path' AS path
			 UNION ALL
			SELECT unnest(ARRAY[c.path, c.old_path]) FROM boocoder.pending_changes c
			 WHERE c.worktree_id = w.id AND c.status IN ('pending', 'conflict')
			   AND w.request ->> 'path' IN (c.path, c.old_path)) x
	 WHERE x.path IS NOT NULL
$$;
COMMENT ON FUNCTION boocoder._manual_paths(boocoder.worktrees) IS
	'the files that a manual change is about: the one it names, and the other end of a rename that is offered';

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
				'save', CASE w.request ->> 'do' WHEN 'stash' THEN 'stash' ELSE 'undo' END, 'to', w.request -> 'to',
				'edit', CASE w.request ->> 'do' WHEN 'edit' THEN jsonb_build_object('path', w.request -> 'path',
					'content', w.request -> 'content', 'paths', to_jsonb(boocoder._manual_paths(w)), 'known', w.snapshot_tree, 'max_bytes', host -> 'max_diff_bytes') END);
		WHEN 'revive' THEN
			result := result || jsonb_build_object('role', 'worktree', 'copy', to_jsonb(p.copy_files),
				'root', boocoder._root(w.path), 'forbidden', host -> 'forbidden');
	END CASE;
	RETURN result;
END
$$;
COMMENT ON FUNCTION boocoder._worktree_job_order(boocoder.jobs, boocoder.projects, boocoder.worktrees, jsonb) IS
	'the order of a job that looks at a worktree, or gives it another content';

CREATE FUNCTION boocoder._save(worktree bigint, kind text, ref text, tree text, task bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	INSERT INTO boocoder.worktree_saves (worktree_id, kind, ref, tree, task_id)
	SELECT worktree, kind, ref, tree, task WHERE ref IS NOT NULL
	ON CONFLICT (worktree_id, ref) DO UPDATE SET tree = excluded.tree, created_at = now()
$$;
COMMENT ON FUNCTION boocoder._save(bigint, text, text, text, bigint) IS 'notes the ref under which a content is kept';

-- The content is the whole file's: it takes the place of what was offered for it.
CREATE FUNCTION boocoder._store_manual(w boocoder.worktrees, changes jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	paths text[] := boocoder._manual_paths(w);
BEGIN
	UPDATE boocoder.pending_changes c SET status = 'superseded'
	 WHERE c.id IN (SELECT o.id FROM boocoder.pending_changes o
					 WHERE o.worktree_id = w.id AND o.status IN ('pending', 'conflict')
					   AND ARRAY[o.path, o.old_path] && paths
					   FOR NO KEY UPDATE SKIP LOCKED);
	INSERT INTO boocoder.pending_changes (session_id, worktree_id, path, old_path, kind, diff, base_commit, additions, deletions)
	SELECT w.session_id, w.id, c ->> 'path', c ->> 'old_path', c ->> 'kind', c ->> 'diff', coalesce(w.diff_base, w.base_commit),
		   (c ->> 'additions')::integer, (c ->> 'deletions')::integer
	  FROM jsonb_array_elements(changes) c;
END
$$;
COMMENT ON FUNCTION boocoder._store_manual(boocoder.worktrees, jsonb) IS 'a change that a person made, instead of what was offered for the same file';

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
			   snapshot_tree = CASE WHEN w.request ? 'task' THEN result ->> 'tree' ELSE x.snapshot_tree END
		 WHERE x.id = w.id;
	END IF;
END
$$;
COMMENT ON FUNCTION boocoder._worktree_job_done(boocoder.jobs, boolean, jsonb, text) IS 'the result of such a job';
-- SPDX-License-Identifier: PostgreSQL
-- Warm backends: which agents stay for another turn, and how long.  Decided here, carried out by the dispatcher.

CREATE FUNCTION boocoder._asks_once(creator text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN creator IN ('arena', 'mcp', 'new_task');
END
$$;
COMMENT ON FUNCTION boocoder._asks_once(text) IS 'does such a task stand by itself, whatever chat it is in?';

-- What the task named when it was enqueued counts: the first turn of a task by itself is not worth an agent that waits.
CREATE FUNCTION boocoder._warm(v boocoder.providers, session bigint, chat bigint, creator text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN session IS NOT NULL AND chat IS NOT NULL AND v.transport IN ('acp', 'opencode_server')
		AND NOT boocoder._asks_once(creator);
END
$$;
COMMENT ON FUNCTION boocoder._warm(boocoder.providers, bigint, bigint, text) IS
	'does such a task use an agent that stays? Only in a chat, with a transport that can, and not for those who ask once';

CREATE FUNCTION boocoder.use_warm_backend(agent text, session bigint, chat bigint, creator text DEFAULT 'api') RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce((SELECT boocoder._warm(jsonb_populate_record(NULL::boocoder.providers, jsonb_build_object('transport', v.transport)),
										   session, chat, creator)
					   FROM boocoder.providers v WHERE v.name = agent), false)
$$;
COMMENT ON FUNCTION boocoder.use_warm_backend(text, bigint, bigint, text) IS
	'would a task of this agent, session, chat and creator be given to an agent that is kept between turns?';

-- What an agent was started with.  Model and mode are not of it: they are changed within a session.
CREATE FUNCTION boocoder._config_hash(v boocoder.providers, w boocoder.worktrees, argv text[], prefix text[], host jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN md5(concat_ws(E'\x01', v.name, v.kind, v.transport, argv, v.env, prefix, v.persistent_home, w.id, w.path,
		host -> 'sandbox', host ->> 'agent_home'));
END
$$;
COMMENT ON FUNCTION boocoder._config_hash(boocoder.providers, boocoder.worktrees, text[], text[], jsonb) IS
	'a fingerprint of how an agent is started: another one means another process';

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
COMMENT ON FUNCTION boocoder._take_backend(boocoder.tasks, boocoder.worktrees, text) IS
	'the backend for a turn, busy from now on; and one that is to end before';

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
COMMENT ON FUNCTION boocoder._stale(text, text, text, text) IS 'why an agent is not to go on with its earlier session; NULL: it is';

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
COMMENT ON FUNCTION boocoder._continued(jsonb, boolean, text, text) IS 'an agent''s order with what goes on: its process, its session';

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
COMMENT ON FUNCTION boocoder._turn_ended(boocoder.tasks, jsonb) IS
	'after a turn: the agent''s session, for the next one to go on with, and whether its process waits for that';

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
COMMENT ON FUNCTION boocoder._evictions(timestamptz, interval, integer) IS
	'the backends that are to end, and why: closed, worktree, provider, idle for too long, or too many (the least recently used)';

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
COMMENT ON FUNCTION boocoder._evict(jsonb) IS 'marks the backends that are to end; all that are marked';

CREATE FUNCTION boocoder._backend_started(backend bigint, pid integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.backends b SET pid = _backend_started.pid WHERE b.id = backend;
	RETURN backend;
END
$$;
COMMENT ON FUNCTION boocoder._backend_started(bigint, integer) IS 'the process of a backend';

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
COMMENT ON FUNCTION boocoder._backend_ended(bigint) IS 'the process of a backend is gone: by itself, unless it was to end';

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
COMMENT ON FUNCTION boocoder._forget_backends() IS 'no backend outlives its dispatcher: those that were warm have crashed';
-- SPDX-License-Identifier: PostgreSQL
-- Servers: agents of which one program serves many chats.  Who shares one, and when it is started again, is decided
-- here; the dispatcher carries it out.

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
COMMENT ON TABLE boocoder.servers IS 'agents that serve many chats, one process each; no foreign keys: a row is there until its process has ended';
COMMENT ON COLUMN boocoder.servers.key IS 'who shares it: one provider, one folder of worktrees';
COMMENT ON COLUMN boocoder.servers.folder IS 'what its sandbox lets it write: the worktrees of one owner''s sessions in one project';
COMMENT ON COLUMN boocoder.servers.config_hash IS 'what it was started with';
COMMENT ON COLUMN boocoder.servers.url IS 'where it listens, on loopback; the password is nowhere but in its runner, the dispatcher and its chats';
COMMENT ON COLUMN boocoder.servers.pid_started IS 'when its process began, in clock ticks since the system did: with pid, that process and no other';
COMMENT ON COLUMN boocoder.servers.failures IS 'looks in a row at which it was not healthy';
COMMENT ON COLUMN boocoder.servers.unhealthy_since IS 'since when those are too many; NULL: they are not';

CREATE FUNCTION boocoder._server_folder(worktree_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN coalesce(substring(worktree_path FROM '^(.*/worktrees/p[0-9]+-[0-9a-f]{8})/[^/]+$'), worktree_path);
END
$$;
COMMENT ON FUNCTION boocoder._server_folder(text) IS
	'the folder that a worktree shares with others of its owner and project; one made before there were such folders stands alone';

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
COMMENT ON FUNCTION boocoder._server_decision(text, integer, boolean, timestamptz, timestamptz, integer, interval) IS
	'keep, restart, or restart_forced: a server that was unhealthy too often in a row is started again, but not while a turn runs, unless that lasts for too long';

CREATE FUNCTION boocoder._server_busy(server bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.server_id = server AND b.state = 'busy');
END
$$;
COMMENT ON FUNCTION boocoder._server_busy(bigint) IS 'does a chat on this server have a turn?';

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
COMMENT ON FUNCTION boocoder._server_order(boocoder.providers, boocoder.worktrees, text[], jsonb) IS 'the order of a server for the chats of a folder of worktrees';

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
COMMENT ON FUNCTION boocoder._take_server(bigint, boocoder.providers, boocoder.worktrees, text[], text[], jsonb) IS
	'the server for a chat, noted with its backend (NULL: none is kept); its order if it is to be started, and one that is to end before';

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
	IF decision = 'give_up' THEN
		decision := decision || ' ' || jsonb_build_object('reason', coalesce(message #>> '{result,reason}', 'agent_exited'),
			'message', coalesce(message #>> '{result,message}', s.problem));
	END IF;
	RETURN coalesce(nullif(decision, 'keep'), tells, 'keep');
END
$$;
COMMENT ON FUNCTION boocoder._server_told(bigint, jsonb) IS
	'records how a server is; keep, ready (with this address), restart (the same order again), restart_forced (though turns run on it), give_up (and, behind a blank, what its chats are told: reason and message), or end';

CREATE FUNCTION boocoder._idle_servers(at timestamptz, idle_ttl interval) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN QUERY
	SELECT s.id FROM boocoder.servers s
	 WHERE s.state <> 'ending' AND s.last_used_at + idle_ttl <= at
	   AND NOT EXISTS (SELECT 1 FROM boocoder.backends b WHERE b.server_id = s.id);
END
$$;
COMMENT ON FUNCTION boocoder._idle_servers(timestamptz, interval) IS 'servers that no chat has been on for so long, and that are to end';

CREATE FUNCTION boocoder._end_servers(host jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.servers s SET state = 'ending'
	 WHERE s.id IN (SELECT boocoder._idle_servers(now(), make_interval(secs => (host ->> 'idle_ttl_ms')::bigint / 1000.0)));
	-- those again of which the dispatcher has not said that they are gone
	RETURN QUERY SELECT s.id FROM boocoder.servers s WHERE s.state = 'ending';
END
$$;
COMMENT ON FUNCTION boocoder._end_servers(jsonb) IS 'marks the servers that are to end; all that are marked';

CREATE FUNCTION boocoder._server_ended(server bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.servers s WHERE s.id = server;
	RETURN server;
END
$$;
COMMENT ON FUNCTION boocoder._server_ended(bigint) IS 'the process of a server is gone, and is not started again';

CREATE FUNCTION boocoder._forget_servers() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.servers;
END
$$;
COMMENT ON FUNCTION boocoder._forget_servers() IS 'at the start of a dispatcher: no server outlives the one that started it';
-- SPDX-License-Identifier: PostgreSQL
-- Projects and providers: for administrators.

CREATE FUNCTION boocoder.add_project(name text, path text, base_branch text DEFAULT NULL,
	default_agent text DEFAULT NULL, default_model text DEFAULT NULL, setup text[] DEFAULT '{}',
	owner name DEFAULT NULL, shared boolean DEFAULT false, allowed_read_paths text[] DEFAULT '{}',
	teardown text[] DEFAULT '{}', copy_files text[] DEFAULT '{}', permission_policy text DEFAULT NULL,
	launch_prefix text[] DEFAULT '{}', worktree_root text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	p boocoder.projects;
	facts jsonb;
	roots jsonb := boocoder._host() -> 'allowed_roots';
	result bigint;
BEGIN
	p.launch_prefix := coalesce(add_project.launch_prefix, '{}');
	p.worktree_root := add_project.worktree_root;
	facts := boocoder._inspect(path, p.launch_prefix, boocoder._worktree_root(p, boocoder._host()));
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
	INSERT INTO boocoder.projects (name, path, base_branch, default_agent, default_model, setup, owner, shared, allowed_read_paths,
		teardown, copy_files, permission_policy, launch_prefix, worktree_root)
	VALUES (add_project.name, facts ->> 'path', add_project.base_branch, add_project.default_agent, add_project.default_model,
		coalesce(add_project.setup, '{}'), coalesce(add_project.owner, current_user), coalesce(add_project.shared, false),
		coalesce(add_project.allowed_read_paths, '{}'), coalesce(add_project.teardown, '{}'), coalesce(add_project.copy_files, '{}'),
		add_project.permission_policy, p.launch_prefix, p.worktree_root)
	RETURNING id INTO result;
	RETURN result;
END
$$;
COMMENT ON FUNCTION boocoder.add_project(text, text, text, text, text, text[], name, boolean, text[], text[], text[], text, text[], text) IS
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
	IF EXISTS (SELECT 1 FROM jsonb_each(env) e
				WHERE e.key !~ '^[A-Za-z_][A-Za-z0-9_]*$' OR jsonb_typeof(e.value) <> 'string'
				  AND NOT coalesce(jsonb_typeof(e.value -> 'from_env') = 'string' OR jsonb_typeof(e.value -> 'from_file') = 'string', false)) THEN
		RAISE EXCEPTION 'the environment of a provider is an object of names and strings' USING ERRCODE = 'BC005',
			HINT = 'A value may also be {"from_env": "NAME"} or {"from_file": "/path"}.';
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
BEGIN
	IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
		RAISE EXCEPTION 'a transaction that is % does not see what becomes of %', current_setting('transaction_isolation'), what
			USING ERRCODE = 'active_sql_transaction', HINT = 'Wait in a transaction that is read committed.';
	ELSIF written_by = pg_current_xact_id_if_assigned()::xid THEN
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

CREATE FUNCTION boocoder.queue_manual_change(session bigint, path text, content text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	the_worktree bigint;
BEGIN
	SELECT w.id INTO the_worktree FROM boocoder.worktrees w WHERE w.session_id = session AND w.status = 'active';
	IF NOT FOUND THEN
		RAISE EXCEPTION 'session % has no worktree', session USING ERRCODE = 'BC002', HINT = 'Its first task makes one.';
	ELSIF coalesce(path, '') = '' THEN
		RAISE EXCEPTION 'no path is given' USING ERRCODE = 'BC005', HINT = 'Name a file by its path in the repository.';
	ELSIF octet_length(content) > pg_size_bytes(current_setting('boocoder.max_diff')) THEN
		RAISE EXCEPTION 'the content has % bytes, more than boocoder.max_diff', octet_length(content)
			USING ERRCODE = 'BC005', HINT = 'Write large files in the project itself.';
	END IF;
	PERFORM boocoder._change_worktree(the_worktree, jsonb_build_object('do', 'edit', 'path', path, 'content', content));
	RETURN the_worktree;
END
$$;
COMMENT ON FUNCTION boocoder.queue_manual_change(bigint, text, text) IS
	'after commit, writes a file into the worktree of a session (content NULL: deletes it) and offers that as a change of nobody''s agent, instead of what was offered for the file; the worktree, for wait_worktree() (SQLSTATE BC002, BC004, BC005)';
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
	 WHERE t.state = 'failed' OR t.state = 'blocked'
	   AND NOT EXISTS (SELECT 1 FROM boocoder.permission_requests r WHERE r.task_id = t.id AND r.status = 'pending')
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
	 WHERE r.status = 'pending'
	UNION ALL
	SELECT c.task_id, p.name, c.agent, 'conflict', 'conflict', string_agg(c.path || ': ' || coalesce(c.error, ''), E'\n' ORDER BY c.id),
		   now() - max(c.decided_at), NULL, NULL, NULL,
		   CASE WHEN c.task_id IS NOT NULL THEN format('SELECT boocoder.apply(%s);  or  SELECT boocoder.reject(%s);', c.task_id, c.task_id)
				ELSE format('SELECT boocoder.apply_changes(%1$L);  or  SELECT boocoder.reject_changes(%1$L);', array_agg(c.id ORDER BY c.id)) END
	  FROM boocoder.pending_changes c JOIN boocoder.worktrees w ON w.id = c.worktree_id JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE c.status = 'conflict' GROUP BY c.task_id, p.name, c.agent
	 ORDER BY 7 DESC
$$;
COMMENT ON FUNCTION boocoder._inbox() IS 'the rows of the view inbox';
CREATE VIEW boocoder.inbox AS SELECT * FROM boocoder._inbox();
COMMENT ON VIEW boocoder.inbox IS 'what waits for a person: failed tasks, requests of agents, changes in conflict; with the reason and what to call';

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
COMMENT ON FUNCTION boocoder._status() IS 'the row of the view status';
CREATE VIEW boocoder.status AS SELECT * FROM boocoder._status();
COMMENT ON VIEW boocoder.status IS 'the dispatcher of this database, and the queue as far as one may see it';

-- Reported, never touched: it may be somebody's.
CREATE FUNCTION boocoder._drift_lines(project text, drift jsonb) RETURNS TABLE ("check" text, status text, detail text, hint text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT 'worktree root', 'warning', format('"%s" is no worktree of this database', d),
		   'It is left alone. Look what it holds; if nobody needs it, remove it yourself.'
	  FROM jsonb_array_elements_text(drift -> 'directories') d
	UNION ALL
	SELECT format('project "%s"', project), 'warning',
		   format('git knows the worktree "%s" at "%s", of which there is no row', e ->> 'name', e ->> 'path'),
		   'It is left alone. If nobody needs it: git worktree remove, or git worktree prune if its directory is gone.'
	  FROM jsonb_array_elements(drift -> 'entries') e
	UNION ALL
	SELECT 'worktree root', 'warning', format('and %s more', drift ->> 'more'), NULL WHERE (drift ->> 'more')::bigint > 0
$$;
COMMENT ON FUNCTION boocoder._drift_lines(text, jsonb) IS 'the lines of doctor() about worktrees without a row';

CREATE FUNCTION boocoder._repository_checks() RETURNS TABLE ("check" text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	project record;
	facts jsonb;
	known jsonb;
	seen text[] := '{}';
BEGIN
	SELECT coalesce(jsonb_agg(w.path), '[]') INTO known FROM boocoder.worktrees w WHERE w.status <> 'removed';
	FOR project IN SELECT p.name, p.path, p.launch_prefix, r.root, format('%s %s', p.launch_prefix, r.root) AS place
					 FROM boocoder.projects p, boocoder._worktree_root(p, boocoder._host()) r (root) WHERE p.archived_at IS NULL ORDER BY p.id LOOP
		"check" := format('project "%s"', project.name);
		BEGIN
			-- a root that projects share is looked into once
			facts := boocoder._inspect(project.path, project.launch_prefix, project.root, jsonb_build_object('known', known,
				'look', NOT (project.place = ANY (seen))));
			seen := seen || project.place;
			status := CASE WHEN (facts ->> 'ok')::boolean THEN 'ok' ELSE 'error' END;
			detail := coalesce(facts ->> 'message', facts ->> 'path');
			hint := concat_ws(' ', facts ->> 'hint', CASE WHEN facts ->> 'reason' IN ('repository_not_owned', 'repository_unreadable')
				AND cardinality(project.launch_prefix) = 0 THEN 'Or let the runners of the project run as its owner: projects.launch_prefix.' END);
		EXCEPTION WHEN OTHERS THEN
			status := 'error';
			detail := SQLERRM;
			hint := NULL;
			facts := NULL;
		END;
		RETURN NEXT;
		RETURN QUERY SELECT * FROM boocoder._drift_lines(project.name, facts -> 'drift');
	END LOOP;
END
$$;
COMMENT ON FUNCTION boocoder._repository_checks() IS 'the lines of doctor() for each project';

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
		  FROM boocoder.providers p WHERE p.enabled AND p.transport <> 'native' AND cardinality(p.command) = 0 AND cardinality(p.builtin_command) = 0
	LOOP
		RETURN NEXT;
	END LOOP;
	FOR "check", status, detail, hint IN
		SELECT 'worktree ' || x.id, 'warning', 'its directory is gone',
			   'The next task of its session makes it again, from its branch; boocoder.worktree_saves tells what it held.'
		  FROM boocoder.worktrees x
		 WHERE x.status = 'active' AND x.request_error IS NULL AND (x.facts ->> 'missing')::boolean
		 UNION ALL
		SELECT 'worktree ' || x.id, 'warning', coalesce(x.request_error, 'its session is gone, but it holds what would be missed: '
				|| array_to_string(boocoder._risks_of(x), ', ')),
			   CASE WHEN x.request_error IS NOT NULL THEN 'What was asked for was not done. The note goes with the next request; boocoder.remove_worktree(id, force => true) archives all that a worktree holds.'
					ELSE 'See boocoder.worktree_risk(); boocoder.remove_worktree(id, force => true) archives all of it.' END
		  FROM boocoder.worktrees x
		 WHERE x.status IN ('active', 'trashed')
		   AND (x.request_error IS NOT NULL OR (x.orphaned_at IS NOT NULL AND x.status = 'active' AND NOT x.forced
				AND boocoder._risks_of(x) && '{dirty,unpushed,undecided}'))
		 ORDER BY 1
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
COMMENT ON FUNCTION boocoder.doctor() IS 'everything a person needs to find out why nothing runs; never fails';
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
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT p.task_id, p.message_id, p.seq, p.payload ->> 'id', p.payload ->> 'kind', p.payload ->> 'title', p.payload ->> 'status',
		   p.payload -> 'locations', p.payload -> 'raw_input', to_timestamp((p.payload ->> 'started_ms')::numeric / 1000),
		   to_timestamp((p.payload ->> 'ended_ms')::numeric / 1000),
		   make_interval(secs => ((p.payload ->> 'ended_ms')::numeric - (p.payload ->> 'started_ms')::numeric)::double precision / 1000)
	  FROM boocoder.message_parts p WHERE p.kind = 'tool_call'
$$;
COMMENT ON FUNCTION boocoder._tool_timeline() IS 'the rows of the view tool_timeline';
CREATE VIEW boocoder.tool_timeline AS SELECT * FROM boocoder._tool_timeline();
COMMENT ON VIEW boocoder.tool_timeline IS 'what tools agents used, on what, how long and with what end';
-- SPDX-License-Identifier: PostgreSQL
-- Worktrees, sessions and chats: look at them, keep what they hold, end them.

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
COMMENT ON FUNCTION boocoder._worktree(bigint) IS 'a worktree one may see (SQLSTATE BC002)';

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
COMMENT ON FUNCTION boocoder.worktree_risk(bigint) IS
	'what would be lost with a worktree: files that no task reported (dirty), commits that no other branch has, not even squashed or rebased (unpushed), undecided changes, agents at work; files and commits as of assessed_at, the end of the last turn or the last refresh_worktree() (SQLSTATE BC002)';

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
COMMENT ON FUNCTION boocoder._change_worktree(bigint, jsonb) IS 'has something done to a worktree after commit (SQLSTATE BC002, BC004)';

CREATE FUNCTION boocoder.refresh_worktree(worktree bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
BEGIN
	UPDATE boocoder.worktrees x SET assess_requested_at = now() WHERE x.id = w.id AND x.status = 'active';
	PERFORM boocoder._wake_now();
END
$$;
COMMENT ON FUNCTION boocoder.refresh_worktree(bigint) IS
	'has a worktree looked at after commit: size_bytes, and what worktree_risk() tells (SQLSTATE BC002)';

CREATE FUNCTION boocoder.worktree_stash(worktree bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder._change_worktree(worktree, '{"do": "stash"}')
$$;
COMMENT ON FUNCTION boocoder.worktree_stash(bigint) IS
	'after commit, sets all that is not committed in a worktree aside under refs/boocoder/stash and leaves it clean; boocoder.worktree_saves then has the ref (SQLSTATE BC002, BC004)';

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
COMMENT ON FUNCTION boocoder.worktree_restore(bigint, bigint) IS
	'after commit, gives a worktree a content it had: a row of boocoder.worktree_saves, or the last stash, or the archive of one that was removed, which is made again; what it holds is kept first (SQLSTATE BC002, BC004)';

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
COMMENT ON FUNCTION boocoder.rewind(bigint, bigint) IS
	'after commit, gives a session''s worktree the content it had at the end of a task; later changes are superseded, what it holds is kept first (SQLSTATE BC002, BC004)';

CREATE FUNCTION boocoder.wait_worktree(worktree bigint, timeout interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	until timestamptz := clock_timestamp() + timeout;
	w boocoder.worktrees;
	seen bigint;
	checked boolean := false;
BEGIN
	LOOP
		seen := boocoder._change_generation();
		w := boocoder._worktree(worktree);
		IF (w.request IS NULL AND w.assess_requested_at IS NULL AND w.status <> 'removing') OR clock_timestamp() >= until THEN
			RETURN coalesce(w.request_error, CASE WHEN w.request IS NOT NULL THEN w.request ->> 'do' ELSE w.status END);
		END IF;
		IF NOT checked THEN
			PERFORM boocoder._check_wait('worktree ' || w.id, (SELECT x.xmin FROM boocoder.worktrees x WHERE x.id = w.id));
			checked := true;
		END IF;
		PERFORM boocoder._wait_change(seen, least(1000, coalesce(extract(epoch FROM until - clock_timestamp()) * 1000, 1000))::integer);
	END LOOP;
END
$$;
COMMENT ON FUNCTION boocoder.wait_worktree(bigint, interval) IS
	'waits until nothing is to be done to a worktree any more, or the time is over; its status, or what went wrong (SQLSTATE BC002; 25001 where that would never be seen).  The request must be committed before.';

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
COMMENT ON FUNCTION boocoder.undelete_worktree(bigint) IS
	'takes back the removal of a worktree within boocoder.worktree_grace; false when it is not trashed (SQLSTATE BC002, BC004)';

CREATE FUNCTION boocoder._cancel_tasks(chat bigint, session bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM boocoder.cancel(t.id) FROM boocoder.tasks t
	 WHERE (t.chat_id = chat OR t.session_id = session) AND t.state IN ('pending', 'running', 'blocked');
END
$$;
COMMENT ON FUNCTION boocoder._cancel_tasks(bigint, bigint) IS 'cancels what has not ended of a chat or a session';

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
COMMENT ON FUNCTION boocoder.close_chat(bigint) IS
	'closes a chat: its tasks are cancelled and its agents end; the session''s worktree stays; false when it was closed already';

CREATE FUNCTION boocoder.agent_sessions_for(session bigint)
RETURNS TABLE (chat_id bigint, agent text, status text, has_session boolean, last_active_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT s.chat_id, s.agent, s.status, s.agent_session_id IS NOT NULL, s.last_active_at
	  FROM boocoder.agent_sessions s JOIN boocoder.chats c ON c.id = s.chat_id
	 WHERE c.session_id = session ORDER BY s.chat_id, s.agent
$$;
COMMENT ON FUNCTION boocoder.agent_sessions_for(bigint) IS 'the agents of the chats of a session, and whether they have a session to go on with';

CREATE FUNCTION boocoder._worktree_disk()
RETURNS TABLE (id bigint, session_id bigint, project text, status text, size_bytes bigint, assessed_at timestamptz,
	created_at timestamptz, deleted_at timestamptz, orphaned_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT w.id, w.session_id, p.name, w.status, w.size_bytes, w.assessed_at, w.created_at, w.deleted_at, w.orphaned_at
	  FROM boocoder.worktrees w JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE w.status <> 'removed' ORDER BY w.size_bytes DESC NULLS LAST, w.id
$$;
COMMENT ON FUNCTION boocoder._worktree_disk() IS 'the rows of boocoder.worktree_disk';
CREATE VIEW boocoder.worktree_disk AS SELECT * FROM boocoder._worktree_disk();
COMMENT ON VIEW boocoder.worktree_disk IS 'the worktrees that take space, the largest first; size_bytes as of assessed_at';

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
COMMENT ON FUNCTION boocoder.stage_changes(bigint[], boolean) IS
	'marks undecided changes for the panels of frontends, or takes the mark away; it decides nothing; how many';

CREATE FUNCTION boocoder.remove_worktree(worktree bigint, force boolean DEFAULT false) RETURNS boolean
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
COMMENT ON FUNCTION boocoder.remove_worktree(bigint, boolean) IS
	'removes a worktree, its content archived under refs/boocoder/archive, when boocoder.worktree_grace is over; until then undelete_worktree() takes it back; refuses while an agent works in it, while changes are undecided, and what worktree_risk() calls dirty or unpushed (SQLSTATE BC004); force rejects the changes and archives the rest';

CREATE FUNCTION boocoder.close_session(session bigint, force boolean DEFAULT false) RETURNS boolean
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
COMMENT ON FUNCTION boocoder.close_session(bigint, boolean) IS
	'closes a session and its chats: tasks are cancelled, agents end, and its worktree is removed by the rules of remove_worktree(), or, if an agent is still at work, once it holds nothing that would be missed';
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
	boocoder.apply_changes(bigint[]), boocoder.reject(bigint), boocoder.reject_changes(bigint[]), boocoder.queue_manual_change(bigint, text, text),
	boocoder.remove_worktree(bigint, boolean), boocoder.close_session(bigint, boolean), boocoder.close_chat(bigint),
	boocoder._cancel_tasks(bigint, bigint), boocoder.undelete_worktree(bigint), boocoder._change_worktree(bigint, jsonb),
	boocoder.refresh_worktree(bigint), boocoder.worktree_stash(bigint), boocoder.worktree_restore(bigint, bigint),
	boocoder.rewind(bigint, bigint), boocoder.stage_changes(bigint[], boolean) TO boocoder_user;

-- administrators
GRANT SELECT, INSERT, UPDATE, DELETE ON boocoder.projects, boocoder.providers TO boocoder_admin;
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
	boocoder._save(bigint, text, text, text, bigint), boocoder._manual_paths(boocoder.worktrees), boocoder._store_manual(boocoder.worktrees, jsonb), boocoder._worktree_job_done(boocoder.jobs, boolean, jsonb, text),
	boocoder._worktree_place(bigint, name, bigint), boocoder._server_folder(text),
	boocoder._server_decision(text, integer, boolean, timestamptz, timestamptz, integer, interval), boocoder._server_busy(bigint),
	boocoder._server_order(boocoder.providers, boocoder.worktrees, text[], jsonb),
	boocoder._take_server(bigint, boocoder.providers, boocoder.worktrees, text[], text[], jsonb), boocoder._server_told(bigint, jsonb),
	boocoder._idle_servers(timestamptz, interval), boocoder._end_servers(jsonb), boocoder._server_ended(bigint), boocoder._forget_servers(),
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
ALTER TABLE boocoder.agent_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.backends ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.worktree_saves ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.servers ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.agent_commands ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.permission_rules ENABLE ROW LEVEL SECURITY;
ALTER TABLE boocoder.permission_requests ENABLE ROW LEVEL SECURITY;

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
CREATE POLICY visible ON boocoder.worktree_saves FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.id = worktree_id));
COMMENT ON POLICY visible ON boocoder.worktree_saves IS 'those of visible worktrees';
CREATE POLICY visible ON boocoder.jobs FOR SELECT TO boocoder_viewer
	USING (kind = 'probe' OR project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.jobs IS 'those of visible projects, and all looks at agents';
CREATE POLICY probe ON boocoder.jobs FOR INSERT TO boocoder_viewer WITH CHECK (kind = 'probe');
COMMENT ON POLICY probe ON boocoder.jobs IS 'everybody may have agents looked at';
CREATE POLICY visible ON boocoder.agent_sessions TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id));
COMMENT ON POLICY visible ON boocoder.agent_sessions IS 'those of visible chats';
CREATE POLICY visible ON boocoder.backends FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id));
COMMENT ON POLICY visible ON boocoder.backends IS 'those of visible chats';
CREATE POLICY visible ON boocoder.servers FOR SELECT TO boocoder_viewer
	USING (project_id IN (SELECT p.id FROM boocoder.projects p));
COMMENT ON POLICY visible ON boocoder.servers IS 'those of visible projects';
CREATE POLICY visible ON boocoder.agent_commands FOR SELECT TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.chats c WHERE c.id = chat_id));
COMMENT ON POLICY visible ON boocoder.agent_commands IS 'those of visible chats';
CREATE POLICY visible ON boocoder.permission_rules FOR SELECT TO boocoder_viewer
	USING ((task_id IS NULL OR EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id))
		   AND (project_id IS NULL OR EXISTS (SELECT 1 FROM boocoder.projects p WHERE p.id = project_id)));
COMMENT ON POLICY visible ON boocoder.permission_rules IS 'general ones, and those of visible projects and tasks';
CREATE POLICY own_tasks ON boocoder.permission_rules TO boocoder_user
	USING (task_id IS NOT NULL AND EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id))
	WITH CHECK (task_id IS NOT NULL AND EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY own_tasks ON boocoder.permission_rules IS 'users make rules for tasks they see';
CREATE POLICY administer ON boocoder.permission_rules TO boocoder_admin USING (true) WITH CHECK (true);
COMMENT ON POLICY administer ON boocoder.permission_rules IS 'administrators make any';
CREATE POLICY visible ON boocoder.permission_requests TO boocoder_viewer
	USING (EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.id = task_id));
COMMENT ON POLICY visible ON boocoder.permission_requests IS 'those of visible tasks';
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

INSERT INTO boocoder.providers (name, label, kind, transport, builtin_command, builtin) VALUES
	('boocode', 'boocode (built in)', 'boocode', 'native', '{}', true),
	('opencode', 'opencode', 'opencode', 'acp', '{opencode,acp}', true),
	('goose', 'goose', 'goose', 'acp', '{goose,acp}', true),
	('claude', 'Claude Code', 'claude', 'stream_json', '{claude,-p,--output-format,stream-json,--input-format,stream-json,--include-partial-messages,--verbose,--permission-prompt-tool,stdio,--model,"{model}",--permission-mode,"{mode}",--resume,"{session}"}', true),
	('qwen', 'Qwen Code', 'qwen', 'acp', '{qwen,--acp}', true),
	('pi', 'pi', 'pi', 'stream_json', '{pi,--mode,json,-p,--model,"{model}",--session,"{session}"}', true),
	('codex', 'Codex', 'codex', 'acp', '{codex-acp}', true),
	('gemini', 'Gemini CLI', 'gemini', 'acp', '{gemini,--acp}', true);

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
SELECT pg_catalog.pg_extension_config_dump('boocoder.worktree_saves',
	$$WHERE worktree_id IN (SELECT id FROM boocoder.worktrees WHERE status IN ('active', 'removed'))$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.pending_changes',
	$$WHERE status <> 'applying' AND worktree_id IN (SELECT id FROM boocoder.worktrees WHERE status IN ('active', 'removed'))
		AND task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled'))$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.permission_rules',
	$$WHERE task_id IS NULL OR task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled'))$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.permission_requests',
	$$WHERE status <> 'pending' AND task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled'))$$);
SELECT pg_catalog.pg_extension_config_dump('boocoder.agent_sessions', '');
SELECT pg_catalog.pg_extension_config_dump('boocoder.agent_commands', '');
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
