/* Starts over HTTP: what is answered, what is refused, one and many of them. */
#include "api.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void a_start_answers_the_run_and_its_key_finds_it_again(void **state) {
    (void)state;
    const char *id = started(admin, "{\"job\":\"greet\",\"payload\":{\"n\":1.10},\"queueName\":"
                                    "\"mail\",\"idempotencyKey\":\"k \\u00e9\\n\","
                                    "\"idempotencyTtl\":\"1h\",\"maxAttempts\":3,\"backoff\":{"
                                    "\"initial\":\"2s\"},\"priority\":7,"
                                    "\"concurrencyKey\":\"c\",\"timeout\":\"2h\",\"tags\":{"
                                    "\"team\":\"a\"},\"onTerminal\":\"restart\"}");
    assert_field(&answer, "/created", "true");
    assert_field(&answer, "/status", "queued");
    assert_field(&answer, "/maxAttempts", "3");
    assert_field(&answer, "/idempotencyKey", "k é\n");
    assert_non_null(strstr(answer.body, "{\"n\":1.10}"));
    struct answer first = answer;
    answer.body = NULL;
    CALL(200, "GET", path_of("/v1/runs/%s", id), admin, NULL);
    json_object *said = json_tokener_parse(first.body), *kept = json_tokener_parse(answer.body);
    json_object_object_del(said, "created");
    assert_true(json_object_equal(said, kept)); /* what a start answers is what is there */
    json_object_put(said);
    json_object_put(kept);
    free(first.body);
    CALL(200, "POST", "/v1/runs", admin,
         "{\"job\":\"greet\",\"payload\":{\"n\":1.1},\"idempotencyKey\":\"k é\\n\"}");
    assert_field(&answer, "/created", "false");
    assert_field(&answer, "/id", id);
    CALL(409, "POST", "/v1/runs", admin, "{\"job\":\"greet\",\"idempotencyKey\":\"k é\\n\"}");
    REFUSED(409, "idempotency_conflict", "idempotencyKey");
    CALL(200, "DELETE", "/v1/idempotency-keys/k%20%c3%A9%0a", admin, NULL);
    CALL(404, "DELETE", "/v1/idempotency-keys/k%20%c3%A9%0a", admin, NULL);
    CALL(201, "POST", "/v1/runs", admin,
         "{\"job\":\"later\",\"scheduledAt\":\"2030-01-01T00:00:00+01:00\"}");
    assert_field(&answer, "/status", "scheduled");
    assert_field(&answer, "/scheduledAt", "2029-12-31T23:00:00.000Z");
    assert_field(&answer, "/waitingFor/kind", "time");
}

