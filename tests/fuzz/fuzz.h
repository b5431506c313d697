/* What every target includes. A target says what must be true of every input; libFuzzer thinks of
 * the inputs. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "common/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/** Ends the program, and libFuzzer keeps the input, where the promise is not kept. */
#define promise(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: not so: %s; the last error: %s\n", __FILE__, __LINE__,   \
                          #condition, dj_error_message());                                         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/** The input as a text of its own, closed by a zero byte, so that a read behind its end is seen.
 * Yours (free). */
static inline char *text_of(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    promise(text != NULL);
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    return text;
}

/** Takes a byte off the input; 0 where there is none. */
static inline uint8_t take_byte(const uint8_t **data, size_t *size) {
    if (*size == 0) {
        return 0;
    }
    (*size)--;
    return *(*data)++;
}

#endif
