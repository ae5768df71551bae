/* SPDX-License-Identifier: PostgreSQL */
/*
 * transport_opencode_server.c
 *	  A chat on a server of opencode's, which runs elsewhere (server.h): a
 *	  session of it, prompts, and what it tells of them over a stream of events.
 *
 * An ANSWER {"server": {"url", "username", "password"}} says where the server is,
 * and another one that it was started again; {"server_failed": {"reason",
 * "message"}} that there is none.
 *
 * What the stream tells is believed only as far as it fits the turn.  When it
 * does not (the session is idle, but has not answered), when the stream was
 * interrupted, and when nothing has come for a while, we look: is the session
 * busy, and what messages has it?
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runner/acp_map.h"
#include "runner/agent.h"
#include "runner/http.h"
#include "runner/llm_error.h"
#include "runner/opencode_asks.h"
#include "runner/opencode_map.h"
#include "runner/opencode_open.h"
#include "runner/opencode_rest.h"
#include "runner/payload.h"
#include "runner/sse.h"
#include "runner/stream.h"
#include "runner/stream_apply.h"
#include "runner/stream_step.h"
#include "runner/text.h"

#define REQUEST_MS 20000
#define PROMPT_MS 60000			/* the first prompt in a directory loads plugins */
#define ABORT_MS 5000
#define STREAM_SILENCE_MS 35000 /* unless the order has another limit; a heart beats every 10 s */
#define FIRST_RETRY_MS 50		/* to open the stream again, doubled each time */
#define LAST_RETRY_MS 2000
#define LOOK_AFTER_MS 20000		/* without news of the session */
#define LOOK_AGAIN_MS 400
#define DOUBTFUL_LOOKS 5		/* that find nothing going on, until it is believed */
#define LINGER_MS 2000
#define LISTED_MESSAGES "200"

typedef enum Step
{
	STEP_SERVER,				/* its address is not known */
	STEP_STREAM,				/* being opened for the first time */
	STEP_SESSION,				/* being opened */
	STEP_PROMPT,				/* on its way */
	STEP_RUNNING,
	STEP_REST					/* between two turns */
} Step;

static void prompt(void);

static Step step;
static BcSse sse;
static BcOpencodeMap *map;
static BcAcpMap *acp;
static char *session_id;
static char *prompt_id;
static bool stream_open;
static int	retry_ms;			/* next pause before the stream is opened again */
static int64_t retry_at;
static bool looking;
static int64_t look_at;			/* when to look; 0: never */
static int	idle_looks;			/* in a row that found nothing going on */
static bool aborting;			/* the request is under way */
static bool aborted;			/* it was answered */
static bool sent_again;
static bool restarted;			/* the server, since the prompt was sent */
static bool missed;				/* since the turn began, events may have been missed */
static int64_t linger_until;
static json_t *early_server;	/* told before the agent's turn had begun, or NULL */
static char *failure;			/* the reason that the dispatcher gave */

static const char *
order_text(const char *key)
{
	return bc_step_string(bc_agent_order(), key);
}

/* "suffix" begins with a slash. */
static void
session_request(const char *method, const char *suffix, json_t *body, int timeout_ms, BcOpencodeHandler handler)
{
	char	   *path = bc_asprintf("/session/%s%s", session_id, suffix);

	bc_opencode_rest(method, path, body, timeout_ms, handler);
	free(path);
}

/* --- the end of a turn --- */

static void
fail(const char *reason, const char *message)
{
	if (strcmp(reason, "auth_required") == 0)
		bc_agent_report("hint", json_string("Sign the agent in, or give its provider the key it needs (env)."));
	bc_agent_finish("failed", reason, message);
}

static void
take_steps(void)
{
	bc_stream_apply(bc_opencode_map_turn(map), acp, bc_wall_ms());
}

