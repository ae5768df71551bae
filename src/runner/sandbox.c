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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/env.h"
#include "runner/git_place.h"
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

/* --- places that agents write --- */

/*
 * What is behind the worktree root in "path", or its last component.  Above it
 * links are the administrator's.
 */
static const char *
below_root(const char *path)
{
	static const char *const dirs[] = {"/worktrees/", "/homes/"};
	const char *below = NULL;

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		for (const char *at = path; (at = strstr(at, dirs[i])) != NULL; at++)
			if (below == NULL || at > below)
				below = at;
	if (below == NULL)
		below = strrchr(path, '/');
	return below != NULL ? below + 1 : path;
}

/* Out of the way of the numbers that the child uses; takes "fd". */
static int
move_up(int fd)
{
	int			moved = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, BC_LAUNCH_FDS) : -1;
	int			error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return moved;
}

int
bc_sandbox_open(const char *path)
{
	const char *below = below_root(path);
	char	   *above = bc_asprintf("%.*s", (int) (below - path), path);
	int			base = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const char *name;
	int			parent = base >= 0 ? bc_git_place_parent(base, below, 0, &name, NULL) : -1;
	int			fd = -1;
	int			error;

	if (parent >= 0)
		fd = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	error = errno;
	if (parent >= 0)
		close(parent);
	if (base >= 0)
		close(base);
	free(above);
	errno = error;
	return move_up(fd);
}

/* Opens "path" below "base", through no symbolic link; makes what is missing. */
static int
open_part(int base, const char *path, bool is_file)
{
	int			flags = O_PATH | O_NOFOLLOW | O_CLOEXEC | (is_file ? 0 : O_DIRECTORY);
	const char *name;
	int			parent = bc_git_place_parent(base, path, 0700, &name, NULL);
	int			made = -1;
	int			fd;
	struct stat st;

	if (parent < 0)
		return -1;
	if (is_file)
		made = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	else
		(void) mkdirat(parent, name, 0700);
	if (made >= 0)
		close(made);
	fd = openat(parent, name, flags);
	close(parent);
	if (fd >= 0 && is_file && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)))
	{
		close(fd);
		errno = ELOOP;
		return -1;
	}
	return move_up(fd);
}

static bool
refuse(BcFailure *failure, const char *reason, const char *what, const char *path)
{
	*failure = (BcFailure) {
		reason,
		errno == ENOTDIR || errno == ELOOP ?
		bc_asprintf("%s \"%s\" is not itself a directory or file, or a symbolic link leads there", what, path) :
		bc_asprintf("%s \"%s\" is not there: %s", what, path, strerror(errno)),
		NULL
	};
	return false;
}

/*
 * Mounts what is open, takes "fd".  By the descriptor: bubblewrap compares what
 * it has mounted with it, so that nobody can put something else in its place
 * meanwhile.
 */
static bool
mount_fd(BcLaunch *launch, List *argv, const char *option, int fd, const char *inside)
{
	char		number[16];

	if (launch->nmounts == BC_LAUNCH_MOUNTS)
	{
		close(fd);
		errno = EMFILE;
		return false;
	}
	snprintf(number, sizeof(number), "%d", BC_LAUNCH_FIRST_MOUNT + (int) launch->nmounts);
	launch->mounts[launch->nmounts++] = fd;
	add3(argv, option, number, inside);
	return true;
}

/* --- what it sees --- */

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

static bool
has_place(const List *argv, size_t from, const char *place)
{
	for (size_t i = from; i < argv->n; i++)
		if (strcmp(argv->items[i], place) == 0)
			return true;
	return false;
}

/*
 * Each directory on the way to a private part is mounted on itself.  A mount
 * point can't be renamed or removed, so no agent of this home can put a link
 * there: bubblewrap follows links where it mounts, out to the host's files.
 */
static bool
add_way(BcLaunch *launch, List *argv, size_t from, const char *home, int home_fd, const char *path,
		BcFailure *failure)
{
	for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/'))
	{
		char	   *part = bc_asprintf("%.*s", (int) (slash - path), path);
		char	   *inside = bc_asprintf("%s/%s", home, part);
		bool		ok = has_place(argv, from, inside);

		if (!ok)
		{
			int			fd = open_part(home_fd, part, false);

			ok = fd >= 0 && mount_fd(launch, argv, "--bind-fd", fd, inside);
		}
		if (!ok)
			(void) refuse(failure, "spawn_failed", "part of the agent's home", inside);
		free(part);
		free(inside);
		if (!ok)
			return false;
	}
	return true;
}

