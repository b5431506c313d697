/* commit.url: what handlers commit while they run, as their SDKs say it over HTTP. */
#include "http.h"
#include "lease.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS 3

static PGconn *conn;
static pid_t server;
static struct answer answer;
static struct commit_secret secret;
static char *tokens[RUNS];

static int setup(void **state) {
    (void)state;
    const char *url = database_new();
    conn = connect_to(url);
    (void)worker_new(conn, "job");
    secret = secret_of(conn);
    server = server_start(url, /* ready= */ true, NULL);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    free(answer.body);
    for (int i = 0; i < RUNS; i++) {
        free(tokens[i]);
    }
    return 0;
}

/* The runs that a worker has just claimed are in the table c, and their tokens in `tokens`. */
static int claim(void **state) {
    (void)state;
    sql(conn, "select durable.cancel(id) from durable.runs where finished_at is null");
    sql(conn, "drop table if exists c; select durable.start('job') from generate_series(1, %d)",
        RUNS);
    sql(conn,
        "create table c as select c.*, w.id as worker_id, row_number() over () - 1 as n from "
        "durable_internal.worker w, durable_internal.claim(w.id, 10, 1000000, w.number) as c");
    for (int i = 0; i < RUNS; i++) {
        struct lease_name lease =
            lease_of(conn, sql_text(conn, "select run_id from c where n = %d", i));
        free(tokens[i]);
        tokens[i] = token_of(&secret, &lease);
    }
    return 0;
}

static int64_t steps_of(int n) {
    return sql_int(conn, "select count(*) from durable.steps join c using (run_id) where n = %d",
                   n);
}

static void commit_three(const char *first, const char *second, const char *third) {
    call(&answer, "POST", "/v1/commit", NULL,
         "{\"commits\":[{\"token\":\"%s\",\"ops\":%s},{\"token\":\"%s\",\"ops\":%s},{\"token\":\"%"
         "s\","
         "\"ops\":%s}]}",
         tokens[0], first, tokens[1], second, tokens[2], third);
    assert_status(&answer, 200);
}

static const char *nested(const char *before, int depth, const char *after) {
    static char text[1024];
    int length = snprintf(text, sizeof text, "%s", before);
    memset(text + length, '[', (size_t)depth);
    memset(text + length + depth, ']', (size_t)depth);
    (void)snprintf(text + length + 2 * depth, sizeof text - (size_t)(length + 2 * depth), "%s",
                   after);
    return text;
}

#define STEP(name, result) "[{\"op\":\"step\",\"name\":\"" name "\",\"result\":" result "}]"

static void what_one_run_may_not_commit_harms_no_other(void **state) {
    static const struct {
        const char *ops, *message;
    } table[] = {
        { STEP("a", "1e999"), "exponents" },
        { STEP("a", "\"\\u0000\""), "cannot be stored" },
        { STEP("a", "\"\\ud800\""), "surrogate" },
        { STEP("a", "tru"), "a JSON value is expected" },
        { STEP("a", "[1}"), "a comma or ]" },
        { STEP("no name", "1"), "is not a name" },
        { STEP("a", "1,\"startedAt\":\"noon\""), "noon" },
        { "[{\"op\":\"nothing\"}]", "op 'nothing' is not known" },
        { "[1]", "op null is not known" },
        { "{\"op\":\"step\"}", "ops is not a list" },
        { "7", "ops is not a list" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char good[64];
        (void)snprintf(good, sizeof good, STEP("good%zu", "1"), i);
        commit_three(good, table[i].ops, good);
        assert_field(&answer, "/commits/0/results/0", "{ }");
        assert_field(&answer, "/commits/1/code", "invalid_argument");
        assert_field(&answer, "/commits/2/results/0", "{ }");
        if (strstr(answer_field(&answer, "/commits/1/message"), table[i].message) == NULL) {
            fail_msg("%s is refused with %s", table[i].ops, answer.body);
        }
        call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\",\"ops\":%s}]}",
             tokens[1], table[i].ops); /* alone too */
        assert_status(&answer, 200);
        assert_field(&answer, "/commits/0/code", "invalid_argument");
    }
    assert_int_equal(steps_of(0), sizeof table / sizeof *table);
    assert_int_equal(steps_of(1), 0);
    assert_int_equal(steps_of(2), sizeof table / sizeof *table);
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where status = 'running'"),
                     RUNS);
}

/* As of a handler whose call is older than the secret. What is no token at all is such an item too.
 */
