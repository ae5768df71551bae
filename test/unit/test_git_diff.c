/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_git_diff.c
 *	  Role "diff": every kind of change, hostile content, and git agrees.
 */
#include "git_fixture.h"

static void
assert_change(const json_t *diff, const char *path, const char *kind, const char *modes)
{
	json_t	   *change = change_of(diff, path);
	const char *old = text_of(change, "old_mode");
	const char *new = text_of(change, "new_mode");
	char		got[64];

	assert_string_equal(text_of(change, "kind"), kind);
	snprintf(got, sizeof(got), "%s %s", old ? old : "-", new ? new : "-");
	assert_string_equal(got, modes);
}

static void
untouched_worktree_has_no_changes(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff = checked_diff(base);

	(void) state;
	assert_int_equal(count_of(diff), 0);
	json_decref(diff);
}

static void
every_kind_of_change_is_found(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && seq 100 200 > moved.txt && echo x > gone && echo x > run.sh && echo t > type && "
	   "ln -s README link && printf 'no newline' > nonl && printf '\\0\\1\\2bin' > bin && : > was_empty && "
	   "git add -A && git commit -q -m more");
	base = make_worktree();
	sh("cd \"$W\" && echo more >> src/main.c && mkdir -p deep/er && echo new > deep/er/file && "
	   "git mv -f moved.txt renamed.txt 2>/dev/null || mv moved.txt renamed.txt; echo 201 >> renamed.txt; "
	   "rm gone && chmod +x run.sh && rm type && ln -s README type && ln -sf src link && "
	   "printf 'still none' > nonl && printf '\\0\\3other' > bin && printf '\\377\\376' > latin && "
	   ": > empty_added && echo now > was_empty");
	diff = checked_diff(base);
	assert_change(diff, "src/main.c", "modify", "100644 100644");
	assert_change(diff, "deep/er/file", "add", "- 100644");
	assert_change(diff, "renamed.txt", "rename", "100644 100644");
	assert_string_equal(text_of(change_of(diff, "renamed.txt"), "old_path"), "moved.txt");
	assert_change(diff, "gone", "delete", "100644 -");
	assert_change(diff, "run.sh", "mode", "100644 100755");
	assert_change(diff, "type", "modify", "100644 120000");
	assert_change(diff, "link", "modify", "120000 120000");
	assert_change(diff, "empty_added", "add", "- 100644");
	assert_true(json_is_true(json_object_get(change_of(diff, "bin"), "binary")));
	assert_true(json_is_true(json_object_get(change_of(diff, "latin"), "binary")));
	assert_false(json_is_true(json_object_get(change_of(diff, "nonl"), "binary")));
	assert_int_equal(json_integer_value(json_object_get(change_of(diff, "src/main.c"), "additions")), 1);
	json_decref(diff);
}

static void
odd_file_names_survive(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && echo a > 'with space' && echo a > 'tab\there' && echo a > 'quo\"te' && git add -A && "
	   "git commit -q -m names");
	base = make_worktree();
	sh("cd \"$W\" && echo b >> 'with space' && echo b >> 'tab\there' && echo b >> 'quo\"te' && "
	   "echo n > \"$(printf 'new\\nline')\" && echo u > 'n\xc3\xa4me \xe2\x82\xac' && "
	   "echo l > \"$(printf 'caf\\351.txt')\" && echo s > 'back\\slash' && echo d > -dash && echo e > ' lead' && "
	   "echo e > 'trail ' && mkdir 'dir with space' && echo f > 'dir with space/a b' && echo q > '\"q\"' && "
	   "chmod +x 'with space' && mkdir -p 'a b' && echo z > 'a b/c'");
	diff = checked_diff(base);
	change_of(diff, "new\nline");
	change_of(diff, "n\xc3\xa4me \xe2\x82\xac");
	json_decref(diff);
}

static void
renames_of_odd_names_survive(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && seq 1 50 > 'old name' && seq 60 120 > d && seq 300 390 > \"$(printf 'l\\351')\" && "
	   "git add -A && git commit -q -m names");
	base = make_worktree();
	sh("cd \"$W\" && mv 'old name' 'new\tname' && mv d tmp && mkdir d && mv tmp d/x && "
	   "mv \"$(printf 'l\\351')\" 'plain'");
	diff = checked_diff(base);
	assert_string_equal(text_of(change_of(diff, "new\tname"), "kind"), "rename");
	assert_string_equal(text_of(change_of(diff, "plain"), "kind"), "rename");
	json_decref(diff);
}

