/* Input that is not as it should be: each kind is refused with the right problem, or at least the
 * connection is closed; nothing is stored of it; and each limit holds to the byte. */
#include "http.h"
#include "malformed.h"

#include "common/text.h"
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
    server = server_start(url, /* ready= */ true, "--head-timeout", "1s", "--body-timeout", "5s",
                          "--bad-keys", "0", NULL);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    free(answer.body);
    return 0;
}

static const char *code_of(int status) {
    switch (status) {
    case 400:
        return "invalid_argument";
    case 401:
        return "unauthorized";
    case 404:
        return "not_found";
    case 405:
        return "method_not_allowed";
    case 413:
        return "payload_too_large";
    case 414:
        return "uri_too_long";
    case 415:
        return "unsupported_media_type";
    case 431:
        return "headers_too_large";
    default:
        return "none"; /* no other is expected here */
    }
}

/* What is wrong with the answer; NULL: nothing. */
static const char *wrong_with_answer(int wanted) {
    static char text[256];
    if (answer.status != wanted) {
        (void)snprintf(text, sizeof text, "%d is not %d", answer.status, wanted);
        return text;
    }
    if (wanted < 300) {
        return NULL;
    }
    if (strstr(answer.head, "\r\nContent-Type: application/problem+json\r\n") == NULL) {
        return "it is no problem+json";
    }
    if (!text_is_utf8(answer.body, answer.length)) {
        return "the problem is not UTF-8";
    }
    if (strcmp(answer_field(&answer, "/code"), code_of(wanted)) != 0) {
        (void)snprintf(text, sizeof text, "code %s", answer_field(&answer, "/code"));
        return text;
    }
    return NULL;
}

static void each_kind_is_refused_and_nothing_is_stored(void **state) {
    int wrong = 0, rows[MALFORMED_KINDS] = { 0 }, starts = 0;
    (void)state;
    long long before = sql_int(conn, "select count(*) from durable.runs");
    for (int i = 0; i < malformed_count; i++) {
        const struct malformed *row = &malformed[i];
        size_t length;
        char *text = malformed_request(row, key, &length);
        int fd = http_connect();
        http_say(fd, text, length);
        http_hear(fd, &answer);
        const char *why = wrong_with_answer(row->status);
        if (why == NULL && strstr(answer.head, "\r\nConnection: close\r\n") != NULL &&
            !http_is_closed(fd, 5000)) {
            why = "it is not closed";
        }
        if (why != NULL) {
            print_error("%s: %s: %s\n", malformed_name(row), why, answer.body);
            wrong++;
        }
        rows[row->kind]++;
        starts += row->status == 201;
        (void)close(fd);
        free(text);
    }
    for (int kind = 0; kind < MALFORMED_KINDS; kind++) {
        print_message("%-14s %3d rows\n", malformed_kinds[kind], rows[kind]);
        assert_in_range(rows[kind], 1, 1000);
    }
    assert_in_range(rows[MALFORMED_FRAMING] + rows[MALFORMED_CHUNK], 60, 1000);
    assert_int_equal(wrong, 0);
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs"), before + starts);
    assert_int_equal(sql_int(conn, "select count(*) from durable.events"), 0);
}

/* After a refusal that two readers could see differently nothing more of the connection is read. */
static void what_follows_a_refused_request_is_never_one(void **state) {
    int wrong = 0;
    (void)state;
    for (int i = 0; i < malformed_count; i++) {
        const struct malformed *row = &malformed[i];
        if (row->status != 400 || row->kind == MALFORMED_PATH || row->path != NULL) {
            continue;
        }
        int fd = http_connect();
        http_say(fd, row->text, row->length);
        http_say(fd, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 34);
        http_hear(fd, &answer);
        http_hear(fd, &answer);
        if (answer.status != 0) {
            print_error("%s: a second answer, %d\n", malformed_name(row), answer.status);
            wrong++;
        }
        (void)close(fd);
    }
    assert_int_equal(wrong, 0);
}