static void bad_starts_are_refused_by_the_fields_name(void **state) {
    static const struct {
        const char *body, *part;
        int status;
    } table[] = {
        { "", "job is missing", 400 },
        { "{}", "job is missing", 400 },
        { "[]", "not a JSON object", 400 },
        { "{\"job\":1}", "job is not a string", 400 },
        { "{\"job\":\"a b\"}", "job 'a b'", 400 },
        { "{\"job\":\"j\",\"job\":\"j\"}", "job is given twice", 400 },
        { "{\"job\":\"j\",\"nope\":1}", "nope is not known", 400 },
        { "{\"job\":\"j\"} x", "something follows", 400 },
        { "{\"job\":\"j\",}", "a key in double quotes", 400 },
        { "{\"job\":\"j\"", "a comma or }", 400 },
        { "{\"job\":\"j\",\"queueName\":\"\"}", "queueName", 400 },
        { "{\"job\":\"j\",\"maxAttempts\":1.5}", "maxAttempts 1.5", 400 },
        { "{\"job\":\"j\",\"maxAttempts\":\"3\"}", "maxAttempts", 400 },
        { "{\"job\":\"j\",\"priority\":32768}", "priority", 400 },
        { "{\"job\":\"j\",\"idempotencyKey\":\"\"}", "idempotencyKey", 400 },
        { "{\"job\":\"j\",\"idempotencyTtl\":\"1x\"}", "idempotencyTtl", 400 },
        { "{\"job\":\"j\",\"timeout\":\"0s\"}", "timeout", 400 },
        { "{\"job\":\"j\",\"scheduledAt\":\"tomorrow\"}", "scheduledAt", 400 },
        { "{\"job\":\"j\",\"scheduledAt\":\"2099-01-01T00:00:00Z\"}", "scheduledAt", 400 },
        { "{\"job\":\"j\",\"tags\":{\"a\":1}}", "tags.a", 400 },
        { "{\"job\":\"j\",\"backoff\":{\"factor\":0}}", "backoff.factor", 400 },
        { "{\"job\":\"j\",\"onTerminal\":\"x\"}", "onTerminal", 400 },
        { "{\"job\":\"j\",\"payload\":\"\\u0000\"}", "payload", 400 },
        { "{\"job\":\"j\",\"payload\":\"\\ud800\"}", "payload", 400 },
        { "{\"job\":\"j\",\"payload\":1e401}", "payload", 400 },
        { "{\"job\":\"j\",\"payload\":NaN}", "payload", 400 },
        { "{\"job\":\"j\",\"payload\":\"\xff\"}", "UTF-8", 400 },
        { "{\"job\":\"j\",\"debounce\":{}}", "debounce", 501 },
    };
    (void)state;
    long long before = sql_int(conn, "select count(*) from durable.runs");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        CALL(table[i].status, "POST", "/v1/runs", admin, "%s", table[i].body);
        REFUSED(table[i].status, table[i].status == 400 ? "invalid_argument" : "not_implemented",
                table[i].part);
    }
    char *large = calloc(1, 1200000);
    int n = sprintf(large, "{\"job\":\"j\",\"payload\":\"");
    memset(large + n, 'x', 1024 * 1024 - 1);
    strcat(large, "\"}");
    CALL(413, "POST", "/v1/runs", admin, "%s", large);
    REFUSED(413, "payload_too_large", "payload");
    n = sprintf(large, "{\"job\":\"j\",\"payload\":");
    memset(large + n, '[', 65);
    memset(large + n + 65, ']', 65);
    strcpy(large + n + 130, "}");
    CALL(400, "POST", "/v1/runs", admin, "%s", large);
    REFUSED(400, "invalid_argument", "nested too deep");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs"), before);
    memset(large + n, '[', 64);
    memset(large + n + 64, ']', 64);
    strcpy(large + n + 128, "}");
    CALL(201, "POST", "/v1/runs", admin, "%s", large);
    free(large);
}

static void numbers_go_through_as_they_were_written(void **state) {
    char payload[1024] = "[1.10,9007199254740993,0.1e-5,";
    (void)state;
    memset(payload + strlen(payload), '7', 400);
    strcat(payload, "]");
    CALL(201, "POST", "/v1/runs", admin, "{\"job\":\"numbers\",\"payload\":%s}", payload);
    assert_non_null(strstr(answer.body, payload));
    const char *id = strdup(answer_field(&answer, "/id"));
    CALL(200, "GET", path_of("/v1/runs/%s", id), admin, NULL);
    assert_non_null(strstr(answer.body, "[1.10, 9007199254740993, 0.000001, 7777"));
    assert_non_null(strstr(answer.body, strrchr(payload, ',') + 1));
}

