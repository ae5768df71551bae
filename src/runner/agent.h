/* SPDX-License-Identifier: PostgreSQL */
/*
 * agent.h
 *	  The turns of one agent: what transports see of them, and provide.
 *
 * agent.c starts the agent, moves bytes, keeps deadlines and ends it; a
 * transport gives the bytes a meaning.  A runner has one turn at a time, so
 * there is no handle to pass around.  With "warm" in the order the agent may be
 * kept when the turn is over, and take the next order as another turn of the
 * same conversation.
 */
#ifndef BC_RUNNER_AGENT_H
#define BC_RUNNER_AGENT_H

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runner/buf.h"

typedef struct BcTransport
{
	const char *name;

	/* Does the agent speak a protocol?  Then silence has a limit. */
	bool		has_protocol;

	/*
	 * Does it run on a terminal?  Its output is then all it says, and silence
	 * has a limit, too: it may wait for keys that nobody presses.
	 */
	bool		terminal;

	/*
	 * Is the agent elsewhere?  Then no program is started for it, and the
	 * transport has descriptors of its own in the loop.
	 */
	bool		remote;

	/* Is the prompt given as the last argument? */
	bool		prompt_argument;

	/* The command to run for an order; a new array.  NULL: that of the order as it is. */
	json_t	   *(*command) (const json_t *order);

	/* The agent runs: begin the conversation. */
	void		(*start) (void);

	/* Bytes of its standard output, also between two turns */
	void		(*output) (const char *bytes, size_t len);

	/* Ask it to end the turn by itself.  NULL: it knows no such request. */
	void		(*cancel) (void);

	/*
	 * The payload of an ANSWER: what a person decided, or a change of the mode.
	 * May come before start().  May be NULL.
	 */
	void		(*answer) (const json_t *answer);

	/*
	 * Has the agent said nothing yet that can be understood?  Until it has, a
	 * failure makes the turn one of the order's fallback.  May be NULL: never.
	 */
	bool		(*unheard) (void);

	/* Does a person have to answer?  Then the limits of time stand still.  May be NULL: never. */
	bool		(*waiting) (void);

	/* When tick() is to be called, in ms of bc_now(); 0: not.  May be NULL, then tick() is, too. */
	int64_t		(*due) (void);
	void		(*tick) (void);

	/*
	 * It has ended, or closed its output, before the outcome was known.
	 * "code" is its exit status, or -1 and "signal" the signal.
	 */
	void		(*ended) (int code, int signal);

	/* The outcome is known, whatever brought it: what is still open is to be reported.  May be NULL. */
	void		(*settled) (const char *outcome);

	/* Does a tool of the agent run?  Then silence has a longer limit.  May be NULL: never. */
	bool		(*working) (void);

	/* The outcome is known: may the agent take another turn?  May be NULL: never. */
	bool		(*reusable) (void);

	/* Another turn of the same conversation begins, with another order.  NULL if never reusable. */
	void		(*again) (void);

	/*
	 * Descriptors to wait for, at most "max"; and what came of it, the same
	 * entries.  Also between two turns.  May be NULL.
	 */
	size_t		(*pollfds) (struct pollfd *fds, size_t max);
	void		(*served) (const struct pollfd *fds, size_t n);

	/*
	 * The outcome is known: has the transport still something to do before the
	 * runner ends?  It sees to it that it has not for long.  May be NULL: never.
	 */
	bool		(*lingering) (void);
} BcTransport;

extern const BcTransport bc_transport_command;
extern const BcTransport bc_transport_pty;
extern const BcTransport bc_transport_acp;
extern const BcTransport bc_transport_stream_json;
extern const BcTransport bc_transport_opencode;
extern const BcTransport bc_transport_opencode_server;

/* The ORDER; transport and command are those of the fallback once that is used. */
extern const json_t *bc_agent_order(void);

/* A limit of the order in ms, bytes, ...; 0 when it has none. */
extern json_int_t bc_agent_limit(const char *name);

/* Queues bytes for the agent's standard input, also between two turns; closes it once they are written. */
extern void bc_agent_write(const char *bytes, size_t len);
extern void bc_agent_close_input(void);

/* Is the agent on a terminal that hands it whole lines?  As bc_spawn_reads_lines(). */
extern bool bc_agent_reads_lines(void);

/* The agent must have done something by then, or the turn fails with "reason".  0: no such deadline. */
extern void bc_agent_expect(json_int_t within_ms, const char *reason, const char *message);

/*
 * Settles the outcome ("completed", "failed", "cancelled"); the first one
 * counts.  The agent is then ended.  "reason" may be NULL; "message" is copied.
 */
extern void bc_agent_finish(const char *outcome, const char *reason, const char *message);

/* The same for a program whose exit is the outcome: status 0 is success.  As for ended(). */
extern void bc_agent_finish_by_exit(int code, int signal);

/*
 * The same for a conversation that can't go on, at whatever time: a kept agent
 * is ended.
 */
extern void bc_agent_abort(const char *reason, const char *message);

extern bool bc_agent_finished(void);

/* A sign of life of an agent that is elsewhere. */
extern void bc_agent_alive(void);

/* Was a cancel requested? */
extern bool bc_agent_cancelled(void);

/* Adds a field to the RESULT; steals the value. */
extern void bc_agent_report(const char *key, json_t *value);

/* What the agent last wrote to its standard error; valid until the next call. */
extern const char *bc_agent_stderr(void);

/* Runs the order to its end; the RESULT.  The order must stay until the next one. */
extern json_t *bc_agent_run(const json_t *order);

/* Is the agent kept for another order? */
extern bool bc_agent_kept(void);

/*
 * Waits for that; borrowed until the next call.  Ends this process when the
 * agent, or the dispatcher, has gone before.
 */
extern const BcBuf *bc_agent_next_order(void);

#endif							/* BC_RUNNER_AGENT_H */
