/* The worker's loop: who is in hand, who goes on, draining, and the end. See docs/architecture.md.
 */
#include "worker/fleet.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/check.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_params.h"
#include "common/db_rows.h"
#include "common/duration.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/text.h"
#include "worker/crash.h"
#include "worker/endpoint.h"
#include "worker/run.h"
#include "worker/step.h"
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLOTS_DEFAULT 1024
#define THREADS_DEFAULT 16
#define TTL_MS_DEFAULT 10000
#define GRACE_MS_DEFAULT 25000
#define POLL_MS 500
#define BEAT_MS_MAX 2000 /* a beat also tells which runs were cancelled */
#define TICK_MS 250
#define IDLE_TRIM_MS 2000
#define SPARE_CONNECTION_MS 10000
#define LET_GO_MS 1000

int64_t
clock_boot_ms(void) { /* goes on while the machine is suspended, as the database's clock does */
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct timeval timeval_of_ms(int64_t ms) {
    return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };
}

void worker_watch_life(dj_worker *worker, void (*on_life)(const dj_worker *worker)) {
    worker->on_life = on_life;
}

void worker_tell_life(const dj_worker *worker) {
    if (worker->on_life != NULL) {
        worker->on_life(worker);
    }
}

/* From handlers' threads. */

void worker_post(dj_worker *worker, dj_run *run) {
    mailbox_put(&worker->outcomes, &run->link);
    FAILPOINT("outcome.queued");
}

bool worker_is_sure(const dj_worker *worker) {
    return clock_boot_ms() < atomic_load(&worker->sure_until_ms);
}

bool worker_is_draining(const dj_worker *worker) {
    return atomic_load(&worker->draining);
}

void worker_pause(int tries) {
    int64_t ms = with_jitter(tries > 5 ? 2000 : 50 << tries);
    struct timespec rest = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000 };
    (void)nanosleep(&rest, NULL);
}

/* Known to be ours, so that it is ended with us if we freeze in the middle of a transaction. */
static dj_status spare_open(const dj_run *run, PGconn **ret_conn) {
    AUTO(pgresult) PGresult *rows = NULL;
    PGconn *conn = NULL;
    struct db_params params;
    DJ_TRY(db_conn_open(run->worker->conninfo, "durable-worker step_tx", &conn));
    params_init(&params);
    params_add_uuid(&params, &run->worker_id);
    dj_status status = db_exec(conn, &CALL_WORKER_TX_SESSION, &params, &rows);
    params_done(&params);
    if (status != DJ_OK) {
        db_conn_close(conn);
        return status;
    }
    *ret_conn = conn;
    return DJ_OK;
}

/* With the mutex held. */
static PGconn *spare_take(dj_worker *worker, int place) {
    PGconn *conn = worker->spare[place].conn;
    worker->spare_count--;
    memmove(&worker->spare[place], &worker->spare[place + 1],
            (size_t)(worker->spare_count - place) * sizeof worker->spare[0]);
    return conn;
}

dj_status worker_borrow_connection(const dj_run *run, PGconn **ret_conn) {
    dj_worker *worker = run->worker;
    PGconn *conn = NULL;
    (void)pthread_mutex_lock(&worker->spare_mutex);
    for (int i = worker->spare_count - 1; i >= 0 && conn == NULL; i--) {
        if (uuid_equal(&worker->spare[i].worker_id, &run->worker_id)) {
            conn = spare_take(worker, i);
        }
    }
    (void)pthread_mutex_unlock(&worker->spare_mutex);
    if (conn != NULL) {
        *ret_conn = conn;
        return DJ_OK;
    }
    return spare_open(run, ret_conn);
}

/* Closes the connections for step_tx that were not used for a while. */
static void spare_trim(dj_worker *worker, int64_t age_ms) {
    (void)pthread_mutex_lock(&worker->spare_mutex);
    while (worker->spare_count > 0 &&
           worker->spare[0].since_ms <= clock_ms() - age_ms) { /* the oldest is the first */
        db_conn_close(spare_take(worker, 0));
    }
    (void)pthread_mutex_unlock(&worker->spare_mutex);
}

