/* The monotonic clock, which bounds our own waiting and decides nothing. Any thread. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>

int64_t clock_us(void);
int64_t clock_ms(void);

/** About so long, a fifth more or less: so that those who wait for one thing do not come at once.
 */
int64_t with_jitter(int64_t ms);

#endif
