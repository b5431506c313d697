/* durable migrate: the migrations that are built in, against a database. */
#include "cli/migrate.h"

#include "cli/commands.h"
#include "cli/migrate_index.h"
#include "cli/migrations.h"
#include "cli/print.h"
#include "cli/sql_plan.h"
#include "common/auto.h"
#include "common/config.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECKSUM_BYTES 65
#define REST_MS 2000 /* between two tries for a lock */
#define TURN_MS 200  /* … for the lock of all who migrate */
#define WEEKS_AHEAD 3

enum file_state { FILE_NEW, FILE_APPLIED, FILE_CHANGED };

static bool is_function_file(const struct embedded_file *file) {
    return strncmp(file->name, "functions/", 10) == 0;
}

static void sleep_ms(long ms) {
    struct timespec rest = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000 };
    (void)nanosleep(&rest, NULL);
}

void migrate_pause(void) {
    (void)fprintf(stderr, "durable migrate: %s; trying again\n", dj_error_message());
    sleep_ms(REST_MS);
}

dj_status migrate_command(PGconn *conn, const char *sql) {
    AUTO(pgresult) PGresult *result = PQexec(conn, sql);
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? DJ_OK : dj_fail_result(result);
}

static dj_status call_bool(PGconn *conn, const struct db_call *call, bool *ret_value) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    dj_status status = db_exec(conn, call, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    return rows_bool(rows, 0, 0, ret_value);
}

static dj_status checksum_of(PGconn *conn, const char *text, char ret_checksum[CHECKSUM_BYTES]) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    const char *sum;
    size_t length;
    params_init(&params);
    params_add_text(&params, text);
    dj_status status = db_exec(conn, &CALL_CHECKSUM, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    DJ_TRY(rows_text(rows, 0, 0, &sum, &length));
    (void)snprintf(ret_checksum, CHECKSUM_BYTES, "%.*s", (int)length, sum);
    return DJ_OK;
}

/* What was applied so far; no rows in a database that has nothing of ours yet. */
static dj_status applied_list(PGconn *conn, PGresult **ret_rows) {
    bool there;
    struct db_params params;
    *ret_rows = NULL;
    DJ_TRY(call_bool(conn, &CALL_MIGRATION_TABLE, &there));
    if (!there) {
        return DJ_OK;
    }
    params_init(&params);
    dj_status status = db_exec(conn, &CALL_MIGRATION_LIST, &params, ret_rows);
    params_done(&params);
    return status;
}

/* A table file that comes to the same as an earlier text of its own has that text's checksum. */
static bool was_once(const struct embedded_file *file, const char *sum, int sum_length) {
    char line[CHECKSUM_BYTES + 32];
    (void)snprintf(line, sizeof line, "\n-- durable: was %.*s\n", sum_length, sum);
    return strstr(file->text, line) != NULL;
}

static dj_status state_of(PGconn *conn, const PGresult *applied, const struct embedded_file *file,
                          enum file_state *ret_state) {
    char checksum[CHECKSUM_BYTES];
    DJ_TRY(checksum_of(conn, file->text, checksum));
    *ret_state = FILE_NEW;
    for (int row = 0; applied != NULL && row < PQntuples(applied); row++) {
        int name_length, sum_length;
        const char *name = text_at(applied, row, 0, &name_length);
        const char *sum = text_at(applied, row, 1, &sum_length);
        if ((size_t)name_length == strlen(file->name) &&
            memcmp(name, file->name, (size_t)name_length) == 0) {
            bool same = ((size_t)sum_length == strlen(checksum) &&
                         memcmp(sum, checksum, (size_t)sum_length) == 0) ||
                        was_once(file, sum, sum_length);
            *ret_state = same ? FILE_APPLIED : FILE_CHANGED;
        }
    }
    return DJ_OK;
}

static dj_status note_applied(PGconn *conn, const struct embedded_file *file) {
    char checksum[CHECKSUM_BYTES];
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    DJ_TRY(checksum_of(conn, file->text, checksum));
    params_init(&params);
    params_add_text(&params, file->name);
    params_add_text(&params, checksum);
    dj_status status = db_exec(conn, &CALL_MIGRATION_NOTE, &params, &rows);
    params_done(&params);
    return status;
}

/* Some files in one transaction. Whoever waits behind us for a lock waits half a second at most;
 * then we let go, and try again. */
