/* How much one client may ask for: requests with a key, guesses, connections, bodies. Each test has
 * a server of its own with small limits. Addresses are those of 127.0.0.0/8. */
#include "http.h"
#include "lease.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEALTH "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

static const char *url;
static PGconn *conn;
static const char *key, *other;
static struct answer answer;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    key = key_new(conn, "default", "admin,payloads");
    other = key_new(conn, "default", "read");
    return 0;
}

static int come_from_here(void **state) {
    (void)state;
    http_come_from("127.0.0.1");
    return 0;
}

static int status_of(const char *path, const char *with) {
    call(&answer, "GET", path, with, NULL);
    return answer.status;
}

/* Seconds that a 429 names. */
static long retry_after(void) {
    const char *at = strstr(answer.head, "\r\nRetry-After: ");
    assert_status(&answer, 429);
    assert_field(&answer, "/code", "rate_limited");
    assert_non_null(at);
    return strtol(at + 15, NULL, 10);
}

static void a_key_has_so_many_requests_a_second_and_no_other_pays_for_it(void **state) {
    int fine = 0, refused = 0;
    (void)state;
    pid_t server = server_start(url, /* ready= */ true, "--rate-limit", "10", NULL);
    for (int i = 0; i < 40; i++) {
        int status = status_of("/v1/runs?limit=1", key);
        fine += status == 200;
        refused += status == 429;
        if (status == 429) {
            assert_int_equal(retry_after(), 1);
        }
    }
    assert_int_equal(fine + refused, 40);
    assert_in_range(fine, 10, 35); /* 10 at once, and what the time it took allows */
    assert_int_equal(status_of("/v1/runs?limit=1", other), 200);
    assert_int_equal(status_of("/healthz", NULL), 200);
    for (int tries = 0; tries < 50 && status_of("/v1/runs?limit=1", key) != 200; tries++) {
        sleep_ms(50);
    }
    assert_status(&answer, 200); /* it does not last */
    assert_int_equal(end_process(server, SIGTERM), 0);
}

static void without_a_setting_no_key_has_a_limit(void **state) {
    (void)state;
    pid_t server = server_start(url, /* ready= */ true, NULL);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(status_of("/v1/runs?limit=1", key), 200);
    }
    assert_int_equal(end_process(server, SIGTERM), 0);
}

static void who_guesses_keys_is_slowed_and_right_keys_go_on(void **state) {
    char guess[80];
    int unauthorized = 0;
    (void)state;
    pid_t server = server_start(url, /* ready= */ true, "--bad-keys", "5", NULL);
    assert_int_equal(status_of("/v1/runs?limit=1", key), 200);
    for (int i = 0; i < 40; i++) {
        (void)snprintf(guess, sizeof guess, "dj_%016d_%043d", i, i);
        unauthorized += status_of("/v1/runs", i % 2 == 0 ? guess : "short") == 401;
        if (answer.status != 401) {
            assert_in_range(retry_after(), 1, 12);
        }
    }
    assert_int_equal(unauthorized, 5);
    assert_int_equal(status_of("/v1/runs?limit=1", key), 200); /* behind the same proxy */
    sql(conn, "notify durable_keys, 'AAAAAAAAAAAAAAAA'");      /* all are asked for again */
    for (int i = 0; i < 20; i++, sleep_ms(5)) {
        assert_int_equal(status_of("/v1/runs?limit=1", key), 200);
    }
    assert_int_equal(status_of("/v1/runs", NULL), 401);          /* no key is no guess */
    assert_int_equal(status_of("/v1/runs?limit=1", other), 429); /* never seen, so far */
    http_come_from("127.0.0.2");
    assert_int_equal(status_of("/v1/runs", "short"), 401);
    assert_int_equal(status_of("/v1/runs?limit=1", other), 200);
    assert_int_equal(end_process(server, SIGTERM), 0);
}

static void an_address_has_so_many_connections(void **state) {
    int fds[5];
    (void)state;
    pid_t server = server_start(url, /* ready= */ true, "--max-clients-per-address", "4",
                                "--max-clients", "6", NULL);
    sleep_ms(100); /* those of the start are gone */
    for (int i = 0; i < 4; i++) {
        fds[i] = http_connect();
        http_say(fds[i], HEALTH, strlen(HEALTH));
        http_hear(fds[i], &answer);
        assert_status(&answer, 200);
    }
    fds[4] = http_connect();
    http_hear(fds[4], &answer);
    assert_status(&answer, 503);
    assert_field(&answer, "/code", "unavailable");
    assert_field(&answer, "/detail", "too many connections from this address");
    assert_true(http_is_closed(fds[4], 5000));
    (void)close(fds[4]);
    http_come_from("127.0.0.2");
    assert_int_equal(status_of("/healthz", NULL), 200);
    http_come_from("127.0.0.1");
    (void)close(fds[0]);
    for (int tries = 0; tries < 100 && status_of("/healthz", NULL) != 200; tries++) {
        sleep_ms(10);
    }
    assert_status(&answer, 200); /* a place that was given back */
    for (int i = 1; i < 4; i++) {
        (void)close(fds[i]);
    }
    assert_int_equal(end_process(server, SIGTERM), 0);
}

