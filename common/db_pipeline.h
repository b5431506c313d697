/* A pipelined connection on the loop: batches of calls, one sync and so one transaction each. A
 * batch's callback runs exactly once: with rows, with an error, or with DJ_UNAVAILABLE when the
 * connection broke and nobody knows whether the batch was committed. */
#ifndef COMMON_DB_PIPELINE_H
#define COMMON_DB_PIPELINE_H

#include "common/db_calls.h"
#include "common/db_params.h"
#include "common/failpoint.h"
#include "common/list.h"
#include "common/status.h"
#include <event2/event.h>
#include <libpq-fe.h>
#include <stdbool.h>

#define DB_BATCH_CALLS_MAX 4

struct db_pipeline;
struct db_batch;

typedef void (*db_batch_done_fn)(struct db_batch *batch);
typedef void (*db_pipeline_broken_fn)(struct db_pipeline *pipeline);
typedef void (*db_pipeline_notify_fn)(struct db_pipeline *pipeline, const PGnotify *notify);

struct db_batch {
    struct list link;
    dj_status status;  /* DJ_OK: all calls were answered and committed */
    char message[512]; /* why not */
    bool broken;       /* the connection broke: committed or not, nobody knows */
    int call_count;
    int call_done;
    PGresult *results[DB_BATCH_CALLS_MAX]; /* lent until on_done returns */
    db_batch_done_fn on_done;
    void *context;
};

struct db_pipeline {
    PGconn *conn;
    struct event *readable;
    struct event *writable;
    struct list sent;                /* batches in the order in which they will be answered */
    db_pipeline_broken_fn on_broken; /* last of all; close the pipeline there */
    db_pipeline_notify_fn on_notify; /* may be NULL */
    void *context;
};

/** For a batch whose outcome is of no interest. */
void db_batch_ignore(struct db_batch *batch);

/** Takes `conn` over, on any outcome. */
MUST_CHECK dj_status db_pipeline_open(struct db_pipeline *pipeline, struct event_base *base,
                                      PGconn *conn);

/** Closes the connection; batches still on their way are answered with DJ_UNAVAILABLE. */
void db_pipeline_close(struct db_pipeline *pipeline);

bool db_pipeline_is_open(const struct db_pipeline *pipeline);

/** Sends a batch. `params[i]` belongs to `calls[i]`, and is not needed after this returns. On
 * failure the callback has run, or runs soon, with DJ_UNAVAILABLE. */
void db_pipeline_send(struct db_pipeline *pipeline, const struct db_call *const calls[],
                      struct db_params *const params[], int call_count, db_batch_done_fn on_done,
                      void *context);

/* A failpoint in a batch's callback: the answer that has just come is lost. */
#ifdef DURABLE_FAULT_INJECTION
void db_batch_lose(struct db_batch *batch, struct db_pipeline *pipeline,
                   enum failpoint_action action);
#define FAILPOINT_ANSWER(name, batch, pipeline)                                                    \
    do {                                                                                           \
        if ((batch)->status == DJ_OK) {                                                            \
            db_batch_lose(batch, pipeline,                                                         \
                          FAILPOINT_REACH(name, "kill stop sleep cut drop error", (void)0));       \
        }                                                                                          \
    } while (0)
#else
#define FAILPOINT_ANSWER(name, batch, pipeline) ((void)0)
#endif

#endif
