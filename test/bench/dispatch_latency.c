/* SPDX-License-Identifier: PostgreSQL */
/*
 * dispatch_latency.c
 *	  How long after the commit of an INSERT a task is claimed, and how long
 *	  until its agent's first instruction.
 *
 *	  dispatch_latency CONNINFO COUNT AGENT SESSION PAUSE_MS [CHAT INPUT]
 *
 * One task at a time.  "Claimed" is when another connection sees the committed
 * claim; it looks all the time, so its own query is part of the figure, and is
 * printed beside it, as is the time of the INSERT with its commit: what one
 * statement costs a server that was idle before.  The agent prints its clock, in ms.  SESSION is an id, or
 * null for a new session (and worktree) each time.  With CHAT the tasks are turns
 * of that chat, and what is printed by INPUT is when the prompt came.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

static double
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (double) now.tv_sec * 1e3 + (double) now.tv_nsec / 1e6;
}

static void
print(const char *what, double *values, int n)
{
	if (n == 0)
		return;
	qsort(values, (size_t) n, sizeof(double), compare);
	printf("%-34s p50 %8.3f ms   p99 %8.3f ms   (n = %d)\n", what, values[n / 2],
		   values[n * 99 / 100], n);
}

int
main(int argc, char **argv)
{
	int			n = argc > 5 ? atoi(argv[2]) : 0;
	double	   *claimed = calloc((size_t) n + 1, sizeof(double));
	double	   *started = calloc((size_t) n + 1, sizeof(double));
	double	   *looks = calloc((size_t) n + 1, sizeof(double));
	double	   *inserts = calloc((size_t) n + 1, sizeof(double));
	int			nstarted = 0;
	PGconn	   *writer;
	PGconn	   *reader;

	if (n <= 0)
	{
		fprintf(stderr, "usage: dispatch_latency CONNINFO COUNT AGENT SESSION PAUSE_MS [CHAT INPUT]\n");
		return 2;
	}
	writer = PQconnectdb(argv[1]);
	reader = PQconnectdb(argv[1]);
	for (int i = 0; i < n; i++)
	{
		char		query[500];
		char		state_query[200];
		char		id[40];
		char		answer[200];
		double		committed;
		double		looked;

		usleep((useconds_t) atoi(argv[5]) * 1000);
		snprintf(query, sizeof(query),
				 "INSERT INTO boocoder.tasks (project_id, session_id, agent, chat_id, input) "
				 "VALUES (1, %s, '%s', %s, '%s') RETURNING id", argv[4], argv[3],
				 argc > 6 ? argv[6] : "null", argc > 7 ? argv[7] : "x");
		looked = now_ms();
		ask(writer, query, id, sizeof(id));
		committed = now_ms();
		inserts[i] = committed - looked;
		snprintf(state_query, sizeof(state_query),
				 "SELECT state FROM boocoder.tasks WHERE id = %s", id);
		do
		{
			looked = now_ms();
			ask(reader, state_query, answer, sizeof(answer));
			looks[i] = now_ms() - looked;
		} while (strcmp(answer, "pending") == 0);
		claimed[i] = now_ms() - committed;
		while (strcmp(answer, "running") == 0)
		{
			usleep(1000);
			ask(reader, state_query, answer, sizeof(answer));
		}
		snprintf(query, sizeof(query),
				 "SELECT payload ->> 'delta' FROM boocoder.events "
				 "WHERE task_id = %s AND kind = 'text' LIMIT 1", id);
		ask(reader, query, answer, sizeof(answer));
		if (answer[0] != '\0')
			started[nstarted++] = atof(answer) - committed;
	}
	print("commit -> claim seen", claimed, n);
	print("  of which the look itself", looks, n);
	print("  beside it, the INSERT", inserts, n);
	print(argc > 6 ? "commit -> prompt read by the agent" : "commit -> first instruction", started, nstarted);
	PQfinish(writer);
	PQfinish(reader);
	return 0;
}
