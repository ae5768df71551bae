/* SPDX-License-Identifier: PostgreSQL */
/*
 * git_write.c
 *	  The transaction on a checkout.  See git_write.h.
 */
#include "runner/git_write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner/git_place.h"

#define MAX_EMPTIED 32			/* directories removed above one file */

/* What was done for one write, to be undone in reverse order. */
typedef struct Done
{
	bool		moved_out;		/* the old file is in the staging directory */
	bool		exchanged;		/* there under the name that the new one had */
	bool		moved_in;		/* the new one is at its place */
	unsigned	made;			/* directories made above it */
	unsigned	emptied;		/* directories removed above it */
	mode_t		modes[MAX_EMPTIED]; /* of those, innermost first */
} Done;

typedef struct Transaction
{
	int			root;
	int			staging;
	const BcWrite *writes;
	size_t		nwrites;
	Done	   *done;
} Transaction;

static void
staged_name(char *out, size_t size, size_t number, const char *suffix)
{
	snprintf(out, size, "%zu%s", number, suffix);
}

static bool
same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
		a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static bool
stage(Transaction *transaction, size_t number)
{
	const BcWrite *write_ = &transaction->writes[number];
	bool		exec = write_->mode == 0100755;
	char		name[32];
	size_t		at = 0;
	int			fd;
	bool		ok;

	staged_name(name, sizeof(name), number, "");
	if (write_->mode == 0120000)
	{
		char		target[PATH_MAX];

		if (write_->length >= sizeof(target))
		{
			errno = ENAMETOOLONG;
			return false;
		}
		memcpy(target, write_->data, write_->length);
		target[write_->length] = '\0';
		return symlinkat(target, transaction->staging, name) == 0;
	}
	fd = openat(transaction->staging, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
				exec ? 0777 : 0666);
	if (fd < 0)
		return false;
	while (at < write_->length)
	{
		ssize_t		put = write(fd, write_->data + at, write_->length - at);

		if (put < 0 && errno != EINTR)
			break;
		at += put > 0 ? (size_t) put : 0;
	}
	ok = at == write_->length;
	if (ok && write_->seen.st_nlink > 0 && S_ISREG(write_->seen.st_mode))
	{
		/* as the old file had them; who may read it may execute it */
		mode_t		mode = write_->seen.st_mode & 0777;

		if (exec)
			mode |= (mode & 0444) >> 2;
		else
			mode &= ~(mode_t) 0111;
		ok = fchmod(fd, mode) == 0;
	}
	ok = ok && fsync(fd) == 0;
	return close(fd) == 0 && ok;
}

/* Removes directories above "path" that became empty, never the checkout. */
static void
remove_emptied(Transaction *transaction, const char *path, Done *done)
{
	char		dir[PATH_MAX];
	char	   *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	while (done->emptied < MAX_EMPTIED && (slash = strrchr(dir, '/')) != NULL)
	{
		const char *name;
		struct stat st;
		int			parent;
		bool		gone;

		*slash = '\0';
		parent = bc_git_place_parent(transaction->root, dir, 0, &name, NULL);
		if (parent < 0)
			return;
		gone = fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			unlinkat(parent, name, AT_REMOVEDIR) == 0;
		close(parent);
		if (!gone)
			return;
		done->modes[done->emptied++] = st.st_mode & 07777;
	}
}

