/* Runs over HTTP: how they are shown, listed, waited for and steered. */
#include "api.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void times_before_all_runs_are_before_them(void **state) {
    (void)state;
    CALL(201, "POST", "/v1/runs", starter, "{\"job\":\"dated\"}");
    CALL(200, "GET", "/v1/runs?job=dated&since=1960-01-01T00:00:00Z&until=9999-12-31T23:59:59Z",
         reader, NULL);
    assert_field(&answer, "/runs/0/job", "dated");
    CALL(200, "GET", "/v1/runs?job=dated&until=1960-01-01T00:00:00Z", reader, NULL);
    assert_non_null(strstr(answer.body, "\"runs\": []"));
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_before_all_runs_are_before_them),
        cmocka_unit_test(a_run_is_shown_from_all_sides),
        cmocka_unit_test(a_run_is_steered),
        cmocka_unit_test(who_waits_for_a_result_hears_of_it_at_once),
        cmocka_unit_test(runs_are_listed_page_by_page),
    };
    return cmocka_run_group_tests(tests, api_setup, api_teardown);
}
