/* Last-Event-ID and ?lastEventId=: a stream goes on behind the number that was given, and at
 * nothing else. */
#include "tests/fuzz/api.h"

#include "common/auto.h"
#include <endian.h>

#define STREAM "/v1/runs/01890a5d-ac96-774b-bcce-b302099a8057/stream"

static int64_t after_us;

static void on_call(const struct db_call *call, const struct db_params *params) {
    if (call == &CALL_STREAM_TAILS) {
        memcpy(&after_us, params_values(params)[2] + 24, sizeof after_us);
        after_us = (int64_t)be64toh((uint64_t)after_us);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    api_on_call = on_call;
    api_start();
    return 0;
}

static void say(const char *query, const char *header, const char *id, bool good) {
    AUTO(buf) struct buf bytes;
    struct api_answers answers;
    const struct moods moods = { .count = 0 };
    buf_init(&bytes, 65536);
    promise(buf_addf(&bytes,
                     "GET " STREAM "%s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " API_KEY
                     "\r\n%s\r\n",
                     query, header) == DJ_OK);
    after_us = -7;
    api_say(bytes.data, bytes.length, 0, &moods, &answers);
    promise(answers.count == 1);
    promise(answers.answers[0].status == (good ? 200 : 400) && answers.stream == good);
    promise(after_us == (good ? strtoll(id, NULL, 10) : -7));
    api_answers_done(&answers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(free) char *id = text_of(data, size);
    AUTO(buf) struct buf line;
    size_t length = strlen(id);
    buf_init(&line, 4096);
    if (length == 0 || length > 512 || length != size) {
        return 0;
    }
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)id[i] <= ' ' || id[i] == 0x7F) { /* no header's value, or trimmed */
            return 0;
        }
    }
    bool digits = strspn(id, "0123456789") == length;
    promise(buf_addf(&line, "Last-Event-ID: %s\r\n", id) == DJ_OK);
    say("", line.data, id, digits && length <= 18);
    buf_reset(&line);
    promise(buf_add_text(&line, "?lastEventId=") == DJ_OK);
    for (size_t i = 0; i < length; i++) {
        promise(buf_addf(&line, "%%%02X", (unsigned int)(unsigned char)id[i]) == DJ_OK);
    }
    bool zero = id[0] == '-' && length > 1 && strspn(id + 1, "0") == length - 1;
    say(line.data, "", id, (digits && strtoull(id, NULL, 10) <= 999999999999999999ULL) || zero);
    return 0;
}