static bool
is_file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return strchr(slash != NULL ? slash + 1 : path, '.') > path;
}

static bool
add_part(BcLaunch *launch, List *argv, const char *home, int home_fd, const char *path,
		 int private_fd, BcFailure *failure)
{
	char	   *inside = bc_asprintf("%s/%s", home, path);
	bool		is_file = is_file_name(path);
	int			place = open_part(home_fd, path, is_file);
	int			own = place >= 0 ? open_part(private_fd, path, is_file) : -1;
	bool		ok = own >= 0 && mount_fd(launch, argv, "--bind-fd", own, inside);

	if (!ok)
		(void) refuse(failure, "spawn_failed", "part of the agent's home", inside);
	if (place >= 0)
		close(place);
	free(inside);
	return ok;
}

/*
 * Parts of a lasting home that one session must not leave to another: what was
 * allowed "always" is.  A directory beside the session's own home holds them
 * instead: not in it, for agents without a lasting home write there.
 */
static bool
add_private_paths(BcLaunch *launch, List *argv, const json_t *sandbox, const char *home, int home_fd,
				  BcFailure *failure)
{
	char	   *private = bc_asprintf("%s" BC_SANDBOX_PRIVATE, text(sandbox, "home", "/"));
	const json_t *paths = json_object_get(sandbox, "private");
	int			fd = bc_sandbox_mkdir(private) == 0 ? bc_sandbox_open(private) : -1;
	bool		ok = fd >= 0 || refuse(failure, "spawn_failed", "the directory", private);
	size_t		from = argv->n;

	/* All ways first: one that is mounted later would cover what is mounted below it. */
	for (int ways = 1; ways >= 0; ways--)
		for (size_t i = 0; ok && i < json_array_size(paths); i++)
		{
			const char *path = json_string_value(json_array_get(paths, i));

			if (path == NULL || path[0] == '/' || strstr(path, "..") != NULL)
				continue;
			ok = ways ? add_way(launch, argv, from, home, home_fd, path, failure) :
				add_part(launch, argv, home, home_fd, path, fd, failure);
		}
	if (fd >= 0)
		close(fd);
	free(private);
	return ok;
}

/* By a lock that goes with the runner of the server */
void
bc_sandbox_serve(const char *path)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	int			fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0)
		(void) fcntl(fd, F_OFD_SETLK, &lock);
}

/* Does a server run that has the folder in which this worktree is? */
static bool
is_served(int worktree)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int			fd = openat(worktree, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool		served = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;

	if (fd >= 0)
		close(fd);
	return served;
}

/*
 * The link to the repository is not the agent's to change.  Unless the agents of
 * a server can, too: they could put a symbolic link there while bubblewrap makes
 * sure of the file, which makes the one that is missing, wherever that leads.
 */
static bool
add_dot_git(BcLaunch *launch, List *argv, const char *cwd, BcFailure *failure)
{
	char	   *dot_git = bc_asprintf("%s/.git", cwd);
	int			fd = move_up(openat(launch->dir, ".git", O_PATH | O_NOFOLLOW | O_CLOEXEC));
	bool		ok = fd >= 0 || errno == ENOENT;
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))))
	{
		close(fd);
		errno = ELOOP;
		ok = false;
	}
	else if (fd >= 0 && is_served(launch->dir))
		close(fd);
	else if (fd >= 0)
		ok = mount_fd(launch, argv, "--ro-bind-fd", fd, dot_git);
	if (!ok)
		(void) refuse(failure, "worktree_missing", "the link to the repository", dot_git);
	free(dot_git);
	return ok;
}

