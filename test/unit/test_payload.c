/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_payload.c
 *	  The limit of what an event or a part may hold.
 */
#include "unit.h"

#include "capture.h"
#include "runner/payload.h"

static json_t *
long_text(size_t n)
{
	char	   *text = malloc(n);
	json_t	   *value;

	memset(text, 'x', n);
	value = json_stringn(text, n);
	free(text);
	return value;
}

static void
what_fits_stays_as_it_is(void **state)
{
	json_t	   *payload = json_of("{'a': [1, 2.5, true, null, 'text', {}]}");
	json_t	   *limited = bc_payload_limit(payload, 1000);

	(void) state;
	assert_ptr_equal(limited, payload);
	assert_null(json_object_get(limited, "truncated"));
	json_decref(limited);
}

static void
small_members_survive_large_ones(void **state)
{
	json_t	   *payload = json_object();
	json_t	   *limited;
	size_t		size;

	(void) state;
	json_object_set_new(payload, "raw_input", long_text(1000 * 1000));
	json_object_set_new(payload, "content", long_text(5000));
	json_object_set_new(payload, "id", json_string("t1"));
	json_object_set_new(payload, "status", json_string("completed"));
	size = bc_payload_size(payload);
	limited = bc_payload_limit(payload, 20000);
	assert_true(bc_payload_size(limited) <= 20000 + 100);
	assert_json(json_object_get(limited, "id"), "'t1'");
	assert_json(json_object_get(limited, "status"), "'completed'");
	assert_json(json_object_get(limited, "truncated"), "true");
	assert_int_equal(json_integer_value(json_object_get(limited, "bytes")), size);
	assert_int_equal(json_string_length(json_object_get(limited, "content")), 5000);
	assert_true(json_string_length(json_object_get(limited, "raw_input")) > 9000);
	json_decref(limited);
}

static void
a_cut_is_never_within_a_character(void **state)
{
	(void) state;
	for (size_t max = 2000; max < 2010; max++)
	{
		json_t	   *payload = json_object();
		char		text[6001] = "";
		json_t	   *limited;
		size_t		kept;

		for (int i = 0; i < 2000; i++)
			memcpy(text + 3 * i, "\xE2\x82\xAC", 4);
		json_object_set_new(payload, "text", json_string(text));
		limited = bc_payload_limit(payload, max);
		kept = json_string_length(json_object_get(limited, "text"));
		assert_true(kept > 1900 && kept <= max && kept % 3 == 0);
		json_decref(limited);
	}
}

static void
long_lists_and_deep_values_end_early(void **state)
{
	json_t	   *payload = json_object();
	json_t	   *list = json_array();
	json_t	   *deep = json_array();
	json_t	   *limited;

	(void) state;
	for (int i = 0; i < 100 * 1000; i++)
		json_array_append_new(list, json_integer(i));
	for (int i = 0; i < 1000; i++)
	{
		json_t	   *outer = json_array();

		json_array_append_new(outer, deep);
		deep = outer;
	}
	json_object_set_new(payload, "list", list);
	json_object_set_new(payload, "deep", deep);
	limited = bc_payload_limit(payload, 10000);
	assert_true(bc_payload_size(limited) <= 10100);
	assert_true(json_array_size(json_object_get(limited, "list")) > 100);
	json_decref(limited);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_fits_stays_as_it_is),
		cmocka_unit_test(small_members_survive_large_ones),
		cmocka_unit_test(a_cut_is_never_within_a_character),
		cmocka_unit_test(long_lists_and_deep_values_end_early),
	};

	return cmocka_run_group_tests_name("payload", tests, NULL, NULL);
}
