/* Connections and their states:
 *
 *     HEAD ──▶ BODY ──▶ BUSY ──▶ HEAD …
 *       └────────┴────────┴─────▶ CLOSING ──▶ LINGER ──▶ gone
 *
 * HEAD and BODY have a deadline for the whole of it, however often a byte comes. BUSY has none of
 * ours: the request is with a handler, and nothing more is read than a bounded look ahead. CLOSING
 * writes what is left; LINGER reads and forgets for a moment, because closing a socket with unread
 * bytes would take the answer away from the client. A connection that goes while it is BUSY stays
 * in memory until its answer has come. */
#include "server/api/http_server.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/failpoint.h"
#include "common/list.h"
#include "common/log.h"
#include "server/api/http_address.h"
#include "server/api/http_head.h"
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <http_parser.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LISTENERS_MAX 4
#define READ_AHEAD_BYTES 65536
#define WRITE_BEHIND_BYTES 262144
#define STREAM_BEHIND_BYTES (4 * 1024 * 1024) /* who adds looks at http_stream_behind() before */
#define SEND_BUFFER_BYTES 262144 /* the kernel would keep 4 MB for each who does not read */
#define BODIES_BYTES_MAX ((size_t)512 * 1024 * 1024)
#define STRANGERS_BYTES_MAX ((size_t)128 * 1024 * 1024) /* of the bodies of all strangers */
#define LINGER_MS 2000
#define CLOSING_MS 60000

enum state { HEAD, BODY, BUSY, CLOSING, LINGER };

struct http_conn {
    struct list link;
    struct http_server *server;
    struct bufferevent *bev; /* NULL: gone */
    struct event *deadline;
    enum state state;
    bool advancing, begun, ended, streaming;
    bool body_ahead; /* of this request only the head has been looked at */
    uint64_t peer;
    char *head_text;
    size_t scanned, body_bytes_max;
    struct http_head head;
    struct http_chunks chunks;
    struct buf body;
    struct http_request request;
};

struct http_server {
    struct event_base *base;
    struct http_limits limits;
    struct http_hooks hooks;
    struct evconnlistener *listeners[LISTENERS_MAX];
    char *unix_path;
    int listener_count, connection_count;
    struct http_peers *peers;
    size_t bodies_bytes, strangers_bytes;
    bool draining;
    struct list connections;
    time_t date_of;
    char date[40];
};

static void conn_advance(struct http_conn *conn);

static void conn_deadline(struct http_conn *conn, int64_t ms) {
    if (ms == 0) {
        (void)event_del(conn->deadline);
        return;
    }
    struct timeval delay = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
    (void)event_add(conn->deadline, &delay);
}

/* Where the bytes of its body count. */
static size_t *bodies_of(const struct http_conn *conn) {
    return conn->request.known ? &conn->server->bodies_bytes : &conn->server->strangers_bytes;
}

static void body_drop(struct http_conn *conn) {
    *bodies_of(conn) -= conn->body.capacity;
    buf_done(&conn->body);
    buf_init(&conn->body, 0);
}

static void request_reset(struct http_conn *conn) {
    body_drop(conn);
    free(TAKE(conn->head_text));
    conn->request = (struct http_request){ .conn = conn, .peer = conn->peer };
    conn->scanned = 0;
    conn->begun = conn->body_ahead = false;
    conn->chunks = (struct http_chunks){ 0 };
}

static void conn_free(struct http_conn *conn) {
    struct http_server *server = conn->server;
    request_reset(conn);
    if (conn->bev != NULL) {
        bufferevent_free(conn->bev);
    }
    event_free(conn->deadline);
    list_remove(&conn->link);
    http_peers_leave(server->peers, conn->peer);
    free(conn);
    if (--server->connection_count == 0 && server->draining) {
        (void)event_base_loopexit(server->base, NULL);
    }
}