static dj_status apply(PGconn *conn, const struct embedded_file *files, int count) {
    dj_status status = DJ_OK;
    for (int tries = 0; tries < MIGRATE_TRIES_MAX; tries++) {
        status = migrate_command(conn, "begin; set local lock_timeout = " MIGRATE_LOCK_TIMEOUT "; "
                                       "set local check_function_bodies = off; "
                                       "set local client_min_messages = warning");
        for (int i = 0; i < count && status == DJ_OK; i++) {
            status = migrate_command(conn, files[i].text);
            if (status != DJ_OK && status != DJ_UNAVAILABLE) {
                char reason[512];
                (void)snprintf(reason, sizeof reason, "%s", dj_error_message());
                status = dj_fail(status, "%s: %s", files[i].name, reason);
            }
        }
        for (int i = 0; i < count && status == DJ_OK; i++) {
            status = note_applied(conn, &files[i]);
        }
        if (status == DJ_OK) {
            return migrate_command(conn, "commit");
        }
        char reason[512];
        (void)snprintf(reason, sizeof reason, "%s", dj_error_message());
        if (PQstatus(conn) != CONNECTION_OK || migrate_command(conn, "rollback") != DJ_OK ||
            status != DJ_UNAVAILABLE) {
            return dj_fail(status, "%s", reason);
        }
        (void)dj_fail(status, "%s", reason);
        migrate_pause();
    }
    return status;
}

static dj_status apply_table_file(PGconn *conn, const struct embedded_file *file) {
    if (!migrate_is_concurrent(file)) {
        return apply(conn, file, 1);
    }
    DJ_TRY(migrate_indexes(conn, file));
    return note_applied(conn, file);
}

/* A newer program has been here: our functions would be a step back. */
static dj_status check_not_newer(const PGresult *applied) {
    for (int row = 0; applied != NULL && row < PQntuples(applied); row++) {
        int length;
        const char *name = text_at(applied, row, 0, &length);
        bool known = strncmp(name, "functions/", 10) == 0;
        for (int i = 0; i < migrations_count && !known; i++) {
            known = strlen(migrations[i].name) == (size_t)length &&
                    memcmp(migrations[i].name, name, (size_t)length) == 0;
        }
        if (!known) {
            return dj_fail(DJ_NOT_ALLOWED,
                           "the database has migration %.*s, which this version does not know; "
                           "migrate with the newer version that brought it",
                           length, name);
        }
    }
    return DJ_OK;
}

/* The function lets go by itself when it cannot have a lock. */
static dj_status make_partitions(PGconn *conn) {
    dj_status status = DJ_OK;
    for (int tries = 0; tries < MIGRATE_TRIES_MAX; tries++) {
        struct db_params params;
        AUTO(pgresult) PGresult *made = NULL;
        params_init(&params);
        params_add_int4(&params, WEEKS_AHEAD);
        status = db_exec(conn, &CALL_MAKE_PARTITIONS, &params, &made);
        params_done(&params);
        if (status != DJ_UNAVAILABLE || PQstatus(conn) != CONNECTION_OK) {
            return status;
        }
        migrate_pause();
    }
    return status;
}

static dj_status migrate_locked(PGconn *conn, int *ret_applied) {
    AUTO(pgresult) PGresult *applied = NULL;
    DJ_TRY(applied_list(conn, &applied));
    DJ_TRY(check_not_newer(applied));
    int first_function = 0;
    bool functions_changed = false;
    *ret_applied = 0;
    while (first_function < migrations_count && !is_function_file(&migrations[first_function])) {
        first_function++;
    }
    for (int i = 0; i < migrations_count; i++) { /* look first, so that a refusal changes nothing */
        enum file_state state;
        DJ_TRY(state_of(conn, applied, &migrations[i], &state));
        if (state == FILE_CHANGED && i < first_function) {
            return dj_fail(DJ_NOT_ALLOWED,
                           "migration %s was changed after it was applied; released table "
                           "files stay as they are, add a new file instead",
                           migrations[i].name);
        }
        functions_changed |= i >= first_function && state != FILE_APPLIED;
    }
    for (int i = 0; i < first_function; i++) {
        enum file_state state;
        DJ_TRY(state_of(conn, applied, &migrations[i], &state));
        if (state == FILE_NEW) {
            DJ_TRY(apply_table_file(conn, &migrations[i]));
            (*ret_applied)++;
        }
    }
    if (functions_changed) {
        DJ_TRY(apply(conn, &migrations[first_function], migrations_count - first_function));
        *ret_applied += migrations_count - first_function;
    }
    return make_partitions(conn);
}

