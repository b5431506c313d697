/* One call, one round trip. Blocking: for no loop. One thread at a time per
 * connection. */
#include "common/db_conn.h"

#include "common/auto.h"
#include "common/check.h"
#include <libpq-events.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libpq hands notices out here, and else prints them. One of them matters: a
 * commit that did not wait for its synchronous standby is told as a success
 * with a warning. The text of the warning is translated; the server function
 * that raises it is not. What we note is freed with the connection, whoever
 * closes it. */
struct notes {
    bool commit_uncertain;
};

static void on_notice(void *context, const PGresult *notice) {
    struct notes *notes = context;
    const char *function = PQresultErrorField(notice, PG_DIAG_SOURCE_FUNCTION);
    if (function != NULL && strcmp(function, "SyncRepWaitForLSN") == 0) {
        notes->commit_uncertain = true;
    }
}

static int on_event(PGEventId event, void *info, void *context) {
    (void)context;
    if (event == PGEVT_CONNDESTROY) {
        free(PQinstanceData(((PGEventConnDestroy *)info)->conn, on_event));
    }
    return 1;
}

MUST_CHECK static dj_status notes_attach(PGconn *conn) {
    AUTO(free) struct notes *notes = calloc(1, sizeof *notes);
    if (notes == NULL || PQregisterEventProc(conn, on_event, "durable", NULL) == 0 ||
        PQsetInstanceData(conn, on_event, notes) == 0) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a connection");
    }
    (void)PQsetNoticeReceiver(conn, on_notice, TAKE(notes));
    return DJ_OK;
}

bool db_conn_commit_is_uncertain(PGconn *conn) {
    struct notes *notes = PQinstanceData(conn, on_event);
    bool uncertain = notes != NULL && notes->commit_uncertain;
    if (uncertain) {
        notes->commit_uncertain = false;
    }
    return uncertain;
}

dj_status db_conn_fail_uncertain(void) {
    return dj_fail(DJ_UNAVAILABLE,
                   "the commit was not confirmed by the synchronous standby; it may "
                   "be lost in a failover. Say it again with the same key");
}

/* libpq's own words would repeat the text, and so a password in it. */
MUST_CHECK static dj_status check_conninfo(const char *conninfo) {
    bool is_name = strchr(conninfo, '=') == NULL && strstr(conninfo, "://") == NULL;
    PQconninfoOption *options = is_name ? NULL : PQconninfoParse(conninfo, NULL);
    if (options == NULL && !is_name) {
        return dj_fail(DJ_INVALID_ARGUMENT, "the database's address is not understood; such as "
                                            "postgresql://user@host:5432/database is allowed");
    }
    PQconninfoFree(options);
    return DJ_OK;
}

dj_status db_conn_open(const char *conninfo, const char *application_name, PGconn **ret_conn) {
    if (conninfo == NULL) {
        conninfo =
            getenv("DURABLE_DATABASE_URL"); /* NOLINT(concurrency-mt-unsafe): ours set none */
    }
    if (conninfo == NULL || conninfo[0] == '\0') {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "no database is named; set DURABLE_DATABASE_URL, such as "
                       "postgresql://user@host:5432/database, or give one");
    }
    DJ_TRY(check_conninfo(conninfo));
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
    dj_status status = PQstatus(conn) == CONNECTION_OK ? notes_attach(conn) : dj_fail_pg(conn);
    if (status != DJ_OK) {
        PQfinish(conn);
        return status;
    }
    *ret_conn = conn;
    return DJ_OK;
}

void db_conn_close(PGconn *conn) {
    PQfinish(conn);
}

dj_status db_session_set(PGconn *conn, const char *settings) {
    char text[512];
    int length = snprintf(text, sizeof text,
                          "set default_transaction_isolation = 'read committed'; %s", settings);
    check(length >= 0 && (size_t)length < sizeof text);
    AUTO(pgresult) PGresult *set = PQexec(conn, text);
    return PQresultStatus(set) == PGRES_COMMAND_OK ? DJ_OK : dj_fail_result(set);
}

MUST_CHECK static dj_status ask_pid(PGconn *conn, const char *query, int *ret_pid) {
    AUTO(pgresult) PGresult *pid = PQexec(conn, query);
    if (PQresultStatus(pid) != PGRES_TUPLES_OK) {
        return dj_fail_result(pid);
    }
    *ret_pid = (int)strtol(PQgetvalue(pid, 0, 0), NULL, 10);
    return DJ_OK;
}

/* Whether `conn` still has the session `pid`, while `other` has one for its transaction, and after
 * that, when the one that was given back last is the next. */
MUST_CHECK static dj_status look_at_session(PGconn *conn, PGconn *other, int pid, bool *ret_same) {
    int during = 0, after = 0, of_other = 0;
    DJ_TRY(ask_pid(other, "begin; select pg_backend_pid()", &of_other));
    DJ_TRY(ask_pid(conn, "select pg_backend_pid()", &during));
    AUTO(pgresult) PGresult *end = PQexec(other, "rollback");
    if (PQresultStatus(end) != PGRES_COMMAND_OK) {
        return dj_fail_result(end);
    }
    DJ_TRY(ask_pid(conn, "select pg_backend_pid()", &after));
    *ret_same = during == pid && after == pid && of_other != pid;
    return DJ_OK;
}