void worker_return_connection(const dj_run *run, PGconn *conn, bool broken) {
    dj_worker *worker = run->worker;
    (void)pthread_mutex_lock(&worker->spare_mutex);
    int room = (int)(sizeof worker->spare / sizeof worker->spare[0]);
    if (!broken && worker->spare_count < room) {
        worker->spare[worker->spare_count].worker_id = run->worker_id;
        worker->spare[worker->spare_count].since_ms = clock_ms();
        worker->spare[worker->spare_count++].conn = conn;
        conn = NULL;
    }
    (void)pthread_mutex_unlock(&worker->spare_mutex);
    if (conn != NULL) {
        db_conn_close(conn);
    }
    if (broken) { /* what broke it may have broken them all: each would cost its run a try */
        spare_trim(worker, /* age_ms= */ 0);
    }
}

/* Runs in hand. On the loop. */

dj_status worker_find(dj_worker *worker, const PGresult *rows, int row, dj_run **ret_run) {
    struct uuid id;
    int64_t fence;
    DJ_TRY(rows_uuid(rows, row, 0, &id));
    DJ_TRY(rows_int8(rows, row, 1, &fence));
    *ret_run = NULL;
    list_for_each(run, &worker->hand, dj_run, hand_link) {
        if (run->fence == fence && uuid_equal(&run->id, &id)) {
            *ret_run = run;
        }
    }
    return DJ_OK;
}

void worker_release(dj_worker *worker, dj_run *run) {
    list_remove(&run->hand_link);
    worker->in_hand--;
    run_free(run);
}

void worker_late_gone(dj_worker *worker, dj_run *run) {
    run->gone = true;
    if (!run->with_handler) {
        worker_release(worker, run);
    }
}

void worker_resume(dj_worker *worker, struct list *runs, int count) {
    list_for_each(run, runs, dj_run, link) {
        run->with_handler = true;
    }
    pool_push(&worker->pool, runs, count);
}

/* A handler is back, or parked, with something to do for us. */
void worker_take_outcome(dj_worker *worker, dj_run *run) {
    run->with_handler = false;
    FAILPOINT("outcome.taken");
    if (atomic_load(&run->watch.until_ms) == WATCH_LATE) {
        pool_note_stuck(&worker->pool, -1);
        if (run->gone) {
            worker_release(worker, run);
        }
        return; /* else when its late op is committed */
    }
    switch (run->op) {
    case OP_NONE:
        worker_release(worker, run);
        break;
    case OP_ASK:
        list_push(&worker->asking, &run->link);
        break;
    case OP_STEP:
    case OP_DONE:
    case OP_OTHER:
        run->verdict = DJ_OK;
        list_push(&run->line->pending, &run->link);
        run->line->pending_count++;
        break;
    }
}

static void take_outcomes(dj_worker *worker) {
    struct list runs;
    list_init(&runs);
    mailbox_take(&worker->outcomes, &runs);
    while (!list_is_empty(&runs)) {
        dj_run *run = list_first(&runs, dj_run, link);
        list_remove(&run->link);
        worker_take_outcome(worker, run);
    }
}

static void give_back_unbegun(dj_worker *worker) {
    struct list unbegun;
    list_init(&unbegun);
    pool_take_back(&worker->pool, &unbegun, /* only_unbegun= */ true);
    while (!list_is_empty(&unbegun)) {
        dj_run *run = list_first(&unbegun, dj_run, link);
        list_remove(&run->link);
        run->op = OP_OTHER;
        run->kind = "yield";
        run->result = strdup("{}");
        worker_take_outcome(worker, run);
    }
}

/* What waits here for the database waits no more: handlers that are parked go on and hear that the
 * run is not theirs, so that they return; and a run without a handler is done with. */
static void dismiss_parked(dj_worker *worker) {
    struct list parked;
    list_init(&parked);
    int count = 0;
    list_splice(&worker->asking, &parked);
    for (int i = 0; i < worker->line_count; i++) {
        list_splice(&worker->lines[i].pending, &parked);
        worker->lines[i].pending_count = 0;
        while (!list_is_empty(&worker->lines[i].late)) {
            dj_run *run = list_first(&worker->lines[i].late, dj_run, watch.link);
            list_remove(&run->watch.link);
            worker_late_gone(worker, run);
        }
    }
    struct list resumed;
    list_init(&resumed);
    while (!list_is_empty(&parked)) {
        dj_run *run = list_first(&parked, dj_run, link);
        list_remove(&run->link);
        run->verdict = DJ_LEASE_LOST;
        if (run->fiber != NULL) {
            list_push(&resumed, &run->link);
            count++;
        } else {
            worker_release(worker, run);
        }
    }
    worker_resume(worker, &resumed, count);
}

