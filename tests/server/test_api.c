/* The routes: what each answers, whom it refuses, and that nobody sees or disturbs another. */
#include "http.h"
#include "lease.h"

#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *url;
static PGconn *conn;
static const char *admin, *reader, *starter, *operator_key, *blind, *foreign;
static struct answer answer;
static pid_t server;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    admin = key_new(conn, "default", "admin,payloads");
    reader = key_new(conn, "default", "read,payloads");
    starter = key_new(conn, "default", "start,payloads");
    operator_key = key_new(conn, "default", "operate,payloads");
    blind = key_new(conn, "default", "read,start,operate,admin");
    foreign = key_new(conn, "other", "admin,payloads");
    server = server_start(url, /* ready= */ true, NULL);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    free(answer.body);
    return 0;
}

#define REFUSED(wanted, code, part)                                                                \
    do {                                                                                           \
        assert_field(&answer, "/code", code);                                                      \
        if (strstr(answer_field(&answer, "/detail"), part) == NULL) {                              \
            fail_msg("no '%s' in %s", part, answer.body);                                          \
        }                                                                                          \
    } while (0)

static const char *started(const char *key, const char *body) {
    CALL(201, "POST", "/v1/runs", key, "%s", body);
    return strdup(answer_field(&answer, "/id"));
}

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

