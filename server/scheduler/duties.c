/* The duties. All truth and all safety is in the functions (migrations/functions/23 to 32): any
 * number of schedulers may call them at once. */
#include "server/scheduler/duties.h"

#include "common/auto.h"
#include "common/clock.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_params.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/log.h"
#include <string.h>

#define BATCH_MAX 1000
#define FULL_SCAN_MS 10000
#define SCAN_BACK_S 60
#define HELD_MS 200
#define MARK_STEP 4096 /* a mark may lag by so many runs: each move leaves a dead row behind */

static dj_status call_int(PGconn *conn, const struct db_call *call, int32_t argument,
                          int32_t *ret_value) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_int4(&params, argument);
    dj_status status = db_exec_prepared(conn, call, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    return rows_int4(rows, 0, 0, ret_value);
}

static dj_status match(struct scheduler *scheduler, bool *ret_more) {
    int32_t done;
    FAILPOINT_SOCKET("match.before", PQsocket(scheduler->conn));
    dj_status status = call_int(scheduler->conn, &CALL_MATCH_TURN, BATCH_MAX, &done);
    FAILPOINT_CALL("match.answered", scheduler->conn, status);
    DJ_TRY(status);
    *ret_more = done > 0;
    return DJ_OK;
}

/* Now and then from the very beginning, else from a little back: dead rows pile up there while
 * somebody holds a snapshot. */
static dj_status promote(struct scheduler *scheduler, bool *ret_more) {
    int64_t now = clock_ms();
    bool full = now - scheduler->last_full_scan_ms >= FULL_SCAN_MS;
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_int4(&params, BATCH_MAX);
    params_add_int4(&params, full ? -1 : SCAN_BACK_S);
    FAILPOINT_SOCKET("promote.before", PQsocket(scheduler->conn));
    dj_status status = db_exec_prepared(scheduler->conn, &CALL_PROMOTE_DUE, &params, &rows);
    params_done(&params);
    FAILPOINT_CALL("promote.answered", scheduler->conn, status);
    DJ_TRY(status);
    int32_t promoted;
    int64_t due_in_ms = -1;
    DJ_TRY(rows_int4(rows, 0, 0, &promoted));
    if (!rows_is_null(rows, 0, 1)) {
        DJ_TRY(rows_int8(rows, 0, 1, &due_in_ms));
    }
    if (full &&
        promoted < BATCH_MAX) { /* else there may be more from long ago, as after an outage */
        scheduler->last_full_scan_ms = now;
    }
    if (due_in_ms == 0 && promoted == 0) {
        due_in_ms = HELD_MS; /* it is due, and somebody holds its run */
    }
    scheduler->next_due_ms = due_in_ms < 0 ? INT64_MAX : now + due_in_ms;
    *ret_more = promoted > 0;
    return DJ_OK;
}

static dj_status end_sessions(struct scheduler *scheduler, int32_t *ret_ended) {
    struct db_params params;
    AUTO(pgresult) PGresult *sessions = NULL;
    params_init(&params);
    FAILPOINT_SOCKET("end_sessions.before", PQsocket(scheduler->conn));
    dj_status status = db_exec_prepared(scheduler->conn, &CALL_END_SESSIONS, &params, &sessions);
    params_done(&params);
    FAILPOINT_CALL("end_sessions.answered", scheduler->conn, status);
    DJ_TRY(status);
    DJ_TRY(rows_int4(sessions, 0, 0, ret_ended));
    if (*ret_ended > 0) {
        log_warning("worker.sessions_ended", "count", LOG_INT(*ret_ended));
    }
    return DJ_OK;
}

/* A worker that froze in the middle of a transaction makes reap() run into its lock_timeout: then
 * its sessions are ended, and reap() is called again. So are those of each worker that was reaped:
 * what its steps' transactions have locked is what the next attempts need. */
static dj_status reap(struct scheduler *scheduler, bool *ret_more) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    int32_t ended = 0;
    params_init(&params);
    FAILPOINT_SOCKET("reap.before", PQsocket(scheduler->conn));
    dj_status status = db_exec_prepared(scheduler->conn, &CALL_REAP, &params, &rows);
    params_done(&params);
    FAILPOINT_CALL("reap.answered", scheduler->conn, status);
    if (status == DJ_UNAVAILABLE && PQstatus(scheduler->conn) == CONNECTION_OK) {
        log_warning("reap.blocked", "reason", dj_error_message());
        DJ_TRY(end_sessions(scheduler, &ended));
        *ret_more = ended > 0;
        return DJ_OK;
    }
    DJ_TRY(status);
    *ret_more = !rows_is_null(rows, 0, 0);
    if (*ret_more) {
        log_warning("worker.reaped", "reason", "it was silent for longer than its leases last");
        return end_sessions(scheduler, &ended);
    }
    return DJ_OK;
}

static dj_status move_marks(struct scheduler *scheduler, bool *ret_more) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_int8(&params, MARK_STEP);
    FAILPOINT_SOCKET("move_marks.before", PQsocket(scheduler->conn));
    dj_status status = db_exec_prepared(scheduler->conn, &CALL_MOVE_MARKS, &params, &rows);
    params_done(&params);
    FAILPOINT_CALL("move_marks.answered", scheduler->conn, status);
    DJ_TRY(status);
    return rows_bool(rows, 0, 0, ret_more);
}

static dj_status expire_state(struct scheduler *scheduler, bool *ret_more) {
    int32_t gone;
    FAILPOINT_SOCKET("expire_state.before", PQsocket(scheduler->conn));
    dj_status status = call_int(scheduler->conn, &CALL_EXPIRE_STATE, BATCH_MAX, &gone);
    FAILPOINT_CALL("expire_state.answered", scheduler->conn, status);
    DJ_TRY(status);
    *ret_more = gone > 0;
    return DJ_OK;
}

static dj_status make_partitions(struct scheduler *scheduler, bool *ret_more) {
    int32_t made;
    *ret_more = false;
    FAILPOINT_SOCKET("make_partitions.before", PQsocket(scheduler->conn));
    dj_status status = call_int(scheduler->conn, &CALL_MAKE_PARTITIONS, 3, &made);
    FAILPOINT_CALL("make_partitions.answered", scheduler->conn, status);
    DJ_TRY(status);
    if (made > 0) {
        log_info("partitions.made", "count", LOG_INT(made));
    }
    return DJ_OK;
}

dj_status duties_prepare(PGconn *conn) {
    static const struct db_call *const calls[] = { &CALL_MATCH_TURN,     &CALL_PROMOTE_DUE,
                                                   &CALL_REAP,           &CALL_END_SESSIONS,
                                                   &CALL_MOVE_MARKS,     &CALL_EXPIRE_STATE,
                                                   &CALL_MAKE_PARTITIONS };
    return db_prepare(conn, calls, sizeof calls / sizeof *calls);
}

const struct duty duties[] = {
    { .name = "match", .period_ms = 500, .hinted = true, .work = match },
    { .name = "promote", .period_ms = 500, .hinted = true, .work = promote },
    { .name = "move_marks", .period_ms = 100, .work = move_marks },
    { .name = "reap", .period_ms = 500, .work = reap },
    { .name = "expire_state", .period_ms = 5000, .work = expire_state },
    { .name = "make_partitions", .period_ms = 3600000, .work = make_partitions },
};
const int duty_count = sizeof duties / sizeof *duties;
