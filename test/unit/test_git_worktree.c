/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_git_worktree.c
 *	  Roles "worktree" and "inspect": made once, repaired, refused.
 */
#include "git_fixture.h"

static void
refused(json_t *wanted, const char *reason)
{
	json_t	   *result = run_role(bc_git_worktree, wanted);

	assert_reason(result, reason);
	json_decref(result);
}

static void
worktree_is_one_that_git_knows(void **state)
{
	json_t	   *result = role_worktree();

	(void) state;
	assert_ok(result);
	assert_true(json_is_true(json_object_get(result, "created")));
	assert_string_equal(text_of(result, "branch"), "boocoder/3");
	assert_string_equal(text_of(result, "base_commit"), sh_output("git -C \"$P\" rev-parse HEAD"));
	assert_string_equal(text_of(result, "git_dir"), sh_output("realpath \"$P/.git\""));
	sh("cd \"$W\" && test -z \"$(git status --porcelain)\" && test \"$(git branch --show-current)\" = boocoder/3");
	sh("git -C \"$P\" worktree list --porcelain | grep -qx \"worktree $(realpath \"$W\")\"");
	sh("git -C \"$P\" fsck --strict >/dev/null 2>&1");
	sh("test \"$(stat -c %%a \"$R\" \"$R/w\" | sort -u)\" = 700");
	json_decref(result);
}

static void
second_order_reuses_it(void **state)
{
	json_t	   *result;

	(void) state;
	make_worktree();
	sh("echo work > \"$W/work\" && cd \"$P\" && echo 2 > two && git add two && git commit -q -m two");
	result = role_worktree();
	assert_ok(result);
	assert_false(json_is_true(json_object_get(result, "created")));
	assert_string_equal(text_of(result, "base_commit"), sh_output("git -C \"$P\" rev-parse HEAD^"));
	sh("test -f \"$W/work\"");
	json_decref(result);
}

static void
only_own_things_are_written_into_the_repository(void **state)
{
	(void) state;
	sh("cd \"$P/.git\" && find . -type f | sort | xargs md5sum > \"$T/before\"");
	make_worktree();
	sh("cd \"$P/.git\" && md5sum --quiet -c \"$T/before\"");
	assert_string_equal(sh_output("cd \"$P/.git\" && cut -c35- \"$T/before\" > \"$T/names\"; "
								  "find . -type f | grep -vxFf \"$T/names\" | grep -v '^./worktrees/boocoder-[^/]*/' | grep -v '^./logs/refs/heads/boocoder/3$' | "
								  "grep -v 'refs/heads/boocoder/3$' || true"), "");
}

static void
interrupted_checkout_is_completed(void **state)
{
	json_t	   *result;

	(void) state;
	make_worktree();
	/* as a kill -9 leaves it: no mark, files missing and half written */
	sh("rm -f \"$E/boocoder\" \"$E/index\" \"$W/README\" && printf 1 > \"$W/src/main.c\" && "
	   ": > \"$E/index.lock\" && rm \"$W/.git\" && "
	   "git -C \"$P\" update-ref -d refs/heads/boocoder/3");
	result = role_worktree();
	assert_ok(result);
	sh("cd \"$W\" && test -z \"$(git status --porcelain)\"");
	json_decref(result);
}

static void
killed_at_any_time_it_is_completed(void **state)
{
	int			litter = 0;

	(void) state;
	sh("cd \"$P\" && mkdir many && for i in $(seq 800); do echo $i > many/f$i; done && git add -A && git commit -q -m many");
	for (int i = 0; i < 12; i++)
	{
		json_t	   *order = worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL);
		struct pollfd poll_fd = {.events = POLLIN};
		pid_t		child = start_role(bc_git_worktree, order, &poll_fd.fd);
		json_t	   *result;

		/* not a wait for something: the moment of the kill is the input */
		(void) poll(&poll_fd, 1, i * 4);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		close(poll_fd.fd);
		json_decref(order);
		result = role_worktree();
		assert_ok(result);
		sh("cd \"$W\" && test -z \"$(git status --porcelain)\"");
		litter += atoi(sh_output("echo $(( $(ls \"$R/w\" | wc -l) - 1 ))"));
		json_decref(result);
		json_decref(role_remove(sh_output("git -C \"$P\" rev-parse HEAD"), true));
	}
	/* what a killed run leaves is used again, or removed */
	assert_int_equal(litter, 0);
}

