/* Values from the database, in its binary format. What it sends is input: each read checks, and
 * names its column. */
#ifndef COMMON_DB_ROWS_H
#define COMMON_DB_ROWS_H

#include "common/db_types.h"
#include "common/status.h"
#include "common/uuid.h"
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** DJ_INTERNAL: the rows have not exactly these columns, in binary. For answers whose columns may
 * differ between versions; each read below checks its own value anyway. */
MUST_CHECK dj_status rows_check(const PGresult *rows, int column_count, const enum db_type types[]);

bool rows_is_null(const PGresult *rows, int row, int column);

/** DJ_INTERNAL: there is no such value, it is null, or it is of another type. Texts are lent until
 *  PQclear, and closed by a zero byte. */
MUST_CHECK dj_status rows_uuid(const PGresult *rows, int row, int column, struct uuid *ret_value);
MUST_CHECK dj_status rows_int2(const PGresult *rows, int row, int column, int16_t *ret_value);
MUST_CHECK dj_status rows_int4(const PGresult *rows, int row, int column, int32_t *ret_value);
MUST_CHECK dj_status rows_int8(const PGresult *rows, int row, int column, int64_t *ret_value);
/** Microseconds since 1970, UTC. Infinity is refused as well. */
MUST_CHECK dj_status rows_timestamptz(const PGresult *rows, int row, int column, int64_t *ret_us);
MUST_CHECK dj_status rows_bool(const PGresult *rows, int row, int column, bool *ret_value);
MUST_CHECK dj_status rows_text(const PGresult *rows, int row, int column, const char **ret_text,
                               size_t *ret_length);
MUST_CHECK dj_status rows_jsonb_text(const PGresult *rows, int row, int column,
                                     const char **ret_text, size_t *ret_length);

/** A text[], read element by element; *ret_text is NULL for a null element, and else NOT closed by
 * a zero byte: the next element follows it at once. */
struct db_text_array {
    const char *at, *end;
    int count; /* of elements that are left */
};
MUST_CHECK dj_status rows_text_array(const PGresult *rows, int row, int column,
                                     struct db_text_array *ret_array);
MUST_CHECK dj_status db_text_array_next(struct db_text_array *array, const char **ret_text,
                                        size_t *ret_length);

#endif
