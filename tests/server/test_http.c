/* The protocol: what is refused, what is answered in which order, who waits for whom. */
#include "http.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *url;
static PGconn *conn;
static const char *key;
static struct answer answer;
static pid_t server;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    key = key_new(conn, "default", "admin,payloads");
    server = server_start(url, /* ready= */ true, "--head-timeout", "1s", "--body-timeout", "1s",
                          "--write-timeout", "1s", NULL);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    free(answer.body);
    return 0;
}

/* Says it and hears the answer; the server has to close behind it, if it refuses. */
static void say(const char *text, size_t length) {
    int fd = http_connect();
    http_say(fd, text, length);
    http_hear(fd, &answer);
    if (strstr(answer.head, "\r\nConnection: close\r\n") != NULL) {
        assert_true(http_is_closed(fd, 5000));
    }
    (void)close(fd);
}

#define HOST "Host: x\r\n"
#define GET_HEALTH "GET /healthz HTTP/1.1\r\n" HOST
#define POST_RUNS "POST /v1/runs HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n"

static void paths_that_are_none_are_not_found(void **state) {
    static const char *const paths[] = { "/",
                                         "//",
                                         "/v1",
                                         "/v1/",
                                         "/v1/runs/",
                                         "/v1//runs",
                                         "/x",
                                         "/v1/../healthz",
                                         "/%2e%2e/healthz",
                                         "/healthz/",
                                         "/HEALTHZ",
                                         "/v1/runs/a/b/c/d/e/f/g/h/i/j/k/l" };
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        call(&answer, "GET", paths[i], key, NULL);
        assert_status(&answer, 404);
        assert_field(&answer, "/code", "not_found");
        assert_field(&answer, "/status", "404");
    }
}

static void a_method_that_a_path_has_not_is_refused_with_those_it_has(void **state) {
    (void)state;
    call(&answer, "DELETE", "/v1/runs", key, NULL);
    assert_status(&answer, 405);
    assert_field(&answer, "/code", "method_not_allowed");
    assert_non_null(strstr(answer.head, "\r\nAllow: POST, GET\r\n"));
    int fd = http_connect();
    const char *both = "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n" GET_HEALTH "\r\n";
    http_say(fd, both, strlen(both));
    char text[4096] = "";
    for (size_t at = 0; strstr(text, "{\"status\":\"ok\"}") == NULL; at = strlen(text)) {
        assert_true(recv(fd, text + at, sizeof text - at - 1, 0) > 0);
    }
    assert_int_equal(strncmp(text, "HTTP/1.1 405 ", 13), 0);
    assert_null(strstr(text, "method_not_allowed")); /* no body behind HEAD */
    (void)close(fd);
}

static void what_is_too_large_is_refused(void **state) {
    static char text[2 * 1024 * 1024];
    (void)state;
    int n = snprintf(text, sizeof text, "GET /%0*d HTTP/1.1\r\nHost: x\r\n\r\n", 9000, 0);
    say(text, (size_t)n);
    assert_status(&answer, 414);
    assert_field(&answer, "/code", "uri_too_long");
    n = snprintf(text, sizeof text, "GET /%0*d HTTP/1.1\r\nHost: x\r\n\r\n", 8000, 0);
    say(text, (size_t)n);
    assert_status(&answer, 404);
    n = snprintf(text, sizeof text, GET_HEALTH "A: %0*d\r\n\r\n", 17000, 0);
    say(text, (size_t)n);
    assert_status(&answer, 431);
    assert_field(&answer, "/code", "headers_too_large");
    n = snprintf(text, sizeof text, GET_HEALTH "A: %0*d\r\n\r\n", 16000, 0);
    say(text, (size_t)n);
    assert_status(&answer, 200);
    n = snprintf(text, sizeof text,
                 POST_RUNS "Authorization: Bearer %s\r\nContent-Length: 9999999\r\n\r\n{", key);
    say(text, (size_t)n);
    assert_status(&answer, 413);
    assert_field(&answer, "/code", "payload_too_large");
    n = snprintf(text, sizeof text,
                 POST_RUNS
                 "Authorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%0*d",
                 key, 1200000, 1200000, 0);
    say(text, (size_t)n);
    assert_status(&answer, 413);
}

static void a_slow_client_is_sent_away_and_disturbs_nobody(void **state) {
    (void)state;
    int head = http_connect(), body = http_connect();
    char text[512];
    int n =
        snprintf(text, sizeof text,
                 POST_RUNS "Authorization: Bearer %s\r\nContent-Length: 20\r\n\r\n{\"job\"", key);
    http_say(head, GET_HEALTH, strlen(GET_HEALTH));
    http_say(body, text, (size_t)n);
    for (int i = 0; i < 5; i++) {
        call(&answer, "GET", "/healthz", NULL, NULL);
        assert_status(&answer, 200);
    }
    http_hear(head, &answer);
    assert_status(&answer, 408);
    assert_field(&answer, "/code", "timeout");
    assert_true(http_is_closed(head, 5000));
    http_hear(body, &answer);
    assert_status(&answer, 408);
    assert_true(http_is_closed(body, 5000));
    (void)close(head);
    (void)close(body);
}

static void who_does_not_read_is_cut_off_and_disturbs_nobody(void **state) {
    static const char ask[] = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    static char all[2000 * (sizeof ask - 1)];
    (void)state;
    for (size_t i = 0; i < 2000; i++) {
        memcpy(all + i * (sizeof ask - 1), ask, sizeof ask - 1);
    }
    int fd = http_connect(), small = 4096;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    http_say(fd, all, sizeof all);
    for (int i = 0; i < 5; i++) {
        call(&answer, "GET", "/healthz", NULL, NULL);
        assert_status(&answer, 200);
    }
    for (int tries = 0; tries < 500; tries++, sleep_ms(10)) {
        call(&answer, "GET", "/metrics", NULL, NULL);
        if (strstr(answer.body, "durable_http_connections 1\n") != NULL) {
            (void)close(fd);
            return;
        }
    }
    fail_msg("it is still connected: %s", strstr(answer.body, "durable_http_connections"));
}

