-- SPDX-License-Identifier: PostgreSQL
-- Orders: what a runner is told.  doc/protocol.md describes their fields.

CREATE FUNCTION boocoder._root(worktree_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- not LANGUAGE sql: that is planned anew at each call, which is a tenth of a claim
	RETURN regexp_replace(worktree_path, '/worktrees/[^/]+$', '');
END
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
