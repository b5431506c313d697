/* Calls with TLS: what they cost the loop, and whose they are when a process dies.
 *
 * The certificates of those whom a system trusts are some hundred: to read them takes 40 ms, in
 * which nothing else happens, and a worker that did it for each connection would be too late with
 * its beats. */
#include "common/check.h"
#include "common/http_client.h"
#include "loopback.h"
#include "unit.h"

#include <errno.h>
#include <event2/event.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define CERTIFICATES "/etc/ssl/certs/ca-certificates.crt" /* curl's own default */
#define CALLS 8

struct caller {
    struct event_base *base;
    struct http_client *client;
    char url[64];
    int listener;
    bool ended;
    enum http_outcome outcome;
};

static int setup(void **state) {
    static struct caller caller;
    int port;
    caller = (struct caller){ .base = event_base_new(), .listener = loopback_listen(CALLS, &port) };
    *state = &caller;
    assert_ok(http_client_new(caller.base, &caller.client));
    (void)snprintf(caller.url, sizeof caller.url, "https://127.0.0.1:%d/", port);
    return 0;
}

static int teardown(void **state) {
    struct caller *caller = *state;
    http_client_free(caller->client);
    event_base_free(caller->base);
    return close(caller->listener);
}

static void on_done(void *context, struct http_answer *answer) {
    struct caller *caller = context;
    caller->outcome = answer->outcome;
    caller->ended = true;
}

static void send_one(struct caller *caller) {
    struct http_request_out request = { .method = "POST",
                                        .url = caller->url,
                                        .body = strdup("{}"),
                                        .body_length = 2,
                                        .timeout_ms = 60000,
                                        .answer_bytes_max = 1000,
                                        .allow_private = true };
    struct http_call *call;
    caller->ended = false;
    assert_ok(http_client_send(caller->client, &request, on_done, caller, &call));
    http_client_flush(caller->client);
}

static enum http_outcome outcome(struct caller *caller) {
    while (!caller->ended) {
        (void)event_base_loop(caller->base, EVLOOP_ONCE);
    }
    return caller->outcome;
}

/* Bytes that this process has read, of anything. */
static long bytes_read(void) {
    long bytes = -1;
    FILE *io = fopen("/proc/self/io", "r");
    assert_non_null(io);
    assert_int_equal(fscanf(io, "rchar: %ld", &bytes), 1);
    (void)fclose(io);
    return bytes;
}

static void certificates_are_read_once(void **state) {
    struct caller *caller = *state;
    struct stat file;
    assert_int_equal(stat(CERTIFICATES, &file), 0);
    long before = bytes_read();
    for (int i = 0; i < CALLS; i++) {
        send_one(caller);
        int connection = accept(caller->listener, NULL, NULL);
        assert_true(connection >= 0);
        (void)close(connection); /* nobody speaks TLS there */
        assert_int_equal(outcome(caller), HTTP_NOT_REACHED);
    }
    assert_in_range(bytes_read() - before, 0, 2 * file.st_size);
}

struct server {
    SSL_CTX *tls;
    int listener;
    atomic_int requests, connections;
};

static bool read_request(struct server *server, SSL *tls) {
    char request[4096];
    bool got = SSL_read(tls, request, sizeof request) > 0;
    atomic_fetch_add(&server->requests, got);
    return got;
}

/* Answers the first request of each connection, and dies of the second: without a farewell, and the
 * kernel closes. */
static void *serve(void *context) {
    static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    struct server *server = context;
    int connection;
    while ((connection = accept(server->listener, NULL, NULL)) >= 0) {
        atomic_fetch_add(&server->connections, 1);
        SSL *tls = SSL_new(server->tls);
        check(SSL_set_fd(tls, connection) == 1);
        if (SSL_accept(tls) == 1 && read_request(server, tls) &&
            SSL_write(tls, answer, sizeof answer - 1) > 0) {
            (void)read_request(server, tls);
        }
        (void)close(connection);
        SSL_free(tls);
    }
    return NULL;
}

/* A name of our own, which only this process trusts: in its own view of the file system. */
static void be_trusted(SSL_CTX *tls) {
    char folder[] = "/tmp/durable-tls.XXXXXX", command[500], key[64], certificate[64];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(key, sizeof key, "%s/key", folder);
    (void)snprintf(certificate, sizeof certificate, "%s/certificate", folder);
    (void)snprintf(command, sizeof command,
                   "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
                   "-subj /CN=test -addext subjectAltName=IP:127.0.0.1 -keyout %s -out %s 2>&1",
                   key, certificate);
    assert_int_equal(system(command), 0);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_certificate_file(tls, certificate, SSL_FILETYPE_PEM), 1);
    assert_int_equal(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    assert_int_equal(mount(certificate, CERTIFICATES, NULL, MS_BIND, NULL), 0);
    (void)unlink(key);
    (void)unlink(certificate);
    (void)rmdir(folder);
}

/* curl would say it again on another connection, since the one before was kept. */
static void what_was_read_with_tls_is_not_said_again(void **state) {
    struct caller *caller = *state;
    struct server server = { .listener = caller->listener };
    pthread_t thread;
    if (unshare(CLONE_NEWNS) != 0) {
        assert_int_equal(errno, EPERM); /* who may not change what is trusted */
        skip();
    }
    server.tls = SSL_CTX_new(TLS_server_method());
    be_trusted(server.tls);
    assert_int_equal(pthread_create(&thread, NULL, serve, &server), 0);
    for (int i = 1; i <= 3; i++) {
        send_one(caller);
        assert_int_equal(outcome(caller), HTTP_ANSWERED);
        send_one(caller);
        assert_int_equal(outcome(caller), HTTP_CUT);
        assert_int_equal(atomic_load(&server.connections), i); /* it was the one that was kept */
        assert_int_equal(atomic_load(&server.requests), 2 * i);
    }
    (void)shutdown(caller->listener, SHUT_RDWR);
    assert_int_equal(pthread_join(thread, NULL), 0);
    SSL_CTX_free(server.tls);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(certificates_are_read_once, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_read_with_tls_is_not_said_again, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
