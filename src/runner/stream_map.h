/* SPDX-License-Identifier: PostgreSQL */
/*
 * stream_map.h
 *	  What agents say that write one JSON object a line: each dialect turns its
 *	  lines into steps for the transport and facts about the turn.  Pure, and
 *	  total on any JSON.
 *
 * A step is an object with one of these members:
 *	  "update"	a report as acp_map.h takes it; "at" is its time, if the agent told
 *	  "result"	a report on the whole turn, likewise
 *	  "event"	{"kind", "payload"}: an event of ours
 *	  "part"	{"kind", "payload"}: a finished part
 *	  "drop"	the text under way was a draft, and comes again
 *	  "forget"	of an agent that tells what was a draft: true: all text that is
 *				held was one; false: the last message in it
 *	  "keep"	likewise: none of it was
 *	  "raw"		what is not understood
 * So there is one place that folds tool calls and sums up usage: acp_map.c.
 */
#ifndef BC_RUNNER_STREAM_MAP_H
#define BC_RUNNER_STREAM_MAP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum BcStreamEnd
{
	BC_STREAM_OPEN,				/* the agent has not told */
	BC_STREAM_COMPLETED,
	BC_STREAM_FAILED,
	BC_STREAM_CANCELLED
} BcStreamEnd;

/* Text that came in pieces and may come again as a whole */
typedef struct BcStreamDraft
{
	bool		pending;		/* has not come as a whole yet */
	size_t		len;
	uint64_t	hash;
} BcStreamDraft;

typedef struct BcStreamDialect BcStreamDialect;

typedef struct BcStreamTurn
{
	const BcStreamDialect *dialect; /* NULL: not recognised yet */
	json_t	   *steps;			/* a list; whoever has taken them clears it */

	/* Facts; texts are owned and may be NULL */
	char	   *session_id;
	char	   *model;
	char	   *version;		/* of the agent */
	char	   *stop_reason;	/* as the agent calls it */
	BcStreamEnd end;
	const char *reason;			/* of a failure; NULL: to be told from error and status */
	char	   *error;			/* what the agent says went wrong, last */
	int			status;			/* of HTTP behind it; 0: unknown */
	bool		over;			/* nothing of the turn follows */
	bool		busy;			/* inside of a step in which it may be silent for long */

	/* For the dialects */
	BcStreamDraft text;
	BcStreamDraft thoughts;
	bool		commands_told;	/* more than their names, in another way */
	bool		in_message;
	bool		rejected;		/* a permission, which nobody was asked for */
	char	   *said;			/* the last text, or the beginning of it */
	char	   *said_id;
} BcStreamTurn;

struct BcStreamDialect
{
	const char *name;

	/* Is this object a line of it?  Asked for lines at the beginning. */
	bool		(*speaks) (const json_t *line);

	/* Takes a line, an object. */
	void		(*line) (BcStreamTurn *turn, const json_t *line);

	/*
	 * The agent has ended with this status and has not told how the turn ended;
	 * "errors" is what it wrote to standard error.  May be NULL.
	 */
	void		(*exited) (BcStreamTurn *turn, int code, const char *errors);
};

extern const BcStreamDialect bc_stream_claude;
extern const BcStreamDialect bc_stream_pi;
extern const BcStreamDialect bc_stream_codex;
extern const BcStreamDialect bc_stream_gemini;
extern const BcStreamDialect bc_stream_goose;
extern const BcStreamDialect bc_stream_opencode;

/* "kind" is the program's (agent_kind of the order); NULL or unknown: its lines will tell. */
extern BcStreamTurn *bc_stream_turn_new(const char *kind);
extern void bc_stream_turn_free(BcStreamTurn *turn);

/* False: this is no line of any dialect. */
extern bool bc_stream_turn_line(BcStreamTurn *turn, const json_t *line);

/* The agent has ended by itself. */
extern void bc_stream_turn_exited(BcStreamTurn *turn, int code, const char *errors);

#endif							/* BC_RUNNER_STREAM_MAP_H */
