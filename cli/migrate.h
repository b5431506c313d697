/* Bringing a database up to date. */
#ifndef CLI_MIGRATE_H
#define CLI_MIGRATE_H

#include "common/status.h"
#include <libpq-fe.h>

/** Applies what is missing. Table files run once, in their order, each in a transaction; functions
 * are applied whole, in one, when any has changed. *ret_applied: how many files. One migration runs
 * at a time. No lock that others wait behind is waited for longer than MIGRATE_LOCK_TIMEOUT at a
 * time. DJ_NOT_ALLOWED: a released table file was changed. */
MUST_CHECK dj_status migrate(PGconn *conn, int *ret_applied);

#define MIGRATE_LOCK_TIMEOUT "'500ms'"
#define MIGRATE_TRIES_MAX 150 /* for a lock, with a rest after each */

/** A statement, or several. */
MUST_CHECK dj_status migrate_command(PGconn *conn, const char *sql);

/** Says why (the last failure) it is tried again, and rests: whoever waited behind us has time. */
void migrate_pause(void);

#endif
