/* libhttp-parser knows methods, versions and tokens. It also knows what old clients send: line
 * ends of a bare LF, folded lines, spaces in names, two lengths, lists of codings, chunk
 * extensions. A proxy before us may read those in another way, and then a part of one request is
 * another one to us. So a look at the bytes comes first, and refuses all of that. */
#include "server/api/http_head.h"

#include "server/api/http_server.h"
#include <ctype.h>
#include <http_parser.h>
#include <string.h>
#include <strings.h>

static int refuse(int status, const char *why) {
    (void)dj_fail(DJ_INVALID_ARGUMENT, "%s", why);
    return status;
}

/* Two spaces and no more; the parser would pass over others. */
static bool is_request_line(const char *text, size_t length) {
    int spaces = 0;
    for (size_t i = 0; i < length; i++) {
        spaces += text[i] == ' ';
    }
    return spaces == 2 && length >= 14 && memcmp(text + length - 9, " HTTP/1.", 8) == 0;
}

int http_head_scan(const char *text, size_t length, size_t *ret_scanned, size_t *ret_length) {
    size_t at = *ret_scanned;
    bool first = memchr(text, '\n', at) == NULL;
    *ret_length = 0;
    for (; at < length; at++) {
        char c = text[at];
        if (at >= HTTP_HEAD_BYTES_MAX) {
            return refuse(431, "the header section is over 16 KiB");
        }
        if (first && at > HTTP_URI_BYTES_MAX + 20) {
            return refuse(414, "the URI is over 8 KiB");
        }
        if (c == '\0') {
            return refuse(400, "a zero byte in the header section");
        }
        if ((c == '\n') != (at > 0 && text[at - 1] == '\r')) {
            return refuse(400, "a line does not end with CR LF");
        }
        if (at > 0 && text[at - 1] == '\n' && (c == ' ' || c == '\t')) {
            return refuse(400, "a header line is folded");
        }
        if (c != '\n') {
            continue;
        }
        if (first && !is_request_line(text, at - 1)) {
            return refuse(400, "the request line is not METHOD TARGET HTTP/1.1");
        }
        first = false;
        if (text[at - 2] == '\n') {
            *ret_length = at + 1;
            return 0;
        }
    }
    *ret_scanned = at;
    return 0;
}

struct reading {
    struct http_head *head;
    char *url;
    size_t url_length;
    const char *name;
    size_t name_length;
    bool host, twice;
    int lengths, codings;
    const char *why;
};

static int on_url(http_parser *parser, const char *at, size_t length) {
    struct reading *reading = parser->data;
    if (reading->url == NULL) {
        reading->url = (char *)at;
    }
    reading->url_length += length;
    return 0;
}

static int on_field(http_parser *parser, const char *at, size_t length) {
    struct reading *reading = parser->data;
    reading->name = at;
    reading->name_length = length;
    for (size_t i = 0; i < length; i++) {
        if (at[i] == ' ' || at[i] == '\t') {
            reading->why = "a space in a header's name";
            return 1;
        }
    }
    return 0;
}

static bool name_is(const struct reading *reading, const char *name) {
    return reading->name_length == strlen(name) &&
           strncasecmp(reading->name, name, reading->name_length) == 0;
}

/* The byte behind a value is its line's end, or a space before that. */
static const char *cut(const char *at, size_t length) {
    while (length > 0 && (at[length - 1] == ' ' || at[length - 1] == '\t')) {
        length--;
    }
    ((char *)at)[length] = '\0';
    return at;
}

static int once(struct reading *reading, const char **place, const char *value) {
    if (*place != NULL) {
        reading->why = "a header that is sent once was sent twice";
        return 1;
    }
    *place = value;
    return 0;
}

static int read_length(struct reading *reading, const char *value) {
    reading->lengths++;
    size_t digits = strspn(value, "0123456789");
    if (digits == 0 || digits > 15 || value[digits] != '\0') {
        reading->why = "Content-Length is not a number";
        return 1;
    }
    reading->head->content_length = 0;
    for (size_t i = 0; i < digits; i++) {
        reading->head->content_length = reading->head->content_length * 10 + (value[i] - '0');
    }
    return 0;
}

static int read_value(struct reading *reading, const char *at, size_t length) {
    struct http_head *head = reading->head;
    for (size_t i = 0; i < length; i++) {
        if (((unsigned char)at[i] < ' ' && at[i] != '\t') || at[i] == 0x7F) {
            reading->why = "a control character in a header";
            return 1;
        }
    }
    if (name_is(reading, "content-length")) {
        char digits[32] = "";
        if (length < sizeof digits) {
            memcpy(digits, at, length);
            digits[length] = '\0';
        }
        return read_length(reading, cut(digits, strlen(digits)));
    }
    if (name_is(reading, "transfer-encoding")) {
        reading->codings++;
        head->chunked = length == 7 && memcmp(at, "chunked", 7) == 0;
        reading->why = head->chunked ? NULL : "Transfer-Encoding is not chunked";
        return head->chunked ? 0 : 1;
    }
    if (name_is(reading, "host")) {
        reading->twice = reading->twice || reading->host;
        reading->host = true;
    } else if (name_is(reading, "authorization")) {
        return once(reading, &head->authorization, at);
    } else if (name_is(reading, "content-type")) {
        return once(reading, &head->content_type, at);
    } else if (name_is(reading, "last-event-id")) {
        return once(reading, &head->last_event_id, at);
    } else if (name_is(reading, "expect")) {
        head->expect_continue = length == 12 && strncasecmp(at, "100-continue", 12) == 0;
    }
    return 0;
}

