/* Values are written one behind the other into one buffer; where each begins is noted, and becomes
 * a pointer when the buffer moves no more. One thread at a time. */
#include "common/db_params.h"

#include "common/check.h"
#include <endian.h>
#include <string.h>

#define ARRAY_HEADER_BYTES 20

void params_init(struct db_params *params) {
    *params = (struct db_params){ .status = DJ_OK };
    buf_init(&params->bytes, DB_PARAMS_BYTES_MAX);
}

void params_done(struct db_params *params) {
    buf_done(&params->bytes);
}

dj_status params_status(const struct db_params *params) {
    return params->status;
}

const char *const *params_values(const struct db_params *params) {
    assert(params->array_element == 0);
    struct db_params *filled =
        (struct db_params *)params; /* where the buffer lies is known only now */
    for (int i = 0; i < params->count; i++) {
        filled->values[i] =
            params->starts[i] == SIZE_MAX ? NULL : params->bytes.data + params->starts[i];
    }
    return params->values;
}

/* Room for so many bytes more; NULL after a failure. */
static char *room(struct db_params *params, size_t length) {
    if (params->status != DJ_OK) {
        return NULL;
    }
    char *at = buf_grow(&params->bytes, length);
    if (at == NULL) {
        bool large = length > params->bytes.bytes_max - params->bytes.length;
        params->status = large ? DJ_TOO_LARGE : DJ_NO_MEMORY;
    }
    return at;
}

static void put_be16(char *at, uint16_t value) {
    value = htobe16(value);
    memcpy(at, &value, sizeof value);
}