dj_status migrate(PGconn *conn, int *ret_applied) {
    bool locked = false;
    for (int tries = 0; !locked; tries++) {
        DJ_TRY(call_bool(conn, &CALL_MIGRATE_LOCK, &locked));
        if (!locked && tries >= MIGRATE_TRIES_MAX) {
            return dj_fail(DJ_UNAVAILABLE,
                           "another migration is running; try again when it is done");
        }
        if (!locked) {
            sleep_ms(TURN_MS);
        }
    }
    dj_status status = migrate_locked(conn, ret_applied);
    char reason[512];
    (void)snprintf(reason, sizeof reason, "%s", dj_error_message());
    bool unlocked;
    if (PQstatus(conn) == CONNECTION_OK) {
        (void)!call_bool(conn, &CALL_MIGRATE_UNLOCK,
                         &unlocked); /* it goes with the session at the latest */
    }
    return status == DJ_OK ? DJ_OK : dj_fail(status, "%s", reason);
}

static dj_status print_state(PGconn *conn, bool json, bool plan) {
    static const char *const states[] = { "pending", "applied", "changed" };
    AUTO(pgresult) PGresult *applied = NULL;
    DJ_TRY(applied_list(conn, &applied));
    if (json) {
        (void)printf("{\"migrations\": [");
    }
    for (int i = 0; i < migrations_count; i++) {
        enum file_state state;
        DJ_TRY(state_of(conn, applied, &migrations[i], &state));
        bool refused = state == FILE_CHANGED && !is_function_file(&migrations[i]);
        if (json) {
            (void)printf("%s{\"name\": \"%s\", \"status\": \"%s\"}", i == 0 ? "" : ", ",
                         migrations[i].name, refused ? "refused" : states[state]);
        } else if (!plan) {
            (void)printf("%-8s  %s\n", refused ? "refused" : states[state], migrations[i].name);
        } else if (state != FILE_APPLIED) {
            (void)printf("%s\n", migrations[i].name);
            sql_plan_print(migrations[i].text, migrate_is_concurrent(&migrations[i]), stdout);
        }
    }
    if (json) {
        (void)printf("]}\n");
    }
    return DJ_OK;
}

dj_status command_migrate(int argc, char **argv) {
    const char *url = NULL;
    bool json = false, plan = false;
    const struct config_option options[] = {
        { .flag = "plan",
          .help = "only show what would be done, and which lock each statement takes",
          .kind = CONFIG_SWITCH,
          .target = &plan },
        { .flag = "json", .help = "print JSON", .kind = CONFIG_SWITCH, .target = &json },
        { .flag = "database-url",
          .environment = "DURABLE_DATABASE_URL",
          .value_name = "URL",
          .help = "the PostgreSQL to work on",
          .kind = CONFIG_TEXT,
          .target = &url },
        { .flag = NULL },
    };
    const struct config_command spec = { .program = "durable migrate",
                                         .arguments = "[status]",
                                         .summary = "sets a database up, or brings it up to date",
                                         .options = options,
                                         .arguments_max = 1 };
    int first, applied = 0;
    PGconn *conn;
    DJ_TRY(config_parse(&spec, argc, argv, &first));
    bool status_only = argv[first] != NULL && strcmp(argv[first], "status") == 0;
    if (argv[first] != NULL && !status_only) {
        return dj_fail(DJ_INVALID_ARGUMENT, "'%s' is not allowed here; nothing or `status` is",
                       argv[first]);
    }
    DJ_TRY(db_session_open(url, "durable migrate", &conn));
    dj_status status;
    if (status_only || plan) {
        status = print_state(conn, json, plan);
    } else {
        status = migrate(conn, &applied);
        if (status == DJ_OK && json) {
            (void)printf("{\"applied\": %d}\n", applied);
        } else if (status == DJ_OK) {
            (void)printf(applied == 0 ? "up to date\n" : "%d files applied\n", applied);
        }
    }
    db_conn_close(conn);
    return status;
}
