/* Doubles as it grows, and never beyond its limit. One thread at a time. */
#include "common/buf.h"

#include "common/auto.h"
#include "common/check.h"
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 256

void buf_init(struct buf *buf, size_t bytes_max) {
    assert(bytes_max < SIZE_MAX); /* the closing zero byte comes on top */
    *buf = (struct buf){ .bytes_max = bytes_max };
}

void buf_done(struct buf *buf) {
    free(buf->data);
    buf->data = NULL;
    buf->length = buf->capacity = 0;
}

void buf_reset(struct buf *buf) {
    buf->length = 0;
    if (buf->data != NULL) {
        buf->data[0] = '\0';
    }
}

char *buf_grow(struct buf *buf, size_t length) {
    if (length > buf->bytes_max - buf->length) {
        (void)dj_fail(DJ_TOO_LARGE, "%zu and %zu bytes are too large; the limit is %zu bytes",
                      buf->length, length, buf->bytes_max);
        return NULL;
    }
    size_t needed = buf->length + length + 1;
    if (needed > buf->capacity) {
        size_t capacity = buf->capacity == 0 ? CAPACITY_MIN : buf->capacity * 2;
        capacity = capacity > buf->bytes_max + 1 ? buf->bytes_max + 1 : capacity;
        capacity = capacity < needed ? needed : capacity;
        char *data = realloc(buf->data, capacity);
        if (data == NULL) {
            (void)dj_fail(DJ_NO_MEMORY, "no memory for %zu bytes", capacity);
            return NULL;
        }
        buf->data = data;
        buf->capacity = capacity;
    }
    char *room = buf->data + buf->length;
    buf->length += length;
    buf->data[buf->length] = '\0';
    return room;
}

dj_status buf_add(struct buf *buf, const void *bytes, size_t length) {
    char *room = buf_grow(buf, length);
    if (room == NULL) {
        return length > buf->bytes_max - buf->length ? DJ_TOO_LARGE : DJ_NO_MEMORY;
    }
    if (length > 0) {
        memcpy(room, bytes, length);
    }
    return DJ_OK;
}

dj_status buf_add_text(struct buf *buf, const char *text) {
    return buf_add(buf, text, strlen(text));
}

dj_status buf_add_be32(struct buf *buf, uint32_t value) {
    uint32_t big_endian = htobe32(value);
    return buf_add(buf, &big_endian, sizeof big_endian);
}

dj_status buf_add_be64(struct buf *buf, uint64_t value) {
    uint64_t big_endian = htobe64(value);
    return buf_add(buf, &big_endian, sizeof big_endian);
}

dj_status buf_addf(struct buf *buf, const char *format, ...) {
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a text");
    }
    dj_status status = buf_add(buf, text, (size_t)length);
    free(text);
    return status;
}

char *buf_take(struct buf *buf) {
    char *text = buf->data == NULL ? strdup("") : TAKE(buf->data);
    buf->length = buf->capacity = 0;
    return text;
}
