/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_acp_options.c
 *	  What is chosen where an agent offers a choice.
 */
#include "unit.h"

#include "capture.h"
#include "runner/acp_options.h"

static void
assert_permission(const char *options, const char *policy, const char *expected)
{
	json_t	   *list = json_of(options);
	const char *option = bc_acp_permission(list, policy);

	if (expected == NULL)
		assert_null(option);
	else
	{
		assert_non_null(option);
		assert_string_equal(option, expected);
	}
	json_decref(list);
}

static void
permissions_follow_the_policy(void **state)
{
	static const char all[] =
		"[{'optionId':'a','kind':'allow_always'},{'optionId':'b','kind':'allow_once'},"
		"{'optionId':'c','kind':'reject_always'},{'optionId':'d','kind':'reject_once'}]";

	(void) state;
	assert_permission(all, "allow", "b");
	assert_permission(all, "reject", "d");
	assert_permission("[{'optionId':'a','kind':'allow_always'}]", "allow", "a");
	assert_permission("[{'optionId':'c','kind':'reject_always'}]", "reject", "c");
	/* kinds may come twice; what can't be chosen is passed over */
	assert_permission("[{'kind':'allow_once'},{'optionId':'x','kind':'allow_always'},"
					  "{'optionId':'y','kind':'allow_always'}]", "allow", "x");
	assert_permission("[{'optionId':'d','kind':'reject_once'}]", "allow", NULL);
	assert_permission("[{'optionId':'b','kind':'allow_once'}]", "reject", NULL);
	/* an unknown policy allows nothing */
	assert_permission(all, "ask", "d");
	assert_permission("[]", "allow", NULL);
	assert_permission("null", "allow", NULL);
	assert_permission("[5,null,{'kind':3,'optionId':{}}]", "allow", NULL);
	assert_null(bc_acp_permission(NULL, "allow"));
}

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
		cmocka_unit_test(permissions_follow_the_policy),
		cmocka_unit_test(options_are_found_by_category_or_id),
		cmocka_unit_test(the_current_model_is_read_from_either_form),
	};

	return cmocka_run_group_tests_name("acp_options", tests, NULL, NULL);
}
