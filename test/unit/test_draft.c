/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_draft.c
 *	  Text that an agent says again.
 */
#include "unit.h"

#include "runner/draft.h"

/*
 * Plays chunks: "|text" goes on in the message, "+text" begins another one,
 * "~text" begins one of another kind.  The text that is left, segments divided
 * by "/" in "shape".
 */
static void
play(const char *const *chunks, const char *expected)
{
	BcBuf		text = BC_BUF_INIT;
	BcBuf		shape = BC_BUF_INIT;
	BcDraft		draft;

	bc_buf_str(&text, "");
	bc_draft_reset(&draft, 0);
	for (; *chunks != NULL; chunks++)
	{
		size_t		from = text.len;

		if (**chunks != '|')
			assert_true(bc_draft_segment(&draft, from, **chunks == '~'));
		bc_buf_str(&text, *chunks + 1);
		(void) bc_draft_add(&draft, &text, from);
		assert_true(draft.n >= 1 && draft.segments[0].start == 0);
	}
	for (size_t i = 0; i < draft.n; i++)
	{
		size_t		end = i + 1 < draft.n ? draft.segments[i + 1].start : text.len;

		if (i > 0)
			bc_buf_str(&shape, "/");
		bc_buf_add(&shape, text.data + draft.segments[i].start, end - draft.segments[i].start);
	}
	assert_string_equal(shape.data, expected);
	bc_buf_free(&text);
	bc_buf_free(&shape);
}

#define PLAY(expected, ...) play((const char *const[]) {__VA_ARGS__, NULL}, expected)

static void
a_message_said_again_is_kept_once(void **state)
{
	(void) state;
	PLAY("Hello world", "|Hello ", "|wo", "+Hello ", "|wo", "|rld");
	PLAY("Hello world", "|Hello ", "|wo", "+Hello world");
	PLAY("Hello world", "|Hello wo", "+H", "|ello world");
	/* again and again */
	PLAY("Hello world", "|Hello ", "+Hello ", "+Hello ", "+Hello ", "|world");
	/* not as far as before */
	PLAY("Hello world", "|Hello wo", "+Hello", "+Hello wo", "|rld");
	PLAY("Hello world", "|Hello wo", "+Hel", "+He", "+Hello world");
}

static void
so_is_one_with_its_thoughts(void **state)
{
	(void) state;
	PLAY("I think/I say it", "|I think", "~I s", "+I think", "~I say it");
	PLAY("I think so/I say it", "|I th", "+I think so", "~I say it");
	/* the same words of another kind are others */
	PLAY("word/word", "|word", "~word");
	PLAY("I think/I s/I think/I other", "|I think", "~I s", "+I think", "~I other");
}

static void
within_a_message_it_takes_more(void **state)
{
	(void) state;
	PLAY("The quick brown fox jumps over the lazy dog", "|The quick brown", "| fox jumps over",
		 "|The quick brown", "| fox jumps over", "| the lazy dog");
	PLAY("haha hahaha", "|ha", "|ha ", "|ha", "|ha", "|ha");
	PLAY("\n1. this is one\n2. this is another\n\nend", "|\n", "|1. this is one", "|\n", "|2. this is another", "|\n", "|\n", "|end");
}

static void
what_is_no_repetition_stays(void **state)
{
	(void) state;
	PLAY("Hello world/Hello", "|Hello world", "+Hello");
	PLAY("Hello world/Hello moon", "|Hello world", "+Hello ", "|moon");
	PLAY("One./Two./One.", "|One.", "+Two.", "+One.");
	PLAY("", "|");
}

static void
segments_are_bounded(void **state)
{
	BcDraft		draft;

	(void) state;
	bc_draft_reset(&draft, 0);
	for (size_t i = 1; i < BC_DRAFT_SEGMENTS; i++)
		assert_true(bc_draft_segment(&draft, i, 0));
	assert_false(bc_draft_segment(&draft, 1000, 0));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_said_again_is_kept_once),
		cmocka_unit_test(so_is_one_with_its_thoughts),
		cmocka_unit_test(within_a_message_it_takes_more),
		cmocka_unit_test(what_is_no_repetition_stays),
		cmocka_unit_test(segments_are_bounded),
	};

	return cmocka_run_group_tests_name("draft", tests, NULL, NULL);
}
