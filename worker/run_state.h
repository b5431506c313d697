/* A run in hand: what the loop, the pool and the durable calls of its handler share of it.
 *
 * At any instant one side owns it: the loop, or the thread on which its handler is. It changes
 * hands through pool_push() and the mailbox only. The exceptions are atomic and say so. */
#ifndef WORKER_RUN_STATE_H
#define WORKER_RUN_STATE_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/list.h"
#include "common/uuid.h"
#include "worker/fiber.h"
#include "worker/replay.h"
#include <durable/worker.h>
#include <stdatomic.h>
#include <stdint.h>

/* What a handler has come to, for the next turn to commit. */
enum op_kind {
    OP_NONE,  /* nothing to commit: the handler is gone, and so was its lease */
    OP_STEP,  /* a step's result or error; the handler is parked, and goes on */
    OP_ASK,   /* nothing to commit; the handler is parked until the lease is known to hold */
    OP_DONE,  /* the run is complete */
    OP_OTHER, /* it leaves our hands: wait, sleep, yield, fail, step_retry, park */
};

struct log_line {
    struct list link;
    dj_level level;
    int64_t at_us; /* monotonic */
    char text[];
};

/* The step that is running, if it has a timeout: the handler's thread sets it up, and `until_ms`
 * decides whether the step or the loop's clock was first: who changes it has seen which step it is
 * of. Once late, `op` and `detail` are the loop's to commit, and no other step is begun. */
#define WATCH_NONE 0
#define WATCH_LATE (-1)
struct step_watch {
    _Atomic int64_t until_ms; /* monotonic; or WATCH_NONE, WATCH_LATE */
    const char *op;
    char *detail;
    struct list link; /* the loop: among the late ones */
};

struct dj_run {
    struct list link;      /* in the one queue it is in: pool, mailbox, pending, in flight */
    struct list hand_link; /* among all runs in hand */
    struct worker_line *line;
    struct dj_worker *worker;
    const struct job *job;
    struct fiber *fiber;
    struct arena arena;

    struct uuid id;
    char id_text[UUID_TEXT_BYTES];
    struct uuid worker_id; /* of the life in which it was claimed: the worker's own changes when it
                              registers again */
    int64_t fence;
    int attempt;
    bool begun; /* the handler was called */
    int64_t claimed_ms;
    atomic_bool lost;    /* not ours any more: set by the loop, read by the handler's thread */
    bool gone;           /* the loop: its lease has ended; free it once the handler is back */
    bool with_handler;   /* the loop: the pool has it, or a call */
    bool refused;        /* the loop: the database did not take its step, so it fails instead */
    bool condemned;      /* the loop: it fails because the database did not take what it said */
    int64_t again_ms;    /* the loop: it was refused; from then on it is said again, alone */
    uint32_t refused_at; /* the loop: how much its worker had committed by then */

    char *payload; /* JSON text */
    size_t payload_length;
    struct endpoint_call *call; /* of a handler over HTTP: the loop's */
    const char *queue;
    const char *facts; /* JSON text of what a call says of the run, or NULL */
    int64_t bytes;     /* payload and history */
    struct replay replay;

    /* The handler's thread, while it has the run. */
    json_object *objects; /* an array that owns what was handed to the handler */
    bool in_step;
    const char *step_name; /* of the step that is running, for the one who finds us dead */
    bool done;             /* dj_complete() was called */
    bool handed_up;        /* the run leaves our hands: every further durable call says so */
    struct run_error {
        bool set;
        bool permanent;
        int64_t retry_after_ms; /* -1: as the policy says */
        char *name;
        char *message;
        char *step;
    } error;
    struct list logs; /* said since the last commit */
    int logs_count, logs_dropped;
    size_t logs_bytes;
    struct step_watch watch;

    /* What is to be committed. */
    enum op_kind op;
    int position;
    const char *kind; /* of a step; the op of OP_OTHER */
    const char *name;
    char *result;     /* JSON text, NULL: null; of OP_OTHER: its detail */
    char *step_error; /* JSON text, or NULL */
    int64_t elapsed_us;
    dj_status verdict; /* what became of it: DJ_OK, DJ_LEASE_LOST, … */
};

/** The handler's thread: runs the handler, or goes on with it, until it parks or returns. */
void run_execute(struct dj_run *run);

/** Forgets the lines of its log: they are committed. */
void run_logs_clear(struct dj_run *run);

/** Frees the run and all that is its. */
void run_free(struct dj_run *run);

#endif
