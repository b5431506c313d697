/* Handlers over HTTP: a worker without modules, and an endpoint that speaks the protocol by hand
 * (endpoint.py). They answer with their ops here; commits while a handler runs are in tests/server.
 */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *url;
static PGconn *conn;
static pid_t endpoint, worker;
static int port;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    endpoint = spawn_endpoint(conn, &port);
    (void)spawn_scheduler(url);
    worker = spawn_worker(url, NULL);
    wait_until(
        conn, 20,
        "select count(*) > 0 from durable_internal.worker where 'echo' = any (endpoint_jobs)");
    return 0;
}

/* Runs a job to its end; its id. */
static const char *ended(const char *job, const char *payload) {
    static char id[64];
    (void)snprintf(
        id, sizeof id, "%s",
        sql_text(conn, "select durable.start('%s', '%s', max_attempts => 1)", job, payload));
    wait_until(conn, 30, "select finished_at is not null from durable.runs where id = '%s'", id);
    return id;
}

static const char *shown(const char *id) {
    return sql_text(conn,
                    "select status || ' ' || coalesce(result::text, error ->> 'message') from "
                    "durable.runs where id = '%s'",
                    id);
}

static int calls_of(const char *id) {
    struct said said;
    shell_said(&said, "grep -c %s %s || true", id, endpoint_calls());
    return (int)strtol(said.out, NULL, 10);
}

static void a_handler_that_answers_is_called_once_a_step(void **state) {
    (void)state;
    const char *id = ended("five-steps", "{}");
    assert_string_equal(shown(id), "completed 15");
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps where run_id = '%s'", id),
                     5);
    assert_int_equal(sql_int(conn, "select attempt from durable.runs where id = '%s'", id), 1);
    assert_int_equal(calls_of(id), 6);
}

static void a_call_says_what_the_protocol_has(void **state) {
    (void)state;
    const char *id = ended("echo", "{\"n\": 12345678901234567890.10}");
    assert_string_equal(
        sql_text(conn, "select result #>> '{call,payload,n}' from durable.runs where id = '%s'",
                 id),
        "12345678901234567000"); /* Python has read it as a double */
    assert_string_equal(sql_text(conn,
                                 "select format('%%s %%s %%s %%s %%s %%s', result #> "
                                 "'{call,protocol}', result #>> '{call,run,job}', result "
                                 "#>> '{call,run,queueName}', result #> '{call,run,attempt}', "
                                 "result #> '{call,run,maxAttempts}', result "
                                 "#> '{call,commit}') from durable.runs where id = '%s'",
                                 id),
                        "1 echo default 1 1 null");
    assert_string_equal(
        sql_text(conn, "select result #>> '{call,run,id}' from durable.runs where id = '%s'", id),
        id);
}

static void a_wait_holds_no_call(void **state) {
    (void)state;
    const char *id = sql_text(conn, "select durable.start('wait', '{\"key\": \"k\"}')");
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", id);
    sql(conn, "select durable.send_event('go', '{\"x\": 1}', 'k')");
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    assert_string_equal(shown(id), "completed {\"x\": 1}");
    assert_int_equal(calls_of(id), 2);
}

