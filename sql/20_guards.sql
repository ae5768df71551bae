-- SPDX-License-Identifier: PostgreSQL
-- State machines of rows: which moves are legal, and who may make them.

CREATE TABLE boocoder.task_transitions (
	from_state text NOT NULL,
	to_state text NOT NULL,
	worker_only boolean NOT NULL,
	PRIMARY KEY (from_state, to_state)
);
COMMENT ON TABLE boocoder.task_transitions IS 'the legal moves of a task between states';
INSERT INTO boocoder.task_transitions VALUES
	('pending', 'running', true),
	('pending', 'failed', true),
	('pending', 'cancelled', false),
	('running', 'completed', true),
	('running', 'failed', true),
	('running', 'cancelled', true),
	('running', 'blocked', true),
	('running', 'pending', true),
	('blocked', 'running', true),
	('blocked', 'failed', true),
	('blocked', 'cancelled', true),
	('blocked', 'pending', true),
	('failed', 'pending', false),
	('cancelled', 'pending', false);

CREATE FUNCTION boocoder._guard_task() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	move boocoder.task_transitions;
BEGIN
	IF NEW.state IS DISTINCT FROM OLD.state THEN
		SELECT * INTO move FROM boocoder.task_transitions m
		 WHERE m.from_state = OLD.state AND m.to_state = NEW.state;
		IF NOT FOUND THEN
			RAISE EXCEPTION 'task % is %, it cannot become %', OLD.id, OLD.state, NEW.state
				USING ERRCODE = 'BC001',
					  HINT = 'boocoder.task_transitions lists the moves there are.';
		ELSIF move.worker_only AND NOT pg_has_role('boocoder_worker', 'MEMBER') THEN
			RAISE EXCEPTION 'only the dispatcher makes a task that is % become %', OLD.state, NEW.state
				USING ERRCODE = 'BC001',
					  HINT = 'Use boocoder.cancel(), boocoder.retry() or boocoder.inbox_retry().';
		END IF;
		IF NEW.state = 'pending' THEN
			-- another attempt: what belonged to the last one is history
			NEW.attempt := OLD.attempt + 1;
			NEW.cancel_requested_at := NULL;
			NEW.retry_requested := false;
			NEW.started_at := NULL;
			NEW.ended_at := NULL;
			NEW.failure_reason := NULL;
			NEW.error := NULL;
			NEW.fence := NULL;
			NEW.run_at := NULL;
		ELSIF NEW.state IN ('completed', 'failed', 'cancelled') THEN
			NEW.ended_at := coalesce(NEW.ended_at, now());
			NEW.fence := NULL;
		END IF;
	END IF;
	IF NEW.state = 'pending' OR NEW.cancel_requested_at IS NOT NULL THEN
		PERFORM boocoder._wake_now();
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._guard_task() IS 'trigger: refuses illegal moves of a task (SQLSTATE BC001)';

CREATE TRIGGER guard BEFORE UPDATE ON boocoder.tasks FOR EACH ROW
	WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.cancel_requested_at IS DISTINCT FROM NEW.cancel_requested_at)
	EXECUTE FUNCTION boocoder._guard_task();
COMMENT ON TRIGGER guard ON boocoder.tasks IS 'refuses illegal moves';

CREATE TRIGGER wake AFTER INSERT ON boocoder.tasks FOR EACH STATEMENT EXECUTE FUNCTION boocoder._wake();
COMMENT ON TRIGGER wake ON boocoder.tasks IS 'wakes the dispatcher when the transaction commits';

CREATE FUNCTION boocoder._forget_events() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM boocoder.events e USING gone WHERE e.task_id = gone.id;
	DELETE FROM boocoder.permission_requests r USING gone WHERE r.task_id = gone.id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION boocoder._forget_events() IS 'trigger: events and permission requests go with their task';
CREATE TRIGGER forget_events AFTER DELETE ON boocoder.tasks REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION boocoder._forget_events();
COMMENT ON TRIGGER forget_events ON boocoder.tasks IS 'events go with their task';

