/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_models.c
 *	  What programs and servers say of their models and their version, and what
 *	  an ACP agent offers.
 */
#include "unit.h"

#include "capture.h"
#include "runner/acp_offer.h"
#include "runner/buf.h"
#include "runner/models.h"
#include "runner/version.h"

static void
assert_version(const char *line, const char *expected)
{
	char	   *version = bc_version_find(line, strlen(line));

	if (expected == NULL)
		assert_null(version);
	else
	{
		assert_non_null(version);
		assert_string_equal(version, expected);
	}
	free(version);
}

static void
versions_are_found(void **state)
{
	(void) state;
	assert_version("1.18.33", "1.18.33");
	assert_version("v1.2", "1.2");
	assert_version("2.1.330 (Claude Code)", "2.1.330");
	assert_version("codex-cli 0.169.0", "0.169.0");
	assert_version("pi/0.87.1 linux", "0.87.1");
	assert_version("tool V3.0.0-beta.1+x86_64, built today", "3.0.0-beta.1+x86");
	assert_version("in 2026: 1.0rc2.", "1.0rc2");
	assert_version("a 1.2.3.4.5 b", "1.2.3.4.5");
	assert_version("\033[1mgoose\033[0m 1.34.0\r", "1.34.0");
	assert_version("utf8.1 x86.64 prov1.2", NULL);
	assert_version("20261123", NULL);
	assert_version(".5", NULL);
	assert_version("1. 2", NULL);
	assert_version("", NULL);
	assert_version("no version", NULL);
	/* what is too long is none */
	assert_version("1.2222222222222222222222222222222222222222222222222222222222222222222222222222", NULL);
}

/* The answer's models with the prefix "p/"; NULL when it is none. */
static void
assert_answer(const char *answer, const char *expected)
{
	BcModels	models;
	char	   *text = bc_strdup(answer);

	for (char *c = text; *c != '\0'; c++)
		if (*c == '\'')
			*c = '"';
	bc_models_init(&models);
	assert_int_equal(bc_models_add_answer(&models, "p/", text, strlen(text)), expected != NULL);
	assert_json(models.list, expected != NULL ? expected : "[]");
	bc_models_free(&models);
	free(text);
}

static void
answers_of_endpoints(void **state)
{
	(void) state;
	assert_answer("{'object':'list','data':[{'id':'a','object':'model','created':1},{'id':'b/c','name':'The C'}]}",
				  "[{'id':'p/a','name':'a'},{'id':'p/b/c','name':'The C'}]");
	assert_answer("{'data':[]}", "[]");
	/* other servers' ways, also beside each other: "data" counts */
	assert_answer("['a','b']", "[{'id':'p/a','name':'a'},{'id':'p/b','name':'b'}]");
	assert_answer("{'models':[{'name':'x:latest','model':'x'}]}", "[{'id':'p/x','name':'x:latest'}]");
	assert_answer("{'models':[{'name':'x'}]}", "[{'id':'p/x','name':'x'}]");
	assert_answer("{'models':[{'name':'x'}],'data':[{'id':'y'}]}", "[{'id':'p/y','name':'y'}]");
	/* each once; what is no usable id is passed over */
	assert_answer("{'data':[{'id':'a'},{'id':'a','name':'again'},{'id':''},{'id':' a'},{'id':5},{'id':'a\\nb'},{},null,7,[]]}",
				  "[{'id':'p/a','name':'a'}]");
	assert_answer("{'data':[{'id':'a','name':''},{'id':'b','name':'x\\ty'}]}",
				  "[{'id':'p/a','name':'a'},{'id':'p/b','name':'b'}]");
	assert_answer("", NULL);
	assert_answer("<html>", NULL);
	assert_answer("{'error':'no'}", NULL);
	assert_answer("{'data':{'id':'a'}}", NULL);
	assert_answer("5", NULL);
}