static void a_batch_starts_all_or_none(void **state) {
    (void)state;
    CALL(201, "POST", "/v1/runs/batch", starter,
         "{\"runs\":[{\"job\":\"b\",\"idempotencyKey\":\"b1\"},{\"job\":\"b\",\"payload\":[1, "
         "2]}]}");
    assert_field(&answer, "/runs/1/created", "true");
    CALL(201, "POST", "/v1/runs/batch", starter,
         "{\"runs\":[{\"job\":\"b\",\"idempotencyKey\":\"b1\"}]}");
    assert_field(&answer, "/runs/0/created", "false");
    CALL(201, "POST", "/v1/runs/batch", starter, "{\"runs\":[]}");
    CALL(409, "POST", "/v1/runs/batch", starter,
         "{\"runs\":[{\"job\":\"never\"},{\"job\":\"c\",\"idempotencyKey\":\"b1\"}]}");
    CALL(400, "POST", "/v1/runs/batch", starter, "{\"runs\":[{\"job\":\"never\"},{\"job\":\"\"}]}");
    REFUSED(400, "invalid_argument", "runs[1].job");
    CALL(400, "POST", "/v1/runs/batch", starter,
         "{\"runs\":[{\"job\":\"never\"},{\"job\":\"j\",\"tags\":3}]}");
    CALL(400, "POST", "/v1/runs/batch", starter, "{\"runs\":3}");
    CALL(400, "POST", "/v1/runs/batch", starter, "{}");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job = 'never'"), 0);
    char *many = calloc(1, 20000), *at = many + sprintf(many, "{\"runs\":[{\"job\":\"b\"}");
    for (int i = 0; i < 1000; i++) {
        at += sprintf(at, ",{\"job\":\"b\"}");
    }
    strcpy(at, "]}");
    CALL(413, "POST", "/v1/runs/batch", starter, "%s", many);
    free(many);
}

/* A list of one run, whose payload is nested so deep. */
static void batch_nested(char text[512], int depth) {
    int n = sprintf(text, "{\"runs\":[{\"job\":\"deep\",\"payload\":");
    memset(text + n, '[', (size_t)depth);
    memset(text + n + depth, ']', (size_t)depth);
    strcpy(text + n + 2 * depth, "}]}");
}

static void a_payload_has_all_its_levels_in_a_batch_too(void **state) {
    char text[512];
    (void)state;
    batch_nested(text, 64);
    CALL(201, "POST", "/v1/runs/batch", starter, "%s", text);
    batch_nested(text, 65);
    CALL(400, "POST", "/v1/runs/batch", starter, "%s", text);
    REFUSED(400, "invalid_argument", "nested too deep");
}

/* Connections that ask at the same time: their starts meet in one transaction. */
static void one_bad_start_harms_nobody_that_came_with_it(void **state) {
    enum { MANY = 32 };
    int fds[MANY];
    char text[1024];
    (void)state;
    PGconn *holder = connect_to(url);
    sql(holder, "begin; select durable.start('held', '{}', idempotency_key => 'held')");
    for (int i = 0; i < MANY; i++) {
        fds[i] = http_connect();
        const char *body = i == 3    ? "{\"job\":\"held\",\"idempotencyKey\":\"held\"}"
                           : i == 9  ? "{\"job\":\"j\",\"tags\":[1]}"
                           : i == 12 ? "{\"job\":\"j\",\"scheduledAt\":\"2099-01-01T00:00:00Z\"}"
                                     : "{\"job\":\"together\",\"maxAttempts\":2}";
        int n = snprintf(text, sizeof text,
                         "POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                         "%s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                         admin, strlen(body), body);
        http_say(fds[i], text, (size_t)n);
    }
    for (int i = 0; i < MANY; i++) {
        http_hear(fds[i], &answer);
        assert_status(&answer, i == 3 ? 503 : i == 9 || i == 12 ? 400 : 201);
        if (i == 3) {
            assert_non_null(strstr(answer.head, "\r\nRetry-After: 1\r\n"));
        }
        (void)close(fds[i]);
    }
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job = 'together'"),
                     MANY - 3);
    sql(holder, "rollback");
    PQfinish(holder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_start_answers_the_run_and_its_key_finds_it_again),
        cmocka_unit_test(bad_starts_are_refused_by_the_fields_name),
        cmocka_unit_test(numbers_go_through_as_they_were_written),
        cmocka_unit_test(a_batch_starts_all_or_none),
        cmocka_unit_test(a_payload_has_all_its_levels_in_a_batch_too),
        cmocka_unit_test(one_bad_start_harms_nobody_that_came_with_it),
    };
    return cmocka_run_group_tests(tests, api_setup, api_teardown);
}
