/* The routes: what each takes, whom it refuses, that nobody sees or disturbs another, and what the
 * rest of them answer. */
#include "api.h"
#include "lease.h"

#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* Whole numbers of up to 64 bits: what is beyond is refused, with its name and what it may be. */
static void numbers_are_exact_or_refused_by_name(void **state) {
    static const struct {
        const char *method, *path, *body, *detail;
    } bad[] = {
        { "POST", "/v1/state/n/increment", "{\"by\":9223372036854775808}",
          "by 9223372036854775808 is not allowed; a whole number from -9223372036854775807 to "
          "9223372036854775807 is" },
        { "POST", "/v1/state/n/increment", "{\"by\":-9223372036854775808}", "by -922" },
        { "POST", "/v1/state/n/increment", "{\"by\":1.0}", "by 1.0 is not allowed" },
        { "POST", "/v1/state/n/increment", "{\"by\":1e3}", "by 1e3 is not allowed" },
        { "POST", "/v1/state/n/increment", "{\"by\":\"1\"}", "by " },
        { "PUT", "/v1/state/n", "{\"value\":1,\"ifVersion\":18446744073709551616}",
          "ifVersion 184" },
        { "POST", "/v1/runs", "{\"job\":\"j\",\"priority\":32768}",
          "priority 32768 is not allowed; a whole number from -32768 to 32767 is" },
        { "POST", "/v1/runs", "{\"job\":\"j\",\"priority\":-9999999999999999999999}",
          "priority -99" },
        { "POST", "/v1/runs", "{\"job\":\"j\",\"maxAttempts\":1000001}", "maxAttempts 1000001" },
        { "POST", "/v1/runs/batch", "{\"runs\":[{\"job\":\"j\",\"maxAttempts\":1e1}]}",
          "runs[0].maxAttempts 1e1" },
        { "GET", "/v1/runs?limit=99999999999999999999", NULL, "limit 9999" },
    };
    char path[128];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (bad[i].body == NULL) {
            call(&answer, bad[i].method, bad[i].path, admin, NULL);
        } else {
            call(&answer, bad[i].method, bad[i].path, admin, "%s", bad[i].body);
        }
        assert_status(&answer, 400);
        assert_field(&answer, "/code", "invalid_argument");
        const char *detail = answer_field(&answer, "/detail");
        if (strncmp(detail, bad[i].detail, strlen(bad[i].detail)) != 0) {
            fail_msg("%s %s: %s", bad[i].path, bad[i].body, detail);
        }
    }
    CALL(200, "POST", "/v1/state/n/increment", admin, "{\"by\":9223372036854775807}");
    assert_field(&answer, "/value", "9223372036854775807");
    CALL(200, "POST", "/v1/state/n/increment", admin, "{\"by\":-9223372036854775807}");
    assert_field(&answer, "/value", "0");
    CALL(409, "PUT", "/v1/state/n", admin, "{\"value\":1,\"ifVersion\":9223372036854775807}");
    /* An id of a stream has 16 digits since 2001. */
    CALL(201, "POST", "/v1/runs", admin, "{\"job\":\"listed\"}");
    (void)snprintf(path, sizeof path, "/v1/runs/%s", answer_field(&answer, "/id"));
    (void)snprintf(path + strlen(path), sizeof path - strlen(path), "/cancel");
    CALL(200, "POST", path, admin, NULL);
    (void)snprintf(strrchr(path, '/'), 64, "/stream?lastEventId=1234567890123456");
    CALL(200, "GET", path, admin, NULL);
    assert_non_null(strstr(answer.head, "text/event-stream"));
}

static void queues_are_set_paused_and_resumed(void **state) {
    (void)state;
    CALL(200, "PUT", "/v1/queues/q%2F1", operator_key,
         "{\"maxAttempts\":3,\"deadLetterQueue\":\"dead\"}");
    assert_field(&answer, "/name", "q/1");
    assert_field(&answer, "/deadLetterQueue", "dead");
    CALL(200, "POST", "/v1/queues/q%2F1/pause", operator_key, NULL);
    assert_field(&answer, "/paused", "true");
    CALL(201, "POST", "/v1/runs", admin, "{\"job\":\"p\",\"queueName\":\"q/1\"}");
    assert_field(&answer, "/waitingFor/kind", "paused");
    assert_field(&answer, "/maxAttempts", "3");
    CALL(200, "POST", "/v1/queues/q%2F1/resume", operator_key, NULL);
    CALL(200, "GET", "/v1/queues", reader, NULL);
    assert_non_null(strstr(answer.body, "\"q/1\""));
    CALL(400, "PUT", "/v1/queues/a%20b", operator_key, "{}");
    CALL(400, "PUT", "/v1/queues/q", operator_key, "{\"maxAttempts\":-1}");
}

