/* UTF-8, names and keys: against libc's own decoder, and against the rules said in another way. */
#include "tests/fuzz/fuzz.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/text.h"
#include <locale.h>
#include <wchar.h>

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    promise(setlocale(LC_CTYPE, "C.UTF-8") != NULL);
    return 0;
}

static bool libc_reads(const char *text, size_t length) {
    mbstate_t state;
    memset(&state, 0, sizeof state);
    for (size_t at = 0; at < length;) {
        wchar_t c;
        size_t step = mbrtowc(&c, text + at, length - at, &state);
        if (step > 4 || (c >= 0xD800 && c <= 0xDFFF) || c > 0x10FFFF) {
            return false;
        }
        at += step == 0 ? 1 : step; /* a zero byte is a character */
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(free) char *text = text_of(data, size);
    size_t length = strlen(text);
    bool utf8 = text_is_utf8(text, size);
    promise(utf8 == libc_reads(text, size));
    size_t at = 0;
    while (at < size) {
        size_t step = text_char_bytes(text + at, size - at);
        promise(step <= 4 && step <= size - at);
        if (step == 0) {
            break;
        }
        at += step;
    }
    promise(utf8 == (at == size));
    promise((check_key("key", text) == DJ_OK) ==
            (length >= 1 && length <= KEY_BYTES_MAX && text_is_utf8(text, length)));
    bool name = length >= 1 && length <= NAME_BYTES_MAX;
    for (size_t i = 0; i < length; i++) {
        char c = text[i], lower = (char)(c | 0x20);
        name = name &&
               ((lower >= 'a' && lower <= 'z') || (c >= '-' && c <= ':') || c == '_' || c == '@');
    }
    promise((check_name("job", text) == DJ_OK) == name);
    const char *message = dj_error_message(); /* has some of the text in it */
    promise(text_is_utf8(message, strlen(message)));
    return 0;
}
