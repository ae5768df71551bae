/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_repo.h
 *	  What the git roles share: opening repositories, results, refs, paths.
 *
 * Functions that return json_t * return NULL for success, or a RESULT that
 * says what failed, which is the caller's to pass on.
 */
#ifndef BC_RUNNER_GIT_REPO_H
#define BC_RUNNER_GIT_REPO_H

#include <git2.h>
#include <jansson.h>
#include <stdbool.h>

/* A RESULT of failure; libgit2's last error, if there is one, is its detail. */
extern json_t *bc_git_fail(const char *reason, const char *hint, const char *format,...)
			__attribute__((format(printf, 3, 4)));

/* "object.key" as text, or NULL. */
extern const char *bc_git_text(const json_t *order, const char *object, const char *key);

/*
 * Opens the repository whose checkout is "path": it must be ours, not bare,
 * and have a commit.  Only its own configuration counts.
 */
extern json_t *bc_git_open_project(const char *path, git_repository **repo);

/*
 * Opens the worktree of an order through the project's administrative entry,
 * never through the worktree's own .git, which is in the agent's hands.
 */
extern json_t *bc_git_open_worktree(const json_t *order, git_repository *project,
									git_repository **repo);

/*
 * Waits until no other runner changes refs or worktrees of the repository; the
 * descriptor to close when done, or -1.  libgit2 itself does not expect two
 * processes to make worktrees of one repository at the same time.
 */
extern int	bc_git_lock(git_repository *repo);

/* Name of the worktree's administrative entry and of its refs; the caller frees. */
extern char *bc_git_worktree_name(const char *path);

/* The tree of a commit given as hex. */
extern json_t *bc_git_tree(git_repository *repo, const char *commit, git_tree **tree);

/*
 * Makes a commit of "tree" with the given parents (NULL ones are left out) and
 * lets "ref" point to it.  "hex" has GIT_OID_HEXSZ + 1 bytes.
 */
extern json_t *bc_git_save(git_repository *repo, const char *ref, const git_oid *tree,
						   const git_oid *const *parents, size_t nparents,
						   const char *message, char *hex);

/*
 * The content of a worktree, without what is ignored, as a tree in the object
 * store.  Fails with diff_too_large when changed files add up to more than
 * "max_bytes" (0: no limit).
 */
extern json_t *bc_git_snapshot(git_repository *worktree, json_int_t max_bytes, git_oid *tree);

#endif							/* BC_RUNNER_GIT_REPO_H */
