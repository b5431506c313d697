/* A list under one mutex. Threads are made when work waits and none is idle, and end after a while
 * without work. Whoever takes a run and leaves others behind wakes one more, so a burst wakes as
 * many as it keeps busy and no more. */
#include "worker/pool.h"

#include "common/check.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "worker/crash.h"
#include "worker/run_state.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define POOL_IDLE_MS 5000
#define POOL_THREAD_STACK_BYTES (128 * 1024) /* handlers have stacks of their own */

static struct timespec after_ms(int64_t ms) {
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += ms / 1000;
    at.tv_nsec += (ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

dj_status pool_init(struct pool *pool, int threads_max) {
    *pool = (struct pool){ .mutex = PTHREAD_MUTEX_INITIALIZER, .threads_max = threads_max };
    list_init(&pool->runs);
    pthread_condattr_t monotonic;
    if (pthread_condattr_init(&monotonic) != 0 ||
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&pool->work, &monotonic) != 0) {
        return dj_fail(DJ_NO_MEMORY, "cannot make the thread pool");
    }
    (void)pthread_condattr_destroy(&monotonic);
    return DJ_OK;
}

/* With the mutex held. Null: there was nothing to do for a while, or it is over. */
static struct dj_run *pool_take(struct pool *pool) {
    struct timespec until = after_ms(POOL_IDLE_MS);
    while (list_is_empty(&pool->runs)) {
        if (pool->stopping) {
            return NULL;
        }
        pool->idle++;
        int waited = pthread_cond_timedwait(&pool->work, &pool->mutex, &until);
        pool->idle--;
        if (waited == ETIMEDOUT && list_is_empty(&pool->runs)) {
            return NULL;
        }
    }
    struct dj_run *run = list_first(&pool->runs, struct dj_run, link);
    list_remove(&run->link);
    atomic_fetch_sub(&pool->waiting, 1);
    return run;
}

static void *pool_thread(void *context);

/* With the mutex held: one more thread, by waking or by making it, if that helps. */
static void pool_wake_one(struct pool *pool) {
    if (list_is_empty(&pool->runs)) {
        return;
    }
    if (pool->idle > 0) {
        (void)pthread_cond_signal(&pool->work);
        return;
    }
    if (pool->threads - pool->stuck >= pool->threads_max) {
        return;
    }
    pthread_attr_t attributes;
    pthread_t thread;
    check(pthread_attr_init(&attributes) == 0);
    (void)pthread_attr_setstacksize(&attributes, POOL_THREAD_STACK_BYTES);
    int error = FAILPOINT_FAILS("pool.thread")
                    ? EAGAIN
                    : pthread_create(&thread, &attributes, pool_thread, pool);
    (void)pthread_attr_destroy(&attributes);
    if (error == 0) {
        pool->threads++;
    } else if (pool->threads == 0) {
        log_error("pool.no_thread", "reason", strerror(error));
    }
}

void pool_look(struct pool *pool) {
    if (pool_waiting(pool) > 0) {
        (void)pthread_mutex_lock(&pool->mutex);
        pool_wake_one(pool);
        (void)pthread_mutex_unlock(&pool->mutex);
    }
}

static void *pool_thread(void *context) {
    struct pool *pool = context;
    crash_thread_begin();
    (void)pthread_mutex_lock(&pool->mutex);
    for (struct dj_run *run; (run = pool_take(pool)) != NULL;) {
        pool_wake_one(pool);
        (void)pthread_mutex_unlock(&pool->mutex);
        run_execute(run);
        (void)pthread_mutex_lock(&pool->mutex);
    }
    bool has_before = pool->has_ended;
    pthread_t before = pool->ended;
    if (pool->abandoned) {
        (void)pthread_detach(pthread_self());
    } else {
        pool->ended = pthread_self();
        pool->has_ended = true;
    }
    pool->threads--;
    if (pool->threads == 0) {
        (void)pthread_cond_broadcast(&pool->work); /* pool_stop() may wait for this */
    }
    (void)pthread_mutex_unlock(&pool->mutex);
    crash_thread_end();
    if (has_before) {
        (void)pthread_join(before, NULL);
    }
    return NULL;
}

void pool_push(struct pool *pool, struct list *runs, int count) {
    if (count == 0) {
        return;
    }
    (void)pthread_mutex_lock(&pool->mutex);
    list_splice(runs, &pool->runs);
    atomic_fetch_add(&pool->waiting, count);
    pool_wake_one(pool);
    (void)pthread_mutex_unlock(&pool->mutex);
}

void pool_take_back(struct pool *pool, struct list *ret_runs, bool only_unbegun) {
    struct list kept;
    list_init(&kept);
    (void)pthread_mutex_lock(&pool->mutex);
    while (!list_is_empty(&pool->runs)) {
        struct dj_run *run = list_first(&pool->runs, struct dj_run, link);
        list_remove(&run->link);
        bool keep = only_unbegun && run->begun;
        list_push(keep ? &kept : ret_runs, &run->link);
        atomic_fetch_sub(&pool->waiting, !keep);
    }
    list_splice(&kept, &pool->runs);
    (void)pthread_mutex_unlock(&pool->mutex);
}

void pool_note_stuck(struct pool *pool, int change) {
    (void)pthread_mutex_lock(&pool->mutex);
    pool->stuck += change;
    pool_wake_one(pool);
    (void)pthread_mutex_unlock(&pool->mutex);
}

bool pool_stop(struct pool *pool, int64_t timeout_ms) {
    struct timespec until = after_ms(timeout_ms);
    int waited = 0;
    (void)pthread_mutex_lock(&pool->mutex);
    pool->stopping = true;
    (void)pthread_cond_broadcast(&pool->work);
    while (pool->threads > 0 && waited == 0) {
        waited = pthread_cond_timedwait(&pool->work, &pool->mutex, &until);
        (void)pthread_cond_broadcast(&pool->work);
    }
    bool stopped = pool->threads == 0;
    bool has_ended = pool->has_ended;
    pool->has_ended = false;
    pool->abandoned = !stopped;
    (void)pthread_mutex_unlock(&pool->mutex);
    if (has_ended) {
        (void)pthread_join(pool->ended, NULL);
    }
    return stopped;
}
