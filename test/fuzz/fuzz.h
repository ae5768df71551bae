/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz.h
 *	  What every fuzz target includes.
 */
#ifndef BC_TEST_FUZZ_H
#define BC_TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for any input */
#define REQUIRE(condition) \
	do \
	{ \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

#endif							/* BC_TEST_FUZZ_H */