static void state_is_kept_counted_and_locked(void **state) {
    (void)state;
    CALL(404, "GET", "/v1/state/a%2Fb", reader, NULL);
    CALL(200, "PUT", "/v1/state/a%2Fb", starter,
         "{\"value\":{\"n\":1.10},\"expiresAt\":\"2030-01-01T00:00:00Z\",\"ifVersion\":0}");
    assert_field(&answer, "/key", "a/b");
    assert_field(&answer, "/expiresAt", "2030-01-01T00:00:00.000Z");
    CALL(409, "PUT", "/v1/state/a%2Fb", starter, "{\"value\":1,\"ifVersion\":0}");
    REFUSED(409, "conflict", "");
    CALL(400, "PUT", "/v1/state/a%2Fb", starter, "{}");
    CALL(200, "GET", "/v1/state/a%2Fb", reader, NULL);
    assert_non_null(strstr(answer.body, "1.10"));
    CALL(200, "GET", "/v1/state/a%2Fb", blind, NULL);
    assert_null(strstr(answer.body, "1.10"));
    CALL(404, "GET", "/v1/state/a%2Fb", foreign, NULL);
    CALL(404, "DELETE", "/v1/state/a%2Fb", foreign, NULL);
    CALL(200, "DELETE", "/v1/state/a%2Fb", starter, NULL);
    CALL(404, "DELETE", "/v1/state/a%2Fb", starter, NULL);
    CALL(200, "POST", "/v1/state/n/increment", starter, NULL);
    CALL(200, "POST", "/v1/state/n/increment", starter, "{\"by\":41}");
    assert_field(&answer, "/value", "42");
    CALL(200, "POST", "/v1/state/l/lock", starter, "{\"owner\":\"me\",\"ttl\":\"1h\"}");
    CALL(409, "POST", "/v1/state/l/lock", starter, "{\"owner\":\"you\",\"ttl\":\"1h\"}");
    CALL(409, "POST", "/v1/state/l/unlock", starter, "{\"owner\":\"you\"}");
    CALL(200, "POST", "/v1/state/l/unlock", starter, "{\"owner\":\"me\"}");
    CALL(400, "POST", "/v1/state/l/lock", starter, "{\"owner\":\"you\"}");
}

static void each_scope_opens_its_routes_and_no_others(void **state) {
    (void)state;
    const char *id = started(admin, "{\"job\":\"scoped\",\"payload\":\"canary\"}");
    CALL(403, "POST", "/v1/runs", reader, "{\"job\":\"j\"}");
    REFUSED(403, "forbidden", "start");
    CALL(403, "GET", "/v1/runs", starter, NULL);
    REFUSED(403, "forbidden", "read");
    CALL(403, "POST", path_of("/v1/runs/%s/cancel", id), starter, NULL);
    REFUSED(403, "forbidden", "operate");
    CALL(403, "PUT", "/v1/endpoints/e", operator_key, "{}");
    REFUSED(403, "forbidden", "admin");
    CALL(200, "GET", path_of("/v1/runs/%s", id), blind, NULL);
    assert_null(strstr(answer.body, "canary"));
    CALL(200, "GET", "/v1/runs?job=scoped", blind, NULL);
    assert_null(strstr(answer.body, "canary"));
    CALL(200, "POST", path_of("/v1/runs/%s/cancel", id), blind, NULL);
    assert_null(strstr(answer.body, "canary"));
    CALL(201, "POST", "/v1/runs", blind, "{\"job\":\"scoped\",\"payload\":\"canary\"}");
    assert_null(strstr(answer.body, "canary"));
}