static void
stale_lock_of_a_killed_run_does_not_block(void **state)
{
	json_t	   *result;

	(void) state;
	sh("mkdir -p \"$P/.git/refs/heads/boocoder\" && : > \"$P/.git/refs/heads/boocoder/3.lock\"");
	result = role_worktree();
	assert_ok(result);
	json_decref(result);
}

/* The agent's applied work must not come back as its removal. */
static void
vanished_directory_is_no_change(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;
	json_t	   *applied;

	(void) state;
	sh("echo work > \"$W/work\" && echo x > \"$W/README\"");
	diff = role_diff(base);
	applied = role_apply(order_changes(diff), base, false);
	assert_ok(applied);
	json_decref(diff);
	sh("rm -rf \"$W\"");
	json_decref(role_worktree());
	diff = role_diff(text_of(applied, "diff_base"));
	assert_ok(diff);
	assert_int_equal(count_of(diff), 0);
	json_decref(diff);
	json_decref(applied);
}

static void
six_sessions_at_once_do_not_disturb_each_other(void **state)
{
	pid_t		children[6];
	int			outs[6];

	(void) state;
	for (int i = 0; i < 6; i++)
	{
		char		path[500];
		char		branch[32];
		json_t	   *order;

		snprintf(path, sizeof(path), "%s/w/%d", root, 20 + i);
		snprintf(branch, sizeof(branch), "boocoder/%d", 20 + i);
		order = worktree_order(20 + i, path, branch, NULL);
		children[i] = start_role(bc_git_worktree, order, &outs[i]);
		json_decref(order);
	}
	for (int i = 0; i < 6; i++)
	{
		json_t	   *result = json_loadfd(outs[i], 0, NULL);

		waitpid(children[i], NULL, 0);
		close(outs[i]);
		assert_non_null(result);
		assert_ok(result);
		json_decref(result);
	}
	assert_string_equal(sh_output("git -C \"$P\" for-each-ref --format='%(refname)' refs/heads/boocoder | wc -l"), "6");
	sh("for i in 20 21 22 23 24 25; do cd \"$R/w/$i\" && test -z \"$(git status --porcelain)\" || exit 1; done");
}

static void
taken_branch_gets_a_number(void **state)
{
	json_t	   *result;

	(void) state;
	sh("git -C \"$P\" branch boocoder/3 && git -C \"$P\" branch boocoder/3-2");
	result = role_worktree();
	assert_ok(result);
	assert_string_equal(text_of(result, "branch"), "boocoder/3-3");
	json_decref(result);
}

static void
same_id_of_another_database_is_kept_apart(void **state)
{
	char		path[500];
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	snprintf(path, sizeof(path), "%s/other/7", root);
	result = run_role(bc_git_worktree, worktree_order(WORKTREE_ID, path, "boocoder/3", NULL));
	assert_ok(result);
	assert_string_equal(text_of(result, "branch"), "boocoder/3-2");
	assert_string_not_equal(text_of(result, "admin_dir"), getenv("E"));
	json_decref(result);
	json_decref(role_diff(base));
	sh("test $(git -C \"$P\" for-each-ref refs/boocoder/snapshots | wc -l) = 1");
}

