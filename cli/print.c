#include "cli/print.h"

#include "cli/answer.h"
#include "common/auto.h"
#include "common/check.h"
#include "common/db_rows.h"
#include <stdio.h>
#include <stdlib.h>
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

void cell_add(struct buf *cell, const char *text) {
    check(buf_add_text(cell, text) == DJ_OK);
}

void cell_add_field(struct buf *cell, struct json_slice object, const char *path) {
    AUTO(free) char *text = answer_text(object, path);
    cell_add(cell, text);
}

void cell_json(struct json_slice value, struct buf *cell) {
    if (answer_has(value, "")) {
        check(buf_add(cell, value.text, value.length) == DJ_OK);
    }
}

void cell_time(struct json_slice value, struct buf *cell) {
    AUTO(free) char *text = answer_text(value, "");
    if (strlen(text) > 19 && text[10] == 'T') {
        text[10] = ' ';
        text[19] = '\0';
    }
    cell_add(cell, text);
}

void cell_list(struct json_slice value, struct buf *cell) {
    struct json_slice none, item;
    struct json_walk walk;
    bool more;
    if (value.text == NULL || json_walk_begin(&walk, "the answer", value.text, value.length,
                                              /* object= */ false) != DJ_OK) {
        return;
    }
    while (json_walk_next(&walk, &more, &none, &item) == DJ_OK && more) {
        cell_add(cell, cell->length == 0 ? "" : ",");
        cell_add_field(cell, item, "");
    }
}

void cell_yes(struct json_slice value, struct buf *cell) {
    cell_add(cell, answer_is(value, "", "true") ? "yes" : "");
}

/* Characters, not bytes: how wide a terminal shows it. */
static int width_of(const char *text) {
    int width = 0;
    for (; *text != '\0'; text++) {
        width += ((unsigned char)*text & 0xC0) != 0x80;
    }
    return width;
}

void print_text(const char *text) {
    for (; *text != '\0'; text++) {
        (void)putchar((unsigned char)*text < ' ' || *text == 0x7F ? ' ' : *text);
    }
}

static char *cell_of(struct json_slice item, const struct column *column) {
    struct buf cell;
    buf_init(&cell, ANSWER_BYTES_MAX);
    if (column->print == NULL) {
        cell_add_field(&cell, item, column->field);
    } else {
        column->print(answer_at(item, column->field), &cell);
    }
    char *text = buf_take(&cell);
    check(text != NULL);
    return text;
}

/* The cells of all rows, one after the other; the headings are the first row. */
struct table {
    char **cells;
    int columns;
    size_t count;
};

static void table_add(struct table *table, char *cell) {
    table->cells = realloc(table->cells, (table->count + 1) * sizeof *table->cells);
    check(table->cells != NULL && cell != NULL);
    table->cells[table->count++] = cell;
}

static void table_add_row(struct table *table, struct json_slice item,
                          const struct column columns[]) {
    for (int i = 0; i < table->columns; i++) {
        table_add(table, cell_of(item, &columns[i]));
    }
}

static void table_print(const struct table *table) {
    int widths[COLUMNS_MAX] = { 0 };
    for (size_t i = 0; i < table->count; i++) {
        int *width = &widths[i % (size_t)table->columns];
        *width = width_of(table->cells[i]) > *width ? width_of(table->cells[i]) : *width;
    }
    for (size_t i = 0; i < table->count; i++) {
        int column = (int)(i % (size_t)table->columns);
        print_text(table->cells[i]);
        if (column == table->columns - 1) {
            (void)putchar('\n');
        } else {
            (void)printf("%*s", widths[column] - width_of(table->cells[i]) + 2, "");
        }
    }
}

static void table_done(struct table *table) {
    for (size_t i = 0; i < table->count; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
}

dj_status print_table(struct json_slice list, const struct column columns[], int count) {
    struct table table = { .columns = count };
    struct json_slice none, item;
    struct json_walk walk;
    bool more = true;
    check(count <= COLUMNS_MAX);
    DJ_TRY(json_walk_begin(&walk, "the answer", list.text == NULL ? "" : list.text, list.length,
                           /* object= */ false));
    for (int i = 0; i < count; i++) {
        table_add(&table, strdup(columns[i].heading));
    }
    dj_status status = json_walk_next(&walk, &more, &none, &item);
    while (status == DJ_OK && more) {
        table_add_row(&table, item, columns);
        status = json_walk_next(&walk, &more, &none, &item);
    }
    if (status == DJ_OK) {
        table_print(&table);
    }
    table_done(&table);
    return status;
}

dj_status print_row(struct json_slice item, const struct column columns[], int count) {
    AUTO(buf) struct buf list;
    buf_init(&list, ANSWER_BYTES_MAX);
    DJ_TRY(buf_add_text(&list, "["));
    DJ_TRY(buf_add(&list, item.text, item.length));
    DJ_TRY(buf_add_text(&list, "]"));
    return print_table(answer_of(list.data), columns, count);
}

void print_fields(struct json_slice item, const struct column columns[], int count) {
    for (int i = 0; i < count; i++) {
        AUTO(free) char *text = cell_of(item, &columns[i]);
        if (text[0] != '\0') {
            (void)printf("%-8s ", columns[i].heading);
            print_text(text);
            (void)putchar('\n');
        }
    }
}
