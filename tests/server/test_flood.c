/* Hostile clients in numbers, beside one that is as it should be: what it feels of them, and what
 * the server keeps. `DURABLE_CHAOS=full` makes the flood 10,000 requests and the slow ones 500. */
#include "http.h"
#include "malformed.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GOOD_MAX 100000

static const char *url;
static PGconn *conn;
static const char *key;
static struct answer answer;
static pid_t server;

static bool is_full(void) {
    const char *chaos = getenv("DURABLE_CHAOS");
    return chaos != NULL && strcmp(chaos, "full") == 0;
}

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    key = key_new(conn, "default", "admin,payloads");
    /* The sanitizer keeps what was freed; here it is asked how much memory the server keeps. */
    char options[512];
    const char *given = getenv("ASAN_OPTIONS");
    (void)snprintf(options, sizeof options, "%s:quarantine_size_mb=1:malloc_context_size=2",
                   given == NULL ? "" : given);
    (void)setenv("ASAN_OPTIONS", options, 1);
    server = server_start(url, /* ready= */ true, "--head-timeout", "3s", "--body-timeout", "3s",
                          "--write-timeout", "3s", NULL);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    free(answer.body);
    return 0;
}

static double now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Of the server, in KiB. */
static long resident(void) {
    char path[64], line[256];
    long kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)server);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0) {
            kib = strtol(line + 6, NULL, 10);
        }
    }
    (void)fclose(file);
    return kib;
}

/* What the good client has felt. */
struct felt {
    double ms[GOOD_MAX];
    int count;
};

/* One start, one look: both have to work. */
static void feel(struct felt *felt) {
    char path[128];
    double begin = now_ms();
    call(&answer, "POST", "/v1/runs", key, "{\"job\":\"good\",\"payload\":{\"n\":%d}}",
         felt->count);
    assert_status(&answer, 201);
    (void)snprintf(path, sizeof path, "/v1/runs/%s", answer_field(&answer, "/id"));
    call(&answer, "GET", path, key, NULL);
    assert_status(&answer, 200);
    if (felt->count < GOOD_MAX) {
        felt->ms[felt->count++] = (now_ms() - begin) / 2;
    }
}

static int by_size(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double percentile(struct felt *felt, double part) {
    assert_in_range(felt->count, 1, GOOD_MAX);
    qsort(felt->ms, (size_t)felt->count, sizeof *felt->ms, by_size);
    return felt->ms[(int)((felt->count - 1) * part)];
}

/* Prints both; beside the hostile ones the good client may wait for its share of the processor, no
 * more. */
static void compare(struct felt *quiet, struct felt *beside) {
    double p50 = percentile(quiet, 0.5), p99 = percentile(quiet, 0.99);
    print_message("a good request, quiet:  p50 %5.1f ms, p99 %5.1f ms (%d pairs)\n", p50, p99,
                  quiet->count);
    print_message("a good request, beside: p50 %5.1f ms, p99 %5.1f ms (%d pairs)\n",
                  percentile(beside, 0.5), percentile(beside, 0.99), beside->count);
    assert_true(percentile(beside, 0.5) < 4 * p50 + 20);
    assert_true(percentile(beside, 0.99) < 4 * p99 + 250);
}

/* ---- the flood: in a process of its own, which says what went wrong and how often ---- */

/* Sends a row, whole or cut anywhere, and looks at the status if it was whole. */
static bool send_row(const struct malformed *row, bool cut) {
    size_t length, at = 0;
    char text[64] = "", *request = malformed_request(row, key, &length);
    int fd = http_connect(), status;
    http_say(fd, request, cut ? (size_t)random() % length : length);
    free(request);
    if (cut) { /* and gone, without a word */
        struct linger linger = { .l_onoff = 1, .l_linger = 0 };
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        (void)close(fd);
        return true;
    }
    for (ssize_t n; at < 12 && (n = recv(fd, text + at, 12 - at, 0)) > 0;) {
        at += (size_t)n;
    }
    (void)close(fd);
    status = at == 12 ? (int)strtol(text + 9, NULL, 10) : 0;
    if (status == 429 && row->status == 401) {
        return true; /* a wrong key, as the ones before it */
    }
    if (status != row->status) {
        print_error("%s: %d\n", malformed_name(row), status);
    }
    return status == row->status;
}

static pid_t flood(unsigned int seed, int count) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) {
        return pid;
    }
    int wrong = 0;
    srandom(seed);
    for (int i = 0; i < count; i++) {
        const struct malformed *row;
        do {
            row = &malformed[random() % malformed_count];
        } while (row->status == 201);
        wrong += send_row(row, random() % 3 == 0) ? 0 : 1;
    }
    _exit(wrong > 0);
}

