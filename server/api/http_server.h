/* HTTP/1.1 on libevent's bufferevents: one request at a time on each connection, so that pipelined
 * ones are answered in their order; strict about everything that two readers could understand
 * differently. libhttp-parser reads the head; what it lets pass and must not is looked at first,
 * and bodies are cut out here. On the loop. */
#ifndef SERVER_API_HTTP_SERVER_H
#define SERVER_API_HTTP_SERVER_H

#include "common/buf.h"
#include "common/status.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_HEAD_BYTES_MAX 16384
#define HTTP_URI_BYTES_MAX 8192
#define HTTP_ARGS_MAX 2

struct http_server;
struct http_conn;
struct route;

struct http_request {
    struct http_conn *conn;
    const struct route *route;
    const char *method;
    char *path;                /* as it was sent, without the query */
    char *query;               /* NULL: none */
    char *args[HTTP_ARGS_MAX]; /* what {…} in the route's pattern stands for, decoded */
    const char *authorization, *content_type, *last_event_id; /* NULL: not sent */
    char *body; /* closed by a zero byte; the request's own, to be cut up in place */
    size_t body_length;
    uint64_t peer; /* http_peer_of() who sent it */
    bool known;    /* set by on_head: who sent it is no stranger, of whom less is kept */
    int32_t namespace_id;
    unsigned int scopes;
};

struct http_hooks {
    /** The head is there. DJ_OK and a limit for the body; or the hook has answered. DJ_SUSPENDED:
     * it will answer, or call http_go_on(). Until then nothing of the body is kept but a look
     * ahead. */
    dj_status (*on_head)(struct http_request *request, size_t *ret_body_bytes_max);
    /** The whole request is there: answer it, now or later. */
    void (*on_request)(struct http_request *request);
    /** The client has gone while the request was not answered yet. Forget it: no answer will be
     * taken. False: somebody still holds the request, and will answer it in vain. */
    bool (*on_gone)(struct http_request *request);
    /** An error of the protocol: write its answer's body. */
    void (*on_refused)(struct buf *body, int status, const char *detail);
};

struct http_limits {
    int connections, connections_a_peer;
    int64_t head_ms, body_ms, idle_ms, write_ms;
};

MUST_CHECK dj_status http_server_open(struct event_base *base, const struct http_limits *limits,
                                      const struct http_hooks *hooks,
                                      struct http_server **ret_server);
/** HOST:PORT, or [HOST]:PORT. DJ_UNAVAILABLE says why not. */
MUST_CHECK dj_status http_server_listen(struct http_server *server, const char *address);
MUST_CHECK dj_status http_server_listen_unix(struct http_server *server, const char *path);

/** Takes no new connections, closes those that are idle, and ends the loop once the others have
 * been answered. */
void http_server_drain(struct http_server *server);
bool http_server_is_draining(const struct http_server *server);

/** What on_head put off may go on: the body is read, and on_request comes. */
void http_go_on(struct http_request *request);

/** Answers, once. `headers`: more lines, each closed by CRLF, or "". A status that has no body,
 * 204, goes without a content type: NULL. */
void http_reply(struct http_request *request, int status, const char *content_type,
                const char *headers, const void *body, size_t length);

/** False: nobody would hear an answer, which has to be given all the same. */
bool http_is_heard(const struct http_request *request);

/** An answer without an end that is known: begins it, adds to it, ends it. Adding answers false
 * when the client reads too slowly; it has then been cut off. */
void http_stream_begin(struct http_request *request, const char *content_type);
size_t http_stream_behind(const struct http_request *request); /* bytes that it has not taken yet */
bool http_stream_add(struct http_request *request, const char *text, size_t length);
void http_stream_end(struct http_request *request);

/** For /metrics. */
int http_server_connections(const struct http_server *server);

#endif