static void
file_becomes_directory_and_back(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && echo f > file && mkdir dir && echo 1 > dir/one && git add -A && git commit -q -m fd");
	base = make_worktree();
	sh("cd \"$W\" && rm file && mkdir file && echo in > file/in && rm -r dir && echo now > dir");
	diff = checked_diff(base);
	json_decref(diff);
}

static void
ignored_files_are_left_out_unless_tracked(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && printf '*.log\\n/build/\\n!keep.log\\n' > .gitignore && mkdir build && "
	   "echo t > build/tracked && mkdir sub && printf 'local\\n' > sub/.gitignore && echo x > sub/f && "
	   "git add -A && git add -f build/tracked && git commit -q -m ign && echo 'excluded' >> .git/info/exclude");
	base = make_worktree();
	sh("cd \"$W\" && echo 1 > a.log && echo 1 > keep.log && echo 2 > build/tracked && echo 1 > build/other && "
	   "echo 1 > sub/local && echo 1 > excluded && mkdir -p new/deep && echo '*.tmp' > new/.gitignore && "
	   "echo 1 > new/deep/a.tmp && echo 1 > new/deep/b");
	diff = checked_diff(base);
	change_of(diff, "keep.log");
	change_of(diff, "build/tracked");
	change_of(diff, "new/deep/b");
	assert_int_equal(count_of(diff), 4);
	json_decref(diff);
}

static void
same_size_edit_in_the_same_instant_is_found(void **state)
{
	(void) state;
	for (int i = 0; i < 20; i++)
	{
		const char *base = make_worktree();
		char		path[500];
		FILE	   *file;
		json_t	   *diff;

		/* no process in between: as close to the checkout as it gets */
		snprintf(path, sizeof(path), "%s/README", worktree);
		file = fopen(path, "r+");
		fputs("HELLO", file);
		fclose(file);
		diff = role_diff(base);
		assert_ok(diff);
		change_of(diff, "README");
		json_decref(diff);
		json_decref(role_remove(base, true));
	}
}

static void
edit_with_restored_times_is_found(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && touch -r README ../ref && printf 'HELLO\\n' > README && touch -r ../ref README");
	diff = checked_diff(base);
	change_of(diff, "README");
	json_decref(diff);
}

static void
index_flags_cannot_hide_an_edit(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && git update-index --assume-unchanged README && git update-index --skip-worktree src/main.c && "
	   "echo hidden > README && echo hidden > src/main.c");
	diff = role_diff(base);
	assert_ok(diff);
	change_of(diff, "README");
	change_of(diff, "src/main.c");
	json_decref(diff);
}

static void
commits_of_the_agent_do_not_hide_changes(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && echo committed > README && git commit -q -am agent && git checkout -q --detach && "
	   "echo more > extra && git add extra");
	diff = checked_diff(base);
	change_of(diff, "README");
	change_of(diff, "extra");
	json_decref(diff);
}

static void
replaced_dot_git_is_not_trusted(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && rm .git && git init -q . && echo x > README && git add -A && git commit -q -m own");
	diff = role_diff(base);
	assert_ok(diff);
	change_of(diff, "README");
	assert_int_equal(count_of(diff), 1);
	json_decref(diff);
	sh("cd \"$W\" && rm -rf .git && echo 'gitdir: /nonexistent' > .git");
	diff = role_diff(base);
	assert_ok(diff);
	json_decref(diff);
	sh("cd \"$W\" && rm .git && mkfifo .git");
	diff = role_diff(base);
	assert_ok(diff);
	json_decref(diff);
}

static void
pipe_named_like_a_file_of_git_does_not_block(void **state)
{
	static const char *const names[] = {".gitignore", ".gitattributes", "d/.gitignore"};
	const char *base = make_worktree();

	(void) state;
	for (int i = 0; i < 3; i++)
	{
		json_t	   *diff;

		sh("cd \"$W\" && rm -rf d .gitignore .gitattributes && mkdir d && mkfifo %s && echo in > d/file", names[i]);
		diff = role_diff(base);
		assert_ok(diff);
		change_of(diff, "d/file");
		json_decref(diff);
	}
}

