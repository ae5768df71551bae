/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_git_apply.c
 *	  Role "apply": all or none, never over somebody's work, never outside.
 */
#include "git_fixture.h"

/* Everything below the checkout but .git, as one line. */
static const char *
state_of_checkout(void)
{
	return sh_output("cd \"$P\" && { find . -path ./.git -prune -o -printf '%p %m %l\\n'; "
					 "find . -path ./.git -prune -o -type f -print0 | xargs -0 md5sum; git rev-parse HEAD; "
					 "git write-tree; } | sort | md5sum");
}

/* Diff of the worktree, applied; the result. */
static json_t *
apply_all(const char *base, bool resume)
{
	json_t	   *diff = role_diff(base);
	json_t	   *result;

	assert_ok(diff);
	result = role_apply(order_changes(diff), base, resume);
	json_decref(diff);
	return result;
}

/* The apply fails with that reason and leaves the checkout as it is. */
static void
assert_refused(json_t *changes, const char *base, const char *reason)
{
	char		before[64];
	json_t	   *result;

	snprintf(before, sizeof(before), "%s", state_of_checkout());
	result = role_apply(changes, base, false);
	assert_reason(result, reason);
	assert_string_equal(before, state_of_checkout());
	json_decref(result);
}

static json_t *
one_change(const char *path, const char *diff)
{
	return json_pack("[{s:i, s:s, s:n, s:s, s:s}]", "id", 1, "path", path, "old_path",
					 "kind", "modify", "diff", diff);
}

static json_t *
addition(const char *path)
{
	char		diff[2000];

	snprintf(diff, sizeof(diff), "diff --git a/%s b/%s\nnew file mode 100644\n--- /dev/null\n+++ b/%s\n"
			 "@@ -0,0 +1 @@\n+x\n", path, path, path);
	return one_change(path, diff);
}

static void
every_kind_is_applied(void **state)
{
	const char *base;
	json_t	   *diff;
	json_t	   *result;

	(void) state;
	sh("cd \"$P\" && seq 100 200 > moved.txt && mkdir only && echo x > only/gone && echo x > run.sh && echo t > type && "
	   "ln -s README link && printf '\\0\\1bin' > bin && echo f > f2d && mkdir d2f && echo 1 > d2f/one && "
	   "git add -A && git commit -q -m more");
	base = make_worktree();
	sh("cd \"$W\" && echo more >> src/main.c && mkdir -p deep/er && echo new > deep/er/file && "
	   "mv moved.txt 'ren amed' && echo 201 >> 'ren amed' && rm -r only && chmod +x run.sh && rm type && "
	   "ln -s README type && ln -sf src link && printf '\\0\\2other' > bin && printf '\\377' > latin && : > empty && "
	   "rm f2d && mkdir f2d && echo in > f2d/in && rm -r d2f && echo now > d2f && echo l > \"$(printf 'caf\\351')\"");
	diff = role_diff(base);
	result = role_apply(order_changes(diff), base, false);
	assert_ok(result);
	assert_int_equal(json_array_size(json_object_get(result, "applied")),
					 count_of(diff));
	sh("diff -r --no-dereference -x .git \"$P\" \"$W\" && test ! -e \"$P/only\" && test -x \"$P/run.sh\"");
	/* HEAD and index are as they were */
	sh("cd \"$P\" && git diff --cached --quiet && test \"$(git rev-parse HEAD)\" = %s", base);
	/* the base moved: nothing new, and it is the snapshot */
	assert_string_equal(sh_output("git -C \"$P\" rev-parse $(git -C \"$P\" for-each-ref --format='%(refname)' refs/boocoder/base)^{tree}"), text_of(diff, "tree"));
	json_decref(diff);
	diff = role_diff(text_of(result, "diff_base"));
	assert_ok(diff);
	assert_int_equal(count_of(diff), 0);
	json_decref(diff);
	json_decref(result);
}

static void
later_turns_apply_on_what_was_applied_before(void **state)
{
	char		base[64];
	json_t	   *result;

	(void) state;
	snprintf(base, sizeof(base), "%s", make_worktree());
	for (int i = 0; i < 3; i++)
	{
		sh("echo turn%d >> \"$W/README\"", i);
		result = apply_all(base, false);
		assert_ok(result);
		snprintf(base, sizeof(base), "%s", text_of(result, "diff_base"));
		json_decref(result);
	}
	sh("cmp \"$P/README\" \"$W/README\"");
}

