/* Connections are made on a thread of their own, because libpq resolves names blocking, and come
 * back by themselves, later after each failure, with jitter. One batch at a time is on its way on
 * each: so a statement that waits for a lock keeps only its own connection, for lock_timeout at
 * most, and what gathers meanwhile can go together. A query in flight is never cancelled: a commit
 * that waits for its standby would be taken for one that has it. */
#include "server/api/database.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/db_conn.h"
#include "common/db_connect.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/mailbox.h"
#include <stdlib.h>
#include <string.h>

#define QUEUE_MAX 20000

struct work {
    struct list link;
    const struct db_call *calls[2];
    struct db_params params[2];
    int call_count;
    work_fill_fn fill;
    work_done_fn on_done;
    void *context;
};

struct line {
    struct database *database;
    struct db_pipeline pipeline;
    struct event *retry;
    struct work *work; /* on its way; NULL: free */
    int failures;
    struct connecting *connecting; /* NULL: it is not */
};

struct database {
    struct event_base *base;
    const char *conninfo;
    struct mailbox connected;
    struct event *on_connected;
    struct list queue;
    int queued, up, line_count;
    void (*on_notify)(const char *channel);
    void (*on_up)(void);
    struct line lines[64];
};

struct connecting {
    struct db_connect base;
    struct line *line;
};

/* One does: any notification, as that of a start, wakes every session that listens to anything.
 * Until it is back after a break, what it would have heard is not known here; then all is asked
 * for. */
static bool line_listens(const struct line *line) {
    return line == &line->database->lines[0];
}

static dj_status connect_session(struct db_connect *base) {
    struct connecting *attempt = list_item(base, struct connecting, base);
    static const struct db_call *const calls[] = {
        &CALL_AS_NAMESPACE,     &CALL_KEY_FIND,
        &CALL_START_BATCH,      &CALL_RUN_TEXT,
        &CALL_RESULT_TEXT,      &CALL_ENDED_RUNS,
        &CALL_RUNS_PAGE,        &CALL_TIMELINE_PAGE,
        &CALL_STEPS_PAGE,       &CALL_ATTEMPTS_PAGE,
        &CALL_LOGS_PAGE,        &CALL_WHY_TEXT,
        &CALL_STREAM_IS_OVER,   &CALL_STREAM_TAILS,
        &CALL_CANCEL_TEXT,      &CALL_RETRY_TEXT,
        &CALL_RESCHEDULE_TEXT,  &CALL_BULK,
        &CALL_EVENT_TEXT,       &CALL_RELEASE_KEY_TEXT,
        &CALL_QUEUES_TEXT,      &CALL_SET_QUEUE_TEXT,
        &CALL_PAUSE_QUEUE_TEXT, &CALL_WORKERS_TEXT,
        &CALL_COMMIT_SECRET,    &CALL_COMMIT_OPS,
        &CALL_COMMIT_REF,       &CALL_ENDPOINT_PUT,
        &CALL_ENDPOINT_ROTATE,  &CALL_ENDPOINT_SYNCED,
        &CALL_ENDPOINT_TARGET,  &CALL_ENDPOINT_TEXT,
        &CALL_ENDPOINT_CHANGE,  &CALL_ENDPOINTS_TEXT,
        &CALL_API_STATE_GET,    &CALL_API_STATE_SET,
        &CALL_API_STATE_DELETE, &CALL_API_STATE_INCREMENT,
        &CALL_API_STATE_LOCK,   &CALL_API_STATE_UNLOCK,
    };
    DJ_TRY(db_conn_open(attempt->line->database->conninfo, "durable-server", &base->conn));
    FAILPOINT_SOCKET("database.opened", PQsocket(base->conn));
    DJ_TRY(db_conn_check_session(base->conn, attempt->line->database->conninfo));
    DJ_TRY(db_session_set(base->conn,
                          "set lock_timeout = '1s'; set statement_timeout = '30s'; set jit = off; "
                          "set idle_in_transaction_session_timeout = '10s'"));
    if (line_listens(attempt->line)) {
        AUTO(pgresult)
        PGresult *listening = PQexec(base->conn, "listen durable_keys; listen durable_ended");
        if (PQresultStatus(listening) != PGRES_COMMAND_OK) {
            return dj_fail_result(listening);
        }
    }
    struct db_params none;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&none);
    dj_status status = db_exec(base->conn, &CALL_API_SESSION, &none, &rows);
    params_done(&none);
    DJ_TRY(status);
    return db_prepare(base->conn, calls, sizeof calls / sizeof *calls);
}

