/* Asserts: what this process promises itself. They stay on in release builds. */
#ifndef COMMON_CHECK_H
#define COMMON_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#undef assert
#define assert(fact) check(fact)
#define check(fact)                                                                                \
    do {                                                                                           \
        if (!(fact)) {                                                                             \
            (void)fprintf(stderr, "%s:%d: %s: broken promise: %s\n", __FILE__, __LINE__, __func__, \
                          #fact);                                                                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#undef static_assert
#define static_assert _Static_assert

#endif
