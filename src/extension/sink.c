/* SPDX-License-Identifier: PostgreSQL */
/*
 * sink.c
 *	  Batching of events on their way to the database.
 *
 * A batch is limited in bytes, so that no transaction gets old, and in age,
 * so that a reader sees events soon.  How many bytes those are depends on the
 * machine and on what else it does: batches get smaller while they take long.
 */
#include "postgres.h"

#include "extension/db.h"
#include "extension/sink.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define BATCH_BYTES (128 * 1024)
#define MIN_BATCH_BYTES (8 * 1024)
#define TARGET_US 10000
#define BATCH_ITEMS 256
#define MAX_AGE_MS 10
#define FULL_BYTES (4 * 1024 * 1024)
#define FLOOD_BYTES (8 * 1024 * 1024)

typedef struct Batch
{
	struct Batch *next;
	MemoryContext context;
	int			n;
	Size		bytes;
	int64		task_ids[BATCH_ITEMS];
	int64		fences[BATCH_ITEMS];
	char	   *payloads[BATCH_ITEMS];
} Batch;

/* A payload that the database refused for itself; the first of a task */
typedef struct Refusal
{
	struct Refusal *next;
	int64		task_id;
	char		error[256];
} Refusal;

static MemoryContext sink_context;
static Batch *first;
static Batch *last;
static Size batch_bytes = MIN_BATCH_BYTES;	/* of the batches to come */
static Size total_bytes;
static Size bytes_passed;		/* since the last time that was a flood */
static TimestampTz due;
static int64 last_seq;
static Refusal *refusals;

void
bc_sink_init(void)
{
	sink_context = AllocSetContextCreate(TopMemoryContext, "boocoder sink",
										 ALLOCSET_DEFAULT_SIZES);
}

static Batch *
open_batch(void)
{
	MemoryContext context = AllocSetContextCreate(sink_context, "boocoder batch",
												  ALLOCSET_DEFAULT_SIZES);
	Batch	   *batch = MemoryContextAllocZero(context, sizeof(Batch));

	batch->context = context;
	if (last != NULL)
		last->next = batch;
	else
		first = batch;
	last = batch;
	return batch;
}

void
bc_sink_add(int64 task_id, int64 fence, const StringInfoData *payload)
{
	Batch	   *batch = last;

	if (batch == NULL || batch->n == BATCH_ITEMS || batch->bytes >= batch_bytes)
		batch = open_batch();
	batch->task_ids[batch->n] = task_id;
	batch->fences[batch->n] = fence;
	batch->payloads[batch->n] = MemoryContextAlloc(batch->context, payload->len + 1);
	memcpy(batch->payloads[batch->n], payload->data, payload->len + 1);
	batch->n++;
	batch->bytes += payload->len;
	total_bytes += payload->len;
	if (due == 0)
		due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), MAX_AGE_MS);
}

static Refusal **
find_refusal(int64 task_id)
{
	Refusal   **link = &refusals;

	while (*link != NULL && (*link)->task_id != task_id)
		link = &(*link)->next;
	return link;
}

static void
note_refusal(int64 task_id, const char *error)
{
	Refusal   **link = find_refusal(task_id);

	if (*link != NULL)
		return;
	*link = MemoryContextAllocZero(sink_context, sizeof(Refusal));
	(*link)->task_id = task_id;
	strlcpy((*link)->error, error, sizeof((*link)->error));
}

/* The batch as a whole was refused: find the payload that is to blame. */
static bool
append_singly(Batch *batch)
{
	for (int i = 0; i < batch->n; i++)
	{
		int64		seq;

		if (batch->payloads[i] == NULL)
			continue;
		switch (bc_db_append(1, &batch->task_ids[i], &batch->fences[i], &batch->payloads[i],
							 &seq))
		{
			case BC_DB_OK:
				last_seq = Max(last_seq, seq);
				break;
			case BC_DB_BUSY:
				return false;
			case BC_DB_FAILED:
				note_refusal(batch->task_ids[i], bc_db_error());
				break;
		}
		pfree(batch->payloads[i]);
		batch->payloads[i] = NULL;
	}
	return true;
}

/* A batch of batch_bytes is to take TARGET_US; a smaller one that took less says nothing about that. */
static void
adapt(const Batch *batch, TimestampTz began)
{
	int64		took = Max(GetCurrentTimestamp() - began, 1);
	Size		fits = (Size) (batch->bytes * TARGET_US / took);

	if (took > TARGET_US)
		batch_bytes = Max(Min(fits, batch_bytes), MIN_BATCH_BYTES);
	else if (batch->bytes >= batch_bytes)
		batch_bytes = Min(Min(fits, batch_bytes * 2), BATCH_BYTES);
}

static bool
append(Batch *batch)
{
	TimestampTz began = GetCurrentTimestamp();
	int64		seq;

	switch (batch->payloads[0] == NULL ? BC_DB_FAILED :
			bc_db_append(batch->n, batch->task_ids, batch->fences, batch->payloads, &seq))
	{
		case BC_DB_OK:
			last_seq = Max(last_seq, seq);
			adapt(batch, began);
			return true;
		case BC_DB_BUSY:
			return false;
		case BC_DB_FAILED:
			return append_singly(batch);
	}
	return false;
}

bool
bc_sink_flush(TimestampTz now)
{
	while (first != NULL)
	{
		Batch	   *batch = first;

		if (!append(batch))
		{
			due = bc_db_retry_at(BC_DB_BUSY);
			return false;
		}
		total_bytes -= batch->bytes;
		bytes_passed += batch->bytes;
		first = batch->next;
		if (first == NULL)
			last = NULL;
		MemoryContextDelete(batch->context);
	}
	due = 0;
	return true;
}

TimestampTz
bc_sink_due(void)
{
	return due;
}

bool
bc_sink_full(void)
{
	return total_bytes >= FULL_BYTES;
}

bool
bc_sink_flood_over(void)
{
	if (first != NULL || bytes_passed < FLOOD_BYTES)
		return false;
	bytes_passed = 0;
	return true;
}

bool
bc_sink_holds(int64 task_id, int64 fence)
{
	for (Batch *batch = first; batch != NULL; batch = batch->next)
		for (int i = 0; i < batch->n; i++)
			if (batch->task_ids[i] == task_id && batch->fences[i] == fence)
				return true;
	return false;
}

int64
bc_sink_refused(void)
{
	return refusals != NULL ? refusals->task_id : 0;
}

const char *
bc_sink_take_refusal(int64 task_id)
{
	static char error[256];
	Refusal   **link = find_refusal(task_id);
	Refusal    *refusal = *link;

	if (refusal == NULL)
		return NULL;
	strlcpy(error, refusal->error, sizeof(error));
	*link = refusal->next;
	pfree(refusal);
	return error;
}

int64
bc_sink_last_seq(void)
{
	return last_seq;
}