static void
lists_are_bounded(void **state)
{
	BcModels	models;
	char		id[BC_MODELS_TEXT + 2];

	(void) state;
	bc_models_init(&models);
	memset(id, 'x', sizeof(id));
	id[BC_MODELS_TEXT + 1] = '\0';
	bc_models_add(&models, NULL, id, NULL);
	assert_int_equal(json_array_size(models.list), 0);
	id[BC_MODELS_TEXT] = '\0';
	bc_models_add(&models, "p", id, NULL);
	assert_int_equal(json_array_size(models.list), 0);
	bc_models_add(&models, "", id, NULL);
	assert_int_equal(json_array_size(models.list), 1);
	/* a long name is cut, but not within a character */
	memset(id, 'x', sizeof(id));
	memcpy(id + BC_MODELS_TEXT - 1, "\xc3\xa9", 3);
	bc_models_add(&models, NULL, "named", id);
	assert_int_equal(json_string_length(json_object_get(json_array_get(models.list, 1), "name")),
					 BC_MODELS_TEXT - 1);
	for (int i = 0; i < 2 * BC_MODELS_MAX; i++)
	{
		snprintf(id, sizeof(id), "m%d", i);
		bc_models_add(&models, NULL, id, NULL);
	}
	assert_int_equal(json_array_size(models.list), BC_MODELS_MAX);
	bc_models_free(&models);
}

static void
lines_of_opencode(void **state)
{
	static const char *const lines[] = {
		"opencode/big-pickle", "  lab/org/m  ", "Refreshing models...", "error: a/b", "", "plain", "lab/org/m"
	};
	BcModels	models;

	(void) state;
	bc_models_init(&models);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		bc_models_add_plain(&models, lines[i], strlen(lines[i]));
	assert_json(models.list, "[{'id':'opencode/big-pickle','name':'opencode/big-pickle'},"
				"{'id':'lab/org/m','name':'lab/org/m'}]");
	bc_models_free(&models);
}

static void
table_of_pi(void **state)
{
	static const char *const lines[] = {
		"Warning: something else",
		"provider  model      context  max-out  thinking  images",
		"lab       lab-model  200K     16K      yes       no",
		"",
		"lone",
		"open  a/b"
	};
	BcModels	models;
	bool		in_table = false;

	(void) state;
	bc_models_init(&models);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		bc_models_add_row(&models, lines[i], strlen(lines[i]), &in_table);
	assert_json(models.list, "[{'id':'lab/lab-model','name':'lab-model'},{'id':'open/a/b','name':'a/b'}]");
	bc_models_free(&models);
}

static void
assert_settings(const char *text, const char *expected, const char *current)
{
	BcModels	models;
	char	   *in_use;

	bc_models_init(&models);
	in_use = bc_models_add_settings(&models, text, strlen(text));
	assert_json(models.list, expected);
	if (current == NULL)
		assert_null(in_use);
	else
		assert_string_equal(in_use, current);
	free(in_use);
	bc_models_free(&models);
}

static void
settings_of_qwen(void **state)
{
	(void) state;
	assert_settings("// a\n{/* b \" */\"model\": {\"name\": \"x//y\"}, \"modelProviders\": {"
					"\"openai\": [{\"id\": \"a\", \"name\": \"A /* no */\"}], "
					"\"other\": {\"models\": [{\"id\": \"b\"}]}, \"junk\": 5}} // end",
					"[{'id':'a','name':'A /* no */'},{'id':'b','name':'b'},{'id':'x//y','name':'x//y'}]", "x//y");
	assert_settings("{\"model\": \"old\"}", "[{'id':'old','name':'old'}]", "old");
	assert_settings("{\"s\": \"\\\"// not a comment\", \"model\": \"m\"}", "[{'id':'m','name':'m'}]", "m");
	assert_settings("{}", "[]", NULL);
	assert_settings("", "[]", NULL);
	assert_settings("/*", "[]", NULL);
	assert_settings("//", "[]", NULL);
	assert_settings("{\"model", "[]", NULL);
	assert_settings("[{\"model\": 5}]", "[]", NULL);
	assert_settings("{\"model\": 5, \"modelProviders\": [[1]]}", "[]", NULL);
}

