/* SPDX-License-Identifier: PostgreSQL */
/*
 * fuzz_models.c
 *	  The answer to GET /v1/models, lines of programs, settings: any bytes make
 *	  a list of distinct ids that can be written down, or none.
 */
#include "fuzz.h"

#include "runner/models.h"
#include "runner/text.h"
#include "runner/version.h"

static void
check(BcModels *models)
{
	BcBuf		text = BC_BUF_INIT;
	size_t		i;
	json_t	   *model;

	REQUIRE(json_array_size(models->list) <= BC_MODELS_MAX);
	REQUIRE(json_object_size(models->seen) == json_array_size(models->list));
	json_array_foreach(models->list, i, model)
	{
		const char *id = json_string_value(json_object_get(model, "id"));
		const char *name = json_string_value(json_object_get(model, "name"));

		REQUIRE(id != NULL && name != NULL);
		REQUIRE(strlen(id) <= BC_MODELS_TEXT && strlen(name) <= BC_MODELS_TEXT);
		REQUIRE(id[0] != '\0' && bc_text_is_clean(id, strlen(id)));
		REQUIRE(bc_text_is_clean(name, strlen(name)));
	}
	bc_text_json(&text, models->list, SIZE_MAX);
	bc_buf_free(&text);
	bc_models_free(models);
	bc_models_init(models);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *) data;
	BcModels	models;
	bool		in_table = false;

	bc_models_init(&models);
	(void) bc_models_add_answer(&models, "p/", text, size);
	check(&models);
	free(bc_models_add_settings(&models, text, size));
	check(&models);
	for (size_t at = 0; at < size;)
	{
		const char *newline = memchr(text + at, '\n', size - at);
		size_t		n = newline != NULL ? (size_t) (newline - text) - at : size - at;

		bc_models_add_plain(&models, text + at, n);
		bc_models_add_row(&models, text + at, n, &in_table);
		free(bc_version_find(text + at, n));
		at += n + 1;
	}
	check(&models);
	bc_models_free(&models);
	return 0;
}
