/* Bytes that grow up to a limit. Always closed by a zero byte, so that text can be read as it is.
 */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include "common/status.h"
#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data; /* NULL until something was added */
    size_t length, capacity, bytes_max;
};

void buf_init(struct buf *buf, size_t bytes_max);
void buf_done(struct buf *buf);
void buf_reset(struct buf *buf); /* empty, its memory kept */

/** DJ_TOO_LARGE, DJ_NO_MEMORY: then it is as it was. */
MUST_CHECK dj_status buf_add(struct buf *buf, const void *bytes, size_t length);
MUST_CHECK dj_status buf_add_text(struct buf *buf, const char *text);
MUST_CHECK dj_status buf_add_be32(struct buf *buf, uint32_t value);
MUST_CHECK dj_status buf_add_be64(struct buf *buf, uint64_t value);
MUST_CHECK dj_status buf_addf(struct buf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Room for `length` bytes more at the end; they count as added. NULL: as buf_add fails. */
char *buf_grow(struct buf *buf, size_t length);

/** The text, which is yours now (free). "" where nothing was added. NULL: no memory. */
char *buf_take(struct buf *buf);

static inline void auto_buf(struct buf *buf) {
    buf_done(buf);
}

#endif
