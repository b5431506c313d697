/* Starts, events, looks and ends over libdurable: what comes back, what is refused, and what a
 * client does without its database.
 *
 * Seen to fail: with a client that connects no more, a retry that takes no number of attempts, many
 * starts without their keys, and a start without its tags. */
#include "support.h"

#include <durable/client.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define UNKNOWN_RUN "01a20fc0-aba9-7f7c-baf6-32e8a9208030"

static const char *url;
static PGconn *conn;
static dj_client *client;
static json_object *small; /* {"n": 7} */

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    small = json_tokener_parse("{\"n\": 7}");
    return dj_client_open(url, &client) == DJ_OK ? 0 : -1;
}

static int teardown(void **state) {
    dj_client_close(client);
    json_object_put(small);
    return invariants_hold(state);
}

/* The last call was refused in words that name what is wrong. */
static void assert_named(const char *name) {
    if (strstr(dj_error_message(), name) == NULL) {
        fail_msg("'%s' does not say %s", dj_error_message(), name);
    }
}

static long long runs_of(const char *job) {
    return sql_int(conn, "select count(*) from durable.runs where job = '%s'", job);
}

static void a_start_is_what_its_options_say(void **state) {
    const char *tomorrow =
        sql_text(conn, "select to_char((now() + interval '25 hours') at time zone "
                       "'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"+01:00\"')");
    json_object *tags = json_tokener_parse("{\"customer\": \"c1\"}");
    json_object *backoff = json_tokener_parse("{\"initial\": \"3s\"}");
    dj_start_options options = { .queue = "mail",
                                 .max_attempts = 9,
                                 .scheduled_at = tomorrow,
                                 .priority = -4,
                                 .concurrency_key = "c1",
                                 .timeout = "1h30m",
                                 .tags = tags,
                                 .backoff = backoff };
    char id[DJ_ID_BYTES];
    (void)state;
    assert_int_equal(dj_start(client, "all", small, &options, id), DJ_OK);
    assert_string_equal(
        sql_text(conn,
                 "select concat_ws(' ', queue, payload, status, max_attempts, priority, "
                 "concurrency_key, tags, scheduled_at = '%s', timeout) from durable.runs where id "
                 "= '%s'",
                 tomorrow, id),
        "mail {\"n\": 7} scheduled 9 -4 c1 {\"customer\": \"c1\"} t 01:30:00");
    assert_string_equal(
        sql_text(conn,
                 "select options #>> '{backoff,initial}' from durable_internal.run where id = '%s'",
                 id),
        "3s");
    assert_int_equal(dj_start(client, "plain", NULL, NULL, id), DJ_OK);
    assert_string_equal(
        sql_text(conn,
                 "select concat_ws(' ', queue, payload, status, max_attempts, priority, tags) "
                 "from durable.runs where id = '%s'",
                 id),
        "default {} queued 5 0 {}");
    json_object_put(tags);
    json_object_put(backoff);
}

static void what_is_wrong_with_a_start_is_named_and_nothing_is_stored(void **state) {
    static const struct {
        dj_start_options options;
        const char *named;
    } wrong[] = {
        { { .timeout = "soon" }, "timeout" },
        { { .idempotency_key = "k", .idempotency_ttl = "1 fortnight" }, "idempotency_ttl" },
        { { .scheduled_at = "tomorrow" }, "scheduled_at" },
        { { .priority = 40000 }, "priority" },
        { { .max_attempts = -1 }, "max_attempts" },
        { { .queue = "no such name" }, "queue" },
    };
    char id[DJ_ID_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(dj_start(client, "wrong", NULL, &wrong[i].options, id),
                         DJ_INVALID_ARGUMENT);
        assert_named(wrong[i].named);
    }
    assert_int_equal(dj_start(client, NULL, NULL, NULL, id), DJ_INVALID_ARGUMENT);
    assert_named("job");
    assert_int_equal(runs_of("wrong"), 0);
}

static void a_key_gives_one_run_or_says_whose_it_is(void **state) {
    dj_start_options options = { .idempotency_key = "one" };
    char first[DJ_ID_BYTES], again[DJ_ID_BYTES];
    (void)state;
    assert_int_equal(dj_start(client, "keyed", small, &options, first), DJ_OK);
    assert_int_equal(dj_start(client, "keyed", small, &options, again), DJ_OK);
    assert_string_equal(first, again);
    assert_int_equal(dj_start(client, "keyed", NULL, &options, again), DJ_IDEMPOTENCY_CONFLICT);
    assert_named("one");
    assert_int_equal(runs_of("keyed"), 1);
    options.restart_when_failed = true;
    assert_int_equal(dj_start(client, "keyed", small, &options, again), DJ_OK);
    assert_string_equal(first, again);
    assert_int_equal(dj_cancel(client, first, NULL, NULL), DJ_OK);
    assert_int_equal(dj_start(client, "keyed", small, &options, again), DJ_OK);
    assert_string_not_equal(first, again);
}