CREATE FUNCTION boocoder._refuse_delete() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RAISE EXCEPTION 'an agent is at work on task %', OLD.id
		USING ERRCODE = 'BC004', HINT = 'Cancel it first: boocoder.cancel().';
END
$$;
COMMENT ON FUNCTION boocoder._refuse_delete() IS 'trigger: keeps a task while its agent is at work (SQLSTATE BC004)';
CREATE TRIGGER goes BEFORE DELETE ON boocoder.tasks FOR EACH ROW WHEN (OLD.state IN ('running', 'blocked'))
	EXECUTE FUNCTION boocoder._refuse_delete();
COMMENT ON TRIGGER goes ON boocoder.tasks IS 'keeps a task while its agent is at work';

CREATE FUNCTION boocoder._refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RAISE EXCEPTION 'rows of boocoder.% are never changed', TG_TABLE_NAME USING ERRCODE = 'BC001';
END
$$;
COMMENT ON FUNCTION boocoder._refuse_change() IS 'trigger: keeps a log append-only (SQLSTATE BC001)';
CREATE TRIGGER append_only BEFORE UPDATE ON boocoder.events FOR EACH ROW EXECUTE FUNCTION boocoder._refuse_change();
COMMENT ON TRIGGER append_only ON boocoder.events IS 'events are never changed';

CREATE FUNCTION boocoder._guard_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF (OLD.status, NEW.status) IN (('pending', 'applying'), ('pending', 'rejected'),
									('conflict', 'applying'), ('conflict', 'rejected')) THEN
		-- only a function that decides for somebody may say who
		IF NEW.decided_by IS NOT DISTINCT FROM OLD.decided_by THEN
			NEW.decided_by := current_user;
		END IF;
		NEW.decided_at := now();
		NEW.job_id := NULL;
		NEW.error := NULL;
		PERFORM boocoder._wake_now();
	ELSIF (OLD.status, NEW.status) IN (('pending', 'superseded'), ('conflict', 'superseded'),
			('applying', 'applied'), ('applying', 'conflict'), ('applying', 'pending'), ('applying', 'superseded'))
		AND pg_has_role('boocoder_worker', 'MEMBER') THEN
		NULL;
	ELSE
		RAISE EXCEPTION 'change % is %, it cannot become %', OLD.id, OLD.status, NEW.status
			USING ERRCODE = 'BC001',
				  HINT = 'A change that is pending or in conflict can be applied or rejected.';
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._guard_change() IS 'trigger: refuses illegal moves of a change (SQLSTATE BC001)';
CREATE TRIGGER guard BEFORE UPDATE ON boocoder.pending_changes FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION boocoder._guard_change();
COMMENT ON TRIGGER guard ON boocoder.pending_changes IS 'refuses illegal moves';

CREATE FUNCTION boocoder._guard_worktree() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	what text := NEW.request ->> 'do';
	s boocoder.worktree_saves;
