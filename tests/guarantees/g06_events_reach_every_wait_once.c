/* Guarantee 6. An event reaches every run that waits for its name and key, each once; a wait takes
 * one event, a run takes an event once. It may come before the wait.
 *
 * Seen to fail: with begin_wait() leaving no inbox row (the sender's side looking alone), 9,506 of
 * 10,000 waits of the race stayed for ever; with event_for() not looking at deliveries, a run was
 * given an event twice, and the matcher stood still. */
#include "support.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#define RACES 10000

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

/* Lets the claimed runs in table `c` of a session wait for event go with key; (fence or id as the
 * key). */
#define BEGIN_WAITS(key)                                                                           \
    "select count(*) from durable_internal.commit('%s', "                                          \
    "'{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}', "                                \
    "(select array_agg(run_id order by run_id) from c), (select array_agg(fence order by run_id) " \
    "from c), "                                                                                    \
    "(select array_agg('wait'::text) from c), (select array_agg(jsonb_build_object('position', "   \
    "1, 'name', 'go', 'event', 'go', 'key', " key                                                  \
    ") order by run_id) from c), '{}','{}','{}','{}','{}')"

static void claim(PGconn *session, int runs) {
    sql(session, "drop table if exists c");
    sql(session, "create temp table c as select * from durable_internal.claim('%s', %d, 100000000)",
        worker, runs);
    assert_int_equal(sql_int(session, "select count(*) from c"), runs);
}

static void match_all(void) {
    while (sql_int(conn, "select durable_internal.match_turn(1000)") > 0) {
    }
}

static void an_event_before_the_wait_is_taken_by_runs_that_existed(void **state) {
    (void)state;
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[3]))");
    sql(conn, "select durable.send_event('go', '{\"n\": 1}', 'early')");
    match_all();
    claim(conn, 3);
    sql(conn, BEGIN_WAITS("'early'"), worker);
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps where kind = 'wait_event' "
                                   "and result -> 'payload' = '{\"n\": 1}'"),
                     3);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 0);
    /* All three have had it; a younger run gets nothing. */
    sql(conn, "select * from durable_internal.claim('%s', 10, 1000000)", worker);
    sql(conn, "select durable.start('by-hand')");
    claim(conn, 1);
    sql(conn, BEGIN_WAITS("'early'"), worker);
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 1);
    sql(conn, "select durable.cancel(run_id) from durable_internal.wait");
}

static void an_event_nobody_received_is_taken_by_the_first_younger_run(void **state) {
    (void)state;
    sql(conn, "select durable.send_event('go', '{}', 'for the next')");
    match_all();
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[2]))");
    claim(conn, 2);
    sql(conn, BEGIN_WAITS("'for the next'"), worker);
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 1);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.delivery d join "
                                   "durable_internal.event e on e.seq = d.event_seq "
                                   "where e.correlation_key = 'for the next'"),
                     1);
    sql(conn, "select durable.cancel(run_id) from durable_internal.wait");
    sql(conn, "select * from durable_internal.claim('%s', 10, 1000000)", worker);
}

static void keys_are_kept_apart_and_a_run_takes_an_event_once(void **state) {
    (void)state;
    sql(conn, "select durable.start('by-hand')");
    claim(conn, 1);
    sql(conn, "select durable.send_event('go', '{}', 'other key'), durable.send_event('other', "
              "'{}', 'mine'), durable.send_event('go')");
    sql(conn, BEGIN_WAITS("'mine'"), worker);
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 1);
    sql(conn, "select durable.send_event('go', '{}', 'mine')");
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 0);
    sql(conn, "drop table c");
    sql(conn, "create temp table c as select * from durable_internal.claim('%s', 1, 1000000)",
        worker);
    sql(conn,
        "select count(*) from durable_internal.commit('%s', "
        "'{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}', "
        "(select array_agg(run_id) from c), (select array_agg(fence) from c), array['wait'], "
        "array['{\"position\": 2, \"name\": "
        "\"go#2\", \"event\": \"go\", \"key\": \"mine\"}']::jsonb[], '{}','{}','{}','{}','{}')",
        worker);
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"),
                     1); /* the same event again: no */
    sql(conn, "select durable.cancel(run_id) from durable_internal.wait");
}

/* The race: one session begins waits, another sends their events, at the same time, and two match.
 */

static void *match_in_thread(void *context) {
    PGconn *matcher = connect_to(url);
    atomic_bool *stop = context;
    while (!atomic_load(stop)) {
        PQclear(PQexec(matcher, "select durable_internal.match_turn(100)"));
    }
    PQfinish(matcher);
    return NULL;
}

static void *send_in_thread(void *context) {
    PGconn *sender = connect_to(url);
    (void)context;
    for (int i = 0; i < RACES / 100; i++) {
        char query[200];
        (void)snprintf(
            query, sizeof query,
            "select durable.send_event('go', '{}', 'race ' || n) from generate_series(%d, %d) as n",
            i * 100, i * 100 + 99);
        PQclear(PQexec(sender, query));
    }
    PQfinish(sender);
    return NULL;
}