/* --- ACP --- */

static void
assert_offer(const char *session, const char *models_expected, const char *modes_expected,
			 const char *mode)
{
	json_t	   *result = json_of(session);
	json_t	   *modes = bc_acp_offer_modes(result);
	BcModels	models;

	bc_models_init(&models);
	bc_acp_offer_models(&models, result);
	assert_json(models.list, models_expected);
	assert_json(modes, modes_expected);
	if (mode == NULL)
		assert_null(bc_acp_offer_mode(result));
	else
		assert_string_equal(bc_acp_offer_mode(result), mode);
	bc_models_free(&models);
	json_decref(modes);
	json_decref(result);
}

static void
offers_of_both_generations(void **state)
{
	(void) state;
	assert_offer("{'models':{'availableModels':[{'modelId':'m','name':'M','description':null},{'name':'x'}]},"
				 "'modes':{'currentModeId':'a','availableModes':[{'id':'a','name':'A','description':'d'},{'id':'b'},{}]}}",
				 "[{'id':'m','name':'M'}]",
				 "[{'id':'a','name':'A','description':'d'},{'id':'b','name':'b','description':null}]", "a");
	/* options win over what there was before; they may be grouped */
	assert_offer("{'models':{'availableModels':[{'modelId':'m'}]},'modes':{'currentModeId':'a','availableModes':[{'id':'a'}]},"
				 "'configOptions':[{'id':'o','category':'model','options':[{'group':'g','options':[{'value':'n','name':'N'}]},{'value':'o'}]},"
				 "{'id':'mode','currentValue':'z','options':[{'group':'g','options':[{'value':'y'}]},{'value':'z','name':'Z'}]}]}",
				 "[{'id':'n','name':'N'},{'id':'o','name':'o'}]",
				 "[{'id':'y','name':'y','description':null},{'id':'z','name':'Z','description':null}]", "z");
	assert_offer("{}", "[]", "[]", NULL);
	assert_offer("{'models':5,'modes':{'availableModes':{}},'configOptions':[1,{'id':'model','options':'x'}]}", "[]", "[]", NULL);
}

static void
commands_and_ways_to_sign_in(void **state)
{
	json_t	   *update = json_of("{'availableCommands':[{'name':'plan','description':'d','input':{'hint':'h'}},"
								 "{'name':'x','input':null},{'name':''},{'description':'y'},5]}");
	json_t	   *result = json_of("{'authMethods':[{'id':'a','name':'A','type':'env_var','env':{'K':'v'}},{'id':'b'},{'name':'c'},null]}");
	json_t	   *commands = bc_acp_offer_commands(update);
	json_t	   *methods = bc_acp_offer_auth(result);
	json_t	   *nothing = bc_acp_offer_commands(NULL);

	(void) state;
	assert_json(commands, "[{'name':'plan','description':'d','hint':'h'},{'name':'x','description':null,'hint':null}]");
	assert_json(methods, "[{'id':'a','name':'A','type':'env_var'},{'id':'b'}]");
	assert_json(nothing, "[]");
	json_decref(nothing);
	json_decref(methods);
	json_decref(commands);
	json_decref(result);
	json_decref(update);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(versions_are_found),
		cmocka_unit_test(answers_of_endpoints),
		cmocka_unit_test(lists_are_bounded),
		cmocka_unit_test(lines_of_opencode),
		cmocka_unit_test(table_of_pi),
		cmocka_unit_test(settings_of_qwen),
		cmocka_unit_test(offers_of_both_generations),
		cmocka_unit_test(commands_and_ways_to_sign_in),
	};

	return cmocka_run_group_tests_name("models", tests, NULL, NULL);
}
