/* What an orchestrator asks of a program that is no HTTP server: GET /healthz (is it alive),
 * /readyz (can it work), /metrics (Prometheus' text). A thread of its own answers, from atomics, so
 * an answer takes no time from the program's loop and does not wait for it: a loop that stands
 * still is seen by the age of its last health_alive(). No key; ids, names and payloads are not
 * there. */
#ifndef COMMON_HEALTH_H
#define COMMON_HEALTH_H

#include "common/status.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define HEALTH_CONNECTIONS_MAX 64
#define HEALTH_HEAD_BYTES_MAX 4096
#define HEALTH_DEADLINE_MS 5000 /* of a connection, from its beginning to its end */

struct health_metric {
    const char *name, *kind, *help; /* kind: "counter" or "gauge" */
    _Atomic int64_t value;
};

/** Listens on a port of all addresses, from now on; nothing for port 0. `metrics` stay where they
 * are. A program whose loop has not called health_alive() for `silent_ms_max` is not alive.
 * DJ_UNAVAILABLE: the port cannot be had. Once in a process. */
MUST_CHECK dj_status health_open(int port, int64_t silent_ms_max, struct health_metric *metrics,
                                 int metric_count);

/* From any thread; they cost an atomic store. */

void health_alive(void);
void health_ready(bool ready);

#endif
