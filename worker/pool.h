/* The threads on which handlers run. */
#ifndef WORKER_POOL_H
#define WORKER_POOL_H

#include "common/list.h"
#include "common/status.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct pool {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct list runs;   /* to begin, or to go on with */
    atomic_int waiting; /* runs in that list */
    int threads;
    int threads_max;
    int idle;
    int stuck; /* threads in steps that are over their time: they do not count */
    bool stopping;
    pthread_t
        ended; /* the thread that ended last, if one has: the next one that ends waits for it, and
                  pool_stop() for the last, so that none is on its way out when the process is */
    bool has_ended;
    bool abandoned; /* pool_stop() waits no more: who ends now ends alone */
};

/** Runs that wait for a thread just now: a hint. On the loop. */
static inline int pool_waiting(const struct pool *pool) {
    return atomic_load(&pool->waiting);
}

MUST_CHECK dj_status pool_init(struct pool *pool, int threads_max);

/** Hands runs over, all that are in the list. On the loop. */
void pool_push(struct pool *pool, struct list *runs, int count);

/** Asks again for a thread where runs wait: there may have been none to be had for them, or fewer
 * than wanted. On the loop, now and then. */
void pool_look(struct pool *pool);

/** Takes back the runs that no thread has begun with. On the loop. */
void pool_take_back(struct pool *pool, struct list *ret_runs, bool only_unbegun);

/** A thread is stuck in a handler, by one more or one less: another one may take its place. */
void pool_note_stuck(struct pool *pool, int change);

/** Waits until the threads have ended, for up to `timeout_ms`; false: some have not. */
bool pool_stop(struct pool *pool, int64_t timeout_ms);

#endif
