/* Behind HAProxy, as most installations have it: what is ambiguous is refused by one of the two, or
 * is as many requests to both of them. Were it more to the server than to the proxy, the answer to
 * a smuggled request would go to the next client on the same connection. */
#include "http.h"
#include "malformed.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *url;
static struct answer answer;
static pid_t server, proxy;
static int strict_port, lenient_port, back_port;
static char config[64];

/* One connection to the server, which everybody shares. */
static void proxy_start(void) {
    char command[256];
    strict_port = free_port();
    lenient_port = free_port();
    back_port = server_port();
    (void)snprintf(config, sizeof config, "/tmp/durable-proxy-%d.cfg", (int)getpid());
    FILE *file = fopen(config, "w");
    assert_non_null(file);
    (void)fprintf(
        file,
        "global\n    nbthread 1\n"
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout "
        "server 5s\n"
        "    http-reuse always\n    retries 0\n"
        "frontend strict\n    bind 127.0.0.1:%d\n    default_backend durable\n"
        "frontend lenient\n    bind 127.0.0.1:%d\n    option accept-invalid-http-request\n"
        "    default_backend durable\n"
        "backend durable\n    http-request set-header x-through haproxy\n"
        "    server one 127.0.0.1:%d maxconn 1 pool-max-conn 1\n",
        strict_port, lenient_port, back_port);
    (void)fclose(file);
    proxy = fork();
    assert_true(proxy >= 0);
    if (proxy == 0) {
        (void)execl("/usr/sbin/haproxy", "haproxy", "-q", "-db", "-f", config, NULL);
        _exit(127);
    }
    for (int tries = 0; tries < 500; tries++, sleep_ms(10)) {
        (void)snprintf(command, sizeof command, "exec 3<>/dev/tcp/127.0.0.1/%d", lenient_port);
        struct said said;
        shell_said(&said, "bash -c '%s' 2>/dev/null", command);
        if (said.status == 0) {
            return;
        }
    }
    fail_msg("haproxy does not come up");
}

static int setup(void **state) {
    (void)state;
    url = database_new();
    server =
        server_start(url, /* ready= */ true, "--head-timeout", "3s", "--body-timeout", "3s", NULL);
    proxy_start();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    (void)end_process(proxy, SIGTERM);
    (void)unlink(config);
    assert_int_equal(end_process(server, SIGTERM), 0);
    free(answer.body);
    return 0;
}

/* Requests that the server has answered, with this one. */
static long long answered(void) {
    long long sum = 0;
    http_use_port(back_port);
    call(&answer, "GET", "/metrics", NULL, NULL);
    assert_status(&answer, 200);
    for (const char *at = answer.body; (at = strstr(at, "\ndurable_http_requests_total{")) != NULL;
         at++) {
        sum += strtoll(strstr(at + 1, "} ") + 2, NULL, 10);
    }
    return sum;
}

/* Answers that the client gets to what it says: *ret_served of them are the server's. */
static int answers_to(const struct malformed *row, int *ret_served) {
    int fd = http_connect(), count = 0;
    struct timeval patience = { .tv_sec = 8 };
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    http_say(fd, row->text, row->length);
    (void)shutdown(fd, SHUT_WR);
    *ret_served = 0;
    for (http_hear(fd, &answer); answer.status != 0; http_hear(fd, &answer)) {
        count++;
        *ret_served += strstr(answer.head, "json") != NULL; /* haproxy's own pages are HTML */
    }
    (void)close(fd);
    return count;
}

static void what_is_ambiguous_is_refused_or_the_same_to_both(void **state) {
    int wrong = 0, rows = 0, refused_by_proxy = 0, refused_by_server = 0, passed = 0;
    (void)state;
    const int ports[] = { strict_port, lenient_port };
    for (int p = 0; p < 2; p++) {
        for (int i = 0; i < malformed_count; i++) {
            const struct malformed *row = &malformed[i];
            if (row->path != NULL) {
                continue;
            }
            int served;
            long long before = answered();
            http_use_port(ports[p]);
            int count = answers_to(row, &served);
            bool refused = answer.status == 0 && count > 0 && served == 0;
            long long more = answered() - before - 1;
            if (more > served) {
                print_error("%s: the server answered %lld requests, the client got %d\n",
                            malformed_name(row), more, served);
                wrong++;
            }
            http_use_port(ports[p]); /* whoever comes next has its own answer */
            call(&answer, "GET", "/healthz?next", NULL, NULL);
            if (answer.status != 200 || strcmp(answer.body, "{\"status\":\"ok\"}") != 0) {
                print_error("%s: the next client got %d: %s\n", malformed_name(row), answer.status,
                            answer.body);
                wrong++;
            }
            rows++;
            refused_by_proxy += refused;
            refused_by_server += !refused && more < served;
            passed += !refused && more == served;
        }
    }
    print_message(
        "%d requests through haproxy: %d refused by it, %d by the server, %d the same to both\n",
        rows, refused_by_proxy, refused_by_server, passed);
    assert_in_range(rows, 120, 1000);
    assert_in_range(refused_by_proxy, 1, rows);
    assert_in_range(passed, 1, rows);
    assert_int_equal(wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_ambiguous_is_refused_or_the_same_to_both),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