static void many_starts_come_in_their_order_and_all_or_none(void **state) {
    static char large[1100000];
    json_object *payloads[] = { small, NULL, small };
    const char *keys[] = { "m1", NULL, "m3" };
    char ids[3][DJ_ID_BYTES], again[3][DJ_ID_BYTES];
    (void)state;
    assert_int_equal(dj_start_many(client, "many", 3, payloads, keys, NULL, ids), DJ_OK);
    assert_string_equal(sql_text(conn,
                                 "select string_agg(payload::text, ' ' order by array_position("
                                 "'{%s,%s,%s}'::uuid[], id)) from durable.runs where job = 'many'",
                                 ids[0], ids[1], ids[2]),
                        "{\"n\": 7} {} {\"n\": 7}");
    assert_int_equal(dj_start_many(client, "many", 3, payloads, keys, NULL, again), DJ_OK);
    assert_string_equal(again[0], ids[0]);
    assert_string_not_equal(again[1], ids[1]);
    assert_string_equal(again[2], ids[2]);
    assert_int_equal(runs_of("many"), 4);

    memset(large, 'x', sizeof large - 1);
    payloads[1] = json_object_new_string(large);
    assert_int_equal(dj_start_many(client, "none", 3, payloads, NULL, NULL, ids), DJ_TOO_LARGE);
    assert_named("payloads[1]");
    json_object_put(payloads[1]);
    payloads[1] = NULL;
    assert_int_equal(dj_start_many(client, "none", 3, payloads, NULL,
                                   &(dj_start_options){ .idempotency_key = "k" }, ids),
                     DJ_INVALID_ARGUMENT);
    assert_named("idempotency_keys");
    assert_int_equal(dj_start_many(client, "none", 3, payloads, NULL,
                                   &(dj_start_options){ .timeout = "soon" }, ids),
                     DJ_INVALID_ARGUMENT);
    assert_int_equal(runs_of("none"), 0);
}

static void an_event_is_sent_once_a_key_and_ends_a_wait(void **state) {
    json_object *key = json_tokener_parse("{\"key\": \"c1\"}"), *got = NULL;
    char run[DJ_ID_BYTES], sent[DJ_ID_BYTES], again[DJ_ID_BYTES];
    (void)state;
    pid_t worker = spawn_worker(url, NULL), scheduler = spawn_scheduler(url);
    assert_int_equal(dj_start(client, "waits", key, NULL, run), DJ_OK);
    assert_int_equal(dj_send_event(client, "go", small, "c1", "e1", sent), DJ_OK);
    assert_int_equal(dj_send_event(client, "go", small, "c1", "e1", again), DJ_OK);
    assert_string_equal(sent, again);
    assert_int_equal(dj_result_wait(client, run, 20000, &got), DJ_OK);
    assert_true(json_object_equal(json_object_object_get(got, "payload"), small));
    assert_int_equal(dj_send_event(client, "no such name", NULL, NULL, NULL, again),
                     DJ_INVALID_ARGUMENT);
    assert_named("name");
    json_object_put(got);
    json_object_put(key);
    (void)end_process(worker, SIGTERM);
    (void)end_process(scheduler, SIGTERM);
}

/* What the run is, by its member `name`. */
static const char *shown(const char *run_id, const char *name) {
    static char text[64];
    json_object *run = NULL;
    assert_int_equal(dj_run_get(client, run_id, &run), DJ_OK);
    (void)snprintf(text, sizeof text, "%s",
                   json_object_get_string(json_object_object_get(run, name)));
    json_object_put(run);
    return text;
}

static void a_run_is_shown_and_its_end_waited_for(void **state) {
    json_object *got = NULL;
    char id[DJ_ID_BYTES];
    bool cancelled = true;
    (void)state;
    assert_int_equal(dj_start(client, "fails", NULL, NULL, id), DJ_OK);
    assert_string_equal(shown(id, "status"), "queued");
    assert_int_equal(dj_result_wait(client, id, 0, &got), DJ_TIMEOUT);
    assert_named("queued");
    assert_int_equal(dj_retry(client, id, 0), DJ_NOT_ALLOWED);
    pid_t worker = spawn_worker(url, NULL), scheduler = spawn_scheduler(url);
    assert_int_equal(dj_result_wait(client, id, 20000, &got), DJ_FAILED);
    assert_named("attempt 3 failed");
    assert_string_equal(shown(id, "attempt"), "3");
    assert_int_equal(dj_cancel(client, id, NULL, &cancelled), DJ_OK);
    assert_false(cancelled);
    assert_int_equal(dj_retry(client, id, 2), DJ_OK);
    assert_int_equal(dj_result_wait(client, id, 20000, &got), DJ_FAILED);
    assert_named("attempt 5 failed");
    assert_null(got);
    (void)end_process(worker, SIGTERM);
    (void)end_process(scheduler, SIGTERM);

    assert_int_equal(dj_start(client, "noop", NULL, NULL, id), DJ_OK);
    assert_int_equal(dj_cancel(client, id, "not wanted any more", &cancelled), DJ_OK);
    assert_true(cancelled);
    assert_int_equal(dj_result_wait(client, id, 20000, &got), DJ_CANCELLED);
    assert_named("not wanted any more");
}

