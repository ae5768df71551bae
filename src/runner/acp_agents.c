/* SPDX-License-Identifier: PostgreSQL */
/*
 * acp_agents.c
 *	  Peculiarities of known ACP agents.
 */
#include <stddef.h>
#include <string.h>

#include "runner/acp_agents.h"
#include "runner/buf.h"

const char *
bc_acp_known(const char *kind, const char *name)
{
	static const struct
	{
		const char *name;
		const char *known;
	}			names[] = {
		{"OpenCode", "opencode"},
		{"qwen-code", "qwen"},
		{"gemini-cli", "gemini"},
		{"goose", "goose"},
		{"pi-acp", "pi"},
		{"@agentclientprotocol/claude-agent-acp", "claude"},
		{"@agentclientprotocol/codex-acp", "codex"},
		{"codex-acp", "codex-zed"}, /* an older one with other manners */
	};

	for (size_t i = 0; name != NULL && i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i].name, name) == 0)
			return names[i].known;
	if (kind != NULL)
		return kind;
	/* All but goose say who they are. */
	return name == NULL ? "goose" : "";
}

/* How goose wraps an error: what stands before it, and what must be the end of the text */
static const struct
{
	const char *before;
	const char *behind;
	bool		anywhere;		/* it is said right behind what the model said */
}			wrappings[] = {
	{"Ran into this error: ",
	".\n\nPlease retry if you think this is a transient or recoverable error.", true},
	{"Ran into this error trying to compact: ",
	".\n\nPlease try again or create a new session", true},
	{"Network error: ", "\n\nPlease resend your message to try again.", false},
};

static const char *
last_occurrence(const char *text, const char *part)
{
	const char *found = NULL;

	for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part))
		found = at;
	return found;
}

static char *
unwrapped(const char *text)
{
	size_t		len = strlen(text);

	while (len > 0 && strchr(" \n", text[len - 1]) != NULL)
		len--;
	for (size_t i = 0; i < sizeof(wrappings) / sizeof(wrappings[0]); i++)
	{
		size_t		behind = strlen(wrappings[i].behind);
		const char *start = last_occurrence(text, wrappings[i].before);
		const char *end = text + len - behind;

		if (start == NULL || len < behind || memcmp(end, wrappings[i].behind, behind) != 0)
			continue;
		if (start != text && !wrappings[i].anywhere)
			continue;
		/* A name of the error is part of it. */
		if (wrappings[i].anywhere)
			start += strlen(wrappings[i].before);
		if (start < end)
			return bc_asprintf("%.*s", (int) (end - start), start);
	}
	return NULL;
}

/* Text that was told as an error without any wrapping */
static char *
trimmed(const char *text)
{
	size_t		len;

	text += strspn(text, " \n");
	len = strlen(text);
	while (len > 0 && strchr(" \n", text[len - 1]) != NULL)
		len--;
	return bc_asprintf("%.*s", (int) len, text);
}

char *
bc_acp_hidden_error(const char *known, const char *last_text, bool system_error)
{
	if (strcmp(known, "codex") == 0 && system_error)
		return trimmed(last_text != NULL ? last_text : "the agent's session broke and it did not say why");
	if (strcmp(known, "goose") == 0 && last_text != NULL)
		return unwrapped(last_text);
	return NULL;
}
