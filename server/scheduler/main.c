/* durable-scheduler: timers, events, silent workers, marks, partitions. One thread, one connection
 * that listens; it sleeps until the next timer is due, a notification comes, or a duty's period is
 * over.
 *
 * Any number may run. One is active, by an advisory lock of its session, for economy and not for
 * safety. The others look whether that one still beats; if it does not (it may be frozen, and hold
 * the lock for ever), they work beside it. */
#include "common/auto.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_params.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/health.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/status.h"
#include "server/scheduler/duties.h"
#include <durable/version.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define BEAT_MS 1000
#define RECONNECT_MS_MAX 5000

#define SILENT_MS_MAX                                                                              \
    150000 /* a duty may take its statement's 60 s, and a connection 10 s a host */

static int signals; /* a signalfd: SIGTERM, SIGINT */

enum metric { METRIC_CONNECTED, METRIC_ACTIVE, METRIC_FAILED, METRICS };
static struct health_metric metrics[METRICS] = {
    [METRIC_CONNECTED] = { "durable_scheduler_connected", "gauge",
                           "1 while the database is reached.", 0 },
    [METRIC_ACTIVE] = { "durable_scheduler_active", "gauge",
                        "1 while this one does the work, not another.", 0 },
    [METRIC_FAILED] = { "durable_scheduler_duties_failed_total", "counter",
                        "Duties that ended in an error; they are tried again.", 0 },
};

static void tell_alive(void) {
    notify_alive();
    health_alive();
}

static void tell_connected(bool connected) {
    if (connected) {
        notify_ready();
    } else {
        atomic_store(&metrics[METRIC_ACTIVE].value, 0);
    }
    health_ready(connected);
    atomic_store(&metrics[METRIC_CONNECTED].value, connected);
}

/* Waits until the connection, a signal or the time says something. True: a signal did. */
static bool wait_until(PGconn *conn, int64_t until_ms) {
    struct pollfd fds[2] = { { .fd = signals, .events = POLLIN },
                             { .fd = conn == NULL ? -1 : PQsocket(conn), .events = POLLIN } };
    int64_t left = until_ms - clock_ms();
    if (left < 0) {
        left = 0;
    }
    (void)poll(fds, 2, (int)(left > 60000 ? 60000 : left));
    return (fds[0].revents & POLLIN) != 0;
}

static bool take_notifications(PGconn *conn) {
    bool any = false;
    (void)PQconsumeInput(conn);
    for (PGnotify *notify; (notify = PQnotifies(conn)) != NULL; any = true) {
        PQfreemem(notify);
    }
    return any;
}

/* One beat: am I the active one, or is the active one silent? */
static dj_status beat(struct scheduler *scheduler, bool *ret_active) {
    char name[256] = "scheduler";
    (void)gethostname(name, sizeof name - 1);
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_text(&params, scheduler->id);
    params_add_text(&params, name);
    params_add_int4(&params, (int32_t)getpid());
    dj_status status = db_exec(scheduler->conn, &CALL_SCHEDULER_BEAT, &params, &rows);
    params_done(&params);
    FAILPOINT_CALL("scheduler.beat_answered", scheduler->conn, status);
    DJ_TRY(status);
    return rows_bool(rows, 0, 0, ret_active);
}

static dj_status scheduler_open(struct scheduler *scheduler, const char *conninfo) {
    DJ_TRY(db_conn_open(conninfo, "durable-scheduler", &scheduler->conn));
    FAILPOINT_SOCKET("scheduler.connected", PQsocket(scheduler->conn));
    DJ_TRY(db_conn_check_session(scheduler->conn, conninfo));
    DJ_TRY(db_session_set(scheduler->conn,
                          "set lock_timeout = '2s'; set statement_timeout = '60s'; "
                          "listen durable_due"));
    AUTO(pgresult) PGresult *id = PQexec(scheduler->conn, "select durable_internal.uuid_v7()");
    if (PQresultStatus(id) != PGRES_TUPLES_OK) {
        return dj_fail_result(id);
    }
    (void)snprintf(scheduler->id, sizeof scheduler->id, "%s", PQgetvalue(id, 0, 0));
    DJ_TRY(duties_prepare(scheduler->conn));
    scheduler->last_full_scan_ms = INT64_MIN / 2;
    scheduler->next_due_ms = INT64_MAX;
    return DJ_OK;
}

/* Does what is due, each duty until it finds nothing more. An error of one does not keep the others
 * waiting. */