static void
some_of_the_files_move_the_base_by_those(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;
	json_t	   *result;

	(void) state;
	sh("echo a > \"$W/README\" && echo b > \"$W/new\"");
	diff = role_diff(base);
	result = role_apply(json_pack("[{s:i, s:s, s:n, s:s, s:O}]", "id", 5, "path", "README", "old_path",
								  "kind", "modify", "diff", json_object_get(change_of(diff, "README"), "diff")),
						base, false);
	assert_ok(result);
	assert_int_equal(json_integer_value(json_array_get(json_object_get(result, "applied"), 0)), 5);
	sh("test ! -e \"$P/new\"");
	json_decref(diff);
	diff = role_diff(text_of(result, "diff_base"));
	assert_int_equal(count_of(diff), 1);
	change_of(diff, "new");
	json_decref(diff);
	json_decref(result);
}

static void
hunks_may_have_moved_in_head(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("sed -i 's/^30$/thirty/; s/^20$/twenty/' \"$W/src/main.c\" && cd \"$P\" && "
	   "{ echo top1; echo top2; cat src/main.c; } > n && mv n src/main.c && git commit -qam moved");
	result = apply_all(base, false);
	assert_ok(result);
	assert_string_equal(sh_output("sed -n '22p;32p' \"$P/src/main.c\" | tr '\\n' ' '"), "twenty thirty ");
	json_decref(result);
}

static void
hunk_that_does_not_fit_is_named(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;
	json_t	   *result;
	json_t	   *conflict;
	char		before[64];

	(void) state;
	sh("sed -i 's/^5$/five/; s/^30$/thirty/' \"$W/src/main.c\" && echo ok > \"$W/other\" && cd \"$P\" && "
	   "sed -i 's/^29$/changed/' src/main.c && git commit -qam changed");
	snprintf(before, sizeof(before), "%s", state_of_checkout());
	diff = role_diff(base);
	result = role_apply(order_changes(diff), base, false);
	assert_reason(result, "conflict");
	conflict = json_array_get(json_object_get(result, "conflicts"), 0);
	assert_string_equal(text_of(conflict, "path"), "src/main.c");
	assert_string_equal(text_of(conflict, "hunk"), "@@ -27,7 +27,7 @@");
	assert_true(json_is_integer(json_object_get(conflict, "id")));
	assert_string_equal(before, state_of_checkout());
	json_decref(result);
	json_decref(diff);
}

static void
somebodys_work_is_never_overwritten(void **state)
{
	static const char *const spoilers[] = {
		"echo mine >> README",						/* edited */
		"rm README",								/* deleted */
		"rm README && ln -s src README",			/* became a link */
		"rm README && mkdir README",				/* became a directory */
		"chmod +x README",							/* other mode */
		"echo mine > added",						/* untracked in the way */
		"echo added > .git/info/exclude; echo mine > added",	/* ignored in the way */
		"mkdir added",								/* a directory in the way */
		"ln -s nowhere added",						/* a dangling link in the way */
		"mkfifo added",								/* a pipe in the way */
		"echo mine > dir",							/* a file where a directory goes */
		"echo mine > gone; true",					/* edited what is deleted */
		"echo new > added && git add added",		/* staged */
	};
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && echo g > gone && git add gone && git commit -qm g");
	base = make_worktree();
	sh("cd \"$W\" && echo agent >> README && echo agent > added && mkdir dir && echo agent > dir/f && rm gone");
	diff = role_diff(base);
	assert_ok(diff);
	for (size_t i = 0; i < sizeof(spoilers) / sizeof(spoilers[0]); i++)
	{
		sh("cd \"$P\" && %s", spoilers[i]);
		assert_refused(order_changes(diff), base, "conflict");
		sh("cd \"$P\" && git reset -q --hard && : > .git/info/exclude && git clean -qfdx && find . -type p -delete");
	}
	json_decref(role_apply(order_changes(diff), base, false));
	sh("diff -r -x .git \"$P\" \"$W\"");
	json_decref(diff);
}

static void
other_dirty_files_do_not_matter(void **state)
{
	const char *base = make_worktree();
	json_t	   *result;

	(void) state;
	sh("echo a > \"$W/README\" && echo mine >> \"$P/src/main.c\" && echo mine > \"$P/untracked\"");
	result = apply_all(base, false);
	assert_ok(result);
	sh("test \"$(cat \"$P/README\" \"$P/untracked\")\" = \"$(printf 'a\\nmine')\" && tail -1 \"$P/src/main.c\" | grep -qx mine");
	json_decref(result);
}

