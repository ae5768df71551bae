/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_patch_write.c
 *	  Writes patches.  See git_patch_write.h.
 */
#include "runner/git_patch_write.h"

#include <string.h>

#include "runner/git_text.h"

#define BINARY_LINE 52			/* bytes in a line of a binary patch */

typedef struct Content
{
	git_blob   *blob;			/* NULL: no file */
	const char *data;
	size_t		length;
} Content;

static bool
load(git_repository *repo, const BcPatchSide *side, Content *content, BcGitProblem *problem)
{
	if (side->mode == 0)
		return true;
	if (git_blob_lookup(&content->blob, repo, &side->oid) != 0)
		return bc_git_problem_git(problem, "the content of \"%s\" cannot be read", side->path);
	content->data = git_blob_rawcontent(content->blob);
	content->length = (size_t) git_blob_rawsize(content->blob);
	if (content->data == NULL)
		content->data = "";
	return true;
}

static void
write_name(FILE *out, const char *label, const char *prefix, const BcPatchSide *side)
{
	fputs(label, out);
	if (side->mode == 0)
		fputs("/dev/null", out);
	else
	{
		bc_git_quote(out, prefix, side->path);
		/* the name ends at the tab, not at its own blanks */
		if (strpbrk(side->path, " \t") != NULL)
			fputc('\t', out);
	}
	fputc('\n', out);
}

static void
write_header(FILE *out, const BcPatchSide *old, const BcPatchSide *new, unsigned similarity)
{
	char		hex[2][GIT_OID_HEXSZ + 1];
	bool		same_mode = old->mode == new->mode;
	bool		renamed = old->mode != 0 && new->mode != 0 && strcmp(old->path, new->path) != 0;

	fputs("diff --git ", out);
	bc_git_quote(out, "a/", old->path);
	fputc(' ', out);
	bc_git_quote(out, "b/", new->path);
	fputc('\n', out);
	if (old->mode == 0)
		fprintf(out, "new file mode %06o\n", new->mode);
	else if (new->mode == 0)
		fprintf(out, "deleted file mode %06o\n", old->mode);
	else if (!same_mode)
		fprintf(out, "old mode %06o\nnew mode %06o\n", old->mode, new->mode);
	if (renamed)
	{
		fprintf(out, "similarity index %u%%\nrename from ", similarity);
		bc_git_quote(out, "", old->path);
		fputs("\nrename to ", out);
		bc_git_quote(out, "", new->path);
		fputc('\n', out);
	}
	if (git_oid_equal(&old->oid, &new->oid))
		return;
	fprintf(out, "index %s..%s", git_oid_tostr(hex[0], sizeof(hex[0]), &old->oid),
			git_oid_tostr(hex[1], sizeof(hex[1]), &new->oid));
	if (same_mode)
		fprintf(out, " %06o", new->mode);
	fputc('\n', out);
}

static void
write_hunk(FILE *out, git_patch *patch, size_t number, const git_diff_hunk *hunk, size_t lines)
{
	const char *context = memmem(hunk->header + 2, hunk->header_len - 2, "@@", 2);
	size_t		length;

	fprintf(out, "@@ -%d", hunk->old_start);
	if (hunk->old_lines != 1)
		fprintf(out, ",%d", hunk->old_lines);
	fprintf(out, " +%d", hunk->new_start);
	if (hunk->new_lines != 1)
		fprintf(out, ",%d", hunk->new_lines);
	fputs(" @@", out);
	if (context != NULL)
	{
		/* the name of the function: cut anywhere by libgit2 */
		context += 2;
		length = bc_git_utf8_prefix(context, (size_t) (hunk->header + hunk->header_len - context));
		while (length > 0 && (context[length - 1] == '\n' || context[length - 1] == '\r'))
			length--;
		fwrite(context, 1, length, out);
	}
	fputc('\n', out);
	for (size_t i = 0; i < lines; i++)
	{
		const git_diff_line *line;

		if (git_patch_get_line_in_hunk(&line, patch, number, i) != 0 ||
			(line->origin != GIT_DIFF_LINE_CONTEXT && line->origin != GIT_DIFF_LINE_ADDITION &&
			 line->origin != GIT_DIFF_LINE_DELETION))
			continue;
		fputc(line->origin, out);
		fwrite(line->content, 1, line->content_len, out);
		if (line->content_len == 0 || line->content[line->content_len - 1] != '\n')
			fputs("\n\\ No newline at end of file\n", out);
	}
}

