/* Guarantee 2. Same idempotency key, same job and payload: the same run. Different: an error. After
 * its TTL: a new run.
 *
 * Seen to fail: with take_key() looking before it inserts, and inserting `on conflict do nothing`,
 * 64 starts made several runs; without its comparison of jobs and payloads, the second test found
 * no error. More in tests/mutations. */
#include "support.h"

#include <poll.h>
#include <string.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    return 0;
}

static void sixty_four_concurrent_starts_with_one_key_are_one_run(void **state) {
    PGconn *starters[64];
    (void)state;
    for (int i = 0; i < 64; i++) {
        starters[i] = connect_to(url);
    }
    for (int round = 0; round < 10; round++) {
        char query[128];
        char first[64] = "";
        (void)snprintf(query, sizeof query,
                       "select durable.start('noop', '{\"a\": 1}', idempotency_key => 'round %d')",
                       round);
        for (int i = 0; i < 64; i++) {
            assert_int_equal(PQsendQuery(starters[i], query), 1);
        }
        for (int i = 0; i < 64; i++) {
            PGresult *result = PQgetResult(starters[i]);
            if (PQresultStatus(result) != PGRES_TUPLES_OK) {
                fail_msg("%s", PQresultErrorMessage(result));
            }
            if (i == 0) {
                (void)snprintf(first, sizeof first, "%s", PQgetvalue(result, 0, 0));
            }
            assert_string_equal(PQgetvalue(result, 0, 0), first);
            PQclear(result);
            assert_null(PQgetResult(starters[i]));
        }
    }
    assert_int_equal(
        sql_int(conn, "select count(*) from durable.runs where idempotency_key like 'round%%'"),
        10);
    for (int i = 0; i < 64; i++) {
        PQfinish(starters[i]);
    }
}

static void another_job_or_payload_is_a_conflict_and_stores_nothing(void **state) {
    (void)state;
    sql(conn,
        "select durable.start('noop', '{\"a\": 1, \"b\": 2}', idempotency_key => 'conflict')");
    assert_string_equal(
        sql_text(conn, "select durable.start('noop', '{\"b\": 2.0, \"a\": 1}', idempotency_key => "
                       "'conflict')"),
        sql_text(conn, "select id from durable.runs where idempotency_key = 'conflict'"));
    const char *message = sql_error(
        conn, "DJ002", "select durable.start('noop', '{\"a\": 2}', idempotency_key => 'conflict')");
    assert_non_null(strstr(message, "idempotency_key"));
    sql_error(
        conn, "DJ002",
        "select durable.start('other', '{\"a\": 1, \"b\": 2}', idempotency_key => 'conflict')");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job = 'other'"), 0);
}

/* The same payload is what jsonb calls equal. Letters that look alike are not. */
static void payloads_are_the_same_as_jsonb_has_it(void **state) {
    static const char *const payloads[] = {
        "1",
        "1.0",
        "1.00",
        "10e-1",
        "-0",
        "0",
        "[1,2]",
        "[2,1]",
        "[1, 2.0]",
        "{}",
        "null",
        "\"1\"",
        "{\"a\":1,\"b\":2}",
        "{\"b\":2,\"a\":1}",
        "{\"a\":9,\"b\":2,\"a\":1}",
        "{\"a\":1}",
        "\"\u00e9\"",
        "\"e\\u0301\"",
        "\"\\u00e9\"",
        "9007199254740993",
        "9007199254740992",
        "true",
        "\"true\"",
        "\"\"",
        "\" \"",
        "{\"A\":1}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++) {
        sql(conn, "select durable.start('noop', '%s', idempotency_key => 'equal%zu')", payloads[i],
            i);
        for (size_t j = 0; j < sizeof payloads / sizeof *payloads; j++) {
            bool equal =
                sql_int(conn, "select '%s'::jsonb = '%s'::jsonb", payloads[i], payloads[j]) == 1;
            PGresult *again = PQexec(conn, sql_text(conn,
                                                    "select format('select durable.start(''noop'', "
                                                    "%%L, idempotency_key => ''equal%zu'')', '%s')",
                                                    i, payloads[j]));
            const char *state_of = PQresultErrorField(again, PG_DIAG_SQLSTATE);
            if (equal != (state_of == NULL)) {
                fail_msg("%s and %s: %s", payloads[i], payloads[j], PQresultErrorMessage(again));
            }
            PQclear(again);
        }
    }
}

