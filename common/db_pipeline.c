/* libpq's pipeline mode on libevent. libpq hands out each statement's results and then NULL; and
 * after the last statement PGRES_PIPELINE_SYNC, with no NULL behind it. Batches are answered in the
 * order in which they were sent. On the loop thread. */
#include "common/db_pipeline.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/db_conn.h"
#include "common/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void db_batch_ignore(struct db_batch *batch) {
    (void)batch;
}

bool db_pipeline_is_open(const struct db_pipeline *pipeline) {
    return pipeline->conn != NULL;
}

static void batch_finish(struct db_batch *batch) {
    list_remove(&batch->link);
    batch->on_done(batch);
    for (int i = 0; i < batch->call_count; i++) {
        PQclear(batch->results[i]);
    }
    free(batch);
}

static void batch_fail(struct db_batch *batch, dj_status status) {
    batch->status = status;
    text_copy(batch->message, sizeof batch->message, dj_error_message());
}

/* The connection is gone. The callbacks may send nothing on it any more; on_broken closes it. */
static void pipeline_break(struct db_pipeline *pipeline) {
    (void)event_del(pipeline->readable);
    (void)event_del(pipeline->writable);
    dj_status status = dj_fail_pg(pipeline->conn);
    struct list lost;
    list_init(&lost);
    list_splice(&pipeline->sent, &lost);
    PQfinish(TAKE(pipeline->conn));
    while (!list_is_empty(&lost)) {
        struct db_batch *batch = list_first(&lost, struct db_batch, link);
        if (batch->status == DJ_OK || !batch->broken) {
            batch_fail(batch, status);
        }
        batch->status = DJ_UNAVAILABLE;
        batch->broken = true;
        batch_finish(batch);
    }
    pipeline->on_broken(pipeline);
}

#ifdef DURABLE_FAULT_INJECTION
void db_batch_lose(struct db_batch *batch, struct db_pipeline *pipeline,
                   enum failpoint_action action) {
    switch (action) {
    case FAILPOINT_NONE:
        return;
    case FAILPOINT_CUT: /* after this answer, which is heard */
        failpoint_cut(action, PQsocket(pipeline->conn));
        return;
    case FAILPOINT_DROP:
        batch->broken = true;
        pipeline_break(pipeline);
        break;
    case FAILPOINT_ERROR: /* as a commit that its standby has not confirmed */
        break;
    }
    batch_fail(batch, dj_fail(DJ_UNAVAILABLE, "a failpoint lost the answer"));
}
#endif

/* Takes one result in. False: this connection makes no sense any more. */
static bool pipeline_take_result(struct db_pipeline *pipeline, PGresult *given) {
    AUTO(pgresult) PGresult *result = given;
    struct db_batch *batch = list_first(&pipeline->sent, struct db_batch, link);
    if (result == NULL) {
        batch->call_done++;
        FAILPOINT_SOCKET("pipeline.half_answered", PQsocket(pipeline->conn));
        return batch->call_done <= batch->call_count; /* NULL in place of the sync: it broke */
    }
    switch (PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
        if (batch->call_done >= batch->call_count || batch->results[batch->call_done] != NULL) {
            return false;
        }
        batch->results[batch->call_done] = TAKE(result);
        return true;
    case PGRES_PIPELINE_ABORTED: /* an earlier statement failed; its reason is kept */
        return true;
    case PGRES_PIPELINE_SYNC:
        if (db_conn_commit_is_uncertain(pipeline->conn)) { /* said again, it waits for the standby,
                                                              and for what came before */
            batch_fail(batch,
                       dj_fail(DJ_UNAVAILABLE, "the commit was not confirmed by the standby"));
        }
        batch_finish(batch);
        return true;
    default: /* every other status is an error of this statement, or a broken connection */
        if (batch->status == DJ_OK) {
            batch_fail(batch, dj_fail_result(result));
        }
        return PQstatus(pipeline->conn) == CONNECTION_OK;
    }
}

