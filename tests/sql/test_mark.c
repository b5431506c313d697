/* The lanes' marks: claims begin there, and no run that comes to light below one is lost.
 *
 * Seen to fail: with only the transactions that the snapshot lists in mark_pending, the bulk
 * start's runs were never claimed, and 4 of 529 of the last test; without raise_late(), every late
 * run. */
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STARTERS 4
#define STARTS 150

static const char *url;
static PGconn *conn;
static char worker[64];

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    return 0;
}

static int first_run(void **state) {
    (void)state;
    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "by-hand"));
    sql(conn, "select durable.start('by-hand'), durable.start('by-hand')"); /* the lane */
    sql(conn, "select * from durable_internal.claim('%s', 10, 1000000)", worker);
    sql(conn, "select durable_internal.move_marks(1)");
    return 0;
}

static long long claimed(int slots) {
    return sql_int(conn, "select count(*) from durable_internal.claim('%s', %d, 1000000)", worker,
                   slots);
}

static long long mark(void) {
    return sql_int(conn, "select max(low_seq) from durable_internal.lane_mark");
}

/* Transactions that have ended and are waited for still; those of other databases go on meanwhile.
 */
static long long pending(void) {
    return sql_int(conn, "select count(*) from durable_internal.mark_pending where "
                         "pg_visible_in_snapshot(xid, pg_current_snapshot())");
}

/* Starts and claims others, so that the mark goes up. */
static void pass_by(void) {
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[100]))");
    assert_int_equal(claimed(1000), 100);
    sql(conn, "select durable_internal.move_marks(1)");
}

static void a_mark_follows_the_claims(void **state) {
    (void)state;
    long long before = mark();
    pass_by();
    assert_true(mark() >= before + 100);
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[10]))");
    long long first = sql_int(conn, "select min(seq) from durable_internal.ready");
    sql(conn, "select durable_internal.move_marks(1)");
    assert_true(mark() <= first);
    assert_int_equal(claimed(10), 10);
}

static void what_commits_below_the_mark_is_brought_up_in_its_order(void **state) {
    PGconn *late = connect_to(url);
    (void)state;
    sql(late, "begin");
    sql(late, "select durable.start('by-hand', jsonb_build_object('n', n)) "
              "from generate_series(1, 5) as n");
    pass_by();
    pass_by();
    assert_true(mark() > sql_int(late, "select max(seq) from durable_internal.ready"));
    sql(late, "commit");
    assert_int_equal(claimed(10), 0); /* nobody looks down there */
    sql(conn, "select durable_internal.move_marks(1)");
    assert_string_equal(sql_text(conn,
                                 "select string_agg(payload ->> 'n', ' ' order by fence) from "
                                 "durable_internal.claim('%s', 10, 1000000)",
                                 worker),
                        "1 2 3 4 5");
    assert_int_equal(pending(), 0);
    PQfinish(late);
}

/* No transaction after it has ended: no snapshot lists it as in progress. */
static void a_bulk_start_that_is_the_newest_transaction_is_not_passed_for_good(void **state) {
    PGconn *late = connect_to(url);
    (void)state;
    sql(late, "begin");
    sql(late, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[10]))");
    sql(conn, "select durable_internal.move_marks(1)");
    sql(conn, "select durable_internal.move_marks(1)");
    sql(late, "commit");
    sql(conn, "select durable_internal.move_marks(1)");
    assert_int_equal(claimed(20), 10);
    PQfinish(late);
}

static void a_late_run_that_somebody_holds_is_brought_up_when_it_is_let_go(void **state) {
    PGconn *late = connect_to(url), *holder = connect_to(url);
    (void)state;
    sql(late, "begin");
    sql(late, "select durable.start('by-hand')");
    pass_by();
    sql(late, "commit");
    sql(holder, "begin");
    assert_int_equal(
        sql_int(holder,
                "select count(*) from (select from durable_internal.ready for update) as r"),
        1);
    sql(conn, "select durable_internal.move_marks(1)");
    sql(conn, "select durable_internal.move_marks(1)");
    sql(holder, "rollback");
    assert_int_equal(claimed(10), 0);
    sql(conn, "select durable_internal.move_marks(1)");
    assert_int_equal(claimed(10), 1);
    PQfinish(late);
    PQfinish(holder);
}

static void a_late_start_that_rolls_back_leaves_nothing_behind(void **state) {
    PGconn *late = connect_to(url);
    (void)state;
    sql(late, "begin");
    sql(late, "select durable.start('by-hand')");
    pass_by();
    assert_true(sql_int(conn, "select count(*) from durable_internal.mark_pending") > 0);
    sql(late, "rollback");
    sql(conn, "select durable_internal.move_marks(1)");
    assert_int_equal(pending(), 0);
    PQfinish(late);
}

/* Starts in transactions that stay open for a while, one in eight of which roll back. */
static void start_slowly(unsigned seed) {
    PGconn *own = PQconnectdb(url);
    for (int i = 0; i < STARTS; i++) {
        PQclear(PQexec(own, "begin"));
        PQclear(PQexec(own, "select durable.start('by-hand', '{\"slow\": true}')"));
        sleep_ms(rand_r(&seed) % 8 == 0 ? 30 : rand_r(&seed) % 3);
        PQclear(PQexec(own, rand_r(&seed) % 8 == 0 ? "rollback" : "commit"));
    }
    PQfinish(own);
    _exit(0);
}

static void claims_and_moves_amid_open_starts_lose_nothing(void **state) {
    PGconn *mover = connect_to(url);
    pid_t starters[STARTERS];
    (void)state;
    for (int i = 0; i < STARTERS; i++) {
        starters[i] = fork();
        if (starters[i] == 0) {
            start_slowly((unsigned)i + 1);
        }
    }
    long long taken = 0;
    for (int left = STARTERS; left > 0;) {
        taken += claimed(3);
        sql(mover, "select durable_internal.move_marks(1)");
        while (left > 0 && waitpid(starters[left - 1], NULL, WNOHANG) > 0) {
            left--;
        }
    }
    for (int i = 0; i < 3; i++) {
        sql(mover, "select durable_internal.move_marks(1)");
        taken += claimed(1000);
    }
    assert_int_equal(taken, sql_int(conn, "select count(*) from durable.runs "
                                          "where payload = '{\"slow\": true}'"));
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.ready"), 0);
    assert_true(taken > STARTERS * STARTS / 2);
    PQfinish(mover);
}

/* Seen to fail: answered true for ever, and the scheduler of a new database never rested. */
static void before_the_first_run_there_is_nothing_more_to_move(void **state) {
    PGconn *other = connect_to(url);
    (void)state;
    sql(other, "begin; select pg_current_xact_id()");
    sql(conn, "select durable_internal.move_marks(1)");
    assert_true(sql_int(conn, "select count(*) from durable_internal.mark_pending") > 0);
    sql(other, "commit");
    assert_string_equal(sql_text(conn, "select durable_internal.move_marks(1)"), "f");
    assert_int_equal(pending(), 0);
    PQfinish(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_the_first_run_there_is_nothing_more_to_move),
        cmocka_unit_test_setup(a_mark_follows_the_claims, first_run),
        cmocka_unit_test(what_commits_below_the_mark_is_brought_up_in_its_order),
        cmocka_unit_test(a_bulk_start_that_is_the_newest_transaction_is_not_passed_for_good),
        cmocka_unit_test(a_late_run_that_somebody_holds_is_brought_up_when_it_is_let_go),
        cmocka_unit_test(a_late_start_that_rolls_back_leaves_nothing_behind),
        cmocka_unit_test(claims_and_moves_amid_open_starts_lose_nothing),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
