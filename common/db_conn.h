/* A blocking connection: for the client, the command line, the scheduler, and
 * handlers' own transactions. */
#ifndef COMMON_DB_CONN_H
#define COMMON_DB_CONN_H

#include "common/db_calls.h"
#include "common/db_params.h"
#include "common/failpoint.h"
#include "common/status.h"
#include <libpq-fe.h>
#include <stdbool.h>

/** `conninfo` NULL: the environment's DURABLE_DATABASE_URL. Dead peers are
 * found within 30 s; only a server that takes writes is accepted.
 * DJ_INVALID_ARGUMENT: no database is named, or not in words libpq knows.
 * DJ_UNAVAILABLE: it cannot be reached. */
MUST_CHECK dj_status db_conn_open(const char *conninfo, const char *application_name,
                                  PGconn **ret_conn);
void db_conn_close(PGconn *conn); /* accepts NULL */

/** Makes the session one of ours, after PQreset again: at READ COMMITTED, for our functions look at
 * what is there once they have waited for a lock, whatever the database or the role has by default.
 * `settings` are further statements, or "". */
MUST_CHECK dj_status db_session_set(PGconn *conn, const char *settings);

/** db_conn_open, with a session of ours. The plain one is for SQL that is not ours. */
MUST_CHECK dj_status db_session_open(const char *conninfo, const char *application_name,
                                     PGconn **ret_conn);

/** Whether all transactions on `conn` have one session, which what LISTENs, prepares statements or
 * holds a lock from one to the next needs. DJ_NOT_ALLOWED: a pooler in between gives it whichever
 * is free. Through any pooler it asks for a second connection, for as long as this takes. */
MUST_CHECK dj_status db_conn_check_session(PGconn *conn, const char *conninfo);

/** True once after a commit on `conn` that the server made without waiting for
 * its synchronous standby (somebody cancelled the wait): it may be lost in a
 * failover, so it must not be acknowledged. db_exec asks by itself; who sends a
 * COMMIT or a pipeline in another way asks when it is answered. False on a
 * connection that db_conn_open has not made. */
bool db_conn_commit_is_uncertain(PGconn *conn);

/** DJ_UNAVAILABLE, in the words for such a commit. */
dj_status db_conn_fail_uncertain(void);

/** Calls, and waits for the answer. Results are binary. On failure *ret_rows is
 * left alone. A commit that db_conn_commit_is_uncertain() tells of is
 * DJ_UNAVAILABLE. */
MUST_CHECK dj_status db_exec(PGconn *conn, const struct db_call *call,
                             const struct db_params *params, PGresult **ret_rows);

/** Prepares the calls' statements, for db_exec_prepared or a pipeline. Blocks. */
MUST_CHECK dj_status db_prepare(PGconn *conn, const struct db_call *const calls[], int call_count);

/** The same as db_exec, for a call that db_prepare has prepared on this connection. */
MUST_CHECK dj_status db_exec_prepared(PGconn *conn, const struct db_call *call,
                                      const struct db_params *params, PGresult **ret_rows);

/* A failpoint after a call: its answer, a success, is lost. */
#ifdef DURABLE_FAULT_INJECTION
dj_status db_conn_lose(PGconn *conn, enum failpoint_action action);
#define FAILPOINT_CALL(name, conn, status)                                                         \
    (status) =                                                                                     \
        (status) == DJ_OK                                                                          \
            ? db_conn_lose(conn, FAILPOINT_REACH(name, "kill stop sleep cut drop", (void)0))       \
            : (status)
#else
#define FAILPOINT_CALL(name, conn, status) ((void)0)
#endif

#endif
