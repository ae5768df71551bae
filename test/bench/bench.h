/* SPDX-License-Identifier: PostgreSQL */
/*
 * bench.h
 *	  What the benchmarks in C share.
 */
#ifndef BC_TEST_BENCH_H
#define BC_TEST_BENCH_H

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

/* For qsort() of doubles. */
static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* The first value that a query answers, "" for none; ends the program on an error. */
static void
ask(PGconn *connection, const char *query, char *answer, size_t size)
{
	PGresult   *result = PQexec(connection, query);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		fprintf(stderr, "%s: %s", query, PQerrorMessage(connection));
		exit(1);
	}
	snprintf(answer, size, "%s", PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
	PQclear(result);
}

#endif							/* BC_TEST_BENCH_H */
