/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_dcp.c
 *	  Marks of a plugin of opencode's are taken out, and nothing else is,
 *	  wherever the text is cut.
 */
#include "unit.h"

#include "runner/dcp.h"

static const struct
{
	const char *text;
	const char *expected;
}			cases[] = {
	/* marks */
	{"<dcp-message-id>m0001</dcp-message-id>", ""},
	{"Hello<dcp-message-id>m0042</dcp-message-id>", "Hello"},
	{"Hello <dcp-message-id>m0042</dcp-message-id>world", "Hello world"},
	{"a<dcp-message-id>m1</dcp-message-id>b<dcp-message-id>m2</dcp-message-id>c", "abc"},
	{"x<dcp-message-id>b7</dcp-message-id>", "x"},
	{"x<dcp-message-id>b1m0004</dcp-message-id>", "x"},
	{"x<dcp-message-id>BLOCKED</dcp-message-id>", "x"},
	{"x<dcp-message-id priority=\"low\">m0007</dcp-message-id>y", "xy"},
	{"x<dcp-message-id priority=\"very high\" tokens=\"8.7K\" type=\"tool:bash\">m0007</dcp-message-id>", "x"},
	{"x<dcp-message-id>\n m0007 \n</dcp-message-id>\n", "x\n"},
	{"W\xc3\xb6rter<dcp-message-id>m0003</dcp-message-id> \xe2\x82\xac", "W\xc3\xb6rter \xe2\x82\xac"},

	/* none */
	{"a < b", "a < b"},
	{"if (a<b && c>d)", "if (a<b && c>d)"},
	{"<div>m0001</div>", "<div>m0001</div>"},
	{"<dcp", "<dcp"},
	{"<dcpx>", "<dcpx>"},
	{"<<<<", "<<<<"},
	{"ends in <dcp-mess", "ends in <dcp-mess"},
	{"ends in <dcp-message-id>m0001</dcp-message-i", "ends in <dcp-message-id>m0001</dcp-message-i"},
	{"The tag `<dcp-message-id>` numbers messages.", "The tag `<dcp-message-id>` numbers messages."},
	{"<dcp-message-id>mNNNN</dcp-message-id>", "<dcp-message-id>mNNNN</dcp-message-id>"},
	{"<dcp-message-id></dcp-message-id>", "<dcp-message-id></dcp-message-id>"},
	{"<dcp-message-id>0001</dcp-message-id>", "<dcp-message-id>0001</dcp-message-id>"},
	{"<dcp-message-id-extra>m0008</dcp-message-id-extra>", "<dcp-message-id-extra>m0008</dcp-message-id-extra>"},
	{"<dcp-message-id\npriority=\"low\">m0008</dcp-message-id>", "<dcp-message-id\npriority=\"low\">m0008</dcp-message-id>"},
	{"<DCP-message-id>m0008</DCP-message-id>", "<DCP-message-id>m0008</DCP-message-id>"},

	/* a mention does not eat what is between it and a mark */
	{"`<dcp-message-id>` is kept<dcp-message-id>m0009</dcp-message-id>", "`<dcp-message-id>` is kept"},
	{"<dcp-message-id>m0001<dcp-message-id>m0002</dcp-message-id>", "<dcp-message-id>m0001"},
	{"<dcp-message-id>m0001</<dcp-message-id>m0002</dcp-message-id>!", "<dcp-message-id>m0001</!"},
	{"<dcp-message-id a<dcp-message-id>m0002</dcp-message-id>!", "<dcp-message-id a!"},
	{"<<dcp-message-id>m0002</dcp-message-id>", "<"},
};

/* The text in pieces of "size" bytes, the first of "first" */
static void
assert_taken_out(size_t i, size_t first, size_t size)
{
	const char *text = cases[i].text;
	size_t		len = strlen(text);
	BcDcp		dcp = BC_DCP_INIT;
	BcBuf		out = BC_BUF_INIT;

	bc_buf_str(&out, "");
	for (size_t at = 0, n = first; at < len; at += n, n = size)
	{
		if (n > len - at)
			n = len - at;
		bc_dcp_feed(&dcp, text + at, n, &out);
	}
	bc_dcp_end(&dcp, &out);
	bc_dcp_free(&dcp);
	assert_string_equal(out.data, cases[i].expected);
	bc_buf_free(&out);
}

static void
marks_are_taken_out_wherever_the_text_is_cut(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		size_t		len = strlen(cases[i].text);

		for (size_t cut = 1; cut <= len; cut++)
		{
			assert_taken_out(i, cut, len);
			assert_taken_out(i, cut, cut);
		}
	}
}

static void
nothing_is_held_back_that_can_be_no_mark(void **state)
{
	static const char *const passed[] = {"a", "<x", "<dcp-message-idx"};
	BcDcp		dcp = BC_DCP_INIT;
	BcBuf		out = BC_BUF_INIT;

	(void) state;
	for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++)
	{
		bc_buf_clear(&out);
		bc_dcp_feed(&dcp, passed[i], strlen(passed[i]), &out);
		assert_string_equal(out.data, passed[i]);
	}
	bc_buf_clear(&out);
	bc_dcp_feed(&dcp, "text <dcp-message", 17, &out);
	assert_string_equal(out.data, "text ");
	bc_dcp_free(&dcp);
	bc_buf_free(&out);
}

static void
what_may_be_a_mark_for_ever_is_given_up(void **state)
{
	static const char *const begun[] = {"<dcp-message-id ", "<dcp-message-id>"};
	char		more[1000];

	(void) state;
	memset(more, '1', sizeof(more));
	for (size_t i = 0; i < 2; i++)
	{
		BcDcp		dcp = BC_DCP_INIT;
		BcBuf		out = BC_BUF_INIT;

		bc_dcp_feed(&dcp, begun[i], strlen(begun[i]), &out);
		bc_dcp_feed(&dcp, more, sizeof(more), &out);
		assert_int_equal(out.len, strlen(begun[i]) + sizeof(more));
		assert_int_equal(dcp.held.len, 0);
		bc_dcp_free(&dcp);
		bc_buf_free(&out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(marks_are_taken_out_wherever_the_text_is_cut),
		cmocka_unit_test(nothing_is_held_back_that_can_be_no_mark),
		cmocka_unit_test(what_may_be_a_mark_for_ever_is_given_up),
	};

	return cmocka_run_group_tests_name("dcp", tests, NULL, NULL);
}
