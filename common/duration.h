/* Durations: 500ms, 30s, 5m, 24h, 30d, and sums such as 1h30m. */
#ifndef COMMON_DURATION_H
#define COMMON_DURATION_H

#include "common/status.h"
#include <stdint.h>

/** More than 0, up to 10 years. The error names `argument`. */
MUST_CHECK dj_status duration_parse(const char *argument, const char *text, int64_t *ret_ms);

/** The shortest text that means as much. */
void duration_print(int64_t ms, char out[32]);

#endif