static void a_request_may_come_byte_by_byte(void **state) {
    const char *text = "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "4\r\nabcd\r\nA\r\n0123456789\r\n0\r\n\r\n";
    (void)state;
    int fd = http_connect();
    for (size_t i = 0; i < strlen(text); i++) {
        http_say(fd, text + i, 1);
    }
    http_hear(fd, &answer);
    assert_status(&answer, 401);
    (void)close(fd);
}

static void pipelined_requests_are_answered_in_their_order(void **state) {
    enum { MANY = 200 };
    char *text = calloc(MANY, 512), *at = text;
    (void)state;
    for (int i = 0; i < MANY; i++) {
        at += i % 2 == 0
                  ? sprintf(at, "GET /nothing/%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
                  : sprintf(at,
                            "POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                            "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                            "{\"job\":\"j\",\"priority\":%5d}",
                            key, 28, i);
    }
    int fd = http_connect();
    http_say(fd, text, (size_t)(at - text));
    (void)shutdown(fd, SHUT_WR); /* it still listens */
    for (int i = 0; i < MANY; i++) {
        http_hear(fd, &answer);
        if (i % 2 == 0) {
            assert_status(&answer, 404);
        } else {
            assert_status(&answer, 201);
            assert_int_equal(strtol(answer_field(&answer, "/priority"), NULL, 10), i);
        }
    }
    assert_true(http_is_closed(fd, 5000));
    (void)close(fd);
    free(text);
}

static void who_expects_to_be_told_to_continue_is_told(void **state) {
    char text[512];
    (void)state;
    int n = snprintf(
        text, sizeof text,
        POST_RUNS "Authorization: Bearer %s\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n",
        key);
    call(&answer, "GET", "/v1/runs", key, NULL); /* the key is known now */
    int fd = http_connect();
    http_say(fd, text, (size_t)n);
    http_hear(fd, &answer);
    assert_status(&answer, 100);
    http_say(fd, "{\"job\":\"j\"}", 11);
    http_hear(fd, &answer);
    assert_status(&answer, 201);
    (void)close(fd);
    fd = http_connect();
    n = snprintf(text, sizeof text, POST_RUNS "Expect: 100-continue\r\nContent-Length: 11\r\n\r\n");
    http_say(fd, text, (size_t)n);
    http_hear(fd, &answer);
    assert_status(&answer, 401); /* and not told to go on */
    (void)close(fd);
}

static void a_body_that_is_no_json_by_its_type_is_refused(void **state) {
    char text[512];
    (void)state;
    int n =
        snprintf(text, sizeof text,
                 "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nAuthorization: "
                 "Bearer %s\r\nContent-Length: 11\r\n\r\n{\"job\":\"j\"}",
                 key);
    int fd = http_connect();
    http_say(fd, text, (size_t)n);
    http_hear(fd, &answer);
    assert_status(&answer, 415);
    assert_field(&answer, "/code", "unsupported_media_type");
    (void)close(fd);
}

static void one_connection_too_many_gets_503(void **state) {
    int fds[8];
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    server = server_start(url, /* ready= */ true, "--max-clients", "8", NULL);
    for (int i = 0; i < 8; i++) {
        fds[i] = http_connect();
        http_say(fds[i], GET_HEALTH "\r\n", strlen(GET_HEALTH) + 2);
        http_hear(fds[i], &answer);
        assert_status(&answer, 200);
    }
    int fd = http_connect();
    http_hear(fd, &answer);
    assert_status(&answer, 503);
    assert_field(&answer, "/code", "unavailable");
    (void)close(fd);
    for (int i = 0; i < 8; i++) {
        (void)close(fds[i]);
    }
}

static void a_drain_answers_what_it_has_and_ends(void **state) {
    char text[512];
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    server = server_start(url, /* ready= */ true, NULL);
    int idle = http_connect(), busy = http_connect();
    const char *id = sql_text(conn, "select durable.start('nobody')");
    int n = snprintf(
        text, sizeof text,
        "GET /v1/runs/%s/result?wait=1m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
        id, key);
    http_say(busy, text, (size_t)n);
    sleep_ms(300);
    assert_int_equal(end_process(server, SIGTERM), 0);
    http_hear(busy, &answer);
    assert_true(answer.status == 202 || answer.status == 503);
    assert_true(http_is_closed(idle, 1000));
    (void)close(idle);
    (void)close(busy);
    server = server_start(url, /* ready= */ true, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_that_are_none_are_not_found),
        cmocka_unit_test(a_method_that_a_path_has_not_is_refused_with_those_it_has),
        cmocka_unit_test(what_is_too_large_is_refused),
        cmocka_unit_test(a_slow_client_is_sent_away_and_disturbs_nobody),
        cmocka_unit_test(who_does_not_read_is_cut_off_and_disturbs_nobody),
        cmocka_unit_test(a_request_may_come_byte_by_byte),
        cmocka_unit_test(pipelined_requests_are_answered_in_their_order),
        cmocka_unit_test(who_expects_to_be_told_to_continue_is_told),
        cmocka_unit_test(a_body_that_is_no_json_by_its_type_is_refused),
        cmocka_unit_test(one_connection_too_many_gets_503),
        cmocka_unit_test(a_drain_answers_what_it_has_and_ends),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
