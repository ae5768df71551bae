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
	-- not one INSERT: that takes the place of a built-in one, and with its row goes what refers to it
	UPDATE boocoder.providers p
	   SET label = coalesce(register_provider.label, p.label), transport = register_provider.transport,
		   command = register_provider.command, env = register_provider.env, models = register_provider.models
	 WHERE p.name = register_provider.name;
	IF NOT FOUND THEN
		INSERT INTO boocoder.providers (name, label, transport, command, env, models)
		VALUES (register_provider.name, coalesce(register_provider.label, register_provider.name),
			register_provider.transport, register_provider.command, register_provider.env, register_provider.models);
	END IF;
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
