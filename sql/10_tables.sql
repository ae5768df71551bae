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
COMMENT ON COLUMN boocoder.projects.allowed_read_paths IS 'absolute paths that its agents can read besides, in the sandbox';
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
	discarded boolean NOT NULL DEFAULT false,
	UNIQUE (id, project_id)
);
CREATE INDEX ON boocoder.sessions (project_id);
COMMENT ON COLUMN boocoder.sessions.discarded IS 'true deletes the row';
COMMENT ON TABLE boocoder.sessions IS 'a workspace: its chats share one worktree';

CREATE TABLE boocoder.chats (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	session_id bigint NOT NULL REFERENCES boocoder.sessions ON DELETE CASCADE,
	title text,
	model text,
	created_at timestamptz NOT NULL DEFAULT now(),
	closed_at timestamptz,
	discarded boolean NOT NULL DEFAULT false,
	UNIQUE (id, session_id)
);
CREATE INDEX ON boocoder.chats (session_id);
COMMENT ON COLUMN boocoder.chats.discarded IS 'true deletes the row';
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
	run_at timestamptz CONSTRAINT tasks_run_at_finite CHECK (isfinite(run_at)),
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
CREATE INDEX tasks_chat ON boocoder.tasks (chat_id) WHERE chat_id IS NOT NULL;
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
CREATE INDEX message_parts_tools ON boocoder.message_parts (task_id, message_id, seq) WHERE kind = 'tool_call';
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
	changes_at timestamptz,
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
CREATE INDEX worktrees_session ON boocoder.worktrees (session_id);
CREATE UNIQUE INDEX worktrees_ports ON boocoder.worktrees (port_first) WHERE status <> 'removed' AND port_first IS NOT NULL;
CREATE INDEX worktrees_removing ON boocoder.worktrees (id) WHERE status = 'removing';
CREATE INDEX worktrees_ending ON boocoder.worktrees (id) WHERE status = 'trashed' OR (status = 'active' AND orphaned_at IS NOT NULL);
CREATE INDEX worktrees_requested ON boocoder.worktrees (id) WHERE request IS NOT NULL OR assess_requested_at IS NOT NULL;
CREATE INDEX worktrees_path ON boocoder.worktrees (path) WHERE status <> 'removed';
CREATE INDEX ON boocoder.worktrees (project_id);
COMMENT ON TABLE boocoder.worktrees IS 'the git worktree of each session';
COMMENT ON COLUMN boocoder.worktrees.base_commit IS 'where the worktree began';
COMMENT ON COLUMN boocoder.worktrees.diff_base IS 'what diffs are made against: base_commit and all that was applied since';
COMMENT ON COLUMN boocoder.worktrees.changes_at IS 'when the changes of a turn were stored last: what was offered before is out of date';
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
CREATE INDEX pending_changes_applied ON boocoder.pending_changes (session_id, path) WHERE status = 'applied';
CREATE INDEX pending_changes_rejected ON boocoder.pending_changes (session_id, path) WHERE status = 'rejected';
-- compressing a large diff takes longer than all else that is done to it
ALTER TABLE boocoder.pending_changes ALTER COLUMN diff SET STORAGE EXTERNAL;
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
	-- LIKE refuses a pattern that ends in its escape character
	path_pattern text CONSTRAINT permission_rules_path_pattern_ends CHECK (path_pattern !~ E'(^|[^\\\\])(\\\\\\\\)*\\\\$'),
	command_pattern text CONSTRAINT permission_rules_command_pattern_ends CHECK (command_pattern !~ E'(^|[^\\\\])(\\\\\\\\)*\\\\$'),
	answer text NOT NULL CHECK (answer IN ('allow', 'reject', 'ask')),
	created_by name NOT NULL DEFAULT current_user,
	created_at timestamptz NOT NULL DEFAULT now(),
	discarded boolean NOT NULL DEFAULT false
);
CREATE INDEX ON boocoder.permission_rules (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX ON boocoder.permission_rules (project_id) WHERE project_id IS NOT NULL;
CREATE INDEX ON boocoder.permission_rules (provider) WHERE provider IS NOT NULL;
COMMENT ON TABLE boocoder.permission_rules IS 'how requests for permission are answered: the rule that is most specific decides';
COMMENT ON COLUMN boocoder.permission_rules.discarded IS 'true deletes the row';
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