static void worker_stop(dj_worker *worker) {
    (void)event_base_loopbreak(worker->base);
}

void worker_check_drained(dj_worker *worker) {
    if (!atomic_load(&worker->draining) || worker->leaving) {
        return;
    }
    if (!worker->registered) { /* there is no other life, and so no turn */
        dismiss_parked(worker);
    }
    bool over = clock_ms() >= worker->drain_until_ms || atomic_load(&worker->drain_asked) > 1;
    /* What these bring has to go back first: runs, or a life that nobody would have. */
    bool coming = worker->control_connecting && !worker->registered;
    for (int i = 0; i < worker->line_count; i++) {
        coming |= worker->lines[i].turning && worker->lines[i].slots_asked > 0;
    }
    if ((worker->in_hand > 0 || coming) && !over) {
        return;
    }
    if (worker->in_hand > 0) {
        log_warning("worker.grace_over", "in_hand", LOG_INT(worker->in_hand));
    }
    FAILPOINT("drain.leaving");
    worker->leaving = true;
    if (db_pipeline_is_open(&worker->control) && worker->registered) {
        leave_send(worker); /* stops when it is answered */
        worker->drain_until_ms = clock_ms() + 2000;
    } else {
        worker_stop(worker); /* the reaper finds what we could not say */
    }
}

static void begin_drain(dj_worker *worker) {
    atomic_store(&worker->draining, true);
    worker->drain_until_ms = clock_ms() + worker->grace_ms;
    log_info("worker.draining", "in_hand", LOG_INT(worker->in_hand));
    worker_tell_life(worker);
    FAILPOINT("drain.begun");
    give_back_unbegun(worker);
    FAILPOINT("drain.given_back");
    if (worker->endpoints != NULL) {
        endpoints_give_back(worker->endpoints);
    }
    beat_send(worker);
}

static void on_mail(evutil_socket_t fd, short what, void *context) {
    dj_worker *worker = context;
    (void)fd;
    (void)what;
    int crash_signal;
    dj_run *crashed = crash_taken(&crash_signal);
    if (crashed != NULL && crashed->worker == worker) {
        crash_send(worker, crashed, crash_signal);
        return;
    }
    take_outcomes(worker);
    if (atomic_load(&worker->drain_asked) > 0 && !atomic_load(&worker->draining)) {
        begin_drain(worker);
    }
    turns_consider(worker);
    worker_check_drained(worker);
}

static void on_linger(evutil_socket_t fd, short what, void *context) {
    (void)fd;
    (void)what;
    turns_start(context);
}

/* A life is over: no run in hand is ours, and what is on its way is of no interest. */
static void end_life(dj_worker *worker) {
    worker->registered = false;
    atomic_store(&worker->sure_until_ms, 0);
    list_for_each(run, &worker->hand, dj_run, hand_link) {
        atomic_store(&run->lost, true);
    }
    db_pipeline_close(&worker->control);
    lines_close(worker);
    spare_trim(worker, /* age_ms= */ 0);
    dismiss_parked(worker);
}

void worker_lose_all(dj_worker *worker) {
    end_life(worker);
    control_connect(worker); /* a new life, if it is to have one, begins with a registration */
}

/* Steps that are over their time: the loop says so in their place. */
static void check_watches(dj_worker *worker) {
    int64_t now = clock_ms();
    list_for_each(run, &worker->hand, dj_run, hand_link) {
        int64_t until_ms = atomic_load(&run->watch.until_ms);
        if (run->with_handler && until_ms != WATCH_NONE && until_ms != WATCH_LATE &&
            until_ms <= now &&
            atomic_compare_exchange_strong(&run->watch.until_ms, &until_ms, WATCH_LATE)) {
            log_warning("step.late", "run", run->id_text);
            pool_note_stuck(&worker->pool, 1);
            list_push(&run->line->late, &run->watch.link);
        }
    }
}

