/* What commands print: tables for people, JSON for programs. */
#ifndef CLI_PRINT_H
#define CLI_PRINT_H

#include "common/buf.h"
#include "common/json.h"
#include "common/status.h"
#include <libpq-fe.h>

/** A column of a table: a field of each item, as it is, or as `print` adds it to a cell. `field` ""
 * is the whole item. */
struct column {
    const char *heading, *field;
    void (*print)(struct json_slice value, struct buf *cell);
};

void cell_add(struct buf *cell, const char *text);
void cell_add_field(struct buf *cell, struct json_slice object, const char *path);
void cell_json(struct json_slice value, struct buf *cell); /* a string with its quotes */
void cell_time(struct json_slice value, struct buf *cell); /* in UTC, without the T */
void cell_list(struct json_slice value, struct buf *cell); /* with commas between */
void cell_yes(struct json_slice value, struct buf *cell);  /* yes, or nothing */

/** Prints a JSON list as a table, aligned, with its headings. */
MUST_CHECK dj_status print_table(struct json_slice list, const struct column columns[], int count);

/** The same for one item. */
MUST_CHECK dj_status print_row(struct json_slice item, const struct column columns[], int count);

/** … as a line for each column that has something. */
void print_fields(struct json_slice item, const struct column columns[], int count);

/** Prints a text within its line: whatever a message holds, it does not steer a terminal. */
void print_text(const char *text);

/** A text of a result, for printf's %.*s. "" where there is none. */
const char *text_at(const PGresult *rows, int row, int column, int *ret_length);

#endif
