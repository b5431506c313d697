/* Starting runs. The database checks all arguments; durations are read here, so that both sides
 * take the same texts. */
#include "client/client.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/db_calls.h"
#include "common/json.h"
#include "common/rfc3339.h"
#include <stdio.h>
#include <string.h>

static void add_options_json(struct db_params *params, const dj_start_options *options) {
    AUTO(json) json_object *json = json_object_new_object();
    if (options->backoff != NULL) {
        json_object_object_add(json, "backoff", json_object_get(options->backoff));
    }
    if (options->restart_when_failed) {
        json_object_object_add(json, "onTerminal", json_object_new_string("restart"));
    }
    params_add_json(params, "options", json);
}

/* What start and start_many have in common, from the fifth parameter on. */
static dj_status add_options(struct db_params *params, const dj_start_options *options) {
    int64_t us;
    params_add_duration(params, "idempotency_ttl", options->idempotency_ttl);
    if (options->max_attempts == 0) {
        params_add_null(params);
    } else {
        params_add_int4(params, options->max_attempts);
    }
    if (options->scheduled_at != NULL) {
        DJ_TRY(rfc3339_parse("scheduled_at", options->scheduled_at, &us));
    }
    params_add_text(params, options->scheduled_at);
    params_add_int4(params, options->priority);
    params_add_text(params, options->concurrency_key);
    params_add_duration(params, "timeout", options->timeout);
    params_add_json(params, "tags", options->tags);
    add_options_json(params, options);
    return params_status(params);
}

static const dj_start_options defaults;

dj_status dj_start(dj_client *client, const char *job, json_object *payload,
                   const dj_start_options *options, char ret_run_id[DJ_ID_BYTES]) {
    options = options != NULL ? options : &defaults;
    struct db_params params;
    params_init(&params);
    params_add_text(&params, job);
    params_add_json(&params, "payload", payload);
    params_add_text(&params, options->queue != NULL ? options->queue : "default");
    params_add_text(&params, options->idempotency_key);
    AUTO(pgresult) PGresult *rows = NULL;
    dj_status status = add_options(&params, options);
    if (status == DJ_OK) {
        status = client_call(client, &CALL_START, &params, &rows);
    }
    params_done(&params);
    return status == DJ_OK ? rows_id(rows, 0, ret_run_id) : status;
}

static void add_payloads(struct db_params *params, size_t count, json_object *const payloads[]) {
    AUTO(buf) struct buf text;
    buf_init(&text, PAYLOAD_BYTES_MAX);
    params_array_begin(params, DB_JSONB);
    for (size_t i = 0; i < count; i++) {
        char argument[40];
        (void)snprintf(argument, sizeof argument, "payloads[%zu]", i);
        buf_reset(&text);
        dj_status status = payloads[i] == NULL
                               ? buf_add_text(&text, "{}")
                               : json_print(argument, payloads[i], PAYLOAD_BYTES_MAX, &text);
        if (status != DJ_OK) {
            params->status = status;
            break;
        }
        params_array_jsonb(params, text.data);
    }
    params_array_end(params);
}

dj_status dj_start_many(dj_client *client, const char *job, size_t count,
                        json_object *const payloads[], const char *const idempotency_keys[],
                        const dj_start_options *options, char (*ret_run_ids)[DJ_ID_BYTES]) {
    options = options != NULL ? options : &defaults;
    if (options->idempotency_key != NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "options.idempotency_key is not allowed for many runs; give "
                       "idempotency_keys, one for each");
    }
    struct db_params params;
    params_init(&params);
    params_add_text(&params, job);
    add_payloads(&params, count, payloads);
    params_add_text(&params, options->queue != NULL ? options->queue : "default");
    if (idempotency_keys == NULL) {
        params_add_null(&params);
    } else {
        params_array_begin(&params, DB_TEXT);
        for (size_t i = 0; i < count; i++) {
            params_array_text(&params, idempotency_keys[i]);
        }
        params_array_end(&params);
    }
    AUTO(pgresult) PGresult *rows = NULL;
    dj_status status = add_options(&params, options);
    if (status == DJ_OK) {
        status = client_call(client, &CALL_START_MANY, &params, &rows);
    }
    params_done(&params);
    DJ_TRY(status);
    if ((size_t)PQntuples(rows) != count) {
        return dj_fail(DJ_INTERNAL, "%d runs were started where %zu were asked for",
                       PQntuples(rows), count);
    }
    for (size_t i = 0; i < count; i++) {
        DJ_TRY(rows_id(rows, (int)i, ret_run_ids[i]));
    }
    return DJ_OK;
}
