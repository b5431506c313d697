/* Requests to HTTP servers, many at once, on the loop: curl's multi interface. Connections are kept
 * for the next request to the same server; HTTP/2 where a server offers it. No redirects, no
 * proxies, no protocols but http and https. On the loop thread. */
#ifndef COMMON_HTTP_CLIENT_H
#define COMMON_HTTP_CLIENT_H

#include "common/buf.h"
#include "common/status.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_HEADERS_MAX 8

struct http_client;
struct http_call;

struct http_request_out {
    const char *method; /* "GET"; any other may have a body */
    const char *url;
    const char *headers[HTTP_HEADERS_MAX]; /* "name: value" */
    int header_count;
    char *body; /* taken (free); NULL: none */
    size_t body_length;
    int64_t timeout_ms; /* of all of it */
    size_t answer_bytes_max;
    bool allow_private;              /* addresses that are not public are not refused */
    bool (*may_send)(void *context); /* asked last of all, on a connection that is there; or NULL */
};

enum http_outcome {
    HTTP_ANSWERED,
    HTTP_NOT_REACHED, /* refused, no such host, no TLS: the request was certainly not begun */
    HTTP_CUT,         /* it may have been; the server went away in the middle */
    HTTP_BROKEN,      /* it was: too late, too much, or no HTTP */
    HTTP_REFUSED,     /* by us: an address that is not allowed */
    HTTP_NOT_SENT,    /* may_send said no, and not a byte was */
};

struct http_answer {
    enum http_outcome outcome;
    const char *reason; /* in words, a line; "" where it was answered */
    int status;
    int64_t retry_after_ms; /* -1: not said; a day at most */
    struct buf body;        /* lent until the callback returns; buf_take() makes it yours */
};

typedef void (*http_done_fn)(void *context, struct http_answer *answer);

MUST_CHECK dj_status http_client_new(struct event_base *base, struct http_client **ret_client);
/** From now on no request may go to an address that is not public, whatever it says itself. */
void http_client_forbid_private(struct http_client *client);
void http_client_free(
    struct http_client *client); /* calls on their way are dropped, without their callbacks */

/** Sends a request; `done` runs later, exactly once, unless the call is dropped. What `request`
 * points to is copied, its body taken on any outcome. */
MUST_CHECK dj_status http_client_send(struct http_client *client,
                                      const struct http_request_out *request, http_done_fn done,
                                      void *context, struct http_call **ret_call);

/** Puts on the wire what else would go with the loop's next round; callbacks may run. */
void http_client_flush(struct http_client *client);

/** Cuts a call off (NULL: none); its callback does not run any more. What of it has not arrived by
 * now never does, unless it is on its way already or the connection is shared (HTTP/2). */
void http_call_drop(struct http_call *call);

#endif