/* What the kernel still has for the client is not worth keeping. */
static void conn_forget(struct http_conn *conn) {
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };
    (void)setsockopt(bufferevent_getfd(conn->bev), SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* The client is not there any more, or will not be served. */
static void conn_lose(struct http_conn *conn) {
    if (conn->state == BUSY && !conn->server->hooks.on_gone(&conn->request)) {
        bufferevent_free(TAKE(conn->bev));
        conn_deadline(conn, 0);
        return;
    }
    conn_free(conn);
}

static void conn_close(struct http_conn *conn) {
    conn->state = CLOSING;
    conn_deadline(conn, CLOSING_MS);
    if (evbuffer_get_length(bufferevent_get_output(conn->bev)) > 0) {
        return; /* on_written goes on */
    }
    (void)shutdown(bufferevent_getfd(conn->bev), SHUT_WR);
    conn->state = LINGER;
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    (void)evbuffer_drain(input, evbuffer_get_length(input));
    bufferevent_setwatermark(conn->bev, EV_READ, 0, 0);
    (void)bufferevent_enable(conn->bev, EV_READ);
    conn_deadline(conn, conn->ended ? 1 : LINGER_MS);
}

/* At once if the socket takes it: the way through the loop costs two calls of the kernel more. */
static void conn_write(struct http_conn *conn, const void *bytes, size_t length) {
    size_t sent = 0;
    if (evbuffer_get_length(bufferevent_get_output(conn->bev)) == 0) {
        ssize_t n = send(bufferevent_getfd(conn->bev), bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        sent = n > 0 ? (size_t)n : 0;
    }
    if (sent < length) {
        (void)bufferevent_write(conn->bev, (const char *)bytes + sent, length - sent);
    }
}

static const char *date_now(struct http_server *server) {
    time_t now = time(NULL);
    if (now != server->date_of) {
        struct tm parts;
        server->date_of = now;
        (void)strftime(server->date, sizeof server->date, "%a, %d %b %Y %H:%M:%S GMT",
                       gmtime_r(&now, &parts));
    }
    return server->date;
}

static void write_answer(struct http_conn *conn, int status, const char *content_type,
                         const char *headers, const void *body, size_t length, bool close) {
    char head[2048];
    struct http_server *server = conn->server;
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d %s\r\nDate: %s\r\n"
                     "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n%s%s",
                     status, http_status_str((enum http_status)status), date_now(server), headers,
                     close ? "Connection: close\r\n" : "");
    assert(n > 0 && (size_t)n < sizeof head);
    if (content_type != NULL) {
        n += snprintf(head + n, sizeof head - (size_t)n,
                      "Content-Type: %s\r\nContent-Length: %zu\r\n", content_type, length);
    }
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    assert((size_t)n < sizeof head);
    if (conn->request.method != NULL && strcmp(conn->request.method, "HEAD") == 0) {
        length = 0; /* an answer to HEAD says how long it would be */
    }
    if ((size_t)n + length <= sizeof head) {
        memcpy(head + n, body, length);
        conn_write(conn, head, (size_t)n + length);
        return;
    }
    AUTO(free) char *whole = malloc((size_t)n + length);
    check(whole != NULL);
    memcpy(whole, head, (size_t)n);
    memcpy(whole + n, body, length);
    conn_write(conn, whole, (size_t)n + length);
}

/* An answer to what is no request, or will not be one. */
static void conn_refuse(struct http_conn *conn, int status) {
    struct buf body;
    char detail[1024];
    (void)snprintf(detail, sizeof detail, "%s", dj_error_message());
    body_drop(conn);
    buf_init(&body, 8192);
    conn->server->hooks.on_refused(&body, status, detail);
    write_answer(conn, status, "application/problem+json", "", body.data, body.length,
                 /* close= */ true);
    buf_done(&body);
    conn_close(conn);
}

/* True: all of the body is here, and now it is not any more. */
static bool skip_body(struct http_conn *conn) {
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    if (conn->head.chunked || conn->head.content_length > (int64_t)evbuffer_get_length(input)) {
        return false;
    }
    if (conn->head.content_length > 0) {
        (void)evbuffer_drain(input, (size_t)conn->head.content_length);
    }
    return true;
}

static void request_next(struct http_conn *conn) {
    request_reset(conn);
    conn->state = HEAD;
    conn_deadline(conn, conn->server->limits.idle_ms);
}

void http_reply(struct http_request *request, int status, const char *content_type,
                const char *headers, const void *body, size_t length) {
    struct http_conn *conn = request->conn;
    assert(conn->state == BUSY && !conn->streaming);
    if (conn->bev == NULL) {
        conn_free(conn);
        return;
    }
    FAILPOINT_SOCKET("reply.before", bufferevent_getfd(conn->bev));
    bool last = conn->ended && evbuffer_get_length(bufferevent_get_input(conn->bev)) == 0;
    bool close = !conn->head.keep_alive || conn->server->draining || last ||
                 (conn->body_ahead && !skip_body(conn));
    write_answer(conn, status, content_type, headers, body, length, close);
    FAILPOINT_SOCKET("reply.sent", bufferevent_getfd(conn->bev));
    if (close) {
        conn_close(conn);
        return;
    }
    request_next(conn);
    conn_advance(conn);
}

bool http_is_heard(const struct http_request *request) {
    return request->conn->bev != NULL && !request->conn->ended;
}

void http_stream_begin(struct http_request *request, const char *content_type) {
    struct http_conn *conn = request->conn;
    char head[512];
    assert(conn->state == BUSY);
    conn->streaming = true;
    int n =
        snprintf(head, sizeof head,
                 "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: %s\r\nCache-Control: no-store\r\n"
                 "X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n"
                 "Connection: close\r\n\r\n",
                 date_now(conn->server), content_type);
    conn_write(conn, head, (size_t)n);
}

bool http_stream_add(struct http_request *request, const char *text, size_t length) {
    struct http_conn *conn = request->conn;
    if (evbuffer_get_length(bufferevent_get_output(conn->bev)) > STREAM_BEHIND_BYTES) {
        conn_forget(conn);
        conn_free(conn);
        return false;
    }
    conn_write(conn, text, length);
    return true;
}

size_t http_stream_behind(const struct http_request *request) {
    return evbuffer_get_length(bufferevent_get_output(request->conn->bev));
}

void http_stream_end(struct http_request *request) {
    request->conn->streaming = false;
    conn_close(request->conn);
}

static void request_hand_on(struct http_conn *conn) {
    FAILPOINT_SOCKET("request.read", bufferevent_getfd(conn->bev));
    conn->server->hooks.on_request(&conn->request);
}

/* The head has passed. */
static void begin_body(struct http_conn *conn) {
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    conn->body_ahead = false;
    if (conn->head.content_length > (int64_t)conn->body_bytes_max) {
        (void)dj_fail(DJ_TOO_LARGE, "the body is %lld bytes; the limit is %zu bytes",
                      (long long)conn->head.content_length, conn->body_bytes_max);
        conn_refuse(conn, 413);
        return;
    }
    buf_init(&conn->body, conn->body_bytes_max + 1);
    if (!conn->head.chunked && conn->head.content_length <= 0) {
        conn->request.body = (char *)"";
        request_hand_on(conn);
        return;
    }
    conn->state = BODY;
    conn_deadline(conn, conn->server->limits.body_ms);
    if (conn->head.expect_continue && evbuffer_get_length(input) == 0) {
        conn_write(conn, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
}

void http_go_on(struct http_request *request) {
    struct http_conn *conn = request->conn;
    assert(conn->state == BUSY && conn->body_ahead);
    if (conn->advancing) { /* inside of on_head still, which answers DJ_SUSPENDED */
        begin_body(conn);
        return;
    }
    if (conn->bev == NULL) {
        conn_free(conn);
        return;
    }
    conn->advancing = true; /* an answer that comes from inside waits for its turn below */
    begin_body(conn);
    conn->advancing = false;
    conn_advance(conn);
}

/* The head is whole. */
static void take_head(struct http_conn *conn, size_t length) {
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    conn->head_text = malloc(length + 1);
    check(conn->head_text != NULL);
    (void)evbuffer_remove(input, conn->head_text, length);
    conn->head_text[length] = '\0';
    int status = http_head_parse(conn->head_text, length, &conn->head);
    if (status != 0) {
        conn_refuse(conn, status);
        return;
    }
    struct http_request *request = &conn->request;
    request->method = conn->head.method;
    request->path = conn->head.target;
    request->query = strchr(request->path, '?');
    if (request->query != NULL) {
        *request->query++ = '\0';
    }
    request->authorization = conn->head.authorization;
    request->content_type = conn->head.content_type;
    request->last_event_id = conn->head.last_event_id;
    conn->state = BUSY;
    conn->body_ahead = true;
    conn_deadline(conn, 0);
    if (conn->server->hooks.on_head(request, &conn->body_bytes_max) == DJ_OK) {
        begin_body(conn);
    }
}

/* A look ahead of it is granted to everybody who is known: who holds much may not shut out who
 * holds little. Strangers together have so much, half of it for large ones. */
static bool is_too_much(const struct http_conn *conn) {
    const struct http_server *server = conn->server;
    bool large = conn->body.length > READ_AHEAD_BYTES;
    if (conn->request.known) {
        return large && server->bodies_bytes > BODIES_BYTES_MAX;
    }
    return server->strangers_bytes > (large ? STRANGERS_BYTES_MAX / 2 : STRANGERS_BYTES_MAX);
}

/* Moves what has come into the body; true: that was all. */
static bool take_body(struct http_conn *conn) {
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    size_t there = evbuffer_get_length(input);
    size_t take = there;
    if (!conn->head.chunked && take > (size_t)conn->head.content_length - conn->body.length) {
        take = (size_t)conn->head.content_length - conn->body.length;
    }
    if (take > READ_AHEAD_BYTES) {
        take = READ_AHEAD_BYTES;
    }
    if (take == 0) {
        return false;
    }
    size_t capacity = conn->body.capacity, before = conn->body.length;
    char *at = (char *)evbuffer_pullup(input, (ssize_t)take);
    size_t used = take, length = take;
    bool end = false;
    if (conn->head.chunked &&
        http_chunks_decode(&conn->chunks, at, take, &used, &length, &end) != DJ_OK) {
        conn_refuse(conn, 400);
        return false;
    }
    if (before + length > conn->body_bytes_max) {
        (void)dj_fail(DJ_TOO_LARGE, "the body is over %zu bytes, the limit", conn->body_bytes_max);
        conn_refuse(conn, 413);
        return false;
    }
    dj_status added = buf_add(&conn->body, at, length);
    *bodies_of(conn) += conn->body.capacity - capacity;
    if (added != DJ_OK || is_too_much(conn)) {
        (void)dj_fail(DJ_UNAVAILABLE, "too many large requests at once");
        conn_refuse(conn, 503);
        return false;
    }
    (void)evbuffer_drain(input, used);
    return conn->head.chunked ? end : conn->body.length == (size_t)conn->head.content_length;
}

/* Does what can be done with what is there. Answers may come from inside; they do not recurse. */
static void conn_advance(struct http_conn *conn) {
    if (conn->advancing) {
        return;
    }
    conn->advancing = true;
    for (bool more = true; more;) {
        struct evbuffer *input = bufferevent_get_input(conn->bev);
        size_t there = evbuffer_get_length(input), length = 0;
        more = false;
        if (conn->state == HEAD && there > 0 &&
            evbuffer_get_length(bufferevent_get_output(conn->bev)) <= WRITE_BEHIND_BYTES) {
            if (!conn->begun) {
                conn->begun = true;
                conn_deadline(conn, conn->server->limits.head_ms);
            }
            size_t look = there > HTTP_HEAD_BYTES_MAX + 1 ? HTTP_HEAD_BYTES_MAX + 1 : there;
            const char *text = (const char *)evbuffer_pullup(input, (ssize_t)look);
            int status = http_head_scan(text, look, &conn->scanned, &length);
            if (status != 0) {
                conn_refuse(conn, status);
            } else if (length > 0) {
                take_head(conn, length);
                more = true;
            }
        } else if (conn->state == BODY && there > 0) {
            if (take_body(conn)) {
                conn->state = BUSY;
                conn_deadline(conn, 0);
                conn->request.body = conn->body.data;
                conn->request.body_length = conn->body.length;
                request_hand_on(conn);
            }
            more = evbuffer_get_length(input) < there || conn->state != BODY;
        }
    }
    conn->advancing = false;
    if (conn->ended && (conn->state == HEAD || conn->state == BODY) &&
        evbuffer_get_length(bufferevent_get_output(conn->bev)) <= WRITE_BEHIND_BYTES) {
        conn_close(conn); /* it will say no more */
    }
}

static void on_read(struct bufferevent *bev, void *context) {
    struct http_conn *conn = context;
    if (conn->state == LINGER || conn->state == CLOSING) {
        struct evbuffer *input = bufferevent_get_input(bev);
        (void)evbuffer_drain(input, evbuffer_get_length(input));
        return;
    }
    conn_advance(conn);
}

static void on_written(struct bufferevent *bev, void *context) {
    struct http_conn *conn = context;
    (void)bev;
    if (conn->state == CLOSING) {
        conn_close(conn);
    } else if (conn->state == HEAD) {
        conn_advance(conn);
    }
}

static void on_event(struct bufferevent *bev, short what, void *context) {
    struct http_conn *conn = context;
    (void)bev;
    if ((what & BEV_EVENT_TIMEOUT) != 0) {
        conn_forget(conn);
    }
    if ((what & BEV_EVENT_EOF) == 0 || conn->state == LINGER || conn->state == CLOSING) {
        conn_lose(conn); /* an error, or a reader that is too slow */
        return;
    }
    /* The client says no more; it may still listen to the answer. Not to one that takes long. */
    conn->ended = true;
    if (conn->state != BUSY) {
        conn_advance(conn);
    } else if (conn->server->hooks.on_gone(&conn->request)) {
        conn_free(conn);
    }
}

static void on_deadline(evutil_socket_t fd, short what, void *context) {
    struct http_conn *conn = context;
    (void)fd;
    (void)what;
    if ((conn->state == HEAD && !conn->begun) || conn->state == CLOSING || conn->state == LINGER) {
        conn_free(conn);
        return;
    }
    (void)dj_fail(DJ_TIMEOUT, "the request did not arrive in time");
    conn_refuse(conn, 408);
}

static void refuse_connection(const struct http_server *server, int fd, const char *why) {
    char text[1024];
    struct buf body;
    buf_init(&body, 512);
    server->hooks.on_refused(&body, 503, why);
    int n =
        snprintf(text, sizeof text,
                 "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
                 "Content-Length: %zu\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s",
                 body.length, body.data);
    buf_done(&body);
    (void)send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)shutdown(fd, SHUT_WR);
    (void)close(fd);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int length, void *context) {
    struct http_server *server = context;
    int yes = 1, buffer = SEND_BUFFER_BYTES;
    uint64_t peer = http_peer_of(address);
    (void)listener;
    (void)length;
    const char *why = server->connection_count >= server->limits.connections
                          ? "too many connections"
                      : http_peers_enter(server->peers, peer, server->limits.connections_a_peer)
                          ? NULL
                          : "too many connections from this address";
    if (why != NULL) {
        refuse_connection(server, fd, why);
        return;
    }
    struct http_conn *conn = calloc(1, sizeof *conn);
    check(conn != NULL);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    conn->server = server;
    conn->peer = peer;
    conn->bev = bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
    conn->deadline = event_new(server->base, -1, 0, on_deadline, conn);
    check(conn->bev != NULL && conn->deadline != NULL);
    bufferevent_setcb(conn->bev, on_read, on_written, on_event, conn);
    struct timeval write = { .tv_sec = server->limits.write_ms / 1000,
                             .tv_usec = server->limits.write_ms % 1000 * 1000 };
    (void)bufferevent_set_timeouts(conn->bev, NULL, &write);
    bufferevent_setwatermark(conn->bev, EV_READ, 0, READ_AHEAD_BYTES);
    (void)bufferevent_enable(conn->bev, EV_READ | EV_WRITE);
    list_push(&server->connections, &conn->link);
    server->connection_count++;
    buf_init(&conn->body, 0);
    request_next(conn);
}

dj_status http_server_open(struct event_base *base, const struct http_limits *limits,
                           const struct http_hooks *hooks, struct http_server **ret_server) {
    struct http_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a server");
    }
    server->base = base;
    server->limits = *limits;
    server->hooks = *hooks;
    server->peers = http_peers_new();
    list_init(&server->connections);
    *ret_server = server;
    return DJ_OK;
}

dj_status http_server_listen(struct http_server *server, const char *address) {
    check(server->listener_count < LISTENERS_MAX);
    DJ_TRY(http_address_listen(server->base, address, on_accept, server,
                               &server->listeners[server->listener_count]));
    server->listener_count++;
    return DJ_OK;
}

dj_status http_server_listen_unix(struct http_server *server, const char *path) {
    check(server->listener_count < LISTENERS_MAX);
    DJ_TRY(http_address_listen_unix(server->base, path, on_accept, server,
                                    &server->listeners[server->listener_count]));
    server->listener_count++;
    server->unix_path = strdup(path);
    return DJ_OK;
}

void http_server_drain(struct http_server *server) {
    server->draining = true;
    while (server->listener_count > 0) {
        evconnlistener_free(server->listeners[--server->listener_count]);
    }
    if (server->unix_path != NULL) {
        (void)unlink(server->unix_path);
        free(TAKE(server->unix_path));
    }
    list_for_each(conn, &server->connections, struct http_conn, link) {
        if (conn->state == HEAD && !conn->begun) {
            conn_close(conn);
        }
    }
    if (server->connection_count == 0) {
        (void)event_base_loopexit(server->base, NULL);
    }
}

bool http_server_is_draining(const struct http_server *server) {
    return server->draining;
}

int http_server_connections(const struct http_server *server) {
    return server->connection_count;
}
