/* Indexes on tables that a fleet is writing to. `create index` keeps writers away while it reads
 * the table; `create index concurrently` does not, but cannot be in a transaction, leaves an
 * invalid index behind where it is cut off, and does not take a partitioned table. So a file of
 * indexes is not run as it stands: each of its statements is what has to be there in the end, and
 * the database says what the next step towards it is, until there is none. For a partitioned table
 * these are: an index of the parent alone, which is quick, and which new partitions copy; one for
 * each partition, concurrently; to join each to the parent's. */
#include "cli/migrate_index.h"

#include "cli/migrate.h"
#include "cli/sql_plan.h"
#include "common/auto.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 64
#define TABLE_BYTES 128
#define REST_BYTES 1024

/* `create [unique] index NAME on TABLE REST` */
struct index {
    const char *unique;
    char name[NAME_BYTES], table[TABLE_BYTES], rest[REST_BYTES];
};

bool migrate_is_concurrent(const struct embedded_file *file) {
    return strstr(file->text, "-- durable: concurrently\n") != NULL;
}

static dj_status index_read(const char *text, size_t length, struct index *index) {
    char statement[REST_BYTES + TABLE_BYTES + NAME_BYTES];
    int rest = 0;
    if (length < sizeof statement) {
        (void)snprintf(statement, sizeof statement, "%.*s", (int)length, text);
        index->unique = strncmp(statement, "create unique ", 14) == 0 ? "unique " : "";
        const char *form = index->unique[0] == '\0' ? "create index %63s on %127s %n"
                                                    : "create unique index %63s on %127s %n";
        /* NOLINTNEXTLINE(cert-err34-c): %n converts no number */
        (void)sscanf(statement, form, index->name, index->table, &rest);
    }
    if (rest == 0 || strlen(statement + rest) >= REST_BYTES) {
        return dj_fail(DJ_INTERNAL, "'%.*s' is no `create index NAME on TABLE …`",
                       (int)(length > 60 ? 60 : length), text);
    }
    (void)snprintf(index->rest, sizeof index->rest, "%s", statement + rest);
    return DJ_OK;
}

/* NULL: it is there, and valid. */
static dj_status index_step(PGconn *conn, const struct index *index, char **ret_step) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    const char *step;
    size_t length;
    params_init(&params);
    params_add_text(&params, index->name);
    params_add_text(&params, index->table);
    params_add_text(&params, index->rest);
    params_add_text(&params, index->unique);
    dj_status status = db_exec(conn, &CALL_INDEX_STEP, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    *ret_step = NULL;
    if (PQntuples(rows) == 0) {
        return DJ_OK;
    }
    DJ_TRY(rows_text(rows, 0, 0, &step, &length));
    *ret_step = strndup(step, length);
    return *ret_step == NULL ? dj_fail(DJ_NO_MEMORY, "no memory for a statement") : DJ_OK;
}

/* What is concurrent waits for the transactions that are open, however long they are, and nobody
 * waits behind it. Behind the rest everybody does, so that has the time that migrations have. */
static dj_status index_make(PGconn *conn, const struct index *index) {
    dj_status status = DJ_OK;
    for (int failures = 0; failures < MIGRATE_TRIES_MAX;) {
        AUTO(free) char *step = NULL;
        DJ_TRY(index_step(conn, index, &step));
        if (step == NULL) {
            return DJ_OK;
        }
        DJ_TRY(migrate_command(conn, strstr(step, " concurrently ") != NULL
                                         ? "set lock_timeout = 0"
                                         : "set lock_timeout = " MIGRATE_LOCK_TIMEOUT));
        status = migrate_command(conn, step);
        if (status != DJ_OK && (status != DJ_UNAVAILABLE || PQstatus(conn) != CONNECTION_OK)) {
            return status;
        }
        if (status != DJ_OK) {
            failures++;
            migrate_pause();
        }
    }
    return status;
}

dj_status migrate_indexes(PGconn *conn, const struct embedded_file *file) {
    const char *statement, *at = file->text;
    size_t length;
    while (sql_next(&at, &statement, &length)) {
        struct index index = { .unique = "" };
        DJ_TRY(index_read(statement, length, &index));
        DJ_TRY(index_make(conn, &index));
    }
    return migrate_command(conn, "reset lock_timeout");
}
