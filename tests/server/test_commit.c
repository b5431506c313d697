/* commit.url: what handlers commit while they run, as their SDKs say it over HTTP. */
#include "http.h"
#include "lease.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* What only the database refuses it refuses to all of a transaction: then each is said again by
 * itself. */
static void what_the_database_refuses_harms_no_other(void **state) {
    static const struct {
        const char *condition, *code, *alone;
    } table[] = {
        { "check_violation", "internal", "internal" },
        { "datetime_field_overflow", "invalid_argument", "invalid_argument" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char good[64];
        (void)snprintf(good, sizeof good, STEP("good%zu", "1"), i);
        sql(conn,
            "create function refuse() returns trigger language plpgsql as $$ begin if new.name = "
            "'bad' then raise %s using message = 'not like this'; end if; return new; end $$",
            table[i].condition);
        sql(conn, "create trigger refuse before insert on durable_internal.step for each row "
                  "execute function refuse()");
        commit_three(good, STEP("bad", "1"), good);
        assert_field(&answer, "/commits/0/results/0", "{ }");
        assert_field(&answer, "/commits/1/code", table[i].code);
        assert_field(&answer, "/commits/1/message", "not like this");
        assert_field(&answer, "/commits/2/results/0", "{ }");
        call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\",\"ops\":%s}]}",
             tokens[1], STEP("bad", "1"));
        assert_status(&answer, 200);
        assert_field(&answer, "/commits/0/code", table[i].alone);
        assert_field(&answer, "/commits/0/message", "not like this");
        sql(conn, "drop function refuse() cascade");
    }
    assert_int_equal(steps_of(0), sizeof table / sizeof *table);
    assert_int_equal(steps_of(1), 0);
    assert_int_equal(steps_of(2), sizeof table / sizeof *table);
}

/* `count` times the same, as the list of a request. */
static char *list_of(const char *item, int count) {
    size_t length = strlen(item) + 1;
    char *text = malloc((size_t)count * length + 1);
    assert_non_null(text);
    for (int i = 0; i < count; i++) {
        memcpy(text + (size_t)i * length, item, length - 1);
        text[(size_t)i * length + length - 1] = ',';
    }
    text[(size_t)count * length - 1] = '\0';
    return text;
}

static void a_request_that_is_none_is_refused_by_name(void **state) {
    char *too_many = list_of("{}", 1001);
    const struct {
        const char *body, *detail;
    } table[] = {
        { "", "commits is missing" },
        { "{}", "commits is missing" },
        { "{\"commits\":null}", "commits is missing" },
        { "{\"commits\":7}", "commits is not a JSON list" },
        { "[]", "the body" },
        { "\xff", "not UTF-8" },
        { too_many, "commits has more than 1000 items" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        bool is_list = table[i].body == too_many;
        call(&answer, "POST", "/v1/commit", NULL, is_list ? "{\"commits\":[%s]}" : "%s",
             table[i].body);
        assert_status(&answer, 400);
        assert_field(&answer, "/code", "invalid_argument");
        if (strstr(answer_field(&answer, "/detail"), table[i].detail) == NULL) {
            fail_msg("no '%s' in %s", table[i].detail, answer.body);
        }
    }
    free(too_many);
    for (size_t i = 0; i < 3; i++) {
        static const char *const queries[] = { "?ref=x", "?ref=0", "" };
        call(&answer, "GET", path_of("/v1/commit%s", queries[i]), tokens[0], NULL);
        assert_status(&answer, 400);
        assert_non_null(strstr(answer_field(&answer, "/detail"), "ref"));
    }
}

static void what_does_not_fit_into_a_transaction_is_in_the_next(void **state) {
    char item[256];
    (void)state;
    (void)snprintf(item, sizeof item, "{\"token\":\"%s\"}", tokens[0]);
    char *many = list_of(item, 1000);
    call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[%s]}", many);
    free(many);
    assert_status(&answer, 200);
    assert_field(&answer, "/commits/999/cancelled", "false");

    /* Two whose leases are held come again and again together, and are too large for that. */
    char *text = list_of("x", 450000), *steps = NULL, *body = NULL, *request = NULL;
    int fds[2];
    assert_true(asprintf(&steps, "{\"op\":\"step\",\"name\":\"%%d\",\"result\":\"%s\"}", text) > 0);
    char *ops = list_of(steps, 5);
    sql(conn, "begin");
    sql(conn, "select durable.cancel(run_id) from c where n < 2");
    for (int i = 0; i < 2; i++) {
        assert_true(
            asprintf(&body, "{\"commits\":[{\"token\":\"%s\",\"ops\":[%s]}]}", tokens[i], ops) > 0);
        assert_true(asprintf(&request,
                             "POST /v1/commit HTTP/1.1\r\nHost: test\r\nContent-Type: "
                             "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                             strlen(body), body) > 0);
        fds[i] = http_connect();
        http_say(fds[i], request, strlen(request));
        free(body);
        free(request);
    }
    for (int i = 0; i < 2; i++) {
        http_hear(fds[i], &answer);
        assert_status(&answer, 503);
        (void)close(fds[i]);
    }
    sql(conn, "rollback");
    assert_int_equal(steps_of(0) + steps_of(1), 0);
    free(ops);
    free(steps);
    free(text);
}

/* Of another version, say: nobody knows what it means. */
static void an_answer_that_makes_no_sense_is_no_answer(void **state) {
    static const char *const answers[] = { "values (7, '{}'::jsonb)",
                                           "values (null::int, '{}'::jsonb)",
                                           "select 1, '{}'::jsonb where false" };
    (void)state;
    sql(conn, "create table kept as select "
              "pg_get_functiondef('durable_internal.commit_ops'::regproc) as text");
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        sql(conn,
            "create or replace function durable_internal.commit_ops(runs uuid[], fences bigint[], "
            "workers uuid[], ops jsonb[]) returns table (n int, answer jsonb) language sql as $$ "
            "%s $$",
            answers[i]);
        call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\",\"ops\":%s}]}",
             tokens[0], STEP("a", "1"));
        assert_status(&answer, 503);
    }
    sql(conn, "do $$ begin execute (select text from kept); end $$");
    commit_three(STEP("a", "1"), "[]", "[]");
    assert_int_equal(steps_of(0), 1);
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
        RUN(what_the_database_refuses_harms_no_other),
        RUN(a_request_that_is_none_is_refused_by_name),
        RUN(what_does_not_fit_into_a_transaction_is_in_the_next),
        RUN(an_answer_that_makes_no_sense_is_no_answer),
    };
    return cmocka_run_group_tests_name("commit", tests, setup, teardown);
}
