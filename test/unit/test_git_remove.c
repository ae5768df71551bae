/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_git_remove.c
 *	  Role "remove": nothing is lost, nothing else is removed.
 */
#include "git_fixture.h"

/* The result is ok and names an archive: $A. */
static void
assert_archived(const json_t *result)
{
	assert_ok(result);
	assert_non_null(text_of(result, "archived"));
	assert_int_equal(strncmp(text_of(result, "archived"), "refs/boocoder/archive/", 22), 0);
	setenv("A", text_of(result, "archived"), 1);
}

static void
everything_of_ours_is_gone(void)
{
	sh("test ! -e \"$W\" && test ! -e \"$E\" && "
	   "test $(git -C \"$P\" worktree list | wc -l) = 1 && "
	   "git -C \"$P\" fsck --strict >/dev/null 2>&1 && test -z \"$(git -C \"$P\" status --porcelain)\"");
}

static void
unchanged_worktree_leaves_nothing(void **state)
{
	const char *base = make_worktree();
	json_t	   *result = role_remove(base, true);

	(void) state;
	assert_ok(result);
	assert_true(json_is_null(json_object_get(result, "archived")));
	everything_of_ours_is_gone();
	sh("test -z \"$(git -C \"$P\" for-each-ref refs/boocoder/archive refs/heads/boocoder)\"");
	json_decref(result);
}

static void
content_is_archived_whole(void **state)
{
	char		tree[64];
	const char *base;
	json_t	   *diff;
	json_t	   *result;

	(void) state;
	sh("cd \"$P\" && echo '*.log' > .gitignore && git add -A && git commit -qm ign");
	base = make_worktree();
	sh("cd \"$W\" && echo x > README && echo u > untracked && mkdir d && ln -s nowhere d/l && chmod +x src/main.c && "
	   "printf '\\0bin' > bin && echo i > ignored.log");
	diff = role_diff(base);
	snprintf(tree, sizeof(tree), "%s", text_of(diff, "tree"));
	sh("cp -a \"$W\" \"$T/copy\"");
	result = role_remove(base, true);
	assert_archived(result);
	everything_of_ours_is_gone();
	assert_string_equal(sh_output("git -C \"$P\" rev-parse $A^{tree}"), tree);
	sh("mkdir \"$T/restored\" && git -C \"$P\" archive $A | tar -x -C \"$T/restored\" && "
	   "rm \"$T/copy/ignored.log\" && diff -r --no-dereference -x .git \"$T/copy\" \"$T/restored\"");
	json_decref(result);
	json_decref(diff);
}

static void
commits_of_the_agent_are_archived(void **state)
{
	const char *base = make_worktree();
	char		tip[64];
	json_t	   *result;

	(void) state;
	/* the content is as at first, but there is history of its own */
	sh("cd \"$W\" && echo x > README && git commit -qam x && git revert --no-edit HEAD >/dev/null");
	snprintf(tip, sizeof(tip), "%s", sh_output("git -C \"$W\" rev-parse HEAD"));
	result = role_remove(base, true);
	assert_archived(result);
	sh("git -C \"$P\" merge-base --is-ancestor %s $A", tip);
	everything_of_ours_is_gone();
	json_decref(result);
}

static void
applied_work_needs_no_archive(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;
	json_t	   *applied;
	json_t	   *result;

	(void) state;
	sh("echo x > \"$W/README\"");
	diff = role_diff(base);
	applied = role_apply(order_changes(diff), base, false);
	assert_ok(applied);
	result = role_remove(text_of(applied, "diff_base"), true);
	assert_ok(result);
	assert_true(json_is_null(json_object_get(result, "archived")));
	json_decref(result);
	json_decref(applied);
	json_decref(diff);
}