static void after_its_time_or_release_a_key_gives_a_new_run(void **state) {
    (void)state;
    const char *first = sql_text(
        conn,
        "select durable.start('noop', idempotency_key => 'ttl', idempotency_ttl => '1 hour')");
    assert_string_equal(sql_text(conn, "select durable.start('noop', idempotency_key => 'ttl')"),
                        first);
    sql(conn, "update durable_internal.idempotency_key set expires_at = clock_timestamp() where "
              "key = 'ttl'");
    const char *second = sql_text(conn, "select durable.start('noop', idempotency_key => 'ttl')");
    assert_string_not_equal(second, first);
    assert_int_equal(sql_int(conn, "select durable.release_key('ttl')"), 1);
    assert_int_equal(sql_int(conn, "select durable.release_key('ttl')"), 0);
    assert_string_not_equal(
        sql_text(conn, "select durable.start('noop', idempotency_key => 'ttl')"), second);
}

/* A start waits for another one with its key, for longer than the key's time: one that makes its
 * run just then, or that looks who has the key. Its own time begins when it has the key, and not
 * when it was called. */
static void a_key_that_was_waited_for_holds_for_its_whole_time(void **state) {
    static const struct {
        const char *name, *end;
        bool known;
    } others[] = { { "made", "commit", false },
                   { "not made", "rollback", false },
                   { "looked at", "commit", true } };
    enum { OTHERS = sizeof others / sizeof *others };
    PGconn *other[OTHERS], *waiting[OTHERS];
    char start[OTHERS][160];
    (void)state;
    for (int i = 0; i < OTHERS; i++) {
        (void)snprintf(start[i], sizeof start[i],
                       "select durable.start('noop', idempotency_key => 'waited: %s', "
                       "idempotency_ttl => '2 s')",
                       others[i].name);
        other[i] = connect_to(url);
        waiting[i] = connect_to(url);
        if (others[i].known) {
            sql(conn, "%s", start[i]);
        }
        sql(other[i], "begin");
        sql(other[i], "%s", start[i]);
        assert_int_equal(PQsendQuery(waiting[i], start[i]), 1);
        assert_true(is_blocked(conn, waiting[i]));
    }
    sleep_ms(2200);
    for (int i = 0; i < OTHERS; i++) {
        sql(other[i], "%s", others[i].end);
        PGresult *result = PQgetResult(waiting[i]);
        assert_int_equal(PQresultStatus(result), PGRES_TUPLES_OK);
        assert_string_equal(sql_text(conn, "%s", start[i]), PQgetvalue(result, 0, 0));
        assert_int_equal(
            sql_int(conn,
                    "select count(*) from durable.runs r join durable_internal.idempotency_key k "
                    "on k.run_id = r.id and k.expires_at = r.idempotency_expires_at where r.id = "
                    "'%s' and r.created_at > now() - interval '1 s' and r.created_at - "
                    "durable_internal.born_at(r.id) between '-10 ms' and '10 ms'",
                    PQgetvalue(result, 0, 0)),
            1);
        PQclear(result);
        PQfinish(other[i]);
        PQfinish(waiting[i]);
    }
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where idempotency_key like "
                                   "'waited: %%'"),
                     5);
}

static void a_failed_holder_gives_way_only_where_the_new_start_says_so(void **state) {
    (void)state;
    const char *first =
        sql_text(conn, "select durable.start('noop', idempotency_key => 'restart')");
    sql(conn, "select durable.cancel('%s')", first);
    assert_string_equal(
        sql_text(conn, "select durable.start('noop', idempotency_key => 'restart')"), first);
    const char *second =
        sql_text(conn, "select durable.start('noop', idempotency_key => 'restart', "
                       "options => '{\"onTerminal\": \"restart\"}')");
    assert_string_not_equal(second, first);
    sql_error(conn, "DJ006", "select durable.retry('%s')",
              first); /* its key has gone to the newer one */
}

static void many_with_keys_answer_in_order_and_a_repeat_is_the_same(void **state) {
    (void)state;
    sql(conn, "create temp table first as select id, n from durable.start_many('noop', "
              "array['{\"i\": 1}', '{\"i\": 2}', "
              "'{\"i\": 1}']::jsonb[], idempotency_keys => array['m2', null, 'm2']) with "
              "ordinality as s (id, n)");
    assert_int_equal(sql_int(conn, "select count(distinct id) from first"), 2);
    assert_int_equal(
        sql_int(conn, "select count(*) from first join durable.runs r using (id) "
                      "where r.payload = jsonb_build_object('i', case n when 2 then 2 else 1 end)"),
        3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixty_four_concurrent_starts_with_one_key_are_one_run),
        cmocka_unit_test(another_job_or_payload_is_a_conflict_and_stores_nothing),
        cmocka_unit_test(payloads_are_the_same_as_jsonb_has_it),
        cmocka_unit_test(after_its_time_or_release_a_key_gives_a_new_run),
        cmocka_unit_test(a_key_that_was_waited_for_holds_for_its_whole_time),
        cmocka_unit_test(a_failed_holder_gives_way_only_where_the_new_start_says_so),
        cmocka_unit_test(many_with_keys_answer_in_order_and_a_repeat_is_the_same),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
