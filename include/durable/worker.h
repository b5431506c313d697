/* The handler's side of Durable Jobs: define jobs, and run them until told to stop.
 *
 * A handler reads top to bottom. It is called once an attempt, and again to resume; what it did in
 * steps is remembered, so a step that completed gives its result back and is not called again.
 * Every durable call answers a status: hand up whatever is not DJ_OK (DJ_TRY).
 *
 * A handler runs on a thread of the worker's pool and may block there. While a durable call waits
 * for PostgreSQL, the handler's stack is parked and the thread serves another run; the handler may
 * go on on another thread. So hold no mutex and rely on no thread-local value (errno included)
 * across a durable call. A handler's stack has DJ_STACK_BYTES. */
#ifndef DURABLE_WORKER_H
#define DURABLE_WORKER_H

#include <durable/status.h>
#include <json-c/json_object.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DJ_STACK_BYTES (256 * 1024)

typedef struct dj_worker dj_worker;
typedef struct dj_run dj_run;

/** A job's code. `payload` is lent. Answer with dj_complete(), or with what a durable call
 *  answered. */
typedef dj_status (*dj_handler)(dj_run *run, json_object *payload);

/** A step's code. `input` is what was given to dj_step. Set *ret_result (the run takes it), or
 * leave it NULL. To fail, return dj_run_fail(), dj_run_fail_permanently() or dj_run_retry_after().
 */
typedef dj_status (*dj_step_fn)(dj_run *run, json_object *input, json_object **ret_result);

/** As dj_step_fn, with a connection in an open transaction: what you do on it is committed together
 *  with the step, exactly once. Do not commit or roll back yourself. */
typedef dj_status (*dj_step_tx_fn)(dj_run *run, PGconn *conn, json_object *input,
                                   json_object **ret_result);

typedef enum dj_level { DJ_DEBUG, DJ_INFO, DJ_WARNING, DJ_ERROR } dj_level;

typedef enum dj_on_timeout {
    DJ_TIMEOUT_FAIL = 0, /**< the run ends at once as WaitTimeoutError */
    DJ_TIMEOUT_CONTINUE, /**< the wait returns {"timedOut": true} */
    DJ_TIMEOUT_CANCEL,   /**< the run is cancelled */
} dj_on_timeout;

/** How to try again. Zero means: as the next farther setting says (1s, 2, 1h, 0.2). */
typedef struct dj_backoff {
    const char *initial; /**< before the second try, as "1s" */
    double factor;       /**< each further wait is so much longer; at least 1 */
    const char *max;     /**< no wait is longer, as "1h" */
    double jitter; /**< 0 … 1: a wait is made longer or shorter by up to this part of itself */
} dj_backoff;

typedef struct dj_job_options {
    void *context;       /**< what dj_run_context() gives to the handler; must be thread-safe */
    int max_attempts;    /**< 0: the queue's, 5 if none */
    dj_backoff backoff;  /**< between attempts */
    const char *version; /**< of the handler's code; NULL: none. Runs parked for another version are
                              taken up when a worker with this one begins */
    int max_crashes;     /**< 0: 3 */
} dj_job_options;

typedef struct dj_step_options {
    int max_attempts;    /**< 0 or 1: the step has no policy of its own, an error is thrown to the
                            handler */
    dj_backoff backoff;  /**< between this step's tries */
    const char *timeout; /**< of one try, as "30s". The code cannot be stopped from outside: when it
                              comes back late, what it did is an error (StepTimeoutError), and until
                              then its run shows as late */
} dj_step_options;

typedef struct dj_wait {
    const char *correlation_key; /**< NULL: only events without a key */
    const char *timeout;         /**< NULL: waits without end */
    dj_on_timeout on_timeout;
    const char *name; /**< of the step; NULL: the event's name */
} dj_wait;

/** How a child is started; zero means the default. */
typedef struct dj_child_options {
    const char *name;  /**< of the step; NULL: the job's name */
    const char *queue; /**< NULL: "default" */
    int max_attempts;  /**< 0: the job's or the queue's; 5 if none */
    int priority;
    const char *timeout; /**< of the whole child */
} dj_child_options;

