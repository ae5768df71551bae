/* SPDX-License-Identifier: PostgreSQL */
/*
 * sandbox.c
 *	  Command line, environment and bubblewrap arguments of an agent.
 *
 * Everything an agent sees is on a list: what is not named here does not exist
 * inside.  Later mounts cover earlier ones, so the order is: the system; what
 * the administrator adds; /proc, /dev and /tmp, which nothing may replace by the
 * host's; what the administrator adds below /tmp; the hidden places; and then
 * the agent's own places, which may lie below a hidden one.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/env.h"
#include "runner/sandbox.h"

#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"

typedef struct List
{
	char	  **items;
	size_t		n;
	size_t		cap;
} List;

/* Adds a copy; the list always ends in NULL. */
static void
add(List *list, const char *item)
{
	if (list->n + 2 > list->cap)
	{
		size_t		cap = list->cap ? list->cap * 2 : 64;
		char	  **items = bc_alloc(cap * sizeof(char *));

		if (list->n > 0)
			memcpy(items, list->items, list->n * sizeof(char *));
		free(list->items);
		list->items = items;
		list->cap = cap;
	}
	list->items[list->n++] = bc_strdup(item);
	list->items[list->n] = NULL;
}

static void
add3(List *list, const char *a, const char *b, const char *c)
{
	add(list, a);
	add(list, b);
	add(list, c);
}

static const char *
text(const json_t *object, const char *key, const char *fallback)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value != NULL ? value : fallback;
}

/* Is "path" the directory "base" or below it? */
static bool
is_below(const char *path, const char *base)
{
	size_t		n = strlen(base);

	while (n > 1 && base[n - 1] == '/')
		n--;
	return n > 0 && strncmp(path, base, n) == 0 &&
		(path[n] == '/' || path[n] == '\0' || n == 1);
}

static bool
is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

char *
bc_sandbox_find(const char *program, const char *path)
{
	if (strchr(program, '/') != NULL)
		return is_program(program) ? bc_strdup(program) : NULL;
	while (*path != '\0')
	{
		size_t		n = strcspn(path, ":");
		char	   *candidate = bc_asprintf("%.*s/%s", (int) n, path, program);

		if (n > 0 && is_program(candidate))
			return candidate;
		free(candidate);
		path += n + (path[n] == ':');
	}
	return NULL;
}

