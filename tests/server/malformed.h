/* Requests that are not as they should be, by kind: for the server alone, in a flood, and behind a
 * proxy. */
#ifndef TESTS_SERVER_MALFORMED_H
#define TESTS_SERVER_MALFORMED_H

#include <stdbool.h>
#include <stddef.h>

enum malformed_kind {
    MALFORMED_METHOD,
    MALFORMED_REQUEST_LINE,
    MALFORMED_PATH,
    MALFORMED_HEADER,
    MALFORMED_FRAMING, /* how long is it? Two readers could answer differently */
    MALFORMED_CHUNK,
    MALFORMED_TYPE,
    MALFORMED_JSON,
    MALFORMED_VALUE,
    MALFORMED_TEXT, /* UTF-8, surrogates, zero bytes */
    MALFORMED_KINDS
};

struct malformed {
    enum malformed_kind kind;
    const char *text; /* a whole request; or, with `path`, its body */
    size_t length;
    const char *path; /* NULL, or METHOD PATH of a request with a key and this JSON body */
    int status;       /* that answers it; 200, 201: it looks odd, and is right */
};

extern const struct malformed malformed[];
extern const int malformed_count;
extern const char *const malformed_kinds[MALFORMED_KINDS];

/** The whole request of a row, with a key where it has to have one; to be freed. */
char *malformed_request(const struct malformed *row, const char *key, size_t *ret_length);

/** The row for a message: its kind and its text, printable, in a buffer of this file's. */
const char *malformed_name(const struct malformed *row);

#endif