static void a_thousand_in_a_row_are_answered_in_their_order(void **state) {
    enum { MANY = 1000 };
    char *text = calloc(MANY + 2, 128), *at = text;
    (void)state;
    for (int i = 0; i < MANY; i++) {
        at +=
            sprintf(at, "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", i % 7 == 3 ? "nothing" : "healthz");
    }
    at += sprintf(at, "GET /healthz HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\nGET /healthz "
                      "HTTP/1.1\r\nHost: x\r\n\r\n");
    int fd = http_connect();
    http_say(fd, text, (size_t)(at - text));
    for (int i = 0; i < MANY; i++) {
        http_hear(fd, &answer);
        assert_status(&answer, i % 7 == 3 ? 404 : 200);
    }
    http_hear(fd, &answer);
    assert_status(&answer, 400);
    assert_true(http_is_closed(fd, 5000));
    (void)close(fd);
    free(text);
}

#define RUN "POST /v1/runs", "{\"job\":\"j\","
#define DEEP 1
#define IN_PATH 2

/* `unit` so many times between `before` and `after`; # in it is a number. In the path: behind it,
 * without a body. */
static const struct limit {
    const char *what, *path, *before, *unit, *after;
    int count, fine, over, how;
} limits[] = {
    { "payload", RUN "\"payload\":\"", "x", "\"}", 1024 * 1024 - 2, 201, 413, 0 },
    { "payload of many numbers", RUN "\"payload\":[1", ", 1", "]}", (1024 * 1024 - 3) / 3, 201, 413,
      0 },
    { "depth", RUN "\"payload\":", "[", "}", 64, 201, 400, DEEP },
    { "digits", RUN "\"payload\":", "7", "}", 400, 201, 400, 0 },
    { "digits of a fraction", RUN "\"payload\":0.", "7", "}", 399, 201, 400, 0 },
    { "job", "POST /v1/runs", "{\"job\":\"", "a", "\"}", 200, 201, 400, 0 },
    { "queueName", RUN "\"queueName\":\"", "a", "\"}", 200, 201, 400, 0 },
    { "idempotencyKey", RUN "\"idempotencyKey\":\"", "a", "\"}", 512, 201, 400, 0 },
    { "idempotencyKey of two bytes a letter", RUN "\"idempotencyKey\":\"", "\xc3\xa9", "\"}", 256,
      201, 400, 0 },
    { "concurrencyKey", RUN "\"concurrencyKey\":\"", "a", "\"}", 512, 201, 400, 0 },
    { "tags", RUN "\"tags\":{\"t\":\"v\"", ",\"t#\":\"v\"", "}}", 15, 201, 400, 0 },
    { "tag's key", RUN "\"tags\":{\"", "a", "\":\"v\"}}", 64, 201, 400, 0 },
    { "tag's value", RUN "\"tags\":{\"t\":\"", "a", "\"}}", 256, 201, 400, 0 },
    { "runs of a batch", "POST /v1/runs/batch", "{\"runs\":[{\"job\":\"j\"}", ",{\"job\":\"j\"}",
      "]}", 999, 201, 413, 0 },
    { "bytes of a batch", "POST /v1/runs/batch", "{\"runs\":[]", " ", "}", 16 * 1024 * 1024 - 11,
      201, 413, 0 },
    { "bytes of a request", "POST /v1/runs", "{\"job\":\"j\"", " ", "}", 1024 * 1024 + 65536 - 11,
      201, 413, 0 },
    { "event's name", "POST /v1/events", "{\"name\":\"", "a", "\"}", 200, 202, 400, 0 },
    { "event's payload", "POST /v1/events", "{\"name\":\"e\",\"payload\":\"", "x", "\"}",
      1024 * 1024 - 2, 202, 413, 0 },
    { "correlationKey", "POST /v1/events", "{\"name\":\"e\",\"correlationKey\":\"", "a", "\"}", 512,
      202, 400, 0 },
    { "state's value", "PUT /v1/state/k", "{\"value\":\"", "x", "\"}", 1024 * 1024 - 2, 200, 413,
      0 },
    { "state's key", "POST /v1/state/", "", "a", "/increment", 512, 200, 400, IN_PATH },
    { "queue's name", "PUT /v1/queues/", "", "a", "", 200, 200, 400, IN_PATH },
    { "URI", "GET /", "", "a", "", 8191, 404, 414, IN_PATH },
    { "list's limit", "GET /v1/runs?limit=200", "", "0", "", 0, 200, 400, IN_PATH },
};