static bool goes_on(pid_t pid, int *ret_status) {
    return waitpid(pid, ret_status, WNOHANG) == 0;
}

static void a_flood_of_malformed_requests_is_felt_by_nobody_and_leaves_nothing(void **state) {
    static struct felt quiet, beside;
    const char *given = getenv("DURABLE_SEED");
    unsigned int seed =
        given == NULL ? (unsigned int)time(NULL) : (unsigned int)strtoul(given, NULL, 10);
    int count = is_full() ? 10000 : 2000, status;
    (void)state;
    print_message("DURABLE_SEED=%u\n", seed);
    pid_t warm = flood(seed, count / 2); /* its heap has its size */
    while (goes_on(warm, &status)) {
        static struct felt unused;
        feel(&unused);
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 0; i < 200; i++) {
        feel(&quiet);
    }
    long before = resident();
    double begin = now_ms();
    pid_t pid = flood(seed + 1, count);
    while (goes_on(pid, &status)) {
        feel(&beside);
    }
    double took = now_ms() - begin;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    sleep_ms(2500); /* the last connections have lingered */
    long after = resident();
    print_message("%d malformed requests, %.0f/s; resident: %ld KiB before, %ld KiB after\n", count,
                  count / took * 1e3, before, after);
    compare(&quiet, &beside);
    if (getenv("MEMCHECK_LOGS") == NULL) { /* under valgrind it is valgrind's */
        assert_true(after - before < 768);
    }
}

/* ---- the slow ones ---- */

enum slow_kind { SLOW_HEAD, SLOW_BODY, DEAF, DEAF_STREAM, SLOW_KINDS };
static const char *const slow_kinds[SLOW_KINDS] = { "a byte a second of a head",
                                                    "a byte a second of a body", "reads no answer",
                                                    "reads no stream" };

