/* What a machine does: clocks that are wrong or step, a suspend, a disk that is slow or full.
 * Everything here has a shim under it (tests/support/shim.c).
 *
 * Seen to fail: tests/mutations, steps-by-the-wall-clock, sure-through-a-suspend and
 * reaped-by-a-slow-disk. */
#include "shim.h"
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static struct cluster cluster;
static struct shim *under_postgres;
static PGconn *conn;
static pid_t scheduler;

static int setup(void **state) {
    (void)state;
    under_postgres = shim_on();
    cluster_start(&cluster);
    shim_off();
    conn = connect_to(cluster.url);
    record_calls(conn);
    scheduler = spawn_scheduler(cluster.url);
    return 0;
}

static int calm(void **state) {
    (void)state;
    *under_postgres = (struct shim){ 0 };
    return 0;
}

static pid_t spawn_fast(const char *ttl) {
    pid_t worker = spawn(cluster.url, NULL, "durable-worker", "--lease-ttl", ttl, NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    return worker;
}

static void all_complete(double seconds) {
    wait_until(conn, seconds, "select count(*) = 0 from durable.runs where finished_at is null");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where status <> 'completed'"),
                     0);
}

/* No call by an attempt after the one that committed the step: times of the database would not tell
 * it here. */
static void no_committed_step_was_called_again(void) {
    assert_int_equal(sql_int(conn, "select count(*) from effect e join durable.steps s on s.run_id "
                                   "= e.run_id and s.name = e.step where e.attempt > s.attempt"),
                     0);
}

static void a_workers_wall_clock_is_of_no_account(void **state) {
    (void)state;
    struct shim *shim = shim_on();
    pid_t worker = spawn_fast("2s");
    shim_off();
    sql(conn, "select durable.start_many('steps', array_fill('{\"steps\": 6, \"us\": "
              "300000}'::jsonb, array[20]))");
    sql(conn, "select durable.start_many('sleeps', array_fill('{}'::jsonb, array[10]))");
    for (int i = 0; i < 8; i++) {
        shim->wall_s = i % 2 == 0 ? 3600 : -3600;
        sleep_ms(170);
    }
    all_complete(30);
    assert_int_equal(sql_int(conn, "select max(attempt) from durable.runs"), 1);
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps where committed_at - "
                                   "started_at not between interval '0' and interval '10 s'"),
                     0);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.worker where crashed"),
                     0);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* Its handler is between two steps when the machine is suspended for an hour; the worker is
 * declared dead meanwhile. When it goes on, it has not heard of that, and no answer comes. */
