/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_patch_apply.c
 *	  Applies one file's patch to a content in memory.  See git_patch_read.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/git_patch_read.h"

#define CONTEXT 3				/* lines, as in every patch of ours */

static const char no_memory[] = "out of memory";

/* Lines with their newline; the last one may lack it. */
typedef struct Lines
{
	BcSpan	   *items;
	size_t		count;
} Lines;

/* The two forms of a hunk, and what git asks of where it fits. */
typedef struct Image
{
	Lines		old;
	Lines		new;
	bool		at_begin;
	bool		at_end;
} Image;

static bool
split(const BcSpan *content, Lines *lines)
{
	size_t		count = 0;
	const char *at = content->text;
	const char *end = content->text + content->length;

	for (const char *s = at; s < end && (s = memchr(s, '\n', (size_t) (end - s))) != NULL; s++)
		count++;
	lines->items = malloc((count + 1) * sizeof(BcSpan));
	lines->count = 0;
	if (lines->items == NULL)
		return false;
	while (at < end)
	{
		const char *newline = memchr(at, '\n', (size_t) (end - at));
		const char *next = newline != NULL ? newline + 1 : end;

		lines->items[lines->count++] = (BcSpan) {at, (size_t) (next - at)};
		at = next;
	}
	return true;
}

static bool
read_image(const BcHunk *hunk, Image *image)
{
	const char *at = hunk->body.text;
	const char *end = at + hunk->body.length;
	size_t		leading = 0;	/* lines of context before and behind the change */
	size_t		trailing = 0;
	bool		changed = false;
	char		last = 0;

	image->old = (Lines) {malloc((hunk->old_lines + 1) * sizeof(BcSpan)), 0};
	image->new = (Lines) {malloc((hunk->new_lines + 1) * sizeof(BcSpan)), 0};
	if (image->old.items == NULL || image->new.items == NULL)
		return false;
	while (at < end)
	{
		const char *newline = memchr(at, '\n', (size_t) (end - at));
		const char *next = newline != NULL ? newline + 1 : end;
		/* an empty line is a context line whose blank was lost */
		char		kind = *at == '\n' ? ' ' : *at;
		BcSpan		line = {*at == '\n' ? at : at + 1, 0};

		line.length = (size_t) (next - line.text);
		if (kind == '\\')
		{
			/* "\ No newline at end of file" is about the line before it */
			if ((last == ' ' || last == '-') && image->old.count > 0)
				image->old.items[image->old.count - 1].length--;
			if ((last == ' ' || last == '+') && image->new.count > 0)
				image->new.items[image->new.count - 1].length--;
			last = 0;
			at = next;
			continue;
		}
		if (kind != '+')
			image->old.items[image->old.count++] = line;
		if (kind != '-')
			image->new.items[image->new.count++] = line;
		changed = changed || kind != ' ';
		leading += !changed;
		trailing = kind == ' ' ? trailing + 1 : 0;
		last = kind;
		at = next;
	}
	/* less context than asked for: the file began, or ended, there */
	image->at_begin = hunk->old_start <= 1 && leading < CONTEXT;
	image->at_end = trailing == 0;
	return true;
}

static bool
matches(const Lines *lines, size_t at, const Image *image)
{
	if (at + image->old.count > lines->count || (image->at_begin && at != 0) ||
		(image->at_end && at + image->old.count != lines->count))
		return false;
	for (size_t i = 0; i < image->old.count; i++)
	{
		const BcSpan *a = &lines->items[at + i];
		const BcSpan *b = &image->old.items[i];

		if (a->length != b->length || memcmp(a->text, b->text, a->length) != 0)
			return false;
	}
	return true;
}

/* Nearest place at or after "from" where the hunk fits; later ones first. */
static bool
find(const Lines *lines, const Image *image, size_t from, size_t expected, size_t *found)
{
	if (expected < from)
		expected = from;
	if (expected > lines->count)
		expected = lines->count;
	for (size_t distance = 0; distance <= lines->count; distance++)
	{
		if (expected + distance <= lines->count && matches(lines, expected + distance, image))
		{
			*found = expected + distance;
			return true;
		}
		if (distance > 0 && distance <= expected - from &&
			matches(lines, expected - distance, image))
		{
			*found = expected - distance;
			return true;
		}
	}
	return false;
}

static void
put(FILE *out, const Lines *lines, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		fwrite(lines->items[i].text, 1, lines->items[i].length, out);
}