/* The session is at rest, and so is the turn. */
static void
finish(void)
{
	BcStreamTurn *turn = bc_opencode_map_turn(map);

	if (!bc_opencode_map_answered(map) && restarted)
		bc_step_failed(turn, "agent_exited", "the agent's server ended during the turn");
	bc_opencode_map_end(map);
	take_steps();
	step = STEP_REST;
	if (turn->stop_reason != NULL)
		bc_agent_report("stop_reason", json_string(turn->stop_reason));
	if (bc_agent_cancelled())
		bc_agent_finish("cancelled", "cancelled", "cancelled on request");
	else if (turn->end == BC_STREAM_COMPLETED)
		bc_agent_finish("completed", NULL, NULL);
	else if (turn->end == BC_STREAM_CANCELLED)
		bc_agent_finish("cancelled", "cancelled", "the agent ended the turn as cancelled");
	else if (turn->reason != NULL && strcmp(turn->reason, "permission_rejected") == 0)
		fail(turn->reason, "the agent ended the turn because it was not given a permission");
	else
		fail(turn->reason != NULL ? turn->reason : bc_llm_error(turn->status, turn->error),
			 turn->error != NULL ? turn->error : "the agent failed and did not say why");
}

/* --- ending it --- */

static void
abort_answered(const BcHttpAnswer *answer)
{
	aborting = false;
	linger_until = 0;
	aborted |= answer->status == 200;
	look_at = bc_now();
}

static void
abort_run(void)
{
	if (aborting)
		return;
	aborting = true;
	session_request("POST", "/abort", NULL, ABORT_MS, abort_answered);
}

/* --- looking --- */

static void
look_later(int64_t ms)
{
	int64_t		when = bc_now() + ms;

	if (look_at == 0 || when < look_at)
		look_at = when;
}

static void
look_failed(const BcHttpAnswer *answer)
{
	looking = false;
	/* A server that refuses us is not the one that we know; another address will come, or the end. */
	if (answer->status == 401)
		look_later(LAST_RETRY_MS);
	else
		look_later(LOOK_AGAIN_MS);
}

/* The session does nothing; what of our turn? */
static void
found_idle(void)
{
	idle_looks++;
	if (bc_agent_cancelled() && !bc_opencode_map_answered(map))
	{
		/* It may be that the turn only begins. */
		if (bc_opencode_map_taken(map) ? aborted : idle_looks >= DOUBTFUL_LOOKS)
			finish();
		else
			abort_run();
	}
	else if (bc_opencode_map_answered(map) || idle_looks >= DOUBTFUL_LOOKS)
	{
		if (bc_opencode_map_taken(map) || bc_opencode_map_doubted(map))
			finish();
		else if (!sent_again)
		{
			sent_again = true;
			prompt();
		}
		else
			bc_agent_finish("failed", "protocol_error", "the server did not take the prompt");
	}
	else
		look_later(LOOK_AGAIN_MS);
}

/* The server was started again without what it knew: nothing more will come of this turn. */
static void
session_lost(void)
{
	looking = false;
	if (!restarted)
		bc_step_failed(bc_opencode_map_turn(map), "agent_exited", "the agent's server has lost the session");
	finish();
}

static void
messages_listed(const BcHttpAnswer *answer, bool idle)
{
	if (answer->status == 404)
	{
		session_lost();
		return;
	}
	if (answer->status != 200 || !json_is_array(answer->body))
	{
		look_failed(answer);
		return;
	}
	looking = false;
	/* Only what is believed to be its end ends a text. */
	bc_opencode_map_messages(map, answer->body, idle && idle_looks + 1 >= DOUBTFUL_LOOKS);
	take_steps();
	if (idle)
	{
		found_idle();
		return;
	}
	idle_looks = 0;
	if (bc_agent_cancelled())
		abort_run();
	look_later(LOOK_AFTER_MS);
}

static void
messages_of_idle(const BcHttpAnswer *answer)
{
	if (step == STEP_RUNNING && !bc_agent_finished())
		messages_listed(answer, true);
}

