#include "common/clock.h"

#include <stdlib.h>
#include <time.h>

int64_t clock_us(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_ms(void) {
    return clock_us() / 1000;
}

int64_t with_jitter(int64_t ms) {
    return ms * (80 + random() % 41) / 100;
}