BEGIN
	IF NEW.request IS NOT NULL AND NEW.request IS DISTINCT FROM OLD.request THEN
		IF OLD.request IS NOT NULL THEN
			RAISE EXCEPTION 'worktree % is being changed already', OLD.id
				USING ERRCODE = 'BC004', HINT = 'See boocoder.wait_worktree().';
		END IF;
		NEW.request_error := NULL;
		-- the column is open to people: what the dispatcher reads of it later is written here
		IF what = 'stash' THEN
			NEW.request := '{"do": "stash"}';
		ELSIF what IN ('restore', 'rewind') THEN
			SELECT * INTO s FROM boocoder.worktree_saves x WHERE x.worktree_id = OLD.id AND x.ref = NEW.request ->> 'to';
			IF NOT FOUND THEN
				RAISE EXCEPTION 'worktree % has no content "%"', OLD.id, NEW.request ->> 'to'
					USING ERRCODE = 'BC002', HINT = 'See boocoder.worktree_saves.';
			END IF;
			NEW.request := jsonb_build_object('do', what, 'to', s.ref)
				|| CASE WHEN s.task_id IS NOT NULL THEN jsonb_build_object('task', s.task_id) ELSE '{}' END;
		ELSIF what = 'edit' AND NEW.request ->> 'path' <> '' AND jsonb_typeof(NEW.request -> 'path') = 'string'
			AND coalesce(jsonb_typeof(NEW.request -> 'content'), 'null') IN ('string', 'null') THEN
			NEW.request := jsonb_build_object('do', 'edit', 'path', NEW.request -> 'path', 'content', NEW.request -> 'content');
		ELSE
			RAISE EXCEPTION 'this is no request about a worktree: %', left(NEW.request::text, 100)
				USING ERRCODE = 'BC005',
					  HINT = 'Use boocoder.worktree_stash(), worktree_restore(), rewind() or queue_manual_change().';
		END IF;
	END IF;
	IF NEW.status = OLD.status THEN
		RETURN NEW;
	ELSIF (OLD.status, NEW.status) IN (('trashed', 'active'), ('removed', 'creating')) THEN
		NEW.deleted_at := NULL;
		NEW.orphaned_at := NULL;
		NEW.forced := false;
		-- another one may have its ports by now: the next claim leases some
		NEW.port_first := CASE OLD.status WHEN 'trashed' THEN NEW.port_first END;
		RETURN NEW;
	ELSIF (NEW.status NOT IN ('trashed', 'removing') OR OLD.status = 'removing') AND pg_has_role('boocoder_worker', 'MEMBER') THEN
		RETURN NEW;
	ELSIF NOT (NEW.status = 'trashed' AND OLD.status IN ('active', 'creating'))
		AND NOT (NEW.status = 'removing' AND OLD.status IN ('active', 'creating', 'trashed')) THEN
		RAISE EXCEPTION 'worktree % is %, it cannot become %', OLD.id, OLD.status, NEW.status
			USING ERRCODE = 'BC001';
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.tasks t
				WHERE t.session_id = OLD.session_id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in worktree %', OLD.id
			USING ERRCODE = 'BC004', HINT = 'Cancel its task first.';
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.pending_changes c
				WHERE c.worktree_id = OLD.id AND c.status IN ('pending', 'conflict', 'applying')) THEN
		RAISE EXCEPTION 'worktree % has changes that nobody has decided about', OLD.id
			USING ERRCODE = 'BC004', HINT = 'Apply or reject them, or use force, which rejects them.';
	END IF;
	IF NOT NEW.forced AND OLD.status <> 'trashed'
		AND ((OLD.facts ->> 'dirty_count')::bigint > 0 OR (OLD.facts ->> 'unpushed_count')::bigint > 0) THEN
		RAISE EXCEPTION 'worktree % holds % changed files that no task has reported, and % commits that no other branch has',
			OLD.id, OLD.facts ->> 'dirty_count', OLD.facts ->> 'unpushed_count'
			USING ERRCODE = 'BC004',
				  HINT = 'Look with boocoder.worktree_risk(); push or merge the commits, or use force, which archives all of it.';
	END IF;
	NEW.deleted_at := coalesce(NEW.deleted_at, CASE NEW.status WHEN 'trashed' THEN now() END);
	PERFORM boocoder._wake_now();
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._guard_worktree() IS 'trigger: keeps a worktree while it is needed (SQLSTATE BC001, BC004)';
CREATE TRIGGER guard BEFORE UPDATE ON boocoder.worktrees FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.request IS DISTINCT FROM NEW.request)
	EXECUTE FUNCTION boocoder._guard_worktree();
COMMENT ON TRIGGER guard ON boocoder.worktrees IS 'keeps a worktree while it is needed';

-- Whoever may end a session may do what follows from it.
CREATE FUNCTION boocoder._session_ends() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	risks text[];
	force boolean;
