/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_acp_options.c
 *	  What is chosen where an agent offers a choice.
 */
#include "unit.h"

#include "capture.h"
#include "runner/acp_options.h"

static void
options_are_found_by_category_or_id(void **state)
{
	json_t	   *options = json_of("[{'id':'model','name':'x'},{'id':'m','category':'model','options':"
								  "[{'group':'g','options':[{'value':'v1','name':'First'}]},{'value':'v2','name':'v1'}]},"
								  "{'category':'mode'}]");
	const json_t *option = bc_acp_option(options, "model");

	(void) state;
	assert_json(json_object_get(option, "id"), "'m'");
	assert_string_equal(bc_acp_option_value(option, "v1"), "v1");
	assert_string_equal(bc_acp_option_value(option, "First"), "v1");
	assert_string_equal(bc_acp_option_value(option, "other"), "other");
	assert_null(bc_acp_option(options, "mode"));
	assert_null(bc_acp_option(NULL, "model"));
	json_decref(options);

	options = json_of("[{'id':'model'}]");
	assert_ptr_equal(bc_acp_option(options, "model"), json_array_get(options, 0));
	json_decref(options);
}

static void
a_model_needs_no_provider_where_it_is_the_only_one(void **state)
{
	static const char *const cases[][2] = {
		{"big", "one/big"},
		{"small", "small"},		/* both have one */
		{"one/small", "one/small"},
		{"large", "two/x/large"},
		{"x/large", "x/large"}, /* a provider is named, and not there */
		{"arge", "arge"},
		{"plain", "plain"},
		{"Big One", "one/big"}, /* a name */
		{"", ""},
		{"other", "other"},
	};
	json_t	   *option = json_of("{'id':'model','options':[{'value':'one/big','name':'Big One'},{'value':'one/small'},"
								 "{'value':'plain'},{'value':'three/plain'},{'value':7},"
								 "{'group':'g','options':[{'value':'two/small'},{'value':'two/x/large'}]}]}");

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(bc_acp_option_value(option, cases[i][0]), cases[i][1]);
	json_decref(option);
}

static void
the_current_model_is_read_from_either_form(void **state)
{
	static const char *const forms[] = {
		"{'configOptions':[{'id':'m','category':'model','currentValue':'x'}],'models':{'currentModelId':'y'}}",
		"{'models':{'currentModelId':'x'}}",
	};

	(void) state;
	for (size_t i = 0; i < 2; i++)
	{
		json_t	   *result = json_of(forms[i]);

		assert_string_equal(bc_acp_current_model(result), "x");
		json_decref(result);
	}
	assert_null(bc_acp_current_model(NULL));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_are_found_by_category_or_id),
		cmocka_unit_test(a_model_needs_no_provider_where_it_is_the_only_one),
		cmocka_unit_test(the_current_model_is_read_from_either_form),
	};

	return cmocka_run_group_tests_name("acp_options", tests, NULL, NULL);
}
