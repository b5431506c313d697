/* Calls with TLS: what they cost the loop, whom they reach, and whose they are when a process dies.
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
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
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
    char reason[256];
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
    (void)snprintf(caller->reason, sizeof caller->reason, "%s", answer->reason);
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

/* In its own view of the file system, so that it alone trusts what it does; else the test is
 * skipped. */
static void be_apart(void) {
    if (unshare(CLONE_NEWNS) != 0) {
        assert_int_equal(errno, EPERM); /* who may not change what is trusted */
        skip();
    }
    assert_int_equal(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL), 0);
}

/* These, and no others, are trusted from now on. */
static void trust(X509 *const certificates[], int count) {
    char name[] = "/tmp/durable-tls.XXXXXX";
    int fd = mkstemp(name);
    FILE *file = fdopen(fd, "w");
    assert_non_null(file);
    for (int i = 0; i < count; i++) {
        assert_int_equal(PEM_write_X509(file, certificates[i]), 1);
    }
    assert_int_equal(fclose(file), 0);
    (void)umount2(CERTIFICATES, MNT_DETACH); /* what the test before trusted */
    assert_int_equal(mount(name, CERTIFICATES, "none", MS_BIND, NULL), 0);
    (void)unlink(name);
}

/* For one address or name, as openssl writes them, from one time to another, both in seconds from
 * now. It is signed by itself. */
static X509 *certificate_new(EVP_PKEY *key, const char *name, long begin_s, long end_s) {
    static long serial;
    X509 *certificate = X509_new();
    assert_non_null(certificate);
    X509_NAME *subject = X509_get_subject_name(certificate);
    char common_name[32];
    (void)snprintf(common_name, sizeof common_name, "test %ld", ++serial);
    check(X509_set_version(certificate, X509_VERSION_3) == 1);
    check(ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial) == 1);
    check(X509_gmtime_adj(X509_getm_notBefore(certificate), begin_s) != NULL);
    check(X509_gmtime_adj(X509_getm_notAfter(certificate), end_s) != NULL);
    check(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                     (const unsigned char *)common_name, -1, -1, 0) == 1);
    check(X509_set_issuer_name(certificate, subject) == 1);
    check(X509_set_pubkey(certificate, key) == 1);
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, name);
    check(names != NULL && X509_add_ext(certificate, names, -1) == 1);
    X509_EXTENSION_free(names);
    check(X509_sign(certificate, key, EVP_sha256()) > 0);
    return certificate;
}

static SSL_CTX *tls_of(EVP_PKEY *key, X509 *certificate) {
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    assert_non_null(tls);
    assert_int_equal(SSL_CTX_use_certificate(tls, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(tls, key), 1);
    return tls;
}

/* One call of a server with this certificate. How many requests it has read; what the call came to
 * is the caller's `outcome`. */
static int requests_read(struct caller *caller, EVP_PKEY *key, X509 *certificate) {
    struct server server = { .tls = tls_of(key, certificate) };
    pthread_t thread;
    int port;
    server.listener = loopback_listen(CALLS, &port);
    (void)snprintf(caller->url, sizeof caller->url, "https://127.0.0.1:%d/", port);
    assert_int_equal(pthread_create(&thread, NULL, serve, &server), 0);
    send_one(caller);
    (void)outcome(caller);
    http_client_free(caller->client); /* and what it keeps: the server waits for its end */
    assert_ok(http_client_new(caller->base, &caller->client));
    (void)shutdown(server.listener, SHUT_RDWR);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)close(server.listener);
    SSL_CTX_free(server.tls);
    assert_int_equal(atomic_load(&server.connections), 1);
    return atomic_load(&server.requests);
}

static void refused(struct caller *caller, EVP_PKEY *key, X509 *certificate, const char *why) {
    assert_int_equal(requests_read(caller, key, certificate), 0);
    assert_int_equal(caller->outcome, HTTP_NOT_REACHED);
    if (strstr(caller->reason, why) == NULL) {
        fail_msg("no '%s' in: %s", why, caller->reason);
    }
}

static void a_certificate_of_an_unknown_authority_is_refused(void **state) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = certificate_new(key, "IP:127.0.0.1", -3600, 3600);
    refused(*state, key, certificate, "certificate problem");
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void a_certificate_that_has_expired_or_is_for_another_name_is_refused(void **state) {
    struct caller *caller = *state;
    be_apart();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificates[] = { certificate_new(key, "IP:127.0.0.1", -3600, 3600),
                             certificate_new(key, "IP:127.0.0.1", -7200, -3600),
                             certificate_new(key, "IP:127.0.0.2", -3600, 3600),
                             certificate_new(key, "DNS:other.example", -3600, 3600) };
    int count = sizeof certificates / sizeof *certificates;
    trust(certificates, count);
    assert_int_equal(requests_read(caller, key, certificates[0]), 1); /* it is of this address */
    assert_int_equal(caller->outcome, HTTP_ANSWERED);
    refused(caller, key, certificates[1], "expired");
    refused(caller, key, certificates[2], "subject name");
    refused(caller, key, certificates[3], "subject name");
    for (int i = 0; i < count; i++) {
        X509_free(certificates[i]);
    }
    EVP_PKEY_free(key);
}

/* curl would say it again on another connection, since the one before was kept. */
static void what_was_read_with_tls_is_not_said_again(void **state) {
    struct caller *caller = *state;
    struct server server = { .listener = caller->listener };
    pthread_t thread;
    be_apart();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = certificate_new(key, "IP:127.0.0.1", -3600, 3600);
    trust(&certificate, 1);
    server.tls = tls_of(key, certificate);
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
    X509_free(certificate);
    EVP_PKEY_free(key);
}

int main(void) {
    (void)signal(SIGPIPE, SIG_IGN); /* of the server, whose client has hung up */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(certificates_are_read_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_certificate_of_an_unknown_authority_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_certificate_that_has_expired_or_is_for_another_name_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_read_with_tls_is_not_said_again, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