static void
base_branch_is_honoured_or_refused(void **state)
{
	json_t	   *result;

	(void) state;
	sh("cd \"$P\" && git checkout -q -b dev && echo d > d && git add d && git commit -q -m d && git checkout -q main");
	result = run_role(bc_git_worktree, worktree_order(WORKTREE_ID, worktree, "boocoder/3", "dev"));
	assert_ok(result);
	sh("test -f \"$W/d\"");
	json_decref(result);
	refused(worktree_order(8, "/x", "boocoder/4", NULL), "worktree_root_unsafe");
	sh("mkdir -p \"$R/w\"");
	{
		char		path[500];

		snprintf(path, sizeof(path), "%s/w/8", root);
		refused(worktree_order(8, path, "boocoder/4", "nope"), "base_not_found");
		refused(worktree_order(8, path, "bad..name", NULL), "git_error");
	}
	sh("test ! -e \"$R/w/8/README\"");
}

/* It may be refused or moved aside, but it is still there. */
static void
what_is_in_the_way_is_not_lost(void **state)
{
	(void) state;
	sh("mkdir -p \"$W\" && echo mine > \"$W/precious\"");
	json_decref(role_worktree());
	sh("find \"$R\" -name precious | xargs grep -qx mine");
}

static void
links_below_the_root_are_not_followed(void **state)
{
	(void) state;
	sh("mkdir -p \"$T/elsewhere\" \"$R/w\" && ln -s \"$T/elsewhere\" \"$W\"");
	json_decref(role_worktree());
	sh("test -z \"$(ls -A \"$T/elsewhere\")\" && rm -rf \"$R/w\" && ln -s \"$T/elsewhere\" \"$R/w\"");
	json_decref(role_worktree());
	sh("test -z \"$(ls -A \"$T/elsewhere\")\"");
}

static void
unsafe_roots_are_refused(void **state)
{
	char		path[600];
	char		kept[300];

	(void) state;
	strcpy(kept, root);
	snprintf(root, sizeof(root), "%.200s/wt", project);
	snprintf(path, sizeof(path), "%s/7", root);
	refused(worktree_order(WORKTREE_ID, path, "boocoder/3", NULL), "worktree_root_unsafe");
	strcpy(root, top);
	snprintf(path, sizeof(path), "%s/7", root);
	refused(worktree_order(WORKTREE_ID, path, "boocoder/3", NULL), "worktree_root_unsafe");
	snprintf(root, sizeof(root), "%.200s/sub", pgdata);
	snprintf(path, sizeof(path), "%s/7", root);
	refused(worktree_order(WORKTREE_ID, path, "boocoder/3", NULL), "worktree_root_unsafe");
	strcpy(root, "relative");
	refused(worktree_order(WORKTREE_ID, "relative/7", "boocoder/3", NULL), "worktree_root_unsafe");
	strcpy(root, kept);
	snprintf(path, sizeof(path), "%s/../escape", root);
	refused(worktree_order(WORKTREE_ID, path, "boocoder/3", NULL), "worktree_root_unsafe");
	sh("mkdir -p \"$R\" && chmod 777 \"$R\"");
	refused(worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL), "worktree_root_unsafe worktree_root_unwritable");
	sh("chmod 700 \"$R\" && rmdir \"$R\" && ln -s \"$P\" \"$R\"");
	refused(worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL), "worktree_root_unsafe");
}

static void
root_that_cannot_be_made_is_said(void **state)
{
	char		kept[300];

	(void) state;
	strcpy(kept, root);
	strcpy(root, "/proc/boocoder-root");
	refused(worktree_order(WORKTREE_ID, "/proc/boocoder-root/7", "boocoder/3", NULL), "worktree_root_unwritable worktree_root_unsafe");
	strcpy(root, kept);
}

