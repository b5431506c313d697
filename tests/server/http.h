/* A server of the test's own, and a client that says what it is told, byte by byte. */
#ifndef TESTS_SERVER_HTTP_H
#define TESTS_SERVER_HTTP_H

#include "support.h"

struct answer {
    int status; /* 0: the server closed without an answer */
    char head[8192];
    char *body; /* closed by a zero byte; until the next answer into this struct */
    size_t length;
};

/** Starts durable-server on a free port, with these further arguments (up to NULL), and waits until
 * it is alive; ready too, where `ready` says so. */
pid_t server_start(const char *url, int ready, ...) __attribute__((sentinel));
int server_port(void);
void http_use_port(int at); /* for all that follows: of a proxy in front */

/** A key of a namespace with scopes such as "read,start". */
const char *key_new(PGconn *conn, const char *namespace, const char *scopes);

int http_connect(void);                   /* a socket */
void http_come_from(const char *address); /* of 127.0.0.0/8, from now on */
void http_say(int fd, const char *text, size_t length);
void http_hear(int fd, struct answer *answer); /* one answer; others may follow */
bool http_is_closed(int fd, int timeout_ms);   /* by the server */

/** One request on a connection of its own; `key` and `body` may be NULL. The body is printf-like.
 */
void call(struct answer *answer, const char *method, const char *path, const char *key,
          const char *body, ...) __attribute__((format(printf, 5, 6)));

/** `format`, with `id` in it where it says %s. The last four stay. */
const char *path_of(const char *format, const char *id);

/** The text of a field of the last answer's body, by its path, such as "/runs/0/status". */
const char *answer_field(const struct answer *answer, const char *path);

/** The status, with the body shown where it is another. */
#define assert_status(answer, wanted)                                                              \
    do {                                                                                           \
        if ((answer)->status != (wanted)) {                                                        \
            fail_msg("%d is not %d: %s", (answer)->status, (wanted), (answer)->body);              \
        }                                                                                          \
    } while (0)
/** One request by `call`, and its status; for a `struct answer answer` of the test's. */
#define CALL(status, method, path, key, ...)                                                       \
    do {                                                                                           \
        call(&answer, method, path, key, __VA_ARGS__);                                             \
        assert_status(&answer, status);                                                            \
    } while (0)
#define assert_field(answer, path, wanted) assert_string_equal(answer_field(answer, path), wanted)

#endif
