/* How often somebody may do something: so often in a period, at once or spread over it. Bounded in
 * memory, whoever comes. */
#ifndef SERVER_API_RATE_H
#define SERVER_API_RATE_H

#include <stddef.h>
#include <stdint.h>

struct rate;

/** NULL: `count` is 0, there is no limit. */
struct rate *rate_new(int count, int64_t period_ms);

/** Milliseconds until he may; 0: now. */
int64_t rate_wait_ms(struct rate *rate, uint64_t who);
/** He has done it. */
void rate_spend(struct rate *rate, uint64_t who);

uint64_t rate_who(const void *bytes, size_t length); /* a name as a number; never 0 */

#endif