static void
pipes_sockets_and_devices_do_not_block(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && mkfifo pipe && rm README && mkfifo README && mkdir d && echo in > d/file && "
	   "perl -MSocket -e 'socket(S,AF_UNIX,SOCK_STREAM,0);bind(S,pack_sockaddr_un(\"sock\"))' && "
	   "(mknod null c 1 3 2>/dev/null || true)");
	diff = role_diff(base);
	assert_ok(diff);
	change_of(diff, "d/file");
	assert_string_equal(text_of(change_of(diff, "README"), "kind"), "delete");
	assert_int_equal(count_of(diff), 2);
	json_decref(diff);
}

static void
symbolic_links_are_not_followed(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("mkdir \"$T/secret\" && echo top-secret > \"$T/secret/key\" && cd \"$W\" && rm -r src && "
	   "ln -s \"$T/secret\" src && ln -s \"$T/secret/key\" key && ln -s \"$T/secret/key\" .gitignore && ln -s loop loop");
	diff = checked_diff(base);
	assert_string_equal(text_of(change_of(diff, "src"), "new_mode"), "120000");
	assert_null(strstr(text_of(change_of(diff, "key"), "diff"), "top-secret"));
	json_decref(diff);
}

static void
nested_repository_is_plain_files(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && mkdir nested && cd nested && git init -q && echo n > f && git add f && git commit -q -m n && "
	   "mkdir sub && echo s > sub/g");
	diff = role_diff(base);
	assert_ok(diff);
	change_of(diff, "nested/f");
	change_of(diff, "nested/sub/g");
	assert_int_equal(count_of(diff), 2);
	json_decref(diff);
}

static void
submodules_are_left_alone(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("git init -q \"$T/lib\" && cd \"$T/lib\" && echo l > l && git add l && git commit -q -m l && cd \"$P\" && "
	   "git -c protocol.file.allow=always submodule -q add \"$T/lib\" lib && git commit -q -m sub");
	base = make_worktree();
	diff = role_diff(base);
	assert_ok(diff);
	assert_int_equal(count_of(diff), 0);
	json_decref(diff);
	sh("rm -rf \"$W/lib\"");
	diff = role_diff(base);
	assert_ok(diff);
	assert_int_equal(count_of(diff), 0);
	json_decref(diff);
}

/* They are no part of the diff, but a person is told of the directory then, and of the files by a look. */
static void
files_in_a_submodule_are_dirty(void **state)
{
	static const struct
	{
		const char *how;
		const char *command;
		const char *dirty;
	}			cases[] = {
		{"nothing", "true", "[]"},
		{"one", "echo in > lib/in", "[\"lib/in\"]"},
		{"more, and a change beside", "mkdir lib/d && echo in > lib/d/in && echo x > x", "[\"lib/d/in\", \"lib/in\"]"},
		{"only ignored ones", "rm -r lib/* && echo '*.log' > .gitignore && echo x > lib/x.log", "[]"},
		{"a file in its place", "rm -r lib && echo x > lib", "[\"lib\"]"},
	};
	const char *base;

	(void) state;
	sh("git init -q \"$T/lib\" && cd \"$T/lib\" && echo l > l && git add l && git commit -q -m l && cd \"$P\" && "
	   "git -c protocol.file.allow=always submodule -q add \"$T/lib\" lib && git commit -q -m sub");
	base = make_worktree();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		json_t	   *diff;
		json_t	   *order;
		json_t	   *facts;
		char	   *dirty;

		sh("cd \"$W\" && %s", cases[i].command);
		diff = role_diff(base);
		assert_ok(diff);
		assert_int_equal(count_of(diff), i < 2 ? 0 : i < 3 ? 1 : 2);
		facts = json_object_get(diff, "facts");
		dirty = json_dumps(json_object_get(facts, "dirty"), 0);
		assert_string_equal(dirty, i == 0 ? "[]" : "[\"lib\"]");
		free(dirty);
		order = json_pack("{s:s, s:{s:s}, s:o}", "role", "assess", "project", "path", project,
						  "worktree", worktree_json(base));
		json_object_set(json_object_get(order, "worktree"), "snapshot_tree", json_object_get(diff, "tree"));
		facts = run_role(bc_git_assess, order);
		dirty = json_dumps(json_object_get(facts, "dirty"), 0);
		if (strcmp(dirty, cases[i].dirty) != 0)
			fail_msg("%s: %s", cases[i].how, dirty);
		free(dirty);
		assert_int_equal(json_integer_value(json_object_get(facts, "dirty_count")),
						 json_array_size(json_object_get(facts, "dirty")));
		json_decref(facts);
		json_decref(diff);
	}
}

