/* Values on their way to the database, in its binary format: one buffer for all values of a call.
 *
 *     struct db_params params;
 *     params_init(&params);
 *     params_add_uuid(&params, &worker_id);
 *     params_array_begin(&params, DB_INT8);
 *     params_array_int8(&params, fence);
 *     params_array_end(&params);
 *     DJ_TRY(db_exec(conn, &CALL_BEAT, &params, &rows));    (and params_done on every way out)
 *
 * The first failure is kept, and what follows it does nothing: so one look, at params_status, is
 * enough. */
#ifndef COMMON_DB_PARAMS_H
#define COMMON_DB_PARAMS_H

#include "common/buf.h"
#include "common/db_types.h"
#include "common/status.h"
#include "common/uuid.h"
#include <stdbool.h>
#include <stdint.h>

#define DB_PARAMS_MAX 24
#define DB_PARAMS_BYTES_MAX ((size_t)512 * 1024 * 1024)

struct db_params {
    struct buf bytes;
    int count;
    int lengths[DB_PARAMS_MAX];
    int formats[DB_PARAMS_MAX];
    size_t starts[DB_PARAMS_MAX]; /* SIZE_MAX: null */
    const char *values[DB_PARAMS_MAX];
    dj_status status;  /* the first failure; all later calls do nothing */
    int array_element; /* the type of the array that is open; 0: none is */
    int array_count;
};

void params_init(struct db_params *params);
void params_done(struct db_params *params);

/** DJ_OK if all values went in. */
MUST_CHECK dj_status params_status(const struct db_params *params);

/** The values as libpq wants them; good until the next change. */
const char *const *params_values(const struct db_params *params);

void params_add_uuid(struct db_params *params, const struct uuid *value);
void params_add_int2(struct db_params *params, int16_t value);
void params_add_int4(struct db_params *params, int32_t value);
void params_add_int8(struct db_params *params, int64_t value);
void params_add_bool(struct db_params *params, bool value);
void params_add_text(struct db_params *params, const char *value);  /* NULL: null */
void params_add_jsonb(struct db_params *params, const char *value); /* JSON text; NULL: null */
void params_add_timestamptz(struct db_params *params, int64_t us);  /* since 1970, UTC */
void params_add_null(struct db_params *params);

/** An array: begin with its elements' type, add elements of that type, end. */
void params_array_begin(struct db_params *params, enum db_type element);
void params_array_uuid(struct db_params *params, const struct uuid *value);
void params_array_bool(struct db_params *params, bool value);
void params_array_int2(struct db_params *params, int16_t value);
void params_array_int4(struct db_params *params, int32_t value);
void params_array_int8(struct db_params *params, int64_t value);
void params_array_text(struct db_params *params, const char *value);  /* NULL: null */
void params_array_jsonb(struct db_params *params, const char *value); /* JSON text; NULL: null */
void params_array_timestamptz(struct db_params *params, int64_t us);
void params_array_null(struct db_params *params);
void params_array_end(struct db_params *params);

#endif
