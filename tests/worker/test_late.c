/* Steps with a timeout: the loop speaks for one that is over its time, while its handler's thread
 * still has the run.
 *
 * Seen to fail: with no look at whether a step of the run was late, the handler that goes on called
 * its next step; with late runs of a life that is over kept in hand, the worker did not drain. The
 * step that fails in time is for ThreadSanitizer (scripts/analyze tsan).
 *
 * A late step is noticed by the worker's tick, up to 250 ms after its time: the steps here take
 * longer. */
#include "support.h"

#include <signal.h>
#include <stdio.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    (void)spawn_scheduler(url);
    return 0;
}

static const char *start(const char *job, const char *payload) {
    return sql_text(conn, "select durable.start('%s', '%s')", job, payload);
}

static void a_handler_that_goes_on_after_its_late_step_calls_no_other(void **state) {
    char late[64];
    (void)state;
    pid_t worker = spawn_worker(url, NULL);
    (void)snprintf(late, sizeof late, "%s", start("late", "{\"ms\": 1000, \"stubborn\": 1}"));
    wait_until(conn, 20,
               "select error ->> 'name' = 'StepTimeoutError' from durable.runs where id = '%s'",
               late);
    const char *after = start("slow", "{\"ms\": 2000}"); /* the handler is back meanwhile */
    wait_until(conn, 20,
               "select status = 'completed' and attempt = 1 from durable.runs where id = '%s'",
               after);
    assert_string_equal(
        sql_text(conn, "select string_agg(step, ' ') from effect where run_id = '%s'", late),
        "slow");
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

static void a_late_step_of_a_life_that_is_over_keeps_no_slot(void **state) {
    char late[64];
    (void)state;
    pid_t worker = spawn(url, NULL, "durable-worker", "--lease-ttl", "2s", "--grace", "60s", NULL);
    PGconn *holder = connect_to(url);
    (void)snprintf(late, sizeof late, "%s", start("late", "{\"ms\": 1000}"));
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", late);
    sql(holder, "begin");
    sql(holder, "select from durable_internal.lease where run_id = '%s' for update", late);
    sleep_ms(1500); /* what the loop says for it is busy, and the handler is back */
    sql(conn, "update durable_internal.worker set alive = false where pid = %d", (int)worker);
    wait_until(conn, 20, "select count(*) = 2 from durable_internal.worker where pid = %d",
               (int)worker);
    sql(holder, "rollback");
    PQfinish(holder);
    sql(conn,
        "select durable_internal.bury(id, crashed => false) from durable_internal.worker where pid "
        "= %d and not alive",
        (int)worker);
    wait_until(conn, 20, "select finished_at is not null from durable.runs where id = '%s'", late);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

static void a_step_that_fails_in_time_is_not_late(void **state) {
    (void)state;
    pid_t worker = spawn_worker(url, NULL);
    const char *id = start("persists", "{\"ms\": 1500}");
    wait_until(conn, 20, "select finished_at is not null from durable.runs where id = '%s'", id);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "completed");
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handler_that_goes_on_after_its_late_step_calls_no_other),
        cmocka_unit_test(a_late_step_of_a_life_that_is_over_keeps_no_slot),
        cmocka_unit_test(a_step_that_fails_in_time_is_not_late),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