static bool
move_out(Transaction *transaction, size_t number)
{
	const BcWrite *write_ = &transaction->writes[number];
	Done	   *done = &transaction->done[number];
	const char *name;
	char		old[32];
	struct stat st;
	int			parent = bc_git_place_parent(transaction->root, write_->path, 0, &name, NULL);
	int			saved;

	staged_name(old, sizeof(old), number, ".old");
	if (parent < 0)
		return false;
	done->moved_out = renameat(parent, name, transaction->staging, old) == 0;
	saved = errno;
	close(parent);
	errno = saved;
	if (!done->moved_out)
		return false;
	if (fstatat(transaction->staging, old, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		!same_file(&st, &write_->seen))
	{
		errno = EEXIST;
		return false;
	}
	remove_emptied(transaction, write_->path, done);
	return true;
}

/* Moves the staged file to a name that must be free. */
static int
rename_to_free(int from, const char *name, int to, const char *free_name)
{
	if (renameat2(from, name, to, free_name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	/* a file system that does not know that flag; link() does not replace */
	return linkat(from, name, to, free_name, 0);
}

static bool
move_in(Transaction *transaction, size_t number)
{
	const BcWrite *write_ = &transaction->writes[number];
	Done	   *done = &transaction->done[number];
	bool		replace = write_->seen.st_nlink > 0;
	const char *name;
	char		new[32];
	char		old[32];
	struct stat st;
	int			parent = bc_git_place_parent(transaction->root, write_->path, 0777, &name,
											 &done->made);
	int			status = -1;
	int			saved;

	staged_name(new, sizeof(new), number, "");
	staged_name(old, sizeof(old), number, ".old");
	if (parent < 0)
		return false;
	if (!replace)
		status = rename_to_free(transaction->staging, new, parent, name);
	else if (renameat2(transaction->staging, new, parent, name, RENAME_EXCHANGE) == 0)
	{
		done->moved_out = done->exchanged = true;
		status = 0;
	}
	else if ((errno == EINVAL || errno == ENOSYS) &&
			 linkat(parent, name, transaction->staging, old, 0) == 0)
	{
		/* a file system that cannot exchange */
		done->moved_out = true;
		status = renameat(transaction->staging, new, parent, name);
	}
	done->moved_in = status == 0;
	if (status == 0 && replace &&
		(fstatat(transaction->staging, done->exchanged ? new : old, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		 !same_file(&st, &write_->seen)))
	{
		errno = EEXIST;
		status = -1;
	}
	saved = errno;
	if (status == 0)
		fsync(parent);
	close(parent);
	errno = saved;
	return status == 0;
}

/* False when the old file could not be moved back. */
static bool
undo(Transaction *transaction, size_t number)
{
	const BcWrite *write_ = &transaction->writes[number];
	Done	   *done = &transaction->done[number];
	char		dir[PATH_MAX];
	char		old[32];
	const char *name;
	int			parent;
	bool		ok = !done->moved_out;

	staged_name(old, sizeof(old), number, done->exchanged ? "" : ".old");

	/* directories that were removed: outermost first */
	for (unsigned i = done->emptied; i > 0; i--)
	{
		snprintf(dir, sizeof(dir), "%s", write_->path);
		for (unsigned up = 0; up < i; up++)
			*strrchr(dir, '/') = '\0';
		parent = bc_git_place_parent(transaction->root, dir, 0, &name, NULL);
		if (parent >= 0)
		{
			/* with its mode if that can be had: it is there again in any case */
			if (mkdirat(parent, name, 0777) == 0 &&
				fchmodat(parent, name, done->modes[i - 1], 0) < 0)
				errno = 0;
			close(parent);
		}
	}
	parent = bc_git_place_parent(transaction->root, write_->path, 0, &name, NULL);
	if (parent >= 0)
	{
		if (done->moved_out)
			ok = renameat(transaction->staging, old, parent, name) == 0;
		else if (done->moved_in)
			unlinkat(parent, name, 0);
		close(parent);
	}
	snprintf(dir, sizeof(dir), "%s", write_->path);
	for (unsigned i = 0; i < done->made; i++)
	{
		*strrchr(dir, '/') = '\0';
		parent = bc_git_place_parent(transaction->root, dir, 0, &name, NULL);
		if (parent >= 0)
		{
			unlinkat(parent, name, AT_REMOVEDIR);
			close(parent);
		}
	}
	return ok;
}

/*
 * Additions were made after all removals, so they go first.  What cannot be
 * moved back is not thrown away with the staging directory.
 */
static void
undo_all(Transaction *transaction, const char *staging, BcGitProblem *problem)
{
	char		kept[NAME_MAX + 1];
	bool		ok = true;

	for (int pass = 0; pass < 2; pass++)
	{
		for (size_t i = transaction->nwrites; i > 0; i--)
		{
			if ((transaction->writes[i - 1].mode != 0) == (pass == 0))
				ok = undo(transaction, i - 1) && ok;
		}
	}
	if (ok)
		return;
	snprintf(kept, sizeof(kept), "%s.kept-%ld", staging, (long) getpid());
	if (renameat(transaction->root, staging, transaction->root, kept) == 0)
		bc_git_problem_hint(problem, "Some files could not be moved back; they are in \"%s\" "
							"at the top of the project.", kept);
}

static bool
run(Transaction *transaction, size_t *failed)
{
	const size_t n = transaction->nwrites;

	for (*failed = 0; *failed < n; (*failed)++)
	{
		if (transaction->writes[*failed].mode != 0 && !stage(transaction, *failed))
			return false;
	}
	/* removals first: a file may make way for a directory of its name */
	for (*failed = 0; *failed < n; (*failed)++)
	{
		if (transaction->writes[*failed].mode == 0 && !move_out(transaction, *failed))
			return false;
	}
	for (*failed = 0; *failed < n; (*failed)++)
	{
		if (transaction->writes[*failed].mode != 0 && !move_in(transaction, *failed))
			return false;
	}
	return true;
}

static void
describe(const BcWrite *write_, BcGitProblem *problem)
{
	switch (errno)
	{
		case EEXIST:
		case ENOENT:
		case ENOTEMPTY:
			bc_git_problem_errno(problem, BC_GIT_CONFLICT,
								 "\"%s\" changed in the checkout meanwhile, or something is in its way",
								 write_->path);
			return;
		case ELOOP:
		case ENOTDIR:
			bc_git_problem_errno(problem, BC_GIT_UNSAFE_PATH,
								 "the path \"%s\" goes through something that is no directory",
								 write_->path);
			return;
		default:
			bc_git_problem_errno(problem, BC_GIT_GIT_ERROR, "\"%s\" cannot be written", write_->path);
			bc_git_problem_hint(problem, "Nothing was changed.  The database server's user must be "
								"able to write to the project's checkout, and there must be room.");
	}
}

bool
bc_git_write(int root, const char *staging, const BcWrite *writes, size_t nwrites,
			 size_t *failed, BcGitProblem *problem)
{
	Transaction transaction = {.root = root, .staging = -1, .writes = writes, .nwrites = nwrites};
	BcGitProblem leftover;
	bool		ok;

	*failed = 0;
	if (!bc_git_place_remove(root, staging, problem))
		return false;
	if (nwrites == 0)
		return true;
	transaction.done = calloc(nwrites, sizeof(Done));
	if (transaction.done == NULL)
		return bc_git_problem(problem, BC_GIT_GIT_ERROR, "out of memory");
	if (mkdirat(root, staging, 0700) != 0 ||
		(transaction.staging = bc_git_place_dir(root, staging)) < 0)
	{
		describe(&writes[0], problem);
		free(transaction.done);
		return false;
	}
	ok = run(&transaction, failed);
	if (!ok)
	{
		describe(&writes[*failed], problem);
		undo_all(&transaction, staging, problem);
	}
	close(transaction.staging);
	bc_git_place_remove(root, staging, &leftover);
	free(transaction.done);
	return ok;
}