/* Four times a second: what no event tells. */
static void on_tick(evutil_socket_t fd, short what, void *context) {
    dj_worker *worker = context;
    (void)fd;
    (void)what;
    int64_t now = clock_ms();
    worker_tell_life(worker);
    check_watches(worker);
    pool_look(&worker->pool);
    /* What may wait here is what is begun within a few milliseconds: the rest is better left to
     * others. */
    int window_max = worker->pool.threads_max + worker->begun_count * WINDOW_MS / TICK_MS;
    worker->begun_count = 0;
    if (worker->window > window_max) {
        worker->window = window_max;
    }
    if (worker->in_hand > 0) {
        worker->idle_since_ms = 0;
    } else if (worker->idle_since_ms == 0) {
        worker->idle_since_ms = now;
    } else if (worker->idle_since_ms > 0 && now - worker->idle_since_ms > IDLE_TRIM_MS) {
        fiber_trim(1);
        (void)malloc_trim(0);
        worker->idle_since_ms = -1; /* once */
    }
    spare_trim(worker, SPARE_CONNECTION_MS);
    if (worker->leaving && now > worker->drain_until_ms) {
        worker_stop(worker);
    }
    if (worker->endpoints != NULL) {
        endpoints_tick(worker->endpoints);
    }
    turns_start(worker);
    worker_check_drained(worker);
}

static void on_poll(evutil_socket_t fd, short what, void *context) {
    dj_worker *worker = context;
    (void)fd;
    (void)what;
    turn_hint(worker, /* event= */ false);
    struct timeval next = timeval_of_ms(with_jitter(POLL_MS));
    (void)event_add(worker->poll_timer, &next);
}

/* The public face. */

static dj_status copy_text(const char *text, char **ret_copy) {
    *ret_copy = text == NULL ? NULL : strdup(text);
    return text != NULL && *ret_copy == NULL ? dj_fail(DJ_NO_MEMORY, "no memory") : DJ_OK;
}

static dj_status check_range(const char *name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s %lld is out of range; %lld to %lld is allowed",
                       name, (long long)value, (long long)low, (long long)high);
    }
    return DJ_OK;
}

static dj_status worker_configure(dj_worker *worker, const dj_worker_options *options) {
    char host[256] = "worker";
    (void)gethostname(host, sizeof host - 1);
    worker->slots_max = options->slots != 0 ? options->slots : SLOTS_DEFAULT;
    worker->line_count = options->connections != 0 ? options->connections : 2;
    worker->ttl_ms = options->lease_ttl_ms != 0 ? options->lease_ttl_ms : TTL_MS_DEFAULT;
    worker->grace_ms = options->grace_ms != 0 ? options->grace_ms : GRACE_MS_DEFAULT;
    int threads = options->threads != 0 ? options->threads : THREADS_DEFAULT;
    DJ_TRY(check_range("slots", worker->slots_max, 1, SLOTS_MAX));
    DJ_TRY(check_range("threads", threads, 1, 1024));
    DJ_TRY(check_range("connections", worker->line_count, 1, LINES_MAX));
    DJ_TRY(check_range("lease_ttl_ms", worker->ttl_ms, 1000, 3600000));
    DJ_TRY(check_range("grace_ms", worker->grace_ms, 1, 3600000));
    if (threads > worker->slots_max) {
        threads = worker->slots_max;
    }
    worker->window = threads;
    DJ_TRY(copy_text(options->conninfo, &worker->conninfo));
    DJ_TRY(copy_text(options->name != NULL ? options->name : host, &worker->name));
    DJ_TRY(copy_text(options->namespace_ != NULL ? options->namespace_ : "default",
                     &worker->namespace_));
    DJ_TRY(copy_text(options->queues, &worker->queues));
    DJ_TRY(check_name("namespace", worker->namespace_));
    if (options->on_log != NULL) {
        log_set_sink(options->on_log, options->on_log_context);
    }
    return pool_init(&worker->pool, threads);
}