static void line_connect(struct line *line) {
    struct connecting *attempt = calloc(1, sizeof *attempt);
    check(attempt != NULL);
    attempt->line = line;
    line->connecting = attempt;
    db_connect_begin(&attempt->base, connect_session, &line->database->connected);
}

static void line_connect_later(struct line *line) {
    int64_t ms = db_connect_delay_ms(line->failures);
    struct timeval delay = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
    (void)event_add(line->retry, &delay);
}

static void on_retry(evutil_socket_t fd, short what, void *context) {
    (void)fd;
    (void)what;
    line_connect(context);
}

static void work_free(struct work *work) {
    for (int i = 0; i < work->call_count; i++) {
        params_done(&work->params[i]);
    }
    free(work);
}

static void work_finish(struct work *work, const struct work_end *end) {
    work->on_done(work->context, end);
    work_free(work);
}

static void work_fail(struct work *work, dj_status status, const char *message) {
    work_finish(work, &(struct work_end){ .status = status, .message = message });
}

static void lines_feed(struct database *database);

static void on_batch_done(struct db_batch *batch) {
    struct line *line = batch->context;
    struct work *work = TAKE(line->work);
    FAILPOINT_ANSWER("work.answered", batch, &line->pipeline);
    bool answered = batch->results[work->call_count - 1] != NULL;
    struct work_end end = {
        .status = batch->status,
        .message = batch->message,
        .rows = batch->status == DJ_OK ? batch->results[work->call_count - 1] : NULL,
        .executed = batch->status != DJ_OK && (batch->broken || answered),
    };
    if (end.status == DJ_OK && PQntuples(batch->results[0]) == 0 && work->call_count > 1) {
        end.status = DJ_INTERNAL;
        end.message = "a call was answered without rows";
    }
    work_finish(work, &end);
    lines_feed(line->database);
}

static void line_take(struct line *line, struct work *work) {
    struct db_params *params[2] = { &work->params[0], &work->params[1] };
    int count = work->call_count;
    assert(count >= 1 && count <= 2);
    line->work =
        work; /* before it is filled: that may send what is left, which is for other lines */
    if (work->fill != NULL) {
        work->fill(work->context, &work->params[count - 1]);
    }
    for (int i = 0; i < count; i++) {
        dj_status status = params_status(params[i]);
        if (status != DJ_OK) {
            line->work = NULL;
            work_fail(work, status,
                      status == DJ_NO_MEMORY ? "out of memory" : "the values are too large");
            return;
        }
    }
    db_pipeline_send(&line->pipeline, work->calls, params, work->call_count, on_batch_done, line);
    FAILPOINT_SOCKET("work.sent", PQsocket(line->pipeline.conn));
}

static void lines_feed(struct database *database) {
    for (int i = 0; i < database->line_count; i++) {
        struct line *line = &database->lines[i];
        while (!list_is_empty(&database->queue) && line->work == NULL &&
               db_pipeline_is_open(&line->pipeline)) {
            struct work *work = list_first(&database->queue, struct work, link);
            list_remove(&work->link);
            database->queued--;
            line_take(line, work);
        }
    }
}

static void queue_fail(struct database *database) {
    while (!list_is_empty(&database->queue)) {
        struct work *work = list_first(&database->queue, struct work, link);
        list_remove(&work->link);
        database->queued--;
        work_fail(work, DJ_UNAVAILABLE, "the database cannot be reached");
    }
}

static void on_broken(struct db_pipeline *pipeline) {
    struct line *line = pipeline->context;
    db_pipeline_close(pipeline);
    if (--line->database->up == 0) {
        log_warning("database.down", "reason", "the last connection is gone");
        queue_fail(line->database);
    }
    line_connect_later(line);
}

static void on_notify(struct db_pipeline *pipeline, const PGnotify *notify) {
    const struct line *line = pipeline->context;
    if (line->database->on_notify != NULL) {
        line->database->on_notify(notify->relname);
    }
}