static void a_token_that_is_none_of_ours_harms_no_other(void **state) {
    static const char *const items[][2] = {
        { "{\"token\":\"AAAA\",\"ops\":" STEP("a", "1") "}", "unauthorized" },
        { "{\"token\":\"\",\"ops\":[7]}", "unauthorized" },
        { "{\"ops\":[]}", "invalid_argument" },
        { "{\"token\":7}", "invalid_argument" },
        { "{\"token\":\"a\",\"token\":\"b\"}", "invalid_argument" },
        { "7", "invalid_argument" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        char good[64];
        (void)snprintf(good, sizeof good, STEP("good%zu", "1"), i);
        call(&answer, "POST", "/v1/commit", NULL,
             "{\"commits\":[%s,{\"token\":\"%s\",\"ops\":%s},%s]}", items[i][0], tokens[0], good,
             items[i][0]);
        assert_status(&answer, 200);
        assert_field(&answer, "/commits/0/code", items[i][1]);
        assert_true(strlen(answer_field(&answer, "/commits/0/message")) > 0);
        assert_field(&answer, "/commits/1/results/0", "{ }");
        assert_field(&answer, "/commits/2/code", items[i][1]);
        call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[%s]}", items[i][0]);
        assert_status(&answer, strcmp(items[i][1], "unauthorized") == 0 ? 401 : 400);
        assert_field(&answer, "/code", items[i][1]);
    }
    assert_int_equal(steps_of(0), sizeof items / sizeof *items);
}

static void a_result_has_all_the_depth_of_the_contract(void **state) {
    (void)state;
    commit_three("[]", nested("[{\"op\":\"step\",\"name\":\"deep\",\"result\":", 64, "}]"), "[]");
    assert_field(&answer, "/commits/1/results/0", "{ }");
    commit_three("[]", nested("[{\"op\":\"step\",\"name\":\"deeper\",\"result\":", 65, "}]"), "[]");
    assert_field(&answer, "/commits/1/code", "invalid_argument");
    assert_int_equal(steps_of(1), 1);
}

static void a_result_that_is_too_large_fails_its_run(void **state) {
    size_t size = 1024 * 1024 + 200;
    char *large = malloc(size + 200);
    (void)state;
    assert_non_null(large);
    int length = snprintf(large, 200, "[{\"op\":\"step\",\"name\":\"large\",\"result\":\"");
    memset(large + length, 'x', size);
    (void)snprintf(large + (size_t)length + size, 100, "\"}]");
    commit_three(STEP("a", "1"), large, STEP("a", "1"));
    free(large);
    assert_field(&answer, "/commits/1/code", "payload_too_large");
    assert_non_null(strstr(answer_field(&answer, "/commits/1/message"), "step large"));
    assert_int_equal(steps_of(0) + steps_of(2), 2);
    assert_string_equal(sql_text(conn, "select r.status || ' ' || (r.error ->> 'name') from "
                                       "durable.runs r join c on c.run_id = r.id where c.n = 1"),
                        "failed ResultRefused");
}

static void a_request_that_is_said_again_changes_nothing(void **state) {
    static const char ops[] =
        "[{\"op\":\"state\",\"name\":\"n\",\"action\":\"increment\",\"key\":\"k\"}]";
    (void)state;
    sql(conn, "select durable.state_delete('k')");
    for (int i = 0; i < 3; i++) {
        commit_three(STEP("a", "1"), ops, "[]");
        assert_field(&answer, "/commits/0/results/0", "{ }");
        assert_field(&answer, "/commits/1/results/0/result", "1");
    }
    assert_int_equal(steps_of(0) + steps_of(1), 2);
}

static void an_empty_list_is_a_heartbeat(void **state) {
    (void)state;
    commit_three("[]", "[]", "[]");
    assert_field(&answer, "/commits/2/cancelled", "false");
    assert_int_equal(strlen(answer_field(&answer, "/commits/2/leaseUntil")), 24);
    sql(conn, "select durable.cancel(run_id) from c where n = 1");
    commit_three("[]", "[]", "[]");
    assert_field(&answer, "/commits/1/cancelled", "true");
    assert_field(&answer, "/commits/2/cancelled", "false");
    call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[]}");
    assert_status(&answer, 200);
    assert_string_equal(answer.body, "{\"commits\":[]}");
}

/* The first name of a request is of a run that somebody cancels and thinks about it. */
static void a_lease_that_is_held_delays_its_own_run_only(void **state) {
    (void)state;
    sql(conn, "begin");
    sql(conn, "select durable.cancel(run_id) from c where n = 1");
    call(&answer, "POST", "/v1/commit", NULL,
         "{\"commits\":[{\"token\":\"%s\",\"ops\":[]},{\"token\":\"%s\",\"ops\":[]}]}", tokens[0],
         tokens[2]);
    assert_status(&answer, 200);
    call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\",\"ops\":[]}]}",
         tokens[1]);
    assert_status(&answer, 503); /* after a second of asking: said again later */
    sql(conn, "rollback");
    commit_three("[]", "[]", "[]");
    assert_field(&answer, "/commits/1/cancelled", "false");
}

int main(void) {
#define RUN(test) cmocka_unit_test_setup(test, claim)
    const struct CMUnitTest tests[] = {
        RUN(what_one_run_may_not_commit_harms_no_other),
        RUN(a_token_that_is_none_of_ours_harms_no_other),
        RUN(a_result_has_all_the_depth_of_the_contract),
        RUN(a_result_that_is_too_large_fails_its_run),
        RUN(a_request_that_is_said_again_changes_nothing),
        RUN(an_empty_list_is_a_heartbeat),
        RUN(a_lease_that_is_held_delays_its_own_run_only),
    };
    return cmocka_run_group_tests_name("commit", tests, setup, teardown);
}
