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
-- all of them: others refer to them, and those that another database made are given up
SELECT pg_catalog.pg_extension_config_dump('boocoder.worktrees', '');
SELECT pg_catalog.pg_extension_config_dump('boocoder.worktree_saves', '');
SELECT pg_catalog.pg_extension_config_dump('boocoder.pending_changes',
	$$WHERE status <> 'applying'
		AND (task_id IS NULL OR task_id IN (SELECT id FROM boocoder.tasks WHERE state IN ('completed', 'failed', 'cancelled')))$$);
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
