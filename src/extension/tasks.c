/* SPDX-License-Identifier: PostgreSQL */
/*
 * tasks.c
 *	  Carries out what the table of turn.c says.
 *
 * The order of things at the end of a turn matters: what the runner streamed
 * is written before the outcome is, and the outcome is written together with
 * the diff.
 */
#include "postgres.h"

#include "extension/backends.h"
#include "extension/guc.h"
#include "extension/runners.h"
#include "extension/servers.h"
#include "extension/sink.h"
#include "extension/tasks.h"
#include "extension/turn.h"
#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* What a runner needs for itself, on top of what the agent is given */
#define CANCEL_MARGIN_MS 10000

/* What is added to the wait for a lock, each time and at most so often */
#define BUSY_STEP_MS 20
#define BUSY_STEPS 40

typedef struct BcTurn
{
	dlist_node	node;
	MemoryContext context;
	int64		task_id;
	int64		fence;
	BcTurnState state;
	bool		cancelled;		/* before there was an agent to tell */
	bool		overdue;		/* its runner was killed for that */
	int64		backend;		/* under which its agent is kept; 0: it is not */
	int64		server;			/* that its agent is on; 0: on none */
	BcRunner   *runner;			/* NULL: none at work */
	TimestampTz deadline;		/* of the runner; 0: none of ours */
	TimestampTz retry_at;		/* of a database call; 0: none waits */
	int			busy;			/* how often in a row it met a lock */
	bool		blocked;		/* waits for a person, so it holds no slot */
	char	  **git_prefix;		/* launch prefixes; NULL: none */
	char	  **agent_prefix;
	char	   *agent_order;
	char	   *diff_order;
	char	   *result;			/* of the worktree, then of the agent */
	char	   *refused;		/* what goes over that: an event was refused; NULL: none was */
	char	   *diff;			/* result of the diff */
} BcTurn;

static dlist_head turns;
static int	nturns;
static int	nblocked;
static int	nended;

static void step(BcTurn *turn, BcTurnEvent event);

static void
keep(BcTurn *turn, char **slot, const char *text)
{
	if (*slot != NULL)
		pfree(*slot);
	*slot = text == NULL ? NULL : MemoryContextStrdup(turn->context, text);
}

/* Is it the agent that is at work, not one of the runners before or after it? */
static bool
agent_works(const BcTurn *turn)
{
	return turn->state == BC_TURN_RUNNING || turn->state == BC_TURN_CANCELLING;
}

/* Is the runner at work that of an agent which may be kept? */
static bool
in_backend(const BcTurn *turn)
{
	return turn->backend != 0 && agent_works(turn);
}

/* The runner has ended, or was closed. */
static void
forget_backend(const BcTurn *turn)
{
	if (in_backend(turn))
		bc_backends_forget(turn->backend);
}

/* A RESULT in the runner's place. */
static void
make_up(BcTurn *turn, char **slot, bool ok, const char *outcome, const char *reason,
		const char *message)
{
	char	   *text = bc_runners_made_up(ok, outcome, reason, message);

	keep(turn, slot, text);
	pfree(text);
}

static char **
result_slot(BcTurn *turn)
{
	return turn->state == BC_TURN_DIFFING ? &turn->diff : &turn->result;
}

static void
on_message(void *owner, BcRunner *runner, BcFrameType type, const StringInfoData *payload)
{
	BcTurn	   *turn = owner;

	switch (type)
	{
		case BC_FRAME_EVENTS:
			/* It has begun. */
			if (turn->state == BC_TURN_RUNNING)
				turn->deadline = 0;
			bc_sink_add(turn->task_id, turn->fence, payload);
			break;
		case BC_FRAME_RESULT:
			/* The runner is done; what follows is the end of its connection, or another order. */
			if (in_backend(turn) && runner->kept)
				bc_backends_rest(turn->backend);
			else
			{
				forget_backend(turn);
				bc_runners_retire(runner);
			}
			turn->runner = NULL;
			turn->deadline = 0;
			keep(turn, result_slot(turn), payload->data);
			step(turn, BC_EVENT_RESULT);
			break;
		case BC_FRAME_HELLO:
		case BC_FRAME_SERVER:
		case BC_FRAME_ORDER:
		case BC_FRAME_CANCEL:
		case BC_FRAME_ANSWER:
			break;
	}
}