static void
older_archive_is_not_overwritten(void **state)
{
	(void) state;
	for (int i = 1; i <= 2; i++)
	{
		const char *base = make_worktree();
		json_t	   *result;

		sh("echo content%d > \"$W/README\"", i);
		result = role_remove(base, true);
		assert_archived(result);
		json_decref(result);
		if (i == 1)
			setenv("FIRST", getenv("A"), 1);
	}
	assert_string_equal(sh_output("git -C \"$P\" show $FIRST:README"), "content1");
	assert_string_equal(sh_output("git -C \"$P\" show $A:README"), "content2");
}

/* Whenever it is killed, and run again, an archive holds all that was there. */
static void
killed_removal_loses_nothing(void **state)
{
	(void) state;
	for (int i = 0; i < 10; i++)
	{
		const char *base = make_worktree();
		json_t	   *diff;
		json_t	   *result;
		json_t	   *order;
		pid_t		child;
		struct pollfd poll_fd = {.events = POLLIN};

		sh("cd \"$W\" && mkdir many && for i in $(seq 400); do echo $i.%d > many/$i; done && echo x > README", i);
		diff = role_diff(base);
		assert_ok(diff);
		setenv("TREE", text_of(diff, "tree"), 1);
		order = json_pack("{s:s, s:{s:s}, s:o, s:s, s:b}", "role", "remove", "project", "path", project,
						  "worktree", worktree_json(base), "root", root, "delete_branch", 1);
		child = start_role(bc_git_remove, order, &poll_fd.fd);
		/* not a wait for something: the moment of the kill is the input */
		(void) poll(&poll_fd, 1, 2 + i * 4);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		close(poll_fd.fd);
		json_decref(order);
		result = role_remove(base, true);
		assert_ok(result);
		sh("git -C \"$P\" for-each-ref --format='%%(tree)' refs/boocoder/archive | grep -qx $TREE");
		everything_of_ours_is_gone();
		json_decref(result);
		json_decref(diff);
	}
}

/* The same without luck: as a kill leaves it in the middle of deleting. */
static void
half_deleted_worktree_does_not_replace_its_archive(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("cd \"$W\" && echo u > untracked && echo x > README && cp -a \"$E\" \"$T/entry\" && cp -a \"$W\" \"$T/copy\"");
	result = role_remove(base, false);
	assert_archived(result);
	json_decref(result);
	sh("mkdir -p \"$P/.git/worktrees\" && cp -a \"$T/entry\" \"$E\" && cp -a \"$T/copy\" \"$W\" && rm \"$W/untracked\"");
	json_decref(role_remove(base, true));
	assert_string_equal(sh_output("git -C \"$P\" show $A:untracked"), "u");
}

static void
links_and_mounts_are_not_followed(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("mkdir \"$T/out\" && echo keep > \"$T/out/file\" && cd \"$W\" && ln -s \"$T/out\" link && mkdir m && ln -s .. m/up");
	if (system("mkdir \"$W/mnt\" && mount -t tmpfs none \"$W/mnt\" 2>/dev/null && echo k > \"$W/mnt/k\"") == 0)
	{
		result = role_remove(base, true);
		assert_reason(result, "git_error");
		sh("test -f \"$W/mnt/k\" && umount \"$W/mnt\"");
		json_decref(result);
	}
	result = role_remove(base, true);
	assert_ok(result);
	sh("test \"$(cat \"$T/out/file\")\" = keep && test -d \"$P/src\"");
	json_decref(result);
}

static void
awkward_trees_are_removed(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("cd \"$W\" && perl -e 'for(1..300){mkdir \"d\"; chdir \"d\" or die} open F,\">f\";' && mkdir ro && echo x > ro/f && "
	   "chmod 555 ro && mkfifo pipe && : > \"$(printf 'a\\nb\\377')\"");
	result = role_remove(base, true);
	assert_ok(result);
	everything_of_ours_is_gone();
	json_decref(result);
}