static void
messages_of_busy(const BcHttpAnswer *answer)
{
	if (step == STEP_RUNNING && !bc_agent_finished())
		messages_listed(answer, false);
}

static void
status_listed(const BcHttpAnswer *answer)
{
	const json_t *state;

	if (step != STEP_RUNNING || bc_agent_finished())
		return;
	if (answer->status != 200 || !json_is_object(answer->body))
	{
		look_failed(answer);
		return;
	}
	/* The messages last: they must not be older than that. */
	state = json_object_get(answer->body, session_id);
	session_request("GET", "/message?limit=" LISTED_MESSAGES, NULL, REQUEST_MS,
					state == NULL || bc_step_is(state, "type", "idle") ? messages_of_idle : messages_of_busy);
}

static void
look(void)
{
	looking = true;
	look_at = 0;
	bc_opencode_rest("GET", "/session/status", NULL, REQUEST_MS, status_listed);
}

/* Passes on what is asked since events were missed; "list" is of all sessions. */
static void
asks_listed(const BcHttpAnswer *answer, bool questions)
{
	json_t	   *ours = json_array();
	size_t		i;
	json_t	   *item;

	json_array_foreach((json_t *) answer->body, i, item)
		if (bc_opencode_map_concerns(map, item))
			json_array_append(ours, item);
	if (answer->status == 200 && json_is_array(answer->body))
		bc_opencode_asks_pending(ours, questions, acp, bc_wall_ms());
	json_decref(ours);
}

static void
permissions_listed(const BcHttpAnswer *answer)
{
	if (step == STEP_RUNNING && !bc_agent_finished())
		asks_listed(answer, false);
}

static void
questions_listed(const BcHttpAnswer *answer)
{
	if (step == STEP_RUNNING && !bc_agent_finished())
		asks_listed(answer, true);
}

static void
look_for_asks(void)
{
	bc_opencode_rest("GET", "/permission", NULL, REQUEST_MS, permissions_listed);
	bc_opencode_rest("GET", "/question", NULL, REQUEST_MS, questions_listed);
}

/* --- the prompt --- */

static void
prompted(const BcHttpAnswer *answer)
{
	if (step != STEP_PROMPT || bc_agent_finished())
		return;
	if (answer->status == 404)
	{
		step = STEP_SESSION;
		bc_opencode_open_new(session_id, "the server does not know the session any more");
		return;
	}
	/* Without an answer it may have been taken or not: that is looked for. */
	if (answer->status != 0 && (answer->status < 200 || answer->status > 299))
	{
		step = STEP_SESSION;
		bc_opencode_fail("the prompt", answer);
		return;
	}
	step = STEP_RUNNING;
	bc_agent_expect(0, NULL, NULL);
	/* The stream may have been faster than this answer. */
	if (bc_opencode_map_answered(map) || bc_opencode_map_doubted(map))
		look_later(0);
	else
		look_later(answer->status == 0 ? LOOK_AGAIN_MS : LOOK_AFTER_MS);
	if (bc_agent_cancelled())
		abort_run();
}

/* "provider/model" */
static json_t *
chosen_model(void)
{
	const char *model = order_text("model");
	const char *slash = model != NULL ? strchr(model, '/') : NULL;

	if (slash == NULL)
		return NULL;
	return json_pack("{s:s%, s:s}", "providerID", model, (size_t) (slash - model), "modelID", slash + 1);
}

static uint64_t
random_number(void)
{
	static uint64_t count;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return ((uint64_t) now.tv_nsec << 32) ^ ((uint64_t) now.tv_sec << 8) ^ ++count;
}