static void
on_gone(void *owner, BcRunner *runner, const char *why)
{
	BcTurn	   *turn = owner;
	bool		ok = agent_works(turn);

	turn->runner = NULL;
	turn->deadline = 0;
	forget_backend(turn);
	if (turn->state == BC_TURN_CANCELLING)
		make_up(turn, &turn->result, ok, "cancelled", "cancelled",
				"the agent did not end by itself");
	else if (turn->overdue && turn->state == BC_TURN_RUNNING)
		make_up(turn, &turn->result, ok, "failed", "runner_start_failed",
				"the launch prefix started no runner within boocoder.handshake_timeout");
	else if (turn->overdue)
		make_up(turn, result_slot(turn), ok, "failed", "git_timeout",
				"a git operation took longer than boocoder.git_timeout");
	else
		make_up(turn, result_slot(turn), ok, "failed", "runner_crashed",
				psprintf("the runner ended unexpectedly: %s", why));
	turn->overdue = false;
	step(turn, BC_EVENT_GONE);
}

static const BcRunnerOwner turn_owner = {on_message, on_gone};

/* A copy that lives as long as the turn. */
static char **
keep_strings(BcTurn *turn, char *const *strings)
{
	int			n = 0;
	char	  **copy;

	if (strings == NULL)
		return NULL;
	while (strings[n] != NULL)
		n++;
	copy = MemoryContextAllocZero(turn->context, (n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		copy[i] = MemoryContextStrdup(turn->context, strings[i]);
	return copy;
}

/* An agent that is on a server has to know where that is. */
static void
tell_server(BcTurn *turn)
{
	char	   *answer = turn->server != 0 && turn->runner != NULL ? bc_servers_answer(turn->server) : NULL;

	if (answer != NULL)
		bc_runners_send(turn->runner, BC_FRAME_ANSWER, answer);
}

/* Orders a runner for the turn's next step; "backend": under which it is to be kept. */
static void
order(BcTurn *turn, char *const *prefix, const char *text, int timeout_ms, int64 backend)
{
	if (backend != 0)
		turn->runner = bc_backends_order(backend, &turn_owner, turn, prefix, text);
	else
		turn->runner = bc_runners_order(&turn_owner, turn, prefix, text);
	if (turn->runner == NULL)
	{
		char	   *message = psprintf("could not start a runner: %m");

		make_up(turn, result_slot(turn), turn->state != BC_TURN_DIFFING, "failed",
				"runner_start_failed", message);
		step(turn, BC_EVENT_GONE);
		return;
	}
	if (text == turn->agent_order)
		tell_server(turn);
	turn->deadline = timeout_ms > 0 ?
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms) : 0;
}

static void
retry_later(BcTurn *turn, BcDbStatus status)
{
	turn->retry_at = bc_db_retry_at(status);
	/* A large outcome takes long to hand over, so a lock that lasts is met less and less often. */
	if (status == BC_DB_BUSY)
		turn->retry_at = TimestampTzPlusMilliseconds(turn->retry_at, BUSY_STEP_MS * turn->busy);
	turn->busy = status == BC_DB_BUSY ? Min(turn->busy + 1, BUSY_STEPS) : 0;
}

static void
ask_orders(BcTurn *turn)
{
	BcDbOrders	orders;
	BcDbStatus	status;

	turn->retry_at = 0;
	status = bc_db_prepared(turn->task_id, turn->fence, turn->result, &orders);
	switch (status)
	{
		case BC_DB_BUSY:
			retry_later(turn, status);
			return;
		case BC_DB_FAILED:
			make_up(turn, &turn->result, true, "failed", "internal_error", bc_db_error());
			step(turn, BC_EVENT_REFUSED);
			return;
		case BC_DB_OK:
			break;
	}
	keep(turn, &turn->agent_order, orders.agent);
	keep(turn, &turn->diff_order, orders.diff);
	if (orders.server_ends != 0)
		bc_servers_end(orders.server_ends);
	turn->server = orders.server;
	if (orders.server_order != NULL)
		bc_servers_start(orders.server, turn->agent_prefix, orders.server_order);
	if (turn->cancelled)
		make_up(turn, &turn->result, true, "cancelled", "cancelled", "cancelled before it ran");
	step(turn, orders.agent != NULL && !turn->cancelled ? BC_EVENT_PREPARED : BC_EVENT_REFUSED);
}

/* Whatever else the agent came to: its session and what it used stay known. */
static void
fail_for_event(BcTurn *turn, const char *error)
{
	make_up(turn, &turn->refused, true, "failed", "bad_event",
			psprintf("the database refused an event of the agent: %s", error));
}

static void
settle(BcTurn *turn)
{
	BcDbStatus	status;
	const char *refused;

	turn->retry_at = 0;
	if (!bc_sink_flush(GetCurrentTimestamp()) && bc_sink_holds(turn->task_id, turn->fence))
	{
		retry_later(turn, BC_DB_BUSY);
		return;
	}
	refused = bc_sink_take_refusal(turn->task_id);
	if (refused != NULL)
		fail_for_event(turn, refused);
	status = bc_db_settle(turn->task_id, turn->fence, turn->result, turn->refused, turn->diff);
	if (status == BC_DB_FAILED)
	{
		/* What it was given can't be stored; the next try stores that fact. */
		char	   *message = psprintf("could not store the outcome: %s", bc_db_error());

		make_up(turn, &turn->result, true, "failed", "internal_error", message);
		keep(turn, &turn->diff, NULL);
	}
	if (status == BC_DB_OK)
		step(turn, BC_EVENT_SETTLED);
	else
		retry_later(turn, status);
}

static void
act(BcTurn *turn, BcTurnAction action)
{
	switch (action)
	{
		case BC_ACTION_ILLEGAL:
		case BC_ACTION_IGNORE:
			break;
		case BC_ACTION_ASK_ORDERS:
			ask_orders(turn);
			break;
		case BC_ACTION_START_AGENT:
			/* A prefix can hang before there is a runner that keeps time. */
			order(turn, turn->agent_prefix, turn->agent_order,
				  turn->agent_prefix != NULL ? bc_handshake_timeout_ms : 0, turn->backend);
			break;
		case BC_ACTION_NOTE_CANCEL:
			turn->cancelled = true;
			break;
		case BC_ACTION_SEND_CANCEL:
			bc_runners_send(turn->runner, BC_FRAME_CANCEL, "");
			turn->deadline =
				TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											bc_cancel_grace_ms + bc_term_grace_ms +
											CANCEL_MARGIN_MS);
			break;
		case BC_ACTION_START_DIFF:
			bc_tasks_block(turn->task_id, turn->fence, false);
			order(turn, turn->git_prefix, turn->diff_order, bc_git_timeout_ms, 0);
			break;
		case BC_ACTION_KILL:
			turn->deadline = 0;
			turn->overdue = true;
			bc_runners_kill(turn->runner);
			break;
		case BC_ACTION_SETTLE:
			settle(turn);
			break;
		case BC_ACTION_FINISH:
			bc_tasks_block(turn->task_id, turn->fence, false);
			dlist_delete(&turn->node);
			nturns--;
			nended++;
			MemoryContextDelete(turn->context);
			break;
	}
}

