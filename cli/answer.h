/* Reading what the API answers. A value stays the text that it came as: numbers keep their digits,
 * and what a command prints as JSON is what was answered. */
#ifndef CLI_ANSWER_H
#define CLI_ANSWER_H

#include "common/buf.h"
#include "common/json.h"
#include "common/status.h"
#include <stdbool.h>
#include <stdint.h>

#define ANSWER_BYTES_MAX ((size_t)512 * 1024 * 1024) /* of all pages of a list */

struct json_slice answer_of(const char *text);

/** The value at a path such as "error.message"; "" is the whole. `.text` NULL: it is not there. */
struct json_slice answer_at(struct json_slice object, const char *path);

/** False for null too. */
bool answer_has(struct json_slice object, const char *path);

/** A string without its quotes and escapes; any other value as it was written; "" for none, and for
 * null. Yours (free). */
char *answer_text(struct json_slice object, const char *path);
bool answer_is(struct json_slice object, const char *path, const char *text);

/** Adds a field to an object that is a text; null for a value that is not there. */
MUST_CHECK dj_status answer_add(struct buf *object, const char *field, struct json_slice value);

/** A list, gathered from its pages: up to `most` items. */
struct pages {
    const char *name; /* "runs" */
    int64_t most, count;
    char *cursor; /* of the next page; NULL: it is the first one, or there is none */
    bool more;    /* there is a next page, and it is wanted */
    struct buf items;
};
void pages_init(struct pages *pages, const char *name, int64_t most);
void pages_done(struct pages *pages);
static inline void auto_pages(struct pages *pages) {
    pages_done(pages);
}
MUST_CHECK dj_status pages_add(struct pages *pages, const char *answer);

/** The items as a list, "[…]". */
MUST_CHECK dj_status pages_list(const struct pages *pages, struct buf *list);

#endif