static void what_is_no_answer_fails_the_attempt_with_a_reason(void **state) {
    static const struct {
        const char *job, *shown;
    } cases[] = {
        { "fail", "failed no" },
        { "error-500", "failed endpoint test answered 500: {\"wrong\": true}" },
        { "not-json", "failed endpoint test did not answer with a JSON object" },
        { "too-much", "failed the call of endpoint test broke: the answer is too large" },
        { "bad-op", "failed op 'nothing' is not known" },
        { "redirect", "failed endpoint test answered 302" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *found = shown(ended(cases[i].job, "{}"));
        if (strncmp(found, cases[i].shown, strlen(cases[i].shown)) != 0) {
            fail_msg("%s: %s", cases[i].job, found);
        }
    }
}

/* One that says nothing, one that does not come to its end, and one that is small until it is
 * unpacked. What else there is to call goes on beside them. */
static void an_answer_without_end_or_measure_fails_its_attempt_and_no_other(void **state) {
    static const struct {
        const char *job, *error;
    } cases[] = {
        { "mute", "the call of endpoint test broke" },
        { "drip", "the call of endpoint test broke" },
        { "burst", "endpoint test did not answer with a JSON object" },
    };
    (void)state;
    sql(conn, "update durable_internal.endpoint set timeout = '2 s'");
    sql(conn, "select durable_internal.endpoints_changed()");
    sleep_ms(300);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char id[64];
        (void)snprintf(
            id, sizeof id, "%s",
            sql_text(conn, "select durable.start('%s', max_attempts => 1)", cases[i].job));
        assert_string_equal(shown(ended("five-steps", "{}")), "completed 15");
        wait_until(conn, 10, "select finished_at is not null from durable.runs where id = '%s'",
                   id);
        if (strncmp(shown(id), "failed ", 7) != 0 || strstr(shown(id), cases[i].error) == NULL) {
            fail_msg("%s: %s", cases[i].job, shown(id));
        }
    }
    sql(conn, "update durable_internal.endpoint set timeout = '5 minutes'");
    sql(conn, "select durable_internal.endpoints_changed()");
    sleep_ms(300);
}

/* A name that nobody has, and a port that does not speak TLS. */
static void an_endpoint_that_cannot_be_reached_says_why_and_costs_no_attempt(void **state) {
    const char *const urls[] = { "http://nowhere.invalid/", "https://127.0.0.1:%d/" };
    (void)state;
    assert_int_equal(end_process(worker, SIGTERM), 0);
    worker = spawn(url, NULL, "durable-worker", "--lease-ttl", "60s", NULL); /* see test_http_tls */
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        char address[64];
        (void)snprintf(address, sizeof address, urls[i], port);
        sql(conn, "update durable_internal.endpoint set url = '%s'", address);
        sql(conn, "select durable_internal.endpoints_changed()");
        sleep_ms(300);
        char id[64];
        (void)snprintf(id, sizeof id, "%s",
                       sql_text(conn, "select durable.start('five-steps', max_attempts => 1)"));
        wait_until(conn, 20,
                   "select waiting_for ->> 'kind' = 'endpoint' from durable.runs where id = '%s'",
                   id);
        assert_true(sql_int(conn, "select last_error <> '' from durable.endpoints") == 1);
        sql(conn,
            "update durable_internal.endpoint set url = 'http://127.0.0.1:%d/', rest_until = "
            "null, failures = 0",
            port);
        sql(conn, "select durable_internal.endpoints_changed()");
        wait_until(conn, 60,
                   "select status = 'completed' and attempt = 1 from durable.runs where id = '%s'",
                   id);
    }
    assert_int_equal(end_process(worker, SIGTERM), 0);
    worker = spawn_worker(url, NULL);
}

static void a_cancel_ends_a_call(void **state) {
    (void)state;
    const char *id = sql_text(conn, "select durable.start('hangs', '{\"s\": 20}')");
    wait_until(conn, 20, "select status = 'running' from durable.runs where id = '%s'", id);
    sql(conn, "select durable.cancel('%s')", id);
    wait_until(conn, 10, "select in_hand = 0 from durable_internal.worker where alive");
}

/* … and nothing of theirs is left behind, of which LeakSanitizer would tell by the status. */
static void a_drain_cuts_off_calls_that_outlast_the_grace_time(void **state) {
    (void)state;
    assert_int_equal(end_process(worker, SIGTERM), 0);
    worker = spawn(url, NULL, "durable-worker", "--lease-ttl", "2s", "--grace", "300ms", NULL);
    sql(conn, "select durable.start_many('hangs', array_fill('{\"s\": 20}'::jsonb, array[3]))");
    wait_until(conn, 20,
               "select count(*) = 3 from durable.runs where job = 'hangs' and status = "
               "'running'");
    assert_int_equal(end_process(worker, SIGTERM), 0);
    wait_until(conn, 20,
               "select count(*) = 3 from durable.runs where job = 'hangs' and status = "
               "'queued'");
    sql(conn, "select durable.cancel(id) from durable.runs where job = 'hangs' and finished_at is "
              "null");
    worker = spawn_worker(url, NULL);
}

