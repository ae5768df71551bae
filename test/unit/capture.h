/* SPDX-License-Identifier: PostgreSQL */
/*
 * capture.h
 *	  Takes the place of up.c: what the stream sends is kept for the test.
 */
#ifndef BC_TEST_CAPTURE_H
#define BC_TEST_CAPTURE_H

#include <jansson.h>

/* Forgets everything captured. */
extern void capture_reset(void);

/* All events and parts since then: lists of {"kind", "payload"}.  Borrowed. */
extern const json_t *capture_events(void);
extern const json_t *capture_parts(void);

/* The payload of the n-th event or part of that kind (from 0), or NULL. */
extern const json_t *capture_find(const json_t *list, const char *kind, size_t n);

/* How many of that kind there are. */
extern size_t capture_count(const json_t *list, const char *kind);

/* Fails the test unless "value" equals the JSON text, where ' stands for ". */
extern void assert_json(const json_t *value, const char *expected);

/* JSON text, where ' stands for ", as a value; fails the test when it is none. */
extern json_t *json_of(const char *text);

#endif							/* BC_TEST_CAPTURE_H */