static const char *
apply_hunks(const BcFilePatch *file, const Lines *lines, FILE *out, const BcHunk **failed)
{
	size_t		done = 0;		/* lines of the old content that are behind us */
	long		drift = 0;		/* by how much the last hunk had moved */

	for (size_t i = 0; i < file->nhunks; i++)
	{
		const BcHunk *hunk = &file->hunks[i];
		Image		image = {0};
		/* a hunk without old lines names the line before it */
		long		expected = (long) hunk->old_start - (hunk->old_lines > 0) + drift;
		size_t		found = 0;
		const char *error = NULL;

		if (!read_image(hunk, &image))
			error = no_memory;
		else if (!find(lines, &image, done, expected > 0 ? (size_t) expected : 0, &found))
		{
			error = "the hunk does not fit";
			*failed = hunk;
		}
		else
		{
			put(out, lines, done, found);
			put(out, &image.new, 0, image.new.count);
			drift += (long) found - expected;
			done = found + image.old.count;
		}
		free(image.old.items);
		free(image.new.items);
		if (error != NULL)
			return error;
	}
	put(out, lines, done, lines->count);
	return NULL;
}

/*
 * libgit2 decodes and applies a binary patch, to a file of a plain name in a
 * tree of its own.  It must fit exactly, so it can as well be read this way.
 */
static const char *
apply_binary(const BcFilePatch *file, git_repository *repo, const BcSpan *content, BcBytes *out)
{
	git_treebuilder *builder = NULL;
	git_tree   *tree = NULL;
	git_index  *index = NULL;
	git_diff   *diff = NULL;
	git_blob   *blob = NULL;
	const git_index_entry *entry;
	git_oid		oid;
	char	   *text = NULL;
	size_t		size;
	FILE	   *patch;
	char		hex[GIT_OID_HEXSZ + 1];
	bool		ok;

	if (strlen(file->old_oid) != GIT_OID_HEXSZ || strlen(file->new_oid) != GIT_OID_HEXSZ)
		return "a binary patch needs an index line with full ids";
	if (git_odb_hash(&oid, content->text, content->length, GIT_OBJECT_BLOB) != 0 ||
		(!file->is_new && strcmp(git_oid_tostr(hex, sizeof(hex), &oid), file->old_oid) != 0))
		return "the file is not the one the binary patch was made for";
	if (file->is_delete)
	{
		*out = (BcBytes) {calloc(1, 1), 0};
		return out->data != NULL ? NULL : no_memory;
	}
	patch = open_memstream(&text, &size);
	if (patch == NULL)
		return no_memory;
	fprintf(patch, "diff --git a/f b/f\n%sindex %s..%s%s\n", file->is_new ? "new file mode 100644\n" : "",
			file->old_oid, file->new_oid, file->is_new ? "" : " 100644");
	fwrite(file->binary.text, 1, file->binary.length, patch);
	ok = fclose(patch) == 0 && git_treebuilder_new(&builder, repo, NULL) == 0;
	if (ok && !file->is_new)
		ok = git_blob_create_from_buffer(&oid, repo, content->text, content->length) == 0 &&
			git_treebuilder_insert(NULL, builder, "f", &oid, GIT_FILEMODE_BLOB) == 0;
	ok = ok && git_treebuilder_write(&oid, builder) == 0 &&
		git_tree_lookup(&tree, repo, &oid) == 0 &&
		git_diff_from_buffer(&diff, text, size) == 0 &&
		git_apply_to_tree(&index, repo, tree, diff, NULL) == 0 &&
		(entry = git_index_get_bypath(index, "f", 0)) != NULL &&
		git_blob_lookup(&blob, repo, &entry->id) == 0;
	if (ok)
	{
		out->length = (size_t) git_blob_rawsize(blob);
		out->data = malloc(out->length + 1);
		if (out->data != NULL)
			memcpy(out->data, git_blob_rawcontent(blob), out->length);
		ok = out->data != NULL &&
			strcmp(git_oid_tostr(hex, sizeof(hex), git_blob_id(blob)), file->new_oid) == 0;
		if (!ok)
			free(out->data);
	}
	git_blob_free(blob);
	git_diff_free(diff);
	git_index_free(index);
	git_tree_free(tree);
	git_treebuilder_free(builder);
	free(text);
	return ok ? NULL : "the binary patch is damaged";
}

const char *
bc_git_patch_apply(const BcFilePatch *file, git_repository *repo, const BcSpan *content,
				   BcBytes *out, const BcHunk **failed)
{
	Lines		lines;
	FILE	   *stream;
	const char *error;

	*out = (BcBytes) {0};
	*failed = NULL;
	if (file->binary.length > 0)
		return apply_binary(file, repo, content, out);
	if (!split(content, &lines))
		return no_memory;
	stream = open_memstream(&out->data, &out->length);
	if (stream == NULL)
		error = no_memory;
	else
	{
		error = apply_hunks(file, &lines, stream, failed);
		if (fclose(stream) != 0)
			error = no_memory;
	}
	free(lines.items);
	if (error == NULL && file->is_delete && out->length != 0)
		error = "the file has more content than the patch deletes";
	if (error != NULL)
	{
		free(out->data);
		*out = (BcBytes) {0};
	}
	return error;
}
