#include "common/uuid.h"

#include <string.h>

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool dash_at(int byte) {
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

dj_status uuid_parse(const char *argument, const char *text, struct uuid *ret_uuid) {
    struct uuid uuid;
    const char *at = text == NULL ? "" : text;
    for (int i = 0; i < 16; i++, at += 2) {
        if (dash_at(i) && *at++ != '-') {
            return dj_fail(DJ_INVALID_ARGUMENT, "%s '%.40s' is not a UUID", argument, text);
        }
        int high = hex(at[0]);
        int low = high < 0 ? -1 : hex(at[1]);
        if (low < 0) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%s '%.40s' is not a UUID", argument,
                           text == NULL ? "" : text);
        }
        uuid.bytes[i] = (uint8_t)(high * 16 + low);
    }
    if (*at != '\0') {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s '%.40s' is not a UUID", argument, text);
    }
    *ret_uuid = uuid;
    return DJ_OK;
}

void uuid_print(const struct uuid *uuid, char out[UUID_TEXT_BYTES]) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        if (dash_at(i)) {
            *out++ = '-';
        }
        *out++ = digits[uuid->bytes[i] >> 4];
        *out++ = digits[uuid->bytes[i] & 15];
    }
    *out = '\0';
}

bool uuid_equal(const struct uuid *a, const struct uuid *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}
