/* Connections: made on a thread of their own, because libpq resolves names blocking; kept on the
 * loop. Each comes back by itself, later after each failure, with jitter, so that a fleet does not
 * storm a database that has just come up. The first one made is the control connection: it
 * registers the worker. */
#include "worker/fleet.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_connect.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "worker/endpoint.h"
#include <durable/version.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct connecting {
    struct db_connect base;
    dj_worker *worker;
    struct worker_line *line; /* NULL: the control connection */
    bool register_worker;
    struct uuid id;
    int number;
};

static void params_register(struct db_params *params, const dj_worker *worker,
                            const struct uuid *id) {
    params_add_uuid(params, id);
    params_add_text(params, worker->namespace_);
    params_add_text(params, worker->name);
    params_add_int4(params, (int32_t)getpid());
    params_add_text(params, DURABLE_VERSION);
    params_add_int4(params, worker->slots_max);
    params_add_int8(params, worker->ttl_ms);
    params_array_begin(params, DB_TEXT);
    for (int i = 0; i < worker->job_count; i++) {
        params_array_text(params, worker->jobs[i].name);
    }
    params_array_end(params);
    params_array_begin(params, DB_JSONB);
    for (int i = 0; i < worker->job_count; i++) {
        params_array_jsonb(params, worker->jobs[i].options_json);
    }
    params_array_end(params);
    params_add_text(params, worker->queues);
}

/* A new life: an id that was never there. */
static dj_status connect_register(struct connecting *attempt) {
    struct db_params params;
    AUTO(pgresult) PGresult *id = NULL;
    params_init(&params);
    dj_status status = db_exec(attempt->base.conn, &CALL_UUID_V7, &params, &id);
    params_done(&params);
    DJ_TRY(status);
    DJ_TRY(rows_uuid(id, 0, 0, &attempt->id));
    AUTO(pgresult) PGresult *number = NULL;
    params_init(&params);
    params_register(&params, attempt->worker, &attempt->id);
    status = db_exec(attempt->base.conn, &CALL_WORKER_REGISTER, &params, &number);
    params_done(&params);
    FAILPOINT_CALL("register.answered", attempt->base.conn, status);
    DJ_TRY(status);
    return rows_int4(number, 0, 0, &attempt->number);
}

static dj_status connect_session(struct db_connect *base) {
    struct connecting *attempt = list_item(base, struct connecting, base);
    static const struct db_call *const control_calls[] = {
        &CALL_BEAT,          &CALL_WORKER_LEAVE,  &CALL_WORKER_CRASHED, &CALL_WORKER_ENDPOINTS,
        &CALL_ENDPOINT_WELL, &CALL_COMMIT_SECRET,
    };
    static const struct db_call *const line_calls[] = { &CALL_LOCK_TURN, &CALL_COMMIT, &CALL_CLAIM,
                                                        &CALL_CLAIM_TURN, &CALL_RECONCILE };
    DJ_TRY(db_conn_open(attempt->worker->conninfo, "durable-worker", &base->conn));
    FAILPOINT_SOCKET("connect.opened", PQsocket(base->conn));
    if (attempt->line == NULL) { /* the first of all */
        DJ_TRY(db_conn_check_session(base->conn, attempt->worker->conninfo));
    }
    DJ_TRY(db_session_set(base->conn, "set lock_timeout = '5s'; set statement_timeout = '30s'; "
                                      "set idle_in_transaction_session_timeout = '10s'"));
    if (attempt->register_worker) {
        DJ_TRY(connect_register(attempt));
    }
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_uuid(&params, &attempt->id);
    dj_status status = db_exec(base->conn, &CALL_WORKER_SESSION, &params, &rows);
    params_done(&params);
    FAILPOINT_CALL("session.answered", base->conn, status);
    DJ_TRY(status);
    if (attempt->line != NULL) {
        return db_prepare(base->conn, line_calls, sizeof line_calls / sizeof *line_calls);
    }
    DJ_TRY(db_prepare(base->conn, control_calls, sizeof control_calls / sizeof *control_calls));
    AUTO(pgresult)
    PGresult *listen = PQexec(base->conn, "listen durable_ready; listen durable_endpoints");
    return PQresultStatus(listen) == PGRES_COMMAND_OK ? DJ_OK : dj_fail_result(listen);
}

