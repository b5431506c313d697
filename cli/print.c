#include "cli/print.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include <stdio.h>
#include <string.h>

#define COLUMNS_MAX 12

const char *text_at(const PGresult *rows, int row, int column, int *ret_length) {
    const char *text = "";
    size_t length = 0;
    if (rows_text(rows, row, column, &text, &length) != DJ_OK) {
        text = "";
        length = 0;
    }
    *ret_length = (int)length;
    return text;
}

/* Characters, not bytes: how wide a terminal shows it. */
static int width_of(const char *text, int length) {
    int width = 0;
    for (int i = 0; i < length; i++) {
        width += ((unsigned char)text[i] & 0xC0) != 0x80;
    }
    return width;
}

static void print_cell(const char *text, int length, int width, bool last) {
    for (int i = 0; i < length; i++) { /* whatever a message holds, it stays in its line */
        (void)putchar((unsigned char)text[i] < ' ' || text[i] == 0x7F ? ' ' : text[i]);
    }
    if (!last) {
        (void)printf("%*s", width - width_of(text, length) + 2, "");
    }
}

dj_status print_table(const PGresult *rows, const char *const headings[], int count) {
    int widths[COLUMNS_MAX];
    for (int column = 0; column < count; column++) {
        widths[column] = (int)strlen(headings[column]);
        for (int row = 0; row < PQntuples(rows); row++) {
            int length;
            const char *text = text_at(rows, row, column, &length);
            int width = width_of(text, length);
            widths[column] = width > widths[column] ? width : widths[column];
        }
    }
    for (int column = 0; column < count; column++) {
        print_cell(headings[column], (int)strlen(headings[column]), widths[column],
                   column == count - 1);
    }
    (void)putchar('\n');
    for (int row = 0; row < PQntuples(rows); row++) {
        for (int column = 0; column < count; column++) {
            int length;
            const char *text = text_at(rows, row, column, &length);
            print_cell(text, length, widths[column], column == count - 1);
        }
        (void)putchar('\n');
    }
    return DJ_OK;
}

void table_init(struct table *table, const char *const headings[], int count) {
    PGresAttDesc columns[COLUMNS_MAX] = { 0 };
    check(count <= COLUMNS_MAX);
    for (int column = 0; column < count; column++) {
        columns[column] = (PGresAttDesc){
            .name = (char *)headings[column], .format = 1, .typid = DB_TEXT, .typlen = -1
        };
    }
    *table = (struct table){ .headings = headings,
                             .count = count,
                             .rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK) };
    check(table->rows != NULL && PQsetResultAttrs(table->rows, count, columns));
}

void table_add(struct table *table, const char *const cells[]) {
    int row = PQntuples(table->rows);
    for (int column = 0; column < table->count; column++) {
        check(PQsetvalue(table->rows, row, column, (char *)cells[column],
                         (int)strlen(cells[column])));
    }
}

dj_status table_print(struct table *table) {
    dj_status status = print_table(table->rows, table->headings, table->count);
    PQclear(TAKE(table->rows));
    return status;
}

dj_status print_json(const PGresult *rows) {
    const char *text;
    size_t length;
    DJ_TRY(rows_text(rows, 0, 0, &text, &length));
    (void)printf("%.*s\n", (int)length, text);
    return DJ_OK;
}

dj_status call_once(const char *conninfo, const struct db_call *call,
                    const struct db_params *params, PGresult **ret_rows) {
    PGconn *conn;
    DJ_TRY(db_conn_open(conninfo, "durable", &conn));
    dj_status status = db_exec(conn, call, params, ret_rows);
    db_conn_close(conn);
    return status;
}
