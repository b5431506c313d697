/* The thread's last error, and the table of errors. Any thread: each has its own message. */
#include "common/status.h"

#include "common/check.h"
#include "common/text.h"
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_BYTES_MAX 1024

static _Thread_local char message[MESSAGE_BYTES_MAX];

static const struct status_row {
    const char *name; /* in words */
    const char *code; /* over HTTP */
    int http;
    int exit;
} table[] = {
    [DJ_OK] = { "ok", "ok", 200, 0 },
    [DJ_INVALID_ARGUMENT] = { "invalid argument", "invalid_argument", 400, 2 },
    [DJ_IDEMPOTENCY_CONFLICT] = { "idempotency conflict", "idempotency_conflict", 409, 3 },
    [DJ_NOT_FOUND] = { "not found", "not_found", 404, 4 },
    [DJ_TOO_LARGE] = { "too large", "payload_too_large", 413, 5 },
    [DJ_LEASE_LOST] = { "lease lost", "conflict", 409, 6 },
    [DJ_NOT_ALLOWED] = { "not allowed", "conflict", 409, 7 },
    [DJ_UNAVAILABLE] = { "unavailable", "unavailable", 503, 8 },
    [DJ_TIMEOUT] = { "timeout", "timeout", 408, 9 },
    [DJ_FAILED] = { "failed", "internal", 500, 10 },
    [DJ_CANCELLED] = { "cancelled", "conflict", 409, 11 },
    [DJ_SUSPENDED] = { "suspended", "internal", 500, 12 },
    [DJ_NO_MEMORY] = { "out of memory", "unavailable", 503, 13 },
    [DJ_INTERNAL] = { "internal error", "internal", 500, 14 },
};

/* SQLSTATEs, whole or by their class; the first that fits counts. */
static const struct sqlstate_row {
    const char *prefix;
    dj_status status;
} sqlstates[] = {
    { "DJ001", DJ_INVALID_ARGUMENT }, { "DJ002", DJ_IDEMPOTENCY_CONFLICT },
    { "DJ003", DJ_NOT_FOUND },        { "DJ004", DJ_TOO_LARGE },
    { "DJ005", DJ_LEASE_LOST },       { "DJ006", DJ_NOT_ALLOWED },
    { "08", DJ_UNAVAILABLE },    /* the connection */
    { "25006", DJ_UNAVAILABLE }, /* a standby: not the primary just now */
    { "40", DJ_UNAVAILABLE },    /* deadlock, serialization */
    { "53", DJ_UNAVAILABLE },    /* disk full, too many connections */
    { "55P03", DJ_UNAVAILABLE }, /* lock_timeout */
    { "57014", DJ_UNAVAILABLE }, /* cancelled, statement_timeout */
    { "57P0", DJ_UNAVAILABLE },  /* shutdown, restart, terminated */
    { "22", DJ_INVALID_ARGUMENT },    { "54", DJ_TOO_LARGE },
    { "42501", DJ_NOT_ALLOWED },
};

static const struct status_row *row_of(dj_status status) {
    size_t count = sizeof table / sizeof *table;
    return &table[(size_t)status < count ? (size_t)status : (size_t)DJ_INTERNAL];
}

const char *dj_status_name(dj_status status) {
    return row_of(status)->name;
}

int status_exit_code(dj_status status) {
    return row_of(status)->exit;
}

int status_http(dj_status status) {
    return row_of(status)->http;
}

const char *status_code(dj_status status) {
    return row_of(status)->code;
}

const char *dj_error_message(void) {
    return message;
}

/* Keeps `text` as one line: control characters become spaces, bytes that are no character become
 * '?', and a character that the end has cut in two goes. */
static void message_keep(const char *text, bool cut) {
    size_t length = strlen(text);
    size_t kept = 0;
    for (size_t at = 0; at < length;) {
        size_t step = text_char_bytes(text + at, length - at);
        bool control = (unsigned char)text[at] < ' ' || text[at] == 0x7F;
        if (step == 0 && cut && length - at < 4) {
            break;
        }
        if (step == 0) {
            message[kept++] = '?';
        } else if (!control) {
            memcpy(message + kept, text + at, step);
            kept += step;
        } else if (kept > 0 && message[kept - 1] != ' ') {
            message[kept++] = ' ';
        }
        at += step == 0 ? 1 : step;
    }
    while (kept > 0 && message[kept - 1] == ' ') {
        kept--;
    }
    message[kept] = '\0';
}

dj_status dj_fail(dj_status status, const char *format, ...) {
    char text[MESSAGE_BYTES_MAX] = ""; /* the arguments may be the last message itself */
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    message_keep(text, length >= MESSAGE_BYTES_MAX);
    return status;
}

dj_status status_from_sqlstate(const char *sqlstate) {
    if (sqlstate == NULL) {
        return DJ_UNAVAILABLE;
    }
    for (size_t i = 0; i < sizeof sqlstates / sizeof *sqlstates; i++) {
        if (strncmp(sqlstate, sqlstates[i].prefix, strlen(sqlstates[i].prefix)) == 0) {
            return sqlstates[i].status;
        }
    }
    return DJ_INTERNAL;
}

/* PostgreSQL has no such schema, table, column or function. */
static bool is_missing(const char *sqlstate) {
    static const char *const missing[] = { "3F000", "42P01", "42703", "42883" };
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        if (strcmp(sqlstate, missing[i]) == 0) {
            return true;
        }
    }
    return false;
}

dj_status dj_fail_result(const PGresult *result) {
    if (result == NULL) {
        return dj_fail(DJ_UNAVAILABLE,
                       "no answer from the database: out of memory or disconnected");
    }
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    dj_status status = status_from_sqlstate(sqlstate);
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    if (primary == NULL) {
        return dj_fail(status, "%s", PQresultErrorMessage(result));
    }
    if (sqlstate != NULL && is_missing(sqlstate)) { /* its hint is about casts */
        return dj_fail(status,
                       "%s; `durable migrate` sets the database up, and brings it up to date",
                       primary);
    }
    return hint == NULL ? dj_fail(status, "%s", primary) : dj_fail(status, "%s. %s", primary, hint);
}

dj_status dj_fail_pg(const PGconn *conn) {
    const char *reason = conn == NULL ? "" : PQerrorMessage(conn);
    return dj_fail(DJ_UNAVAILABLE, "%s", reason[0] == '\0' ? "the connection is gone" : reason);
}