static void connect_begin(dj_worker *worker, struct worker_line *line) {
    struct connecting *attempt = calloc(1, sizeof *attempt);
    check(attempt != NULL);
    attempt->worker = worker;
    attempt->line = line;
    attempt->register_worker = line == NULL && !worker->registered;
    attempt->id = worker->id;
    db_connect_begin(&attempt->base, connect_session, &worker->connected);
}

static void line_connect(struct worker_line *line) {
    if (!line->connecting && line->worker->registered && !db_pipeline_is_open(&line->pipeline)) {
        line->connecting = true;
        connect_begin(line->worker, line);
    }
}

void control_connect(dj_worker *worker) {
    bool is_over = !worker->registered && worker_is_draining(worker); /* it begins no other life */
    if (!is_over && !worker->control_connecting && !db_pipeline_is_open(&worker->control)) {
        worker->control_connecting = true;
        connect_begin(worker, NULL);
    }
}

static struct timeval reconnect_delay(int failures) {
    return timeval_of_ms(db_connect_delay_ms(failures));
}

static void on_line_retry(evutil_socket_t fd, short what, void *context) {
    struct worker_line *line = context;
    (void)fd;
    (void)what;
    line_connect(line);
    turn_start(line);
}

static void on_control_retry(evutil_socket_t fd, short what, void *context) {
    (void)fd;
    (void)what;
    control_connect(context);
}

static void on_line_broken(struct db_pipeline *pipeline) {
    struct worker_line *line = pipeline->context;
    FAILPOINT("line.broken");
    if (line->pid != 0 && line->worker->gone_pid_count < GONE_PIDS_MAX) {
        line->worker->gone_pids[line->worker->gone_pid_count++] = line->pid;
    }
    line->pid = 0;
    line->worker->reconcile = true;
    db_pipeline_close(pipeline);
    struct timeval delay = reconnect_delay(0);
    (void)event_add(line->retry, &delay);
}

static void on_control_broken(struct db_pipeline *pipeline) {
    dj_worker *worker = pipeline->context;
    db_pipeline_close(pipeline);
    worker->beating = false;
    struct timeval delay = reconnect_delay(0);
    (void)event_add(worker->control_retry, &delay);
}

static void on_notify(struct db_pipeline *pipeline, const PGnotify *notify) {
    dj_worker *worker = pipeline->context;
    if (strcmp(notify->relname, "durable_endpoints") != 0) {
        turn_hint(worker, /* event= */ strcmp(notify->extra, "event") == 0);
    } else if (worker->endpoints != NULL) {
        endpoints_refresh(worker->endpoints);
    }
}

/* A connection is there, or is not: then it is tried again later. */
static void connect_done(struct connecting *attempt) {
    dj_worker *worker = attempt->worker;
    struct worker_line *line = attempt->line;
    struct db_pipeline *pipeline = line != NULL ? &line->pipeline : &worker->control;
    int *failures = line != NULL ? &line->failures : &worker->control_failures;
    bool stale = !attempt->register_worker &&
                 (!worker->registered || !uuid_equal(&attempt->id, &worker->id));
    if (attempt->base.status == DJ_OK && !stale) {
        int pid = PQbackendPID(attempt->base.conn);
        attempt->base.status = db_pipeline_open(pipeline, worker->base, TAKE(attempt->base.conn));
        if (line != NULL && attempt->base.status == DJ_OK) {
            line->pid = pid;
        }
    }
    if (attempt->base.conn != NULL) {
        db_conn_close(TAKE(attempt->base.conn));
    }
    if (stale) { /* of a life that is over; the next one has waited for its end */
        if (line != NULL) {
            line_connect(line);
        } else {
            control_connect(worker);
        }
        return;
    }
    if (attempt->base.status == DJ_LEASE_LOST) {
        worker_lose_all(worker);
        return;
    }
    if (attempt->base.status != DJ_OK) {
        struct timeval delay = reconnect_delay((*failures)++);
        log_warning("worker.not_connected", "reason", attempt->base.message);
        (void)event_add(line != NULL ? line->retry : worker->control_retry, &delay);
        return;
    }
    *failures = 0;
    if (line != NULL) {
        turn_start(line);
        return;
    }
    if (attempt->register_worker) {
        char text[UUID_TEXT_BYTES];
        worker->id = attempt->id;
        worker->number = attempt->number;
        worker->registered = true;
        worker->reconcile = false;
        worker->gone_pid_count = 0;
        uuid_print(&worker->id, text);
        log_info("worker.registered", "worker", text, "jobs", LOG_INT(worker->job_count));
        worker_tell_life(worker);
    }
    beat_send(worker);
    if (worker->endpoints != NULL) {
        endpoints_refresh(worker->endpoints);
    }
    for (int i = 0; i < worker->line_count; i++) {
        line_connect(&worker->lines[i]);
    }
    turn_hint(worker, /* event= */ false);
}

