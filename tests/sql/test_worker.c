/* Workers that are dead, as the database sees them.
 *
 * Seen to fail: with the first worker in the table taken whose leases were held, the other's stayed
 * where it was. */
#include "support.h"

#include <stdio.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    sql(conn, "select durable_internal.plan_by_index()"); /* as the scheduler does */
    sql(conn, "alter table durable_internal.worker set (fillfactor = 10)");
    return 0;
}

/* Two died with a run each that somebody held just then; of the first it is held still. They are
 * pages apart, and the pages have room: no update brings one's row behind the other's. */
static void a_lease_that_stays_held_keeps_none_of_another_dead_worker(void **state) {
    PGconn *holders[2];
    char runs[2][64];
    (void)state;
    for (int i = 0; i < 2; i++) {
        (void)snprintf(runs[i], sizeof runs[i], "%s", sql_text(conn, "select durable.start('j')"));
        const char *worker = worker_new(conn, "j");
        sql(conn, "select durable_internal.claim('%s', 1, 1000000)", worker);
        holders[i] = connect_to(url);
        sql(holders[i], "begin");
        sql(holders[i], "select from durable_internal.lease where run_id = '%s' for update",
            runs[i]);
        sql(conn, "update durable_internal.worker set beat_at = '-infinity' where id = '%s'",
            worker);
        assert_string_equal(sql_text(conn, "select durable_internal.reap()"), worker);
        sql(conn, "select durable_internal.worker_register(durable_internal.uuid_v7(), 'default', "
                  "'between', 1, '0', 10, 10000, '{}', '{}', null) from generate_series(1, 100)");
    }
    for (int i = 1; i >= 0; i--) {
        sql(holders[i], "rollback");
        PQfinish(holders[i]);
        for (int calls = 0; calls < 18; calls++) {
            sql(conn, "select durable_internal.reap()");
        }
        assert_string_equal(
            sql_text(conn, "select status from durable.runs where id = '%s'", runs[i]), "queued");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lease_that_stays_held_keeps_none_of_another_dead_worker),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
