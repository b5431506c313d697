/* Values from the database, in its binary format. What it sends is input: each read checks, and
 * names its column. */
#ifndef COMMON_DB_ROWS_H
#define COMMON_DB_ROWS_H

#include "common/status.h"
#include "common/uuid.h"
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool rows_is_null(const PGresult *rows, int row, int column);

/** DJ_INTERNAL: there is no such value, or it is of another type. Texts are lent until PQclear. */
MUST_CHECK dj_status rows_uuid(const PGresult *rows, int row, int column, struct uuid *ret_value);
MUST_CHECK dj_status rows_int4(const PGresult *rows, int row, int column, int32_t *ret_value);
MUST_CHECK dj_status rows_int8(const PGresult *rows, int row, int column, int64_t *ret_value);
MUST_CHECK dj_status rows_bool(const PGresult *rows, int row, int column, bool *ret_value);
MUST_CHECK dj_status rows_text(const PGresult *rows, int row, int column, const char **ret_text,
                               size_t *ret_length);
MUST_CHECK dj_status rows_jsonb_text(const PGresult *rows, int row, int column,
                                     const char **ret_text, size_t *ret_length);

/** A text[], read element by element; *ret_text is NULL for a null element. */
struct db_text_array {
    const char *at, *end;
    int count; /* of elements that are left */
};
MUST_CHECK dj_status rows_text_array(const PGresult *rows, int row, int column,
                                     struct db_text_array *ret_array);
MUST_CHECK dj_status db_text_array_next(struct db_text_array *array, const char **ret_text,
                                        size_t *ret_length);

#endif
