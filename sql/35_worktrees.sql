-- SPDX-License-Identifier: PostgreSQL
-- Worktrees: what would be lost with one, when one may go, what is to be done about them.  For the dispatcher.

CREATE FUNCTION boocoder._home(w boocoder.worktrees) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- also when the session was deleted
	RETURN 's' || coalesce(w.session_id::text, substring(w.path from '/s([0-9]+)(-[0-9]+)?$'));
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
			   NOT 'running' = ANY (risks) AND (x.forced OR CASE x.status WHEN 'trashed' THEN NOT 'undecided' = ANY (risks)
																		  ELSE cardinality(risks) = 0 END) AS safe
		  FROM boocoder.worktrees x, boocoder._risks_of(x) risks
		 WHERE (x.status = 'trashed' OR (x.status = 'active' AND x.orphaned_at IS NOT NULL))
		   -- one that could not be removed is not tried again and again
		   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j
							WHERE j.worktree_id = x.id AND j.kind = 'remove' AND j.state = 'failed' AND j.ended_at > at - interval '10 min'
							  AND j.ended_at > coalesce(x.deleted_at, x.orphaned_at))
		 ORDER BY x.status = 'trashed' DESC, coalesce(x.deleted_at, x.orphaned_at), x.id
	LOOP
		CONTINUE WHEN NOT w.safe;
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
DECLARE
	w record;
BEGIN
	FOR w IN
		SELECT q.id, q.forced FROM boocoder.worktrees q
		 WHERE q.id IN (SELECT r.worktree FROM boocoder._reapable(now(),
							make_interval(secs => (host ->> 'worktree_grace_ms')::bigint / 1000.0),
							(host ->> 'worktree_budget')::bigint) r)
		   FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		-- of a turn that ended after it was decided that all goes
		UPDATE boocoder.pending_changes c SET status = 'rejected'
		 WHERE w.forced
		   AND c.id IN (SELECT o.id FROM boocoder.pending_changes o
						 WHERE o.worktree_id = w.id AND o.status IN ('pending', 'conflict') FOR NO KEY UPDATE SKIP LOCKED);
		-- one that is being applied, or that a client has, is waited for
		CONTINUE WHEN EXISTS (SELECT 1 FROM boocoder.pending_changes c
							   WHERE c.worktree_id = w.id AND c.status IN ('pending', 'conflict', 'applying'));
		BEGIN
			UPDATE boocoder.worktrees x SET status = 'removing' WHERE x.id = w.id;
		EXCEPTION WHEN OTHERS THEN
			RAISE LOG 'boocoder: worktree % cannot be removed: %', w.id, SQLERRM;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION boocoder._reap(jsonb) IS 'has those worktrees removed whose time has come';

-- A restored dump has the rows of worktrees that are another database's: they are given up before anything is done about them.
CREATE FUNCTION boocoder._disown(host jsonb) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	UPDATE boocoder.worktrees w
	   SET status = 'removed', deleted_at = coalesce(w.deleted_at, now()), request = NULL, assess_requested_at = NULL
	 WHERE w.id IN (SELECT q.id FROM boocoder.worktrees q
					 WHERE q.status <> 'removed' AND q.origin <> host ->> 'origin' FOR NO KEY UPDATE SKIP LOCKED)
$$;
COMMENT ON FUNCTION boocoder._disown(jsonb) IS 'marks the worktrees that another database made as removed: nothing of theirs is touched';

-- A request of people for a worktree is one job, once no agent is at work there.
CREATE FUNCTION boocoder._make_worktree_jobs(host jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM boocoder._disown(host);
	IF EXISTS (SELECT 1 FROM boocoder.worktrees w WHERE w.status = 'trashed' OR (w.status = 'active' AND w.orphaned_at IS NOT NULL)) THEN
		PERFORM boocoder._reap(host);
	END IF;
	INSERT INTO boocoder.jobs (kind, project_id, worktree_id)
	SELECT CASE WHEN w.request IS NULL THEN 'assess' WHEN w.status = 'creating' THEN 'revive' ELSE 'rewrite' END, w.project_id, w.id
	  FROM boocoder.worktrees w JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE (w.request IS NOT NULL OR w.assess_requested_at IS NOT NULL) AND w.status IN ('active', 'creating') AND w.origin = host ->> 'origin'
	   AND (w.request IS NOT NULL OR w.status = 'active')
	   AND NOT EXISTS (SELECT 1 FROM boocoder.jobs j WHERE j.worktree_id = w.id AND j.state IN ('queued', 'running'))
	   AND NOT EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked'))
	   FOR KEY SHARE OF w, p SKIP LOCKED;
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
			   snapshot_tree = CASE WHEN w.request ? 'task' THEN result ->> 'tree' ELSE x.snapshot_tree END,
			   changes_at = CASE WHEN w.request ? 'task' THEN now() ELSE x.changes_at END
		 WHERE x.id = w.id;
	END IF;
END
$$;
COMMENT ON FUNCTION boocoder._worktree_job_done(boocoder.jobs, boolean, jsonb, text) IS 'the result of such a job';
