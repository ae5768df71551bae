/* SPDX-License-Identifier: PostgreSQL */
/*
 * jsonrpc.c
 *	  JSON-RPC 2.0 messages, one a line: reading and writing.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "runner/jsonrpc.h"
#include "runner/text.h"

/* The offset behind the string whose quote is at "at". */
static size_t
skip_string(const char *text, size_t len, size_t at)
{
	for (at++; at < len && text[at] != '"'; at++)
		if (text[at] == '\\')
			at++;
	return at < len ? at + 1 : len;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/*
 * Finds the value of "id" at the top level of the object that "text" holds, to
 * the byte: an id may be larger than any integer of ours, or a string with
 * escapes, and has to be sent back as it came.
 */
static bool
find_id(const char *text, size_t len, size_t *start, size_t *length)
{
	int			depth = 0;
	bool		found = false;

	for (size_t i = 0; i < len;)
	{
		size_t		key = i;

		if (text[i] == '{' || text[i] == '[')
			depth++;
		else if (text[i] == '}' || text[i] == ']')
			depth--;
		if (text[i] != '"')
		{
			i++;
			continue;
		}
		i = skip_string(text, len, i);
		if (depth != 1 || i - key != 4 || memcmp(text + key, "\"id\"", 4) != 0)
			continue;
		while (i < len && is_blank(text[i]))
			i++;
		/* a string with this text that is no key */
		if (i >= len || text[i] != ':')
			continue;
		for (i++; i < len && is_blank(text[i]);)
			i++;
		*start = i;
		if (i < len && text[i] == '"')
			i = skip_string(text, len, i);
		else
			while (i < len && !is_blank(text[i]) && text[i] != ',' && text[i] != '}')
				i++;
		*length = i - *start;
		found = *length > 0;
	}
	return found;
}

/* Could these bytes stand in a message of ours as they are? */
static bool
is_token(const json_t *id, const char *token, size_t len)
{
	if (json_is_number(id))
	{
		for (size_t i = 0; i < len; i++)
			if (!isdigit((unsigned char) token[i]) && strchr("+-.eE", token[i]) == NULL)
				return false;
		return memchr(token, '\0', len) == NULL;
	}
	if (!json_is_string(id) || len < 2 || token[0] != '"' || token[len - 1] != '"')
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char) token[i] < 0x20)
			return false;
	return true;
}

static void
copy_id(BcRpcMessage *message, const json_t *id, const char *text, size_t len)
{
	size_t		start;
	size_t		length;

	if (find_id(text, len, &start, &length) && is_token(id, text + start, length))
		bc_buf_add(&message->id, text + start, length);
	else
		bc_text_json(&message->id, id, SIZE_MAX);
}

static json_int_t
own_id(const json_t *id)
{
	return json_is_integer(id) && json_integer_value(id) >= 0 ? json_integer_value(id) : -1;
}

static bool
is_id(const json_t *id)
{
	return json_is_string(id) || json_is_number(id) || json_is_null(id);
}

/* Fills in the message for the object message->root; false when it is none. */
static bool
classify(BcRpcMessage *message, const char *text, size_t len)
{
	const json_t *id = json_object_get(message->root, "id");
	const json_t *method = json_object_get(message->root, "method");
	const json_t *error = json_object_get(message->root, "error");
	const json_t *result = json_object_get(message->root, "result");

	if (id != NULL && !is_id(id))
		return false;
	if (json_is_string(method))
	{
		message->method = json_string_value(method);
		message->params = json_object_get(message->root, "params");
		message->kind = id != NULL ? BC_RPC_REQUEST : BC_RPC_NOTIFICATION;
		if (id != NULL)
			copy_id(message, id, text, len);
		return true;
	}
	if (id == NULL)
		return false;
	if (error != NULL && !json_is_null(error))
		message->error = error;
	else if (result != NULL)
		message->result = result;
	else
		return false;
	message->response_id = own_id(id);
	message->kind = BC_RPC_RESPONSE;
	return true;
}

static bool
read_object(BcRpcMessage *message, const char *text, size_t len)
{
	message->root = bc_text_parse(text, len);
	if (json_is_object(message->root) && classify(message, text, len))
		return true;
	json_decref(message->root);
	message->root = NULL;
	return false;
}

void
bc_rpc_read(const char *line, size_t len, BcRpcMessage *message)
{
	static const char opening[] = "{\"jsonrpc\"";
	const char *start = memchr(line, '{', len);
	size_t		rest;

	*message = (BcRpcMessage) {.kind = BC_RPC_JUNK, .response_id = -1, .id = BC_BUF_INIT};
	if (start == NULL)
		return;
	rest = len - (size_t) (start - line);
	if (read_object(message, start, rest))
		return;

	/* A log line with braces, and the message right behind it */
	start = memmem(start + 1, rest - 1, opening, sizeof(opening) - 1);
	if (start != NULL)
		(void) read_object(message, start, len - (size_t) (start - line));
}

void
bc_rpc_free(BcRpcMessage *message)
{
	json_decref(message->root);
	bc_buf_free(&message->id);
	*message = (BcRpcMessage) {.kind = BC_RPC_JUNK, .response_id = -1, .id = BC_BUF_INIT};
}

static void
add_value(BcBuf *out, const char *key, json_t *value)
{
	bc_buf_printf(out, ",\"%s\":", key);
	if (value != NULL)
		bc_text_json(out, value, SIZE_MAX);
	else
		bc_buf_str(out, "{}");
	json_decref(value);
	bc_buf_str(out, "}\n");
}

void
bc_rpc_request(BcBuf *out, json_int_t id, const char *method, json_t *params)
{
	bc_buf_printf(out, "{\"jsonrpc\":\"2.0\",\"id\":%" JSON_INTEGER_FORMAT ",\"method\":\"%s\"",
				  id, method);
	add_value(out, "params", params);
}

void
bc_rpc_notification(BcBuf *out, const char *method, json_t *params)
{
	bc_buf_printf(out, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\"", method);
	add_value(out, "params", params);
}

static void
begin_reply(BcBuf *out, const BcBuf *id)
{
	bc_buf_str(out, "{\"jsonrpc\":\"2.0\",\"id\":");
	bc_buf_add(out, id->data, id->len);
}

void
bc_rpc_result(BcBuf *out, const BcBuf *id, json_t *result)
{
	begin_reply(out, id);
	add_value(out, "result", result);
}

void
bc_rpc_error(BcBuf *out, const BcBuf *id, int code, const char *text)
{
	begin_reply(out, id);
	add_value(out, "error", json_pack("{s:i, s:s}", "code", code, "message", text));
}