/** An event that a wait is for. */
typedef struct dj_event_key {
    const char *event;
    const char *correlation_key; /**< NULL: only events without a key */
} dj_event_key;

/** What a module for `durable-worker --module x.so` exports: registers its handlers. */
DJ_PUBLIC dj_status dj_module_init(dj_worker *worker);

/** Registers a handler. `job` and `options` (NULL: defaults) are copied. Before dj_worker_run.
 *  DJ_INVALID_ARGUMENT: the name is not allowed or taken. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_worker_register(dj_worker *worker, const char *job,
                                                     dj_handler handler,
                                                     const dj_job_options *options);

/** A worker's settings; zero means the default. */
typedef struct dj_worker_options {
    const char *conninfo;   /**< NULL: the environment's DURABLE_DATABASE_URL */
    const char *name;       /**< shown in durable.workers; NULL: the host's name */
    const char *namespace_; /**< NULL: "default" */
    const char *queues;     /**< comma separated; NULL: every queue */
    int slots;              /**< runs in hand at most; 0: 1024 */
    int threads;            /**< handlers on a CPU or blocked at most; 0: 16 */
    int connections;        /**< for claims and commits; 0: 2 */
    int64_t lease_ttl_ms;   /**< a worker silent so long has lost its leases; 0: 10,000 */
    int64_t grace_ms;       /**< how long a drain waits for the steps in hand; 0: 25,000 */
    /** Where the worker says what it does; NULL: standard error. `line` has no newline. */
    void (*on_log)(void *context, dj_level level, const char *line);
    void *on_log_context;
    bool call_endpoints;    /**< serve the namespace's endpoints too: handlers over HTTP */
    const char *public_url; /**< where durable-server is reached by handlers, as "http://host:7070":
                               they commit there; NULL: they answer with what they have to commit */
    bool forbid_private;    /**< call no endpoint at an address that is not public, whatever its
                               registration says */
} dj_worker_options;

/** Makes a worker. `options` (NULL: defaults) are copied. Free it with dj_worker_free. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_worker_new(const dj_worker_options *options,
                                                dj_worker **ret_worker);
DJ_PUBLIC void dj_worker_free(dj_worker *worker);

/** Runs until dj_worker_drain(): leases runs, calls their handlers, commits what they did. While
 * the database is away it keeps trying. DJ_OK: drained. DJ_TIMEOUT: handlers did not return within
 * the grace time and a second more; they still use the worker, so do not free it. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_worker_run(dj_worker *worker);

/** Tells the worker to take nothing more, to finish the steps in hand and to give the rest back.
 *  From any thread, and from a signal handler. A second call gives everything back at once. */
DJ_PUBLIC void dj_worker_drain(dj_worker *worker);

/* What a handler may ask of its run. */

DJ_PUBLIC const char *dj_run_id(const dj_run *run);
DJ_PUBLIC const char *dj_run_job(const dj_run *run);
DJ_PUBLIC int dj_run_attempt(const dj_run *run); /**< the first is 1 */
DJ_PUBLIC void *dj_run_context(const dj_run *run);

/** True once the worker knows that the run is not its own any more (cancelled, timed out, taken
 * over): within 5 s. A long step looks from time to time, and returns whatever it likes: it is not
 * kept. */
DJ_PUBLIC bool dj_run_cancelled(const dj_run *run);

