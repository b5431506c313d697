/* What a scheduler does, as a table: each duty is one SQL function, called until it finds nothing
 * more. */
#ifndef SCHEDULER_DUTIES_H
#define SCHEDULER_DUTIES_H

#include "common/status.h"
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

struct scheduler {
    PGconn *conn;
    char id[37];
    int64_t next_due_ms; /* monotonic: when the next timer is due; INT64_MAX: none is known */
    int64_t last_full_scan_ms;
};

struct duty {
    const char *name;
    int64_t period_ms; /* at least so often, hinted or not */
    bool hinted;       /* also at once when a notification came */
    /** Does one bounded piece of work. *ret_more: there is more to do, call again at once. */
    dj_status (*work)(struct scheduler *scheduler, bool *ret_more);
};

/** Prepares the duties' statements on a new connection. Blocks. */
MUST_CHECK dj_status duties_prepare(PGconn *conn);

extern const struct duty duties[];
extern const int duty_count;

#endif
