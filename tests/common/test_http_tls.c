/* What TLS costs the loop. The certificates of those whom a system trusts are some hundred: to read
 * them takes 40 ms, in which nothing else happens, and a worker that did it for each connection
 * would be too late with its beats. */
#include "common/http_client.h"
#include "unit.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define CERTIFICATES "/etc/ssl/certs/ca-certificates.crt" /* curl's own default */
#define CALLS 8

static int ended;

static void on_done(void *context, struct http_answer *answer) {
    (void)context;
    assert_int_equal(answer->outcome, HTTP_NOT_REACHED); /* nobody speaks TLS there */
    ended++;
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
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    struct stat file;
    (void)state;
    assert_int_equal(stat(CERTIFICATES, &file), 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, CALLS), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    struct event_base *base = event_base_new();
    struct http_client *client;
    assert_ok(http_client_new(base, &client));
    char url[64];
    (void)snprintf(url, sizeof url, "https://127.0.0.1:%d/", ntohs(address.sin_port));
    long before = bytes_read();
    for (int i = 0; i < CALLS; i++) {
        struct http_request_out request = { .method = "GET",
                                            .url = url,
                                            .timeout_ms = 60000,
                                            .answer_bytes_max = 1000,
                                            .allow_private = true };
        struct http_call *call;
        assert_ok(http_client_send(client, &request, on_done, NULL, &call));
        http_client_flush(client);
        int connection = accept(listener, NULL, NULL);
        assert_true(connection >= 0);
        (void)close(connection);
        while (ended == i) {
            (void)event_base_loop(base, EVLOOP_ONCE);
        }
    }
    assert_in_range(bytes_read() - before, 0, 2 * file.st_size);
    http_client_free(client);
    event_base_free(base);
    (void)close(listener);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(certificates_are_read_once) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
