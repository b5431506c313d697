/* Indexes on tables that a fleet is writing to. */
#ifndef CLI_MIGRATE_INDEX_H
#define CLI_MIGRATE_INDEX_H

#include "common/embedded.h"
#include "common/status.h"
#include <libpq-fe.h>
#include <stdbool.h>

/** Whether a table file says of itself that it has indexes only, which are made concurrently. */
bool migrate_is_concurrent(const struct embedded_file *file);

/** Makes what is not there yet of its indexes, each statement in a transaction of its own. What was
 * cut off in the middle is found at the next call, and done again. */
MUST_CHECK dj_status migrate_indexes(PGconn *conn, const struct embedded_file *file);

#endif