BEGIN
	IF TG_OP = 'UPDATE' THEN
		UPDATE boocoder.worktrees w
		   SET orphaned_at = CASE WHEN NEW.closed_at IS NULL THEN NULL ELSE now() END, assess_requested_at = now()
		 WHERE w.session_id = NEW.id AND w.deleted_at IS NULL;
		RETURN NEW;
	END IF;
	IF EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.session_id = OLD.id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in session %', OLD.id
			USING ERRCODE = 'BC004', HINT = 'boocoder.close_session() cancels its tasks.';
	END IF;
	-- a session that never called the library knows no settings of it
	force := coalesce(nullif(current_setting('boocoder.force_delete', true), '')::boolean, false);
	SELECT boocoder._risks_of(w) INTO risks FROM boocoder.worktrees w
	 WHERE w.session_id = OLD.id AND w.status = 'active' AND w.deleted_at IS NULL;
	IF risks && '{dirty,unpushed,undecided}' AND NOT force THEN
		RAISE EXCEPTION 'the worktree of session % is %', OLD.id, array_to_string(risks, ', ')
			USING ERRCODE = 'BC004',
				  HINT = 'See boocoder.worktree_risk(). SET boocoder.force_delete = on leaves the worktree to be archived and removed.';
	END IF;
	UPDATE boocoder.worktrees w
	   SET orphaned_at = now(), assess_requested_at = now(), forced = w.forced OR force
	 WHERE w.session_id = OLD.id AND w.deleted_at IS NULL;
	IF force THEN
		-- by whom: here, current_user is the owner of this function
		UPDATE boocoder.pending_changes c SET decided_by = NULL WHERE c.session_id = OLD.id AND c.status IN ('pending', 'conflict');
		UPDATE boocoder.pending_changes c
		   SET status = 'rejected', decided_by = coalesce(nullif(current_setting('role'), 'none'), session_user)
		 WHERE c.session_id = OLD.id AND c.status IN ('pending', 'conflict');
	END IF;
	UPDATE boocoder.tasks t SET state = 'cancelled' WHERE t.session_id = OLD.id AND t.state = 'pending';
	UPDATE boocoder.tasks t SET session_id = NULL, chat_id = NULL WHERE t.session_id = OLD.id;
	RETURN OLD;
END
$$;
COMMENT ON FUNCTION boocoder._session_ends() IS
	'trigger: a session that is closed or deleted leaves its worktree to the reaper; refused while an agent is at work, or what is in the worktree would be missed (SQLSTATE BC004)';
CREATE TRIGGER closes AFTER UPDATE ON boocoder.sessions FOR EACH ROW
	WHEN (OLD.closed_at IS DISTINCT FROM NEW.closed_at) EXECUTE FUNCTION boocoder._session_ends();
COMMENT ON TRIGGER closes ON boocoder.sessions IS 'leaves the worktree to the reaper';
CREATE TRIGGER goes BEFORE DELETE ON boocoder.sessions FOR EACH ROW EXECUTE FUNCTION boocoder._session_ends();
COMMENT ON TRIGGER goes ON boocoder.sessions IS 'keeps a session while its worktree holds what would be missed';

CREATE FUNCTION boocoder._chat_goes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT 1 FROM boocoder.tasks t WHERE t.chat_id = OLD.id AND t.state IN ('running', 'blocked')) THEN
		RAISE EXCEPTION 'an agent is at work in chat %', OLD.id
			USING ERRCODE = 'BC004', HINT = 'boocoder.close_chat() cancels its tasks.';
	END IF;
	UPDATE boocoder.tasks t SET state = 'cancelled' WHERE t.chat_id = OLD.id AND t.state = 'pending';
	UPDATE boocoder.tasks t SET chat_id = NULL WHERE t.chat_id = OLD.id;
	PERFORM boocoder._wake_now();
	RETURN OLD;
END
$$;
COMMENT ON FUNCTION boocoder._chat_goes() IS 'trigger: a chat goes with its messages, its tasks stay; refused while an agent is at work (SQLSTATE BC004)';
CREATE TRIGGER goes BEFORE DELETE ON boocoder.chats FOR EACH ROW EXECUTE FUNCTION boocoder._chat_goes();
COMMENT ON TRIGGER goes ON boocoder.chats IS 'keeps a chat while an agent is at work in it';