static void times_before_all_runs_are_before_them(void **state) {
    (void)state;
    CALL(201, "POST", "/v1/runs", starter, "{\"job\":\"dated\"}");
    CALL(200, "GET", "/v1/runs?job=dated&since=1960-01-01T00:00:00Z&until=9999-12-31T23:59:59Z",
         reader, NULL);
    assert_field(&answer, "/runs/0/job", "dated");
    CALL(200, "GET", "/v1/runs?job=dated&until=1960-01-01T00:00:00Z", reader, NULL);
    assert_non_null(strstr(answer.body, "\"runs\": []"));
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

static void a_run_is_shown_from_all_sides(void **state) {
    (void)state;
    pid_t scheduler = spawn_scheduler(url), worker = spawn_worker(url, NULL);
    const char *id = started(admin, "{\"job\":\"waits\"}");
    CALL(202, "GET", path_of("/v1/runs/%s/result?wait=100ms", id), reader, NULL);
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", id);
    CALL(200, "GET", path_of("/v1/runs/%s/why", id), reader, NULL);
    assert_non_null(strstr(answer_field(&answer, "/why"), "waits for event go"));
    CALL(202, "GET", path_of("/v1/runs/%s/result", id), reader, NULL);
    assert_field(&answer, "/status", "waiting");

    int waiter = http_connect(), stream = http_connect();
    char text[65536];
    int n = snprintf(
        text, sizeof text,
        "GET /v1/runs/%s/result?wait=30s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
        id, reader);
    http_say(waiter, text, (size_t)n);
    n = snprintf(text, sizeof text,
                 "GET /v1/runs/%s/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
                 id, reader);
    http_say(stream, text, (size_t)n);
    CALL(202, "POST", "/v1/events", starter,
         "{\"name\":\"go\",\"payload\":{\"n\":1},\"idempotencyKey\":\"e\"}");
    assert_field(&answer, "/created", "true");
    CALL(202, "POST", "/v1/events", starter,
         "{\"name\":\"go\",\"payload\":{\"n\":1},\"idempotencyKey\":\"e\"}");
    assert_field(&answer, "/created", "false");
    CALL(409, "POST", "/v1/events", starter, "{\"name\":\"gone\",\"idempotencyKey\":\"e\"}");
    CALL(400, "POST", "/v1/events", starter, "{\"name\":\"a b\"}");
    http_hear(waiter, &answer);
    assert_status(&answer, 200);
    assert_field(&answer, "/status", "completed");
    assert_field(&answer, "/result/payload/n", "1");
    (void)close(waiter);
    size_t got = 0;
    for (ssize_t more; (more = recv(stream, text + got, sizeof text - got - 1, 0)) > 0;) {
        got += (size_t)more;
    }
    text[got] = '\0';
    (void)close(stream);
    const char *begun = strstr(text, "\"kind\": \"started\""),
               *event = strstr(text, "\"kind\": \"wait_event\"");
    const char *end = strstr(text, "\"kind\": \"completed\"");
    assert_true(begun != NULL && event != NULL && end != NULL && begun < event && event < end);
    assert_non_null(strstr(text, "Content-Type: text/event-stream"));
    long long seen = strtoll(strstr(text, "id: ") + 4, NULL, 10);
    stream = http_connect();
    n = snprintf(text, sizeof text,
                 "GET /v1/runs/%s/stream HTTP/1.1\r\nHost: x\r\nLast-Event-ID: "
                 "%lld\r\nAuthorization: Bearer %s\r\n\r\n",
                 id, seen, reader);
    http_say(stream, text, (size_t)n);
    got = 0;
    for (ssize_t more; (more = recv(stream, text + got, sizeof text - got - 1, 0)) > 0;) {
        got += (size_t)more;
    }
    text[got] = '\0';
    (void)close(stream);
    assert_null(strstr(text, "\"kind\": \"started\""));
    assert_non_null(strstr(text, "\"kind\": \"completed\""));
    const char *last = strstr(text, "id: ");
    for (const char *more = last; (more = strstr(more + 1, "id: ")) != NULL;) {
        last = more;
    }
    char path[128];
    (void)snprintf(path, sizeof path, "/v1/runs/%s/stream?lastEventId=%lld", id,
                   strtoll(last + 4, NULL, 10));
    CALL(204, "GET", path, reader, NULL);
    assert_null(strstr(answer.head, "\r\nContent-"));

    CALL(200, "GET", path_of("/v1/runs/%s/timeline", id), reader, NULL);
    assert_field(&answer, "/timeline/0/kind", "started");
    assert_field(&answer, "/nextCursor", "null");
    CALL(200, "GET", path_of("/v1/runs/%s/timeline?limit=1", id), reader, NULL);
    assert_field(&answer, "/nextCursor", "1");
    CALL(200, "GET", path_of("/v1/runs/%s/timeline?limit=1&cursor=1", id), reader, NULL);
    assert_field(&answer, "/timeline/0/kind", "attempt");
    CALL(200, "GET", path_of("/v1/runs/%s/steps", id), reader, NULL);
    assert_field(&answer, "/steps/0/name", "before");
    assert_field(&answer, "/steps/0/status", "completed");
    CALL(200, "GET", path_of("/v1/runs/%s/attempts", id), reader, NULL);
    assert_field(&answer, "/attempts/0/outcome", "completed");
    CALL(200, "GET", path_of("/v1/runs/%s/logs", id), reader, NULL);
    assert_field(&answer, "/nextCursor", "null");
    CALL(200, "GET", "/v1/workers", reader, NULL);
    assert_field(&answer, "/workers/0/status", "alive");
    CALL(409, "POST", path_of("/v1/runs/%s/cancel", id), operator_key, NULL);
    REFUSED(409, "conflict", "has ended");
    CALL(409, "POST", path_of("/v1/runs/%s/retry", id), operator_key, NULL);
    CALL(409, "POST", path_of("/v1/runs/%s/reschedule", id), operator_key,
         "{\"scheduledAt\":\"2030-01-01T00:00:00Z\"}");
    (void)end_process(worker, SIGTERM);
    (void)end_process(scheduler, SIGTERM);
}

static void a_run_is_steered(void **state) {
    (void)state;
    const char *id = started(admin, "{\"job\":\"steered\",\"tags\":{\"t\":\"a:b\"}}");
    CALL(400, "POST", path_of("/v1/runs/%s/reschedule", id), operator_key, NULL);
    CALL(200, "POST", path_of("/v1/runs/%s/reschedule", id), operator_key,
         "{\"scheduledAt\":\"2030-01-01T00:00:00Z\"}");
    assert_field(&answer, "/status", "scheduled");
    CALL(200, "POST", path_of("/v1/runs/%s/cancel", id), operator_key, "{\"reason\":\"no more\"}");
    assert_field(&answer, "/status", "cancelled");
    assert_field(&answer, "/error/message", "no more");
    CALL(200, "POST", path_of("/v1/runs/%s/retry", id), operator_key, "{\"maxAttempts\":2}");
    assert_field(&answer, "/status", "queued");
    CALL(200, "POST", "/v1/runs/cancel", operator_key,
         "{\"job\":\"steered\",\"tag\":\"t:a:b\",\"dryRun\":true}");
    assert_field(&answer, "/count", "1");
    CALL(200, "POST", "/v1/runs/cancel", operator_key, "{\"job\":\"steered\",\"tag\":\"t:b\"}");
    assert_field(&answer, "/count", "0");
    CALL(200, "POST", "/v1/runs/cancel", operator_key, "{\"job\":\"steered\"}");
    assert_field(&answer, "/count", "1");
    CALL(200, "POST", "/v1/runs/retry", operator_key,
         "{\"job\":\"steered\",\"status\":\"cancelled\"}");
    assert_field(&answer, "/count", "1");
    CALL(400, "POST", "/v1/runs/retry", operator_key, "{}");
    CALL(400, "GET", "/v1/runs/x", reader, NULL);
    CALL(404, "GET", "/v1/runs/01890a5d-ac96-774b-bcce-b302099a8057", reader, NULL);
    CALL(501, "POST", path_of("/v1/runs/%s/fork", id), operator_key, NULL);
    REFUSED(501, "not_implemented", "fork");
}

/* The ticks of who has waited for 300 ms are 250 ms apart: without the notification of the end the
 * answer comes about 200 ms later. */
static void who_waits_for_a_result_hears_of_it_at_once(void **state) {
    char request[512];
    struct timespec before, after;
    (void)state;
    for (int tries = 0; tries < 3; tries++) {
        const char *id = started(admin, "{\"job\":\"nobody\"}");
        int fd = http_connect();
        int length = snprintf(request, sizeof request,
                              "GET /v1/runs/%s/result?wait=10s HTTP/1.1\r\nHost: "
                              "x\r\nAuthorization: Bearer %s\r\n\r\n",
                              id, admin);
        http_say(fd, request, (size_t)length);
        sleep_ms(300);
        (void)clock_gettime(CLOCK_MONOTONIC, &before);
        sql(conn, "select durable.cancel('%s')", id);
        http_hear(fd, &answer);
        (void)clock_gettime(CLOCK_MONOTONIC, &after);
        assert_status(&answer, 200);
        assert_field(&answer, "/status", "cancelled");
        (void)close(fd);
        if ((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 <
            100) {
            return;
        }
    }
    fail_msg("the answer came late three times");
}

static void runs_are_listed_page_by_page(void **state) {
    char path[256];
    (void)state;
    for (int i = 1; i <= 5; i++) {
        CALL(201, "POST", "/v1/runs", admin,
             "{\"job\":\"listed\",\"payload\":%d,\"queueName\":\"l\",\"tags\":{\"a\":\"%d\",\"b\":"
             "\"x\"}}",
             i, i % 2);
        sleep_ms(2); /* an id's order is by the millisecond */
    }
    CALL(200, "GET", "/v1/runs?job=listed&limit=2", reader, NULL);
    assert_field(&answer, "/runs/0/payload", "5");
    (void)snprintf(path, sizeof path, "/v1/runs?job=listed&limit=3&cursor=%s",
                   answer_field(&answer, "/nextCursor"));
    CALL(200, "GET", path, reader, NULL);
    assert_field(&answer, "/runs/0/payload", "3");
    assert_field(&answer, "/runs/2/payload", "1");
    assert_field(&answer, "/nextCursor", "null");
    CALL(200, "GET",
         "/v1/"
         "runs?queue=l&tag=a:1&tag=b:x&status=queued&since=2020-01-01T00:00:00Z&until=2100-01-"
         "01T00%3A00%3A00Z",
         reader, NULL);
    assert_field(&answer, "/runs/2/payload", "1");
    CALL(200, "GET", "/v1/runs?queue=l&status=running", reader, NULL);
    assert_string_equal(answer.body, "{\"runs\": [], \"nextCursor\": null}");
    static const char *const bad[] = { "limit=0",         "limit=201",       "limit=x",
                                       "cursor=x",        "status=x",        "tag=x",
                                       "since=x",         "job=a%20b",       "nope=1",
                                       "limit=1&limit=2", "job='%20or%201=1" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CALL(400, "GET", path_of("/v1/runs?%s", bad[i]), reader, NULL);
    }
}

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
        cmocka_unit_test(a_start_answers_the_run_and_its_key_finds_it_again),
        cmocka_unit_test(bad_starts_are_refused_by_the_fields_name),
        cmocka_unit_test(numbers_go_through_as_they_were_written),
        cmocka_unit_test(a_batch_starts_all_or_none),
        cmocka_unit_test(times_before_all_runs_are_before_them),
        cmocka_unit_test(a_payload_has_all_its_levels_in_a_batch_too),
        cmocka_unit_test(one_bad_start_harms_nobody_that_came_with_it),
        cmocka_unit_test(a_run_is_shown_from_all_sides),
        cmocka_unit_test(a_run_is_steered),
        cmocka_unit_test(who_waits_for_a_result_hears_of_it_at_once),
        cmocka_unit_test(runs_are_listed_page_by_page),
        cmocka_unit_test(numbers_are_exact_or_refused_by_name),
        cmocka_unit_test(queues_are_set_paused_and_resumed),
        cmocka_unit_test(state_is_kept_counted_and_locked),
        cmocka_unit_test(each_scope_opens_its_routes_and_no_others),
        cmocka_unit_test(without_a_valid_key_all_is_401),
        cmocka_unit_test(what_is_anothers_was_never_there),
        cmocka_unit_test(openapi_has_each_route_and_no_other),
        cmocka_unit_test(while_the_database_is_away_it_is_503_and_then_well_again),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