/* The only place where a turn changes its state. */
static void
step(BcTurn *turn, BcTurnEvent event)
{
	BcTurnRule	rule = bc_turn_rule(turn->state, event);

	if (rule.action == BC_ACTION_ILLEGAL)
		ereport(LOG,
				(errmsg_internal("boocoder: task " INT64_FORMAT ": %s while %s", turn->task_id,
								 bc_turn_event_phrase(event),
								 bc_turn_state_phrase(turn->state))));
	elog(DEBUG1, "boocoder: task " INT64_FORMAT ": %s -> %s (%s)", turn->task_id,
		 bc_turn_state_phrase(turn->state), bc_turn_state_phrase(rule.next),
		 bc_turn_event_phrase(event));
	turn->state = rule.next;
	act(turn, rule.action);
}

void
bc_tasks_init(void)
{
	dlist_init(&turns);
}

void
bc_tasks_start(const BcDbAction *action)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "boocoder turn",
												  ALLOCSET_SMALL_SIZES);
	BcTurn	   *turn = MemoryContextAllocZero(context, sizeof(BcTurn));

	turn->context = context;
	turn->task_id = action->task_id;
	turn->fence = action->fence;
	turn->backend = action->backend;
	turn->server = action->server;
	dlist_push_tail(&turns, &turn->node);
	nturns++;
	keep(turn, &turn->agent_order, action->agent);
	keep(turn, &turn->diff_order, action->diff);
	turn->git_prefix = keep_strings(turn, action->git_prefix);
	turn->agent_prefix = keep_strings(turn, action->agent_prefix);
	if (action->server_order != NULL)
		bc_servers_start(action->server, turn->agent_prefix, action->server_order);
	if (action->prepare != NULL)
	{
		turn->state = BC_TURN_PREPARING;
		order(turn, turn->git_prefix, action->prepare, bc_git_timeout_ms, 0);
	}
	else
	{
		turn->state = BC_TURN_ORDERING;
		step(turn, BC_EVENT_PREPARED);
	}
}

