/* What commands print: tables for people, JSON for programs. */
#ifndef CLI_PRINT_H
#define CLI_PRINT_H

#include "common/db_calls.h"
#include "common/db_params.h"
#include "common/status.h"
#include <libpq-fe.h>

/** Prints a result whose columns are texts, aligned, with a heading for each column. */
MUST_CHECK dj_status print_table(const PGresult *rows, const char *const headings[], int count);

/** The same for what is not in a result: texts are copied, `table_print` frees. */
struct table {
    const char *const *headings;
    int count;
    PGresult *rows;
};
void table_init(struct table *table, const char *const headings[], int count);
void table_add(struct table *table, const char *const cells[]);
MUST_CHECK dj_status table_print(struct table *table);

/** Prints the one text of a result as it is: JSON that the database has made. */
MUST_CHECK dj_status print_json(const PGresult *rows);

/** A text of a result, for printf's %.*s. "" where there is none. */
const char *text_at(const PGresult *rows, int row, int column, int *ret_length);

/** Connects, calls once, and closes. */
MUST_CHECK dj_status call_once(const char *conninfo, const struct db_call *call,
                               const struct db_params *params, PGresult **ret_rows);

#endif
