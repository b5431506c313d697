/* Loads the functions of migrations/ once more, with each `-- FAILPOINT name` in them made a call.
 * By `if`, which unlike `perform` leaves FOUND and ROW_COUNT as they were. */
#include "interleavings.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POINTS_MAX 128
#define COMMENT "-- FAILPOINT "

static char names[POINTS_MAX][48];
static int count;

int points_count(void) {
    return count;
}

const char *point_name(int point) {
    return names[point];
}

int point_find(const char *name) {
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    fail_msg("the point %s is not known", name);
    return -1;
}

static char *read_whole(const char *path) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    assert_true(size > 0);
    rewind(file);
    char *text = calloc(1, (size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, file), (size_t)size);
    (void)fclose(file);
    return text;
}

static void load(PGconn *conn, const char *path) {
    char *text = read_whole(path), *out = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&out, &size);
    assert_non_null(stream);
    char *rest = text;
    for (char *at; (at = strstr(rest, COMMENT)) != NULL;) {
        char *name = at + strlen(COMMENT), *end = name + strcspn(name, "\n");
        assert_true(count < POINTS_MAX && (size_t)(end - name) < sizeof names[0]);
        (void)snprintf(names[count++], sizeof names[0], "%.*s", (int)(end - name), name);
        (void)fprintf(stream, "%.*sif durable_internal.failpoint('%.*s') then null; end if;",
                      (int)(at - rest), rest, (int)(end - name), name);
        rest = end;
    }
    (void)fputs(rest, stream);
    (void)fclose(stream);
    PGresult *result = PQexec(conn, out);
    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK) {
        fail_msg("%s: %s", path, PQresultErrorMessage(result));
    }
    PQclear(result);
    free(out);
    free(text);
}

void points_load(PGconn *conn) {
    char path[512];
    const char *build = getenv("DURABLE_BUILD");
    assert_non_null(build);
    (void)snprintf(path, sizeof path, "%s/../../tests/interleavings/world.sql", build);
    load(conn, path);
    const char *folder = getenv("INTERLEAVINGS_FUNCTIONS"); /* of tests/mutations */
    (void)snprintf(path, sizeof path, "%s%s/*.sql", folder == NULL ? build : folder,
                   folder == NULL ? "/../../migrations/functions" : "");
    glob_t found = { 0 };
    assert_int_equal(glob(path, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        load(conn, found.gl_pathv[i]);
    }
    globfree(&found);
    sql(conn, "select interleave.be_patient()");

    char *body = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&body, &size);
    assert_non_null(stream);
    for (size_t i = 0; i < invariants_count; i++) {
        (void)fprintf(stream,
                      "if exists (%s) then return next $p$it is not so that %s$p$; end if; ",
                      invariants[i].offenders, invariants[i].promise);
    }
    (void)fclose(stream);
    sql(conn,
        "create function interleave.broken() returns setof text language plpgsql volatile as "
        "$$ begin %s end $$",
        body);
    free(body);
}