static void on_readable(evutil_socket_t fd, short what, void *context) {
    struct db_pipeline *pipeline = context;
    (void)fd;
    (void)what;
    bool sane = PQconsumeInput(pipeline->conn) == 1;
    while (sane && !list_is_empty(&pipeline->sent) && PQisBusy(pipeline->conn) == 0) {
        sane = pipeline_take_result(pipeline, PQgetResult(pipeline->conn));
        if (pipeline->conn == NULL) {
            return; /* a callback closed it */
        }
    }
    for (PGnotify *notify; sane && (notify = PQnotifies(pipeline->conn)) != NULL;) {
        if (pipeline->on_notify != NULL) {
            pipeline->on_notify(pipeline, notify);
        }
        PQfreemem(notify);
    }
    if (!sane || PQstatus(pipeline->conn) != CONNECTION_OK) {
        pipeline_break(pipeline);
    }
}

static void pipeline_flush(struct db_pipeline *pipeline) {
    int left = PQflush(pipeline->conn);
    if (left < 0) {
        (void)PQconsumeInput(pipeline->conn); /* take in why, if it was said */
        event_active(pipeline->readable, EV_READ, 0);
    } else if (left > 0) {
        (void)event_add(pipeline->writable, NULL);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *context) {
    (void)fd;
    (void)what;
    pipeline_flush(context);
}

dj_status db_pipeline_open(struct db_pipeline *pipeline, struct event_base *base, PGconn *conn) {
    pipeline->conn = conn;
    list_init(&pipeline->sent);
    if (PQsetnonblocking(conn, 1) != 0 || PQenterPipelineMode(conn) != 1) {
        dj_status status = dj_fail_pg(conn);
        PQfinish(TAKE(pipeline->conn));
        return status;
    }
    pipeline->readable =
        event_new(base, PQsocket(conn), EV_READ | EV_PERSIST, on_readable, pipeline);
    pipeline->writable = event_new(base, PQsocket(conn), EV_WRITE, on_writable, pipeline);
    if (pipeline->readable == NULL || pipeline->writable == NULL ||
        event_add(pipeline->readable, NULL) != 0) {
        db_pipeline_close(pipeline);
        return dj_fail(DJ_NO_MEMORY, "no memory for a connection's events");
    }
    return DJ_OK;
}

void db_pipeline_close(struct db_pipeline *pipeline) {
    if (pipeline->readable != NULL) {
        event_free(TAKE(pipeline->readable));
    }
    if (pipeline->writable != NULL) {
        event_free(TAKE(pipeline->writable));
    }
    if (pipeline->conn != NULL) {
        PQfinish(TAKE(pipeline->conn));
    }
    while (pipeline->sent.next != NULL && !list_is_empty(&pipeline->sent)) {
        struct db_batch *batch = list_first(&pipeline->sent, struct db_batch, link);
        batch_fail(batch, dj_fail(DJ_UNAVAILABLE, "the connection was closed"));
        batch->broken = true;
        batch_finish(batch);
    }
}

void db_pipeline_send(struct db_pipeline *pipeline, const struct db_call *const calls[],
                      struct db_params *const params[], int call_count, db_batch_done_fn on_done,
                      void *context) {
    assert(call_count > 0 && call_count <= DB_BATCH_CALLS_MAX);
    assert(pipeline->conn != NULL);
    struct db_batch *batch = calloc(1, sizeof *batch);
    check(batch != NULL);
    batch->on_done = on_done;
    batch->context = context;
    batch->call_count = call_count;
    list_push(&pipeline->sent, &batch->link);
    int sent = FAILPOINT_FAILS("query.sent") ? 0 : 1;
    for (int i = 0; sent == 1 && i < call_count; i++) {
        sent = PQsendQueryPrepared(pipeline->conn, calls[i]->name, params[i]->count,
                                   params_values(params[i]), params[i]->lengths, params[i]->formats,
                                   /* resultFormat= */ 1);
        if (i + 1 < call_count) {
            FAILPOINT_SOCKET("pipeline.half_sent",
                             (PQflush(pipeline->conn), PQsocket(pipeline->conn)));
        }
    }
    FAILPOINT_SOCKET("pipeline.unsynced", (PQflush(pipeline->conn), PQsocket(pipeline->conn)));
    if (sent != 1 || PQpipelineSync(pipeline->conn) != 1) {
        /* Half a batch without a sync would never be answered: the connection has to go. It does so
         * from the loop and not from here, so that callers need not expect their callback inside.
         */
        (void)shutdown(PQsocket(pipeline->conn), SHUT_RDWR);
        event_active(pipeline->readable, EV_READ, 0);
        return;
    }
    pipeline_flush(pipeline);
}