static void
only_below_the_root_is_removed(void **state)
{
	const char *base = make_worktree();
	char		kept[400];
	json_t	   *result;

	(void) state;
	strcpy(kept, worktree);
	snprintf(worktree, sizeof(worktree), "%s", project);
	result = role_remove(base, true);
	assert_reason(result, "worktree_root_unsafe worktree_missing git_error");
	json_decref(result);
	snprintf(worktree, sizeof(worktree), "%s/../project", root);
	result = role_remove(base, true);
	assert_reason(result, "worktree_root_unsafe worktree_missing git_error");
	json_decref(result);
	snprintf(worktree, sizeof(worktree), "%s/", root);
	result = role_remove(base, true);
	assert_reason(result, "worktree_root_unsafe worktree_missing git_error");
	json_decref(result);
	strcpy(worktree, kept);
	sh("mv \"$W\" \"$T/moved\" && ln -s \"$P\" \"$W\"");
	result = role_remove(base, true);
	assert_reason(result, "path_occupied worktree_missing git_error");
	json_decref(result);
	sh("test -f \"$P/README\"");
}

static void
vanished_directory_is_forgotten(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("rm -rf \"$W\"");
	result = role_remove(base, true);
	assert_ok(result);
	everything_of_ours_is_gone();
	json_decref(result);
}

/* An edit that git was told not to look at is work like any other. */
static void
hidden_edit_is_archived(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("cd \"$W\" && git update-index --skip-worktree README && echo work > README");
	result = role_remove(base, true);
	assert_archived(result);
	assert_string_equal(sh_output("git -C \"$P\" show $A:README"), "work");
	json_decref(result);
}

/* It is archived, or left alone; never just deleted. */
static void
pruned_entry_does_not_lose_content(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("echo x > \"$W/README\" && rm -r \"$E\"");
	result = role_remove(base, true);
	if (json_is_true(json_object_get(result, "ok")))
	{
		assert_archived(result);
		assert_string_equal(sh_output("git -C \"$P\" show $A:README"), "x");
	}
	else
		sh("test \"$(cat \"$W/README\")\" = x");
	json_decref(result);
}

static void
branch_that_is_in_use_or_wanted_stays(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("git -C \"$P\" checkout -q --ignore-other-worktrees boocoder/3");
	result = role_remove(base, true);
	assert_ok(result);
	sh("test \"$(git -C \"$P\" branch --show-current)\" = boocoder/3 && git -C \"$P\" rev-parse -q --verify HEAD >/dev/null");
	sh("cd \"$P\" && git checkout -q main && git branch -q -D boocoder/3");
	json_decref(result);
	base = make_worktree();
	result = role_remove(base, false);
	assert_ok(result);
	sh("git -C \"$P\" show-ref -q --verify refs/heads/boocoder/3");
	json_decref(result);
}

static void
files_in_a_submodule_are_archived(void **state)
{
	const char *base;
	json_t	   *result;

	(void) state;
	sh("git init -q \"$T/lib\" && cd \"$T/lib\" && echo l > l && git add l && git commit -q -m l && cd \"$P\" && "
	   "git -c protocol.file.allow=always submodule -q add \"$T/lib\" lib && git commit -q -m sub");
	base = make_worktree();
	sh("mkdir -p \"$W/lib\" && echo work > \"$W/lib/work\"");
	result = role_remove(base, true);
	assert_archived(result);
	assert_string_equal(sh_output("git -C \"$P\" show $A:lib/work"), "work");
	json_decref(result);
}

static void
modes_keep_nothing_from_removal(void **state)
{
	static const char *const takes[] = {
		"chmod 000 y \"$W\"", "chmod 000 \"$W\"", "chmod 000 src y \"$R/w\"", "chmod 555 . \"$R/w\"", "chmod 400 src .",
		"chmod 000 .git src"
	};

	for (size_t i = 0; i < sizeof(takes) / sizeof(takes[0]); i++)
	{
		const char *base;
		json_t	   *result;

		if (i > 0)
		{
			git_teardown(state);
			git_setup(state);
		}
		base = make_worktree();
		sh("cd \"$W\" && echo work > y && echo work > src/y && %s", takes[i]);
		result = role_remove(base, true);
		assert_archived(result);
		assert_string_equal(sh_output("git -C \"$P\" show $A:y $A:src/y"), "work\nwork");
		everything_of_ours_is_gone();
		json_decref(result);
	}
}

