/* A blocking connection: for the client, the command line, the scheduler, and handlers' own
 * transactions. */
#ifndef COMMON_DB_CONN_H
#define COMMON_DB_CONN_H

#include "common/db_calls.h"
#include "common/db_params.h"
#include "common/status.h"
#include <libpq-fe.h>
#include <stdbool.h>

/** `conninfo` NULL: the environment's DURABLE_DATABASE_URL. Dead peers are found within 30 s; only
 * a server that takes writes is accepted. DJ_INVALID_ARGUMENT: no database is named.
 * DJ_UNAVAILABLE. */
MUST_CHECK dj_status db_conn_open(const char *conninfo, const char *application_name,
                                  PGconn **ret_conn);
void db_conn_close(PGconn *conn);

/** True, once, if a commit answered on this thread since the last ask was made without its
 * synchronous standby: it may be lost in a failover, so it is not to be acknowledged. */
bool db_conn_was_unconfirmed(void);

/** Calls, and waits for the answer. Results are binary. On failure *ret_rows is left alone. A
 * commit that the server made without waiting for its synchronous standby (somebody cancelled the
 * wait) is DJ_UNAVAILABLE, on a connection that db_conn_open has made. */
MUST_CHECK dj_status db_exec(PGconn *conn, const struct db_call *call,
                             const struct db_params *params, PGresult **ret_rows);

#endif