/* A value may be empty; it comes whole, for the head does. */
static int on_value(http_parser *parser, const char *at, size_t length) {
    return read_value(parser->data, at, length);
}

static int on_complete(http_parser *parser) {
    struct reading *reading = parser->data;
    reading->head->keep_alive = http_should_keep_alive(parser) != 0;
    return 1; /* the body is not the parser's */
}

static void terminate(const char *value) {
    if (value != NULL) {
        (void)cut(value, strcspn(value, "\r"));
    }
}

int http_head_parse(char *text, size_t length, struct http_head *ret_head) {
    static const http_parser_settings settings = { .on_url = on_url,
                                                   .on_header_field = on_field,
                                                   .on_header_value = on_value,
                                                   .on_headers_complete = on_complete };
    struct reading reading = { .head = ret_head };
    http_parser parser;
    *ret_head = (struct http_head){ .content_length = -1 };
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = &reading;
    parser.allow_chunked_length = 1; /* judged below, with words */
    size_t used = http_parser_execute(&parser, &settings, text, length);
    enum http_errno error = HTTP_PARSER_ERRNO(&parser);
    if (reading.why != NULL) {
        return refuse(400, reading.why);
    }
    if (error != HPE_OK || used != length || reading.url == NULL) {
        return refuse(400,
                      error == HPE_OK ? "the request is malformed" : http_errno_description(error));
    }
    if (reading.lengths > 1 || reading.codings > 1 || reading.lengths + reading.codings > 1) {
        return refuse(400, "one of Content-Length and Transfer-Encoding is allowed, once");
    }
    if (parser.http_major != 1 || parser.http_minor > 1 ||
        (reading.codings > 0 && parser.http_minor == 0)) {
        return refuse(400, "HTTP/1.1 is spoken here");
    }
    if (reading.twice || (!reading.host && parser.http_minor == 1)) {
        return refuse(400, "one Host header is needed");
    }
    if (reading.url_length > HTTP_URI_BYTES_MAX) {
        return refuse(414, "the URI is over 8 KiB");
    }
    reading.url[reading.url_length] = '\0';
    ret_head->method = http_method_str((enum http_method)parser.method);
    ret_head->target = reading.url;
    if (strncasecmp(reading.url, "http://", 7) == 0) { /* as to a proxy */
        ret_head->target = strchr(reading.url + 7, '/');
    }
    if (ret_head->target == NULL || ret_head->target[0] != '/' ||
        strchr(ret_head->target, '#') != NULL) {
        return refuse(400, "the target is not a path");
    }
    terminate(ret_head->authorization);
    terminate(ret_head->content_type);
    terminate(ret_head->last_event_id);
    return 0;
}

enum { CHUNK_SIZE, CHUNK_SIZE_LF, CHUNK_DATA, CHUNK_CR, CHUNK_LF, CHUNK_END_CR, CHUNK_END_LF };

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    int lower = c | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

dj_status http_chunks_decode(struct http_chunks *chunks, char *text, size_t length,
                             size_t *ret_used, size_t *ret_length, bool *ret_end) {
    char *out = text;
    *ret_end = false;
    size_t at = 0;
    while (at < length && !*ret_end) {
        char c = text[at];
        switch (chunks->state) {
        case CHUNK_SIZE:
            at++;
            if (hex_digit(c) >= 0 && chunks->line_bytes < 8) {
                chunks->left = chunks->left * 16 + (uint64_t)hex_digit(c);
                chunks->line_bytes++;
            } else if (c == '\r' && chunks->line_bytes > 0) {
                chunks->state = CHUNK_SIZE_LF;
            } else {
                return dj_fail(DJ_INVALID_ARGUMENT, "a chunk's size is malformed");
            }
            break;
        case CHUNK_DATA: {
            size_t take = length - at < chunks->left ? length - at : (size_t)chunks->left;
            memmove(out, text + at, take);
            out += take;
            at += take;
            chunks->left -= take;
            chunks->state = chunks->left == 0 ? CHUNK_CR : CHUNK_DATA;
            break;
        }
        default: /* one certain character */
            at++;
            if (c != (chunks->state == CHUNK_CR || chunks->state == CHUNK_END_CR ? '\r' : '\n')) {
                return dj_fail(DJ_INVALID_ARGUMENT, "a chunk is malformed");
            }
            *ret_end = chunks->state == CHUNK_END_LF;
            if (chunks->state == CHUNK_SIZE_LF) {
                chunks->state = chunks->left == 0 ? CHUNK_END_CR : CHUNK_DATA;
            } else if (chunks->state == CHUNK_LF) {
                chunks->state = CHUNK_SIZE;
                chunks->line_bytes = 0;
            } else {
                chunks->state++;
            }
            break;
        }
    }
    *ret_used = at;
    *ret_length = (size_t)(out - text);
    return DJ_OK;
}
