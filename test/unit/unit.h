/* SPDX-License-Identifier: PostgreSQL */
/*
 * unit.h
 *	  What every unit test includes.
 */
#ifndef BC_TEST_UNIT_H
#define BC_TEST_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#endif							/* BC_TEST_UNIT_H */