static void
prompt(void)
{
	const char *input = order_text("input");
	json_t	   *body = json_pack("{s:[{s:s, s:s}]}", "parts", "type", "text", "text", input != NULL ? input : "");
	json_t	   *model = chosen_model();

	/* One that is sent again is the same prompt. */
	if (!sent_again)
	{
		free(prompt_id);
		prompt_id = bc_opencode_prompt_id(bc_wall_ms(), random_number());
		bc_opencode_map_begin(map, prompt_id);
		if (order_text("model") != NULL)
			bc_acp_map_model(acp, order_text("model"));
	}
	json_object_set_new(body, "messageID", json_string(prompt_id));
	if (model != NULL)
		json_object_set_new(body, "model", model);
	if (order_text("mode") != NULL)
		json_object_set_new(body, "agent", json_string(order_text("mode")));
	step = STEP_PROMPT;
	idle_looks = 0;
	bc_agent_expect(PROMPT_MS, "handshake_timeout", "the server did not take the prompt in time");
	session_request("POST", "/prompt_async", body, PROMPT_MS, prompted);
	bc_stream_event("status", json_pack("{s:s, s:s}", "phase", "prompted", "agent_session_id", session_id));
}

/* --- the session --- */

static void
session_opened(const char *id)
{
	free(session_id);
	session_id = bc_strdup(id);
	bc_opencode_map_session(map, id);
	bc_acp_map_session(acp, id);
	bc_agent_report("agent_session_id", json_string(id));
	prompt();
}

/* --- the stream --- */

static void
doubt(void)
{
	idle_looks = 0;
	look_later(0);
}

static void
take_event(const json_t *event)
{
	const json_t *properties = json_object_get(event, "properties");
	BcOpencodeNews news;

	/* Between two turns there is nothing to be told. */
	if (step == STEP_REST || bc_agent_finished())
		return;
	news = bc_opencode_map_event(map, event);
	if (news != BC_OPENCODE_NO_NEWS)
		bc_agent_alive();
	if (bc_opencode_map_concerns(map, properties))
		(void) bc_opencode_asks_event(event, acp, bc_wall_ms());
	take_steps();
	if (step != STEP_RUNNING)
		return;
	if (news == BC_OPENCODE_IDLE && (bc_agent_cancelled() ? aborted && bc_opencode_map_taken(map) :
									 bc_opencode_map_answered(map)))
		finish();
	else if (news == BC_OPENCODE_IDLE || bc_opencode_map_doubted(map))
		look_later(bc_opencode_map_taken(map) ? 20 : LOOK_AGAIN_MS);
	else if (news == BC_OPENCODE_NEWS)
	{
		/* A cancel that came before the turn had begun ended nothing. */
		if (bc_agent_cancelled() && !aborting && bc_opencode_map_taken(map))
			abort_run();
		look_at = bc_now() + LOOK_AFTER_MS;
	}
}

static void
stream_opened(void)
{
	stream_open = true;
	retry_ms = FIRST_RETRY_MS;
	if (step == STEP_STREAM)
	{
		step = STEP_SESSION;
		bc_opencode_open(session_id, session_opened);
	}
	else if (step == STEP_RUNNING)
	{
		doubt();
		look_for_asks();
	}
	else if (step == STEP_PROMPT)
		look_later(LOOK_AGAIN_MS);
}

static void
read_event(const char *data, size_t len, void *arg)
{
	json_t	   *event = bc_text_parse(data, len);

	(void) arg;
	if (!stream_open)
		stream_opened();
	if (json_is_object(event))
		take_event(event);
	else if (len > 0)
		bc_stream_log("server", data, bc_text_cut(data, len, 500));
	json_decref(event);
}

static void
stream_bytes(const char *bytes, size_t len)
{
	if (bc_sse_feed(&sse, bytes, len, read_event, NULL))
		return;
	/* What it was can still be had from the messages. */
	bc_stream_log("server", "an event was longer than boocoder.max_line", 42);
	bc_opencode_map_missed(map);
	if (step == STEP_RUNNING)
		doubt();
}

static void
stream_lost(void)
{
	stream_open = false;
	missed = true;
	bc_opencode_map_missed(map);
	retry_at = bc_now() + retry_ms;
	retry_ms = 2 * retry_ms < LAST_RETRY_MS ? 2 * retry_ms : LAST_RETRY_MS;
}

