/* Binary results: fixed sizes in network order, text as it is, jsonb behind a version byte. Any
 * thread. */
#include "common/db_rows.h"

#include <endian.h>
#include <string.h>

#define ARRAY_HEADER_BYTES 20

bool rows_is_null(const PGresult *rows, int row, int column) {
    return PQgetisnull(rows, row, column) != 0;
}

dj_status rows_check(const PGresult *rows, int column_count, const enum db_type types[]) {
    if (PQresultStatus(rows) != PGRES_TUPLES_OK || PQnfields(rows) != column_count) {
        return dj_fail(DJ_INTERNAL, "%d columns where %d were expected", PQnfields(rows),
                       column_count);
    }
    for (int i = 0; i < column_count; i++) {
        if (PQftype(rows, i) != (Oid)types[i] || PQfformat(rows, i) != 1) {
            return dj_fail(DJ_INTERNAL, "column %s is of type %u where %d was expected",
                           PQfname(rows, i), PQftype(rows, i), (int)types[i]);
        }
    }
    return DJ_OK;
}

static dj_status odd_value(const PGresult *rows, int column, const char *wanted) {
    const char *name = PQfname(rows, column);
    return dj_fail(DJ_INTERNAL, "column %s has no %s where one was expected",
                   name == NULL ? "?" : name, wanted);
}

/* The value's bytes, if they are of the type and, where `length` is not 0, of the length. */
static const char *value_of(const PGresult *rows, int row, int column, enum db_type type,
                            int length) {
    bool there = row >= 0 && row < PQntuples(rows) && column >= 0 && column < PQnfields(rows) &&
                 PQftype(rows, column) == (Oid)type && PQfformat(rows, column) == 1 &&
                 PQgetisnull(rows, row, column) == 0 &&
                 (length == 0 || PQgetlength(rows, row, column) == length);
    return there ? PQgetvalue(rows, row, column) : NULL;
}

dj_status rows_uuid(const PGresult *rows, int row, int column, struct uuid *ret_value) {
    const char *value = value_of(rows, row, column, DB_UUID, 16);
    if (value == NULL) {
        return odd_value(rows, column, "uuid");
    }
    memcpy(ret_value->bytes, value, sizeof ret_value->bytes);
    return DJ_OK;
}

static uint32_t get_be32(const char *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static int64_t get_be64(const char *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return (int64_t)be64toh(value);
}

dj_status rows_int2(const PGresult *rows, int row, int column, int16_t *ret_value) {
    const char *value = value_of(rows, row, column, DB_INT2, 2);
    if (value == NULL) {
        return odd_value(rows, column, "smallint");
    }
    uint16_t bytes;
    memcpy(&bytes, value, sizeof bytes);
    *ret_value = (int16_t)be16toh(bytes);
    return DJ_OK;
}

dj_status rows_int4(const PGresult *rows, int row, int column, int32_t *ret_value) {
    const char *value = value_of(rows, row, column, DB_INT4, 4);
    if (value == NULL) {
        return odd_value(rows, column, "integer");
    }
    *ret_value = (int32_t)get_be32(value);
    return DJ_OK;
}

dj_status rows_int8(const PGresult *rows, int row, int column, int64_t *ret_value) {
    const char *value = value_of(rows, row, column, DB_INT8, 8);
    if (value == NULL) {
        return odd_value(rows, column, "bigint");
    }
    *ret_value = get_be64(value);
    return DJ_OK;
}

dj_status rows_timestamptz(const PGresult *rows, int row, int column, int64_t *ret_us) {
    const char *value = value_of(rows, row, column, DB_TIMESTAMPTZ, 8);
    int64_t since_2000 = value == NULL ? INT64_MAX : get_be64(value);
    if (since_2000 == INT64_MIN || since_2000 > INT64_MAX - DB_EPOCH_US) {
        return odd_value(rows, column, "finite time");
    }
    *ret_us = since_2000 + DB_EPOCH_US;
    return DJ_OK;
}

dj_status rows_bool(const PGresult *rows, int row, int column, bool *ret_value) {
    const char *value = value_of(rows, row, column, DB_BOOL, 1);
    if (value == NULL) {
        return odd_value(rows, column, "boolean");
    }
    *ret_value = value[0] != 0;
    return DJ_OK;
}

dj_status rows_text(const PGresult *rows, int row, int column, const char **ret_text,
                    size_t *ret_length) {
    const char *value = value_of(rows, row, column, DB_TEXT, 0);
    if (value == NULL) {
        return odd_value(rows, column, "text");
    }
    *ret_text = value;
    *ret_length = (size_t)PQgetlength(rows, row, column);
    return DJ_OK;
}

dj_status rows_jsonb_text(const PGresult *rows, int row, int column, const char **ret_text,
                          size_t *ret_length) {
    const char *value = value_of(rows, row, column, DB_JSONB, 0);
    int length = value == NULL ? 0 : PQgetlength(rows, row, column);
    if (length < 2 || value[0] != 1) { /* its binary format: a version, then the text */
        return odd_value(rows, column, "jsonb");
    }
    *ret_text = value + 1;
    *ret_length = (size_t)length - 1;
    return DJ_OK;
}

dj_status rows_text_array(const PGresult *rows, int row, int column,
                          struct db_text_array *ret_array) {
    const char *value = value_of(rows, row, column, DB_TEXT_ARRAY, 0);
    int length = value == NULL ? 0 : PQgetlength(rows, row, column);
    uint32_t dimensions = length < 12 ? UINT32_MAX : get_be32(value);
    if (dimensions == 0) {
        *ret_array = (struct db_text_array){ .at = value + length, .end = value + length };
        return DJ_OK;
    }
    if (dimensions != 1 || length < ARRAY_HEADER_BYTES || get_be32(value + 8) != DB_TEXT) {
        return odd_value(rows, column, "one-dimensional text[]");
    }
    uint32_t count = get_be32(value + 12);
    if (count > (uint32_t)(length - ARRAY_HEADER_BYTES) / 4) { /* each element has a length */
        return odd_value(rows, column, "sound text[]");
    }
    *ret_array = (struct db_text_array){ .at = value + ARRAY_HEADER_BYTES,
                                         .end = value + length,
                                         .count = (int)count };
    return DJ_OK;
}

dj_status db_text_array_next(struct db_text_array *array, const char **ret_text,
                             size_t *ret_length) {
    if (array->count <= 0 || array->end - array->at < 4) {
        return dj_fail(DJ_INTERNAL, "an array has fewer elements than it says");
    }
    uint32_t length = get_be32(array->at);
    array->at += 4;
    array->count--;
    if (length == UINT32_MAX) {
        *ret_text = NULL;
        *ret_length = 0;
        return DJ_OK;
    }
    if (length > (size_t)(array->end - array->at)) {
        return dj_fail(DJ_INTERNAL, "an array's element is longer than the array");
    }
    *ret_text = array->at;
    *ret_length = length;
    array->at += length;
    return DJ_OK;
}
