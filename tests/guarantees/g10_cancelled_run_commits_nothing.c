/* Guarantee 10. A cancelled run commits nothing more and starts no step once its worker knows,
 * within 5 s.
 *
 * Seen to fail: with a cancel leaving the lease, the step in hand was committed; with commit()
 * waiting for leases that are held instead of passing over them, the neighbours of an open cancel
 * stood still; with a cancel that called itself for each child, a chain of 600 did not fit on
 * PostgreSQL's stack. More in tests/mutations. */
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
    (void)spawn_worker(url, NULL);
    return 0;
}

static void a_running_run_stops_and_its_step_is_not_kept(void **state) {
    (void)state;
    const char *id = sql_text(conn, "select durable.start('slow', '{\"ms\": 20000}')");
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
    wait_until(conn, 5, "select in_hand = 1 from durable.workers where status = 'alive'");
    assert_int_equal(sql_int(conn, "select durable.cancel('%s', 'changed my mind')", id), 1);
    assert_int_equal(sql_int(conn, "select durable.cancel('%s')", id), 0);
    assert_string_equal(
        sql_text(conn,
                 "select status || ': ' || (error ->> 'message') from durable.runs where id = '%s'",
                 id),
        "cancelled: changed my mind");
    wait_until(
        conn, 5,
        "select in_hand = 0 from durable.workers where status = 'alive'"); /* dj_run_cancelled()
                                                                              told the step */
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps where run_id = '%s'", id),
                     0);
    assert_int_equal(
        sql_int(conn, "select count(*) from effect where run_id = '%s' and step = 'after'", id), 0);
    assert_string_equal(
        sql_text(conn, "select outcome from durable.attempts where run_id = '%s'", id),
        "cancelled");
}

/* Its first step ends when it hears of the cancel; then it asks for a step, a wait and another. */
static void a_handler_that_does_not_listen_begins_no_step(void **state) {
    (void)state;
    const char *id = sql_text(conn, "select durable.start('stubborn', '{\"ms\": 20000}')");
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
    wait_until(conn, 5, "select in_hand = 1 from durable.workers where status = 'alive'");
    sql(conn, "select durable.cancel('%s')", id);
    wait_until(conn, 5, "select in_hand = 0 from durable.workers where status = 'alive'");
    assert_int_equal(sql_int(conn, "select count(*) from effect where run_id = '%s'", id), 1);
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps where run_id = '%s'", id),
                     0);
}

/* A run with 2,000 children, and one whose children have children, 600 deep. */
static void a_tree_of_runs_is_cancelled_whole(void **state) {
    char root[64];
    (void)state;
    (void)snprintf(root, sizeof root, "%s", sql_text(conn, "select durable.start('root')"));
    sql(conn, "select durable.start_many('leaf', array_fill('{}'::jsonb, array[2000]))");
    sql(conn,
        "update durable_internal.run set parent_run_id = '%s' where id in (select id from "
        "durable.runs where job = 'leaf')",
        root);
    assert_int_equal(sql_int(conn, "select durable.cancel('%s')", root), 1);
    assert_int_equal(
        sql_int(conn, "select count(*) from durable.runs where job in ('root', 'leaf') and status "
                      "= 'cancelled'"),
        2001);
    sql(conn, "create temp table chain as select id, n from durable.start_many('link', "
              "array_fill('{}'::jsonb, array[600])) with ordinality as c (id, n)");
    sql(conn, "update durable_internal.run r set parent_run_id = p.id from chain c join chain p on "
              "p.n = c.n - 1 where r.id = c.id");
    sql(conn, "select durable.cancel(id) from chain where n = 1");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job = 'link' and "
                                   "status = 'cancelled'"),
                     600);
}