static void
stream_ended(int status, const char *problem)
{
	if (status == 401 && step == STEP_STREAM)
		bc_agent_finish("failed", "protocol_error", "the server does not know our password");
	else if (status != 0 && status != 200 && step == STEP_STREAM)
	{
		BcHttpAnswer answer = {status, NULL, problem};

		bc_opencode_fail("the stream of events", &answer);
	}
	stream_lost();
}

static void
open_stream(void)
{
	char	   *path = bc_http_path("/event", "directory", order_text("cwd"));

	stream_open = false;
	retry_at = 0;
	bc_sse_reset(&sse);
	bc_http_stream(path, stream_bytes, stream_ended);
	free(path);
}

/* --- what the dispatcher wants --- */

static void
send_reply(const char *path, json_t *body)
{
	bc_opencode_rest("POST", path, body, REQUEST_MS, NULL);
}

static void
begin_turn(void)
{
	bc_stream_holds_text(true);
	bc_opencode_asks_reset(send_reply);
	bc_opencode_rest_turn();
	looking = aborting = aborted = sent_again = missed = restarted = false;
	look_at = linger_until = 0;
	idle_looks = 0;
}

static void
expect_stream(void)
{
	bc_agent_expect(bc_agent_limit("handshake_ms"), "handshake_timeout",
					"the server did not open its stream of events in time");
}

static void server_known(const json_t *server);

static void
start(void)
{
	map = bc_opencode_map_new();
	acp = bc_acp_map_new();
	bc_sse_init(&sse, (size_t) bc_agent_limit("max_line"));
	retry_ms = FIRST_RETRY_MS;
	step = STEP_SERVER;
	begin_turn();
	bc_agent_expect(bc_agent_limit("handshake_ms"), "handshake_timeout",
					"the agent's server was not ready in time");
	if (early_server != NULL)
		server_known(early_server);
}

static void
again(void)
{
	begin_turn();
	bc_acp_map_next(acp);
	bc_agent_report("agent_session_id", json_string(session_id));
	step = STEP_STREAM;
	if (stream_open)
		prompt();
	else
		expect_stream();
}

static void
server_known(const json_t *server)
{
	const char *url = bc_step_string(server, "url");
	const char *username = bc_step_string(server, "username");
	const char *password = bc_step_string(server, "password");

	if (map == NULL)
	{
		json_decref(early_server);
		early_server = json_incref((json_t *) server);
		return;
	}
	/* It may be told with every turn. */
	if (step != STEP_SERVER && bc_http_is_server(url, username, password))
		return;
	if (!bc_http_server(url, username, password))
	{
		bc_agent_abort("protocol_error", "the server's address is none");
		return;
	}
	if (step == STEP_SERVER)
	{
		step = STEP_STREAM;
		expect_stream();
	}
	else
	{
		/* Whatever was asked of the one before is not answered any more. */
		looking = aborting = false;
		missed = true;
		restarted = step == STEP_PROMPT || step == STEP_RUNNING;
		bc_opencode_map_missed(map);
		if (step == STEP_SESSION)
			step = STEP_STREAM;
		else if (step == STEP_PROMPT)
			step = STEP_RUNNING;
	}
	retry_ms = FIRST_RETRY_MS;
	open_stream();
}

static void
answer(const json_t *answer)
{
	const json_t *failed = json_object_get(answer, "server_failed");
	const char *mode = bc_step_string(answer, "mode");

	if (json_is_object(json_object_get(answer, "server")))
		server_known(json_object_get(answer, "server"));
	else if (json_is_object(failed))
	{
		const char *reason = bc_step_string(failed, "reason");
		const char *message = bc_step_string(failed, "message");

		free(failure);
		failure = bc_strdup(reason != NULL ? reason : "agent_exited");
		bc_agent_abort(failure,
					   message != NULL ? message : "the agent's server has ended");
	}
	else if (mode != NULL)
		bc_stream_event("mode_failed", json_pack("{s:s, s:s?, s:s}", "mode", mode,
												 "request", bc_step_string(answer, "request"),
												 "message", "the agent can't change its mode while it runs"));
	else
		bc_opencode_asks_answer(answer);
}

