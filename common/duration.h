/* Durations: 500ms, 30s, 5m, 24h, 30d, and sums such as 1h30m. */
#ifndef COMMON_DURATION_H
#define COMMON_DURATION_H

#include "common/status.h"
#include <stdint.h>

/** More than 0, up to 10 years. The error names `argument`. */
MUST_CHECK dj_status duration_parse(const char *argument, const char *text, int64_t *ret_ms);

/** As 1d12h or 1m30s: the largest units first, none of them 0; 0ms for nothing. duration_parse
 * reads it back. */
void duration_print(int64_t ms, char out[32]);

#endif
