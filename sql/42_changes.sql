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
	IF n < (SELECT count(DISTINCT i) FROM unnest(ids) i) THEN
		RAISE EXCEPTION 'some of these changes are not yours to decide about'
			USING ERRCODE = 'BC002', HINT = 'Their project is one that you do not see any more.';
	END IF;
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