/* With one attempt each: neither a call that reaches nobody nor one that is cut off spends it. */
static void an_endpoint_that_is_down_costs_no_attempt(void **state) {
    (void)state;
    sql(conn, "select durable.start_many('five-steps', array_fill('{}'::jsonb, array[200]), "
              "max_attempts => 1)");
    for (int i = 0; i < 5; i++) {
        sleep_ms(150);
        (void)end_process(endpoint, SIGKILL);
        if (i == 2) {
            wait_until(
                conn, 20,
                "select count(*) > 0 from durable.runs where waiting_for ->> 'kind' = 'endpoint'");
        }
        endpoint = endpoint_again(port);
    }
    wait_until(
        conn, 60,
        "select bool_and(finished_at is not null) from durable.runs where job = 'five-steps'");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job = 'five-steps' and "
                                   "status <> 'completed'"),
                     0);
    assert_int_equal(sql_int(conn, "select max(failures) from durable.endpoints"), 0);
}

/* curl would say it again on another connection, since the one before was kept. */
static void a_process_that_dies_in_a_handler_is_called_once_a_crash(void **state) {
    (void)state;
    (void)ended("echo", "{}");
    const char *id = ended("vanish", "{}");
    assert_memory_equal(shown(id), "failed", 6);
    assert_int_equal(calls_of(id),
                     sql_int(conn,
                             "select count(*) from durable.attempts where run_id = '%s' and "
                             "outcome = 'crashed'",
                             id));
}

static void a_process_that_dies_with_many_calls_is_the_fault_of_each_in_part(void **state) {
    (void)state;
    sql(conn, "select durable.start_many('hangs', array_fill('{\"s\": 60}'::jsonb, array[8]))");
    wait_until(conn, 20,
               "select count(*) = 8 from durable.runs where job = 'hangs' and status = 'running'");
    sleep_ms(300); /* until all are said */
    (void)end_process(endpoint, SIGKILL);
    wait_until(conn, 20,
               "select count(*) = 8 from durable.attempts a join durable.runs r on r.id = a.run_id "
               "where r.job = 'hangs' and a.outcome = 'crashed'");
    assert_string_equal(
        sql_text(conn, "select string_agg(a.company::text, ', ') from durable_internal.attempt a "
                       "join durable.runs r on r.id = a.run_id where r.job = 'hangs'"),
        "8, 8, 8, 8, 8, 8, 8, 8");
    sql(conn, "select durable.cancel(id) from durable.runs where job = 'hangs' and finished_at is "
              "null");
    endpoint = endpoint_again(port);
}

/* It freezes when it is about to call, and goes on when another worker has completed the run. */
static void a_worker_that_was_frozen_calls_nobody_for_a_lease_it_has_lost(void **state) {
    static const char *const points[] = { "call.before:1:stop", "call.begun:1:stop" };
    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        assert_int_equal(end_process(worker, SIGTERM), 0);
        pid_t frozen = spawn_worker(url, points[i]);
        const char *id = sql_text(conn, "select durable.start('five-steps')");
        wait_until(conn, 20,
                   "select exists (select from durable_internal.lease l join "
                   "durable_internal.worker w on w.id = l.worker_id where w.pid = %d)",
                   (int)frozen);
        worker = spawn_worker(url, NULL);
        wait_until(conn, 30, "select status = 'completed' from durable.runs where id = '%s'", id);
        assert_int_equal(kill(frozen, SIGCONT), 0);
        wait_until(conn, 20, /* with a new name: what it had before is settled */
                   "select count(*) = 2 from durable_internal.worker where pid = %d", (int)frozen);
        assert_int_equal(end_process(frozen, SIGTERM), 0);
        assert_int_equal(calls_of(id), 6);
    }
}

