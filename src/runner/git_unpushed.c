/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_unpushed.c
 *	  Commits of a worktree that are nowhere else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/buf.h"
#include "runner/git_text.h"
#include "runner/git_unpushed.h"

#define MAX_OWN 1000			/* commits looked at */
#define MAX_THEIRS 2000
#define MAX_LISTED 20
#define OURS "refs/heads/boocoder/"

/* Ids of changes, whatever commit they are in */
typedef struct Changes
{
	git_oid    *ids;
	size_t		n;
} Changes;

void
bc_git_tip(git_repository *repo, const BcGitEntry *entry, git_oid *tip)
{
	char	   *head = bc_git_entry_head(entry);

	git_oid_cpy(tip, &entry->base);
	if (head != NULL && strncmp(head, "ref: ", 5) == 0)
		(void) git_reference_name_to_id(tip, repo, head + 5);
	else if (head != NULL && strlen(head) == GIT_OID_HEXSZ)
		(void) git_oid_fromstr(tip, head);
	free(head);
}

/* The change from one tree to another; false for none, or when it can't be told. */
static bool
change_id(git_repository *repo, git_tree *from, git_tree *to, git_oid *id)
{
	git_diff   *diff = NULL;
	bool		ok = git_diff_tree_to_tree(&diff, repo, from, to, NULL) == 0 &&
		git_diff_num_deltas(diff) > 0 && git_diff_patchid(id, diff, NULL) == 0;

	git_diff_free(diff);
	return ok;
}

/* The change that a commit makes; merges make none of their own. */
static bool
commit_change(git_repository *repo, git_commit *commit, git_oid *id)
{
	git_commit *parent = NULL;
	git_tree   *from = NULL;
	git_tree   *to = NULL;
	bool		ok = git_commit_parentcount(commit) <= 1 && git_commit_tree(&to, commit) == 0;

	if (ok && git_commit_parentcount(commit) == 1)
		ok = git_commit_parent(&parent, commit, 0) == 0 && git_commit_tree(&from, parent) == 0;
	ok = ok && change_id(repo, from, to, id);
	git_tree_free(from);
	git_tree_free(to);
	git_commit_free(parent);
	return ok;
}

static bool
has(const Changes *changes, const git_oid *id)
{
	for (size_t i = 0; i < changes->n; i++)
		if (git_oid_equal(&changes->ids[i], id))
			return true;
	return false;
}

/* Branches that are not ours, and what is known of other repositories'. */
static bool
is_elsewhere(const char *ref)
{
	return (strncmp(ref, "refs/heads/", 11) == 0 && strncmp(ref, OURS, strlen(OURS)) != 0) ||
		strncmp(ref, "refs/remotes/", 13) == 0;
}

/* Calls git_revwalk_push or _hide with each of these; not with "but", which the worktree has checked out. */
static void
each_elsewhere(git_repository *repo, git_revwalk *walk, const char *but,
			   int (*call) (git_revwalk *, const git_oid *))
{
	git_reference_iterator *refs = NULL;
	const char *name;

	if (git_reference_iterator_new(&refs, repo) != 0)
		return;
	while (git_reference_next_name(&name, refs) == 0)
	{
		git_oid		oid;

		if (is_elsewhere(name) && strcmp(name, but) != 0 &&
			git_reference_name_to_id(&oid, repo, name) == 0)
			(void) call(walk, &oid);
	}
	git_reference_iterator_free(refs);
}

static void
checked_out(const BcGitEntry *entry, char *name, size_t size)
{
	char	   *head = bc_git_entry_head(entry);

	name[0] = '\0';
	if (head != NULL && strncmp(head, "ref: ", 5) == 0)
		snprintf(name, size, "%s", head + 5);
	free(head);
}

/* What was committed elsewhere since the worktree began. */
static void
their_changes(git_repository *repo, const BcGitEntry *entry, const char *head, Changes *changes)
{
	git_revwalk *walk = NULL;
	git_oid		oid;

	changes->ids = bc_alloc(MAX_THEIRS * sizeof(git_oid));
	changes->n = 0;
	if (git_revwalk_new(&walk, repo) != 0)
		return;
	each_elsewhere(repo, walk, head, git_revwalk_push);
	(void) git_revwalk_hide(walk, &entry->base);
	for (size_t looked = 0; looked < MAX_THEIRS && git_revwalk_next(&oid, walk) == 0; looked++)
	{
		git_commit *commit = NULL;

		if (git_commit_lookup(&commit, repo, &oid) == 0 &&
			commit_change(repo, commit, &changes->ids[changes->n]))
			changes->n++;
		git_commit_free(commit);
	}
	git_revwalk_free(walk);
}

/* All that the worktree's commits change, as one. */
static bool
squashed(git_repository *repo, const BcGitEntry *entry, const git_oid *tip, const Changes *changes)
{
	git_commit *first = NULL;
	git_commit *last = NULL;
	git_tree   *from = NULL;
	git_tree   *to = NULL;
	git_oid		id;
	bool		found = git_commit_lookup(&first, repo, &entry->base) == 0 &&
		git_commit_lookup(&last, repo, tip) == 0 &&
		git_commit_tree(&from, first) == 0 && git_commit_tree(&to, last) == 0 &&
		(git_oid_equal(git_tree_id(from), git_tree_id(to)) ||
		 (change_id(repo, from, to, &id) && has(changes, &id)));

	git_tree_free(from);
	git_tree_free(to);
	git_commit_free(first);
	git_commit_free(last);
	return found;
}

static json_t *
commit_json(git_commit *commit)
{
	char		hex[GIT_OID_HEXSZ + 1];
	const char *summary = git_commit_summary(commit);

	return json_pack("{s:s, s:o}", "commit", git_oid_tostr(hex, sizeof(hex), git_commit_id(commit)),
					 "summary", bc_git_string_json(summary != NULL ? summary : ""));
}

bool
bc_git_unpushed(git_repository *repo, const BcGitEntry *entry, json_t *list, size_t *count,
				BcGitProblem *problem)
{
	char		head[BC_GIT_BRANCH_MAX + 32];
	git_revwalk *walk = NULL;
	Changes		changes = {NULL, 0};
	git_oid		tip;
	git_oid		oid;

	*count = 0;
	bc_git_tip(repo, entry, &tip);
	if (git_oid_equal(&tip, &entry->base))
		return true;
	checked_out(entry, head, sizeof(head));
	if (git_revwalk_new(&walk, repo) != 0 || git_revwalk_push(walk, &tip) != 0)
	{
		git_revwalk_free(walk);
		return bc_git_problem_git(problem, "the commits of the worktree cannot be read");
	}
	(void) git_revwalk_hide(walk, &entry->base);
	each_elsewhere(repo, walk, head, git_revwalk_hide);
	for (size_t looked = 0; looked < MAX_OWN && git_revwalk_next(&oid, walk) == 0; looked++)
	{
		git_commit *commit = NULL;
		git_oid		id;

		if (changes.ids == NULL)
		{
			their_changes(repo, entry, head, &changes);
			if (squashed(repo, entry, &tip, &changes))
				break;
		}
		if (git_commit_lookup(&commit, repo, &oid) == 0 &&
			git_commit_parentcount(commit) <= 1 &&
			!(commit_change(repo, commit, &id) && has(&changes, &id)))
		{
			++*count;
			if (json_array_size(list) < MAX_LISTED)
				json_array_append_new(list, commit_json(commit));
		}
		git_commit_free(commit);
	}
	free(changes.ids);
	git_revwalk_free(walk);
	return true;
}
