/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_jsonrpc.c
 *	  Reading and writing of JSON-RPC messages.
 */
#include "unit.h"

#include "capture.h"
#include "runner/jsonrpc.h"

static BcRpcMessage message;

static BcRpcKind
read_bytes(const char *line, size_t len)
{
	bc_rpc_free(&message);
	bc_rpc_read(line, len, &message);
	return message.kind;
}

static BcRpcKind
read_text(const char *line)
{
	return read_bytes(line, strlen(line));
}

static int
forget(void **state)
{
	(void) state;
	bc_rpc_free(&message);
	return 0;
}

static void
messages_are_told_apart(void **state)
{
	(void) state;
	assert_int_equal(read_text("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":[1]}"),
					 BC_RPC_REQUEST);
	assert_string_equal(message.method, "m");
	assert_json(message.params, "[1]");

	assert_int_equal(read_text("{\"method\":\"n\"}"), BC_RPC_NOTIFICATION);
	assert_null(message.params);

	assert_int_equal(read_text("{\"result\":{\"a\":1},\"id\":7}"), BC_RPC_RESPONSE);
	assert_int_equal(message.response_id, 7);
	assert_json(message.result, "{'a':1}");
	assert_null(message.error);

	assert_int_equal(read_text("{\"id\":7,\"error\":{\"code\":-1},\"result\":null}"), BC_RPC_RESPONSE);
	assert_json(message.error, "{'code':-1}");
	assert_null(message.result);

	assert_int_equal(read_text("{\"id\":7,\"error\":null,\"result\":null}"), BC_RPC_RESPONSE);
	assert_json(message.result, "null");
}

static void
ids_that_are_not_ours_match_nothing(void **state)
{
	static const char *const ids[] = {"\"7\"", "null", "-7", "7.0", "99999999999999999999"};

	(void) state;
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
	{
		char		line[100];

		snprintf(line, sizeof(line), "{\"id\":%s,\"result\":{}}", ids[i]);
		assert_int_equal(read_text(line), BC_RPC_RESPONSE);
		assert_int_equal(message.response_id, -1);
	}
}

static void
what_is_no_message_is_junk(void **state)
{
	static const char *const lines[] = {
		"", " ", "{", "}", "hello", "[]", "[{\"id\":1,\"method\":\"m\"}]", "42", "null", "\"text\"", "{}",
		"{\"id\":1}", "{\"id\":{},\"method\":\"m\"}", "{\"id\":true,\"result\":1}", "{\"method\":5}",
		"{\"result\":1}", "\x1b[2J\x1b[1mBanner {v1.2}", "{\"id\":1,\"method\":\"m\"",
	};

	(void) state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_int_equal(read_text(lines[i]), BC_RPC_JUNK);
}

static void
a_message_is_found_behind_what_stands_before_it(void **state)
{
	(void) state;
	assert_int_equal(read_text("\xEF\xBB\xBF{\"jsonrpc\":\"2.0\",\"method\":\"m\"}"), BC_RPC_NOTIFICATION);
	assert_int_equal(read_text("\x1b[0mloading... {\"method\":\"m\"}"), BC_RPC_NOTIFICATION);
	assert_int_equal(read_text("[info] {cache} {\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"m\"}"), BC_RPC_REQUEST);
	assert_string_equal(message.id.data, "\"x\"");
}

static void
one_bad_character_loses_no_message(void **state)
{
	(void) state;
	assert_int_equal(read_text("{\"method\":\"m\",\"params\":{\"t\":\"\xFF \\ud800 \\u0000 \t\"}}"), BC_RPC_NOTIFICATION);
	assert_int_equal(read_bytes("{\"method\":\"m\",\"params\":\"\0\"}", 27), BC_RPC_NOTIFICATION);
	assert_int_equal(read_text("{\"id\":3,\"result\":{\"n\":1e400,\"big\":111111111111111111111}}"), BC_RPC_RESPONSE);
	assert_int_equal(message.response_id, 3);
}