static void
git_names_in_disguise_are_skipped(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && mkdir .GIT 'git~1' d && echo h > .GIT/hooks && echo h > 'git~1/config' && "
	   "echo x > 'd/.git ' && echo ok > d/ok && ln -s /etc/passwd .gitmodules");
	diff = role_diff(base);
	assert_ok(diff);
	assert_int_equal(count_of(diff), 1);
	change_of(diff, "d/ok");
	json_decref(diff);
}

static void
line_ends_of_the_checkout_are_no_change(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && printf 'crlf.txt text eol=crlf\\n*.lfs filter=lfs diff=lfs -text\\n' > .gitattributes && "
	   "printf 'a\\r\\nb\\r\\n' > crlf.txt && echo 'version https://git-lfs' > p.lfs && printf 'x\\r\\ny\\r\\n' > raw && "
	   "git add -A && git commit -q -m eol && git config core.autocrlf true");
	base = make_worktree();
	diff = role_diff(base);
	assert_ok(diff);
	assert_int_equal(count_of(diff), 0);
	json_decref(diff);
	sh("cd \"$W\" && grep -q $'\\r' crlf.txt 2>/dev/null || true; printf 'a\\r\\nb\\r\\nc\\r\\n' > crlf.txt && "
	   "printf 'x\\r\\ny\\r\\nz\\r\\n' > raw");
	diff = role_diff(base);
	assert_ok(diff);
	assert_int_equal(json_integer_value(json_object_get(change_of(diff, "crlf.txt"), "additions")), 1);
	assert_int_equal(json_integer_value(json_object_get(change_of(diff, "crlf.txt"), "deletions")), 0);
	json_decref(diff);
}

static void
crlf_and_bare_cr_content_round_trips(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && printf 'a\\r\\nb\\r\\n' > crlf && printf 'a\\rb' > cr && git add -A && git commit -q -m cr");
	base = make_worktree();
	sh("cd \"$W\" && printf 'a\\r\\nB\\r\\nc' > crlf && printf 'a\\rc\\n' > cr && printf '\\033[1mesc\\001\\n' > esc");
	diff = checked_diff(base);
	json_decref(diff);
}

static void
too_much_is_refused_with_the_file_named(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && truncate -s 5M core.dump");
	diff = role_diff(base);
	assert_reason(diff, "diff_too_large");
	assert_non_null(strstr(text_of(diff, "message"), "core.dump"));
	json_decref(diff);
	sh("cd \"$W\" && rm core.dump && truncate -s 20G sparse");
	diff = role_diff(base);
	assert_reason(diff, "diff_too_large");
	json_decref(diff);
	sh("cd \"$W\" && rm sparse && for i in 1 2 3 4 5; do head -c 750000 /dev/urandom | base64 > r$i; done");
	diff = role_diff(base);
	assert_reason(diff, "diff_too_large");
	json_decref(diff);
}

static void
missing_worktree_is_said(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("rm -rf \"$W\"");
	diff = role_diff(base);
	assert_reason(diff, "worktree_missing");
	json_decref(diff);
	sh("ln -s \"$P\" \"$W\"");
	diff = role_diff(base);
	assert_reason(diff, "worktree_missing");
	json_decref(diff);
}

static void
unknown_base_is_said(void **state)
{
	json_t	   *diff;

	(void) state;
	make_worktree();
	diff = role_diff("0123456789012345678901234567890123456789");
	assert_reason(diff, "base_not_found");
	json_decref(diff);
	diff = role_diff("HEAD~1");
	assert_reason(diff, "base_not_found");
	json_decref(diff);
}

static void
damaged_index_only_costs_time(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("echo junk > \"$E/index\" && echo y > \"$W/README\"");
	diff = checked_diff(base);
	assert_int_equal(count_of(diff), 1);
	json_decref(diff);
}

static void
snapshot_is_kept_and_the_repository_is_sound(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && echo y > new");
	diff = checked_diff(base);
	assert_string_equal(sh_output("git -C \"$P\" for-each-ref --format='%(tree) %(parent)' refs/boocoder/snapshots | "
								  "cut -d' ' -f1"), text_of(diff, "tree"));
	assert_string_equal(sh_output("git -C \"$P\" for-each-ref --format='%(parent)' refs/boocoder/snapshots"), base);
	sh("git -C \"$P\" fsck --strict >/dev/null 2>&1 && test -z \"$(git -C \"$P\" status --porcelain)\"");
	json_decref(diff);
}