static void
cancel(void)
{
	bc_opencode_asks_cancel();
	if (step == STEP_RUNNING)
		abort_run();
	else if (step != STEP_PROMPT)
		/* There is no turn yet that could be ended. */
		bc_agent_finish("cancelled", "cancelled", "cancelled on request");
}

static void
disposed(const BcHttpAnswer *answer)
{
	(void) answer;
	linger_until = 0;
}

static void
settled(const char *outcome)
{
	json_t	   *usage;

	bc_opencode_asks_end();
	if (acp == NULL)
		return;
	usage = bc_acp_map_end(acp, strcmp(outcome, "cancelled") == 0, bc_wall_ms());
	if (usage != NULL && missed && bc_opencode_map_has_below(map))
		json_object_set_new(usage, "partial", json_true());
	if (usage != NULL)
		bc_agent_report("usage", usage);
	bc_stream_event("status", json_pack("{s:s, s:s}", "phase", "ended", "outcome", outcome));
	/* A server keeps in memory what it knows of a directory.  No other turn is in this one. */
	if (step == STEP_REST && !json_is_true(json_object_get(bc_agent_order(), "warm")))
	{
		linger_until = bc_now() + LINGER_MS;
		bc_opencode_rest("POST", "/instance/dispose", NULL, LINGER_MS, disposed);
	}
	/* Nobody else will end what we leave behind. */
	if (step == STEP_PROMPT || step == STEP_RUNNING)
	{
		linger_until = bc_now() + LINGER_MS;
		abort_run();
	}
}

/* --- time --- */

static bool
lingering(void)
{
	return linger_until != 0 && bc_now() < linger_until;
}

static int64_t
silence_end(void)
{
	int64_t		life = bc_http_stream_life();
	json_int_t	limit = bc_agent_limit("stream_silence_ms");

	return life != 0 ? life + (limit > 0 ? limit : STREAM_SILENCE_MS) : 0;
}

static int64_t
due(void)
{
	int64_t		when = bc_http_due();

	bc_earliest(&when, linger_until);
	if (linger_until != 0 || step == STEP_SERVER)
		return when;
	bc_earliest(&when, retry_at);
	bc_earliest(&when, silence_end());
	if (step == STEP_RUNNING && !looking)
		bc_earliest(&when, look_at);
	return when;
}

static void
tick(void)
{
	int64_t		now = bc_now();

	bc_http_tick();
	if (step == STEP_SERVER || linger_until != 0)
		return;
	if (silence_end() != 0 && silence_end() <= now)
	{
		stream_lost();
		open_stream();
	}
	if (retry_at != 0 && retry_at <= now)
		open_stream();
	if (step == STEP_RUNNING && !looking && look_at != 0 && look_at <= now && !bc_agent_finished())
		look();
}

static bool
working(void)
{
	return acp != NULL && bc_acp_map_working(acp);
}

static bool
reusable(void)
{
	return step == STEP_REST;
}

static void
ended(int code, int signal)
{
	(void) code;
	(void) signal;
}

const BcTransport bc_transport_opencode_server = {
	.name = "opencode_server",
	.has_protocol = true,
	.remote = true,
	.start = start,
	.cancel = cancel,
	.answer = answer,
	.waiting = bc_opencode_asks_waiting,
	.due = due,
	.tick = tick,
	.ended = ended,
	.settled = settled,
	.working = working,
	.reusable = reusable,
	.again = again,
	.pollfds = bc_http_pollfds,
	.served = bc_http_served,
	.lingering = lingering,
};
