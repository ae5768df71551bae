/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_fs_guard.c
 *	  Files for an agent, inside its worktree only.
 */
#include "unit.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runner/fs_guard.h"

static char base[] = "/tmp/boocoder-fs-XXXXXX";
static char root[64];
static BcBuf text;
static BcFsProblem problem;

static char *
path_of(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	return path;
}

static void
put(const char *path, const char *content, size_t len)
{
	FILE	   *file = fopen(path, "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(content, 1, len, file), len);
	fclose(file);
}

static BcFsStatus
read_lines(const char *name, json_int_t first, json_int_t limit)
{
	bc_buf_free(&text);
	return bc_fs_read(root, path_of(name), first, limit, &text, &problem);
}

static BcFsStatus
read_file(const char *name)
{
	return read_lines(name, 0, 0);
}

static BcFsStatus
write_file(const char *name, const char *content)
{
	return bc_fs_write(root, path_of(name), content, strlen(content), &problem);
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void) st;
	(void) type;
	(void) ftw;
	return remove(path);
}

static int
setup(void **state)
{
	(void) state;
	if (mkdtemp(base) == NULL)
		return -1;
	snprintf(root, sizeof(root), "%s/tree", base);
	assert_int_equal(mkdir(root, 0700), 0);
	assert_int_equal(mkdir(path_of("dir"), 0700), 0);
	assert_int_equal(mkdir(path_of(".git"), 0700), 0);
	put(path_of("a.txt"), "one\ntwo\nthree", 13);
	put(path_of("binary"), "a\0b", 3);
	put(path_of("latin"), "\xE9\n", 2);
	put(path_of("../secret"), "secret", 6);
	assert_int_equal(symlink("a.txt", path_of("inside")), 0);
	assert_int_equal(symlink("../secret", path_of("outside")), 0);
	assert_int_equal(symlink("/etc/passwd", path_of("absolute")), 0);
	assert_int_equal(symlink("/proc/self/cwd", path_of("magic")), 0);
	assert_int_equal(symlink("..", path_of("up")), 0);
	assert_int_equal(symlink(".git", path_of("togit")), 0);
	assert_int_equal(symlink("nowhere", path_of("dangling")), 0);
	assert_int_equal(symlink("loop", path_of("loop")), 0);
	assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
	return 0;
}

static int
teardown(void **state)
{
	(void) state;
	bc_buf_free(&text);
	return nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void
files_inside_are_read(void **state)
{
	(void) state;
	assert_int_equal(read_file("a.txt"), BC_FS_OK);
	assert_string_equal(text.data, "one\ntwo\nthree");
	assert_int_equal(read_file("inside"), BC_FS_OK);
	assert_int_equal(read_file("./dir/../a.txt"), BC_FS_OK);
	assert_int_equal(read_file("missing"), BC_FS_NOT_FOUND);
	assert_int_equal(read_file("dir/missing/x"), BC_FS_NOT_FOUND);
}

static void
lines_and_limits_are_kept(void **state)
{
	(void) state;
	assert_int_equal(read_lines("a.txt", 2, 1), BC_FS_OK);
	assert_string_equal(text.data, "two\n");
	assert_int_equal(read_lines("a.txt", 2, 0), BC_FS_OK);
	assert_string_equal(text.data, "two\nthree");
	assert_int_equal(read_lines("a.txt", 3, 99), BC_FS_OK);
	assert_string_equal(text.data, "three");
	assert_int_equal(read_lines("a.txt", 4, 1), BC_FS_OK);
	assert_string_equal(text.data, "");
	assert_int_equal(read_lines("a.txt", INT64_MAX, INT64_MAX), BC_FS_OK);
	assert_string_equal(text.data, "");
	assert_int_equal(read_lines("a.txt", INT64_MIN, 1), BC_FS_OK);
	assert_string_equal(text.data, "one\n");
}

static void
nothing_outside_is_read(void **state)
{
	static const char *const names[] = {
		"../secret", "outside", "absolute", "magic/x", "up/secret", "dir/../../secret", "loop", "", "/", "..",
		"dir", "fifo", "binary", "latin", "a.txt/x",
	};
	char		path[PATH_MAX];

	(void) state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (read_file(names[i]) != BC_FS_REFUSED)
			fail_msg("%s was not refused: %d", names[i], problem.status);
		assert_int_equal(text.len, 0);
	}
	/* no path, a relative one, a directory with the same beginning */
	assert_int_equal(bc_fs_read(root, "", 0, 0, &text, &problem), BC_FS_REFUSED);
	assert_int_equal(bc_fs_read(root, "a.txt", 0, 0, &text, &problem), BC_FS_REFUSED);
	assert_int_equal(bc_fs_read(root, "/etc/passwd", 0, 0, &text, &problem), BC_FS_REFUSED);
	snprintf(path, sizeof(path), "%s2/a.txt", root);
	assert_int_equal(bc_fs_read(root, path, 0, 0, &text, &problem), BC_FS_REFUSED);
	assert_int_equal(text.len, 0);
}