int
bc_sandbox_mkdir(const char *path)
{
	char	   *copy = bc_strdup(path);
	int			error = 0;

	for (char *slash = strchr(copy + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/'))
	{
		*slash = '\0';
		if (mkdir(copy, 0700) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
			error = errno;
		*slash = '/';
	}
	if (error == 0 && mkdir(copy, 0700) < 0 && errno != EEXIST)
		error = errno;
	free(copy);
	return error;
}

bool
bc_sandbox_make_homes(const json_t *order)
{
	const json_t *sandbox = json_object_get(order, "sandbox");
	const char *home = text(sandbox, "home", NULL);
	const char *lasting = text(json_object_get(sandbox, "agent_home"), "path", NULL);

	return home != NULL && bc_sandbox_mkdir(home) == 0 &&
		(lasting == NULL || bc_sandbox_mkdir(lasting) == 0);
}

/* An empty file with its directories, unless it is there. */
static bool
make_file(const char *path)
{
	char	   *copy = bc_strdup(path);
	char	   *slash = strrchr(copy, '/');
	int			fd = -1;

	*slash = '\0';
	if (bc_sandbox_mkdir(copy) == 0)
		fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	free(copy);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* /bin and its like are links into /usr on most systems, directories on others. */
static void
add_system(List *argv)
{
	static const char *const roots[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
	static const char *const etc[] = {
		"/etc/alternatives", "/etc/ca-certificates", "/etc/ca-certificates.conf",
		"/etc/group", "/etc/gitconfig", "/etc/host.conf", "/etc/hosts", "/etc/ld.so.cache",
		"/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types",
		"/etc/nsswitch.conf", "/etc/os-release", "/etc/passwd", "/etc/pki", "/etc/protocols",
		"/etc/resolv.conf", "/etc/services", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
		"/etc/terminfo", "/etc/timezone"
	};

	add3(argv, "--ro-bind", "/usr", "/usr");
	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++)
	{
		char		target[PATH_MAX];
		ssize_t		n = readlink(roots[i], target, sizeof(target) - 1);

		if (n > 0)
		{
			target[n] = '\0';
			add3(argv, "--symlink", target, roots[i]);
		}
		else
			add3(argv, "--ro-bind-try", roots[i], roots[i]);
	}
	for (size_t i = 0; i < sizeof(etc) / sizeof(etc[0]); i++)
		add3(argv, "--ro-bind-try", etc[i], etc[i]);
}

/* What the host's must not stand for */
static void
add_private(List *argv)
{
	add(argv, "--proc");
	add(argv, "/proc");
	add(argv, "--dev");
	add(argv, "/dev");
	add(argv, "--tmpfs");
	add(argv, "/tmp");
}

/* Is "path" shown by the system or the administrator? */
static bool
is_shown(const json_t *sandbox, const char *path)
{
	size_t		index;
	json_t	   *item;

	if (is_below(path, "/usr"))
		return true;
	json_array_foreach(json_object_get(sandbox, "ro_paths"), index, item)
	{
		if (json_is_string(item) && is_below(path, json_string_value(item)))
			return true;
	}
	return false;
}

static void
add_ro_paths(List *argv, const json_t *sandbox, bool below_tmp)
{
	size_t		index;
	json_t	   *item;

	json_array_foreach(json_object_get(sandbox, "ro_paths"), index, item)
	{
		const char *path = json_string_value(item);

		if (path != NULL && path[0] == '/' && is_below(path, "/tmp") == below_tmp)
			add3(argv, "--ro-bind-try", path, path);
	}
}

/*
 * Covers the hidden places that "shown" would show.  Compared by what the paths
 * really are: either may be, or lie behind, a symbolic link.
 */
static void
add_hidden(List *argv, const json_t *sandbox, const char *shown)
{
	char		real_shown[PATH_MAX];
	char		real[PATH_MAX];
	size_t		index;
	json_t	   *item;

	if (shown == NULL || realpath(shown, real_shown) == NULL)
		return;
	json_array_foreach(json_object_get(sandbox, "hide"), index, item)
	{
		const char *path = json_string_value(item);
		struct stat st;
		char	   *inside;

		if (path == NULL || realpath(path, real) == NULL || stat(real, &st) < 0 ||
			!S_ISDIR(st.st_mode) || !is_below(real, real_shown))
			continue;
		inside = bc_asprintf("%s%s", strcmp(shown, "/") == 0 ? "" : shown,
							 real + (strcmp(real_shown, "/") == 0 ? 0 : strlen(real_shown)));
		add3(argv, "--perms", "0000", "--tmpfs");
		add(argv, inside);
		free(inside);
	}
}

/*
 * The directory around one of the agent's own places: empty but for what is
 * mounted there, and not writable.  One that is shown already stays as it is.
 */
static void
add_parent(List *argv, const char *option, const json_t *sandbox, const char *path, bool below_tmp)
{
	char	   *parent = path != NULL ? bc_strdup(path) : NULL;
	char	   *slash = parent != NULL ? strrchr(parent, '/') : NULL;

	if (slash != NULL && slash != parent)
	{
		*slash = '\0';
		if (is_below(parent, "/tmp") == below_tmp && strcmp(parent, "/tmp") != 0 &&
			(below_tmp || !is_shown(sandbox, parent)))
		{
			add(argv, option);
			add(argv, parent);
		}
	}
	free(parent);
}

/* The agent's HOME: a lasting one of its provider, or that of the session. */
static const char *
home_of(const json_t *sandbox)
{
	return text(json_object_get(sandbox, "agent_home"), "path", text(sandbox, "home", "/"));
}

/*
 * Parts of a lasting home that one session must not leave to another: what was
 * allowed "always" is.  The session's own home holds them instead.
 */
static void
add_private_paths(List *argv, const json_t *sandbox, const char *home)
{
	size_t		index;
	json_t	   *item;

	json_array_foreach(json_object_get(sandbox, "private"), index, item)
	{
		const char *path = json_string_value(item);
		const char *slash = path != NULL ? strrchr(path, '/') : NULL;
		bool		is_file = path != NULL && strchr(slash != NULL ? slash + 1 : path, '.') > path;
		char	   *own;
		char	   *inside;

		if (path == NULL || path[0] == '/' || strstr(path, "..") != NULL)
			continue;
		own = bc_asprintf("%s/private/%s", text(sandbox, "home", "/"), path);
		inside = bc_asprintf("%s/%s", home, path);
		/* bubblewrap makes the place inside, where only what it shows can be reached. */
		if (is_file ? make_file(own) : bc_sandbox_mkdir(own) == 0)
			add3(argv, "--bind", own, inside);
		free(own);
		free(inside);
	}
}

static void
add_sandbox(List *argv, const json_t *order, const json_t *sandbox)
{
	const char *cwd = text(order, "cwd", "/");
	const char *home = home_of(sandbox);
	const char *git_dir = text(order, "git_dir", NULL);
	const char *own[3] = {git_dir, home, cwd};
	char	   *dot_git = bc_asprintf("%s/.git", cwd);
	size_t		index;
	json_t	   *item;

	add(argv, "--unshare-pid");
	add(argv, "--unshare-ipc");
	add(argv, "--unshare-uts");
	if (!json_is_true(json_object_get(sandbox, "network")))
		add(argv, "--unshare-net");
	add(argv, "--die-with-parent");
	/* Nobody inside can push keys into a terminal of the host's. */
	add(argv, "--new-session");
	add(argv, "--cap-drop");
	add(argv, "ALL");
	add_system(argv);
	/* The directories around first: the administrator may show something in one of them. */
	for (int below_tmp = 0; below_tmp <= 1; below_tmp++)
	{
		if (below_tmp)
			add_private(argv);
		for (size_t i = 0; i < 3; i++)
			add_parent(argv, "--tmpfs", sandbox, own[i], below_tmp);
		add_ro_paths(argv, sandbox, below_tmp);
	}
	add_hidden(argv, sandbox, "/usr");
	json_array_foreach(json_object_get(sandbox, "ro_paths"), index, item)
		add_hidden(argv, sandbox, json_string_value(item));
	if (git_dir != NULL)
		add3(argv, "--ro-bind", git_dir, git_dir);
	add3(argv, "--bind", home, home);
	if (json_is_object(json_object_get(sandbox, "agent_home")))
		add_private_paths(argv, sandbox, home);
	add3(argv, "--bind", cwd, cwd);
	for (size_t i = 0; i < 3; i++)
	{
		add_parent(argv, "--remount-ro", sandbox, own[i], false);
		add_parent(argv, "--remount-ro", sandbox, own[i], true);
	}
	/* The link to the repository is not the agent's to change. */
	if (access(dot_git, F_OK) == 0)
		add3(argv, "--ro-bind", dot_git, dot_git);
	for (size_t i = 0; i < 3; i++)
		add_hidden(argv, sandbox, own[i]);
	add(argv, "--remount-ro");
	add(argv, "/");
	add(argv, "--chdir");
	add(argv, cwd);
	add(argv, "--");
	free(dot_git);
}

/*
 * The program takes the terminal of its order inside, so that it controls its
 * own session: a ^C is then for what runs on it, and not for bubblewrap, whose
 * end would be the end of all.  Standard error is a pipe until then, for the
 * complaints of bubblewrap.
 */
static void
add_terminal(List *argv, const char *setsid)
{
	add3(argv, "/bin/sh", "-c", "exec \"$0\" -c \"$@\" 2>&1");
	add(argv, setsid);
}

/* Do both the path and the file it leads to exist inside? */
static bool
program_visible(const json_t *order, const json_t *sandbox, const char *program)
{
	char		real[PATH_MAX];
	const char *shown[] = {
		"/usr", "/bin", "/sbin", "/lib", "/lib64",
		text(order, "cwd", NULL), home_of(sandbox)
	};
	bool		path_shown = false;
	bool		file_shown = false;
	size_t		nshown = sizeof(shown) / sizeof(shown[0]);
	size_t		nro = json_array_size(json_object_get(sandbox, "ro_paths"));

	if (realpath(program, real) == NULL)
		return false;
	for (size_t i = 0; i < nshown + nro; i++)
	{
		const char *place = i < nshown ? shown[i] :
			json_string_value(json_array_get(json_object_get(sandbox, "ro_paths"), i - nshown));
		char		real_place[PATH_MAX];

		if (place == NULL || realpath(place, real_place) == NULL)
			continue;
		path_shown |= is_below(program, place);
		file_shown |= is_below(real, place) || is_below(real, real_place);
	}
	return path_shown && file_shown;
}

bool
bc_sandbox_launch(const json_t *order, const json_t *command, const char *extra,
				  BcLaunch *launch, BcFailure *failure)
{
	const json_t *sandbox = json_object_get(order, "sandbox");
	const char *program = json_string_value(json_array_get(command, 0));
	const char *path = text(sandbox, "agent_path", DEFAULT_PATH);
	bool		wrapped = strcmp(text(sandbox, "mode", "bwrap"), "off") != 0;
	List		argv = {NULL, 0, 0};
	char	   *found;
	char	   *bwrap = NULL;
	char	   *setsid = NULL;
	size_t		index;
	json_t	   *item;
	char	   *problem;

	if (program == NULL || program[0] == '\0')
	{
		*failure = (BcFailure) {
			"program_not_found", bc_strdup("the provider names no program"),
			"Set its command with boocoder.register_provider()."
		};
		return false;
	}
	/* "./tool" is the worktree's: that is where it will be started. */
	if (program[0] != '/' && strchr(program, '/') != NULL)
	{
		char	   *in_cwd = bc_asprintf("%s/%s", text(order, "cwd", "/"), program);

		found = bc_sandbox_find(in_cwd, path);
		free(in_cwd);
	}
	else
		found = bc_sandbox_find(program, path);
	if (found == NULL)
	{
		*failure = (BcFailure) {
			"program_not_found",
			strchr(program, '/') != NULL ?
			bc_asprintf("program \"%s\" is not there, or not executable", program) :
			bc_asprintf("program \"%s\" was not found on \"%s\"", program, path),
			"Install it, or set boocoder.agent_path."
		};
		return false;
	}
	if (wrapped && !program_visible(order, sandbox, found))
	{
		*failure = (BcFailure) {
			"program_not_found",
			bc_asprintf("program \"%s\" is outside of what the sandbox shows", found),
			"Add its directory to boocoder.sandbox_ro_paths."
		};
		free(found);
		return false;
	}
	if (wrapped && (bwrap = bc_sandbox_find("bwrap", DEFAULT_PATH)) == NULL)
	{
		*failure = (BcFailure) {
			"sandbox_unavailable", bc_strdup("bubblewrap (bwrap) is not installed"),
			"Install the package bubblewrap, or, knowing what it means, set boocoder.sandbox = off."
		};
		free(found);
		return false;
	}
	if (wrapped && launch->terminal && (setsid = bc_sandbox_find("setsid", DEFAULT_PATH)) == NULL)
	{
		*failure = (BcFailure) {
			"sandbox_unavailable", bc_strdup("setsid is not installed"),
			"Install the package util-linux, or use another transport than pty."
		};
		free(found);
		free(bwrap);
		return false;
	}
	if (wrapped)
	{
		add(&argv, bwrap);
		add_sandbox(&argv, order, sandbox);
	}
	if (setsid != NULL)
		add_terminal(&argv, setsid);
	add(&argv, found);
	json_array_foreach((json_t *) command, index, item)
	{
		if (index > 0 && json_is_string(item))
			add(&argv, json_string_value(item));
	}
	if (extra != NULL)
		add(&argv, extra);
	free(found);
	free(bwrap);
	free(setsid);
	launch->argv = argv.items;
	launch->envp = bc_env_build(order, &problem);
	launch->guarded = !wrapped;
	if (launch->envp == NULL)
	{
		bc_sandbox_free(launch);
		*failure = (BcFailure) {"secret_unavailable", problem, "See providers.env."};
		return false;
	}
	return true;
}

void
bc_sandbox_free(BcLaunch *launch)
{
	for (char **item = launch->argv; item != NULL && *item != NULL; item++)
		free(*item);
	for (char **item = launch->envp; item != NULL && *item != NULL; item++)
		free(*item);
	free(launch->argv);
	free(launch->envp);
	launch->argv = launch->envp = NULL;
}
