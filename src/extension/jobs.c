/* SPDX-License-Identifier: PostgreSQL */
/*
 * jobs.c
 *	  A job is a runner with one order, whose result goes back to one row.
 */
#include "postgres.h"

#include "extension/guc.h"
#include "extension/jobs.h"
#include "extension/runners.h"
#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define CRASHED \
	"{\"ok\":false,\"reason\":\"runner_crashed\",\"message\":\"the runner ended unexpectedly\"}"
#define NOT_STARTED \
	"{\"ok\":false,\"reason\":\"runner_start_failed\"," \
	"\"message\":\"could not start a runner\"}"

typedef struct BcJob
{
	dlist_node	node;
	MemoryContext context;
	int64		job_id;
	BcRunner   *runner;			/* NULL: it has ended */
	TimestampTz due;			/* deadline of the runner, then of the next try to report */
	char	   *result;
} BcJob;

static dlist_head jobs;
static int	njobs;
static int	nended;

/* What it came to can't be stored; the next try stores that fact. */
static void
make_up(BcJob *job)
{
	pfree(job->result);
	job->result = MemoryContextStrdup(job->context,
									  bc_runners_made_up(false, NULL, "internal_error",
														 psprintf("could not store the result: %s", bc_db_error())));
}

static void
report(BcJob *job)
{
	BcDbStatus	status = bc_db_job_done(job->job_id, job->result);

	if (status == BC_DB_OK)
	{
		dlist_delete(&job->node);
		njobs--;
		nended++;
		MemoryContextDelete(job->context);
		return;
	}
	if (status == BC_DB_FAILED)
		make_up(job);
	job->due = bc_db_retry_at(status);
}

static void
ended(BcJob *job, const char *result)
{
	job->runner = NULL;
	job->result = MemoryContextStrdup(job->context, result);
	report(job);
}

static void
on_message(void *owner, BcRunner *runner, BcFrameType type, const StringInfoData *payload)
{
	if (type != BC_FRAME_RESULT)
		return;
	bc_runners_retire(runner);
	ended(owner, payload->data);
}

static void
on_gone(void *owner, BcRunner *runner, const char *why)
{
	ended(owner, CRASHED);
}

static const BcRunnerOwner job_owner = {on_message, on_gone};

void
bc_jobs_init(void)
{
	dlist_init(&jobs);
}

void
bc_jobs_start(const BcDbAction *action)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "boocoder job",
												  ALLOCSET_SMALL_SIZES);
	BcJob	   *job = MemoryContextAllocZero(context, sizeof(BcJob));

	job->context = context;
	job->job_id = action->job_id;
	dlist_push_tail(&jobs, &job->node);
	njobs++;
	job->runner = bc_runners_order(&job_owner, job, action->git_prefix, action->prepare);
	if (job->runner == NULL)
		ended(job, NOT_STARTED);
	else
		job->due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), bc_git_timeout_ms);
}

TimestampTz
bc_jobs_tick(TimestampTz now)
{
	dlist_mutable_iter iter;
	TimestampTz next = 0;

	dlist_foreach_modify(iter, &jobs)
	{
		BcJob	   *job = dlist_container(BcJob, node, iter.cur);

		if (job->due <= now && job->runner != NULL)
		{
			bc_runners_kill(job->runner);
			job->due = TimestampTzPlusMilliseconds(now, bc_git_timeout_ms);
		}
		else if (job->due <= now)
			report(job);
	}
	dlist_foreach_modify(iter, &jobs)
	{
		BcJob	   *job = dlist_container(BcJob, node, iter.cur);

		if (next == 0 || job->due < next)
			next = job->due;
	}
	return next;
}

int
bc_jobs_count(void)
{
	return njobs;
}

int
bc_jobs_ended(void)
{
	int			result = nended;

	nended = 0;
	return result;
}
