/* Times that have passed when they are written. The scheduler's scan begins a minute back, so a
 * timer of long ago would lie behind it until the one in ten seconds that begins at the very
 * beginning.
 *
 * Seen to fail: with the times written as they were given, nothing but the wait for 0 s was
 * promoted. */
#include "support.h"

#include <string.h>

static const char *url;
static PGconn *conn;
static const char *worker;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    worker = strdup(worker_new(conn, "j"));
    return 0;
}

/* A run in our worker's hands; it is the one row of the table c. */
static int leased(void **state) {
    (void)state;
    sql(conn, "select durable.start('j')");
    sql(conn, "drop table if exists c");
    sql(conn, "create table c as select * from durable_internal.claim('%s', 1, 1000000)", worker);
    assert_int_equal(sql_int(conn, "select count(*) from c"), 1);
    return 0;
}

static int over(void **state) {
    (void)state;
    sql(conn, "select durable.cancel(id) from durable.runs where finished_at is null");
    return 0;
}

static void turn(const char *op, const char *detail) {
    sql(conn,
        "select durable_internal.commit('%s', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', "
        "'{}', "
        "'{}', '{}', '{}', array[run_id], array[fence], array['%s'], array['%s'::jsonb], '{}', "
        "'{}', '{}', '{}', '{}') from c",
        worker, op, detail);
}

static void ops(const char *ops) {
    assert_string_equal(sql_text(conn,
                                 "select coalesce(o.answer ->> 'code', 'kept') from c, "
                                 "durable_internal.commit_ops(array[run_id], array[fence], "
                                 "array['%s'::uuid], array['%s'::jsonb]) as o",
                                 worker, ops),
                        "kept");
}

static const char *status(void) {
    return sql_text(conn, "select status from durable.runs where finished_at is null");
}

/* What a scheduler does that is not at its tenth second. */
static void check_due(const char *before) {
    assert_string_equal(status(), before);
    assert_int_equal(sql_int(conn, "select promoted from durable_internal.promote_due(100, 60)"),
                     1);
    assert_string_equal(status(), "queued");
}

static void a_sleep_until_the_past_is_over_at_once(void **state) {
    (void)state;
    turn("sleep", "{\"position\": 1, \"name\": \"s\", \"untilUs\": 1577836800000000}");
    check_due("waiting");
}

static void a_sleep_until_the_past_over_http_is_over_at_once(void **state) {
    (void)state;
    ops("[{\"op\": \"sleep\", \"name\": \"s\", \"until\": \"2020-01-01T00:00:00Z\"}]");
    check_due("waiting");
}

static void a_wait_of_no_time_is_over_at_once(void **state) {
    (void)state;
    turn("wait", "{\"position\": 1, \"name\": \"w\", \"event\": \"e\", \"timeoutMs\": 0, "
                 "\"onTimeout\": \"continue\"}");
    check_due("waiting");
}

/* It was over while the run was busy with what lay beside it. */
static void a_branch_that_is_asked_for_again_too_late_is_over_at_once(void **state) {
    (void)state;
    const char *both = "[{\"op\": \"sleep\", \"name\": \"s\", \"duration\": \"1h\"}, {\"op\": "
                       "\"wait_event\", \"name\": \"w\", \"event\": \"e\"}]";
    ops(both);
    sql(conn, "select durable.send_event('e')");
    while (sql_int(conn, "select durable_internal.match_turn(100)") > 0) {
    }
    sql(conn, "update durable_internal.branch set due_at = due_at - interval '2 hours'");
    sql(conn, "delete from c");
    sql(conn, "insert into c select * from durable_internal.claim('%s', 1, 1000000)", worker);
    ops("[{\"op\": \"sleep\", \"name\": \"s\", \"duration\": \"1h\"}]");
    check_due("waiting");
}

static void reschedule(void) {
    sql(conn, "select durable.reschedule(id, '2020-01-01') from durable.runs where finished_at is "
              "null");
}

static void a_scheduled_run_moved_into_the_past_is_due_at_once(void **state) {
    (void)over(state);
    sql(conn, "select durable.start('j', scheduled_at => now() + interval '1 hour')");
    reschedule();
    check_due("scheduled");
}

static void a_queued_run_moved_into_the_past_is_due_at_once(void **state) {
    (void)over(state);
    sql(conn, "select durable.start('j')");
    reschedule();
    check_due("scheduled");
}

static void a_retry_moved_into_the_past_is_due_at_once(void **state) {
    (void)state;
    turn("fail", "{\"error\": {\"name\": \"E\"}, \"retryAfterMs\": 3600000}");
    reschedule();
    check_due("retrying");
}

/* A wait that cancels its run when it is too late, and so its run's children, one of which somebody
 * holds: others do not wait. */
static void a_child_that_is_held_keeps_no_timer_of_others(void **state) {
    (void)state;
    PGconn *other = connect_to(url);
    ops("[{\"op\": \"child\", \"name\": \"kid\", \"job\": \"k\"}, {\"op\": \"wait_event\", "
        "\"name\": "
        "\"w\", \"event\": \"e\", \"timeout\": \"1ms\", \"onTimeout\": \"cancel\"}]");
    sql(other, "begin");
    sql(other, "select durable.cancel(id) from durable.runs where job = 'k'");
    sql(conn, "select durable.start('j', scheduled_at => clock_timestamp() + interval '1 ms')");
    sql(conn, "set lock_timeout = '2s'");
    wait_until(conn, 5,
               "select count(*) = 2 from durable_internal.timer where due_at < clock_timestamp()");
    PGresult *result = PQexec(conn, "select promoted from durable_internal.promote_due(100, 60)");
    sql(other, "rollback");
    assert_int_equal(PQresultStatus(result), PGRES_TUPLES_OK);
    assert_string_equal(PQgetvalue(result, 0, 0), "1");
    PQclear(result);
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where status = 'waiting'"),
                     1);
    wait_until(conn, 5, "select promoted = 1 from durable_internal.promote_due(100, 60)");
    assert_string_equal(
        sql_text(conn, "select string_agg(status, ' ' order by id desc) from durable.runs where "
                       "job = 'k' or id in (select run_id from c)"),
        "cancelled cancelled");
    sql(conn, "reset lock_timeout");
    PQfinish(other);
}

int main(void) {
#define RUN(test) cmocka_unit_test_setup_teardown(test, leased, over)
    const struct CMUnitTest tests[] = {
        RUN(a_sleep_until_the_past_is_over_at_once),
        RUN(a_sleep_until_the_past_over_http_is_over_at_once),
        RUN(a_wait_of_no_time_is_over_at_once),
        RUN(a_branch_that_is_asked_for_again_too_late_is_over_at_once),
        RUN(a_scheduled_run_moved_into_the_past_is_due_at_once),
        RUN(a_queued_run_moved_into_the_past_is_due_at_once),
        RUN(a_retry_moved_into_the_past_is_due_at_once),
        RUN(a_child_that_is_held_keeps_no_timer_of_others),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