static bool
write_text(FILE *out, const BcPatchSide *old, const BcPatchSide *new, const Content *from,
		   const Content *to, BcPatchStats *stats, BcGitProblem *problem)
{
	git_diff_options options;
	git_patch  *patch = NULL;
	size_t		additions = 0;
	size_t		deletions = 0;
	bool		ok;

	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	options.flags = GIT_DIFF_FORCE_TEXT;
	ok = git_patch_from_buffers(&patch, from->data, from->length, NULL, to->data, to->length,
								NULL, &options) == 0 &&
		git_patch_line_stats(NULL, &additions, &deletions, patch) == 0;
	if (ok && git_patch_num_hunks(patch) > 0)
	{
		write_name(out, "--- ", "a/", old);
		write_name(out, "+++ ", "b/", new);
	}
	for (size_t i = 0; ok && i < git_patch_num_hunks(patch); i++)
	{
		const git_diff_hunk *hunk;
		size_t		lines;

		ok = git_patch_get_hunk(&hunk, &lines, patch, i) == 0;
		if (ok)
			write_hunk(out, patch, i, hunk, lines);
	}
	git_patch_free(patch);
	stats->additions += additions;
	stats->deletions += deletions;
	return ok || bc_git_problem_git(problem, "the difference of \"%s\" cannot be computed", new->path);
}

static void
write_base85(FILE *out, const unsigned char *data, size_t length)
{
	static const char digits[] =
		"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

	while (length > 0)
	{
		size_t		line = length < BINARY_LINE ? length : BINARY_LINE;

		fputc(line <= 26 ? (int) ('A' + line - 1) : (int) ('a' + line - 27), out);
		for (size_t at = 0; at < line; at += 4)
		{
			uint32_t	word = 0;
			char		group[5];

			for (size_t i = 0; i < 4; i++)
				word = word << 8 | (at + i < line ? data[at + i] : 0);
			for (int i = 4; i >= 0; i--)
			{
				group[i] = digits[word % 85];
				word /= 85;
			}
			fwrite(group, 1, sizeof(group), out);
		}
		fputc('\n', out);
		data += line;
		length -= line;
	}
	fputc('\n', out);
}

static int
binary_found(const git_diff_delta *delta, const git_diff_binary *binary, void *payload)
{
	FILE	   *out = payload;
	const git_diff_binary_file *files[] = {&binary->new_file, &binary->old_file};

	(void) delta;
	fputs("GIT binary patch\n", out);
	for (int i = 0; i < 2; i++)
	{
		fprintf(out, "%s %zu\n", files[i]->type == GIT_DIFF_BINARY_DELTA ? "delta" : "literal",
				files[i]->inflatedlen);
		write_base85(out, (const unsigned char *) files[i]->data, files[i]->datalen);
	}
	return 0;
}

static bool
write_binary(FILE *out, const BcPatchSide *new, const Content *from, const Content *to,
			 BcGitProblem *problem)
{
	git_diff_options options;

	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	options.flags = GIT_DIFF_FORCE_BINARY | GIT_DIFF_SHOW_BINARY;
	if (git_diff_buffers(from->data, from->length, NULL, to->data, to->length, NULL, &options,
						 NULL, binary_found, NULL, NULL, out) == 0)
		return true;
	return bc_git_problem_git(problem, "the difference of \"%s\" cannot be computed", new->path);
}

static bool
write_one(FILE *out, git_repository *repo, const BcPatchSide *old, const BcPatchSide *new,
		  unsigned similarity, BcPatchStats *stats, BcGitProblem *problem)
{
	Content		from = {0};
	Content		to = {0};
	bool		ok;

	write_header(out, old, new, similarity);
	if (git_oid_equal(&old->oid, &new->oid))
		return true;
	ok = load(repo, old, &from, problem) && load(repo, new, &to, problem);
	if (ok && bc_git_is_text(from.data, from.length) && bc_git_is_text(to.data, to.length))
		ok = write_text(out, old, new, &from, &to, stats, problem);
	else if (ok)
	{
		stats->binary = true;
		ok = write_binary(out, new, &from, &to, problem);
	}
	git_blob_free(from.blob);
	git_blob_free(to.blob);
	return ok;
}

bool
bc_git_patch_write(FILE *out, git_repository *repo, const BcPatchSide *old,
				   const BcPatchSide *new, unsigned similarity, BcPatchStats *stats,
				   BcGitProblem *problem)
{
	BcPatchSide none = {0};
	const unsigned type = 0170000;

	if (old->mode == 0 || new->mode == 0 || (old->mode & type) == (new->mode & type))
		return write_one(out, repo, old, new, similarity, stats, problem);
	none.path = old->path;
	if (!write_one(out, repo, old, &none, 0, stats, problem))
		return false;
	none.path = new->path;
	return write_one(out, repo, &none, new, 0, stats, problem);
}
