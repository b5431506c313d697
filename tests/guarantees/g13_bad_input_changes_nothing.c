/* Guarantee 13. Bad input of any kind gets a clear error naming what is wrong, stores nothing, and
 * stops nobody else's work.
 *
 * Seen to fail: without the bound on numbers in check_json(), 1e131071 was stored. */
#include "support.h"

#include <durable/client.h>
#include <durable/worker.h>
#include <stdlib.h>
#include <string.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    return 0;
}

static const struct {
    const char *sqlstate, *names, *call;
} rows[] = {
    { "DJ001", "job", "durable.start(null)" },
    { "DJ001", "job", "durable.start('')" },
    { "DJ001", "job", "durable.start('a b')" },
    { "DJ001", "job", "durable.start(repeat('a', 201))" },
    { "DJ001", "queue", "durable.start('a', queue => 'x;y')" },
    { "DJ001", "payload", "durable.start('a', null)" },
    { "DJ001", "payload", "durable.start('a', '[1e131071]')" },
    { "DJ001", "payload", "durable.start('a', '{\"a\": {\"b\": [0e-16383]}}')" },
    { "DJ001", "payload", "durable.start('a', ('1' || repeat('1', 400))::jsonb)" },
    { "DJ001", "payload", "durable.start('a', (repeat('[', 65) || repeat(']', 65))::jsonb)" },
    { "DJ004", "payload", "durable.start('a', to_jsonb(repeat('x', 1048575)))" },
    { "22P05", "", "durable.start('a', '\"\\u0000\"')" },
    { "22P02", "", "durable.start('a', '\"\\ud800\"')" },
    { "22P02", "", "durable.start('a', '{x')" },
    { "DJ001", "idempotency_key", "durable.start('a', idempotency_key => '')" },
    { "DJ001", "idempotency_key", "durable.start('a', idempotency_key => repeat('k', 513))" },
    { "DJ001", "idempotency_ttl",
      "durable.start('a', idempotency_key => 'k', idempotency_ttl => '-1 s')" },
    { "DJ001", "max_attempts", "durable.start('a', max_attempts => 0)" },
    { "DJ001", "scheduled_at", "durable.start('a', scheduled_at => now() + interval '11 years')" },
    { "DJ001", "priority", "durable.start('a', priority => 32768)" },
    { "DJ001", "priority", "durable.start('a', priority => null)" },
    { "DJ001", "concurrency_key", "durable.start('a', concurrency_key => '')" },
    { "DJ001", "timeout", "durable.start('a', timeout => '0')" },
    { "DJ001", "timeout", "durable.start('a', timeout => '3650 days 1 second')" },
    { "DJ001", "tags", "durable.start('a', tags => '[]')" },
    { "DJ001", "tags", "durable.start('a', tags => '{\"a\": 1}')" },
    { "DJ001", "tags",
      "durable.start('a', tags => (select jsonb_object_agg(n::text, 'x') from generate_series(1, "
      "17) n))" },
    { "DJ001", "options", "durable.start('a', options => '{\"backof\": {}}')" },
    { "DJ001", "backoff.initial",
      "durable.start('a', options => '{\"backoff\": {\"initial\": \"soon\"}}')" },
    { "DJ001", "backoff.factor",
      "durable.start('a', options => '{\"backoff\": {\"factor\": 0}}')" },
    { "DJ001", "payloads[2]", "durable.start_many('a', array['{}', '[1e9999]']::jsonb[])" },
    { "DJ001", "payloads", "durable.start_many('a', null)" },
    { "DJ001", "idempotency_keys",
      "durable.start_many('a', array['{}']::jsonb[], idempotency_keys => array['a', 'b'])" },
    { "DJ001", "name", "durable.send_event('')" },
    { "DJ001", "payload", "durable.send_event('a', '[1e131071]')" },
    { "DJ001", "correlation_key", "durable.send_event('a', '{}', '')" },
    { "DJ001", "run_id", "durable.cancel(null)" },
    { "DJ003", "0190", "durable.cancel('01900000-0000-7000-8000-000000000000')" },
    { "DJ003", "0190", "durable.retry('01900000-0000-7000-8000-000000000000')" },
    { "DJ003", "0190", "durable.timeline('01900000-0000-7000-8000-000000000000')" },
    { "DJ003", "0190", "durable.why('01900000-0000-7000-8000-000000000000')" },
    { "DJ003", "0190", "durable.reschedule('01900000-0000-7000-8000-000000000000', now())" },
    { "22P02", "", "durable.cancel('not a uuid')" },
    { "DJ001", "name", "durable.pause_queue('')" },
    { "DJ001", "backoff", "durable.set_queue('q', backoff => '[]')" },
    { "DJ006", "not available yet", "durable.set_queue('q', concurrency => 3)" },
    { "DJ006", "not available yet", "durable.fork('01900000-0000-7000-8000-000000000000', 'a')" },
    { "DJ006", "not available yet", "durable.set_schedule('a', 'a', '* * * * *')" },
    { "DJ006", "not available yet", "durable.redrive('a')" },
};