static void connect_done(struct connecting *attempt) {
    struct line *line = attempt->line;
    struct database *database = line->database;
    line->connecting = NULL;
    if (attempt->base.status == DJ_OK) {
        attempt->base.status =
            db_pipeline_open(&line->pipeline, database->base, attempt->base.conn);
    }
    if (attempt->base.status != DJ_OK) {
        log_warning("database.not_connected", "reason", attempt->base.message);
        line->failures++;
        line_connect_later(line);
        return;
    }
    line->failures = 0;
    FAILPOINT_SOCKET("database.connected", PQsocket(line->pipeline.conn));
    if (database->up++ == 0) {
        log_info("database.up");
    }
    if (database->on_up != NULL) {
        database->on_up(); /* notifications may have been missed */
    }
    lines_feed(database);
}

/* The next finished attempt; NULL: none. */
static struct connecting *connect_taken(struct list *attempts) {
    struct db_connect *base = db_connect_taken(attempts);
    return base == NULL ? NULL : list_item(base, struct connecting, base);
}

static void take_connected(struct database *database) {
    struct list attempts;
    list_init(&attempts);
    mailbox_take(&database->connected, &attempts);
    for (struct connecting *attempt; (attempt = connect_taken(&attempts)) != NULL;) {
        connect_done(attempt);
        free(attempt);
    }
}

static void on_connected(evutil_socket_t fd, short what, void *context) {
    (void)fd;
    (void)what;
    take_connected(context);
}

dj_status database_open(struct event_base *base, const char *conninfo, int connections,
                        struct database **ret_database) {
    struct database *database = calloc(1, sizeof *database);
    check(database != NULL && connections <= (int)(sizeof database->lines / sizeof(struct line)));
    database->base = base;
    database->conninfo = conninfo;
    database->line_count = connections;
    list_init(&database->queue);
    dj_status status = mailbox_init(&database->connected);
    if (status != DJ_OK) {
        free(database);
        return status;
    }
    database->on_connected =
        event_new(base, database->connected.fd, EV_READ | EV_PERSIST, on_connected, database);
    check(database->on_connected != NULL && event_add(database->on_connected, NULL) == 0);
    for (int i = 0; i < connections; i++) {
        struct line *line = &database->lines[i];
        line->database = database;
        line->pipeline =
            (struct db_pipeline){ .on_broken = on_broken, .on_notify = on_notify, .context = line };
        list_init(&line->pipeline.sent);
        line->retry = event_new(base, -1, 0, on_retry, line);
        check(line->retry != NULL);
        line_connect(line);
    }
    *ret_database = database;
    return DJ_OK;
}

bool database_is_up(const struct database *database) {
    return database->up > 0;
}

bool database_stop(struct database *database) {
    struct list attempts;
    list_init(&attempts);
    mailbox_take(&database->connected, &attempts);
    for (struct connecting *attempt; (attempt = connect_taken(&attempts)) != NULL;) {
        attempt->line->connecting = NULL;
        db_conn_close(attempt->base.conn);
        free(attempt);
    }
    bool all = true;
    for (int i = 0; i < database->line_count; i++) {
        if (database->lines[i].connecting != NULL) {
            db_connect_abandon(&database->lines[i].connecting->base);
            all = false;
        }
    }
    return all;
}

void database_on_notify(struct database *database, void (*call)(const char *channel),
                        void (*on_up)(void)) {
    database->on_notify = call;
    database->on_up = on_up;
}

struct work *work_new(const struct db_call *call, int32_t namespace_id) {
    struct work *work = calloc(1, sizeof *work);
    check(work != NULL);
    if (namespace_id != 0) {
        work->calls[0] = &CALL_AS_NAMESPACE;
        params_init(&work->params[0]);
        params_add_int4(&work->params[0], namespace_id);
        work->call_count = 1;
    }
    work->calls[work->call_count] = call;
    params_init(&work->params[work->call_count++]);
    return work;
}

struct db_params *work_params(struct work *work) {
    return &work->params[work->call_count - 1];
}

void work_drop(struct work *work) {
    work_free(work);
}

void work_fill_late(struct work *work, work_fill_fn fill) {
    work->fill = fill;
}

void database_send(struct database *database, struct work *work, work_done_fn on_done,
                   void *context) {
    work->on_done = on_done;
    work->context = context;
    if (database->up == 0) {
        work_fail(work, DJ_UNAVAILABLE, "the database cannot be reached");
        return;
    }
    if (database->queued >= QUEUE_MAX) {
        work_fail(work, DJ_UNAVAILABLE, "too many requests wait for the database");
        return;
    }
    list_push(&database->queue, &work->link);
    database->queued++;
    FAILPOINT("work.queued");
    lines_feed(database);
}
