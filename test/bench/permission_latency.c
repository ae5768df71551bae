/* SPDX-License-Identifier: PostgreSQL */
/*
 * permission_latency.c
 *	  How long a request for permission takes on its way: from the answer of a
 *	  person to the agent's next request, as a row that is visible to others.
 *
 *	  permission_latency CONNINFO TASK COUNT
 *
 * TASK asks COUNT times in a row and does nothing else, so the time from an
 * answer to the next request is both ways: answer -> dispatcher -> runner ->
 * agent -> runner -> dispatcher -> row.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

static double
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double) now.tv_sec * 1e3 + (double) now.tv_nsec / 1e6;
}

int
main(int argc, char **argv)
{
	int			n = argc > 3 ? atoi(argv[3]) : 0;
	double	   *times = calloc((size_t) n + 1, sizeof(double));
	double		answered = 0;
	int			seen = 0;
	PGconn	   *connection;
	char		pending[300];

	if (n <= 0)
	{
		fprintf(stderr, "usage: permission_latency CONNINFO TASK COUNT\n");
		return 2;
	}
	connection = PQconnectdb(argv[1]);
	snprintf(pending, sizeof(pending),
			 "SELECT id FROM boocoder.permission_requests "
			 "WHERE task_id = %s AND status = 'pending'", argv[2]);
	for (int i = 0; i < n; i++)
	{
		char		id[40];
		char		query[200];
		char		answer[200];

		do
			ask(connection, pending, id, sizeof(id));
		while (id[0] == '\0');
		if (answered != 0)
			times[seen++] = now_ms() - answered;
		/* Who reads a request takes a moment. */
		usleep(20000);
		snprintf(query, sizeof(query), "SELECT boocoder.answer_permission(%s, 'allow')", id);
		ask(connection, query, answer, sizeof(answer));
		answered = now_ms();
	}
	qsort(times, (size_t) seen, sizeof(double), compare);
	printf("answer -> next request visible     p50 %8.3f ms   p99 %8.3f ms   (n = %d)\n",
		   times[seen / 2], times[seen * 99 / 100], seen);
	PQfinish(connection);
	return 0;
}
