#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <json-c/json.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int port;

int server_port(void) {
    return port;
}

void http_use_port(int at) {
    port = at;
}

static struct sockaddr_in address_of(int at) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)at) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static const char *from = "127.0.0.1";

void http_come_from(const char *address) {
    from = address;
}

static int try_connect(void) {
    struct sockaddr_in mine = address_of(0);
    mine.sin_addr.s_addr = inet_addr(from);
    struct sockaddr_in address = address_of(port);
    struct timeval patience = { .tv_sec = 20 };
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(bind(fd, (struct sockaddr *)&mine, sizeof mine), 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

int http_connect(void) {
    int fd = try_connect();
    assert_true(fd >= 0);
    return fd;
}

pid_t server_start(const char *url, int ready, ...) {
    char listen[32];
    const char *more[7] = { NULL };
    struct answer answer = { .body = NULL };
    va_list list;
    port = free_port();
    (void)snprintf(listen, sizeof listen, "127.0.0.1:%d", port);
    va_start(list, ready);
    for (int i = 0; i < 6 && (i == 0 || more[i - 1] != NULL); i++) {
        more[i] = va_arg(list, const char *);
    }
    va_end(list);
    pid_t pid = spawn(url, NULL, "durable-server", "--listen", listen, more[0], more[1], more[2],
                      more[3], more[4], more[5], NULL);
    for (int tries = 0; tries < 1000; tries++, sleep_ms(10)) {
        int fd = try_connect();
        if (fd < 0) {
            continue;
        }
        (void)close(fd);
        call(&answer, "GET", ready ? "/readyz" : "/healthz", NULL, NULL);
        if (answer.status == 200) {
            free(answer.body);
            return pid;
        }
    }
    fail_msg("the server does not come up");
    return 0;
}

const char *key_new(PGconn *conn, const char *namespace, const char *scopes) {
    return strdup(sql_text(conn,
                           "select key from durable_internal.key_create('%s', 'test', "
                           "string_to_array('%s', ','))",
                           namespace, scopes));
}

void http_say(int fd, const char *text, size_t length) {
    while (length > 0) {
        ssize_t n = send(fd, text, length, MSG_NOSIGNAL);
        if (n <= 0) {
            return; /* closed: the answer tells */
        }
        text += n;
        length -= (size_t)n;
    }
}

/* A byte at a time: what follows belongs to the next answer. */
static bool hear_head(int fd, struct answer *answer) {
    size_t at = 0;
    while (at < sizeof answer->head - 1 && recv(fd, answer->head + at, 1, 0) == 1) {
        answer->head[++at] = '\0';
        if (at >= 4 && strcmp(answer->head + at - 4, "\r\n\r\n") == 0) {
            return true;
        }
    }
    return false;
}

void http_hear(int fd, struct answer *answer) {
    free(answer->body);
    answer->body = calloc(1, 1);
    answer->length = 0;
    answer->status = 0;
    answer->head[0] = '\0';
    if (!hear_head(fd, answer)) {
        return;
    }
    assert_int_equal(strncmp(answer->head, "HTTP/1.", 7), 0);
    answer->status = (int)strtol(answer->head + 9, NULL, 10);
    const char *length = strcasestr(answer->head, "\r\nContent-Length:");
    if (length == NULL) {
        return;
    }
    answer->length = strtoul(length + 17, NULL, 10);
    free(answer->body);
    answer->body = calloc(1, answer->length + 1);
    for (size_t got = 0; got < answer->length;) {
        ssize_t n = recv(fd, answer->body + got, answer->length - got, 0);
        assert_true(n > 0);
        got += (size_t)n;
    }
}

bool http_is_closed(int fd, int timeout_ms) {
    char byte;
    struct pollfd wait = { .fd = fd, .events = POLLIN };
    return poll(&wait, 1, timeout_ms) == 1 && recv(fd, &byte, 1, MSG_PEEK) <= 0;
}

void call(struct answer *answer, const char *method, const char *path, const char *key,
          const char *body, ...) {
    char *text = NULL, *head = NULL;
    va_list list;
    if (body != NULL) {
        va_start(list, body);
        assert_true(vasprintf(&text, body, list) >= 0);
        va_end(list);
    }
    int length =
        asprintf(&head,
                 "%s %s HTTP/1.1\r\nHost: test\r\n%s%s%sContent-Type: "
                 "application/json\r\nContent-Length: %zu\r\n\r\n",
                 method, path, key == NULL ? "" : "Authorization: Bearer ", key == NULL ? "" : key,
                 key == NULL ? "" : "\r\n", text == NULL ? 0 : strlen(text));
    assert_true(length > 0);
    int fd = http_connect();
    http_say(fd, head, (size_t)length);
    http_say(fd, text == NULL ? "" : text, text == NULL ? 0 : strlen(text));
    http_hear(fd, answer);
    (void)close(fd);
    free(head);
    free(text);
}

const char *path_of(const char *format, const char *id) {
    static char path[4][512];
    static int next;
    next = (next + 1) % 4;
    const char *mark = strstr(format, "%s");
    size_t before = mark == NULL ? strlen(format) : (size_t)(mark - format);
    (void)snprintf(path[next], sizeof path[next], "%.*s%s%s", (int)before, format,
                   mark == NULL ? "" : id, mark == NULL ? "" : mark + 2);
    return path[next];
}

const char *answer_field(const struct answer *answer, const char *path) {
    static json_object *kept;
    json_object *value;
    json_object_put(kept);
    kept = json_tokener_parse(answer->body);
    if (kept == NULL) {
        fail_msg("not JSON: %s", answer->body);
    }
    if (json_pointer_get(kept, path, &value) != 0) {
        fail_msg("no %s in %s", path, answer->body);
    }
    return value == NULL ? "null" : json_object_get_string(value);
}
