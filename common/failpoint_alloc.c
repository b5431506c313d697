/* An allocation of a program finds no memory: the n-th of all (memory.allocated:N:fail), or the
 * first one that is made for the n-th chain of callers (memory.new:N:fail), so that each place that
 * allocates has its turn, on each way that leads there. The callers are printed then. Linked into
 * the programs with -Wl,--wrap, so it is about our own objects and what they ask of the C library
 * by name. */
#include "common/failpoint.h"

#include <execinfo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALLERS 6   /* that tell one chain from another */
#define OUR_OWN 3   /* chain_take, fails, the wrapper */
#define CHAINS 8192 /* a power of two; more than any program has */

/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): the linker's names */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t length);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t length);

struct chain {
    void *callers[OUR_OWN + CALLERS];
    int length;
};

/* Is somebody interested? To walk up the stack takes microseconds. */
static bool chains_count(void) {
    const char *wanted = getenv("DURABLE_FAILPOINT"); /* NOLINT(concurrency-mt-unsafe): never set */
    return wanted != NULL &&
           (strstr(wanted, "memory.new") != NULL || strstr(wanted, "tally") != NULL);
}

/* Was this chain of callers not seen before? */
static bool __attribute__((noinline)) chain_take(struct chain *chain) {
    static atomic_uint_fast64_t seen[CHAINS];
    uint_fast64_t hash = 14695981039346656037U;
    chain->length = backtrace(chain->callers, OUR_OWN + CALLERS);
    for (int i = OUR_OWN; i < chain->length; i++) {
        hash = (hash ^ (uint_fast64_t)(uintptr_t)chain->callers[i]) * 1099511628211U;
    }
    for (size_t at = hash >> 32;; at++) {
        uint_fast64_t there = 0;
        if (atomic_compare_exchange_strong(&seen[at % CHAINS], &there, hash)) {
            return true;
        }
        if (there == hash) {
            return false;
        }
    }
}

/* What is done after our own end is not ours: the counts of gcov are written then. */
static atomic_bool is_over;

static void end(void) {
    atomic_store(&is_over, true);
}

static void __attribute__((constructor)) begin(void) {
    (void)atexit(end);
}

static bool __attribute__((noinline)) fails(void) {
    struct chain chain = { .length = 0 };
    if (atomic_load(&is_over)) {
        return false;
    }
    bool fails = FAILPOINT_FAILS("memory.allocated");
    if (chains_count() && chain_take(&chain) && FAILPOINT_FAILS("memory.new")) {
        backtrace_symbols_fd(chain.callers + OUR_OWN, chain.length - OUR_OWN, STDERR_FILENO);
        fails = true;
    }
    return fails;
}

void *__wrap_malloc(size_t size) {
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size) {
    return fails() ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *text) {
    return fails() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t length) {
    return fails() ? NULL : __real_strndup(text, length);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