static void put_be32(char *at, uint32_t value) {
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

static void put_be64(char *at, uint64_t value) {
    value = htobe64(value);
    memcpy(at, &value, sizeof value);
}

/* Single values. */

static void param_begin(struct db_params *params) {
    assert(params->array_element == 0);
    assert(params->count < DB_PARAMS_MAX);
    params->starts[params->count] = params->bytes.length;
    params->formats[params->count] = 1;
}

static void param_end(struct db_params *params) {
    params->lengths[params->count] = (int)(params->bytes.length - params->starts[params->count]);
    params->count++;
}

static void add_bytes(struct db_params *params, const void *bytes, size_t length) {
    char *at = room(params, length);
    if (at != NULL && length > 0) {
        memcpy(at, bytes, length);
    }
}

void params_add_null(struct db_params *params) {
    param_begin(params);
    params->starts[params->count] = SIZE_MAX;
    params->lengths[params->count] = 0;
    params->count++;
}

void params_add_uuid(struct db_params *params, const struct uuid *value) {
    param_begin(params);
    add_bytes(params, value->bytes, sizeof value->bytes);
    param_end(params);
}

void params_add_int2(struct db_params *params, int16_t value) {
    param_begin(params);
    char *at = room(params, 2);
    if (at != NULL) {
        put_be16(at, (uint16_t)value);
    }
    param_end(params);
}

void params_add_int4(struct db_params *params, int32_t value) {
    param_begin(params);
    char *at = room(params, 4);
    if (at != NULL) {
        put_be32(at, (uint32_t)value);
    }
    param_end(params);
}

void params_add_int8(struct db_params *params, int64_t value) {
    param_begin(params);
    char *at = room(params, 8);
    if (at != NULL) {
        put_be64(at, (uint64_t)value);
    }
    param_end(params);
}

/* What PostgreSQL cannot count is out of every range we let in; its ends mean infinity there. */
static int64_t since_2000(int64_t us) {
    return us < INT64_MIN + DB_EPOCH_US ? INT64_MIN : us - DB_EPOCH_US;
}

void params_add_timestamptz(struct db_params *params, int64_t us) {
    params_add_int8(params, since_2000(us));
}

void params_add_bool(struct db_params *params, bool value) {
    param_begin(params);
    add_bytes(params, value ? "\1" : "\0", 1);
    param_end(params);
}

void params_add_text(struct db_params *params, const char *value) {
    if (value == NULL) {
        params_add_null(params);
        return;
    }
    param_begin(params);
    add_bytes(params, value, strlen(value));
    param_end(params);
}

void params_add_jsonb(struct db_params *params, const char *value) {
    if (value == NULL) {
        params_add_null(params);
        return;
    }
    param_begin(params);
    add_bytes(params, "\1", 1); /* jsonb's binary format: a version, then the text */
    add_bytes(params, value, strlen(value));
    param_end(params);
}

/* Arrays: dimensions, has nulls, element type, length, lower bound; then each element with its
 * length. */

void params_array_begin(struct db_params *params, enum db_type element) {
    param_begin(params);
    params->array_element = (int)element;
    params->array_count = 0;
    char *at = room(params, ARRAY_HEADER_BYTES);
    if (at != NULL) {
        put_be32(at, 1);
        put_be32(at + 4, 0);
        put_be32(at + 8, element);
        put_be32(at + 12, 0);
        put_be32(at + 16, 1);
    }
}

void params_array_end(struct db_params *params) {
    assert(params->array_element != 0);
    if (params->status == DJ_OK) {
        char *header = params->bytes.data + params->starts[params->count];
        put_be32(header + 12, (uint32_t)params->array_count);
        if (params->array_count == 0) { /* an empty array has no dimension, and ends there */
            put_be32(header, 0);
            params->bytes.length = params->starts[params->count] + 12;
        }
    }
    params->array_element = 0;
    param_end(params);
}

/* Room for one more element of so many bytes, behind its length. NULL after a failure. */
static char *element_room(struct db_params *params, enum db_type type, size_t length) {
    assert(params->array_element == (int)type);
    char *at = room(params, 4 + length);
    if (at == NULL) {
        return NULL;
    }
    put_be32(at, (uint32_t)length);
    params->array_count++;
    return at + 4;
}

void params_array_null(struct db_params *params) {
    assert(params->array_element != 0);
    char *at = room(params, 4);
    if (at != NULL) {
        put_be32(at, UINT32_MAX);
        put_be32(params->bytes.data + params->starts[params->count] + 4, 1); /* has nulls */
        params->array_count++;
    }
}

void params_array_uuid(struct db_params *params, const struct uuid *value) {
    char *at = element_room(params, DB_UUID, sizeof value->bytes);
    if (at != NULL) {
        memcpy(at, value->bytes, sizeof value->bytes);
    }
}

void params_array_bool(struct db_params *params, bool value) {
    char *at = element_room(params, DB_BOOL, 1);
    if (at != NULL) {
        *at = value ? 1 : 0;
    }
}

void params_array_int2(struct db_params *params, int16_t value) {
    char *at = element_room(params, DB_INT2, 2);
    if (at != NULL) {
        put_be16(at, (uint16_t)value);
    }
}

void params_array_int4(struct db_params *params, int32_t value) {
    char *at = element_room(params, DB_INT4, 4);
    if (at != NULL) {
        put_be32(at, (uint32_t)value);
    }
}

void params_array_int8(struct db_params *params, int64_t value) {
    char *at = element_room(params, DB_INT8, 8);
    if (at != NULL) {
        put_be64(at, (uint64_t)value);
    }
}

void params_array_timestamptz(struct db_params *params, int64_t us) {
    char *at = element_room(params, DB_TIMESTAMPTZ, 8);
    if (at != NULL) {
        put_be64(at, (uint64_t)since_2000(us));
    }
}

/* `version` is what the type has before the text. */
static void element_text(struct db_params *params, enum db_type type, const char *version,
                         const char *value) {
    size_t before = strlen(version);
    size_t length = strlen(value);
    char *at = element_room(params, type, before + length);
    if (at != NULL) {
        (void)mempcpy(mempcpy(at, version, before), value, length);
    }
}

void params_array_text(struct db_params *params, const char *value) {
    if (value == NULL) {
        params_array_null(params);
        return;
    }
    element_text(params, DB_TEXT, "", value);
}

void params_array_jsonb(struct db_params *params, const char *value) {
    if (value == NULL) {
        params_array_null(params);
        return;
    }
    element_text(params, DB_JSONB, "\1", value);
}
