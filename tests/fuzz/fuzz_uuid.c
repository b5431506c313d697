/* UUIDs: read, printed in lower case, read again; their order is that of their texts. */
#include "tests/fuzz/fuzz.h"

#include "common/auto.h"
#include "common/text.h"
#include "common/uuid.h"
#include <ctype.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(free) char *text = text_of(data, size);
    struct uuid uuid, again, other;
    char printed[UUID_TEXT_BYTES], other_text[UUID_TEXT_BYTES];
    dj_status status = uuid_parse("id", text, &uuid);
    promise((status == DJ_OK) == text_is_uuid(text));
    if (status == DJ_OK) {
        uuid_print(&uuid, printed);
        promise(strcasecmp(printed, text) == 0);
        for (const char *at = printed; *at != '\0'; at++) {
            promise(!isupper((unsigned char)*at));
        }
    } else if (size < sizeof uuid.bytes) {
        return 0;
    } else {
        memcpy(uuid.bytes, data, sizeof uuid.bytes);
        uuid_print(&uuid, printed);
    }
    promise(uuid_parse("id", printed, &again) == DJ_OK && uuid_equal(&uuid, &again));
    if (size >= 2 * sizeof other.bytes) {
        memcpy(other.bytes, data + sizeof other.bytes, sizeof other.bytes);
        uuid_print(&other, other_text);
        int order = uuid_compare(&uuid, &other), text_order = strcmp(printed, other_text);
        promise((order < 0) == (text_order < 0) && (order == 0) == (text_order == 0));
    }
    return 0;
}