static void without_a_valid_key_all_is_401(void **state) {
    char wrong[80];
    (void)state;
    (void)snprintf(wrong, sizeof wrong, "%s", admin);
    wrong[62] = wrong[62] == 'a' ? 'b' : 'a';
    const char *bad[] = { NULL, "", "x", wrong,
                          "dj_0000000000000000_0000000000000000000000000000000000000000000" };
    char *first = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CALL(401, "GET", "/v1/runs", bad[i], NULL);
        assert_field(&answer, "/code", "unauthorized");
        assert_non_null(strstr(answer.head, "\r\nWWW-Authenticate: Bearer\r\n"));
        if (first != NULL) {
            assert_string_equal(first, answer.body);
        }
        first = first == NULL ? strdup(answer.body) : first;
    }
    free(first);
    const char *ends = key_new(conn, "default", "read");
    CALL(200, "GET", "/v1/runs?limit=1", ends, NULL);
    sql(conn, "select durable_internal.key_revoke(substr('%s', 4, 16))", ends);
    for (int tries = 0; tries < 100 && answer.status != 401; tries++) {
        call(&answer, "GET", "/v1/runs?limit=1", ends, NULL);
        sleep_ms(10);
    }
    assert_status(&answer, 401); /* at the notification, long before 10 s are over */
    CALL(200, "GET", "/healthz", NULL, NULL);
    CALL(200, "GET", "/readyz", NULL, NULL);
    CALL(200, "GET", "/openapi.json", NULL, NULL);
    CALL(200, "GET", "/metrics", NULL, NULL);
    assert_non_null(
        strstr(answer.body,
               "durable_http_requests_total{method=\"GET\",route=\"/v1/runs\",status=\"4xx\"}"));
}

static void what_is_anothers_was_never_there(void **state) {
    static const struct {
        const char *method, *path, *body;
    } table[] = {
        { "GET", "/v1/runs/%s", NULL },
        { "GET", "/v1/runs/%s/timeline", NULL },
        { "GET", "/v1/runs/%s/steps", NULL },
        { "GET", "/v1/runs/%s/attempts", NULL },
        { "GET", "/v1/runs/%s/logs", NULL },
        { "GET", "/v1/runs/%s/why", NULL },
        { "GET", "/v1/runs/%s/result", NULL },
        { "GET", "/v1/runs/%s/result?wait=1s", NULL },
        { "GET", "/v1/runs/%s/stream", NULL },
        { "POST", "/v1/runs/%s/cancel", "{}" },
        { "POST", "/v1/runs/%s/retry", "{}" },
        { "POST", "/v1/runs/%s/reschedule", "{\"scheduledAt\":\"2030-01-01T00:00:00Z\"}" },
    };
    (void)state;
    const char *id = started(admin, "{\"job\":\"mine\",\"idempotencyKey\":\"mine\"}");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *none = "01890a5d-ac96-774b-bcce-b302099a8057";
        CALL(404, table[i].method, path_of(table[i].path, none), foreign,
             table[i].body == NULL ? NULL : "%s", table[i].body);
        char *never = strdup(answer.body), *at = strstr(never, none);
        assert_non_null(at);
        memcpy(at, id, strlen(id));
        CALL(404, table[i].method, path_of(table[i].path, id), foreign,
             table[i].body == NULL ? NULL : "%s", table[i].body);
        assert_string_equal(answer.body, never);
        free(never);
    }
    CALL(200, "GET", "/v1/runs", foreign, NULL);
    assert_string_equal(answer.body, "{\"runs\": [], \"nextCursor\": null}");
    CALL(200, "GET", "/v1/queues", foreign, NULL);
    assert_string_equal(answer.body, "{\"queues\": [], \"nextCursor\": null}");
    CALL(200, "GET", "/v1/workers", foreign, NULL);
    assert_string_equal(answer.body, "{\"workers\": [], \"nextCursor\": null}");
    CALL(404, "DELETE", "/v1/idempotency-keys/mine", foreign, NULL);
    CALL(200, "POST", "/v1/runs/cancel", foreign, "{\"job\":\"mine\"}");
    assert_field(&answer, "/count", "0");
    CALL(201, "POST", "/v1/runs", foreign, "{\"job\":\"theirs\",\"idempotencyKey\":\"mine\"}");
    CALL(200, "GET", path_of("/v1/runs/%s", id), admin, NULL);
    assert_field(&answer, "/status", "queued");
}

