/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_git_state.c
 *	  What a worktree holds that would be missed (assess), and giving it an
 *	  earlier content (rewrite).
 */
#include "git_fixture.h"

static char base[64];

static void
begin(void)
{
	snprintf(base, sizeof(base), "%s", make_worktree());
}

static json_t *
state_order(const char *role)
{
	return json_pack("{s:s, s:{s:s}, s:o}", "role", role, "project", "path", project,
					 "worktree", worktree_json(base));
}

/* The facts, "known" being a tree or NULL. */
static json_t *
assess(const char *known)
{
	json_t	   *order = state_order("assess");
	json_t	   *result;

	if (known != NULL)
		json_object_set_new(json_object_get(order, "worktree"), "snapshot_tree", json_string(known));
	result = run_role(bc_git_assess, order);
	if (!json_is_true(json_object_get(result, "ok")))
		fail_msg("%s", text_of(result, "message"));
	return result;
}

static void
check_facts(const char *what, const char *known, int dirty, int unpushed)
{
	json_t	   *facts = assess(known);
	json_int_t	d = json_integer_value(json_object_get(facts, "dirty_count"));
	json_int_t	u = json_integer_value(json_object_get(facts, "unpushed_count"));

	if (d != dirty || u != unpushed)
		fail_msg("%s: %d dirty, %d unpushed, not %d, %d", what, (int) d, (int) u, dirty, unpushed);
	json_decref(facts);
}

static json_t *
rewrite(const char *save, const char *to)
{
	json_t	   *order = state_order("rewrite");

	json_object_set_new(order, "save", json_string(save));
	if (to != NULL)
		json_object_set_new(order, "to", json_string(to));
	return run_role(bc_git_rewrite, order);
}

static json_t *
rewrite_ok(const char *save, const char *to)
{
	json_t	   *result = rewrite(save, to);

	if (!json_is_true(json_object_get(result, "ok")))
		fail_msg("%s", text_of(result, "message"));
	return result;
}

static void
each_kind_of_risk_is_told_alone(void **state)
{
	json_t	   *diff;

	(void) state;
	begin();
	check_facts("a new one", NULL, 0, 0);
	sh("cd \"$W\" && echo more >> README && echo x > new.txt && echo i > ignored && echo ignored > .gitignore");
	check_facts("edited", NULL, 3, 0);
	diff = role_diff(base);
	check_facts("told in a diff", text_of(diff, "tree"), 0, 0);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(diff, "facts"), "unpushed_count")), 0);
	sh("cd \"$W\" && echo again >> README");
	check_facts("edited again", text_of(diff, "tree"), 1, 0);
	json_decref(diff);
	sh("cd \"$W\" && git add -A && git commit -q -m one && echo 2 > two && git add two && git commit -q -m two");
	diff = role_diff(base);
	check_facts("committed", text_of(diff, "tree"), 0, 2);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(diff, "facts"), "unpushed_count")), 2);
	json_decref(diff);
}

static void
commits_that_are_elsewhere_are_not_missed(void **state)
{
	static const struct
	{
		const char *how;
		const char *command;
		int			left;
	}			cases[] = {
		{"merged", "cd \"$P\" && git merge -q boocoder/3", 0},
		{"merged with a merge commit", "cd \"$P\" && git merge -q --no-ff -m m boocoder/3", 0},
		{"squashed", "cd \"$P\" && git merge -q --squash boocoder/3 && git commit -q -m all", 0},
		{"squashed onto a later commit", "cd \"$P\" && echo z > z && git add z && git commit -q -m z && "
		"git merge -q --squash boocoder/3 && git commit -q -m all", 0},
		{"cherry-picked", "cd \"$P\" && echo z > z && git add z && git commit -q -m z && "
		"git cherry-pick boocoder/3~1 boocoder/3 > /dev/null", 0},
		{"one of two cherry-picked", "cd \"$P\" && echo z > z && git add z && git commit -q -m z && "
		"git cherry-pick boocoder/3~1 > /dev/null", 1},
		{"pushed", "git init -q --bare \"$T/hub\" && cd \"$P\" && git remote add hub \"$T/hub\" && "
		"git push -q hub boocoder/3 && git fetch -q hub", 0},
		{"pushed, and squashed upstream, its branch gone", "git init -q --bare -b main \"$T/hub\" && cd \"$P\" && "
		"git remote add hub \"$T/hub\" && git push -q hub main && git clone -q \"$T/hub\" \"$T/c\" && cd \"$T/c\" && "
		"git pull -q \"$P\" boocoder/3 --squash > /dev/null && git commit -q -m squash && git push -q && cd \"$P\" && git fetch -q hub", 0},
		{"another branch of ours", "cd \"$P\" && git branch boocoder/99 boocoder/3", 2},
		{"the change made again in another way", "cd \"$P\" && echo one >> README && git commit -q -a -m same", 2},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		if (i > 0)
		{
			git_teardown(state);
			git_setup(state);
		}
		begin();
		sh("cd \"$W\" && echo 1 > one && git add one && git commit -q -m one && echo 2 > two && git add two && git commit -q -m two");
		sh("%s", cases[i].command);
		{
			json_t	   *diff = role_diff(base);

			check_facts(cases[i].how, text_of(diff, "tree"), 0, cases[i].left);
			json_decref(diff);
		}
	}
}

