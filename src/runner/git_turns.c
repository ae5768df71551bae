/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_turns.c
 *	  refs/boocoder/snapshots/<worktree> and refs/boocoder/turns/<worktree>/<task>.
 *	  See git_turns.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/git_repo.h"
#include "runner/git_turns.h"

static void
turn_ref(char *ref, size_t size, const char *key, json_int_t turn)
{
	char		name[128];

	snprintf(name, sizeof(name), "%s/%lld", key, (long long) turn);
	bc_git_ref_name(ref, size, "turns", name);
}

static bool
keep(git_repository *repo, const char *ref, const git_oid *tree, const git_oid *base,
	 BcGitProblem *problem)
{
	git_oid		commit;

	return bc_git_commit_to(repo, ref, tree, base, 1, "boocoder: snapshot\n", &commit, problem);
}

bool
bc_git_last_keep(git_repository *repo, const char *key, const git_oid *tree, const git_oid *base,
				 BcGitProblem *problem)
{
	char		ref[160];

	bc_git_ref_name(ref, sizeof(ref), "snapshots", key);
	return keep(repo, ref, tree, base, problem);
}

bool
bc_git_turn_keep(git_repository *repo, const char *key, json_int_t turn, const git_oid *tree,
				 const git_oid *base, char *ref, size_t size, BcGitProblem *problem)
{
	turn_ref(ref, size, key, turn);
	return keep(repo, ref, tree, base, problem);
}

static int
highest_first(const void *a, const void *b)
{
	json_int_t	x = *(const json_int_t *) a;
	json_int_t	y = *(const json_int_t *) b;

	return (x < y) - (x > y);
}

void
bc_git_turns_prune(git_repository *repo, const char *key, json_int_t turn, json_int_t max)
{
	char		ref[160];
	git_reference_iterator *refs = NULL;
	const char *name;
	json_int_t *turns = NULL;
	size_t		n = 0;

	snprintf(ref, sizeof(ref), "refs/boocoder/turns/%s/*", key);
	if (max == 0 || git_reference_iterator_glob_new(&refs, repo, ref) != 0)
		return;
	while (git_reference_next_name(&name, refs) == 0)
	{
		json_int_t	other = strtoll(strrchr(name, '/') + 1, NULL, 10);
		json_int_t *more;

		if (other == turn)
			continue;
		more = realloc(turns, (n + 1) * sizeof(*turns));
		if (more == NULL)
			break;
		turns = more;
		turns[n++] = other;
	}
	git_reference_iterator_free(refs);
	if (n > 0)
		qsort(turns, n, sizeof(*turns), highest_first);
	for (size_t i = (size_t) max - 1; i < n; i++)
	{
		turn_ref(ref, sizeof(ref), key, turns[i]);
		bc_git_clear_ref_lock(repo, ref);
		(void) git_reference_remove(repo, ref);
	}
	free(turns);
}
