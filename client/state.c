/* State: values, counters and locks. What a row has to be is decided by the database, in one
 * statement (migrations/functions/32_state.sql). */
#include "client/client.h"

#include "common/auto.h"
#include "common/db_calls.h"
#include "common/db_rows.h"
#include "common/json.h"

/* As params_add_json, but NULL is the JSON value null. */
static void add_value(struct db_params *params, json_object *value) {
    if (value == NULL) {
        params_add_jsonb(params, "null");
    } else {
        params_add_json(params, "value", value);
    }
}

/* Calls what answers one boolean. */
static dj_status call_bool(dj_client *client, const struct db_call *call, struct db_params *params,
                           bool *ret_value) {
    AUTO(pgresult) PGresult *rows = NULL;
    bool value;
    dj_status status = client_call(client, call, params, &rows);
    params_done(params);
    DJ_TRY(status);
    DJ_TRY(rows_bool(rows, 0, 0, &value));
    if (ret_value != NULL) {
        *ret_value = value;
    }
    return DJ_OK;
}

static dj_status call_int8(dj_client *client, const struct db_call *call, struct db_params *params,
                           int64_t *ret_value) {
    AUTO(pgresult) PGresult *rows = NULL;
    int64_t value;
    dj_status status = client_call(client, call, params, &rows);
    params_done(params);
    DJ_TRY(status);
    DJ_TRY(rows_int8(rows, 0, 0, &value));
    if (ret_value != NULL) {
        *ret_value = value;
    }
    return DJ_OK;
}

dj_status dj_state_get(dj_client *client, const char *key, json_object **ret_value,
                       dj_state_info *ret_info) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    dj_state_info info = { .version = 0 };
    const char *text;
    size_t length;
    params_init(&params);
    params_add_text(&params, key);
    dj_status status = client_call(client, &CALL_STATE_GET, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    if (rows_is_null(rows, 0, STATE_VERSION)) {
        return dj_fail(DJ_NOT_FOUND, "key '%.60s' is absent", key);
    }
    DJ_TRY(rows_int8(rows, 0, STATE_VERSION, &info.version));
    if (!rows_is_null(rows, 0, STATE_EXPIRES_AT)) {
        DJ_TRY(rows_timestamptz(rows, 0, STATE_EXPIRES_AT, &info.expires_at_us));
    }
    DJ_TRY(rows_jsonb_text(rows, 0, STATE_VALUE, &text, &length));
    DJ_TRY(json_read(text, length, ret_value));
    if (ret_info != NULL) {
        *ret_info = info;
    }
    return DJ_OK;
}

dj_status dj_state_set(dj_client *client, const char *key, json_object *value,
                       const dj_state_options *options, int64_t *ret_version) {
    static const dj_state_options none;
    const dj_state_options *chosen = options == NULL ? &none : options;
    if (chosen->if_absent && chosen->if_version != 0) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "if_version and if_absent are both given; one of them is allowed");
    }
    if (chosen->if_version < 0) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "if_version %lld is out of range; a version, or 0 for any, is allowed",
                       (long long)chosen->if_version);
    }
    struct db_params params;
    params_init(&params);
    params_add_text(&params, key);
    add_value(&params, value);
    params_add_text(&params, chosen->expires_at);
    if (chosen->if_absent || chosen->if_version != 0) {
        params_add_int8(&params, chosen->if_version);
    } else {
        params_add_null(&params);
    }
    return call_int8(client, &CALL_STATE_SET, &params, ret_version);
}

dj_status dj_state_delete(dj_client *client, const char *key, bool *ret_deleted) {
    struct db_params params;
    params_init(&params);
    params_add_text(&params, key);
    return call_bool(client, &CALL_STATE_DELETE, &params, ret_deleted);
}

dj_status dj_state_increment(dj_client *client, const char *key, int64_t by, const char *expires_at,
                             int64_t *ret_sum) {
    struct db_params params;
    params_init(&params);
    params_add_text(&params, key);
    params_add_int8(&params, by);
    params_add_text(&params, expires_at);
    return call_int8(client, &CALL_STATE_INCREMENT, &params, ret_sum);
}

dj_status dj_state_lock(dj_client *client, const char *key, const char *owner, const char *ttl,
                        bool *ret_locked) {
    struct db_params params;
    params_init(&params);
    params_add_text(&params, key);
    params_add_text(&params, owner);
    params_add_duration(&params, "ttl", ttl);
    return call_bool(client, &CALL_STATE_LOCK, &params, ret_locked);
}

dj_status dj_state_unlock(dj_client *client, const char *key, const char *owner,
                          bool *ret_unlocked) {
    struct db_params params;
    params_init(&params);
    params_add_text(&params, key);
    params_add_text(&params, owner);
    return call_bool(client, &CALL_STATE_UNLOCK, &params, ret_unlocked);
}
