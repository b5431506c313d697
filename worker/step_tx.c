/* dj_step_tx: the user's SQL and the step in one transaction, on a connection beside the turns'.
 *
 * Guarantee 11. The step's row and the user's rows are committed together, under the run's fence,
 * which commit_step_tx() holds until the end. If the answer to COMMIT is lost, nobody knows what
 * became of it; on a new connection the same call waits for the first transaction (it holds the
 * lease's row), and then says whether the step is there. If it is, the first one was committed. If
 * not, all is done again.
 *
 * These connections are kept for the next step_tx of any run, and closed after a while.
 * On the handler's thread, which blocks meanwhile. */
#include "worker/step.h"

#include "common/auto.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_params.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "worker/fleet.h"
#include <stdlib.h>
#include <string.h>

#define STEP_TX_CALLS_MAX 5

struct step_tx {
    dj_run *run;
    const char *name;
    dj_step_tx_fn step;
    json_object *input;
    json_object *result;
    char *text; /* the result, printed */
    int64_t began_us;
    int calls;     /* how often the step was called */
    bool in_doubt; /* a commit was sent, and nothing confirmed it */
};

static dj_status tx_command(PGconn *conn, const char *command) {
    AUTO(pgresult) PGresult *result = PQexec(conn, command);
    return PQresultStatus(result) == PGRES_COMMAND_OK ? DJ_OK : dj_fail_result(result);
}

/* At a level that we know, whatever the sessions' default is: see docs/c.md. */
static dj_status tx_begin(PGconn *conn) {
    return tx_command(conn, "begin isolation level read committed");
}

/* If its wait for the standby is cancelled, nobody knows what a failover would leave. */
static dj_status tx_commit(PGconn *conn) {
    DJ_TRY(tx_command(conn, "commit"));
    return db_conn_commit_is_uncertain(conn)
               ? dj_fail(DJ_UNAVAILABLE, "the commit was not confirmed by the synchronous standby")
               : DJ_OK;
}

/* The step's own row, under the fence. *ret_again: an earlier try has committed it. */
static dj_status tx_commit_step(struct step_tx *tx, PGconn *conn, bool *ret_again) {
    dj_run *run = tx->run;
    struct db_params params;
    params_init(&params);
    params_add_uuid(&params, &run->worker_id);
    params_add_uuid(&params, &run->id);
    params_add_int8(&params, run->fence);
    params_add_int4(&params, run->replay.position);
    params_add_int4(&params, run->attempt);
    params_add_text(&params, tx->name);
    params_add_jsonb(&params, tx->text);
    params_add_int8(&params, clock_us() - tx->began_us);
    AUTO(pgresult) PGresult *rows = NULL;
    dj_status status = db_exec(conn, &CALL_COMMIT_STEP_TX, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    return rows_bool(rows, 0, 0, ret_again);
}

/* One transaction: the user's SQL, then the step. */
static dj_status tx_try(struct step_tx *tx, PGconn *conn) {
    DJ_TRY(tx_begin(conn));
    FAILPOINT_SOCKET("step_tx.begun", PQsocket(conn));
    json_object *result = NULL;
    tx->began_us = clock_us();
    tx->calls++;
    run_error_clear(tx->run);
    tx->run->in_step = true;
    dj_status status = tx->step(tx->run, conn, tx->input, &result);
    tx->run->in_step = false;
    FAILPOINT_SOCKET("step_tx.after_effect", PQsocket(conn));
    if (status != DJ_OK) {
        json_object_put(result);
        return status;
    }
    DJ_TRY(run_own(tx->run, result));
    tx->result = result;
    free(TAKE(tx->text));
    DJ_TRY(step_print_result(tx->run, tx->name, result, &tx->text));
    bool again;
    DJ_TRY(tx_commit_step(tx, conn, &again));
    if (again) { /* an earlier try was committed after all: this one's SQL must not be */
        return tx_command(conn, "rollback");
    }
    FAILPOINT_SOCKET("step_tx.before_commit", PQsocket(conn));
    tx->in_doubt = true;
    status = tx_commit(conn);
    FAILPOINT_CALL("step_tx.after_commit", conn, status);
    tx->in_doubt = status != DJ_OK;
    return status;
}

/* On a fresh connection: has a try whose answer was lost been committed? If so, our own commit
 * waits for the standby, and with it for the first one's. */
static dj_status tx_ask(struct step_tx *tx, PGconn *conn, bool *ret_committed) {
    DJ_TRY(tx_begin(conn));
    DJ_TRY(tx_commit_step(tx, conn, ret_committed));
    FAILPOINT_SOCKET("step_tx.asked", PQsocket(conn));
    return *ret_committed ? tx_commit(conn) : tx_command(conn, "rollback");
}

/* Tries until the step is committed or fails, over as many connections as it takes: a database that
 * is away is waited for as long as the lease is ours. A step that breaks each of its connections
 * fails. */
static dj_status tx_run(struct step_tx *tx) {
    dj_status status = DJ_UNAVAILABLE;
    for (int tries = 0; tx->in_doubt || tx->calls < STEP_TX_CALLS_MAX; tries++) {
        PGconn *conn;
        DJ_TRY(dj_heartbeat(tx->run));
        status = worker_borrow_connection(tx->run, &conn);
        if (status == DJ_LEASE_LOST) { /* all of them: the worker was declared dead */
            return status;
        }
        if (status != DJ_OK) {
            worker_pause(tries);
            continue;
        }
        bool committed = false;
        if (tx->in_doubt) {
            status = tx_ask(tx, conn, &committed);
        }
        if (status == DJ_OK && !committed) {
            tx->in_doubt = false;
            status = tx_try(tx, conn);
        }
        bool broken = PQstatus(conn) != CONNECTION_OK;
        if (broken &&
            status == DJ_FAILED) { /* the step's own words for a connection that broke under it */
            status = DJ_UNAVAILABLE;
        }
        if (!broken && PQtransactionStatus(conn) != PQTRANS_IDLE) {
            broken = tx_command(conn, "rollback") != DJ_OK;
        }
        worker_return_connection(tx->run, conn, broken);
        if (status != DJ_UNAVAILABLE) {
            return status;
        }
        log_warning("step_tx.again", "run", tx->run->id_text, "step", tx->name, "reason",
                    dj_error_message());
        worker_pause(tries);
    }
    return status;
}

dj_status dj_step_tx(dj_run *run, const char *name, dj_step_tx_fn step, json_object *input,
                     json_object **ret_result) {
    const struct memory *memory;
    const char *full_name;
    DJ_TRY(run_recall(run, name, "step_tx", &full_name, &memory));
    if (memory != NULL) {
        return run_give(run, memory, ret_result);
    }
    DJ_TRY(run_prove_lease(run));
    struct step_tx tx = { .run = run, .name = full_name, .step = step, .input = input };
    dj_status status = tx_run(&tx);
    run->bytes += history_bytes(tx.text);
    free(tx.text);
    if (status == DJ_OK && ret_result != NULL) {
        *ret_result = tx.result;
    }
    if (status == DJ_LEASE_LOST) {
        run->verdict = DJ_LEASE_LOST;
        atomic_store(&run->lost, true); /* also for a handler that takes no notice */
    } else if (status != DJ_OK && status != DJ_SUSPENDED && !run->handed_up && !run->error.set) {
        run_error_from_status(run, status);
        free(run->error.step);
        run->error.step = strdup(full_name);
        return dj_fail(DJ_FAILED, "%s", run->error.message == NULL ? "failed" : run->error.message);
    }
    return status;
}
