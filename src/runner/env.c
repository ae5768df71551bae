/* SPDX-License-Identifier: PostgreSQL */
/*
 * env.c
 *	  The environment of the programs of an order.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/buf.h"
#include "runner/env.h"
#include "runner/paths.h"

#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"
#define MAX_SECRET (64 * 1024)

static const char *
text(const json_t *object, const char *key, const char *fallback)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value != NULL ? value : fallback;
}

static char *
refuse(char **problem, const char *path, const char *why)
{
	*problem = bc_asprintf("the file \"%s\" %s", path, why);
	return NULL;
}

/* A secret is worth no more than the rights of its file. */
static char *
check_file(const struct stat *st, const char *path, char **problem)
{
	if (!S_ISREG(st->st_mode))
		return refuse(problem, path, "is no regular file");
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return refuse(problem, path, "belongs to another user");
	if ((st->st_mode & 077) != 0)
		return refuse(problem, path, "can be read or written by others: chmod 600");
	if (st->st_size > MAX_SECRET)
		return refuse(problem, path, "is too large");
	return (char *) path;
}

static char *
read_secret(int fd, const char *path, char **problem)
{
	char	   *secret = bc_alloc(MAX_SECRET + 1);
	size_t		len = 0;
	ssize_t		n;

	while (len < MAX_SECRET && (n = read(fd, secret + len, MAX_SECRET - len)) != 0)
	{
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
		{
			free(secret);
			return refuse(problem, path, strerror(errno));
		}
		len += (size_t) n;
	}
	if (len > 0 && secret[len - 1] == '\n')
		len--;
	secret[len] = '\0';
	if (strlen(secret) != len)
	{
		free(secret);
		return refuse(problem, path, "holds a NUL");
	}
	return secret;
}

static char *
from_file(const char *path, char **problem)
{
	struct stat st;
	char	   *secret = NULL;
	int			fd;

	if (path[0] != '/')
		return refuse(problem, path, "is not named by an absolute path");
	/* A FIFO must not hold us up. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return refuse(problem, path, errno == ELOOP ? "is a symbolic link" : strerror(errno));
	if (fstat(fd, &st) < 0)
		(void) refuse(problem, path, strerror(errno));
	else if (check_file(&st, path, problem) != NULL)
		secret = read_secret(fd, path, problem);
	close(fd);
	return secret;
}

static char *
from_env(const char *name, char **problem)
{
	const char *value = getenv(name);

	if (value == NULL)
	{
		*problem = bc_asprintf("the server's variable \"%s\" is not set, or not in boocoder.env_allow",
							   name);
		return NULL;
	}
	return bc_strdup(value);
}

char *
bc_env_value(const json_t *value, char **problem)
{
	const char *file = text(value, "from_file", NULL);
	const char *name = text(value, "from_env", NULL);

	*problem = NULL;
	if (json_is_string(value))
		return bc_strdup(json_string_value(value));
	if (file != NULL)
		return from_file(file, problem);
	if (name != NULL)
		return from_env(name, problem);
	*problem = bc_strdup("its value is neither a string nor a reference");
	return NULL;
}

static void
set(json_t *env, const char *name, const char *value)
{
	json_object_set_new(env, name, json_string(value));
}

static void
set_from(json_t *env, const char *name, const json_t *place, const char *key)
{
	const json_t *value = json_object_get(place, key);
	char		number[32];

	if (json_is_string(value))
		set(env, name, json_string_value(value));
	else if (json_is_integer(value))
	{
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		set(env, name, number);
	}
}

/* What every program gets */
static json_t *
base(const json_t *order)
{
	const json_t *sandbox = json_object_get(order, "sandbox");
	const json_t *place = json_object_get(order, "place");
	const char *name = bc_paths_user()->name;
	json_t	   *env = json_object();

	set(env, "PATH", text(sandbox, "agent_path", DEFAULT_PATH));
	set(env, "HOME", text(json_object_get(sandbox, "agent_home"), "path",
						  text(sandbox, "home", "/")));
	set(env, "USER", name);
	set(env, "LOGNAME", name);
	set(env, "SHELL", "/bin/sh");
	set(env, "LANG", "C.UTF-8");
	set(env, "TERM", strcmp(text(order, "transport", ""), "pty") == 0 ? "xterm-256color" : "dumb");
	set(env, "TMPDIR", "/tmp");
	set(env, "BOOCODER_WORKTREE", text(order, "cwd", "/"));
	set_from(env, "BOOCODER_TASK_ID", order, "task_id");
	set_from(env, "BOOCODER_PROJECT", place, "project");
	set_from(env, "BOOCODER_SESSION_ID", place, "session");
	set_from(env, "BOOCODER_BRANCH", place, "branch");
	set_from(env, "BOOCODER_BASE_COMMIT", place, "base_commit");
	set_from(env, "BOOCODER_PORT", place, "port_first");
	if (json_is_integer(json_object_get(place, "port_first")))
		set_from(env, "BOOCODER_PORT_COUNT", place, "port_count");
	return env;
}

static char **
as_strings(const json_t *env)
{
	char	  **strings = bc_alloc((json_object_size(env) + 1) * sizeof(char *));
	size_t		n = 0;
	const char *name;
	json_t	   *value;

	json_object_foreach((json_t *) env, name, value)
		strings[n++] = bc_asprintf("%s=%s", name, json_string_value(value));
	strings[n] = NULL;
	return strings;
}

char **
bc_env_build(const json_t *order, char **problem)
{
	json_t	   *env = base(order);
	const char *name;
	json_t	   *value;
	char	  **strings;

	*problem = NULL;
	json_object_foreach((json_t *) json_object_get(order, "env"), name, value)
	{
		char	   *plain;
		char	   *why;

		if (name[0] == '\0' || strchr(name, '=') != NULL)
			continue;
		plain = bc_env_value(value, &why);
		if (plain == NULL)
		{
			*problem = bc_asprintf("the variable \"%s\" of the provider can't be set: %s", name, why);
			free(why);
			json_decref(env);
			return NULL;
		}
		json_object_set_new(env, name, json_string_nocheck(plain));
		explicit_bzero(plain, strlen(plain));
		free(plain);
	}
	strings = as_strings(env);
	json_decref(env);
	return strings;
}
