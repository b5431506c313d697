#include "common/db_conn.h"

#include "common/auto.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libpq hands notices out here. One of them matters: a commit that did not wait for its synchronous
 * standby is told as a success with a warning. It may be gone after a failover, so it must not be
 * acknowledged. The text of the warning is translated; the server function that raises it is not.
 */
static _Thread_local bool unconfirmed;

static void on_notice(void *context, const PGresult *notice) {
    (void)context;
    const char *function = PQresultErrorField(notice, PG_DIAG_SOURCE_FUNCTION);
    if (function != NULL && strcmp(function, "SyncRepWaitForLSN") == 0) {
        unconfirmed = true;
    }
}

bool db_conn_was_unconfirmed(void) {
    bool was = unconfirmed;
    unconfirmed = false;
    return was;
}

dj_status db_conn_open(const char *conninfo, const char *application_name, PGconn **ret_conn) {
    if (conninfo == NULL) {
        conninfo = getenv("DURABLE_DATABASE_URL");
    }
    if (conninfo == NULL || conninfo[0] == '\0') {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "no database is named; set DURABLE_DATABASE_URL, such as "
                       "postgresql://user@host:5432/database, or give one");
    }
    /* Ours first: what the caller's text says comes later and wins. */
    const char *const keys[] = { "connect_timeout",
                                 "tcp_user_timeout",
                                 "keepalives_idle",
                                 "keepalives_interval",
                                 "keepalives_count",
                                 "target_session_attrs",
                                 "fallback_application_name",
                                 "client_encoding",
                                 "dbname",
                                 NULL };
    const char *const values[] = { "10",         "10000",          "5",    "5",      "3",
                                   "read-write", application_name, "UTF8", conninfo, NULL };
    PGconn *conn = PQconnectdbParams(keys, values, /* expand_dbname= */ 1);
    if (conn == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a connection");
    }
    if (PQstatus(conn) != CONNECTION_OK) {
        dj_status status = dj_fail_pg(conn);
        PQfinish(conn);
        return status;
    }
    (void)PQsetNoticeReceiver(conn, on_notice, NULL);
    *ret_conn = conn;
    return DJ_OK;
}

void db_conn_close(PGconn *conn) {
    PQfinish(conn);
}

dj_status db_exec(PGconn *conn, const struct db_call *call, const struct db_params *params,
                  PGresult **ret_rows) {
    DJ_TRY(params_status(params));
    unconfirmed = false;
    AUTO(pgresult)
    PGresult *rows = PQexecParams(conn, call->sql, params->count, call->param_types,
                                  params_values(params), params->lengths, params->formats,
                                  /* resultFormat= */ 1);
    if (PQresultStatus(rows) != PGRES_TUPLES_OK) {
        if (PQstatus(conn) != CONNECTION_OK && PQresultErrorField(rows, PG_DIAG_SQLSTATE) == NULL) {
            return dj_fail_pg(conn);
        }
        return dj_fail_result(rows);
    }
    if (db_conn_was_unconfirmed()) {
        return dj_fail(DJ_UNAVAILABLE,
                       "the commit was not confirmed by the synchronous standby; it may "
                       "be lost in a failover. Say it again with the same key");
    }
    *ret_rows = TAKE(rows);
    return DJ_OK;
}
