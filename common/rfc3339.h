/* Times: RFC 3339, with their zone. */
#ifndef COMMON_RFC3339_H
#define COMMON_RFC3339_H

#include "common/status.h"
#include <stdint.h>

/** Microseconds since 1970 UTC; finer digits are dropped. The error names `argument`. */
MUST_CHECK dj_status rfc3339_parse(const char *argument, const char *text, int64_t *ret_us);

/** As 2026-05-06T09:00:00.000Z, in UTC; years 1 to 9999. */
void rfc3339_print(int64_t us, char out[32]);

/** The same with all six digits, so that rfc3339_parse gives the same time back. */
void rfc3339_print_us(int64_t us, char out[32]);

#endif
