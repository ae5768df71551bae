/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_command_line.c
 *	  Placeholders in commands.
 */
#include "unit.h"

#include "capture.h"
#include "runner/command_line.h"

static void
check(const char *order_text, const char *expected)
{
	json_t	   *order = json_of(order_text);
	json_t	   *line = bc_command_line(order);

	assert_json(line, expected);
	json_decref(line);
	json_decref(order);
}

static bool
has_prompt(const char *order_text)
{
	json_t	   *order = json_of(order_text);
	bool		has = bc_command_has_prompt(order);

	json_decref(order);
	return has;
}

static bool
has_option(const char *order_text, const char *option, const char *value)
{
	json_t	   *order = json_of(order_text);
	bool		has = bc_command_has_option(order, option, value);

	json_decref(order);
	return has;
}

static void
values_are_filled_in(void **state)
{
	(void) state;
	check("{'command':['p','--model','{model}','--mode','{mode}','-s','{session}','{prompt}'],"
		  "'model':'m 1','mode':'plan','resume':{'session_id':'s'},'input':'do it; $(x)'}",
		  "['p','--model','m 1','--mode','plan','-s','s','do it; $(x)']");
	/* What was filled in is no placeholder. */
	check("{'command':['p','{prompt}','{model}'],'input':'{model}','model':'{prompt}'}", "['p','{model}','{prompt}']");
	/* Only a whole element is one. */
	check("{'command':['p','--model={model}','{Model}'],'model':'m'}", "['p','--model={model}','{Model}']");
	check("{'command':['p']}", "['p']");
	check("{'command':['p','{prompt}'],'input':''}", "['p','']");
}

static void
without_a_value_the_option_goes_too(void **state)
{
	(void) state;
	check("{'command':['p','-v','--model','{model}','--mode','{mode}','x'],'model':null}", "['p','-v','x']");
	check("{'command':['p','--model','{model}'],'model':''}", "['p']");
	check("{'command':['p','run','{prompt}']}", "['p','run']");
	check("{'command':['{model}']}", "[]");
	/* One with a value is complete. */
	check("{'command':['p','--format=json','{prompt}']}", "['p','--format=json']");
	/* A dash and the end of options are none. */
	check("{'command':['p','-','{model}','--','{prompt}']}", "['p','-','--']");
	/* Nor is a value that was filled in before. */
	check("{'command':['p','{prompt}','{model}'],'input':'-x'}", "['p',' -x']");
	check("{'command':['p','--model','{model}','{mode}'],'model':'m'}", "['p','--model','m']");
	/* What was dropped does not take its neighbour along. */
	check("{'command':['p','-v','{model}','{mode}']}", "['p']");
}

static void
values_are_no_options(void **state)
{
	(void) state;
	check("{'command':['p','--model','{model}','{prompt}'],'model':'--yolo','input':'--yolo'}", "['p',' --yolo']");
	check("{'command':['p','{prompt}'],'input':'-'}", "['p',' -']");
}

static void
a_long_prompt_is_no_argument(void **state)
{
	char	   *text = malloc(102402);
	json_t	   *order = json_of("{'command':['p','-t','{prompt}']}");
	json_t	   *line;

	(void) state;
	memset(text, 'x', 102401);
	text[102401] = '\0';
	json_object_set_new(order, "input", json_string(text));
	line = bc_command_line(order);
	assert_json(line, "['p']");
	assert_false(bc_command_has_prompt(order));
	json_decref(line);
	text[102400] = '\0';
	json_object_set_new(order, "input", json_string(text));
	line = bc_command_line(order);
	assert_int_equal(json_array_size(line), 3);
	assert_true(bc_command_has_prompt(order));
	json_decref(line);
	json_decref(order);
	free(text);
}

static void
the_prompt_is_found(void **state)
{
	(void) state;
	assert_true(has_prompt("{'command':['p','{prompt}'],'input':'x'}"));
	assert_false(has_prompt("{'command':['p','{prompt}']}"));
	assert_false(has_prompt("{'command':['p','-'],'input':'{prompt}'}"));
	assert_false(has_prompt("{'input':'x'}"));
}

static void
options_are_found(void **state)
{
	static const char order[] = "{'command':['p','--format','json','--in=text','--format-x','y','--last']}";

	(void) state;
	assert_true(has_option(order, "--format", "json"));
	assert_true(has_option(order, "--in", "text"));
	assert_false(has_option(order, "--format", "text"));
	assert_false(has_option(order, "--format", "y"));
	assert_false(has_option(order, "--last", ""));
	assert_false(has_option("{}", "--last", ""));
	assert_false(has_option("{'command':'x'}", "--last", ""));
	assert_false(has_option("{'command':[1,null,'--in',2]}", "--in", "2"));
}

static void
any_json_will_do(void **state)
{
	json_t	   *order = json_of("{'command':[1,null,'-x',{},'{model}'],'model':7}");
	json_t	   *line = bc_command_line(order);

	(void) state;
	assert_json(line, "[1,null,'-x',{}]");
	json_decref(line);
	json_decref(order);
	order = json_of("{'command':'p'}");
	assert_null(bc_command_line(order));
	json_decref(order);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_filled_in),
		cmocka_unit_test(without_a_value_the_option_goes_too),
		cmocka_unit_test(values_are_no_options),
		cmocka_unit_test(a_long_prompt_is_no_argument),
		cmocka_unit_test(the_prompt_is_found),
		cmocka_unit_test(options_are_found),
		cmocka_unit_test(any_json_will_do),
	};

	return cmocka_run_group_tests_name("command_line", tests, NULL, NULL);
}
