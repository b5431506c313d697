/* What has not arrived when a call is dropped, or when its process dies, never does: else the
 * kernel would go on trying, and a handler begin for a run that is long another's, or cancelled.
 * The other side is a socket that reads when the test does. */
#include "common/http_client.h"
#include "loopback.h"
#include "unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES_TOO_MANY (32 << 20) /* for the buffers of a connection */

struct caller {
    struct event_base *base;
    struct http_client *client;
    struct http_call *call;
    bool answered, cut;
};

static int listener, port;
static int close_before_send = -1; /* a connection of the server's; -1: none */

static int setup(void **state) {
    (void)state;
    listener = loopback_listen(1, &port);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    return close(listener);
}

/* curl has looked whether the connection is still there, and it was. */
ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    static ssize_t (*theirs)(int, const void *, size_t, int);
    if (theirs == NULL) {
        *(void **)&theirs = dlsym(RTLD_NEXT, "send");
    }
    if (close_before_send >= 0) {
        (void)close(close_before_send);
        close_before_send = -1;
    }
    return theirs(fd, bytes, length, flags);
}

static void on_done(void *context, struct http_answer *answer) {
    struct caller *caller = context;
    caller->answered = answer->outcome == HTTP_ANSWERED;
    caller->cut = answer->outcome == HTTP_CUT;
}

/* As far as it goes: a few rounds of the loop. */
static void go_on(struct caller *caller) {
    for (int rounds = 0; rounds < 50; rounds++) {
        (void)event_base_loopexit(caller->base, &(struct timeval){ .tv_usec = 2000 });
        (void)event_base_loop(caller->base, 0);
    }
}

static void send_one(struct caller *caller, size_t bytes) {
    char url[64];
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    struct http_request_out request = { .method = "POST",
                                        .url = url,
                                        .headers = { "expect:" },
                                        .header_count = 1,
                                        .body = calloc(1, bytes),
                                        .body_length = bytes,
                                        .timeout_ms = 60000,
                                        .answer_bytes_max = 1000,
                                        .allow_private = true };
    caller->answered = caller->cut = false;
    assert_ok(http_client_send(caller->client, &request, on_done, caller, &caller->call));
    go_on(caller);
}

static void call(struct caller *caller, size_t bytes) {
    *caller = (struct caller){ .base = event_base_new() };
    assert_ok(http_client_new(caller->base, &caller->client));
    send_one(caller, bytes);
}

static bool somebody_connects(void) {
    struct pollfd of = { .fd = listener, .events = POLLIN };
    return poll(&of, 1, 0) == 1;
}

static void caller_done(struct caller *caller) {
    http_client_free(caller->client);
    event_base_free(caller->base);
}

/* How the connection ends for whoever reads only now: 0, or the error. */
static int read_to_end(int connection, size_t *ret_bytes) {
    static char bytes[65536];
    ssize_t got;
    *ret_bytes = 0;
    while ((got = read(connection, bytes, sizeof bytes)) > 0) {
        *ret_bytes += (size_t)got;
    }
    int error = got == 0 ? 0 : errno;
    (void)close(connection);
    return error;
}

static void what_has_not_arrived_when_a_call_is_dropped_never_does(void **state) {
    struct caller caller;
    size_t bytes;
    (void)state;
    call(&caller, BYTES_TOO_MANY);
    int connection = accept(listener, NULL, NULL);
    http_call_drop(caller.call);
    assert_int_equal(read_to_end(connection, &bytes), ECONNRESET);
    assert_in_range(bytes, 0, BYTES_TOO_MANY - 1);
    caller_done(&caller);
}

static void nor_what_has_not_when_the_process_is_killed(void **state) {
    size_t bytes;
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        struct caller caller;
        call(&caller, BYTES_TOO_MANY);
        (void)kill(getpid(), SIGKILL);
    }
    int connection = accept(listener, NULL, NULL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(read_to_end(connection, &bytes), ECONNRESET);
    assert_in_range(bytes, 0, BYTES_TOO_MANY - 1);
}

static void answer_on(struct caller *caller, int connection) {
    static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    char request[4096];
    assert_in_range(read(connection, request, sizeof request), 1, sizeof request);
    assert_int_equal(write(connection, answer, sizeof answer - 1), sizeof answer - 1);
    go_on(caller);
    assert_true(caller->answered);
}

static void a_connection_on_which_all_arrived_ends_in_order(void **state) {
    struct caller caller;
    size_t bytes;
    (void)state;
    call(&caller, 2);
    int connection = accept(listener, NULL, NULL);
    answer_on(&caller, connection);
    caller_done(&caller);
    assert_int_equal(read_to_end(connection, &bytes), 0);
}

/* Whoever has read it and dies: nobody else is to get it too. */
static void what_was_read_on_a_kept_connection_is_not_said_again(void **state) {
    struct caller caller;
    char request[4096];
    (void)state;
    call(&caller, 2);
    int connection = accept(listener, NULL, NULL);
    answer_on(&caller, connection);
    send_one(&caller, 2);
    assert_false(somebody_connects()); /* it is the connection that was kept */
    assert_in_range(read(connection, request, sizeof request), 1, sizeof request);
    (void)close(connection);
    go_on(&caller);
    assert_false(somebody_connects());
    assert_true(caller.cut);
    caller_done(&caller);
}

/* … and who dies before it has: it was nobody's. */
static void what_was_not_read_on_a_kept_connection_is_said_again(void **state) {
    struct caller caller;
    (void)state;
    call(&caller, 2);
    int kept = accept(listener, NULL, NULL);
    answer_on(&caller, kept);
    send_one(&caller, 2);
    assert_false(somebody_connects());
    (void)close(kept);
    go_on(&caller);
    assert_true(somebody_connects());
    int connection = accept(listener, NULL, NULL);
    answer_on(&caller, connection);
    (void)close(connection);
    caller_done(&caller);
}

/* The server closes a connection that nobody uses while a request is on its way to it. */
static void what_reached_nobody_on_a_kept_connection_is_said_again(void **state) {
    struct caller caller;
    (void)state;
    call(&caller, 2);
    int kept = accept(listener, NULL, NULL);
    answer_on(&caller, kept);
    close_before_send = kept;
    send_one(&caller, 2);
    assert_int_equal(close_before_send, -1); /* it was closed */
    assert_true(somebody_connects());
    int connection = accept(listener, NULL, NULL);
    answer_on(&caller, connection);
    (void)close(connection);
    caller_done(&caller);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_has_not_arrived_when_a_call_is_dropped_never_does),
        cmocka_unit_test(nor_what_has_not_when_the_process_is_killed),
        cmocka_unit_test(a_connection_on_which_all_arrived_ends_in_order),
        cmocka_unit_test(what_was_read_on_a_kept_connection_is_not_said_again),
        cmocka_unit_test(what_was_not_read_on_a_kept_connection_is_said_again),
        cmocka_unit_test(what_reached_nobody_on_a_kept_connection_is_said_again),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
