-- SPDX-License-Identifier: PostgreSQL
\i test/regress.psql
SELECT name, transport, command, enabled, permission_policy FROM boocoder.providers WHERE builtin ORDER BY name COLLATE "C";
SET ROLE regress_admin;
SELECT boocoder.register_provider('fixer', 'command', '{/opt/fixer,--all}', '{"TOKEN": "t", "LEVEL": "2"}', 'The fixer', '["m1"]');
SELECT * FROM boocoder.launch_spec('fixer');
-- again: changed, not doubled
SELECT boocoder.register_provider('fixer', 'acp', '{fixer}');
SELECT name, label, transport, command, env, models, builtin FROM boocoder.providers WHERE name = 'fixer';
SELECT q, pg_temp.attempt(q) FROM unnest(ARRAY[
	'SELECT boocoder.register_provider(''fixer'', ''telepathy'')', 'SELECT boocoder.register_provider(''Bad Name'', ''command'', ''{x}'')',
	'SELECT boocoder.register_provider(''x'', ''command'', ''{x,NULL}'')',
	'SELECT boocoder.register_provider(''x'', ''command'', ''{x}'', ''{"A": 1}'')',
	'SELECT boocoder.register_provider(''x'', ''command'', ''{x}'', ''{"A=B": "1"}'')',
	'SELECT boocoder.register_provider(''x'', ''command'', ''{x}'', ''[]'')',
	'INSERT INTO boocoder.providers (name, label, transport, env) VALUES (''x'', ''x'', ''command'', ''{"A": 1}'')',
	'SELECT boocoder.remove_provider(''goose'')']) q;
SELECT boocoder.remove_provider('fixer'), boocoder.remove_provider('fixer') AS again;
-- A built-in one that an administrator changed is built in no longer: a dump holds it.
UPDATE boocoder.providers SET enabled = false WHERE name = 'goose';
SELECT boocoder.register_provider('opencode', 'acp', '{/opt/opencode/bin/opencode,acp}');
SELECT name, enabled, builtin FROM boocoder.providers WHERE name IN ('goose', 'opencode', 'qwen') ORDER BY 1;
-- and takes the place of the one that a new extension has.
INSERT INTO boocoder.providers (name, label, transport, command) VALUES ('qwen', 'mine', 'acp', '{qwen,--acp,--debug}');
SELECT name, label, command, builtin FROM boocoder.providers WHERE name = 'qwen';
-- Projects.
SELECT boocoder.archive_project('alpha'), boocoder.archive_project('alpha') AS again;
SELECT boocoder.archive_project('nowhere');
SELECT q, pg_temp.attempt(q) FROM unnest(ARRAY[
	'INSERT INTO boocoder.projects (name, path) VALUES (''beta'', ''/srv/x'')', 'INSERT INTO boocoder.projects (name, path) VALUES (''x'', ''relative'')',
	'INSERT INTO boocoder.projects (name, path) VALUES ('''', ''/srv/x'')', 'INSERT INTO boocoder.projects (name, path, setup) VALUES (''x'', ''/srv/x'', ''{NULL}'')']) q;