static void
deep_directories_do_not_exhaust_anything(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && perl -e 'for(1..900){mkdir \"d\"; chdir \"d\" or die} open F,\">f\";' && mkdir -p a/b && echo x > a/b/c");
	/* it may be refused, but is answered */
	diff = role_diff(base);
	if (!json_is_true(json_object_get(diff, "ok")))
		assert_reason(diff, "git_error");
	json_decref(diff);
}

/* Modes that an agent gave are neither a change (but the exec bit) nor a way to hide one. */
static void
modes_hide_nothing(void **state)
{
	static const char *const takes[] = {
		"chmod 000 README", "chmod 000 .", "chmod 000 src", "chmod 400 src", "chmod 444 .", "chmod 100 src .",
		"chmod 000 .git", "chmod 000 src/main.c src ."
	};
	const char *base = make_worktree();

	(void) state;
	for (size_t i = 0; i < sizeof(takes) / sizeof(takes[0]); i++)
	{
		json_t	   *diff;

		sh("cd \"$W\" && echo %d > y && echo %d > src/y && %s", (int) i, (int) i, takes[i]);
		diff = role_diff(base);
		assert_ok(diff);
		assert_int_equal(count_of(diff), 2);
		change_of(diff, "src/y");
		json_decref(diff);
	}
}

static void
exec_bit_that_is_taken_is_a_change(void **state)
{
	const char *base;
	json_t	   *diff;

	(void) state;
	sh("cd \"$P\" && echo x > run && chmod +x run && git add -A && git commit -q -m run");
	base = make_worktree();
	sh("chmod 000 \"$W/run\"");
	diff = role_diff(base);
	assert_ok(diff);
	assert_change(diff, "run", "mode", "100755 100644");
	json_decref(diff);
}

static void
ignore_file_that_is_locked_steers_on(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("cd \"$W\" && echo '*.log' > .gitignore && echo x > x.log && chmod 000 .gitignore");
	diff = role_diff(base);
	assert_ok(diff);
	change_of(diff, ".gitignore");
	assert_int_equal(count_of(diff), 1);
	json_decref(diff);
}

static void
modes_outside_stay(void **state)
{
	const char *base = make_worktree();
	json_t	   *diff;

	(void) state;
	sh("mkdir -p \"$T/out/dir\" && echo s > \"$T/out/file\" && chmod 000 \"$T/out/file\" \"$T/out/dir\" && cd \"$W\" && "
	   "ln -s \"$T/out/file\" file && ln -s \"$T/out/dir\" dir && rm -r src && ln -s \"$T/out/dir\" src");
	diff = role_diff(base);
	assert_ok(diff);
	assert_string_equal(sh_output("stat -c %a \"$T/out/file\" \"$T/out/dir\""), "0\n0");
	json_decref(diff);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(untouched_worktree_has_no_changes),
		T(every_kind_of_change_is_found),
		T(odd_file_names_survive),
		T(renames_of_odd_names_survive),
		T(file_becomes_directory_and_back),
		T(ignored_files_are_left_out_unless_tracked),
		T(same_size_edit_in_the_same_instant_is_found),
		T(edit_with_restored_times_is_found),
		T(index_flags_cannot_hide_an_edit),
		T(commits_of_the_agent_do_not_hide_changes),
		T(replaced_dot_git_is_not_trusted),
		T(pipe_named_like_a_file_of_git_does_not_block),
		T(pipes_sockets_and_devices_do_not_block),
		T(symbolic_links_are_not_followed),
		T(nested_repository_is_plain_files),
		T(submodules_are_left_alone),
		T(files_in_a_submodule_are_dirty),
		T(git_names_in_disguise_are_skipped),
		T(line_ends_of_the_checkout_are_no_change),
		T(crlf_and_bare_cr_content_round_trips),
		T(too_much_is_refused_with_the_file_named),
		T(missing_worktree_is_said),
		T(unknown_base_is_said),
		T(damaged_index_only_costs_time),
		T(snapshot_is_kept_and_the_repository_is_sound),
		T(deep_directories_do_not_exhaust_anything),
		T(modes_hide_nothing),
		T(exec_bit_that_is_taken_is_a_change),
		T(ignore_file_that_is_locked_steers_on),
		T(modes_outside_stay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