#define LOOKS 5

/* A pooler's clients have process ids of its own making. If sessions are given out by the
 * transaction, ours is free now: another connection's transaction may get it, and while it has it
 * ours gets another. Who asks the same pool meanwhile may hide that, hence more than one look. */
dj_status db_conn_check_session(PGconn *conn, const char *conninfo) {
    int pid = 0;
    DJ_TRY(ask_pid(conn, "select pg_backend_pid()", &pid));
    if (pid == PQbackendPID(conn)) {
        return DJ_OK;
    }
    PGconn *other = NULL;
    DJ_TRY(db_conn_open(conninfo, "durable", &other));
    dj_status status = DJ_OK;
    bool same = true;
    for (int i = 0; i < LOOKS && status == DJ_OK && same; i++) {
        status = look_at_session(conn, other, pid, &same);
    }
    db_conn_close(other);
    DJ_TRY(status);
    return same ? DJ_OK
                : dj_fail(DJ_NOT_ALLOWED,
                          "a pooler gives this connection another session for each transaction "
                          "(pool_mode=transaction of PgBouncer); connect to PostgreSQL itself, or "
                          "to a pool with pool_mode=session");
}

dj_status db_session_open(const char *conninfo, const char *application_name, PGconn **ret_conn) {
    PGconn *conn = NULL;
    DJ_TRY(db_conn_open(conninfo, application_name, &conn));
    dj_status status = db_session_set(conn, "");
    if (status != DJ_OK) {
        db_conn_close(conn);
        return status;
    }
    *ret_conn = conn;
    return DJ_OK;
}

#ifdef DURABLE_FAULT_INJECTION
dj_status db_conn_lose(PGconn *conn, enum failpoint_action action) {
    if (action == FAILPOINT_NONE) {
        return DJ_OK;
    }
    failpoint_cut(FAILPOINT_CUT, PQsocket(conn));
    if (action == FAILPOINT_CUT) {
        return DJ_OK; /* this answer is heard, and the next call fails */
    }
    (void)PQconsumeInput(conn);
    return dj_fail(DJ_UNAVAILABLE, "a failpoint lost the answer");
}
#endif

/* What was sent was answered with `rows`, which is ours to free unless all is well. */
static dj_status db_answer(PGconn *conn, const struct db_call *call, PGresult *answer,
                           PGresult **ret_rows) {
    AUTO(pgresult) PGresult *rows = answer;
    if (PQresultStatus(rows) != PGRES_TUPLES_OK) {
        if (PQstatus(conn) != CONNECTION_OK && PQresultErrorField(rows, PG_DIAG_SQLSTATE) == NULL) {
            return dj_fail_pg(conn);
        }
        if (PQresultStatus(rows) == PGRES_COMMAND_OK || PQresultStatus(rows) == PGRES_EMPTY_QUERY) {
            return dj_fail(DJ_INTERNAL, "call %s answers no rows", call->name);
        }
        return dj_fail_result(rows);
    }
    if (db_conn_commit_is_uncertain(conn)) {
        return db_conn_fail_uncertain();
    }
    *ret_rows = TAKE(rows);
    return DJ_OK;
}

MUST_CHECK static dj_status may_ask(void) {
    return FAILPOINT_FAILS("query.executed") ? dj_fail(DJ_UNAVAILABLE, "a failpoint sends nothing")
                                             : DJ_OK;
}

dj_status db_exec(PGconn *conn, const struct db_call *call, const struct db_params *params,
                  PGresult **ret_rows) {
    DJ_TRY(params_status(params));
    DJ_TRY(may_ask());
    (void)db_conn_commit_is_uncertain(conn); /* what was before is not ours */
    return db_answer(conn, call,
                     PQexecParams(conn, call->sql, params->count, call->param_types,
                                  params_values(params), params->lengths, params->formats,
                                  /* resultFormat= */ 1),
                     ret_rows);
}

dj_status db_prepare(PGconn *conn, const struct db_call *const calls[], int call_count) {
    for (int i = 0; i < call_count; i++) {
        AUTO(pgresult)
        PGresult *result = PQprepare(conn, calls[i]->name, calls[i]->sql, calls[i]->param_count,
                                     calls[i]->param_types);
        if (PQresultStatus(result) != PGRES_COMMAND_OK) {
            return dj_fail_result(result);
        }
    }
    return DJ_OK;
}

dj_status db_exec_prepared(PGconn *conn, const struct db_call *call, const struct db_params *params,
                           PGresult **ret_rows) {
    DJ_TRY(params_status(params));
    DJ_TRY(may_ask());
    (void)db_conn_commit_is_uncertain(conn); /* what was before is not ours */
    return db_answer(conn, call,
                     PQexecPrepared(conn, call->name, params->count, params_values(params),
                                    params->lengths, params->formats, /* resultFormat= */ 1),
                     ret_rows);
}
