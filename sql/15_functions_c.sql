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