static void
the_id_of_a_request_is_sent_back_as_it_came(void **state)
{
	static const char *const ids[] = {
		"0", "-5", "9223372036854775807", "123456789012345678901234567890", "1.50", "1e2", "null", "\"\"",
		"\"a\\u00e9\\/b\"", "\"\\\"id\\\":5}\"", "\"\xC3\xA9\"", "\"\\ud800\"",
	};
	static const char *const forms[] = {
		"{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"m\"}",
		"{\"method\":\"m\",\"params\":{\"id\":\"inner\",\"x\":[{\"id\":9}]},\"id\" : %s }",
		"{\"method\":\"id\",\"params\":[\"id\"],\"id\":%s}",
		"noise {\"id\":1,\"id\":%s,\"method\":\"m\",\"a\":\"}{\\\\\"}",
	};

	(void) state;
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		for (size_t k = 0; k < sizeof(forms) / sizeof(forms[0]); k++)
		{
			char		line[300];
			char		expected[300];
			BcBuf		reply = BC_BUF_INIT;

			snprintf(line, sizeof(line), forms[k], ids[i]);
			assert_int_equal(read_text(line), BC_RPC_REQUEST);
			assert_string_equal(message.id.data, ids[i]);
			bc_rpc_result(&reply, &message.id, NULL);
			snprintf(expected, sizeof(expected), "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{}}\n", ids[i]);
			assert_string_equal(reply.data, expected);
			bc_buf_free(&reply);
		}
	/* an escaped key, and a NUL that the repair removes: by value then */
	assert_int_equal(read_bytes("{\"id\":12\0" "34,\"method\":\"m\"}", 25), BC_RPC_REQUEST);
	assert_string_equal(message.id.data, "1234");
	assert_int_equal(read_text("{\"\\u0069d\":12,\"method\":\"m\"}"), BC_RPC_REQUEST);
	assert_string_equal(message.id.data, "12");
}

static void
messages_are_written_one_a_line(void **state)
{
	BcBuf		out = BC_BUF_INIT;
	BcBuf		id = BC_BUF_INIT;

	(void) state;
	bc_buf_str(&id, "\"x\"");
	bc_rpc_request(&out, 3, "session/prompt", json_of("{'text': 'two\\nlines \\u2028'}"));
	bc_rpc_notification(&out, "session/cancel", NULL);
	bc_rpc_error(&out, &id, BC_RPC_METHOD_NOT_FOUND, "method not found");
	assert_string_equal(out.data,
						"{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"session/prompt\",\"params\":{\"text\":\"two\\nlines \xE2\x80\xA8\"}}\n"
						"{\"jsonrpc\":\"2.0\",\"method\":\"session/cancel\",\"params\":{}}\n"
						"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"error\":{\"code\":-32601,\"message\":\"method not found\"}}\n");
	bc_buf_free(&out);
	bc_buf_free(&id);
}

static void
a_message_of_10_megabytes_is_read(void **state)
{
	static const char head[] = "{\"method\":\"m\",\"params\":\"";
	size_t		n = 10 * 1024 * 1024;
	char	   *line = malloc(n + 100);

	(void) state;
	memcpy(line, head, sizeof(head) - 1);
	memset(line + sizeof(head) - 1, 'x', n);
	memcpy(line + sizeof(head) - 1 + n, "\"}", 3);
	assert_int_equal(read_text(line), BC_RPC_NOTIFICATION);
	assert_int_equal(json_string_length(message.params), n);
	free(line);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(messages_are_told_apart, forget),
		cmocka_unit_test_teardown(ids_that_are_not_ours_match_nothing, forget),
		cmocka_unit_test_teardown(what_is_no_message_is_junk, forget),
		cmocka_unit_test_teardown(a_message_is_found_behind_what_stands_before_it, forget),
		cmocka_unit_test_teardown(one_bad_character_loses_no_message, forget),
		cmocka_unit_test_teardown(the_id_of_a_request_is_sent_back_as_it_came, forget),
		cmocka_unit_test_teardown(messages_are_written_one_a_line, forget),
		cmocka_unit_test_teardown(a_message_of_10_megabytes_is_read, forget),
	};

	return cmocka_run_group_tests_name("jsonrpc", tests, NULL, NULL);
}
