/* SPDX-License-Identifier: PostgreSQL */
/*
 * turn.c
 *	  The table of turn.h.
 */
#include "extension/turn.h"

#define RULE(state, event, next, action) \
	[BC_TURN_##state][BC_EVENT_##event] = {BC_TURN_##next, BC_ACTION_##action}

/* An absent cell is zero: illegal. */
static const BcTurnRule rules[BC_TURN_NSTATES][BC_TURN_NEVENTS] = {
	RULE(PREPARING, RESULT, ORDERING, ASK_ORDERS),
	RULE(PREPARING, GONE, SETTLING, SETTLE),
	RULE(PREPARING, CANCEL, PREPARING, NOTE_CANCEL),
	RULE(PREPARING, OVERDUE, PREPARING, KILL),

	RULE(ORDERING, PREPARED, RUNNING, START_AGENT),
	RULE(ORDERING, REFUSED, SETTLING, SETTLE),
	RULE(ORDERING, CANCEL, ORDERING, NOTE_CANCEL),

	/* What a crashed runner's agent wrote is kept like any other work. */
	RULE(RUNNING, RESULT, DIFFING, START_DIFF),
	RULE(RUNNING, GONE, DIFFING, START_DIFF),
	RULE(RUNNING, CANCEL, CANCELLING, SEND_CANCEL),
	RULE(RUNNING, OVERDUE, RUNNING, KILL),

	RULE(CANCELLING, RESULT, DIFFING, START_DIFF),
	RULE(CANCELLING, GONE, DIFFING, START_DIFF),
	RULE(CANCELLING, CANCEL, CANCELLING, IGNORE),
	RULE(CANCELLING, OVERDUE, CANCELLING, KILL),

	RULE(DIFFING, RESULT, SETTLING, SETTLE),
	RULE(DIFFING, GONE, SETTLING, SETTLE),
	RULE(DIFFING, CANCEL, DIFFING, IGNORE),
	RULE(DIFFING, OVERDUE, DIFFING, KILL),

	RULE(SETTLING, SETTLED, DONE, FINISH),
	RULE(SETTLING, CANCEL, SETTLING, IGNORE),
};

BcTurnRule
bc_turn_rule(BcTurnState state, BcTurnEvent event)
{
	BcTurnRule	rule = rules[state][event];

	if (rule.action == BC_ACTION_ILLEGAL)
		rule.next = state;
	return rule;
}

const char *
bc_turn_state_phrase(BcTurnState state)
{
	static const char *const phrases[] = {
#define BC_PHRASE(name, phrase) phrase,
		BC_TURN_STATES(BC_PHRASE)
	};

	return phrases[state];
}

const char *
bc_turn_event_phrase(BcTurnEvent event)
{
	static const char *const phrases[] = {
		BC_TURN_EVENTS(BC_PHRASE)
	};

	return phrases[event];
}