static int status_at(const struct limit *limit, int count) {
    size_t unit = strlen(limit->unit) + 8;
    char *text =
        calloc(1, strlen(limit->before) + strlen(limit->after) + (size_t)count * (unit + 1) + 16);
    char *at = stpcpy(text, limit->before), *head;
    for (int i = 0; i < count; i++) {
        const char *number = strchr(limit->unit, '#');
        at = number == NULL ? stpcpy(at, limit->unit)
                            : at + sprintf(at, "%.*s%d%s", (int)(number - limit->unit), limit->unit,
                                           i, number + 1);
    }
    for (int i = 0; limit->how == DEEP && i < count; i++) {
        *at++ = ']';
    }
    at = stpcpy(at, limit->after);
    bool in_path = limit->how == IN_PATH;
    int n = asprintf(
        &head,
        "%s%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n",
        limit->path, in_path ? text : "", key, in_path ? 0 : (size_t)(at - text));
    int fd = http_connect();
    http_say(fd, head, (size_t)n);
    http_say(fd, text, in_path ? 0 : (size_t)(at - text));
    http_hear(fd, &answer);
    (void)close(fd);
    free(head);
    free(text);
    return answer.status;
}

static void each_limit_holds_to_the_byte(void **state) {
    int wrong = 0;
    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        for (int more = limits[i].count > 1 ? -1 : 0; more <= 1; more++) {
            int status = status_at(&limits[i], limits[i].count + more);
            const char *why = wrong_with_answer(more == 1 ? limits[i].over : limits[i].fine);
            if (why != NULL) {
                print_error("%s, its limit %+d: %d, %s: %.200s\n", limits[i].what, more, status,
                            why, answer.body);
                wrong++;
            }
        }
    }
    assert_int_equal(wrong, 0);
}

/* The header section has 16 KiB, whatever it is made of. */
static void the_header_section_has_its_limit(void **state) {
    static const char *const parts[] = { "A: b\r\n", "A:\r\n", "Abcdefgh: " };
    static char text[20000];
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        for (int more = -1; more <= 1; more++) {
            size_t at = (size_t)sprintf(text, "GET /healthz HTTP/1.1\r\nHost: x\r\n%s", parts[i]);
            while (parts[i][1] == ':' && at + strlen(parts[i]) + 10 < 16384) {
                at += (size_t)sprintf(text + at, "%s", parts[i]);
            }
            at += (size_t)sprintf(text + at, "%s", parts[i][1] == ':' ? "P: " : "");
            size_t fill = (size_t)(16384 + more) - at - 4;
            memset(text + at, 'x', fill);
            memcpy(text + at + fill, "\r\n\r\n", 4);
            int fd = http_connect();
            http_say(fd, text, at + fill + 4);
            http_hear(fd, &answer);
            if (answer.status != (more == 1 ? 431 : 200)) {
                fail_msg("%s, the limit %+d: %d: %s", parts[i], more, answer.status, answer.body);
            }
            (void)close(fd);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_is_refused_and_nothing_is_stored),
        cmocka_unit_test(what_follows_a_refused_request_is_never_one),
        cmocka_unit_test(a_thousand_in_a_row_are_answered_in_their_order),
        cmocka_unit_test(each_limit_holds_to_the_byte),
        cmocka_unit_test(the_header_section_has_its_limit),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