static void
a_worktree_is_known_by_its_real_name_too(void **state)
{
	char		link[PATH_MAX];

	(void) state;
	snprintf(link, sizeof(link), "%s/link", base);
	assert_int_equal(symlink(root, link), 0);
	assert_int_equal(bc_fs_read(link, path_of("a.txt"), 0, 0, &text, &problem), BC_FS_OK);
}

static void
files_inside_are_written(void **state)
{
	struct stat st;

	(void) state;
	assert_int_equal(chmod(path_of("a.txt"), 0755), 0);
	assert_int_equal(write_file("a.txt", "short"), BC_FS_OK);
	assert_int_equal(read_file("a.txt"), BC_FS_OK);
	assert_string_equal(text.data, "short");
	assert_int_equal(stat(path_of("a.txt"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0755);
	assert_int_equal(write_file("inside", "by link"), BC_FS_OK);
	assert_int_equal(read_file("a.txt"), BC_FS_OK);
	assert_string_equal(text.data, "by link");
	assert_int_equal(write_file("new/deep/er/file", "made"), BC_FS_OK);
	assert_int_equal(read_file("new/deep/er/file"), BC_FS_OK);
	assert_string_equal(text.data, "made");
	assert_int_equal(write_file("empty", ""), BC_FS_OK);
	assert_int_equal(read_file("empty"), BC_FS_OK);
	assert_int_equal(text.len, 0);
}

static void
nothing_outside_is_written(void **state)
{
	static const char *const names[] = {
		"../new", "outside", "absolute", "up/new", "up/dir/new", "dir/../../new", "dangling", "loop", "loop/x", "",
		"dir", "fifo", "dir/", "new2/", ".git/config", ".git/hooks/x", ".git", ".GIT/config", "dir/.git/config",
		"togit/config", "togit/new/x", ".git./config", "magic/x",
	};
	struct stat st;
	char		path[PATH_MAX];

	(void) state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (write_file(names[i], "x") != BC_FS_REFUSED)
			fail_msg("%s was not refused: %d %s", names[i], problem.status, problem.message);
	snprintf(path, sizeof(path), "%s/new", base);
	assert_int_equal(stat(path, &st), -1);
	snprintf(path, sizeof(path), "%s/secret", base);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 6);
	assert_int_equal(stat(path_of(".git/config"), &st), -1);
	assert_int_equal(stat(path_of(".git/new"), &st), -1);
	assert_int_equal(stat(path_of("nowhere"), &st), -1);
}

static void
sizes_are_limited(void **state)
{
	char	   *large = malloc(BC_FS_MAX_FILE + 1);

	(void) state;
	memset(large, 'x', BC_FS_MAX_FILE + 1);
	assert_int_equal(bc_fs_write(root, path_of("large"), large, BC_FS_MAX_FILE + 1, &problem), BC_FS_REFUSED);
	assert_int_equal(bc_fs_write(root, path_of("large"), large, BC_FS_MAX_FILE, &problem), BC_FS_OK);
	assert_int_equal(read_file("large"), BC_FS_OK);
	put(path_of("large"), large, BC_FS_MAX_FILE + 1);
	assert_int_equal(read_file("large"), BC_FS_REFUSED);
	free(large);
}

/* From here on this process is on a kernel that is too old, so this is the last test. */
static void
without_openat2_it_is_as_strict(void **state)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

	assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		skip();
	assert_int_equal(write_file("a.txt", "one\ntwo\nthree"), BC_FS_OK);
	lines_and_limits_are_kept(state);
	nothing_outside_is_read(state);
	nothing_outside_is_written(state);
	assert_int_equal(write_file("other/deep/file", "made"), BC_FS_OK);
	assert_int_equal(read_file("other/deep/file"), BC_FS_OK);
	assert_int_equal(read_file("inside"), BC_FS_REFUSED);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_inside_are_read),
		cmocka_unit_test(lines_and_limits_are_kept),
		cmocka_unit_test(nothing_outside_is_read),
		cmocka_unit_test(a_worktree_is_known_by_its_real_name_too),
		cmocka_unit_test(files_inside_are_written),
		cmocka_unit_test(nothing_outside_is_written),
		cmocka_unit_test(sizes_are_limited),
		cmocka_unit_test(without_openat2_it_is_as_strict),
	};

	return cmocka_run_group_tests_name("fs_guard", tests, setup, teardown);
}