static void
bad_repositories_are_refused(void **state)
{
	(void) state;
	sh("mv \"$P\" \"$T/good\"");
	refused(worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL), "repository_missing");
	sh("mkdir \"$P\"");
	refused(worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL), "repository_missing");
	sh("git init -q \"$P\"");
	refused(worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL), "repository_empty");
	sh("rm -rf \"$P\" && git init -q --bare \"$P\"");
	refused(worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL), "repository_bare");
	sh("rm -rf \"$P\" && cp -r \"$T/good\" \"$P\" && echo '[core' > \"$P/.git/config\"");
	refused(worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL), "repository_unreadable git_error");
	sh("rm -rf \"$P\" && echo file > \"$P\"");
	refused(worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL), "repository_missing repository_unreadable");
}

static void
repository_of_another_user_is_refused(void **state)
{
	json_t	   *result;

	(void) state;
	if (geteuid() != 0)
		skip();
	sh("chown -R nobody \"$P\"");
	result = run_role(bc_git_worktree, worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL));
	assert_reason(result, "repository_not_owned");
	assert_non_null(strstr(text_of(result, "message"), "nobody"));
	assert_non_null(strstr(text_of(result, "hint"), "chown"));
	json_decref(result);
	sh("chown -R root \"$P\" && chown nobody \"$P/.git\"");
	result = run_role(bc_git_worktree, worktree_order(WORKTREE_ID, worktree, "boocoder/3", NULL));
	assert_reason(result, "repository_not_owned");
	json_decref(result);
}

static void
hooks_and_filters_do_not_run(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && for h in post-checkout pre-commit reference-transaction post-index-change; do "
	   "printf '#!/bin/sh\\ntouch \"%%s/ran\"\\n' \"$T\" > .git/hooks/$h && chmod +x .git/hooks/$h; done && "
	   "git config core.hooksPath .git/hooks-off && echo '* filter=evil' > .gitattributes && git add -A && "
	   "git commit -q -m attr && git config --unset core.hooksPath && "
	   "git config filter.evil.smudge \"touch $T/ran; cat\" && git config filter.evil.clean \"touch $T/ran; cat\" && "
	   "git config core.fsmonitor \"touch $T/ran\" && git config diff.external \"touch $T/ran\"");
	base = make_worktree();
	sh("echo x > \"$W/README\"");
	diff = role_diff(base);
	assert_ok(diff);
	json_decref(role_apply(order_changes(diff), base, false));
	json_decref(role_remove(base, true));
	json_decref(diff);
	sh("test ! -e \"$T/ran\"");
}

/* A worktree and a diff of one new file work. */
static void
assert_works(void)
{
	const char *base = make_worktree();
	json_t	   *diff;

	sh("echo x > \"$W/new\"");
	diff = role_diff(base);
	assert_ok(diff);
	assert_int_equal(count_of(diff), 1);
	json_decref(diff);
}

static void
shallow_clone_works(void **state)
{
	(void) state;
	sh("mv \"$P\" \"$T/origin\" && git clone -q --depth 1 \"file://$T/origin\" \"$P\"");
	assert_works();
}

static void
extension_worktree_config_works(void **state)
{
	(void) state;
	sh("cd \"$P\" && git sparse-checkout set --cone src && git sparse-checkout disable");
	assert_works();
}

static void
excludes_file_in_a_home_works(void **state)
{
	(void) state;
	sh("git -C \"$P\" config core.excludesFile '~/none'");
	assert_works();
}

