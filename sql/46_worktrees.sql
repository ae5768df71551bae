-- SPDX-License-Identifier: PostgreSQL
-- Worktrees, sessions and chats: look at them, keep what they hold, end them.

CREATE FUNCTION boocoder._worktree(worktree bigint) RETURNS boocoder.worktrees
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees;
BEGIN
	SELECT * INTO w FROM boocoder.worktrees x WHERE x.id = worktree;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no worktree %', worktree USING ERRCODE = 'BC002', HINT = 'See boocoder.worktrees.';
	END IF;
	RETURN w;
END
$$;
COMMENT ON FUNCTION boocoder._worktree(bigint) IS 'a worktree one may see (SQLSTATE BC002)';

CREATE FUNCTION boocoder.worktree_risk(worktree bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
	undecided bigint;
	running bigint;
	risks text[];
BEGIN
	SELECT count(*) INTO undecided FROM boocoder.pending_changes c
	 WHERE c.worktree_id = w.id AND c.status IN ('pending', 'conflict', 'applying');
	SELECT count(*) INTO running FROM boocoder.tasks t WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked');
	risks := boocoder._risks(w.facts, undecided, running);
	RETURN jsonb_build_object('worktree', w.id, 'status', w.status, 'path', w.path,
		'missing', coalesce((w.facts ->> 'missing')::boolean, false),
		'dirty', coalesce(w.facts -> 'dirty', '[]'), 'dirty_count', coalesce((w.facts ->> 'dirty_count')::bigint, 0),
		'unpushed', coalesce(w.facts -> 'unpushed', '[]'), 'unpushed_count', coalesce((w.facts ->> 'unpushed_count')::bigint, 0),
		'undecided', undecided, 'running', running,
		'agents', (SELECT count(*) FROM boocoder.backends b WHERE b.worktree_id = w.id),
		'size_bytes', w.size_bytes, 'assessed_at', w.assessed_at, 'safe', cardinality(risks) = 0, 'risks', to_jsonb(risks));
END
$$;
COMMENT ON FUNCTION boocoder.worktree_risk(bigint) IS
	'what would be lost with a worktree: files that no task reported (dirty), commits that no other branch has, not even squashed or rebased (unpushed), undecided changes, agents at work; files and commits as of assessed_at, the end of the last turn or the last refresh_worktree() (SQLSTATE BC002)';

CREATE FUNCTION boocoder._change_worktree(worktree bigint, request jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
BEGIN
	IF w.request IS NOT NULL THEN
		RAISE EXCEPTION 'worktree % is being changed already', w.id USING ERRCODE = 'BC004', HINT = 'See boocoder.wait_worktree().';
	ELSIF w.status <> 'active' AND NOT (w.status = 'removed' AND request ->> 'do' = 'restore') THEN
		RAISE EXCEPTION 'worktree % is %', w.id, w.status
			USING ERRCODE = 'BC004', HINT = 'boocoder.undelete_worktree() brings back one that is trashed, boocoder.worktree_restore() one that is removed.';
	ELSIF EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = w.session_id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in worktree %', w.id USING ERRCODE = 'BC004', HINT = 'Cancel its task first.';
	END IF;
	UPDATE boocoder.worktrees x
	   SET request = _change_worktree.request, status = CASE x.status WHEN 'removed' THEN 'creating' ELSE x.status END
	 WHERE x.id = w.id;
	PERFORM boocoder._wake_now();
END
$$;
COMMENT ON FUNCTION boocoder._change_worktree(bigint, jsonb) IS 'has something done to a worktree after commit (SQLSTATE BC002, BC004)';

CREATE FUNCTION boocoder.refresh_worktree(worktree bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
BEGIN
	UPDATE boocoder.worktrees x SET assess_requested_at = now() WHERE x.id = w.id AND x.status = 'active';
	PERFORM boocoder._wake_now();
END
$$;
COMMENT ON FUNCTION boocoder.refresh_worktree(bigint) IS
	'has a worktree looked at after commit: size_bytes, and what worktree_risk() tells (SQLSTATE BC002)';

CREATE FUNCTION boocoder.worktree_stash(worktree bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT boocoder._change_worktree(worktree, '{"do": "stash"}')
$$;
COMMENT ON FUNCTION boocoder.worktree_stash(bigint) IS
	'after commit, sets all that is not committed in a worktree aside under refs/boocoder/stash and leaves it clean; boocoder.worktree_saves then has the ref (SQLSTATE BC002, BC004)';

CREATE FUNCTION boocoder.worktree_restore(worktree bigint, save bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
	s boocoder.worktree_saves;
BEGIN
	SELECT * INTO s FROM boocoder.worktree_saves x
	 WHERE x.worktree_id = w.id AND CASE WHEN save IS NOT NULL THEN x.id = save
										 WHEN w.status = 'removed' THEN x.kind = 'archive' ELSE x.kind = 'stash' END
	 ORDER BY x.id DESC LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'worktree % has nothing to restore', w.id USING ERRCODE = 'BC002', HINT = 'See boocoder.worktree_saves.';
	END IF;
	PERFORM boocoder._change_worktree(w.id, jsonb_build_object('do', 'restore', 'to', s.ref) ||
		CASE WHEN s.task_id IS NOT NULL THEN jsonb_build_object('task', s.task_id) ELSE '{}' END);
END
$$;
COMMENT ON FUNCTION boocoder.worktree_restore(bigint, bigint) IS
	'after commit, gives a worktree a content it had: a row of boocoder.worktree_saves, or the last stash, or the archive of one that was removed, which is made again; what it holds is kept first (SQLSTATE BC002, BC004)';

CREATE FUNCTION boocoder.rewind(session bigint, task bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	s boocoder.worktree_saves;
BEGIN
	SELECT x.* INTO s FROM boocoder.worktree_saves x JOIN boocoder.worktrees w ON w.id = x.worktree_id
	 WHERE w.session_id = rewind.session AND w.deleted_at IS NULL AND x.kind = 'turn' AND x.task_id = rewind.task
	 ORDER BY x.id DESC LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the worktree of session % has no content of task %', session, task
			USING ERRCODE = 'BC002', HINT = 'See boocoder.worktree_saves.';
	END IF;
	PERFORM boocoder._change_worktree(s.worktree_id, jsonb_build_object('do', 'rewind', 'to', s.ref, 'task', s.task_id));
END
$$;
COMMENT ON FUNCTION boocoder.rewind(bigint, bigint) IS
	'after commit, gives a session''s worktree the content it had at the end of a task; later changes are superseded, what it holds is kept first (SQLSTATE BC002, BC004)';

CREATE FUNCTION boocoder.wait_worktree(worktree bigint, timeout interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	until timestamptz := clock_timestamp() + timeout;
	w boocoder.worktrees;
	seen bigint;
	checked boolean := false;
BEGIN
	LOOP
		seen := boocoder._change_generation();
		w := boocoder._worktree(worktree);
		IF (w.request IS NULL AND w.assess_requested_at IS NULL AND w.status <> 'removing') OR clock_timestamp() >= until THEN
			RETURN coalesce(w.request_error, CASE WHEN w.request IS NOT NULL THEN w.request ->> 'do' ELSE w.status END);
		END IF;
		IF NOT checked THEN
			PERFORM boocoder._check_wait('worktree ' || w.id, (SELECT x.xmin FROM boocoder.worktrees x WHERE x.id = w.id));
			checked := true;
		END IF;
		PERFORM boocoder._wait_change(seen, least(1000, coalesce(extract(epoch FROM until - clock_timestamp()) * 1000, 1000))::integer);
	END LOOP;
END
$$;
COMMENT ON FUNCTION boocoder.wait_worktree(bigint, interval) IS
	'waits until nothing is to be done to a worktree any more, or the time is over; its status, or what went wrong (SQLSTATE BC002; 25001 where that would never be seen).  The request must be committed before.';

CREATE FUNCTION boocoder.undelete_worktree(worktree bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w boocoder.worktrees := boocoder._worktree(worktree);
BEGIN
	IF w.status = 'trashed' AND EXISTS (SELECT 1 FROM boocoder.worktrees x WHERE x.session_id = w.session_id AND x.deleted_at IS NULL) THEN
		RAISE EXCEPTION 'session % has another worktree meanwhile', w.session_id
			USING ERRCODE = 'BC004', HINT = 'Remove that one first.';
	END IF;
	UPDATE boocoder.worktrees x SET status = 'active'
	 WHERE x.id = w.id AND x.status = 'trashed';
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION boocoder.undelete_worktree(bigint) IS
	'takes back the removal of a worktree within boocoder.worktree_grace; false when it is not trashed (SQLSTATE BC002, BC004)';

CREATE FUNCTION boocoder._cancel_tasks(chat bigint, session bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM boocoder.cancel(t.id) FROM boocoder.tasks t
	 WHERE (t.chat_id = chat OR t.session_id = session) AND t.state IN ('pending', 'running', 'blocked');
END
$$;
COMMENT ON FUNCTION boocoder._cancel_tasks(bigint, bigint) IS 'cancels what has not ended of a chat or a session';

CREATE FUNCTION boocoder.close_chat(chat bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.chats c SET closed_at = now() WHERE c.id = chat AND c.closed_at IS NULL;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM boocoder._cancel_tasks(chat, NULL);
	PERFORM boocoder._wake_now();
	RETURN true;
END
$$;
COMMENT ON FUNCTION boocoder.close_chat(bigint) IS
	'closes a chat: its tasks are cancelled and its agents end; the session''s worktree stays; false when it was closed already';

CREATE FUNCTION boocoder.agent_sessions_for(session bigint)
RETURNS TABLE (chat_id bigint, agent text, status text, has_session boolean, last_active_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT s.chat_id, s.agent, s.status, s.agent_session_id IS NOT NULL, s.last_active_at
	  FROM boocoder.agent_sessions s JOIN boocoder.chats c ON c.id = s.chat_id
	 WHERE c.session_id = session ORDER BY s.chat_id, s.agent
$$;
COMMENT ON FUNCTION boocoder.agent_sessions_for(bigint) IS 'the agents of the chats of a session, and whether they have a session to go on with';

CREATE FUNCTION boocoder._worktree_disk()
RETURNS TABLE (id bigint, session_id bigint, project text, status text, size_bytes bigint, assessed_at timestamptz,
	created_at timestamptz, deleted_at timestamptz, orphaned_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT w.id, w.session_id, p.name, w.status, w.size_bytes, w.assessed_at, w.created_at, w.deleted_at, w.orphaned_at
	  FROM boocoder.worktrees w JOIN boocoder.projects p ON p.id = w.project_id
	 WHERE w.status <> 'removed' ORDER BY w.size_bytes DESC NULLS LAST, w.id
$$;
COMMENT ON FUNCTION boocoder._worktree_disk() IS 'the rows of boocoder.worktree_disk';
CREATE VIEW boocoder.worktree_disk AS SELECT * FROM boocoder._worktree_disk();
COMMENT ON VIEW boocoder.worktree_disk IS 'the worktrees that take space, the largest first; size_bytes as of assessed_at';

CREATE FUNCTION boocoder.stage_changes(ids bigint[], staged boolean DEFAULT true) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	n bigint;
BEGIN
	UPDATE boocoder.pending_changes c SET staged = stage_changes.staged
	 WHERE c.id = ANY (ids) AND c.status IN ('pending', 'conflict');
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;
COMMENT ON FUNCTION boocoder.stage_changes(bigint[], boolean) IS
	'marks undecided changes for the panels of frontends, or takes the mark away; it decides nothing; how many';

CREATE FUNCTION boocoder.remove_worktree(worktree bigint, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF force THEN
		UPDATE boocoder.pending_changes c SET status = 'rejected'
		 WHERE c.worktree_id = worktree AND c.status IN ('pending', 'conflict');
	END IF;
	UPDATE boocoder.worktrees w SET status = 'trashed', forced = force
	 WHERE w.id = worktree AND w.status IN ('active', 'creating');
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION boocoder.remove_worktree(bigint, boolean) IS
	'removes a worktree, its content archived under refs/boocoder/archive, when boocoder.worktree_grace is over; until then undelete_worktree() takes it back; refuses while an agent works in it, while changes are undecided, and what worktree_risk() calls dirty or unpushed (SQLSTATE BC004); force rejects the changes and archives the rest';

CREATE FUNCTION boocoder.close_session(session bigint, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	at_work boolean;
BEGIN
	UPDATE boocoder.sessions s SET closed_at = now() WHERE s.id = session AND s.closed_at IS NULL;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	UPDATE boocoder.chats c SET closed_at = now() WHERE c.session_id = session AND c.closed_at IS NULL;
	PERFORM boocoder._cancel_tasks(NULL, session);
	at_work := EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = session AND t.state IN ('running', 'blocked'));
	IF at_work THEN
		-- its agent ends first; then the rules for orphans apply
		UPDATE boocoder.worktrees w SET forced = force WHERE w.session_id = session AND w.deleted_at IS NULL;
	ELSE
		PERFORM boocoder.remove_worktree(w.id, force) FROM boocoder.worktrees w
		 WHERE w.session_id = session AND w.deleted_at IS NULL;
	END IF;
	PERFORM boocoder._wake_now();
	RETURN true;
END
$$;
COMMENT ON FUNCTION boocoder.close_session(bigint, boolean) IS
	'closes a session and its chats: tasks are cancelled, agents end, and its worktree is removed by the rules of remove_worktree(), or, if an agent is still at work, once it holds nothing that would be missed';

CREATE FUNCTION boocoder.delete_session(session bigint, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	before text := current_setting('boocoder.force_delete', true);
	done boolean;
BEGIN
	IF force THEN
		PERFORM set_config('boocoder.force_delete', 'on', true);
	END IF;
	UPDATE boocoder.sessions s SET discarded = true WHERE s.id = session;
	done := FOUND;
	IF force THEN
		PERFORM set_config('boocoder.force_delete', coalesce(before, 'off'), true);
	END IF;
	RETURN done;
END
$$;
COMMENT ON FUNCTION boocoder.delete_session(bigint, boolean) IS
	'deletes a session with its chats; its tasks and their costs stay, its worktree goes by the rules for orphans; refused while an agent is at work, and, without force, while its worktree holds what would be missed (SQLSTATE BC004); false when there is none';

CREATE FUNCTION boocoder.delete_chat(chat bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE boocoder.chats c SET discarded = true WHERE c.id = chat;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION boocoder.delete_chat(bigint) IS
	'deletes a chat with its messages; its tasks and their costs stay; refused while an agent is at work (SQLSTATE BC004); false when there is none';