static void
a_worktree_that_vanished_is_missing(void **state)
{
	json_t	   *facts;

	(void) state;
	begin();
	facts = assess(NULL);
	assert_true(json_is_false(json_object_get(facts, "missing")));
	assert_true(json_integer_value(json_object_get(facts, "size_bytes")) > 0);
	json_decref(facts);
	sh("rm -rf \"$W\"");
	facts = assess(NULL);
	assert_true(json_is_true(json_object_get(facts, "missing")));
	json_decref(facts);
}

static void
a_stash_leaves_it_clean_and_comes_back_as_it_was(void **state)
{
	json_t	   *diff;
	json_t	   *stash;
	json_t	   *back;
	char		tree[64];

	(void) state;
	begin();
	/* a stash of nothing */
	back = rewrite_ok("stash", NULL);
	assert_null(text_of(back, "saved"));
	json_decref(back);
	sh("cd \"$W\" && echo 1 > one && git add one && git commit -q -m one");
	sh("cd \"$W\" && echo more >> README && rm src/main.c && mkdir -p src/main.c/deep && echo x > src/main.c/deep/file && "
	   "head -c 5000 /dev/urandom > binary && ln -s README link && echo '#!/bin/sh' > run && chmod 755 run && "
	   "echo secret > ignored && echo ignored > .gitignore && echo forced > kept.ignored && git add -f kept.ignored && git add run");
	diff = role_diff(base);
	snprintf(tree, sizeof(tree), "%s", text_of(diff, "tree"));
	stash = rewrite_ok("stash", NULL);
	assert_string_equal(text_of(stash, "saved"), "refs/boocoder/stash/7");
	assert_string_equal(text_of(stash, "saved_tree"), tree);
	assert_string_equal(sh_output("cd \"$W\" && git status --porcelain"), "?? ignored");
	assert_string_equal(sh_output("cd \"$W\" && git log --format=%s -1"), "one");
	assert_string_equal(sh_output("cat \"$W/ignored\""), "secret");
	/* and back */
	back = rewrite_ok("stash", "refs/boocoder/stash/7");
	assert_string_equal(text_of(back, "tree"), tree);
	assert_string_equal(sh_output("cd \"$W\" && cat src/main.c/deep/file kept.ignored && readlink link && test -x run"),
						"x\nforced\nREADME");
	/* what it was before is kept, too, and nothing is overwritten */
	assert_string_equal(text_of(back, "saved"), "refs/boocoder/stash/7-2");
	assert_string_equal(sh_output("cd \"$P\" && git rev-parse refs/boocoder/stash/7^{tree}"), tree);
	json_decref(back);
	json_decref(stash);
	json_decref(diff);
}

static void
each_turn_can_be_gone_back_to(void **state)
{
	char		trees[3][64];

	(void) state;
	begin();
	for (int i = 0; i < 3; i++)
	{
		json_t	   *diff;

		sh("cd \"$W\" && echo %d > turn && rm -f only-* && echo %d > only-%d", i, i, i);
		diff = run_role(bc_git_diff, json_pack("{s:s, s:{s:s}, s:o, s:i, s:i}", "role", "diff",
											   "project", "path", project, "worktree", worktree_json(base),
											   "max_bytes", 4 * 1024 * 1024, "turn", 40 + i));
		snprintf(trees[i], sizeof(trees[i]), "%s", text_of(diff, "tree"));
		json_decref(diff);
	}
	for (int i = 2; i >= 0; i--)
	{
		char		ref[64];
		json_t	   *result;
		json_t	   *diff;

		snprintf(ref, sizeof(ref), "refs/boocoder/turns/7/%d", 40 + i);
		result = rewrite_ok("undo", ref);
		assert_string_equal(text_of(result, "tree"), trees[i]);
		diff = role_diff(base);
		assert_string_equal(text_of(diff, "tree"), trees[i]);
		json_decref(diff);
		json_decref(result);
	}
	json_decref(role_remove(base, true));
	assert_string_equal(sh_output("cd \"$P\" && git for-each-ref refs/boocoder/turns"), "");
	assert_string_not_equal(sh_output("cd \"$P\" && git for-each-ref refs/boocoder/undo"), "");
}