static void openapi_has_each_route_and_no_other(void **state) {
    (void)state;
    CALL(200, "GET", "/openapi.json", NULL, NULL);
    json_object *doc = json_tokener_parse(answer.body);
    int found = 0;
    json_object_object_foreach(json_object_object_get(doc, "paths"), pattern, methods) {
        json_object_object_foreach(methods, method, about) {
            char upper[16] = "", path[256], *out = path;
            (void)about;
            for (size_t i = 0; method[i] != '\0' && i < sizeof upper - 1; i++) {
                upper[i] = (char)(method[i] - 'a' + 'A');
            }
            for (const char *at = pattern; *at != '\0';) {
                if (*at == '{') {
                    *out++ = 'x';
                    at = strchr(at, '}') + 1;
                } else {
                    *out++ = *at++;
                }
            }
            *out = '\0';
            call(&answer, upper, path, NULL,
                 NULL); /* 405 and 404 come before the key is asked for */
            assert_true(answer.status == 401 || answer.status == 200 ||
                        (answer.status == 400 && strcmp(pattern, "/v1/commit") == 0));
            found++;
        }
    }
    json_object_put(doc);
    char command[512];
    struct said said; /* the table, as the source has it */
    (void)snprintf(
        command, sizeof command,
        "grep -cE '^    \\{ \"(GET|POST|PUT|DELETE)\", \"/' %s/../../server/api/router.c",
        getenv("DURABLE_BUILD"));
    shell_said(&said, "%s", command);
    assert_int_equal(strtol(said.out, NULL, 10), found);
}

static void while_the_database_is_away_it_is_503_and_then_well_again(void **state) {
    static struct cluster cluster;
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    cluster_start(&cluster);
    PGconn *there = connect_to(cluster.url);
    const char *key = key_new(there, "default", "admin");
    struct commit_secret secret = secret_of(there);
    char *token = token_of(&secret, &(struct lease_name){ .fence = 1 });
    PQfinish(there);
    server = server_start(cluster.url, /* ready= */ true, NULL);
    CALL(201, "POST", "/v1/runs", key, "{\"job\":\"j\"}");
    cluster_stop(&cluster, "fast");
    for (int tries = 0; tries < 100 && answer.status != 503; tries++, sleep_ms(20)) {
        call(&answer, "GET", "/readyz", NULL, NULL);
    }
    assert_status(&answer, 503);
    CALL(503, "POST", "/v1/runs", key, "{\"job\":\"j\"}");
    assert_field(&answer, "/code", "unavailable");
    assert_non_null(strstr(answer.head, "\r\nRetry-After: 1\r\n"));
    CALL(503, "GET", "/v1/runs", key, NULL);
    for (int i = 0; i < 2; i++) { /* then one that has never seen it */
        CALL(503, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\"}]}", token);
        CALL(503, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"AAAA\"}]}");
        CALL(503, "GET", "/v1/commit?ref=1", token, NULL);
        if (i == 0) {
            assert_int_equal(end_process(server, SIGTERM), 0);
            server = server_start(cluster.url, /* ready= */ false, NULL);
        }
    }
    free(token);
    CALL(200, "GET", "/healthz", NULL, NULL);
    cluster_go_on(&cluster);
    for (int tries = 0; tries < 500 && answer.status != 201; tries++, sleep_ms(20)) {
        call(&answer, "POST", "/v1/runs", key, "{\"job\":\"j\"}");
    }
    assert_status(&answer, 201);
    assert_int_equal(end_process(server, SIGTERM), 0);
    cluster_drop(&cluster);
    server = server_start(url, /* ready= */ true, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_exact_or_refused_by_name),
        cmocka_unit_test(queues_are_set_paused_and_resumed),
        cmocka_unit_test(state_is_kept_counted_and_locked),
        cmocka_unit_test(each_scope_opens_its_routes_and_no_others),
        cmocka_unit_test(without_a_valid_key_all_is_401),
        cmocka_unit_test(what_is_anothers_was_never_there),
        cmocka_unit_test(openapi_has_each_route_and_no_other),
        cmocka_unit_test(while_the_database_is_away_it_is_503_and_then_well_again),
    };
    return cmocka_run_group_tests(tests, api_setup, api_teardown);
}
