#include "common/text.h"

#include "common/bounds.h"
#include <stdint.h>
#include <string.h>

/* The length of the character at `at`, or 0 where it is none. */
static size_t utf8_length(const uint8_t *at, size_t left) {
    uint8_t first = at[0];
    if (first < 0x80) {
        return 1;
    }
    size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || left < length) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (first == 0xE0 && at[1] < 0xA0) || (first == 0xF0 && at[1] < 0x90);
    bool surrogate = first == 0xED && at[1] >= 0xA0;
    bool beyond = first == 0xF4 && at[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : length;
}

bool text_is_utf8(const char *text, size_t length) {
    const uint8_t *at = (const uint8_t *)text;
    while (length > 0) {
        size_t step = utf8_length(at, length);
        if (step == 0) {
            return false;
        }
        at += step;
        length -= step;
    }
    return true;
}

dj_status check_name(const char *argument, const char *value) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@-";
    if (value == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s must not be NULL; a name is allowed", argument);
    }
    size_t length = strnlen(value, NAME_BYTES_MAX + 1);
    if (length == 0 || length > NAME_BYTES_MAX || strspn(value, allowed) != length) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "%s '%.60s' is not a name: 1 to %d characters of A-Z a-z 0-9 _ . : / @ - are "
                       "allowed",
                       argument, value, NAME_BYTES_MAX);
    }
    return DJ_OK;
}

dj_status check_key(const char *argument, const char *value) {
    if (value == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s must not be NULL; a key is allowed", argument);
    }
    size_t length = strlen(value);
    if (length == 0 || length > KEY_BYTES_MAX) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is %zu bytes; 1 to %d bytes are allowed", argument,
                       length, KEY_BYTES_MAX);
    }
    if (!text_is_utf8(value, length)) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is not UTF-8", argument);
    }
    return DJ_OK;
}