static dj_status worker_make_events(dj_worker *worker) {
    struct event_config *config = event_config_new();
    if (config == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for the event loop");
    }
    (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_PRECISE_TIMER);
    worker->base = event_base_new_with_config(config);
    event_config_free(config);
    if (worker->base == NULL) {
        return dj_fail(DJ_NO_MEMORY, "cannot make the event loop");
    }
    struct event_base *base = worker->base;
    worker->mail_event =
        event_new(base, worker->outcomes.fd, EV_READ | EV_PERSIST, on_mail, worker);
    worker->connect_event =
        event_new(base, worker->connected.fd, EV_READ | EV_PERSIST, on_connected, worker);
    worker->beat_timer = event_new(base, -1, EV_PERSIST, on_beat_timer, worker);
    worker->tick_timer = event_new(base, -1, EV_PERSIST, on_tick, worker);
    worker->poll_timer = event_new(base, -1, 0, on_poll, worker);
    worker->linger_timer = event_new(base, -1, 0, on_linger, worker);
    bool complete = worker->mail_event != NULL && worker->connect_event != NULL &&
                    worker->beat_timer != NULL && worker->tick_timer != NULL &&
                    worker->poll_timer != NULL && worker->linger_timer != NULL;
    return complete ? DJ_OK : dj_fail(DJ_NO_MEMORY, "no memory for the worker's events");
}

dj_status dj_worker_new(const dj_worker_options *options, dj_worker **ret_worker) {
    static const dj_worker_options defaults;
    dj_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a worker");
    }
    worker->outcomes.fd = worker->connected.fd = -1;
    list_init(&worker->hand);
    list_init(&worker->asking);
    (void)pthread_mutex_init(&worker->spare_mutex, NULL);
    dj_status status = worker_configure(worker, options != NULL ? options : &defaults);
    if (status == DJ_OK) {
        status = mailbox_init(&worker->outcomes);
    }
    if (status == DJ_OK) {
        status = mailbox_init(&worker->connected);
    }
    if (status == DJ_OK) {
        status = worker_make_events(worker);
    }
    if (status == DJ_OK && options != NULL && options->call_endpoints) {
        status = endpoints_new(worker, options, &worker->endpoints);
    }
    if (status != DJ_OK) {
        dj_worker_free(worker);
        return status;
    }
    *ret_worker = worker;
    return DJ_OK;
}

static void event_drop(struct event *event) {
    if (event != NULL) {
        event_free(event);
    }
}

void dj_worker_free(dj_worker *worker) {
    if (worker == NULL) {
        return;
    }
    for (int i = 0; i < worker->job_count; i++) {
        free(worker->jobs[i].name);
        free(worker->jobs[i].version);
        free(worker->jobs[i].options_json);
    }
    free(worker->jobs);
    free(worker->conninfo);
    free(worker->name);
    free(worker->namespace_);
    free(worker->queues);
    struct event *events[] = { worker->control_retry, worker->beat_timer, worker->poll_timer,
                               worker->tick_timer,    worker->mail_event, worker->connect_event,
                               worker->linger_timer };
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        event_drop(events[i]);
    }
    for (int i = 0; i < worker->line_count && i < LINES_MAX; i++) {
        event_drop(worker->lines[i].retry);
    }
    endpoints_free(worker->endpoints);
    if (worker->base != NULL) {
        event_base_free(worker->base);
    }
    mailbox_done(&worker->outcomes);
    mailbox_done(&worker->connected);
    free(worker);
}

static dj_status job_options(const dj_job_options *options, struct job *job) {
    json_object *json = json_object_new_object();
    if (options->max_attempts < 0 || options->max_crashes < 0) {
        json_object_put(json);
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "max_attempts and max_crashes of job %s must not be "
                       "negative; 0 means the default",
                       job->name);
    }
    if (options->max_attempts > 0) {
        json_object_object_add(json, "maxAttempts", json_object_new_int(options->max_attempts));
    }
    if (options->max_crashes > 0) {
        json_object_object_add(json, "maxCrashes", json_object_new_int(options->max_crashes));
    }
    if (options->version != NULL) {
        json_object_object_add(json, "version", json_object_new_string(options->version));
    }
    json_object *policy = backoff_json(&options->backoff);
    if (json_object_object_length(policy) > 0) {
        json_object_object_add(json, "backoff", json_object_get(policy));
    }
    json_object_put(policy);
    dj_status status = backoff_check(&options->backoff);
    if (status == DJ_OK) {
        status = copy_text(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN),
                           &job->options_json);
    }
    json_object_put(json);
    return status == DJ_OK ? copy_text(options->version, &job->version) : status;
}

