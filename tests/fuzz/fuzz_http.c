/* Bytes on a connection: head, body's framing, router, resources. In the input: a byte for the size
 * of the pieces, one for how many moods follow, the moods of the database, and the bytes. A text
 * KEY in them stands for the API key. However the bytes are cut into pieces, the same is answered:
 * one list of answers is the beginning of the other, because a refusal before a body has come
 * closes the connection. */
#include "tests/fuzz/api.h"

#include "common/auto.h"

#define MOODS_MAX 32
#define PIECES_MAX 100

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    api_start();
    return 0;
}

/* The bytes with every KEY replaced. */
static void put_keys(const char *text, size_t size, struct buf *out) {
    buf_init(out, 16 * size + 4096);
    for (size_t at = 0; at < size;) {
        bool key = size - at >= 3 && memcmp(text + at, "KEY", 3) == 0 &&
                   out->length + strlen(API_KEY) < out->bytes_max / 2;
        promise(buf_add(out, key ? API_KEY : text + at, key ? strlen(API_KEY) : 1) == DJ_OK);
        at += key ? 3 : 1;
    }
}

static void check_same(const struct api_answers *a, const struct api_answers *b) {
    for (int i = 0; i < a->count && i < b->count; i++) {
        const struct api_answer *left = &a->answers[i], *right = &b->answers[i];
        promise(left->status == right->status);
        promise(
            !left->json || !right->json ||
            (left->length == right->length && memcmp(left->body, right->body, left->length) == 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct api_answers whole, pieces;
    AUTO(buf) struct buf bytes;
    size_t piece = take_byte(&data, &size);
    struct moods moods = { .count = take_byte(&data, &size) % MOODS_MAX };
    moods.count = moods.count < size ? moods.count : size;
    moods.moods = data;
    put_keys((const char *)data + moods.count, size - moods.count, &bytes);
    api_say(bytes.data == NULL ? "" : bytes.data, bytes.length, 0, &moods, &whole);
    if (piece > 0 && bytes.length / piece < PIECES_MAX) {
        api_say(bytes.data == NULL ? "" : bytes.data, bytes.length, piece, &moods, &pieces);
        check_same(&whole, &pieces);
        api_answers_done(&pieces);
    }
    api_answers_done(&whole);
    return 0;
}
