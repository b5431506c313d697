/* Guarantee 7. A waiting run holds no worker, thread, connection or memory outside PostgreSQL; and
 * how many bytes it is in it.
 *
 * Seen to fail: with commit() copying the lease of a run that begins to wait instead of taking it
 * away, 2,000 leases were left. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define WAITING 2000

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    return 0;
}

static long threads_of(pid_t pid) {
    char path[64], line[256];
    long threads = -1;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *status = fopen(path, "r");
    assert_non_null(status);
    while (fgets(line, sizeof line, status) != NULL) {
        (void)sscanf(line, "Threads: %ld", &threads);
    }
    (void)fclose(status);
    return threads;
}

static void two_thousand_waiting_runs_hold_nothing(void **state) {
    (void)state;
    (void)spawn_scheduler(url);
    pid_t worker = spawn_worker(url, NULL);
    long long before = sql_int(conn, "select pg_database_size(current_database())");
    sql(conn,
        "select durable.start_many('waits', array_fill('{\"key\": \"k\"}'::jsonb, array[%d]))",
        WAITING);
    wait_until(conn, 60, "select count(*) = %d from durable_internal.wait", WAITING);
    wait_until(conn, 20, "select in_hand = 0 from durable.workers where pid = %d", (int)worker);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.lease"), 0);
    assert_int_equal(
        sql_int(conn,
                "select count(*) from pg_stat_activity where datname = current_database() and "
                "backend_type = 'client backend' and application_name = 'durable-worker'"),
        3);
    for (int tries = 0; tries < 80 && threads_of(worker) > 2; tries++) {
        sleep_ms(100);
    }
    assert_true(threads_of(worker) <= 2); /* the loop, and the sanitizer's own */
    long long after = sql_int(conn, "select pg_database_size(current_database())");
    (void)printf("a waiting run with one step is %lld bytes in PostgreSQL, indexes and all\n",
                 (after - before) / WAITING);
    assert_true((after - before) / WAITING < 4096);

    /* With the worker gone they wait on, and any other goes on with them. */
    assert_int_equal(end_process(worker, SIGTERM), 0);
    sql(conn, "select durable.send_event('go', '{}', 'k')");
    (void)spawn_worker(url, NULL);
    wait_until(conn, 60, "select count(*) = %d from durable.runs where status = 'completed'",
               WAITING);
    assert_int_equal(sql_int(conn, "select count(*) from effect"), WAITING);
    assert_int_equal(sql_int(conn, "select max(attempt) from durable.runs"), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(two_thousand_waiting_runs_hold_nothing) };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