static void
unsafe_paths_are_refused(void **state)
{
	static const char *const paths[] = {
		"../escape", "a/../../escape", "/tmp/escape", ".git/hooks/x", ".GIT/x", "a/.git/x", "git~1/x", "GIT~1/x",
		".git./x", ".git /x", ".git::$INDEX_ALLOCATION/x", ".g\xe2\x80\x8cit/x", ".git\xef\xbb\xbf/x",
		"a//b", "./a", "a/.", "dir/", "", ".git\\x", "a\\..\\..\\b", "..", ".git",
	};
	const char *base = make_worktree();

	(void) state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		assert_refused(addition(paths[i]), base, "unsafe_path conflict");
	/* the row says one thing, the patch another */
	assert_refused(one_change("ok", "diff --git a/../x b/../x\nnew file mode 100644\n--- /dev/null\n+++ b/../x\n"
							  "@@ -0,0 +1 @@\n+x\n"), base, "unsafe_path conflict");
	assert_refused(one_change("ok", "diff --git a/other b/other\nnew file mode 100644\n--- /dev/null\n+++ b/other\n"
							  "@@ -0,0 +1 @@\n+x\n"), base, "unsafe_path conflict");
	assert_refused(one_change("ok", "diff --git \"a/\\056git/x\" \"b/\\056git/x\"\nnew file mode 100644\n--- /dev/null\n"
							  "+++ \"b/\\056git/x\"\n@@ -0,0 +1 @@\n+x\n"), base, "unsafe_path conflict");
	assert_refused(one_change(".gitmodules", "diff --git a/.gitmodules b/.gitmodules\nnew file mode 120000\n"
							  "--- /dev/null\n+++ b/.gitmodules\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n"),
				   base, "unsafe_path conflict");
	sh("test ! -e \"$T/escape\" && test ! -e /tmp/escape");
}

static void
links_in_the_checkout_are_not_followed(void **state)
{
	const char *base;
	json_t	   *both;
	json_t	   *more;

	(void) state;
	sh("mkdir \"$T/out\" && cd \"$P\" && ln -s \"$T/out\" link && git add link && git commit -qm link");
	base = make_worktree();
	assert_refused(addition("link/x"), base, "unsafe_path conflict");
	sh("ln -s \"$T/out\" \"$P/untracked\"");
	assert_refused(addition("untracked/x"), base, "unsafe_path conflict");
	/* a link and a file through it in one order */
	both = one_change("l", "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+../out\n"
					  "\\ No newline at end of file\n");
	more = addition("l/x");
	json_array_extend(both, more);
	json_decref(more);
	assert_refused(both, base, "unsafe_path conflict");
	sh("test -z \"$(ls -A \"$T/out\")\"");
}

static void
damaged_patches_are_conflicts(void **state)
{
	static const char *const patches[] = {
		"", "junk", "diff --git", "diff --git a/README b/README\n",
		"diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n",
		"diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n-hello\n",
		"diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1,99999999999999999999 +1 @@\n-hello\n+x\n",
		"diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n-goodbye\n+x\n",
		"diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n-hello\n+x\njunk\n",
		"diff --git a/README b/README\nold mode 100644\nnew mode 104755\n",
		"diff --git a/README b/README\nindex 1..2 160000\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n-hello\n+x\n",
		"diff --git a/README b/README\nindex 1..2\nGIT binary patch\nliteral 3\nzz\n\n",
		"diff --git a/README b/README\ndeleted file mode 100644\n",
		"diff --git a/README b/README\nnew file mode 100644\n--- /dev/null\n+++ b/README\n@@ -0,0 +1 @@\n+x\n",
	};
	const char *base = make_worktree();

	(void) state;
	for (size_t i = 0; i < sizeof(patches) / sizeof(patches[0]); i++)
	{
		/* the bare header is a patch that changes nothing */
		if (i == 3)
			continue;
		assert_refused(one_change("README", patches[i]), base, "conflict");
	}
}

static void
crash_in_the_middle_is_taken_up(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;
	json_t	   *result;

	(void) state;
	sh("cd \"$W\" && echo a > README && echo b > new && rm -r src && mkdir d && echo x > d/y");
	diff = role_diff(base);
	/* some files are done, and the staging directory is left */
	sh("cd \"$P\" && echo a > README && echo b > new");
	result = role_apply(order_changes(diff), base, true);
	assert_ok(result);
	sh("diff -r -x .git \"$P\" \"$W\"");
	assert_string_equal(sh_output("git -C \"$P\" rev-parse $(git -C \"$P\" for-each-ref --format='%(refname)' refs/boocoder/base)^{tree}"), text_of(diff, "tree"));
	json_decref(result);
	/* all done already */
	result = role_apply(order_changes(diff), base, true);
	assert_ok(result);
	assert_string_equal(sh_output("git -C \"$P\" rev-parse $(git -C \"$P\" for-each-ref --format='%(refname)' refs/boocoder/base)^{tree}"), text_of(diff, "tree"));
	json_decref(result);
	/* somebody's edit is not taken for ours */
	sh("echo mine > \"$P/new\"");
	result = role_apply(order_changes(diff), base, true);
	assert_reason(result, "conflict");
	json_decref(result);
	json_decref(diff);
}