static void each_bad_call_is_refused_by_name_and_stores_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *message = sql_error(conn, rows[i].sqlstate, "select %s", rows[i].call);
        if (strstr(message, rows[i].names) == NULL) {
            fail_msg("%s: '%s' does not name %s", rows[i].call, message, rows[i].names);
        }
    }
    assert_int_equal(sql_int(conn, "select (select count(*) from durable_internal.run) + (select "
                                   "count(*) from durable_internal.event) + "
                                   "(select count(*) from durable_internal.idempotency_key) + "
                                   "(select count(*) from durable_internal.ready)"),
                     0);
}

static void limits_are_met_to_the_byte(void **state) {
    (void)state;
    sql(conn, "select durable.start(repeat('a', 200), to_jsonb(repeat('x', 1048574)), "
              "idempotency_key => repeat('k', 512))");
    sql(conn, "select durable.start('a', (repeat('[', 64) || repeat(']', 64))::jsonb)");
    sql(conn, "select durable.start('a', (repeat('1', 400))::jsonb), durable.start('a', '[1e400, "
              "-1e400, 1e-400]')");
    sql(conn, "select durable.start('a', scheduled_at => 'yesterday', priority => -32768, timeout "
              "=> '10 years')");
    sql(conn, "select durable.start('a', timeout => '3650 days')");
}

static void the_c_client_refuses_by_name(void **state) {
    dj_client *client;
    char id[DJ_ID_BYTES];
    (void)state;
    assert_int_equal(dj_client_open("postgresql://nobody@127.0.0.1:1/none", &client),
                     DJ_UNAVAILABLE);
    (void)unsetenv("DURABLE_DATABASE_URL");
    assert_int_equal(dj_client_open(NULL, &client), DJ_INVALID_ARGUMENT);
    assert_non_null(strstr(dj_error_message(), "DURABLE_DATABASE_URL"));
    assert_int_equal(dj_client_open(url, &client), DJ_OK);
    assert_int_equal(dj_start(client, "a b", NULL, NULL, id), DJ_INVALID_ARGUMENT);
    assert_int_equal(dj_start(client, "a", NULL, &(dj_start_options){ .timeout = "never" }, id),
                     DJ_INVALID_ARGUMENT);
    assert_non_null(strstr(dj_error_message(), "timeout"));
    assert_int_equal(dj_start(client, "a", NULL, &(dj_start_options){ .scheduled_at = "soon" }, id),
                     DJ_INVALID_ARGUMENT);
    assert_int_equal(dj_cancel(client, "x", NULL, NULL), DJ_INVALID_ARGUMENT);
    assert_int_equal(dj_retry(client, "01900000-0000-7000-8000-000000000000", 0), DJ_NOT_FOUND);
    json_object *latin = json_object_new_string("\xe9");
    assert_int_equal(dj_start(client, "a", latin, NULL, id), DJ_INVALID_ARGUMENT);
    assert_non_null(strstr(dj_error_message(), "payload"));
    json_object_put(latin);
    dj_client_close(client);
}

static void programs_refuse_what_they_cannot_use(void **state) {
    (void)state;
    assert_int_equal(
        wait_process(spawn(url, NULL, "durable-worker", "--module", "/nowhere/x.so", NULL), 10), 2);
    assert_int_equal(wait_process(spawn(url, NULL, "durable-worker", "--slots", "many", NULL), 10),
                     2);
    assert_int_equal(
        wait_process(spawn(url, NULL, "durable-worker", "--lease-ttl", "-1s", NULL), 10), 2);
    assert_int_equal(wait_process(spawn("", NULL, "durable-worker", NULL), 10), 2);
    assert_int_equal(wait_process(spawn(url, NULL, "durable-scheduler", "--what", NULL), 10), 2);
}

/* They are checked in the time in which they are read, not in the square of it. */
static void a_payload_of_340_thousand_numbers_is_taken(void **state) {
    (void)state;
    sql(conn, "set statement_timeout = '30s'");
    sql(conn, "select durable.start('many', (select ('[' || string_agg('0', ',') || ']')::jsonb "
              "from generate_series(1, 340000)))");
    sql_error(conn, "DJ001",
              "select durable.start('many', (select ('[' || string_agg('0', ',') || "
              "',1e131071]')::jsonb from generate_series(1, 340000)))");
    sql(conn, "reset statement_timeout");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_call_is_refused_by_name_and_stores_nothing),
        cmocka_unit_test(limits_are_met_to_the_byte),
        cmocka_unit_test(the_c_client_refuses_by_name),
        cmocka_unit_test(programs_refuse_what_they_cannot_use),
        cmocka_unit_test(a_payload_of_340_thousand_numbers_is_taken),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
