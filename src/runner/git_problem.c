/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_problem.c
 *	  Problems as data, problems as RESULT, and reading of orders.
 */
#include "runner/git_problem.h"

#include <errno.h>
#include <git2.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runner/git_text.h"

static void
set_message(BcGitProblem *problem, BcGitReason reason, const char *format, va_list args)
{
	problem->reason = reason;
	problem->detail[0] = '\0';
	problem->hint[0] = '\0';
	vsnprintf(problem->message, sizeof(problem->message), format, args);
}

bool
bc_git_problem(BcGitProblem *problem, BcGitReason reason, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	set_message(problem, reason, format, args);
	va_end(args);
	return false;
}

bool
bc_git_problem_git(BcGitProblem *problem, const char *format,...)
{
	const git_error *error = git_error_last();
	va_list		args;

	va_start(args, format);
	set_message(problem, BC_GIT_GIT_ERROR, format, args);
	va_end(args);
	if (error != NULL && error->message != NULL)
		snprintf(problem->detail, sizeof(problem->detail), "%s", error->message);
	return false;
}

bool
bc_git_problem_errno(BcGitProblem *problem, BcGitReason reason, const char *format,...)
{
	int			saved = errno;
	va_list		args;

	va_start(args, format);
	set_message(problem, reason, format, args);
	va_end(args);
	snprintf(problem->detail, sizeof(problem->detail), "%s", strerror(saved));
	return false;
}

bool
bc_git_problem_hint(BcGitProblem *problem, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(problem->hint, sizeof(problem->hint), format, args);
	va_end(args);
	return false;
}

json_t *
bc_git_problem_json(const BcGitProblem *problem)
{
	static const char *const names[] = {
#define BC_GIT_REASON_NAME(name, text) text,
		BC_GIT_REASONS(BC_GIT_REASON_NAME)
	};
	json_t	   *result = json_pack("{s:b, s:s, s:o}", "ok", 0, "reason", names[problem->reason],
								   "message", bc_git_string_json(problem->message));

	if (result != NULL && problem->detail[0] != '\0')
		json_object_set_new(result, "detail", bc_git_string_json(problem->detail));
	if (result != NULL && problem->hint[0] != '\0')
		json_object_set_new(result, "hint", bc_git_string_json(problem->hint));
	return result;
}

bool
bc_git_order(const json_t *order, BcGitProblem *problem, const char *format,...)
{
	json_error_t error;
	va_list		args;
	int			status;

	va_start(args, format);
	/* jansson wants a mutable object; without JSON_STRICT and 'O' it only reads */
	status = json_vunpack_ex((json_t *) order, &error, 0, format, args);
	va_end(args);
	if (status == 0)
		return true;
	bc_git_problem(problem, BC_GIT_GIT_ERROR, "the order is malformed");
	snprintf(problem->detail, sizeof(problem->detail), "%s", error.text);
	return false;
}

bool
bc_git_order_id(const json_t *order, char *out, BcGitProblem *problem)
{
	const json_t *id = json_object_get(json_object_get(order, "worktree"), "id");

	out[0] = '\0';
	if (json_is_integer(id))
		snprintf(out, 64, "%lld", (long long) json_integer_value(id));
	else if (json_is_string(id) && json_string_length(id) < 64)
		snprintf(out, 64, "%s", json_string_value(id));
	if (out[0] == '\0' ||
		strspn(out, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") != strlen(out))
		return bc_git_problem(problem, BC_GIT_GIT_ERROR, "the order has no usable worktree id");
	return true;
}
