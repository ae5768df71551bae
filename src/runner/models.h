/* SPDX-License-Identifier: PostgreSQL */
/*
 * models.h
 *	  A list of models, out of the forms in which servers, programs and
 *	  settings name them.  Pure; takes any bytes.
 */
#ifndef BC_RUNNER_MODELS_H
#define BC_RUNNER_MODELS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define BC_MODELS_MAX	2000	/* models of a list; more are dropped */
#define BC_MODELS_TEXT	512		/* bytes of an id; a name is cut there */

typedef struct BcModels
{
	json_t	   *list;			/* [{"id", "name"}], each id once, in the order of their coming */
	json_t	   *seen;			/* the ids, as keys */
} BcModels;

extern void bc_models_init(BcModels *models);
extern void bc_models_free(BcModels *models);

/*
 * Adds one with the id "prefix" + "id" ("prefix" may be NULL).  Without a name
 * it gets "id" as name.  What is no usable id, or there already, is passed over.
 */
extern void bc_models_add(BcModels *models, const char *prefix, const char *id, const char *name);

/*
 * The answer to GET /v1/models: {"data": [{"id"}]}, and its variants.  False
 * when it is nothing like that.
 */
extern bool bc_models_add_answer(BcModels *models, const char *prefix, const char *text,
								 size_t len);

/* A line of "opencode models": provider/model. */
extern void bc_models_add_plain(BcModels *models, const char *line, size_t len);

/*
 * A line of "pi --list-models", a table whose first columns are provider and
 * model.  "*in_table" is the caller's, false before the first line.
 */
extern void bc_models_add_row(BcModels *models, const char *line, size_t len, bool *in_table);

/*
 * The settings of Qwen Code (JSON with comments).  The one in use, or NULL when
 * they do not say; the caller frees.
 */
extern char *bc_models_add_settings(BcModels *models, const char *text, size_t len);

/* The aliases that Claude Code takes for its models. */
extern void bc_models_add_claude(BcModels *models);

#endif							/* BC_RUNNER_MODELS_H */
