/* The worker's heartbeat: one update however many leases it holds; and the calls that belong to its
 * life.
 *
 * The worker times its own leases: they hold for the time to live counted from when the last
 * answered beat was sent, less a margin, by a clock that does not stand still while the machine is
 * suspended. After that no step is begun until a beat has been answered (guarantee 4 does not need
 * this: a commit shows its fence; it keeps effects from being repeated for nothing). */
#include "worker/fleet.h"

#include "common/db_calls.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "worker/endpoint.h"
#include "worker/run.h"
#include <signal.h>
#include <unistd.h>

/* What names the runs in hand, all of them: two parameters. */
static void params_hand(struct db_params *params, const dj_worker *worker) {
    params_array_begin(params, DB_UUID);
    list_for_each(run, &worker->hand, dj_run, hand_link) {
        params_array_uuid(params, &run->id);
    }
    params_array_end(params);
    params_array_begin(params, DB_INT8);
    list_for_each(run, &worker->hand, dj_run, hand_link) {
        params_array_int8(params, run->fence);
    }
    params_array_end(params);
}

/* Runs that are parked until we are sure go on: their leases hold, or they are marked lost. */
static void answer_asking(dj_worker *worker) {
    struct list runs;
    list_init(&runs);
    int count = 0;
    list_for_each(run, &worker->asking, dj_run, link) {
        run->verdict = atomic_load(&run->lost) ? DJ_LEASE_LOST : DJ_OK;
        count++;
    }
    list_splice(&worker->asking, &runs);
    worker_resume(worker, &runs, count);
}

/* Marks the runs that are not ours any more. None of them can have been claimed meanwhile: a lease
 * is there before we hear of its run. */
static dj_status read_lost(dj_worker *worker, const PGresult *rows) {
    for (int row = 0; row < PQntuples(rows); row++) {
        dj_run *run;
        if (rows_is_null(rows, row, 0)) {
            worker->reconcile_at_beat = true;
            continue;
        }
        DJ_TRY(worker_find(worker, rows, row, &run));
        if (run != NULL) {
            log_info("run.lost", "run", run->id_text);
            atomic_store(&run->lost, true);
        }
    }
    return DJ_OK;
}

static void beat_done(struct db_batch *batch) {
    dj_worker *worker = batch->context;
    worker->beating = false;
    if (!worker->registered) {
        return; /* it was of a life that is over */
    }
    FAILPOINT_ANSWER("beat.answered", batch, &worker->control);
    if (batch->status == DJ_LEASE_LOST) {
        log_warning("worker.declared_dead", "reason", batch->message);
        worker_lose_all(worker);
        return;
    }
    if (batch->status != DJ_OK || read_lost(worker, batch->results[0]) != DJ_OK) {
        log_warning("beat.failed", "reason", batch->message);
        return;
    }
    /* A fifth of the time to live is the margin for clocks that run at other speeds, and for the
     * way. */
    atomic_store(&worker->sure_until_ms, worker->beat_sent_boot_ms + worker->ttl_ms * 4 / 5);
    if (worker_is_sure(worker)) { /* an answer that lay here while we stood still says nothing */
        answer_asking(worker);
        if (worker->endpoints != NULL) {
            endpoints_go_on(worker->endpoints);
        }
    }
    FAILPOINT("beat.taken");
}

void beat_send(dj_worker *worker) {
    if (worker->beating || !worker->registered || !db_pipeline_is_open(&worker->control)) {
        return;
    }
    struct db_params params;
    params_init(&params);
    params_add_uuid(&params, &worker->id);
    params_hand(&params, worker);
    params_add_bool(&params, atomic_load(&worker->draining));
    if (params_status(&params) == DJ_OK) {
        const struct db_call *call = &CALL_BEAT;
        struct db_params *list = &params;
        worker->beating = true;
        worker->beat_sent_ms = clock_ms();
        worker->beat_sent_boot_ms = clock_boot_ms();
        FAILPOINT_SOCKET("beat.before", PQsocket(worker->control.conn));
        db_pipeline_send(&worker->control, &call, &list, 1, beat_done, worker);
        FAILPOINT_SOCKET("beat.sent", PQsocket(worker->control.conn));
    }
    params_done(&params);
}

void on_beat_timer(evutil_socket_t fd, short what, void *context) {
    dj_worker *worker = context;
    (void)fd;
    (void)what;
    if (worker->beating && clock_ms() - worker->beat_sent_ms > worker->ttl_ms / 2) {
        log_warning("beat.late", "reason", "no answer; trying another connection");
        db_pipeline_close(&worker->control);
        worker->beating = false;
        control_connect(worker);
        return;
    }
    if (worker->reconcile_at_beat) {
        worker->reconcile = true;
        worker->reconcile_at_beat = false;
        turns_start(worker);
    }
    beat_send(worker);
}

