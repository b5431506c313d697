/* 8-4-4-4-12 hexadecimal digits, in either case. Any thread. */
#include "common/uuid.h"

#include "common/text.h"
#include <string.h>

static int hex(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static bool dash_at(int byte) {
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

dj_status uuid_parse(const char *argument, const char *text, struct uuid *ret_uuid) {
    if (text == NULL || !text_is_uuid(text)) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "%s '%.40s' is not a UUID; such as 01890a5d-ac96-774b-bcce-b302099a8057 is "
                       "allowed",
                       argument, text == NULL ? "" : text);
    }
    const char *at = text;
    for (int i = 0; i < 16; i++, at += 2) {
        at += dash_at(i) ? 1 : 0;
        ret_uuid->bytes[i] = (uint8_t)(hex(at[0]) * 16 + hex(at[1]));
    }
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

int uuid_compare(const struct uuid *a, const struct uuid *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes);
}