static void
inspect_describes_or_refuses(void **state)
{
	char		path[400];
	json_t	   *result;

	(void) state;
	snprintf(path, sizeof(path), "%s", project);
	result = run_role(bc_git_inspect, json_pack("{s:s, s:s, s:[], s:s}", "role", "inspect", "path", path,
										   "forbidden", "root", root));
	assert_ok(result);
	assert_string_equal(text_of(result, "path"), sh_output("realpath \"$P\""));
	assert_string_equal(text_of(result, "head"), sh_output("git -C \"$P\" rev-parse HEAD"));
	assert_string_equal(text_of(result, "branch"), "main");
	assert_true(json_is_true(json_object_get(result, "writable")));
	assert_string_equal(text_of(result, "owner"), sh_output("id -un"));
	json_decref(result);
	result = run_role(bc_git_inspect, json_pack("{s:s, s:[s]}", "path", project, "forbidden", top));
	assert_reason(result, "worktree_root_unsafe repository_unreadable");
	json_decref(result);
	result = run_role(bc_git_inspect, json_pack("{s:s}", "path", "/nonexistent"));
	assert_reason(result, "repository_missing");
	json_decref(result);
	sh("git init -q -b x \"$T/empty\"");
	snprintf(path, sizeof(path), "%s/empty", top);
	result = run_role(bc_git_inspect, json_pack("{s:s}", "path", path));
	if (json_is_true(json_object_get(result, "ok")))
		assert_true(json_is_null(json_object_get(result, "head")));
	else
		assert_reason(result, "repository_empty");
	json_decref(result);
}

static void
malformed_orders_are_answered(void **state)
{
	json_t	   *(*const roles[]) (const json_t *) = {
		bc_git_worktree, bc_git_diff, bc_git_apply, bc_git_remove, bc_git_inspect
	};
	const char *const texts[] = {
		"{}", "{\"project\":1,\"path\":1}", "{\"project\":{\"path\":\"/x\"},\"worktree\":[]}",
		"{\"project\":{\"path\":\"/x\"},\"worktree\":{\"id\":\"../x\",\"path\":\"/y\",\"branch\":\"b\","
		"\"diff_base\":\"c\"},\"root\":\"/\",\"max_bytes\":1,\"changes\":[],\"path\":\"rel\"}"
	};

	(void) state;
	for (size_t r = 0; r < 5; r++)
	{
		for (size_t t = 0; t < 4; t++)
		{
			json_t	   *result = run_role(roles[r], json_loads(texts[t], 0, NULL));

			assert_true(json_is_false(json_object_get(result, "ok")));
			assert_non_null(text_of(result, "reason"));
			assert_non_null(text_of(result, "message"));
			json_decref(result);
		}
	}
}

static void
locked_directory_is_opened_again(void **state)
{
	static const char *const takes[] = {"\"$W\"", "\"$R/w\"", "\"$W/.git\" \"$W\" \"$R/w\""};

	(void) state;
	make_worktree();
	for (size_t i = 0; i < sizeof(takes) / sizeof(takes[0]); i++)
	{
		sh("echo work > \"$W/work\" && chmod 000 %s", takes[i]);
		make_worktree();
		assert_string_equal(sh_output("cd \"$W\" && cat work && git rev-parse --abbrev-ref HEAD"), "work\nboocoder/3");
	}
	/* what is not ours keeps its mode */
	sh("rm -r \"$E\" && chmod 000 \"$W\"");
	json_decref(role_worktree());
	assert_string_equal(sh_output("stat -c %a \"$W\""), "0");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(worktree_is_one_that_git_knows),
		T(second_order_reuses_it),
		T(only_own_things_are_written_into_the_repository),
		T(interrupted_checkout_is_completed),
		T(killed_at_any_time_it_is_completed),
		T(stale_lock_of_a_killed_run_does_not_block),
		T(vanished_directory_is_no_change),
		T(six_sessions_at_once_do_not_disturb_each_other),
		T(taken_branch_gets_a_number),
		T(same_id_of_another_database_is_kept_apart),
		T(base_branch_is_honoured_or_refused),
		T(what_is_in_the_way_is_not_lost),
		T(links_below_the_root_are_not_followed),
		T(unsafe_roots_are_refused),
		T(root_that_cannot_be_made_is_said),
		T(bad_repositories_are_refused),
		T(repository_of_another_user_is_refused),
		T(hooks_and_filters_do_not_run),
		T(shallow_clone_works),
		T(extension_worktree_config_works),
		T(excludes_file_in_a_home_works),
		T(inspect_describes_or_refuses),
		T(malformed_orders_are_answered),
		T(locked_directory_is_opened_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
