/* SPDX-License-Identifier: PostgreSQL */
/*
 * turn.h
 *	  The life of one attempt at a task inside the dispatcher: which event
 *	  leads from which state to which, and what is to be done then.
 *
 * Pure: a table and a look-up.  task.c carries the actions out; an action
 * never changes a state.
 */
#ifndef BC_EXTENSION_TURN_H
#define BC_EXTENSION_TURN_H

/* name, phrase for people */
#define BC_TURN_STATES(X) \
	X(PREPARING, "preparing the worktree") \
	X(ORDERING, "asking for the agent's order") \
	X(RUNNING, "running the agent") \
	X(CANCELLING, "cancelling the agent") \
	X(DIFFING, "collecting the changes") \
	X(SETTLING, "settling") \
	X(DONE, "done")

#define BC_TURN_EVENTS(X) \
	X(RESULT, "the runner sent its result") \
	X(GONE, "the runner ended without a result") \
	X(CANCEL, "a cancel was requested") \
	X(OVERDUE, "the runner missed its deadline") \
	X(PREPARED, "the orders are there") \
	X(REFUSED, "there is nothing to run") \
	X(SETTLED, "the outcome is committed")

typedef enum BcTurnState
{
#define BC_TURN_ENUM(name, phrase) BC_TURN_##name,
	BC_TURN_STATES(BC_TURN_ENUM)
#undef BC_TURN_ENUM
	BC_TURN_NSTATES
} BcTurnState;

typedef enum BcTurnEvent
{
#define BC_EVENT_ENUM(name, phrase) BC_EVENT_##name,
	BC_TURN_EVENTS(BC_EVENT_ENUM)
#undef BC_EVENT_ENUM
	BC_TURN_NEVENTS
} BcTurnEvent;

typedef enum BcTurnAction
{
	BC_ACTION_ILLEGAL,			/* the event can't happen in that state */
	BC_ACTION_IGNORE,
	BC_ACTION_ASK_ORDERS,
	BC_ACTION_START_AGENT,
	BC_ACTION_NOTE_CANCEL,
	BC_ACTION_SEND_CANCEL,
	BC_ACTION_START_DIFF,
	BC_ACTION_KILL,				/* the runner; GONE follows */
	BC_ACTION_SETTLE,
	BC_ACTION_FINISH
} BcTurnAction;

typedef struct BcTurnRule
{
	BcTurnState next;
	BcTurnAction action;
} BcTurnRule;

/* What "event" means in "state".  ILLEGAL leaves the state as it is. */
extern BcTurnRule bc_turn_rule(BcTurnState state, BcTurnEvent event);

extern const char *bc_turn_state_phrase(BcTurnState state);
extern const char *bc_turn_event_phrase(BcTurnEvent event);

#endif							/* BC_EXTENSION_TURN_H */