/* The agent's own places.  What it writes is mounted by what was opened, not by name. */
static bool
add_own(BcLaunch *launch, List *argv, const json_t *sandbox, const char *cwd, const char *home,
		BcFailure *failure)
{
	int			home_fd = bc_sandbox_open(home);
	int			cwd_fd = fcntl(launch->dir, F_DUPFD_CLOEXEC, BC_LAUNCH_FDS);

	if (home_fd < 0 || !mount_fd(launch, argv, "--bind-fd", home_fd, home))
		return refuse(failure, "spawn_failed", "the agent's home", home);
	if (json_is_object(json_object_get(sandbox, "agent_home")) &&
		!add_private_paths(launch, argv, sandbox, home, home_fd, failure))
		return false;
	return (cwd_fd >= 0 && mount_fd(launch, argv, "--bind-fd", cwd_fd, cwd)) ||
		refuse(failure, "worktree_missing", "the worktree", cwd);
}

static bool
add_sandbox(BcLaunch *launch, List *argv, const json_t *order, const json_t *sandbox,
			BcFailure *failure)
{
	const char *cwd = text(order, "cwd", "/");
	const char *home = home_of(sandbox);
	const char *git_dir = text(order, "git_dir", NULL);
	const char *own[3] = {git_dir, home, cwd};
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
	if (!add_own(launch, argv, sandbox, cwd, home, failure))
		return false;
	for (size_t i = 0; i < 3; i++)
	{
		add_parent(argv, "--remount-ro", sandbox, own[i], false);
		add_parent(argv, "--remount-ro", sandbox, own[i], true);
	}
	if (!add_dot_git(launch, argv, cwd, failure))
		return false;
	for (size_t i = 0; i < 3; i++)
		add_hidden(argv, sandbox, own[i]);
	add(argv, "--remount-ro");
	add(argv, "/");
	add(argv, "--chdir");
	add(argv, cwd);
	add(argv, "--");
	return true;
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

/* The sandbox's part of the command line */
static bool
wrap(BcLaunch *launch, List *argv, const json_t *order, BcFailure *failure)
{
	char	   *bwrap = bc_sandbox_find("bwrap", DEFAULT_PATH);
	char	   *setsid = launch->terminal ? bc_sandbox_find("setsid", DEFAULT_PATH) : NULL;
	bool		ok = false;

	if (bwrap == NULL)
		*failure = (BcFailure) {
			"sandbox_unavailable", bc_strdup("bubblewrap (bwrap) is not installed"),
			"Install the package bubblewrap, or, knowing what it means, set boocoder.sandbox = off."
		};
	else if (launch->terminal && setsid == NULL)
		*failure = (BcFailure) {
			"sandbox_unavailable", bc_strdup("setsid is not installed"),
			"Install the package util-linux, or use another transport than pty."
		};
	else
	{
		add(argv, bwrap);
		ok = add_sandbox(launch, argv, order, json_object_get(order, "sandbox"), failure);
		if (ok && setsid != NULL)
			add_terminal(argv, setsid);
	}
	free(bwrap);
	free(setsid);
	return ok;
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
	size_t		index;
	json_t	   *item;
	char	   *problem;
	bool		ok;

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
	launch->nmounts = 0;
	if ((launch->dir = bc_sandbox_open(text(order, "cwd", "/"))) < 0)
	{
		free(found);
		return refuse(failure, "worktree_missing", "the worktree", text(order, "cwd", "/"));
	}
	ok = !wrapped || wrap(launch, &argv, order, failure);
	add(&argv, found);
	json_array_foreach((json_t *) command, index, item)
	{
		if (index > 0 && json_is_string(item))
			add(&argv, json_string_value(item));
	}
	if (extra != NULL)
		add(&argv, extra);
	free(found);
	launch->argv = argv.items;
	launch->envp = NULL;
	launch->guarded = !wrapped;
	if (ok && (launch->envp = bc_env_build(order, &problem)) == NULL)
		*failure = (BcFailure) {"secret_unavailable", problem, "See providers.env."};
	if (launch->envp == NULL)
		bc_sandbox_free(launch);
	return launch->envp != NULL;
}

void
bc_sandbox_free(BcLaunch *launch)
{
	if (launch->argv == NULL)
		return;
	for (char **item = launch->argv; *item != NULL; item++)
		free(*item);
	for (char **item = launch->envp; item != NULL && *item != NULL; item++)
		free(*item);
	for (size_t i = 0; i < launch->nmounts; i++)
		close(launch->mounts[i]);
	close(launch->dir);
	free(launch->argv);
	free(launch->envp);
	launch->argv = launch->envp = NULL;
}