/* A key that is not known is asked for at the head; before that the server takes no body of it. */
static void nobody_sends_a_body_without_a_key(void **state) {
    static char body[1024 * 1024];
    char head[512];
    (void)state;
    memset(body, 'x', sizeof body);
    pid_t server = server_start(url, /* ready= */ true, NULL);
    int n = snprintf(head, sizeof head,
                     "POST /v1/runs/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     "Authorization: Bearer dj_%016d_%043d\r\nExpect: 100-continue\r\n"
                     "Content-Length: %zu\r\n\r\n",
                     1, 1, sizeof body);
    int fd = http_connect();
    http_say(fd, head, (size_t)n);
    http_hear(fd, &answer);
    assert_status(&answer, 401); /* and not told to go on */
    assert_true(http_is_closed(fd, 5000));
    (void)close(fd);
    assert_int_equal(end_process(server, SIGTERM), 0);
}

static int long_commit(size_t bytes, const char *token) {
    char head[512];
    char *body = malloc(bytes);
    int n = snprintf(head, sizeof head,
                     "POST /v1/commit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     "%s%s%sContent-Length: %zu\r\n\r\n{\"commits\":[",
                     token == NULL ? "" : "Authorization: Bearer ", token == NULL ? "" : token,
                     token == NULL ? "" : "\r\n", bytes + 12);
    assert_non_null(body);
    memset(body, ' ', bytes);
    int fd = http_connect();
    http_say(fd, head, (size_t)n);
    http_say(fd, body, bytes - 2);
    free(body);
    return fd;
}

static bool has_answer(int fd, int timeout_ms) {
    struct pollfd wait = { .fd = fd, .events = POLLIN };
    return poll(&wait, 1, timeout_ms) == 1;
}

#define STRANGERS 24

/* Commits of handlers have no key, so anybody may send some: bodies of 8 MB without their end. */
static void strangers_hold_no_more_than_their_share(void **state) {
    int fds[STRANGERS], held = 0;
    (void)state;
    sql(conn, "select durable.start('job')");
    const char *worker = strdup(worker_new(conn, "job"));
    struct lease_name lease =
        lease_of(conn, sql_text(conn, "select run_id from durable_internal.claim('%s', 1, 1000000)",
                                worker));
    struct commit_secret secret = secret_of(conn);
    char *token = token_of(&secret, &lease);
    pid_t server = server_start(url, /* ready= */ true, NULL);
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = long_commit(8000000, NULL);
    }
    for (int i = 0; i < STRANGERS; i++) {
        if (has_answer(fds[i], i == 0 ? 500 : 0)) {
            http_hear(fds[i], &answer);
            assert_status(&answer, 503);
        } else {
            held++;
        }
    }
    assert_in_range(held, 4, 9); /* of 64 MiB */
    int known = long_commit(8000000, token);
    http_say(known, "]}", 2);
    http_hear(known, &answer);
    assert_status(&answer, 200);
    call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\"}]}", token);
    assert_status(&answer, 200); /* a small one has no need of that */
    call(&answer, "POST", "/v1/runs", key, "{\"job\":\"job\",\"payload\":\"%0100000d\"}", 1);
    assert_status(&answer, 201);
    for (int i = 0; i < STRANGERS; i++) {
        (void)close(fds[i]);
    }
    int later = -1; /* what they held is free again */
    for (int tries = 0; tries < 100; tries++, sleep_ms(20)) {
        later = long_commit(8000000, NULL);
        if (!has_answer(later, 100)) {
            break;
        }
        (void)close(later);
        later = -1;
    }
    assert_true(later >= 0);
    (void)close(later);
    (void)close(known);
    free(token);
    assert_int_equal(end_process(server, SIGTERM), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_has_so_many_requests_a_second_and_no_other_pays_for_it),
        cmocka_unit_test(without_a_setting_no_key_has_a_limit),
        cmocka_unit_test_teardown(who_guesses_keys_is_slowed_and_right_keys_go_on, come_from_here),
        cmocka_unit_test_teardown(an_address_has_so_many_connections, come_from_here),
        cmocka_unit_test(nobody_sends_a_body_without_a_key),
        cmocka_unit_test(strangers_hold_no_more_than_their_share),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