/* By force it goes, whatever is in it: what can't be archived is named in the archive. */
static void
what_cannot_be_archived_is_named(void **state)
{
	const char *base = make_worktree();
	json_t	   *order;
	json_t	   *result;

	(void) state;
	sh("cd \"$W\" && echo work > y && truncate -s 10G sparse");
	order = json_pack("{s:s, s:{s:s}, s:o, s:s, s:b, s:b}", "role", "remove", "project", "path", project,
					  "worktree", worktree_json(base), "root", root, "delete_branch", 1, "careful", 1);
	result = run_role(bc_git_remove, order);
	assert_reason(result, "diff_too_large");
	sh("test -f \"$W/sparse\"");
	json_decref(result);
	result = role_remove(base, true);
	assert_archived(result);
	assert_string_equal(json_string_value(json_array_get(json_object_get(result, "skipped"), 0)), "sparse: too large");
	assert_string_equal(sh_output("git -C \"$P\" ls-tree --name-only $A"), "README\nsrc\ny");
	assert_string_equal(sh_output("git -C \"$P\" log -1 --format=%b $A"), "Left out:\nsparse: too large");
	everything_of_ours_is_gone();
	json_decref(result);
}

/* Names that the removal wants for what lies too deep are taken. */
static void
taken_names_do_not_stop_a_removal(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("cd \"$W\" && for i in $(seq 0 60); do echo x > .boocoder-removed-$i; done && "
	   "for i in 1 2 3 4 5 6 7 8; do (mkdir t$i && cd t$i && perl -e 'for(1..90){mkdir \"d\"; chdir \"d\" or die}'); done");
	result = role_remove(base, true);
	assert_ok(result);
	everything_of_ours_is_gone();
	json_decref(result);
}

static void
the_home_goes_with_what_lies_beside_it(void **state)
{
	const char *base = make_worktree();
	char		home[400];
	json_t	   *result;

	(void) state;
	snprintf(home, sizeof(home), "%s/homes/s1", root);
	setenv("H", home, 1);
	sh("mkdir -p \"$H/.cache\" \"$H.private/.codex/rules\" \"$H\"2 && ln -s \"$P\" \"$H.private/.codex/rules/link\"");
	result = run_role(bc_git_remove, json_pack("{s:s, s:{s:s}, s:o, s:s, s:s}", "role", "remove", "project", "path", project,
											   "worktree", worktree_json(base), "root", root, "home", home));
	assert_ok(result);
	sh("test \"$(ls \"${H%%/*}\")\" = s12 && test -f \"$P/README\"");
	json_decref(result);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(unchanged_worktree_leaves_nothing),
		T(content_is_archived_whole),
		T(commits_of_the_agent_are_archived),
		T(applied_work_needs_no_archive),
		T(older_archive_is_not_overwritten),
		T(killed_removal_loses_nothing),
		T(half_deleted_worktree_does_not_replace_its_archive),
		T(links_and_mounts_are_not_followed),
		T(awkward_trees_are_removed),
		T(only_below_the_root_is_removed),
		T(vanished_directory_is_forgotten),
		T(hidden_edit_is_archived),
		T(pruned_entry_does_not_lose_content),
		T(branch_that_is_in_use_or_wanted_stays),
		T(files_in_a_submodule_are_archived),
		T(modes_keep_nothing_from_removal),
		T(what_cannot_be_archived_is_named),
		T(taken_names_do_not_stop_a_removal),
		T(the_home_goes_with_what_lies_beside_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
