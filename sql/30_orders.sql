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
	-- clusters and databases that share a root must not share worktrees, nor must two lives of the extension
	RETURN rtrim(coalesce(p.worktree_root, '~/.local/share/boocoder'), '/') || '/' || (host ->> 'place');
END
$$;
COMMENT ON FUNCTION boocoder._worktree_root(boocoder.projects, jsonb) IS
	'where the worktrees of a project are made; ~/ is the home of the user that its runners run as';

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
