/* malloc, calloc and realloc that fail when told to. For tests linked with
 * -Wl,--wrap=malloc and so on: they replace the calls in our own objects, not
 * those in libraries. */
#ifndef TESTS_COMMON_FAILING_MALLOC_H
#define TESTS_COMMON_FAILING_MALLOC_H

#include <stddef.h>

/* The allocation to fail, counted from 1; 0: none does. */
static int malloc_fails_at;

/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): the linker's names */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static int malloc_fails_now(void) {
    return malloc_fails_at > 0 && --malloc_fails_at == 0;
}

void *__wrap_malloc(size_t size) {
    return malloc_fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
    return malloc_fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size) {
    return malloc_fails_now() ? NULL : __real_realloc(old, size);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

#endif