/* The next finished attempt; NULL: none. */
static struct connecting *connect_taken(struct list *attempts) {
    struct db_connect *base = db_connect_taken(attempts);
    return base == NULL ? NULL : list_item(base, struct connecting, base);
}

void on_connected(evutil_socket_t fd, short what, void *context) {
    dj_worker *worker = context;
    (void)fd;
    (void)what;
    struct list attempts;
    list_init(&attempts);
    mailbox_take(&worker->connected, &attempts);
    for (struct connecting *attempt; (attempt = connect_taken(&attempts)) != NULL;) {
        FAILPOINT("connect.taken");
        if (attempt->line != NULL) {
            attempt->line->connecting = false;
        } else {
            worker->control_connecting = false;
        }
        connect_done(attempt);
        free(attempt);
    }
}

void lines_connect(dj_worker *worker) {
    worker->control = (struct db_pipeline){ .on_broken = on_control_broken,
                                            .on_notify = on_notify,
                                            .context = worker };
    list_init(&worker->control.sent);
    worker->control_retry = event_new(worker->base, -1, 0, on_control_retry, worker);
    check(worker->control_retry != NULL);
    for (int i = 0; i < worker->line_count; i++) {
        struct worker_line *line = &worker->lines[i];
        *line = (struct worker_line){ .worker = worker, .index = i, .ops_max = TURN_OPS_MAX };
        line->pipeline = (struct db_pipeline){ .on_broken = on_line_broken, .context = line };
        list_init(&line->pipeline.sent);
        list_init(&line->pending);
        list_init(&line->late);
        list_init(&line->in_flight);
        list_init(&line->late_in_flight);
        line->retry = event_new(worker->base, -1, 0, on_line_retry, line);
        check(line->retry != NULL);
    }
    control_connect(worker);
}

void lines_close(dj_worker *worker) {
    for (int i = 0; i < worker->line_count; i++) {
        struct worker_line *line = &worker->lines[i];
        if (db_pipeline_is_open(&line->pipeline)) {
            db_pipeline_close(&line->pipeline);
        }
        line->pid = 0;
    }
}

bool lines_settle(dj_worker *worker, int64_t timeout_ms) {
    int64_t until = clock_boot_ms() + timeout_ms;
    for (;;) {
        bool connecting = worker->control_connecting;
        for (int i = 0; i < worker->line_count; i++) {
            connecting = connecting || worker->lines[i].connecting;
        }
        int64_t left = until - clock_boot_ms();
        if (!connecting || left <= 0) {
            return !connecting;
        }
        struct pollfd fd = { .fd = worker->connected.fd, .events = POLLIN };
        (void)poll(&fd, 1, (int)left);
        struct list attempts;
        list_init(&attempts);
        mailbox_take(&worker->connected, &attempts);
        for (struct connecting *attempt; (attempt = connect_taken(&attempts)) != NULL;) {
            *(attempt->line != NULL ? &attempt->line->connecting : &worker->control_connecting) =
                false;
            if (attempt->base.conn != NULL) {
                db_conn_close(attempt->base.conn);
            }
            free(attempt);
        }
    }
}
