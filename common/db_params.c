#include "common/db_params.h"

#include "common/check.h"
#include <arpa/inet.h>
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
        params->status = DJ_NO_MEMORY;
    }
    return at;
}

static void param_begin(struct db_params *params) {
    assert(params->count < DB_PARAMS_MAX);
    params->starts[params->count] = params->bytes.length;
    params->formats[params->count] = 1;
}

static void param_end(struct db_params *params) {
    params->lengths[params->count] = (int)(params->bytes.length - params->starts[params->count]);
    params->count++;
}

static void put_be32(char *at, uint32_t value) {
    value = htonl(value);
    memcpy(at, &value, sizeof value);
}

static void put_be64(char *at, uint64_t value) {
    value = htobe64(value);
    memcpy(at, &value, sizeof value);
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
    params->array_count = 0;
    char *at = room(params, ARRAY_HEADER_BYTES);
    if (at != NULL) {
        put_be32(at, 1);
        put_be32(at + 4, 1);
        put_be32(at + 8, element);
        put_be32(at + 12, 0);
        put_be32(at + 16, 1);
    }
}

void params_array_end(struct db_params *params) {
    if (params->status == DJ_OK) {
        char *header = params->bytes.data + params->starts[params->count];
        put_be32(header + 12, (uint32_t)params->array_count);
        if (params->array_count == 0) { /* an empty array has no dimension, and ends there */
            put_be32(header, 0);
            put_be32(header + 4, 0);
            params->bytes.length = params->starts[params->count] + 12;
        }
    }
    param_end(params);
}

void params_array_uuid(struct db_params *params, const struct uuid *value) {
    char *at = room(params, 4 + sizeof value->bytes);
    if (at != NULL) {
        put_be32(at, sizeof value->bytes);
        memcpy(at + 4, value->bytes, sizeof value->bytes);
        params->array_count++;
    }
}

void params_array_int4(struct db_params *params, int32_t value) {
    char *at = room(params, 8);
    if (at != NULL) {
        put_be32(at, 4);
        put_be32(at + 4, (uint32_t)value);
        params->array_count++;
    }
}

void params_array_int8(struct db_params *params, int64_t value) {
    char *at = room(params, 12);
    if (at != NULL) {
        put_be32(at, 8);
        put_be64(at + 4, (uint64_t)value);
        params->array_count++;
    }
}

static void array_add(struct db_params *params, const char *prefix, const char *value) {
    size_t prefix_length = strlen(prefix);
    size_t length = value == NULL ? 0 : prefix_length + strlen(value);
    char *at = room(params, 4 + length);
    if (at == NULL) {
        return;
    }
    put_be32(at, value == NULL ? UINT32_MAX : (uint32_t)length);
    if (value != NULL) {
        memcpy(at + 4, prefix, prefix_length);
        memcpy(at + 4 + prefix_length, value, length - prefix_length);
    }
    params->array_count++;
}

void params_array_text(struct db_params *params, const char *value) {
    array_add(params, "", value);
}

void params_array_jsonb(struct db_params *params, const char *value) {
    array_add(params, "\1", value);
}
