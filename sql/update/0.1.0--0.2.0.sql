-- SPDX-License-Identifier: PostgreSQL
-- From 0.1.0 to 0.2.0: agents probed, requests for permission, modes, ports, launch prefixes.
\echo Use "ALTER EXTENSION boocoder UPDATE" to load this file. \quit

-- Tables.

ALTER TABLE boocoder.providers
	ADD COLUMN kind text,
	ADD COLUMN builtin_command text[] NOT NULL DEFAULT '{}' CHECK (array_position(builtin_command, NULL) IS NULL),
	ADD COLUMN fallback text CHECK (fallback IN ('pty', 'command')),
	ADD COLUMN fallback_command text[] NOT NULL DEFAULT '{}' CHECK (array_position(fallback_command, NULL) IS NULL),
	ADD COLUMN version_args text[] NOT NULL DEFAULT '{--version}' CHECK (array_position(version_args, NULL) IS NULL),
	ADD COLUMN launch_prefix text[] NOT NULL DEFAULT '{}' CHECK (array_position(launch_prefix, NULL) IS NULL),
	ADD COLUMN persistent_home boolean NOT NULL DEFAULT false,
	ADD COLUMN keep_raw boolean NOT NULL DEFAULT false,
	ADD COLUMN models_url text CHECK (models_url ~ '^https?://'),
	ADD COLUMN models_key jsonb CHECK (jsonb_typeof(models_key) IN ('string', 'object')),
	ADD COLUMN models_prefix text,
	DROP CONSTRAINT providers_env_check,
	ADD CONSTRAINT providers_env_check CHECK (jsonb_typeof(env) = 'object' AND NOT jsonb_path_exists(env,
		'$.* ? (!(@.type() == "string" || @.type() == "object" && (exists (@.from_env) || exists (@.from_file))))')),
	DROP CONSTRAINT providers_permission_policy_check,
	ADD CONSTRAINT providers_permission_policy_check CHECK (permission_policy IN ('allow', 'reject', 'ask'));
-- A trigger makes a changed built-in provider an administrator's; these are not.
ALTER TABLE boocoder.providers DISABLE TRIGGER own;
UPDATE boocoder.providers SET kind = name
 WHERE name IN ('boocode', 'opencode', 'goose', 'claude', 'qwen', 'pi', 'codex', 'gemini');
UPDATE boocoder.providers SET builtin_command = command, command = '{}' WHERE builtin;
UPDATE boocoder.providers SET builtin_command = '{claude,-p,--output-format,stream-json,--input-format,stream-json,--include-partial-messages,--verbose,--permission-prompt-tool,stdio,--model,"{model}",--permission-mode,"{mode}"}' WHERE name = 'claude' AND builtin;
UPDATE boocoder.providers SET builtin_command = '{pi,--mode,json,-p,--model,"{model}"}' WHERE name = 'pi' AND builtin;
ALTER TABLE boocoder.providers ENABLE TRIGGER own;

ALTER TABLE boocoder.available_agents
	ADD COLUMN modes jsonb NOT NULL DEFAULT '[]',
	ADD COLUMN commands jsonb NOT NULL DEFAULT '[]',
	ADD COLUMN current_model text,
	ADD COLUMN current_mode text,
	ADD COLUMN capabilities jsonb NOT NULL DEFAULT '{}',
	ADD COLUMN auth_methods jsonb NOT NULL DEFAULT '[]',
	ADD COLUMN reason text,
	ADD COLUMN message text;
ALTER TABLE boocoder.projects
	ADD COLUMN teardown text[] NOT NULL DEFAULT '{}' CHECK (array_position(teardown, NULL) IS NULL),
	ADD COLUMN copy_files text[] NOT NULL DEFAULT '{}' CHECK (array_position(copy_files, NULL) IS NULL),
	ADD COLUMN permission_policy text CHECK (permission_policy IN ('allow', 'reject', 'ask')),
	ADD COLUMN launch_prefix text[] NOT NULL DEFAULT '{}' CHECK (array_position(launch_prefix, NULL) IS NULL),
	ADD COLUMN worktree_root text CHECK (worktree_root ~ '^(/|~/)');
ALTER TABLE boocoder.chats ADD COLUMN model text;
ALTER TABLE boocoder.tasks
	ADD COLUMN permission_policy text CHECK (permission_policy IN ('allow', 'reject', 'ask')),
	ADD COLUMN retry_requested boolean NOT NULL DEFAULT false,
	ADD COLUMN transport text;
ALTER TABLE boocoder.worktrees
	ADD COLUMN port_first integer,
	ADD COLUMN port_count integer NOT NULL DEFAULT 0,
	ADD COLUMN teardown_done_at timestamptz;
CREATE UNIQUE INDEX worktrees_ports ON boocoder.worktrees (port_first) WHERE deleted_at IS NULL AND port_first IS NOT NULL;
ALTER TABLE boocoder.jobs
	ALTER COLUMN project_id DROP NOT NULL,
	ADD COLUMN provider text REFERENCES boocoder.providers ON UPDATE CASCADE ON DELETE CASCADE,
	DROP CONSTRAINT jobs_kind_check,
	ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('apply', 'remove', 'teardown', 'probe')),
	ADD CONSTRAINT jobs_subject CHECK (CASE kind WHEN 'probe' THEN provider IS NOT NULL ELSE project_id IS NOT NULL END);
CREATE UNIQUE INDEX jobs_one_probe ON boocoder.jobs (provider) WHERE kind = 'probe' AND state IN ('queued', 'running');
UPDATE boocoder.task_transitions SET worker_only = true WHERE from_state = 'blocked' AND to_state = 'pending';

CREATE TABLE boocoder.agent_sessions (
	chat_id bigint NOT NULL REFERENCES boocoder.chats ON DELETE CASCADE,
	agent text NOT NULL,
	session_id bigint REFERENCES boocoder.sessions ON DELETE SET NULL,
	worktree_id bigint REFERENCES boocoder.worktrees ON DELETE SET NULL,
	agent_session_id text,
	status text NOT NULL DEFAULT 'closed' CHECK (status IN ('active', 'idle', 'crashed', 'evicted', 'closed')),
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
COMMENT ON COLUMN boocoder.agent_sessions.mode IS 'the mode the agent said it is in';
COMMENT ON COLUMN boocoder.agent_sessions.wanted_mode IS 'asked for by set_mode(), for this turn and the next ones; NULL: none, or refused';
COMMENT ON COLUMN boocoder.agent_sessions.mode_error IS 'why the agent refused the mode that was asked for last';

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
