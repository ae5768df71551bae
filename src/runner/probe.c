/* SPDX-License-Identifier: PostgreSQL */
/*
 * probe.c
 *	  The role "probe": finds the program, asks for its version, talks to it if
 *	  it speaks a protocol, and collects the models.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runner/env.h"
#include "runner/git_place.h"
#include "runner/models_http.h"
#include "runner/parent.h"
#include "runner/probe.h"
#include "runner/stream.h"
#include "runner/up.h"
#include "runner/version.h"

#define DEADLINE_MS 30000
#define VERSION_SHARE 3			/* of the deadline that --version may take */
#define ENDPOINT_MS 10000
#define QUIT_MS 500
#define TERM_MS 1000
#define MAX_LINE (16 * 1024 * 1024)
#define SCRATCH_PREFIX "probe-"
#define STALE_SECONDS 3600		/* age of a scratch directory whose runner must have been killed */

static const char *
text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static const json_t *
sandbox_of(const BcProbe *probe)
{
	return json_object_get(probe->order, "sandbox");
}

/* --- for all parts --- */

int64_t
bc_probe_limit(const BcProbe *probe, const char *name, int64_t fallback)
{
	json_int_t	limit =
		json_integer_value(json_object_get(json_object_get(probe->order, "limits"), name));

	return limit > 0 ? limit : fallback;
}

int64_t
bc_probe_until(const BcProbe *probe, int64_t ms)
{
	int64_t		until = bc_now() + ms;

	return until < probe->deadline ? until : probe->deadline;
}

void
bc_probe_note(BcProbe *probe, char *text)
{
	const char *before = text_of(probe->result, "message");
	char	   *joined = before != NULL ? bc_asprintf("%s; %s", before, text) : bc_strdup(text);

	json_object_set_new(probe->result, "message", json_string(joined));
	free(joined);
	free(text);
}

bool
bc_probe_settled(const BcProbe *probe)
{
	return json_object_get(probe->result, "status") != NULL;
}

void
bc_probe_settle(BcProbe *probe, const char *status, const char *reason, char *message)
{
	if (bc_probe_settled(probe))
	{
		free(message);
		return;
	}
	json_object_set_new(probe->result, "status", json_string(status));
	if (reason != NULL)
		json_object_set_new(probe->result, "reason", json_string(reason));
	if (message != NULL)
		bc_probe_note(probe, message);
}

static void
settle_failure(BcProbe *probe, const BcFailure *failure)
{
	bool		absent = strcmp(failure->reason, "program_not_found") == 0;

	if (failure->hint != NULL && !bc_probe_settled(probe))
		json_object_set_new(probe->result, "hint", json_string(failure->hint));
	bc_probe_settle(probe, absent ? "unavailable" : "error", failure->reason, failure->message);
}

bool
bc_probe_start(BcProbe *probe, BcTalk *talk, const json_t *command)
{
	size_t		max_line = (size_t) bc_probe_limit(probe, "max_line", MAX_LINE);
	BcFailure	failure;

	if (bc_talk_start(talk, probe->order, command, max_line, &failure))
		return true;
	settle_failure(probe, &failure);
	return false;
}

void
bc_probe_finish(BcProbe *probe, BcTalk *talk)
{
	bc_talk_finish(talk, QUIT_MS, bc_probe_limit(probe, "term_grace_ms", TERM_MS),
				   probe->deadline);
}

char *
bc_probe_ending(const BcTalk *talk)
{
	char	   *words = bc_talk_last_words(talk);
	char	   *ending = bc_asprintf("ended with %s %d%s%s", talk->signal ? "signal" : "status",
									 talk->signal ? talk->signal : talk->exit_code,
									 words != NULL ? ": " : "", words != NULL ? words : "");

	free(words);
	return ending;
}

/* bubblewrap reports its own failures on stderr, and so does nothing else that way. */
static const char *
exit_reason(const BcTalk *talk)
{
	char	   *words = bc_talk_last_words(talk);
	const char *reason = "agent_exited";

	if (talk->sandboxed && words != NULL && strncmp(words, "bwrap: execvp ", 14) == 0)
		reason = "spawn_failed";
	else if (talk->sandboxed && talk->exit_code == 1 && words != NULL &&
			 strncmp(words, "bwrap: ", 7) == 0)
		reason = "sandbox_unavailable";
	free(words);
	return reason;
}