static void a_worker_that_was_suspended_asks_before_its_next_step(void **state) {
    pid_t sessions[WORKER_SESSIONS];
    (void)state;
    struct shim *shim = shim_on();
    pid_t worker = spawn_fast("60s");
    shim_off();
    char id[64];
    (void)snprintf(id, sizeof id, "%s",
                   sql_text(conn, "select durable.start('ponders', '{\"ms\": 1500}')"));
    wait_until(conn, 20, "select exists (select from durable.steps where run_id = '%s')", id);
    shim->cut = 1;
    freeze_sessions(conn, worker, sessions);
    shim->boot_s = 3600;
    sql(conn,
        "update durable_internal.worker set beat_at = beat_at - interval '1 hour' where pid "
        "= %d",
        (int)worker);
    wait_until(conn, 20, "select status = 'queued' from durable.runs where id = '%s'", id);
    sleep_ms(2500); /* it is past its pondering now */
    assert_int_equal(
        sql_int(conn, "select count(*) from effect where run_id = '%s' and step = 's2'", id), 0);
    thaw_sessions(sessions);
    shim->cut = 0;
    all_complete(60);
    assert_int_equal(
        sql_int(conn, "select count(*) from effect where run_id = '%s' and step = 's2'", id), 1);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

static void a_slow_disk_costs_no_lease(void **state) {
    (void)state;
    pid_t worker = spawn_fast("3s");
    long long gone = sql_int(conn, "select count(*) from durable_internal.worker where crashed");
    under_postgres->fsync_ms = 500;
    sql(conn, "select durable.start_many('steps', array_fill('{\"steps\": 2}'::jsonb, "
              "array[8]))"); /* each call is a commit of its own, one after the other */
    all_complete(60);
    assert_int_equal(sql_int(conn, "select max(attempt) from durable.runs where job = 'steps'"), 1);
    under_postgres->fsync_ms = 0;
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.worker where crashed"),
                     gone);
    no_committed_step_was_called_again();
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

static void a_full_disk_is_waited_for(void **state) {
    (void)state;
    sql(conn, "select durable.start_many('noop', array_fill('{}'::jsonb, array[8000]))");
    pid_t worker = spawn_fast("3s");
    under_postgres->full = 1;
    long long before = -1, completed = 0;
    for (int tries = 0; completed != before && tries < 30; tries++) { /* old pages have room */
        before = completed;
        sleep_ms(1000);
        completed = sql_int(conn, "select count(*) from durable.runs where status = 'completed'");
    }
    assert_int_equal(completed, before);
    assert_true(completed < sql_int(conn, "select count(*) from durable.runs"));
    sql_error(conn, "53100",
              "create temp table grows as select n from generate_series(1, 1000000) "
              "as n");
    under_postgres->full = 0;
    all_complete(60);
    assert_int_equal(sql_int(conn, "select max(attempt) from durable.runs where job = 'noop'"), 1);
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.worker where pid = %d", (int)worker),
        1); /* it lives on */
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* All leases are over at once, which is wrong and does no harm. It stands still so that it cannot
 * beat before the reaper has looked. */
static void a_database_clock_that_steps_forward_doubles_nothing(void **state) {
    (void)state;
    pid_t worker = spawn_fast("3s");
    sql(conn, "select durable.start_many('steps', array_fill('{\"us\": 20000}'::jsonb, "
              "array[50]))");
    sql(conn, "select durable.start_many('sleeps', array_fill('{}'::jsonb, array[20]))");
    wait_until(conn, 20,
               "select count(*) > 20 from durable.steps s join durable.runs r on r.id = "
               "s.run_id where r.finished_at is null");
    assert_int_equal(kill(worker, SIGSTOP), 0);
    under_postgres->wall_s = 3600;
    wait_until(conn, 20,
               "select not alive from durable_internal.worker where pid = %d order by number desc "
               "limit 1",
               (int)worker);
    assert_int_equal(kill(worker, SIGCONT), 0);
    all_complete(60);
    no_committed_step_was_called_again();
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* What was due in a moment is due in an hour and a moment, and so is the end of a dead worker's
 * leases; what begins now goes on as ever, and who has beaten since and dies is missed as ever. */
static void a_database_clock_that_steps_back_delays_what_was_due_and_nothing_else(void **state) {
    char id[64], other[64];
    (void)state;
    under_postgres->wall_s = 3600;
    pid_t victim = spawn_fast("3s");
    (void)snprintf(id, sizeof id, "%s",
                   sql_text(conn, "select durable.start('ponders', '{\"ms\": 3000}')"));
    wait_until(conn, 20, "select exists (select from durable.steps where run_id = '%s')", id);
    assert_int_equal(end_process(victim, SIGKILL), -SIGKILL);
    pid_t worker = spawn_fast("3s");
    sql(conn, "select durable.start_many('steps', array_fill('{\"us\": 20000}'::jsonb, "
              "array[50]))");
    under_postgres->wall_s = 0;
    sql(conn, "select durable.start_many('sleeps', array_fill('{}'::jsonb, array[20]))");
    wait_until(conn, 20, "select beat_at < clock_timestamp() from durable.workers where pid = %d",
               (int)worker);
    (void)snprintf(other, sizeof other, "%s",
                   sql_text(conn, "select durable.start('ponders', '{\"ms\": 3000}')"));
    wait_until(conn, 20, "select exists (select from durable.steps where run_id = '%s')", other);
    assert_int_equal(end_process(worker, SIGKILL), -SIGKILL);
    worker = spawn_fast("3s");
    wait_until(conn, 60, "select count(*) = 1 from durable.runs where finished_at is null");
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "running");
    under_postgres->wall_s = 3600; /* the hour is over */
    all_complete(60);
    no_committed_step_was_called_again();
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_workers_wall_clock_is_of_no_account, calm),
        cmocka_unit_test_setup(a_worker_that_was_suspended_asks_before_its_next_step, calm),
        cmocka_unit_test_setup(a_slow_disk_costs_no_lease, calm),
        cmocka_unit_test_setup(a_full_disk_is_waited_for, calm),
        cmocka_unit_test_setup(a_database_clock_that_steps_forward_doubles_nothing, calm),
        cmocka_unit_test_setup(
            a_database_clock_that_steps_back_delays_what_was_due_and_nothing_else, calm),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
