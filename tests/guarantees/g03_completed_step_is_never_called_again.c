/* Guarantee 3. A completed step's result never changes, and its function is not called again, in
 * any later attempt, retry or worker. A worker is killed at each named point of the claim and
 * commit paths; the runs complete, on another worker.
 *
 * Seen to fail: with claim() handing over no memory, three completed steps were called again after
 * the first kill, and the retried run called its steps again; with a repeated commit putting its
 * row in place of the first one's, the last test found another result. */
#include "support.h"

#include <signal.h>
#include <string.h>

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

/* No call of a step's function after its result was committed; every run complete with all its
 * steps. */
static void check_all(int runs) {
    wait_until(conn, 60,
               "select count(*) filter (where status = 'completed') = %d from durable.runs", runs);
    check_calls(conn);
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps"), runs * 5);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.lease"), 0);
}

static void a_kill_at_each_named_point_repeats_no_completed_step(void **state) {
    static const char *const points[] = { "turn.composed",     "turn.sent",     "turn.answered",
                                          "turn.settled",      "claim.taken",   "step.before",
                                          "step.after_effect", "step.committed" };
    int runs = 0;
    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        for (int hit = 1; hit <= 7; hit += 3) {
            char failpoint[64];
            (void)snprintf(failpoint, sizeof failpoint, "%s:%d:kill", points[i], hit);
            pid_t victim = spawn_worker(url, failpoint);
            wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)",
                       (int)victim);
            sql(conn,
                "select durable.start_many('steps', array_fill('{\"us\": 200}'::jsonb, array[8]))");
            runs += 8;
            assert_int_equal(wait_process(victim, 30),
                             -SIGKILL); /* a point that is never reached fails here */
            pid_t heir = spawn_worker(url, NULL);
            wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)",
                       (int)heir);
            check_all(runs);
            assert_int_equal(end_process(heir, SIGTERM), 0);
        }
    }
    assert_int_equal(
        sql_int(conn, "select count(*) from durable.runs where attempt > max_attempts"), 0);
}

static void a_retried_run_reuses_its_completed_steps(void **state) {
    (void)state;
    pid_t worker = spawn_worker(url, NULL);
    const char *id = sql_text(conn, "select durable.start('waits')");
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", id);
    sql(conn, "select durable.cancel('%s')", id);
    sql(conn, "select durable.retry('%s')", id);
    sql(conn, "select durable.send_event('go')");
    wait_until(conn, 20,
               "select status = 'completed' and attempt = 2 from durable.runs where id = '%s'", id);
    assert_int_equal(
        sql_int(conn, "select count(*) from effect where run_id = '%s' and step = 'before'", id),
        1);
    (void)end_process(worker, SIGTERM);
}

static void a_repeated_commit_of_a_step_changes_nothing(void **state) {
    (void)state;
    const char *worker = worker_new(conn, "by-hand");
    const char *id = sql_text(conn, "select durable.start('by-hand')");
    sql(conn, "create temp table c as select * from durable_internal.claim('%s', 1, 1000000)",
        worker);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sql_int(conn,
                                 "select count(*) from c, durable_internal.commit('%s', "
                                 "array[c.run_id], array[c.fence], "
                                 "array[1], array[1], array['a'], array['step'], "
                                 "array['%d']::jsonb[], array[null]::jsonb[], array[1]::bigint[], "
                                 "'{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}')",
                                 worker, i),
                         0);
    }
    assert_int_equal(sql_int(conn, "select result::int from durable.steps where run_id = '%s'", id),
                     0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_each_named_point_repeats_no_completed_step),
        cmocka_unit_test(a_retried_run_reuses_its_completed_steps),
        cmocka_unit_test(a_repeated_commit_of_a_step_changes_nothing),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