-- People have no DELETE, as that would let them lock a whole table.  Who may change a row so may delete it so.
CREATE FUNCTION boocoder._discard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	EXECUTE format('DELETE FROM boocoder.%I x WHERE x.id = $1', TG_TABLE_NAME) USING NEW.id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION boocoder._discard() IS 'trigger: deletes a row that is marked as discarded';
CREATE TRIGGER discard AFTER UPDATE ON boocoder.sessions FOR EACH ROW WHEN (NEW.discarded) EXECUTE FUNCTION boocoder._discard();
CREATE TRIGGER discard AFTER UPDATE ON boocoder.chats FOR EACH ROW WHEN (NEW.discarded) EXECUTE FUNCTION boocoder._discard();
CREATE TRIGGER discard AFTER UPDATE ON boocoder.permission_rules FOR EACH ROW WHEN (NEW.discarded) EXECUTE FUNCTION boocoder._discard();
COMMENT ON TRIGGER discard ON boocoder.sessions IS 'deletes the row';
COMMENT ON TRIGGER discard ON boocoder.chats IS 'deletes the row';
COMMENT ON TRIGGER discard ON boocoder.permission_rules IS 'deletes the row';

-- A row that is not committed yet can't be skipped, only waited for; the lock on its chat says that it is there.
CREATE FUNCTION boocoder._new_agent_session() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF current_user <> 'boocoder_worker' THEN
		PERFORM 1 FROM boocoder.chats c WHERE c.id = NEW.chat_id FOR NO KEY UPDATE;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._new_agent_session() IS 'trigger: a client that adds a row keeps the dispatcher from adding the same and waiting for it';
CREATE TRIGGER appears BEFORE INSERT ON boocoder.agent_sessions FOR EACH ROW EXECUTE FUNCTION boocoder._new_agent_session();
COMMENT ON TRIGGER appears ON boocoder.agent_sessions IS 'keeps the dispatcher from waiting for a client';

CREATE FUNCTION boocoder._guard_permission() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF pg_has_role('boocoder_worker', 'MEMBER') AND NOT pg_has_role('boocoder_user', 'MEMBER') THEN
		RETURN NEW;
	END IF;
	IF (OLD.status, NEW.status) IS DISTINCT FROM ('pending', 'answered') THEN
		RAISE EXCEPTION 'request % is %, it cannot become %', OLD.id, OLD.status, NEW.status
			USING ERRCODE = 'BC001', HINT = 'Only a pending request can be answered; see boocoder.inbox.';
	ELSIF OLD.kind = 'permission' AND NOT EXISTS (
			SELECT 1 FROM jsonb_array_elements(OLD.options) o WHERE o ->> 'optionId' = NEW.chosen_option) THEN
		RAISE EXCEPTION 'request % has no option "%"', OLD.id, NEW.chosen_option
			USING ERRCODE = 'BC005', HINT = 'Its options: ' || coalesce(
				(SELECT string_agg(o ->> 'optionId', ', ') FROM jsonb_array_elements(OLD.options) o), 'none');
	END IF;
	NEW.answered_by := current_user;
	NEW.answered_at := clock_timestamp();
	NEW.rule := NULL;
	PERFORM boocoder._wake_now();
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._guard_permission() IS
	'trigger: a person answers a pending request, by one of its options (SQLSTATE BC001, BC005)';
CREATE TRIGGER guard BEFORE UPDATE ON boocoder.permission_requests FOR EACH ROW EXECUTE FUNCTION boocoder._guard_permission();
COMMENT ON TRIGGER guard ON boocoder.permission_requests IS 'refuses illegal answers';

-- A built-in provider that an administrator changed is data of that database: a dump holds it, and its
-- row replaces the one that CREATE EXTENSION makes in the restored database.
CREATE FUNCTION boocoder._own_provider() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'UPDATE' THEN
		NEW.builtin := false;
	ELSIF NOT NEW.builtin THEN
		DELETE FROM boocoder.providers p WHERE p.name = NEW.name AND p.builtin;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION boocoder._own_provider() IS 'trigger: a built-in provider that is changed is built in no longer';
CREATE TRIGGER own BEFORE INSERT OR UPDATE ON boocoder.providers FOR EACH ROW EXECUTE FUNCTION boocoder._own_provider();
COMMENT ON TRIGGER own ON boocoder.providers IS 'a built-in provider that is changed is built in no longer';
