/* A run as `durable run` and `durable start --wait` show it. */
#ifndef CLI_RUN_SHOW_H
#define CLI_RUN_SHOW_H

#include "cli/backend.h"

/** As JSON, with `why` and `timeline` beside the run's own fields, or with its timeline drawn. */
MUST_CHECK dj_status run_show(struct backend *backend, const struct uuid *id);

#endif
