/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_repo.h
 *	  A project's repository: opening it, and what boocoder keeps in it.
 *
 * That is, and nothing else: objects, one branch and one entry under
 * worktrees/ per worktree, and refs under refs/boocoder/.  The entry is the only
 * thing trusted about a worktree: <worktree>/.git is the agent's to write.
 */
#ifndef BC_RUNNER_GIT_REPO_H
#define BC_RUNNER_GIT_REPO_H

#include <git2.h>
#include <limits.h>
#include <stdbool.h>

#include "runner/git_problem.h"

#define BC_GIT_BRANCH_MAX 256
#define BC_GIT_ENTRY_PREFIX "boocoder-"

/*
 * A worktree's entry.  "key" is the worktree's id, with "-2", "-3"... when
 * another database that uses the same project has a worktree of that id.  It
 * names everything of the worktree under refs/boocoder/.
 */
typedef struct BcGitEntry
{
	char		key[80];
	char		dir[PATH_MAX];	/* <common .git>/worktrees/boocoder-<key> */
	bool		ready;			/* the checkout was completed once */
	char		branch[BC_GIT_BRANCH_MAX];	/* short name */
	git_oid		base;			/* the commit the worktree was made from */
} BcGitEntry;

/*
 * Opens the repository whose checkout is "path", without looking into parent
 * directories; with "search" it does look there.  It must be ours and not bare.
 * Sets the process's umask to what the repository's own mode allows.
 */
extern git_repository *bc_git_open(const char *path, bool search, BcGitProblem *problem);

/*
 * Takes the exclusive lock on the directory "path" (nothing is written).
 * Returns the descriptor, close() unlocks; -1 with errno set.
 */
extern int	bc_git_lock(const char *path);

/* "<common .git>/worktrees/boocoder-<key>" into "out" (PATH_MAX); false: too long. */
extern bool bc_git_entry_path(git_repository *repo, const char *key, char *out);

/*
 * Finds the entry of worktree "id" at "path".  False (no problem set) when
 * there is none.  "path" is compared by its real name.
 */
extern bool bc_git_entry_find(git_repository *repo, const char *id, const char *path,
							  BcGitEntry *entry);

/* Where the worktree of the entry at "dir" is, as the entry has it.  malloc'ed or NULL. */
extern char *bc_git_entry_leads_to(const char *dir);

/* Reads branch and base of entry->dir, and sets "ready". */
extern void bc_git_entry_load(BcGitEntry *entry);

/* Marks the entry's checkout as complete; branch and base are kept in it. */
extern bool bc_git_entry_set_ready(const BcGitEntry *entry, BcGitProblem *problem);

/* Writes a small file durably: all of it or none.  False with errno set. */
extern bool bc_git_write_file(const char *path, const char *text);

/* Reads a small regular file, without its last newline.  malloc'ed or NULL. */
extern char *bc_git_read_file(const char *path);

/* Parent directory by its real name, last component kept: "out" of PATH_MAX. */
extern bool bc_git_real_path(const char *path, char *out);

/* What the worktree has checked out: "ref: refs/heads/...", or a commit's hex id.  malloc'ed or NULL. */
extern char *bc_git_entry_head(const BcGitEntry *entry);

/*
 * The name refs/boocoder/<kind>/<key>, or <key>-2, <key>-3..., that is free, or
 * has "tree" already ("*have").  Fewer than "max" are tried.
 */
extern bool bc_git_ref_for(git_repository *repo, const char *kind, const char *key,
						   const git_oid *tree, int max, char *name, size_t size, bool *have,
						   BcGitProblem *problem);

/* refs/boocoder/<kind>/<key> */
extern void bc_git_ref_name(char *out, size_t size, const char *kind, const char *key);

/* core.fileMode: does the exec bit of a file count? */
extern bool bc_git_file_mode(git_repository *repo);

/*
 * Removes the lock that a killed run left of a ref of ours.  Only for refs that
 * nobody else writes at that moment: those below refs/boocoder/, or branches
 * below boocoder/ under the repository's lock.
 */
extern void bc_git_clear_ref_lock(git_repository *repo, const char *ref);

/* Commits "tree" with at most 3 parents and points "ref" at it (overwritten). */
extern bool bc_git_commit_to(git_repository *repo, const char *ref, const git_oid *tree,
							 const git_oid *parents, size_t nparents, const char *message,
							 git_oid *out, BcGitProblem *problem);

/* The commit named by its full hex id; its tree (the caller frees it) unless "tree" is NULL. */
extern bool bc_git_commit_tree(git_repository *repo, const char *hex, git_oid *commit,
							   git_tree **tree, BcGitProblem *problem);

#endif							/* BC_RUNNER_GIT_REPO_H */
