/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_paths.c
 *	  Where the worktree root may lie.
 */
#include "unit.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/paths.h"

static char base[] = "/tmp/boocoder-paths-XXXXXX";

static const char *
path_of(const char *name)
{
	static char paths[4][PATH_MAX];
	static int	next;
	char	   *path = paths[next++ % 4];

	snprintf(path, PATH_MAX, "%s/%s", base, name);
	return path;
}

static int
set_up(void **state)
{
	(void) state;
	return mkdtemp(base) == NULL || mkdir(path_of("real"), 0700) != 0 ||
		symlink(path_of("real"), path_of("link")) != 0 || mkdir(path_of("data"), 0700) != 0;
}

static int
tear_down(void **state)
{
	static const char *const left[] = {"real/new/root", "real/new", "real", "link", "data/inside", "data", "open", "file"};

	(void) state;
	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++)
		(void) remove(path_of(left[i]));
	return rmdir(base);
}

static void
resolves_to(const char *path, const char *expected)
{
	char	   *real = bc_paths_resolve(path);

	if (expected == NULL)
		assert_null(real);
	else
	{
		assert_non_null(real);
		assert_string_equal(real, expected);
	}
	free(real);
}

static void
below_is_not_beside(void **state)
{
	(void) state;
	assert_true(bc_paths_is_below("/a/b", "/a"));
	assert_true(bc_paths_is_below("/a", "/a"));
	assert_true(bc_paths_is_below("/a/b", "/a/"));
	assert_true(bc_paths_is_below("/a", "/"));
	assert_false(bc_paths_is_below("/ab", "/a"));
	assert_false(bc_paths_is_below("/a", "/a/b"));
}

static void
paths_resolve_as_far_as_they_exist(void **state)
{
	char		real[PATH_MAX];

	(void) state;
	assert_non_null(realpath(path_of("real"), real));
	resolves_to(path_of("link"), real);
	resolves_to(path_of("link/"), real);
	strcat(real, "/new/root");
	resolves_to(path_of("link/new/root"), real);
	resolves_to("/", "/");
	resolves_to("/nonexistent-here/x", "/nonexistent-here/x");
	resolves_to(NULL, NULL);
	resolves_to("", NULL);
	resolves_to("relative", NULL);
	resolves_to(path_of("real/../data"), NULL);
	resolves_to(path_of("real/.."), NULL);
	/* Dots within a name are none. */
	strcpy(real + strlen(real) - strlen("/new/root"), "/a..b/..c");
	resolves_to(path_of("real/a..b/..c"), real);
}

static void
root_is(const char *root, const char *forbidden, const char *project, const char *complaint)
{
	json_t	   *list = forbidden != NULL ? json_pack("[s, i]", forbidden, 7) : json_array();
	char	   *why = bc_paths_check_root(root, list, project);

	if (complaint == NULL && why != NULL)
		fail_msg("%s", why);
	if (complaint != NULL && (why == NULL || strstr(why, complaint) == NULL))
		fail_msg("have %s\n     want %s", why != NULL ? why : "nothing", complaint);
	free(why);
	json_decref(list);
}

static void
the_root_lies_outside_of_everything(void **state)
{
	struct stat st;

	(void) state;
	root_is(path_of("data/inside"), path_of("data"), NULL, "lies inside");
	root_is(path_of("data"), path_of("data"), NULL, "lies inside");
	root_is(base, path_of("data"), NULL, "lies inside the worktree root");
	root_is(path_of("link/new"), path_of("real"), NULL, "lies inside");
	root_is(path_of("real/new"), path_of("link"), NULL, "lies inside");
	root_is(path_of("real/new"), NULL, path_of("link"), "lies inside the project");
	root_is("relative", NULL, NULL, "not an absolute path");
	root_is(NULL, NULL, NULL, "not an absolute path");
	/* None of these made anything. */
	assert_int_equal(access(path_of("data/inside"), F_OK), -1);
	assert_int_equal(access(path_of("real/new"), F_OK), -1);

	root_is(path_of("link/new/root"), path_of("data"), path_of("data"), NULL);
	assert_int_equal(stat(path_of("real/new/root"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	root_is(path_of("link/new/root"), path_of("real-not"), NULL, NULL);
}

static void
the_root_is_ours_alone(void **state)
{
	FILE	   *file;

	(void) state;
	assert_int_equal(mkdir(path_of("open"), 0700), 0);
	assert_int_equal(chmod(path_of("open"), 0770), 0);
	root_is(path_of("open"), NULL, NULL, "writable by others");
	assert_int_equal(chmod(path_of("open"), 0755), 0);
	root_is(path_of("open"), NULL, NULL, NULL);
	file = fopen(path_of("file"), "w");
	assert_non_null(file);
	fclose(file);
	root_is(path_of("file"), NULL, NULL, "not a directory");
	root_is(path_of("file/below"), NULL, NULL, "could not make");
	if (geteuid() != 0)
	{
		root_is("/usr", NULL, NULL, "belongs to another user");
		root_is("/boocoder-test-root", NULL, NULL, "could not make");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(below_is_not_beside),
		cmocka_unit_test(paths_resolve_as_far_as_they_exist),
		cmocka_unit_test(the_root_lies_outside_of_everything),
		cmocka_unit_test(the_root_is_ours_alone),
	};

	return cmocka_run_group_tests_name("paths", tests, set_up, tear_down);
}
