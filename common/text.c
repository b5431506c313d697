/* UTF-8 as RFC 3629 has it, and the rules for names and keys. Any thread. */
#include "common/text.h"

#include "common/bounds.h"
#include <stdint.h>
#include <string.h>

size_t text_char_bytes(const char *text, size_t left) {
    const uint8_t *at = (const uint8_t *)text;
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
    size_t at = 0;
    while (at < length) {
        uint64_t eight; /* most text is ASCII: look at eight bytes at once */
        if (length - at >= sizeof eight) {
            memcpy(&eight, text + at, sizeof eight);
            if ((eight & 0x8080808080808080U) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        size_t step = text_char_bytes(text + at, length - at);
        if (step == 0) {
            return false;
        }
        at += step;
    }
    return true;
}

void text_copy(char *out, size_t size, const char *text) {
    size_t length = strnlen(text, size);
    if (length == size) { /* the byte behind the copy must not go on with its last character */
        for (length--; length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80; length--) {
        }
    }
    memcpy(out, text, length);
    out[length] = '\0';
}

dj_status check_name(const char *argument, const char *value) {
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@-";
    if (value == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s must not be NULL; a name is allowed", argument);
    }
    size_t length = strnlen(value, NAME_BYTES_MAX + 1);
    if (length == 0 || length > NAME_BYTES_MAX || strspn(value, allowed) != length) {
        return dj_fail(
            DJ_INVALID_ARGUMENT,
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

bool text_is_uuid(const char *text) {
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    static const char digits[] = "0123456789abcdefABCDEF";
    for (size_t i = 0; form[i] != '\0'; i++) {
        bool fits =
            form[i] == '-' ? text[i] == '-' : text[i] != '\0' && strchr(digits, text[i]) != NULL;
        if (!fits) {
            return false;
        }
    }
    return text[sizeof form - 1] == '\0';
}