static void
nothing_but_our_own_refs_is_restored(void **state)
{
	static const char *const refs[] = {"refs/heads/main", "HEAD", "refs/boocoder/turns/7/1", "refs/boocoder/../heads/main"};

	(void) state;
	begin();
	sh("cd \"$W\" && echo x > x");
	for (size_t i = 0; i < sizeof(refs) / sizeof(refs[0]); i++)
	{
		json_t	   *result = rewrite("undo", refs[i]);

		assert_string_equal(text_of(result, "reason"), "base_not_found");
		json_decref(result);
	}
	assert_string_equal(sh_output("cat \"$W/x\""), "x");
	sh("rm -rf \"$W\"");
	{
		json_t	   *result = rewrite("undo", NULL);

		assert_string_equal(text_of(result, "reason"), "worktree_missing");
		json_decref(result);
	}
}

static void
links_lead_nowhere(void **state)
{
	json_t	   *result;

	(void) state;
	begin();
	sh("mkdir \"$T/outside\" && echo precious > \"$T/outside/main.c\" && cd \"$W\" && rm -r src && ln -s \"$T/outside\" src");
	result = rewrite_ok("stash", NULL);
	assert_string_equal(sh_output("cat \"$T/outside/main.c\""), "precious");
	assert_string_equal(sh_output("cd \"$W\" && test -d src && ! test -L src && git status --porcelain"), "");
	json_decref(result);
}

static void
a_careful_removal_refuses_what_would_be_missed(void **state)
{
	json_t	   *order;
	json_t	   *result;
	json_t	   *diff;

	(void) state;
	begin();
	sh("cd \"$W\" && echo x > x");
	for (int round = 0; round < 4; round++)
	{
		/* unknown changes; known ones; a commit; the same, merged */
		static const char *const expected[] = {"worktree_at_risk", NULL, "worktree_at_risk", NULL};
		const char *known = NULL;

		diff = role_diff(base);
		if (round == 2)
			sh("cd \"$W\" && git add -A && git commit -q -m x");
		if (round == 3)
			sh("cd \"$P\" && git merge -q --squash boocoder/3 && git commit -q -m x");
		if (round > 0)
			known = text_of(diff, "tree");
		order = json_pack("{s:s, s:{s:s}, s:o, s:s, s:b, s:b}", "role", "remove", "project", "path", project,
						  "worktree", worktree_json(base), "root", root, "delete_branch", 1, "careful", 1);
		json_object_set_new(json_object_get(order, "worktree"), "snapshot_tree", json_string(known));
		if (round == 1)
		{
			json_decref(order);
			json_decref(diff);
			continue;
		}
		result = run_role(bc_git_remove, order);
		if (expected[round] != NULL)
		{
			assert_string_equal(text_of(result, "reason"), expected[round]);
			assert_string_equal(sh_output("cat \"$W/x\""), "x");
		}
		else
			assert_true(json_is_true(json_object_get(result, "ok")));
		json_decref(result);
		json_decref(diff);
	}
	sh("test ! -e \"$W\"");
}

static void
modes_hide_nothing(void **state)
{
	json_t	   *result;

	(void) state;
	begin();
	sh("cd \"$W\" && echo x > x && echo more >> src/main.c && chmod 000 x src/main.c src .");
	check_facts("locked", NULL, 2, 0);
	sh("cd \"$W\" && chmod 000 x src/main.c src .");
	json_decref(rewrite_ok("stash", NULL));
	assert_string_equal(sh_output("cd \"$W\" && git status --porcelain"), "");
	sh("cd \"$W\" && chmod 555 src .");
	result = rewrite_ok("stash", "refs/boocoder/stash/7");
	assert_string_equal(sh_output("cd \"$W\" && git status --porcelain && tail -n 1 src/main.c"), "M  src/main.c\nA  x\nmore");
	json_decref(result);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(each_kind_of_risk_is_told_alone),
		T(commits_that_are_elsewhere_are_not_missed),
		T(a_worktree_that_vanished_is_missing),
		T(a_stash_leaves_it_clean_and_comes_back_as_it_was),
		T(each_turn_can_be_gone_back_to),
		T(nothing_but_our_own_refs_is_restored),
		T(links_lead_nowhere),
		T(a_careful_removal_refuses_what_would_be_missed),
		T(modes_hide_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
