/* HTTP load: bench_http PORT KEY CONNECTIONS SECONDS keeps so many connections busy with POST
 * /v1/runs, one request at a time on each, and prints starts a second, then p50 and p99 in ms.
 * Every answer has to be 201. */
#include "bench.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_BYTES 8192
#define SAMPLES_MAX 10000000
#define BODY                                                                                       \
    "{\"job\":\"noop\",\"payload\":{\"userId\":\"user_123\",\"email\":\"ada@example.com\"}}"

struct client {
    int fd;
    size_t got;
    int64_t began_ns;
    char answer[ANSWER_BYTES];
};

static char request[1024];
static int request_length;

static void must_be(int condition, const char *what) {
    if (!condition) {
        perror(what);
        exit(1);
    }
}

static void ask(struct client *client) {
    client->got = 0;
    client->began_ns = clock_ns();
    must_be(send(client->fd, request, (size_t)request_length, MSG_NOSIGNAL) == request_length,
            "bench_http: send");
}

/* True: the answer is whole. */
static int hear(struct client *client) {
    ssize_t n = recv(client->fd, client->answer + client->got, ANSWER_BYTES - client->got - 1, 0);
    must_be(n > 0, "bench_http: the server closed");
    client->got += (size_t)n;
    client->answer[client->got] = '\0';
    const char *end = strstr(client->answer, "\r\n\r\n");
    const char *length = strstr(client->answer, "Content-Length: ");
    if (end == NULL || length == NULL ||
        client->got < (size_t)(end + 4 - client->answer) + strtoul(length + 16, NULL, 10)) {
        return 0;
    }
    if (strncmp(client->answer, "HTTP/1.1 201 ", 13) != 0) {
        (void)fprintf(stderr, "bench_http: %s\n", client->answer);
        exit(1);
    }
    return 1;
}

static void connect_all(struct client *clients, int count, int port, int poll) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < count; i++) {
        int yes = 1;
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = &clients[i] };
        clients[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        must_be(connect(clients[i].fd, (const struct sockaddr *)&address, sizeof address) == 0,
                "bench_http: connect");
        (void)setsockopt(clients[i].fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        must_be(epoll_ctl(poll, EPOLL_CTL_ADD, clients[i].fd, &event) == 0, "bench_http: epoll");
        ask(&clients[i]);
    }
}

int main(int argc, char **argv) {
    if (argc != 5) {
        (void)fprintf(stderr, "bench_http PORT KEY CONNECTIONS SECONDS\n");
        return 2;
    }
    int count = (int)strtol(argv[3], NULL, 10), poll = epoll_create1(EPOLL_CLOEXEC);
    int64_t *samples = malloc(SAMPLES_MAX * sizeof *samples);
    struct client *clients = calloc((size_t)count, sizeof *clients);
    must_be(samples != NULL && clients != NULL && poll >= 0, "bench_http");
    request_length =
        snprintf(request, sizeof request,
                 "POST /v1/runs HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n"
                 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                 argv[2], strlen(BODY), BODY);
    connect_all(clients, count, (int)strtol(argv[1], NULL, 10), poll);
    int64_t first_ns = clock_ns(), end_ns = first_ns + strtol(argv[4], NULL, 10) * 1000000000L;
    int done = 0;
    while (clock_ns() < end_ns && done < SAMPLES_MAX - count) {
        struct epoll_event events[64];
        int n = epoll_wait(poll, events, 64, 1000);
        for (int i = 0; i < n; i++) {
            struct client *client = events[i].data.ptr;
            if (hear(client)) {
                samples[done++] = clock_ns() - client->began_ns;
                ask(client);
            }
        }
    }
    (void)printf("%.0f\n", (double)done * 1e9 / (double)(clock_ns() - first_ns));
    print_percentiles(samples, done);
    return 0;
}