static BcTurn *
find(int64 task_id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &turns)
	{
		BcTurn	   *turn = dlist_container(BcTurn, node, iter.cur);

		if (turn->task_id == task_id)
			return turn;
	}
	return NULL;
}

void
bc_tasks_cancel(int64 task_id, int64 fence)
{
	BcTurn	   *turn = find(task_id);

	if (turn != NULL && turn->fence == fence)
		step(turn, BC_EVENT_CANCEL);
}

void
bc_tasks_answer(int64 task_id, int64 fence, const char *answer)
{
	BcTurn	   *turn = find(task_id);

	/* An agent that is being cancelled has had all its requests answered. */
	if (turn != NULL && turn->fence == fence && turn->state == BC_TURN_RUNNING &&
		turn->runner != NULL)
		bc_runners_send(turn->runner, BC_FRAME_ANSWER, answer);
}

void
bc_tasks_server(int64 server, const char *answer)
{
	dlist_iter	iter;

	dlist_foreach(iter, &turns)
	{
		BcTurn	   *turn = dlist_container(BcTurn, node, iter.cur);

		if (turn->server == server && turn->runner != NULL && agent_works(turn))
			bc_runners_send(turn->runner, BC_FRAME_ANSWER, answer);
	}
}

void
bc_tasks_block(int64 task_id, int64 fence, bool blocked)
{
	BcTurn	   *turn = find(task_id);

	if (turn == NULL || turn->fence != fence || turn->blocked == blocked)
		return;
	turn->blocked = blocked;
	nblocked += blocked ? 1 : -1;
	if (blocked)
		nended++;
}

void
bc_tasks_break(int64 task_id, const char *error)
{
	BcTurn	   *turn = find(task_id);

	if (turn == NULL)
		return;
	fail_for_event(turn, error);
	/* It may be through, and what it used is in its result. */
	if (turn->runner != NULL && agent_works(turn))
	{
		bc_runners_read(turn->runner);
		turn = find(task_id);
	}
	/* An agent that is through is beyond it: its diff is taken all the same. */
	if (turn != NULL && turn->runner != NULL && agent_works(turn))
	{
		BcRunner   *runner = turn->runner;

		turn->runner = NULL;
		turn->deadline = 0;
		forget_backend(turn);
		bc_runners_close(runner);
		keep(turn, &turn->result, "{}");
		step(turn, BC_EVENT_GONE);
	}
}

TimestampTz
bc_tasks_tick(TimestampTz now)
{
	dlist_mutable_iter iter;
	TimestampTz next = 0;

	dlist_foreach_modify(iter, &turns)
	{
		BcTurn	   *turn = dlist_container(BcTurn, node, iter.cur);

		if (turn->deadline != 0 && turn->deadline <= now)
			step(turn, BC_EVENT_OVERDUE);
		else if (turn->retry_at != 0 && turn->retry_at <= now)
		{
			/* A step that waits is always the one of its state. */
			if (turn->state == BC_TURN_ORDERING)
				ask_orders(turn);
			else
				settle(turn);
		}
	}
	dlist_foreach_modify(iter, &turns)
	{
		BcTurn	   *turn = dlist_container(BcTurn, node, iter.cur);

		if (turn->deadline != 0 && (next == 0 || turn->deadline < next))
			next = turn->deadline;
		if (turn->retry_at != 0 && (next == 0 || turn->retry_at < next))
			next = turn->retry_at;
	}
	return next;
}

int
bc_tasks_count(void)
{
	return nturns - nblocked;
}

int
bc_tasks_ended(void)
{
	int			result = nended;

	nended = 0;
	return result;
}
