/* Cursors of lists: of runs a UUID, of what belongs to a run a number. The first byte says which.
 */
#include "tests/fuzz/api.h"

#include "common/auto.h"
#include "common/text.h"
#include "common/uuid.h"
#include <endian.h>

static struct uuid before;
static int64_t skipped;

static void on_call(const struct db_call *call, const struct db_params *params) {
    const char *const *values = params_values(params);
    if (call == &CALL_RUNS_PAGE) {
        promise(values[7] != NULL);
        memcpy(before.bytes, values[7], sizeof before.bytes);
    } else if (call == &CALL_TIMELINE_PAGE) {
        memcpy(&skipped, values[1], sizeof skipped);
        skipped = (int64_t)be64toh((uint64_t)skipped);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    api_on_call = on_call;
    api_start();
    return 0;
}

/* Zeros in front, and a minus before nothing but zeros, do no harm. */
static bool is_number_up_to_a_billion(const char *text) {
    bool negative = text[0] == '-';
    text += negative;
    if (text[0] == '\0' || strspn(text, "0123456789") != strlen(text)) {
        return false;
    }
    text += strspn(text, "0");
    return strlen(text) <= 10 && strtoll(text, NULL, 10) <= (negative ? 0 : 1000000000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(buf) struct buf bytes;
    struct api_answers answers;
    struct uuid expected = { .bytes = { 0 } };
    const struct moods moods = { .count = 0 };
    bool runs = take_byte(&data, &size) % 2 == 0;
    AUTO(free) char *cursor = text_of(data, size);
    buf_init(&bytes, 65536);
    if (size > 1024) {
        return 0;
    }
    promise(buf_addf(&bytes, "GET /v1/runs%s?cursor=",
                     runs ? "" : "/01890a5d-ac96-774b-bcce-b302099a8057/timeline") == DJ_OK);
    for (size_t i = 0; i < size; i++) {
        promise(buf_addf(&bytes, "%%%02x", data[i]) == DJ_OK);
    }
    promise(buf_add_text(&bytes, " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " API_KEY
                                 "\r\n\r\n") == DJ_OK);
    before = expected;
    skipped = -7;
    api_say(bytes.data, bytes.length, 0, &moods, &answers);
    bool whole = strlen(cursor) == size;
    bool good = whole && (runs ? uuid_parse("cursor", cursor, &expected) == DJ_OK
                               : is_number_up_to_a_billion(cursor));
    promise(answers.count == 1 && answers.answers[0].status == (good ? 200 : 400));
    promise(uuid_equal(&before, &expected));
    promise(skipped == (!runs && good ? strtoll(cursor, NULL, 10) : -7));
    api_answers_done(&answers);
    return 0;
}
