/* A request's head: the request line and the header fields, checked and cut up in place. */
#ifndef SERVER_API_HTTP_HEAD_H
#define SERVER_API_HTTP_HEAD_H

#include "common/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_head {
    const char *method;
    char *target; /* begins with / */
    const char *authorization, *content_type, *last_event_id;
    int64_t content_length; /* -1: not given */
    bool chunked, keep_alive, expect_continue;
};

/** Looks at what has come so far: 0, or the status to refuse it with. *ret_length is the head's
 * length once it is whole, and 0 before. *ret_scanned is kept by the caller from call to call, 0 at
 * first. The error says why. */
int http_head_scan(const char *text, size_t length, size_t *ret_scanned, size_t *ret_length);

/** Reads a whole head; cuts it up. 0, or the status to refuse it with. */
int http_head_parse(char *text, size_t length, struct http_head *ret_head);

/** A chunked body, decoded as it comes. */
struct http_chunks {
    uint64_t left; /* of the chunk's data */
    int state;
    size_t line_bytes;
};

/** Decodes in place: *ret_used bytes of `text` were taken, of which *ret_length are data, now at
 * its beginning. *ret_end: that was all of it. DJ_INVALID_ARGUMENT: it is malformed. */
MUST_CHECK dj_status http_chunks_decode(struct http_chunks *chunks, char *text, size_t length,
                                        size_t *ret_used, size_t *ret_length, bool *ret_end);

#endif