static void a_wrong_secret_is_the_endpoints_to_refuse(void **state) {
    (void)state;
    sql(conn, "update durable_internal.endpoint_secret set secret = durable_internal.new_secret()");
    sql(conn, "select durable_internal.endpoints_changed()");
    sleep_ms(300);
    const char *found = shown(ended("echo", "{}"));
    assert_non_null(strstr(found, "answered 401"));
}

static void a_result_may_be_nested_64_levels_wherever_it_lies_in_the_answer(void **state) {
    (void)state;
    const char *id = ended("deep", "64");
    assert_memory_equal(shown(id), "completed [[[", 13);
    assert_string_equal(sql_text(conn, "select status from durable.steps where run_id = '%s'", id),
                        "completed");
    assert_non_null(strstr(shown(ended("deep", "65")), "nested too deep"));
}

/* The database's reason is a long one then, and is cut; the run is failed with it. */
static void a_value_that_only_the_database_refuses_fails_the_run_with_its_reason(void **state) {
    (void)state;
    sql(conn,
        "create function refuse() returns trigger language plpgsql as $$ begin if new.name "
        "like 'odd%%' then raise invalid_parameter_value using message = new.name || ' cannot "
        "be stored' || repeat('\u00e9', 600); end if; return new; end $$");
    sql(conn, "create trigger refuse before insert on durable_internal.step for each row execute "
              "function refuse()");
    assert_non_null(strstr(shown(ended("odd-step", "\"odd\"")), "odd cannot be stored"));
    assert_non_null(strstr(shown(ended("odd-step", "\"odd-\"")), "odd- cannot be stored"));
    sql(conn, "drop trigger refuse on durable_internal.step");
}

static void what_an_endpoint_says_of_itself_is_limited(void **state) {
    (void)state;
    sql(conn, "select durable_internal.endpoint_synced(1, 'test', repeat('v', 200), '[]')");
    sql_error(conn, "DJ001",
              "select durable_internal.endpoint_synced(1, 'test', repeat('v', 201), '[]')");
    sql_error(conn, "DJ001",
              "select durable_internal.endpoint_synced(1, 'test', null, jsonb_build_array("
              "jsonb_build_object('name', 'echo', 'version', repeat('v', 201))))");
    sql_error(conn, "DJ001",
              "select durable_internal.endpoint_synced(1, 'test', null, '[{\"name\": \"echo\", "
              "\"version\": {}}]')");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handler_that_answers_is_called_once_a_step),
        cmocka_unit_test(a_call_says_what_the_protocol_has),
        cmocka_unit_test(a_wait_holds_no_call),
        cmocka_unit_test(what_is_no_answer_fails_the_attempt_with_a_reason),
        cmocka_unit_test(a_result_may_be_nested_64_levels_wherever_it_lies_in_the_answer),
        cmocka_unit_test(a_value_that_only_the_database_refuses_fails_the_run_with_its_reason),
        cmocka_unit_test(an_answer_without_end_or_measure_fails_its_attempt_and_no_other),
        cmocka_unit_test(an_endpoint_that_cannot_be_reached_says_why_and_costs_no_attempt),
        cmocka_unit_test(a_cancel_ends_a_call),
        cmocka_unit_test(a_drain_cuts_off_calls_that_outlast_the_grace_time),
        cmocka_unit_test(an_endpoint_that_is_down_costs_no_attempt),
        cmocka_unit_test(a_process_that_dies_in_a_handler_is_called_once_a_crash),
        cmocka_unit_test(a_process_that_dies_with_many_calls_is_the_fault_of_each_in_part),
        cmocka_unit_test(a_worker_that_was_frozen_calls_nobody_for_a_lease_it_has_lost),
        cmocka_unit_test(a_wrong_secret_is_the_endpoints_to_refuse),
        cmocka_unit_test(what_an_endpoint_says_of_itself_is_limited),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