static void runs_are_cancelled_wherever_they_are(void **state) {
    (void)state;
    char ids[4][64];
    (void)snprintf(ids[0], 64, "%s", sql_text(conn, "select durable.start('nobody')"));
    (void)snprintf(
        ids[1], 64, "%s",
        sql_text(conn, "select durable.start('noop', scheduled_at => now() + interval '1 hour')"));
    (void)snprintf(ids[2], 64, "%s",
                   sql_text(conn, "select durable.start('waits', '{\"timeout\": \"1h\"}')"));
    (void)snprintf(
        ids[3], 64, "%s",
        sql_text(
            conn,
            "select durable.start('fails', options => '{\"backoff\": {\"initial\": \"1h\"}}')"));
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", ids[2]);
    wait_until(conn, 20, "select status = 'retrying' from durable.runs where id = '%s'", ids[3]);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(sql_int(conn, "select durable.cancel('%s')", ids[i]), 1);
        assert_string_equal(
            sql_text(conn, "select status from durable.runs where id = '%s'", ids[i]), "cancelled");
    }
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.place"), 0);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.timer"), 0);
}

static void an_open_cancel_delays_its_own_run_only(void **state) {
    PGconn *holder = connect_to(url);
    (void)state;
    const char *id =
        sql_text(conn, "select durable.start('steps', '{\"steps\": 200, \"us\": 10000}')");
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
    sql(holder, "begin");
    sql(holder, "select durable.cancel('%s')", id);
    sql(conn, "select durable.start_many('steps', array_fill('{}'::jsonb, array[50]))");
    wait_until(
        conn, 10,
        "select count(*) = 50 from durable.runs where job = 'steps' and status = 'completed'");
    sql(holder, "rollback");
    wait_until(conn, 30,
               "select status = 'completed' and attempt = 1 from durable.runs where id = '%s'", id);
    assert_int_equal(sql_int(conn, "select count(*) from effect where run_id = '%s'", id), 200);
    PQfinish(holder);
}

static void a_cancel_that_rolls_back_never_happened(void **state) {
    (void)state;
    const char *id = sql_text(conn, "select durable.start('nobody')");
    sql(conn, "begin");
    sql(conn, "select durable.cancel('%s')", id);
    sql(conn, "rollback");
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "queued");
}

/* A handler in C starts a child after the snapshot of somebody's REPEATABLE READ transaction, which
 * cannot see it: it is told to try again, and leaves no child behind. */
static void a_cancel_that_cannot_see_a_child_is_refused(void **state) {
    (void)state;
    char worker[64];
    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "parent"));
    PGconn *user = connect_to(url);
    const char *id = sql_text(conn, "select durable.start('parent')");
    sql(user, "begin isolation level repeatable read");
    sql(conn, "create temp table p as select * from durable_internal.claim('%s', 1, 1000000)",
        worker);
    sql(user, "rollback; begin isolation level repeatable read");
    assert_int_equal(sql_int(user, "select count(*) from durable.runs where id = '%s'", id), 1);
    sql(conn, "begin");
    sql(conn, "select durable_internal.run_op(run_id, '{\"op\": \"child\", \"job\": \"kid\"}') "
              "from p");
    sql(conn,
        "select durable_internal.commit_step_tx('%s', run_id, fence, 1, 1, 'kid', '1', 1) from p",
        worker);
    sql(conn, "commit");
    sql_error(user, "40001", "select durable.cancel('%s')", id);
    sql(user, "rollback");
    sql(user, "select durable.cancel('%s')", id);
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job in ('parent', "
                                   "'kid') and status = 'cancelled'"),
                     2);
    PQfinish(user);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_running_run_stops_and_its_step_is_not_kept),
        cmocka_unit_test(a_handler_that_does_not_listen_begins_no_step),
        cmocka_unit_test(a_tree_of_runs_is_cancelled_whole),
        cmocka_unit_test(runs_are_cancelled_wherever_they_are),
        cmocka_unit_test(an_open_cancel_delays_its_own_run_only),
        cmocka_unit_test(a_cancel_that_rolls_back_never_happened),
        cmocka_unit_test(a_cancel_that_cannot_see_a_child_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
