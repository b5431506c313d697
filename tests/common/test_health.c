#include "tests/common/unit.h"

#include "common/health.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static int port;
static struct health_metric metrics[] = {
    { "test_turns_total", "counter", "Turns.", 0 },
    { "test_in_hand", "gauge", "In hand.", 0 },
};

static int free_port(void) {
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    (void)close(fd);
    return ntohs(address.sin_port);
}

/* Sends it in two pieces, and answers all that comes back. */
static const char *ask(const char *first, const char *second) {
    static char answer[8192];
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    size_t length = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, first, strlen(first), 0), strlen(first));
    assert_int_equal(send(fd, second, strlen(second), 0), strlen(second));
    for (ssize_t got; (got = recv(fd, answer + length, sizeof answer - 1 - length, 0)) > 0;) {
        length += (size_t)got;
    }
    answer[length] = '\0';
    (void)close(fd);
    return answer;
}

static int open_it(void **state) {
    (void)state;
    port = free_port();
    /* Nobody can have been heard in the last -1 ms: the loop counts as stuck. */
    assert_ok(health_open(port, /* silent_ms_max= */ -1, metrics, 2));
    return 0;
}

static void no_port_is_no_listener(void **state) {
    (void)state;
    assert_ok(health_open(0, 1000, metrics, 2));
}

static void a_loop_that_stands_still_is_not_alive(void **state) {
    (void)state;
    const char *answer = ask("GET /healthz HTTP/1.1\r\n", "Host: x\r\n\r\n");
    assert_ptr_equal(strstr(answer, "HTTP/1.1 503 Service Unavailable\r\n"), answer);
    assert_non_null(strstr(answer, "\r\n\r\n{\"status\":\"stuck\"}"));
}

static void readiness_is_what_was_said_last(void **state) {
    (void)state;
    assert_non_null(strstr(ask("GET /readyz HTTP/1.0\r\n\r", "\n"), " 503 "));
    health_ready(true);
    assert_non_null(strstr(ask("GET /readyz HTTP/1.0\r\n\r", "\n"), " 200 OK\r\n"));
    health_ready(false);
    assert_non_null(strstr(ask("GET /readyz HTTP/1.0\r\n\r", "\n"), " 503 "));
}

static void metrics_are_in_prometheus_text(void **state) {
    (void)state;
    atomic_store(&metrics[0].value, INT64_MAX);
    atomic_store(&metrics[1].value, -3);
    assert_non_null(strstr(ask("GET /metrics?x=1 HTTP/1.1\r\n", "\r\n"),
                           "\r\n\r\n# HELP test_turns_total Turns.\n"
                           "# TYPE test_turns_total counter\n"
                           "test_turns_total 9223372036854775807\n"
                           "# HELP test_in_hand In hand.\n"
                           "# TYPE test_in_hand gauge\n"
                           "test_in_hand -3\n"));
}

static void what_is_no_question_of_ours_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *line, *status;
    } cases[] = {
        { "GET / HTTP/1.1\r\n", " 404 " },
        { "GET /metricsx HTTP/1.1\r\n", " 404 " },
        { "GET /healthz", " 503 " },
        { "GET  /healthz HTTP/1.1\r\n", " 405 " },
        { "HEAD /healthz HTTP/1.1\r\n", " 405 " },
        { "POST /readyz HTTP/1.1\r\n", " 405 " },
        { "\r\n", " 405 " },
        { "\xff\x01\x02\r\n", " 405 " },
        { "GET /\r\n", " 404 " },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *answer = ask(cases[i].line, "\r\n\r\n");
        if (strstr(answer, cases[i].status) == NULL) {
            fail_msg("%s: %s", cases[i].line, answer);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_port_is_no_listener),
        cmocka_unit_test(a_loop_that_stands_still_is_not_alive),
        cmocka_unit_test(readiness_is_what_was_said_last),
        cmocka_unit_test(metrics_are_in_prometheus_text),
        cmocka_unit_test(what_is_no_question_of_ours_is_refused),
    };
    return cmocka_run_group_tests(tests, open_it, NULL);
}