static dj_status work(struct scheduler *scheduler, int64_t next_ms[], bool hinted) {
    for (int i = 0; i < duty_count; i++) {
        int64_t now = clock_ms();
        bool due_timer = duties[i].hinted && now >= scheduler->next_due_ms;
        if (now < next_ms[i] && !(hinted && duties[i].hinted) && !due_timer) {
            continue;
        }
        next_ms[i] = now + duties[i].period_ms;
        tell_alive();
        bool more = false;
        dj_status status = duties[i].work(scheduler, &more);
        if (PQstatus(scheduler->conn) != CONNECTION_OK) {
            return DJ_UNAVAILABLE;
        }
        if (status != DJ_OK) {
            atomic_fetch_add(&metrics[METRIC_FAILED].value, 1);
            log_warning("duty.failed", "duty", duties[i].name, "reason", dj_error_message());
        } else if (more) {
            next_ms[i] = now;
        }
    }
    return DJ_OK;
}

/* Until a signal (DJ_OK) or the connection's end. */
static dj_status scheduler_run(struct scheduler *scheduler) {
    int64_t next_ms[16] = { 0 };
    int64_t next_beat_ms = 0;
    bool active = false, was_active = false, hinted = true;
    for (;;) {
        int64_t now = clock_ms();
        if (now >= next_beat_ms) {
            DJ_TRY(beat(scheduler, &active));
            next_beat_ms = now + BEAT_MS;
            tell_alive();
            atomic_store(&metrics[METRIC_ACTIVE].value, active);
            if (active && !was_active) {
                log_info("scheduler.active", "scheduler", scheduler->id);
            }
            was_active = active;
        }
        int64_t until = next_beat_ms;
        if (active) {
            DJ_TRY(work(scheduler, next_ms, hinted));
            hinted = take_notifications(scheduler->conn); /* they came along with answers */
            if (hinted) {
                continue;
            }
            until = scheduler->next_due_ms < until ? scheduler->next_due_ms : until;
            for (int i = 0; i < duty_count; i++) {
                until = next_ms[i] < until ? next_ms[i] : until;
            }
        }
        if (wait_until(scheduler->conn, until)) {
            FAILPOINT_SOCKET("scheduler.told_to_stop", PQsocket(scheduler->conn));
            return DJ_OK;
        }
        hinted = take_notifications(scheduler->conn);
        if (PQstatus(scheduler->conn) != CONNECTION_OK) {
            return dj_fail_pg(scheduler->conn);
        }
    }
}

static bool rest(int failures) {
    int64_t until = clock_ms() + with_jitter(failures > 5 ? RECONNECT_MS_MAX : 100 << failures);
    while (clock_ms() < until) {
        tell_alive();
        if (wait_until(NULL, until)) {
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv) { /* NOLINT(readability-function-size): a table */
    const char *conninfo = NULL;
    int health_port = 0;
    const struct config_option options[] = {
        { .flag = "database-url",
          .environment = "DURABLE_DATABASE_URL",
          .value_name = "URL",
          .help = "the PostgreSQL to work on",
          .kind = CONFIG_TEXT,
          .target = &conninfo },
        { .flag = "health-port",
          .environment = "DURABLE_HEALTH_PORT",
          .value_name = "PORT",
          .help = "serves /healthz, /readyz and /metrics, at all addresses",
          .kind = CONFIG_INT,
          .target = &health_port,
          .min = 1,
          .max = 65535 },
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable-scheduler",
        .summary = "timers, events and silent workers of Durable Jobs; any number may run",
        .options = options,
    };
    int first;
    FAILPOINTS_LIST(argc, argv);
    dj_status status = config_parse(&command, argc, argv, &first);
    if (status != DJ_OK) {
        (void)fprintf(stderr, "durable-scheduler: %s\n", dj_error_message());
        return status_exit_code(status);
    }
    log_set_program("durable-scheduler");
    notify_open();
    srandom((unsigned int)getpid());
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (signals < 0) {
        perror("durable-scheduler: signalfd");
        return 1;
    }
    if (conninfo == NULL) {
        (void)fprintf(stderr,
                      "durable-scheduler: no database is named; set DURABLE_DATABASE_URL\n");
        return status_exit_code(DJ_INVALID_ARGUMENT);
    }
    status = health_open(health_port, SILENT_MS_MAX, metrics, METRICS);
    if (status != DJ_OK) {
        (void)fprintf(stderr, "durable-scheduler: %s\n", dj_error_message());
        return status_exit_code(status);
    }
    for (int failures = 0;; failures++) {
        struct scheduler scheduler = { .conn = NULL };
        status = scheduler_open(&scheduler, conninfo);
        if (status == DJ_OK) {
            failures = 0;
            tell_connected(true);
            status = scheduler_run(&scheduler);
        }
        health_ready(false);
        if (status == DJ_OK) {
            notify_stopping();
        }
        if (scheduler.conn != NULL) {
            db_conn_close(scheduler.conn);
        }
        if (status == DJ_OK) {
            break;
        }
        tell_connected(false);
        log_warning("scheduler.not_connected", "reason", dj_error_message());
        if (rest(failures)) {
            notify_stopping();
            break;
        }
    }
    log_info("scheduler.stopped", "reason", "signal");
    return 0;
}