static void leave_done(struct db_batch *batch) {
    dj_worker *worker = batch->context;
    FAILPOINT_ANSWER("leave.answered", batch, &worker->control);
    if (batch->status != DJ_OK) {
        log_warning("worker.leave_failed", "reason", batch->message);
    }
    (void)event_base_loopbreak(worker->base);
}

void leave_send(dj_worker *worker) {
    struct db_params params;
    params_init(&params);
    params_add_uuid(&params, &worker->id);
    if (params_status(&params) == DJ_OK) {
        const struct db_call *call = &CALL_WORKER_LEAVE;
        struct db_params *list = &params;
        db_pipeline_send(&worker->control, &call, &list, 1, leave_done, worker);
        FAILPOINT_SOCKET("leave.sent", PQsocket(worker->control.conn));
    }
    params_done(&params);
}

static void crash_end(const dj_worker *worker) {
    (void)signal(worker->crash_signal, SIG_DFL);
    (void)kill(getpid(), worker->crash_signal); /* as it would have been */
}

static void crash_done(struct db_batch *batch) {
    if (batch->status != DJ_OK) {
        log_error("worker.crash_not_told", "reason", batch->message);
    }
    crash_end(batch->context);
}

/* The last thing this process does: the run that crashed it is charged, the others are given back.
 */
void crash_send(dj_worker *worker, const dj_run *run, int signal_number) {
    if (worker->crashing) {
        return;
    }
    worker->crashing = true;
    worker->crash_signal = signal_number;
    log_error("handler.crashed", "run", run->id_text, "job", run->job->name, "step",
              run->step_name == NULL ? "" : run->step_name, "signal", LOG_INT(signal_number));
    if (!db_pipeline_is_open(&worker->control)) {
        crash_end(worker); /* else it would register anew, and take further runs along */
        return;
    }
    struct db_params params;
    params_init(&params);
    params_add_uuid(&params, &worker->id);
    params_add_uuid(&params, &run->id);
    params_add_int8(&params, run->fence);
    params_add_text(&params, run->step_name);
    if (params_status(&params) == DJ_OK) {
        const struct db_call *call = &CALL_WORKER_CRASHED;
        struct db_params *list = &params;
        db_pipeline_send(&worker->control, &call, &list, 1, crash_done, worker);
    }
    params_done(&params);
}

static void reconcile_done(struct db_batch *batch) {
    struct worker_line *line = batch->context;
    dj_worker *worker = line->worker;
    line->turning = false;
    worker->reconciling = false;
    FAILPOINT_ANSWER("reconcile.answered", batch, &line->pipeline);
    if (batch->status == DJ_LEASE_LOST) {
        worker_lose_all(worker);
        return;
    }
    if (batch->status != DJ_OK || read_lost(worker, batch->results[0]) != DJ_OK) {
        log_warning("reconcile.failed", "reason", batch->message);
        return; /* worker->reconcile still stands: the next turn tries again */
    }
    worker->reconcile = false;
    worker->gone_pid_count = 0;
    FAILPOINT("reconcile.taken");
    turn_hint(worker, /* event= */ false);
}

/* Tells the database which runs we have, all of them: what it granted in an answer that never came
 * goes back, and it says which of ours a crash has made it forget. Before the next claim, because
 * that might be given a forgotten fence again (21_claim.sql). Only while no claim is
 * on its way: its runs would be given back too. */
void reconcile_send(struct worker_line *line) {
    dj_worker *worker = line->worker;
    for (int i = 0; i < worker->line_count; i++) {
        if (worker->reconciling || (worker->lines[i].turning && worker->lines[i].slots_asked > 0)) {
            return;
        }
    }
    struct db_params params;
    params_init(&params);
    params_add_uuid(&params, &worker->id);
    params_add_int4(&params, worker->number);
    params_hand(&params, worker);
    params_array_begin(&params, DB_INT4);
    for (int i = 0; i < worker->gone_pid_count; i++) {
        params_array_int4(&params, worker->gone_pids[i]);
    }
    params_array_end(&params);
    if (params_status(&params) == DJ_OK) {
        const struct db_call *call = &CALL_RECONCILE;
        struct db_params *list = &params;
        line->turning = worker->reconciling = true;
        line->slots_asked = 0;
        FAILPOINT_SOCKET("reconcile.before", PQsocket(line->pipeline.conn));
        db_pipeline_send(&line->pipeline, &call, &list, 1, reconcile_done, line);
        FAILPOINT_SOCKET("reconcile.sent", PQsocket(line->pipeline.conn));
    }
    params_done(&params);
}
