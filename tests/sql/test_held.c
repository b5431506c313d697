/* Ops of runs that need what somebody's open transaction holds, or one another's keys: nobody else
 * waits. */
#include "ops.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void a_lease_that_somebody_holds_is_busy(void **state) {
    PGconn *other = connect_to(url);
    (void)state;
    sql(other, "begin");
    sql(other, "select durable.cancel(run_id) from c");
    assert_string_equal(commit_ops("http", "[]"), "{\"code\": \"busy\"}");
    sql(other, "rollback");
    PQfinish(other);
    assert_string_equal(commit_ops("http", "[]"), "{\"results\": [], \"cancelled\": false}");
}

/* A caller begins, and his transaction stays open. We wait for nobody for longer than 2 s. */
static void call(const char *text) {
    sql(conn, "set lock_timeout = '2s'");
    caller = caller == NULL ? connect_to(url) : caller;
    sql(caller, "begin");
    sql(caller, "%s", text);
}

static void whose_op_needs_what_a_caller_holds_is_busy_alone(void **state) {
    static const struct {
        const char *held, *need;
    } table[] = {
        /* A row that is there; one that is not yet; a lock; the key of an event. */
        { "select durable.state_set('k0', '5')", INCREMENT("n", "k0") },
        { "select durable.state_increment('k1')", INCREMENT("n", "k1") },
        { "select durable.state_lock('k2', 'me', '1h')",
          "{\"op\": \"state\", \"name\": \"n\", \"action\": \"lock\", \"key\": \"k2\", \"ttl\": "
          "\"1h\"}" },
        { "select durable.send_event('e', '{}', null, 'k3')",
          "{\"op\": \"send_event\", \"name\": \"n\", \"event\": \"e\", \"idempotencyKey\": "
          "\"k3\"}" },
    };
    char text[2048];
    (void)state;
    sql(conn, "select durable.state_set('k0', '1')");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *need = table[i].need, *free = INCREMENT("f", "free");
        start_and_claim(4);
        call(table[i].held);
        (void)snprintf(text, sizeof text, "[[%s], [%s, %s], [%s], [%s]]", free, free, need, free,
                       need);
        assert_string_equal(commits(text), "kept, busy, kept, busy");
        (void)snprintf(
            text, sizeof text,
            "[" COMPLETED("") ", " COMPLETED("%s") ", " COMPLETED("%s") ", " COMPLETED("%s") "]",
            need, INCREMENT("g", "free"), need);
        assert_string_equal(answers(text), "2 busy, 4 busy");
        assert_string_equal(
            sql_text(conn, "select string_agg(r.status, ' ' order by r.id) from durable.runs r "
                           "join c on c.run_id = r.id"),
            "completed running completed running");
        sql(caller, "rollback");
        assert_string_equal(answers(text), "1 lost, 3 lost");
        assert_int_equal(sql_int(conn, "select count(*) from durable_internal.log join c using "
                                       "(run_id) where message = 'said'"),
                         4);
        assert_int_equal(sql_int(conn, "select value from durable.state_get('free')"),
                         3LL * ((long long)i + 1));
        (void)ops_end(NULL);
    }
}

/* The first of them waits a moment, and the others know. */
static void many_whose_key_is_held_are_given_up_together(void **state) {
    (void)state;
    sql(conn, "select durable.state_set('k0', '1')");
    sql(conn, "select durable.start('http') from generate_series(1, 60)");
    sql(conn,
        "drop table c; create table c as select c.*, w.id as worker_id from "
        "durable_internal.worker w, durable_internal.claim(w.id, 60, 1000000, w.number) as c");
    call("select durable.state_set('k0', '5')");
    sql(conn, "set statement_timeout = '3s'");
    assert_int_equal(
        sql_int(conn, "with a as (select array_agg(run_id) as runs, array_agg(fence) as fences, "
                      "array_agg(worker_id) as workers, array_agg('[" INCREMENT(
                          "n", "k0") "]'::jsonb) as "
                                     "ops from c) select count(*) from a, "
                                     "durable_internal.commit_ops(runs, fences, "
                                     "workers, ops) as o where o.answer ->> 'code' = 'busy'"),
        60);
    sql(conn, "reset statement_timeout");
    sql(caller, "rollback");
}

/* Many runs of two sessions each count in one of two keys: the one session's runs in the one order,
 * the other's in the other. */

#define SESSIONS 2
#define COUNTED 20

struct session {
    PGconn *conn;
    const char *direction; /* of the order in which its runs come */
    int refused;
    char error[512]; /* for the test's own thread, which alone may fail */
};

static void *count(void *context) {
    struct session *session = context;
    for (int round = 0; round < 30 && session->error[0] == '\0'; round++) {
        char query[1024];
        (void)snprintf(
            query, sizeof query,
            "with i as (select array_agg(run_id order by run_id) as runs, "
            "array_agg(fence order by run_id) as fences, array_agg(worker_id) as workers, "
            "array_agg(jsonb_build_array(jsonb_build_object('op', 'state', 'name', 'n%d', "
            "'action', 'increment', 'key', case when (place %% 2 = 0) = %s then 'one' "
            "else 'two' end)) order by run_id) as ops from counted where half = %s) "
            "select count(*) filter (where o.answer ? 'code') from i, "
            "durable_internal.commit_ops(i.runs, i.fences, i.workers, i.ops) as o",
            round, session->direction, session->direction);
        PGresult *refused = PQexec(session->conn, query);
        if (PQresultStatus(refused) == PGRES_TUPLES_OK) {
            session->refused += (int)strtol(PQgetvalue(refused, 0, 0), NULL, 10);
        } else {
            (void)snprintf(session->error, sizeof session->error, "%s",
                           PQerrorMessage(session->conn));
        }
        PQclear(refused);
    }
    return NULL;
}

static void counters_of_many_runs_do_not_meet_crosswise(void **state) {
    struct session sessions[SESSIONS] = { { .direction = "true" }, { .direction = "false" } };
    pthread_t threads[SESSIONS];
    (void)state;
    sql(conn, "select durable.start('http') from generate_series(1, %d)", SESSIONS * COUNTED);
    sql(conn, "create table counted as select c.run_id, c.fence, w.id as worker_id, row_number() "
              "over (order by "
              "c.run_id) as place, false as half from durable_internal.worker w, "
              "durable_internal.claim(w.id, 100, 10000000, w.number) as c");
    sql(conn, "update counted set half = place > %d", COUNTED);
    for (int i = 0; i < SESSIONS; i++) {
        sessions[i].conn = connect_to(url);
        sql(sessions[i].conn, "set lock_timeout = '1s'");
        assert_int_equal(pthread_create(&threads[i], NULL, count, &sessions[i]), 0);
    }
    for (int i = 0; i < SESSIONS; i++) {
        (void)pthread_join(threads[i], NULL);
        PQfinish(sessions[i].conn);
    }
    for (int i = 0; i < SESSIONS; i++) {
        assert_string_equal(sessions[i].error, "");
        assert_int_equal(sessions[i].refused, 0);
    }
    assert_int_equal(
        sql_int(conn,
                "select sum(value::int) from durable_internal.state where key in ('one', 'two')"),
        30 * SESSIONS * COUNTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST(a_lease_that_somebody_holds_is_busy),
        OPS_TEST(whose_op_needs_what_a_caller_holds_is_busy_alone),
        OPS_TEST(many_whose_key_is_held_are_given_up_together),
        OPS_TEST(counters_of_many_runs_do_not_meet_crosswise),
    };
    return cmocka_run_group_tests(tests, ops_setup, invariants_hold);
}