static void ten_thousand_events_that_race_their_waits_all_meet(void **state) {
    atomic_bool stop = false;
    pthread_t matchers[2], sender;
    (void)state;
    sql(conn,
        "select durable.start_many('by-hand', array(select jsonb_build_object('n', n) from "
        "generate_series(0, %d) as n))",
        RACES - 1);
    claim(conn, RACES);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&matchers[i], NULL, match_in_thread, &stop), 0);
    }
    assert_int_equal(pthread_create(&sender, NULL, send_in_thread, NULL), 0);
    sql(conn, "alter table c rename to all_claimed");
    for (int i = 0; i < RACES / 100; i++) {
        sql(conn,
            "create temp table c as select * from all_claimed where (payload ->> 'n')::int between "
            "%d and %d",
            i * 100, i * 100 + 99);
        sql(conn, BEGIN_WAITS("'race ' || (payload ->> 'n')"), worker);
        sql(conn, "drop table c");
    }
    (void)pthread_join(sender, NULL);
    wait_until(conn, 60, "select not exists (select from durable_internal.event_inbox)");
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++) {
        (void)pthread_join(matchers[i], NULL);
    }
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 0);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.delivery d join "
                                   "durable_internal.event e on e.seq = d.event_seq "
                                   "where e.correlation_key like 'race %%'"),
                     RACES);
    assert_int_equal(sql_int(conn,
                             "select count(*) from durable.steps s join all_claimed a using "
                             "(run_id) where s.kind = 'wait_event' "
                             "and s.result ->> 'correlationKey' = 'race ' || (a.payload ->> 'n')"),
                     RACES);
}

static void a_repeated_event_is_one_and_a_changed_one_a_conflict(void **state) {
    (void)state;
    const char *id = sql_text(conn, "select durable.send_event('paid', '{\"a\": 1}', 'k', 'once')");
    assert_string_equal(
        sql_text(conn, "select durable.send_event('paid', '{\"a\": 1.0}', 'k', 'once')"), id);
    sql_error(conn, "DJ002", "select durable.send_event('paid', '{\"a\": 2}', 'k', 'once')");
    sql_error(conn, "DJ002", "select durable.send_event('paid', '{\"a\": 1}', 'other', 'once')");
    assert_int_equal(
        sql_int(conn, "select count(*) from durable.events where idempotency_key = 'once'"), 1);
}

/* An open transaction that holds one waiting run does not keep the events of others. */
static void a_held_wait_delays_nobody_else(void **state) {
    PGconn *holder = connect_to(url);
    (void)state;
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[2]))");
    claim(conn, 2);
    sql(conn, BEGIN_WAITS("'held'"), worker);
    sql(holder, "begin");
    sql(holder,
        "select durable.cancel((select min(run_id::text)::uuid from durable_internal.wait))");
    sql(conn, "select durable.send_event('go', '{}', 'held')");
    sql(conn, "set lock_timeout = '1s'");
    (void)sql_int(conn, "select durable_internal.match_turn(1000)");
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 1);
    sql(holder, "rollback");
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 0);
    PQfinish(holder);
}

/* A matcher looks at so many waits at a time; here at two. */
static void an_event_of_a_wait_any_reaches_more_runs_than_a_matcher_looks_at(void **state) {
    (void)state;
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[5]))");
    claim(conn, 5);
    sql(conn, BEGIN_WAITS("'many', 'others', '[{\"event\": \"stop\", \"key\": \"many\"}]'::jsonb"),
        worker);
    match_all();
    sql(conn, "select durable.send_event('stop', '{}', 'many')");
    while (sql_int(conn, "select durable_internal.match_events(2)") > 0) {
    }
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 0);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait_other"), 0);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.event_inbox"), 0);
}

static void held_waits_that_fill_a_look_cost_the_others_no_event(void **state) {
    PGconn *holder = connect_to(url);
    (void)state;
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[3]))");
    claim(conn, 3);
    sql(conn, BEGIN_WAITS("'full'"), worker);
    match_all();
    sql(holder, "begin");
    sql(holder, "select durable.cancel(run_id) from (select run_id from durable_internal.wait "
                "order by wait_id limit 2) as w");
    sql(conn, "select durable.send_event('go', '{}', 'full')");
    assert_int_equal(sql_int(conn, "select durable_internal.match_events(2)"), 0);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 3);
    sql(holder, "commit");
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 0);
    PQfinish(holder);
}

static void held_waits_that_fill_a_look_are_not_looked_at_each_time(void **state) {
    PGconn *holder = connect_to(url);
    (void)state;
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[3]))");
    claim(conn, 3);
    sql(conn, BEGIN_WAITS("'own ' || (select count(*) from c as o where o.run_id <= c.run_id)"),
        worker);
    match_all();
    sql(holder, "begin");
    sql(holder, "select durable.cancel(run_id) from durable_internal.wait "
                "where correlation_key <> 'own 3'");
    for (int i = 1; i <= 3; i++) {
        sql(conn, "select durable.send_event('go', '{}', 'own %d')", i);
    }
    for (int i = 0; i < 10; i++) {
        (void)sql_int(conn, "select durable_internal.match_events(2)");
    }
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait "
                                   "where correlation_key = 'own 3'"),
                     0);
    /* What waits for the holder's end becomes no more, however often it is looked at. */
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.event_inbox"), 2);
    sql(holder, "rollback");
    match_all();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait"), 0);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.event_inbox"), 0);
    PQfinish(holder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_before_the_wait_is_taken_by_runs_that_existed),
        cmocka_unit_test(an_event_nobody_received_is_taken_by_the_first_younger_run),
        cmocka_unit_test(keys_are_kept_apart_and_a_run_takes_an_event_once),
        cmocka_unit_test(ten_thousand_events_that_race_their_waits_all_meet),
        cmocka_unit_test(a_repeated_event_is_one_and_a_changed_one_a_conflict),
        cmocka_unit_test(a_held_wait_delays_nobody_else),
        cmocka_unit_test(an_event_of_a_wait_any_reaches_more_runs_than_a_matcher_looks_at),
        cmocka_unit_test(held_waits_that_fill_a_look_cost_the_others_no_event),
        cmocka_unit_test(held_waits_that_fill_a_look_are_not_looked_at_each_time),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
