/* Bringing a database up to date. */
#ifndef CLI_MIGRATE_H
#define CLI_MIGRATE_H

#include "common/status.h"
#include <libpq-fe.h>

/** Applies what is missing. Table files run once, in their order, each in a transaction; functions
 * are applied whole, in one, when any has changed. *ret_applied: how many files. One migration runs
 * at a time. No lock is waited for longer than 2 s at a time. DJ_NOT_ALLOWED: a released table file
 * was changed. */
MUST_CHECK dj_status migrate(PGconn *conn, int *ret_applied);

#endif