void
bc_probe_unheard(BcProbe *probe, const BcTalk *talk, BcTalkStatus status, const char *doing)
{
	char	   *ending;

	switch (status)
	{
		case BC_TALK_LATE:
			bc_probe_settle(probe, "error", "probe_timeout",
							bc_asprintf("the program did not %s in time", doing));
			break;
		case BC_TALK_TOO_LONG:
			bc_probe_settle(probe, "error", "line_too_long",
							bc_asprintf("the program did not %s, but sent a line longer than "
										"boocoder.max_line", doing));
			break;
		case BC_TALK_CANCELLED:
			bc_probe_settle(probe, "error", "cancelled", bc_strdup("cancelled on request"));
			break;
		case BC_TALK_CLOSED:
		case BC_TALK_STOPPED:
			ending = bc_probe_ending(talk);
			bc_probe_settle(probe, "error", exit_reason(talk),
							bc_asprintf("the program did not %s, but %s", doing, ending));
			free(ending);
			break;
	}
}

/* --- the scratch directory --- */

/* What runners left there that were killed */
static void
remove_stale(int scratch)
{
	int			copy = fcntl(scratch, F_DUPFD_CLOEXEC, 0);
	DIR		   *dir = copy >= 0 ? fdopendir(copy) : NULL;
	struct dirent *entry;
	time_t		now = time(NULL);

	while (dir != NULL && (entry = readdir(dir)) != NULL)
	{
		struct stat st;
		BcGitProblem problem;

		if (strncmp(entry->d_name, SCRATCH_PREFIX, strlen(SCRATCH_PREFIX)) == 0 &&
			fstatat(scratch, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			S_ISDIR(st.st_mode) && st.st_mtime < now - STALE_SECONDS)
			(void) bc_git_place_remove(scratch, entry->d_name, &problem);
	}
	if (dir != NULL)
		closedir(dir);
}

/*
 * Makes a directory for this run below the one of the order and makes it the
 * program's.  A descriptor of the latter, or -1 and the problem is settled.
 */
static int
enter_scratch(BcProbe *probe)
{
	const char *home = text_of(sandbox_of(probe), "home");
	const char *base = text_of(probe->order, "cwd");
	char	   *path = bc_asprintf("%s/" SCRATCH_PREFIX "XXXXXX", base != NULL ? base : "");
	struct stat st;
	int			fd = -1;
	int			error = 0;

	if (home == NULL || base == NULL || base[0] != '/')
		error = EINVAL;
	else if ((error = bc_sandbox_mkdir(home)) == 0 && (error = bc_sandbox_mkdir(base)) == 0 &&
			 ((fd = open(base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0 ||
			  fstat(fd, &st) < 0))
		error = errno;
	/* Where others may write, they could swap what is about to be removed. */
	else if (error == 0 && (st.st_uid != geteuid() || (st.st_mode & 022) != 0))
		error = EPERM;
	if (error == 0)
	{
		remove_stale(fd);
		if (mkdtemp(path) == NULL)
			error = errno;
	}
	if (error == 0)
		json_object_set_new(probe->order, "cwd", json_string(path));
	else
	{
		bc_probe_settle(probe, "error", "spawn_failed",
						bc_asprintf("could not make the home or the scratch directory: %s",
									strerror(error)));
		bc_spawn_close(&fd);
	}
	free(path);
	return fd;
}

static void
leave_scratch(BcProbe *probe, int *fd)
{
	const char *path = text_of(probe->order, "cwd");
	BcGitProblem problem;

	if (!bc_git_place_remove(*fd, strrchr(path, '/') + 1, &problem))
		bc_probe_note(probe, bc_strdup(problem.message));
	bc_spawn_close(fd);
}

/* --- the program --- */

/* A file of that name which is no program: where it is, or NULL; the caller frees. */
static char *
find_file(const char *name, const char *path)
{
	struct stat st;

	if (strchr(name, '/') != NULL)
		return stat(name, &st) == 0 ? bc_strdup(name) : NULL;
	while (*path != '\0')
	{
		size_t		n = strcspn(path, ":");
		char	   *candidate = bc_asprintf("%.*s/%s", (int) n, path, name);

		if (n > 0 && stat(candidate, &st) == 0 && S_ISREG(st.st_mode))
			return candidate;
		free(candidate);
		path += n + (path[n] == ':');
	}
	return NULL;
}

static bool
find_program(BcProbe *probe)
{
	const char *name = text_of(probe->order, "program");
	const char *path = text_of(sandbox_of(probe), "agent_path");
	char	   *file = NULL;

	if (name == NULL)
		name = json_string_value(json_array_get(json_object_get(probe->order, "command"), 0));
	if (name == NULL)
		name = "";
	if (path == NULL)
		path = "";
	if (name[0] != '\0' && (probe->program = bc_sandbox_find(name, path)) != NULL)
	{
		json_object_set_new(probe->result, "install_path", json_string(probe->program));
		return true;
	}
	if (name[0] == '\0')
		settle_failure(probe, &(BcFailure) {
			"program_not_found", bc_strdup("the provider names no program"),
			"Set its command with boocoder.register_provider()."
		});
	else if ((file = find_file(name, path)) != NULL)
		settle_failure(probe, &(BcFailure) {
			"program_not_found", bc_asprintf("\"%s\" is there, but not executable", file),
			"Make it executable for the user that agents run as."
		});
	else
		settle_failure(probe, &(BcFailure) {
			"program_not_found",
			strchr(name, '/') != NULL ? bc_asprintf("program \"%s\" is not there", name) :
			bc_asprintf("program \"%s\" was not found on \"%s\"", name, path),
			"Install it, or set boocoder.agent_path."
		});
	free(file);
	return false;
}

/* --- its version --- */

typedef struct VersionSearch
{
	BcTalk	   *talk;
	char	   *version;
} VersionSearch;

static void
look_for_version(const char *line, size_t len, void *arg)
{
	VersionSearch *search = arg;

	if (search->version == NULL && (search->version = bc_version_find(line, len)) != NULL)
		bc_talk_stop(search->talk);
}

/* Some say it on their standard error; but so do interpreters, of themselves, when they fail. */
static void
look_in_errors(VersionSearch *search)
{
	BcLines		lines;

	if (search->talk->exit_code != 0)
		return;
	bc_lines_init(&lines, 0);
	(void) bc_lines_feed(&lines, search->talk->errors.data, search->talk->errors.len,
						 look_for_version, search);
	bc_lines_end(&lines, look_for_version, search);
	bc_lines_free(&lines);
}

/* A "command" is any program; many know no such option, "sh" among them.  From 126 on it did not run, or crashed. */
static bool
may_refuse(const BcProbe *probe, const BcTalk *talk)
{
	const char *transport = text_of(probe->order, "transport");

	return transport != NULL && strcmp(transport, "command") == 0 &&
		talk->exit_code > 0 && talk->exit_code < 126;
}

/* What is wrong with the answer to --version.  A program that runs to a good end is one, anyway. */
static void
judge_version(BcProbe *probe, const BcTalk *talk, BcTalkStatus status, bool has_protocol)
{
	if (status == BC_TALK_CLOSED && talk->exit_code == 0)
		bc_probe_note(probe, bc_strdup("the program does not say its version"));
	else if (status == BC_TALK_CLOSED)
	{
		char	   *ending = bc_probe_ending(talk);
		char	   *message = bc_asprintf("asked for its version, the program %s", ending);
		const char *reason = exit_reason(talk);
		bool		exited = strcmp(reason, "agent_exited") == 0;

		if (has_protocol || (exited && may_refuse(probe, talk)))
			bc_probe_note(probe, message);
		else
			bc_probe_settle(probe, "error", exited ? "version_failed" : reason, message);
		free(ending);
	}
	else if (has_protocol && status != BC_TALK_CANCELLED)
		bc_probe_note(probe, bc_strdup("the program did not say its version in time"));
	else
		bc_probe_unheard(probe, talk, status, "say its version");
}

/* True when it is known, or was not to be asked for. */
static bool
ask_version(BcProbe *probe, bool has_protocol)
{
	json_t	   *args = json_object_get(probe->order, "version_args");
	json_t	   *command;
	BcTalk		talk;
	VersionSearch search = {&talk, NULL};
	BcTalkStatus status;
	int64_t		ms = (probe->deadline - probe->began) / VERSION_SHARE;
	bool		known;

	if (json_array_size(args) == 0)
		return true;
	command = json_pack("[s]", probe->program);
	json_array_extend(command, args);
	if (!bc_probe_start(probe, &talk, command))
	{
		json_decref(command);
		return false;
	}
	json_decref(command);
	bc_talk_close_input(&talk);
	status = bc_talk_listen(&talk, bc_probe_until(probe, ms), look_for_version, &search);
	bc_probe_finish(probe, &talk);
	if (status == BC_TALK_CLOSED)
		look_in_errors(&search);
	known = search.version != NULL;
	if (known)
		json_object_set_new(probe->result, "version", json_string(search.version));
	else
		judge_version(probe, &talk, status, has_protocol);
	free(search.version);
	bc_talk_free(&talk);
	return known;
}

/* --- the whole --- */

/* The server's models, behind those of the agent. */
static void
ask_endpoint(BcProbe *probe)
{
	const char *base = text_of(probe->order, "models_url");
	const char *prefix = text_of(probe->order, "models_prefix");
	const json_t *key = json_object_get(probe->order, "models_key");
	char	   *secret = NULL;
	char	   *problem = NULL;

	if (base == NULL)
		return;
	if (key != NULL && !json_is_null(key))
		secret = bc_env_value(key, &problem);
	/* Without the key that was meant, the answer would be another one. */
	if (problem == NULL)
		problem = bc_models_fetch(&probe->models, base, secret, prefix,
								  bc_probe_until(probe, ENDPOINT_MS), bc_talk_cancelled);
	free(secret);
	if (problem != NULL)
		bc_probe_note(probe, bc_asprintf("the models of the endpoint are unknown: %s", problem));
	free(problem);
}

static void
look_at_program(BcProbe *probe)
{
	const char *transport = text_of(probe->order, "transport");
	bool		has_protocol = transport != NULL && strcmp(transport, "acp") == 0;
	bool		known = ask_version(probe, has_protocol);

	if (has_protocol && !bc_probe_settled(probe))
		bc_probe_acp(probe);
	bc_probe_settle(probe, "ready", NULL, NULL);
	if (strcmp(text_of(probe->result, "status"), "ready") != 0)
		return;
	if (!known)
		json_object_set_new(probe->result, "reason", json_string("version_failed"));
	bc_probe_models(probe);
	ask_endpoint(probe);
}

/* Every field of the result is there, whatever came of it. */
static void
complete(BcProbe *probe)
{
	static const char *const fields[] = {
		"reason", "message", "hint", "install_path", "version", "current_model", "current_mode"
	};
	json_t	   *all = json_pack("{s:b, s:b, s:{}, s:{}, s:[], s:[], s:[]}", "ok", 1,
								"supports_acp", 0, "capabilities", "agent_info",
								"auth_methods", "modes", "commands");

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		json_object_set_new(all, fields[i], json_null());
	json_object_update(all, probe->result);
	json_object_set(all, "models", probe->models.list);
	json_object_set_new(all, "duration_ms", json_integer(bc_now() - probe->began));
	json_decref(probe->result);
	probe->result = all;
}

json_t *
bc_probe_run(const json_t *order)
{
	BcProbe		probe = {.order = json_deep_copy(order), .result = json_object()};
	int			scratch = -1;

	bc_parent_is_pipe();
	bc_up_nonblocking();
	bc_models_init(&probe.models);
	probe.began = bc_now();
	probe.deadline = probe.began + bc_probe_limit(&probe, "deadline_ms", DEADLINE_MS);
	if (find_program(&probe) && (scratch = enter_scratch(&probe)) >= 0)
	{
		look_at_program(&probe);
		leave_scratch(&probe, &scratch);
	}
	complete(&probe);
	bc_models_free(&probe.models);
	json_decref(probe.order);
	free(probe.program);
	return probe.result;
}
