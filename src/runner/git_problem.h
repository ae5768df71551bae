/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_problem.h
 *	  Why a git role could not do its work, and reading of orders.
 */
#ifndef BC_RUNNER_GIT_PROBLEM_H
#define BC_RUNNER_GIT_PROBLEM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * The closed list.  The name is what travels in "reason".
 */
#define BC_GIT_REASONS(X) \
	X(GIT_ERROR, "git_error") \
	X(REPOSITORY_MISSING, "repository_missing") \
	X(REPOSITORY_NOT_OWNED, "repository_not_owned") \
	X(REPOSITORY_UNREADABLE, "repository_unreadable") \
	X(REPOSITORY_BARE, "repository_bare") \
	X(REPOSITORY_EMPTY, "repository_empty") \
	X(BASE_NOT_FOUND, "base_not_found") \
	X(WORKTREE_ROOT_UNSAFE, "worktree_root_unsafe") \
	X(WORKTREE_ROOT_UNWRITABLE, "worktree_root_unwritable") \
	X(WORKTREE_MISSING, "worktree_missing") \
	X(PATH_OCCUPIED, "path_occupied") \
	X(DIFF_TOO_LARGE, "diff_too_large") \
	X(UNSAFE_PATH, "unsafe_path") \
	X(CONFLICT, "conflict") \
	X(WORKTREE_AT_RISK, "worktree_at_risk")

typedef enum BcGitReason
{
#define BC_GIT_REASON_ENUM(name, text) BC_GIT_##name,
	BC_GIT_REASONS(BC_GIT_REASON_ENUM)
#undef BC_GIT_REASON_ENUM
} BcGitReason;

/* Texts may hold any bytes; bc_git_problem_json() repairs them. */
typedef struct BcGitProblem
{
	BcGitReason reason;
	char		message[2048];
	char		detail[1024];	/* empty: none */
	char		hint[1024];		/* empty: none */
} BcGitProblem;

/*
 * Set a problem.  All return false, so that a failing function can end with
 * "return bc_git_problem(...)".
 *	 _git	takes reason git_error and the detail from libgit2's last error
 *	 _errno takes the detail from errno
 */
extern bool bc_git_problem(BcGitProblem *problem, BcGitReason reason, const char *format,...)
			__attribute__((format(printf, 3, 4)));
extern bool bc_git_problem_git(BcGitProblem *problem, const char *format,...)
			__attribute__((format(printf, 2, 3)));
extern bool bc_git_problem_errno(BcGitProblem *problem, BcGitReason reason,
								 const char *format,...)
			__attribute__((format(printf, 3, 4)));

/* Adds a hint to a problem that is set.  Returns false as well. */
extern bool bc_git_problem_hint(BcGitProblem *problem, const char *format,...)
			__attribute__((format(printf, 2, 3)));

/* The RESULT for a problem, owned by the caller; NULL when out of memory. */
extern json_t *bc_git_problem_json(const BcGitProblem *problem);

/*
 * json_unpack() of an order: the strings stay owned by it.  A member that is
 * missing or of another type is a problem (git_error).
 */
extern bool bc_git_order(const json_t *order, BcGitProblem *problem, const char *format,...);

/*
 * The worktree's id as text, "out" of 64 bytes.  Only letters, digits, '-' and
 * '_' pass: it becomes part of a file name and of a ref.
 */
extern bool bc_git_order_id(const json_t *order, char *out, BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_PROBLEM_H */