dj_status dj_worker_register(dj_worker *worker, const char *name, dj_handler handler,
                             const dj_job_options *options) {
    static const dj_job_options defaults;
    DJ_TRY(check_name("job", name));
    if (handler == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "handler of job %s must not be NULL", name);
    }
    for (int i = 0; i < worker->job_count; i++) {
        if (strcmp(worker->jobs[i].name, name) == 0) {
            return dj_fail(DJ_INVALID_ARGUMENT, "job %s is registered already", name);
        }
    }
    struct job *jobs = realloc(worker->jobs, (size_t)(worker->job_count + 1) * sizeof *jobs);
    if (jobs == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a job");
    }
    worker->jobs = jobs;
    if (options == NULL) {
        options = &defaults;
    }
    struct job job = { .handler = handler, .context = options->context };
    dj_status status = copy_text(name, &job.name);
    if (status == DJ_OK) {
        status = job_options(options, &job);
    }
    if (status != DJ_OK) {
        free(job.name);
        free(job.options_json);
        return status;
    }
    jobs[worker->job_count++] = job;
    return DJ_OK;
}

static int compare_jobs(const void *a, const void *b) {
    return strcmp(((const struct job *)a)->name, ((const struct job *)b)->name);
}

/* The runs that the grace time was too short for are somebody else's by now, or will be. Those
 * without a handler are released. Handlers hear of it, and have a moment to return; one that is
 * parked would else never free what it has. */
static void let_go(dj_worker *worker) {
    give_back_unbegun(worker);
    end_life(worker);
    list_for_each(run, &worker->hand, dj_run, hand_link) {
        if (run->call != NULL) {
            endpoint_call_drop(run);
            worker_release(worker, run);
        }
    }
    int64_t until_ms = clock_boot_ms() + LET_GO_MS;
    for (int64_t left_ms = LET_GO_MS; worker->in_hand > 0 && left_ms > 0;
         left_ms = until_ms - clock_boot_ms()) {
        struct pollfd outcomes = { .fd = worker->outcomes.fd, .events = POLLIN };
        (void)poll(&outcomes, 1, (int)left_ms);
        take_outcomes(worker);
        dismiss_parked(worker); /* who had a step to commit when it was told */
    }
}

dj_status dj_worker_run(dj_worker *worker) {
    if (worker->conninfo == NULL && getenv("DURABLE_DATABASE_URL") == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "no database is named; set DURABLE_DATABASE_URL");
    }
    if (worker->job_count == 0 && worker->endpoints == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "no job is registered; register at least one");
    }
    if (worker->job_count > 0) {
        qsort(worker->jobs, (size_t)worker->job_count, sizeof *worker->jobs, compare_jobs);
    }
    srandom((unsigned int)clock_us() ^ (unsigned int)getpid());
    lines_connect(worker);
    int64_t beat_ms = worker->ttl_ms / 4 < BEAT_MS_MAX ? worker->ttl_ms / 4 : BEAT_MS_MAX;
    struct timeval beat = timeval_of_ms(beat_ms);
    struct timeval tick = timeval_of_ms(TICK_MS);
    struct timeval poll = timeval_of_ms(with_jitter(POLL_MS));
    if (event_add(worker->mail_event, NULL) != 0 || event_add(worker->connect_event, NULL) != 0 ||
        event_add(worker->beat_timer, &beat) != 0 || event_add(worker->tick_timer, &tick) != 0 ||
        event_add(worker->poll_timer, &poll) != 0) {
        return dj_fail(DJ_NO_MEMORY, "cannot start the worker's events");
    }
    (void)event_base_dispatch(worker->base);
    FAILPOINT("drain.left");
    let_go(worker);
    bool quiet = pool_stop(&worker->pool, worker->in_hand > 0 ? 0 : 1000) && worker->in_hand == 0;
    spare_trim(worker, 0);
    quiet = lines_settle(worker, 11000) && quiet; /* a connection is given up after 10 s */
    if (!quiet) { /* threads in handlers that did not come back: what they use has to stay */
        return dj_fail(DJ_TIMEOUT, "%d handlers did not come back within the grace time",
                       worker->in_hand);
    }
    fiber_trim(0);
    return DJ_OK;
}

void dj_worker_drain(dj_worker *worker) {
    (void)atomic_fetch_add(&worker->drain_asked, 1);
    mailbox_wake(&worker->outcomes);
}
