/* Modules: shared objects that register handlers. */
#ifndef WORKER_MODULE_H
#define WORKER_MODULE_H

#include "common/status.h"
#include <durable/worker.h>

/** Loads the module, for as long as the process lives, and lets it register its handlers.
 *  DJ_INVALID_ARGUMENT: it cannot be loaded, or is not a module. */
MUST_CHECK dj_status module_load(dj_worker *worker, const char *path);

#endif
