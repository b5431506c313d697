/* Guarantee 9, as far as it goes in this version: in a queue, higher priority first, then oldest
 * first. Limits and fairness are not there yet, and are refused by name (g13).
 *
 * Seen to fail: tests/mutations, lowest-priority-first and newest-first. */
#include "support.h"

#include <string.h>

static const char *url;
static PGconn *conn;
static char worker[64];

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "by-hand"));
    return 0;
}

/* The payloads of the runs that a claim of so many gives, in its order. */
static const char *claimed(int slots) {
    return sql_text(conn,
                    "select string_agg(payload #>> '{}', ' ' order by n) from "
                    "durable_internal.claim('%s', %d, 1000000) with ordinality as "
                    "c (run_id, fence, job, queue, attempt, payload, memory, bytes, facts, n)",
                    worker, slots);
}

static void start(const char *name, int priority) {
    sql(conn, "select durable.start('by-hand', to_jsonb('%s'::text), priority => %d)", name,
        priority);
}

static void a_claim_takes_the_highest_priority_then_the_oldest(void **state) {
    (void)state;
    start("low1", -5);
    start("low2", -5);
    start("mid1", 0);
    start("high1", 7);
    start("mid2", 0);
    start("high2", 7);
    start("mid3", 0);
    assert_string_equal(claimed(1), "high1");
    assert_string_equal(claimed(3), "high2 mid1 mid2");
    start("high3", 7); /* comes last, and is next */
    assert_string_equal(claimed(2), "high3 mid3");
    assert_string_equal(claimed(10), "low1 low2");
}

/* Over queues and jobs too, whose runs lie apart. */
static void runs_of_several_queues_and_jobs_come_in_one_order(void **state) {
    (void)state;
    sql(conn, "select durable_internal.worker_leave('%s')", worker);
    (void)snprintf(worker, sizeof worker, "%s",
                   sql_text(conn, "select durable_internal.uuid_v7()"));
    sql(conn,
        "select durable_internal.worker_register('%s', 'default', 'test', 1, '0', 10, 10000, "
        "'{a,b}', array['{}', '{}']::jsonb[], null)",
        worker);
    sql(conn, "select durable.cancel(id) from durable.runs where finished_at is null");
    for (int i = 1; i <= 12; i++) {
        sql(conn, "select durable.start('%s', to_jsonb('%d'::text), queue => '%s', priority => %d)",
            i % 2 == 0 ? "a" : "b", i, i % 3 == 0 ? "one" : "other", i > 8);
    }
    assert_string_equal(claimed(5), "9 10 11 12 1");
    assert_string_equal(claimed(5), "2 3 4 5 6");
    assert_string_equal(claimed(5), "7 8");
}

/* A run that comes back from a wait or a retry stands behind those that were ready before it. */
static void who_comes_back_stands_behind_who_was_there(void **state) {
    (void)state;
    sql(conn, "select durable_internal.worker_leave('%s')", worker);
    sql(conn, "select durable.cancel(id) from durable.runs where finished_at is null");
    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "by-hand"));
    start("first", 0);
    sql(conn, "create temp table c as select * from durable_internal.claim('%s', 1, 1000000)",
        worker);
    start("second", 0);
    sql(conn,
        "select durable_internal.commit('%s', '{}','{}','{}','{}','{}','{}','{}','{}','{}', "
        "'{}','{}','{}', array[run_id], array[fence], array['yield'], array['{}']::jsonb[], "
        "'{}','{}','{}','{}','{}') from c",
        worker);
    assert_string_equal(claimed(2), "second first");
}

/* A claim ends with what its bytes let through: the oldest, whatever lane they are in. */
static void what_a_claim_has_room_for_is_the_oldest(void **state) {
    (void)state;
    sql(conn, "select durable_internal.worker_leave('%s')", worker);
    sql(conn, "select durable.cancel(id) from durable.runs where finished_at is null");
    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "by-hand"));
    static const char *const queues[] = { "one", "two", "one", "one", "two" };
    for (size_t i = 0; i < sizeof queues / sizeof *queues; i++) {
        sql(conn,
            "select durable.start('by-hand', jsonb_build_array(%zu, repeat('x', 5000)), queue => "
            "'%s')",
            i + 1, queues[i]);
    }
    assert_string_equal(
        sql_text(conn,
                 "select string_agg(payload ->> 0, ' ') from durable_internal.claim('%s', 5, 7000)",
                 worker),
        "1 2");
    sql(conn, "select durable.cancel(id) from durable.runs where finished_at is null");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_claim_takes_the_highest_priority_then_the_oldest),
        cmocka_unit_test(runs_of_several_queues_and_jobs_come_in_one_order),
        cmocka_unit_test(what_a_claim_has_room_for_is_the_oldest),
        cmocka_unit_test(who_comes_back_stands_behind_who_was_there),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