static void a_run_that_is_not_there_is_said_to_be_so(void **state) {
    json_object *got = NULL;
    (void)state;
    assert_int_equal(dj_run_get(client, UNKNOWN_RUN, &got), DJ_NOT_FOUND);
    assert_named(UNKNOWN_RUN);
    assert_int_equal(dj_result_wait(client, UNKNOWN_RUN, 20000, &got), DJ_NOT_FOUND);
    assert_int_equal(dj_cancel(client, UNKNOWN_RUN, NULL, NULL), DJ_NOT_FOUND);
    assert_int_equal(dj_retry(client, UNKNOWN_RUN, 0), DJ_NOT_FOUND);
    assert_int_equal(dj_run_get(client, "run-7", &got), DJ_INVALID_ARGUMENT);
    assert_named("run_id");
    assert_int_equal(dj_result_wait(client, NULL, 0, &got), DJ_INVALID_ARGUMENT);
    assert_int_equal(dj_cancel(client, "", NULL, NULL), DJ_INVALID_ARGUMENT);
    assert_int_equal(dj_retry(client, "run-7", 0), DJ_INVALID_ARGUMENT);
}

static void a_start_in_your_transaction_goes_with_it(void **state) {
    dj_client *wrapped;
    char id[DJ_ID_BYTES];
    (void)state;
    assert_int_equal(dj_client_wrap(NULL, &wrapped), DJ_INVALID_ARGUMENT);
    assert_named("conn");
    assert_int_equal(dj_client_wrap(conn, &wrapped), DJ_OK);
    sql(conn, "begin");
    assert_int_equal(dj_start(wrapped, "mine", NULL, NULL, id), DJ_OK);
    assert_int_equal(runs_of("mine"), 1);
    sql(conn, "rollback");
    assert_int_equal(runs_of("mine"), 0);
    sql(conn, "begin");
    assert_int_equal(dj_start(wrapped, "mine", NULL, NULL, id), DJ_OK);
    sql(conn, "commit");
    assert_string_equal(shown(id, "job"), "mine");
    dj_client_close(wrapped);
    assert_int_equal(PQstatus(conn), CONNECTION_OK);
    dj_client_close(NULL);
}

/* The first call after the loss finds it; with a key it may be said again. */
static void a_client_whose_session_has_ended_connects_again(void **state) {
    dj_start_options options = { .idempotency_key = "lost" };
    dj_client *nowhere = NULL;
    char id[DJ_ID_BYTES], address[96];
    (void)state;
    sql(conn, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = "
              "'durable-client' and datname = current_database()");
    wait_until(conn, 5,
               "select not exists (select from pg_stat_activity where application_name = "
               "'durable-client' and datname = current_database())");
    assert_int_equal(dj_start(client, "lost", NULL, &options, id), DJ_UNAVAILABLE);
    assert_int_equal(dj_start(client, "lost", NULL, &options, id), DJ_OK);
    assert_int_equal(runs_of("lost"), 1);

    (void)snprintf(address, sizeof address, "postgresql://postgres@127.0.0.1:%d/none", free_port());
    assert_int_equal(dj_client_open(address, &nowhere), DJ_UNAVAILABLE);
    assert_named("127.0.0.1");
    assert_null(nowhere);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_start_is_what_its_options_say),
        cmocka_unit_test(what_is_wrong_with_a_start_is_named_and_nothing_is_stored),
        cmocka_unit_test(a_key_gives_one_run_or_says_whose_it_is),
        cmocka_unit_test(many_starts_come_in_their_order_and_all_or_none),
        cmocka_unit_test(an_event_is_sent_once_a_key_and_ends_a_wait),
        cmocka_unit_test(a_run_is_shown_and_its_end_waited_for),
        cmocka_unit_test(a_run_that_is_not_there_is_said_to_be_so),
        cmocka_unit_test(a_start_in_your_transaction_goes_with_it),
        cmocka_unit_test(a_client_whose_session_has_ended_connects_again),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