/** Proves that a long step is alive. Answers DJ_LEASE_LOST once the run is not ours any more, and
 *  DJ_TIMEOUT once the step is over its timeout. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_heartbeat(dj_run *run);

/** Runs `step` once and for all: its result is committed before this returns, and given back
 * without a call in every later attempt. A name used again becomes "name#2". `ret_result` may be
 * NULL; *ret_result is the run's, valid until the handler returns. DJ_FAILED: the step failed, with
 * dj_error_message(); return it, or go on another way. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_step(dj_run *run, const char *name, dj_step_fn step,
                                          json_object *input, json_object **ret_result);

/** As dj_step, with a retry policy and a timeout of its own. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_step_with(dj_run *run, const char *name, dj_step_fn step,
                                               json_object *input, const dj_step_options *options,
                                               json_object **ret_result);

/** As dj_step; the step's SQL is committed in one transaction with the step. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_step_tx(dj_run *run, const char *name, dj_step_tx_fn step,
                                             json_object *input, json_object **ret_result);

/** Waits for an event, holding no thread and no memory here meanwhile. `wait` may be NULL.
 *  *ret_event (may be NULL): {"timedOut": false, "id", "name", "correlationKey", "payload",
 *  "receivedAt"}, or {"timedOut": true}. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_wait_for_event(dj_run *run, const char *event,
                                                    const dj_wait *wait, json_object **ret_event);

/** As dj_wait_for_event, for the first of `count` events (2 to 100); *ret_event says which, by
 * "name" and "correlationKey". The keys are the events' own: `wait->correlation_key` is not
 * allowed. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_wait_for_any(dj_run *run, const dj_event_key *events,
                                                  size_t count, const dj_wait *wait,
                                                  json_object **ret_event);

/** Sleeps, holding no thread and no memory here meanwhile. `duration` is as "30s"; `name` may be
 * NULL: "sleep". */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_sleep(dj_run *run, const char *name, const char *duration);

/** Sleeps until a time, RFC 3339. One in the past is over at once. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_sleep_until(dj_run *run, const char *name, const char *time);

/* What a run does to the world of its namespace, each exactly once, and remembered: in later
 * attempts the first result is given back. DJ_FAILED: it was refused, and dj_error_message() says
 * why. */

/** Runs another job, and waits for its end, holding no thread and no memory here meanwhile. The
 * child is cancelled when this run is. `payload` is lent (NULL: {}); `options` may be NULL.
 *  *ret_result (may be NULL) is the child's. DJ_FAILED: it failed or was cancelled; a retry of this
 * run then begins another one, but keeps one that is alive or has completed. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_child(dj_run *run, const char *job, json_object *payload,
                                               const dj_child_options *options,
                                               json_object **ret_result);

/** Sends an event, as dj_send_event. `payload` is lent (NULL: {}). */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_send_event(dj_run *run, const char *event,
                                                    json_object *payload,
                                                    const char *correlation_key);

/** State, as dj_state_… of client.h; a get sees what this run has set. *ret_value is the run's;
 * NULL: absent, or null. Times are RFC 3339; NULL: none. A lock's owner is the run: it is free at
 * its end. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_state_get(dj_run *run, const char *key,
                                                   json_object **ret_value);
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_state_set(dj_run *run, const char *key, json_object *value,
                                                   const char *expires_at);
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_state_delete(dj_run *run, const char *key);
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_state_increment(dj_run *run, const char *key, int64_t by,
                                                         int64_t *ret_sum);
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_state_lock(dj_run *run, const char *key, const char *ttl,
                                                    bool *ret_locked);
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_state_unlock(dj_run *run, const char *key);

/** Adds a line to the run's log, kept with what is committed next. At most 8 KiB; longer is cut. Of
 * over 10,000 lines or 1 MiB between two commits the rest is dropped, and a line says how many. */
DJ_PUBLIC dj_status dj_log(dj_run *run, dj_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Ends the run well. Takes `result` (NULL: null), also on failure. Return what this returns. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_complete(dj_run *run, json_object *result);

/** Fails the step, or the attempt: it is tried again as the policy says. Return what this returns.
 */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_fail(dj_run *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** As dj_run_fail, and it is not tried again. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_fail_permanently(dj_run *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** As dj_run_fail, and it is tried again after `delay` ("30s"), if an attempt (of a step with a
 * policy of its own: a try) is left. It spends one. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_retry_after(dj_run *run, const char *delay,
                                                     const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __cplusplus
}
#endif
#endif