static void
failure_midway_is_rolled_back(void **state)
{
	char		before[64];
	const char *base;
	json_t	   *diff;
	json_t	   *result;

	(void) state;
	sh("cd \"$P\" && mkdir -p a/b z && echo 1 > a/b/gone && echo 2 > z/file && git add -A && git commit -qm z");
	base = make_worktree();
	sh("cd \"$W\" && echo x > README && rm -r a && echo new > fresh && mkdir nd && echo n > nd/f && echo y > z/file");
	diff = role_diff(base);
	/* nothing can be moved into z: not even root may */
	if (system("chattr +i \"$P/z\" 2>/dev/null") != 0)
	{
		json_decref(diff);
		skip();
	}
	snprintf(before, sizeof(before), "%s", state_of_checkout());
	result = role_apply(order_changes(diff), base, false);
	sh("chattr -i \"$P/z\"");
	assert_reason(result, "git_error");
	assert_string_equal(before, state_of_checkout());
	json_decref(result);
	json_decref(diff);
}

static void
line_ends_of_the_checkout_are_kept(void **state)
{
	const char *base;
	json_t	   *result;

	(void) state;
	sh("cd \"$P\" && printf '*.txt text eol=crlf\\n' > .gitattributes && printf 'a\\r\\nb\\r\\nc\\r\\nd\\r\\n' > f.txt && "
	   "printf 'u1\\nu2\\n' > unix && git add -A && git commit -qm eol && rm f.txt && git checkout -q f.txt");
	base = make_worktree();
	sh("cd \"$W\" && printf 'a\\r\\nB\\r\\nc\\r\\nd\\r\\n' > f.txt && printf 'new\\r\\n' > n.txt && printf 'u1\\nU2\\n' > unix");
	result = apply_all(base, false);
	assert_ok(result);
	sh("cd \"$P\" && cmp f.txt \"$W/f.txt\" && cmp n.txt \"$W/n.txt\" && cmp unix \"$W/unix\"");
	json_decref(result);
}

static void
modes_of_the_checkout_are_kept(void **state)
{
	const char *base;
	json_t	   *result;

	(void) state;
	sh("chmod 640 \"$P/README\" && chmod 755 \"$P\" \"$P/.git\"");
	base = make_worktree();
	sh("cd \"$W\" && echo a >> README && echo n > new && echo s > script && chmod +x script && mkdir nd && echo f > nd/f");
	result = apply_all(base, false);
	assert_ok(result);
	assert_string_equal(sh_output("cd \"$P\" && stat -c %a README new script nd nd/f | tr '\\n' ' '"), "640 644 755 755 644 ");
	json_decref(result);
}

static void
lost_diff_base_does_not_prevent_it(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;
	json_t	   *result;

	(void) state;
	sh("echo a > \"$W/README\"");
	diff = role_diff(base);
	result = run_role(bc_git_apply,
					  json_pack("{s:s, s:{s:s}, s:o, s:s, s:o, s:b}", "role", "apply", "project", "path", project,
								"worktree", worktree_json("0123456789012345678901234567890123456789"),
								"base_commit", base, "changes", order_changes(diff), "resume", 0));
	assert_ok(result);
	assert_true(json_is_null(json_object_get(result, "diff_base")));
	sh("grep -qx a \"$P/README\"");
	json_decref(result);
	json_decref(diff);
}

/* Both cannot be applied, so neither may be called applied. */
static void
two_additions_of_one_file_conflict(void **state)
{
	const char *base = make_worktree();
	json_t	   *twice = addition("new");
	json_t	   *other = one_change("new", "diff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n"
								   "@@ -0,0 +1 @@\n+other\n");

	(void) state;
	json_object_set_new(json_array_get(other, 0), "id", json_integer(2));
	json_array_extend(twice, other);
	json_decref(other);
	assert_refused(twice, base, "conflict");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_kind_is_applied),
		T(later_turns_apply_on_what_was_applied_before),
		T(some_of_the_files_move_the_base_by_those),
		T(hunks_may_have_moved_in_head),
		T(hunk_that_does_not_fit_is_named),
		T(somebodys_work_is_never_overwritten),
		T(other_dirty_files_do_not_matter),
		T(unsafe_paths_are_refused),
		T(links_in_the_checkout_are_not_followed),
		T(damaged_patches_are_conflicts),
		T(crash_in_the_middle_is_taken_up),
		T(failure_midway_is_rolled_back),
		T(line_ends_of_the_checkout_are_kept),
		T(modes_of_the_checkout_are_kept),
		T(lost_diff_base_does_not_prevent_it),
		T(two_additions_of_one_file_conflict),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
