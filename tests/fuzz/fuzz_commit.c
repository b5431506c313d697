/* The body of POST /v1/commit. A text TOKEN in it stands for a token of ours. What reaches the
 * database is of leases whose token was given, one list of ops each, and is JSON; nothing else of
 * the body matters to the answer's form. */
#include "tests/fuzz/api.h"

#include "common/auto.h"
#include "common/db_types.h"
#include <endian.h>

#define COMMITS_MAX 1000

static int committed;

static uint32_t count_of(const char *array) {
    uint32_t dimensions, count;
    memcpy(&dimensions, array, 4);
    memcpy(&count, array + 12, 4);
    return dimensions == 0 ? 0 : be32toh(count);
}

static void on_call(const struct db_call *call, const struct db_params *params) {
    if (call != &CALL_COMMIT_OPS) {
        return;
    }
    const char *const *values = params_values(params);
    uint32_t count = count_of(values[0]);
    promise(count <= COMMITS_MAX);
    for (int i = 1; i < params->count; i++) {
        promise(count_of(values[i]) == count);
    }
    for (uint32_t i = 0; i < count;
         i++) { /* behind the header, twelve bytes each: a length and a fence */
        int64_t fence;
        memcpy(&fence, values[1] + 20 + 12 * (size_t)i + 4, sizeof fence);
        promise(be64toh((uint64_t)fence) == 42);
    }
    committed += (int)count;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    api_on_call = on_call;
    api_start();
    return 0;
}

static void put_body(const char *text, size_t size, struct buf *out) {
    const char *token = api_token();
    for (size_t at = 0; at < size;) {
        bool here = size - at >= 5 && memcmp(text + at, "TOKEN", 5) == 0;
        promise(buf_add(out, here ? token : text + at, here ? strlen(token) : 1) == DJ_OK);
        at += here ? 5 : 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(buf) struct buf body, bytes;
    struct api_answers answers;
    struct moods moods = { .count = take_byte(&data, &size) % 8 };
    moods.count = moods.count < size ? moods.count : size;
    moods.moods = data;
    buf_init(&body, SIZE_MAX / 2);
    buf_init(&bytes, SIZE_MAX / 2);
    put_body((const char *)data + moods.count, size - moods.count, &body);
    promise(buf_addf(&bytes,
                     "POST /v1/commit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n",
                     body.length) == DJ_OK);
    promise(buf_add(&bytes, body.data == NULL ? "" : body.data, body.length) == DJ_OK);
    committed = 0;
    api_say(bytes.data, bytes.length, 0, &moods, &answers);
    promise(answers.count <= 1);
    if (answers.count == 1) {
        int status = answers.answers[0].status;
        promise(status == 200 || status == 400 || status == 401 || status == 503);
        promise(status == 200 || status == 503 || committed == 0);
    }
    api_answers_done(&answers);
    return 0;
}
