/* Does the time of a comparison say where the first wrong byte is? As dudect does it: many samples
 * of two classes in random order (the first byte is wrong; the last one is), Welch's t of their
 * times, over all samples and over those below each of some percentiles, since interrupts make the
 * tail; the largest |t| is printed. Over 4.5 a difference is said to be there; so that a busy
 * machine fails nothing, this fails from 20 on. A comparison that stops at the first difference is
 * measured the same way, and has to be found: a measurement that sees nothing proves nothing.
 *
 * CONSTANT_TIME_SAMPLES=5000000 takes more of them (default: 200,000). */
#include "common/webhook.h"
#include "unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define T_OF_A_LEAK 4.5
#define T_ALLOWED 20.0
#define CALLS_A_SAMPLE 8
#define BYTES_MAX 64
#define CROPS 20
#define BATCH 100

typedef bool (*compare_fn)(const void *left, const void *right, size_t length);

/* What must not be used: leaves at the first difference. */
static bool leaves_early(const void *left, const void *right, size_t length) {
    const volatile uint8_t *a = left, *b = right;
    for (size_t i = 0; i < length; i++) {
        if (a[i] != b[i]) {
            return false;
        }
    }
    return true;
}

struct pair {
    uint8_t right[BYTES_MAX], sent[BYTES_MAX];
};

struct sample {
    uint32_t ns;
    bool last; /* which byte is wrong */
};

static int64_t now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* The pairs are made a batch at a time, before the clock is looked at: a byte that was just written
 * is read slower than its neighbours. */
static void make(struct pair *pairs, struct sample *samples, size_t length, uint64_t *chance) {
    for (size_t i = 0; i < BATCH; i++) {
        for (size_t at = 0; at < length; at++) {
            pairs[i].right[at] = (uint8_t)(next_random(chance) >> 56);
        }
        memcpy(pairs[i].sent, pairs[i].right, length);
        samples[i].last = (next_random(chance) >> 40 & 1) != 0;
        pairs[i].sent[samples[i].last ? length - 1 : 0] ^= 1;
    }
}

static struct sample *measure(compare_fn compare, size_t length, size_t count) {
    static struct pair pairs[BATCH];
    uint64_t chance = 88172645463325252ULL;
    struct sample *samples = calloc(count, sizeof *samples);
    volatile bool sink = false;
    assert_non_null(samples);
    for (size_t i = 0; i < count; i++) {
        if (i % BATCH == 0) {
            make(pairs, samples + i, length, &chance);
        }
        const struct pair *pair = &pairs[i % BATCH];
        int64_t begun = now_ns();
        for (int n = 0; n < CALLS_A_SAMPLE; n++) {
            sink = compare(pair->right, pair->sent, length);
        }
        int64_t took = now_ns() - begun;
        assert_false(sink);
        samples[i].ns = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
    }
    return samples;
}

static double welch(const struct sample *samples, size_t count, uint32_t below) {
    double n[2] = { 0 }, mean[2] = { 0 }, squares[2] = { 0 };
    for (size_t i = 0; i < count; i++) {
        if (samples[i].ns <= below) {
            int c = samples[i].last;
            double from_mean = samples[i].ns - mean[c];
            n[c] += 1;
            mean[c] += from_mean / n[c];
            squares[c] += from_mean * (samples[i].ns - mean[c]);
        }
    }
    if (n[0] < 1000 || n[1] < 1000) {
        return 0;
    }
    double error = squares[0] / (n[0] - 1) / n[0] + squares[1] / (n[1] - 1) / n[1];
    return error <= 0 ? 0 : fabs(mean[0] - mean[1]) / sqrt(error);
}

static int order(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static double largest_t(const char *what, compare_fn compare, size_t length) {
    const char *wanted = getenv("CONSTANT_TIME_SAMPLES");
    size_t count = wanted == NULL ? 200000 : strtoul(wanted, NULL, 10);
    assert_in_range(count, 10000, 100000000);
    count -= count % BATCH;
    struct sample *samples = measure(compare, length, count);
    uint32_t *sorted = calloc(count, sizeof *sorted);
    assert_non_null(sorted);
    for (size_t i = 0; i < count; i++) {
        sorted[i] = samples[i].ns;
    }
    qsort(sorted, count, sizeof *sorted, order);
    double largest = welch(samples, count, UINT32_MAX);
    for (size_t crop = 1; crop < CROPS; crop++) {
        double t = welch(samples, count, sorted[count / CROPS * crop]);
        largest = t > largest ? t : largest;
    }
    print_message("%s of %zu bytes: |t| %.2f (%zu samples; a leak: over %.1f)\n", what, length,
                  largest, count, T_OF_A_LEAK);
    free(sorted);
    free(samples);
    return largest;
}

/* 16: the MAC of a commit's token; 64: the hash of an API key, as text. */
static void the_time_of_a_comparison_does_not_say_where_it_differs(void **state) {
    static const size_t lengths[] = { 16, 32, 64 };
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        double t = largest_t("bytes_equal_constant_time", bytes_equal_constant_time, lengths[i]);
        if (t > T_ALLOWED) { /* once more: a neighbour may have come or gone */
            t = largest_t("once more", bytes_equal_constant_time, lengths[i]);
        }
        assert_true(t < T_ALLOWED);
    }
}

static void one_that_leaves_early_is_found(void **state) {
    (void)state;
    assert_true(largest_t("leaving early", leaves_early, 64) > T_OF_A_LEAK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_time_of_a_comparison_does_not_say_where_it_differs),
        cmocka_unit_test(one_that_leaves_early_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