static int slow_start(enum slow_kind kind, const char *run_id) {
    char text[1024];
    int fd = http_connect(), small = 4096, n = 0;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    switch (kind) {
    case SLOW_HEAD:
        n = snprintf(text, sizeof text, "GET /v1/runs HTTP/1.1\r\nHost: x\r\nX: ");
        break;
    case SLOW_BODY:
        n = snprintf(
            text, sizeof text,
            "POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: "
            "application/json\r\nContent-Length: 1000000\r\n\r\n{",
            key);
        break;
    case DEAF_STREAM:
        n = snprintf(
            text, sizeof text,
            "GET /v1/runs/%s/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
            run_id, key);
        break;
    case DEAF:
        for (int i = 0; i < 400; i++) {
            http_say(fd, "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", 39);
        }
        break;
    case SLOW_KINDS:
        break;
    }
    http_say(fd, text, (size_t)n);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* A run with so many log lines of 8 KB. */
static const char *run_with_log_lines(int lines) {
    const char *id = strdup(sql_text(conn, "select durable.start('long')"));
    sql(conn,
        "insert into durable_internal.log (run_id, attempt, at, level, message) select '%s', 1, "
        "clock_timestamp() + n "
        "* interval '1 microsecond', 'info', repeat('x', 8000) from generate_series(1, %d) as n",
        id, lines);
    return id;
}

static int connections(void) {
    call(&answer, "GET", "/metrics", NULL, NULL);
    assert_status(&answer, 200);
    return (int)strtol(strstr(answer.body, "\ndurable_http_connections ") + 26, NULL, 10);
}

static void slow_clients_are_cut_off_and_felt_by_nobody(void **state) {
    static struct felt quiet, beside;
    int many = is_full() ? 500 : 200, fds[500];
    long most = 0;
    (void)state;
    const char *id = run_with_log_lines(300);
    for (int i = 0; i < 100; i++) {
        feel(&quiet);
    }
    long before = resident();
    for (int i = 0; i < many; i++) { /* 4 in 10 heads, 4 bodies, 1 and 1 */
        static const enum slow_kind kinds[] = { SLOW_HEAD, SLOW_BODY,  SLOW_HEAD, SLOW_BODY,
                                                SLOW_HEAD, SLOW_BODY,  SLOW_HEAD, SLOW_BODY,
                                                DEAF,      DEAF_STREAM };
        fds[i] = slow_start(kinds[i % 10], id);
    }
    print_message("%d slow clients: 4 of 10 %s, 4 %s, 1 %s, 1 %s\n", many, slow_kinds[0],
                  slow_kinds[1], slow_kinds[2], slow_kinds[3]);
    assert_true(connections() > many / 2);
    double begin = now_ms(), said = begin, cut_after = 0;
    while (now_ms() - begin < 90000 && cut_after == 0) {
        feel(&beside);
        most = resident() > most ? resident() : most;
        if (now_ms() - said >= 1000) {
            said += 1000;
            for (int i = 0; i < many; i++) {
                if (i % 10 < 8) {
                    (void)send(fds[i], "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
                }
            }
            cut_after = connections() == 1 ? now_ms() - begin : 0;
        }
    }
    print_message("all cut off after %.1f s (limits of 3 s); resident: %ld KiB before, %ld KiB at "
                  "most, %ld KiB after\n",
                  cut_after / 1e3, before, most, resident());
    compare(&quiet, &beside);
    assert_true(cut_after > 0);
    assert_true(most - before < 64 * 1024);
    for (int i = 0; i < many; i++) {
        (void)close(fds[i]);
    }
}

/* It is asked for by pages; entries of one time stay together. */
static void a_long_stream_comes_whole_and_in_order(void **state) {
    char text[1024];
    static char line[65536];
    int entries = 0;
    long long last = 0;
    (void)state;
    const char *id = run_with_log_lines(1000);
    sql(conn,
        "update durable_internal.log set at = date_trunc('milliseconds', at) where run_id = '%s'",
        id);
    sql(conn, "select durable.cancel('%s')", id);
    int fd = http_connect(),
        n = snprintf(
            text, sizeof text,
            "GET /v1/runs/%s/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", id,
            key);
    http_say(fd, text, (size_t)n);
    FILE *stream = fdopen(fd, "r");
    while (fgets(line, sizeof line, stream) != NULL) {
        if (strncmp(line, "id: ", 4) == 0) {
            long long at = strtoll(line + 4, NULL, 10);
            assert_true(at >= last);
            last = at;
            entries++;
        }
    }
    (void)fclose(stream);
    assert_int_equal(entries, sql_int(conn, "select count(*) from durable.timeline('%s')", id));
}

/* All connections of the server are held up until more starts have gathered than one call takes:
 * the rest is for the next one, and each answer for whoever asked. They are of two namespaces, by
 * turns, and each run is of the namespace of its key. */
static void starts_of_several_calls_are_answered_to_who_asked(void **state) {
    enum { HELD = 8, STARTS = 600 };
    int held[HELD], starts[STARTS];
    char text[512], body[64];
    (void)state;
    const char *keys[] = { key, key_new(conn, "neighbour", "start") };
    PGconn *holder = connect_to(url);
    sql(holder, "begin");
    sql(holder, "select durable.state_increment('held', 1)");
    for (int i = 0; i < HELD; i++) {
        held[i] = http_connect();
        int n = snprintf(
            text, sizeof text,
            "POST /v1/state/held/increment HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
            "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            key);
        http_say(held[i], text, (size_t)n);
    }
    wait_until(
        conn, 5,
        "select count(*) >= 2 from pg_stat_activity where application_name = 'durable-server' "
        "and wait_event_type = 'Lock'");
    for (int i = 0; i < STARTS; i++) {
        starts[i] = http_connect();
        int length =
            snprintf(body, sizeof body, "{\"job\":\"flood\",\"idempotencyKey\":\"key %d\"}", i);
        int n = snprintf(
            text, sizeof text,
            "POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: "
            "application/json\r\nContent-Length: %d\r\n\r\n%s",
            keys[i % 2], length, body);
        http_say(starts[i], text, (size_t)n);
    }
    sleep_ms(300);
    sql(holder, "commit");
    PQfinish(holder);
    for (int i = 0; i < STARTS; i++) {
        http_hear(starts[i], &answer);
        assert_int_equal(answer.status, 201);
        (void)snprintf(body, sizeof body, "key %d", i);
        assert_field(&answer, "/idempotencyKey", body);
        (void)close(starts[i]);
    }
    assert_int_equal(
        sql_int(conn,
                "select count(*) from durable_internal.idempotency_key k join "
                "durable_internal.namespace n on n.id = k.namespace_id where k.key like 'key %%' "
                "and (n.name = 'neighbour') = (k.key ~ '[13579]$')"),
        STARTS);
    for (int i = 0; i < HELD; i++) {
        (void)close(held[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_of_malformed_requests_is_felt_by_nobody_and_leaves_nothing),
        cmocka_unit_test(slow_clients_are_cut_off_and_felt_by_nobody),
        cmocka_unit_test(starts_of_several_calls_are_answered_to_who_asked),
        cmocka_unit_test(a_long_stream_comes_whole_and_in_order),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
