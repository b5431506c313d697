/* JSON: what the check lets pass is built, printed and read again, and comes out the same; a walk
 * sees what the check sees; strings decode to UTF-8. Against PostgreSQL's own reader: oracle.c. */
#include "tests/fuzz/fuzz.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/json.h"
#include "common/text.h"

#define BYTES_MAX 65536

static void check_round_trip(const char *text, size_t length) {
    AUTO(json) json_object *value = NULL;
    AUTO(json) json_object *again = NULL;
    AUTO(buf) struct buf first, second;
    buf_init(&first, 16 * BYTES_MAX);
    buf_init(&second, 16 * BYTES_MAX);
    promise(json_parse("value", text, length, BYTES_MAX, &value) == DJ_OK);
    promise(json_print("value", value, 16 * BYTES_MAX, &first) == DJ_OK);
    promise(json_read(first.data, first.length, &again) == DJ_OK);
    promise(json_print("value", again, 16 * BYTES_MAX, &second) == DJ_OK);
    promise(first.length == second.length && memcmp(first.data, second.data, first.length) == 0);
    promise(json_object_equal(value, again) == 1);
}

static void check_string(const char *text, size_t length) {
    AUTO(free) char *copy = malloc(length);
    AUTO(json) json_object *value = NULL;
    memcpy(copy, text, length);
    promise(json_parse("string", text, length, BYTES_MAX, &value) == DJ_OK);
    char *decoded = json_decode_string(copy, length);
    size_t decoded_length = strlen(decoded);
    promise(text_is_utf8(decoded, decoded_length));
    promise((int)decoded_length == json_object_get_string_len(value));
    promise(memcmp(decoded, json_object_get_string(value), decoded_length) == 0);
}

/* A list or an object; its parts are checked one by one, each from its own depth on, behind the
 * walk, which judges none of them: one that is wrong does not keep it from the next. */
static bool walk_passes(const char *text, size_t length, bool object) {
    struct json_walk walk;
    struct json_slice key = { .text = NULL }, value;
    bool more = true, all = true;
    if (json_walk_begin(&walk, "value", text, length, object) != DJ_OK) {
        return false;
    }
    const char *behind = text;
    for (;;) {
        if (json_walk_next(&walk, &more, &key, &value) != DJ_OK) {
            return false;
        }
        if (!more) {
            return all;
        }
        promise(value.text > behind && value.text + value.length <= text + length);
        promise(!object || (key.text > behind && key.text + key.length < value.text));
        behind = value.text + value.length;
        if (json_check("part", value.text, value.length, BYTES_MAX) != DJ_OK) {
            all = false;
        } else if (value.text[0] == '"') {
            check_string(value.text, value.length);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(free) char *text = malloc(size + (size == 0));
    promise(text != NULL);
    memcpy(text, data, size); /* no zero byte behind it: a length is given */
    bool utf8 = text_is_utf8(text, size);
    dj_status status = json_check("value", text, size, BYTES_MAX);
    promise(status == DJ_OK || status == (size > BYTES_MAX ? DJ_TOO_LARGE : DJ_INVALID_ARGUMENT));
    promise(status != DJ_OK || utf8);
    if (status == DJ_OK) {
        check_round_trip(text, size);
    } else {
        promise(text_is_utf8(dj_error_message(), strlen(dj_error_message())));
    }
    if (!utf8 || size > BYTES_MAX) {
        return 0;
    }
    size_t space = 0;
    while (space < size && strchr(" \t\r\n", text[space]) != NULL && text[space] != '\0') {
        space++;
    }
    bool object = space < size && text[space] == '{', list = space < size && text[space] == '[';
    bool passes = walk_passes(text, size, object);
    promise(passes || !(object || list) || status != DJ_OK);
    promise(!passes || object || list);
    if (passes && status != DJ_OK) { /* only because the walk counts depth from each part */
        promise(json_check("value", text, size, BYTES_MAX) != DJ_OK &&
                strstr(dj_error_message(), "nested too deep") != NULL);
    }
    return 0;
}
