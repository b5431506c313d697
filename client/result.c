/* Looking at runs, and waiting for their end: by looking again, a little later each time. */
#include "client/client.h"

#include "common/auto.h"
#include "common/clock.h"
#include "common/db_calls.h"
#include "common/db_rows.h"
#include "common/json.h"
#include <string.h>
#include <time.h>

#define LOOK_MS_MIN 2
#define LOOK_MS_MAX 250

static dj_status call_with_id(dj_client *client, const struct db_call *call, const char *run_id,
                              PGresult **ret_rows) {
    struct uuid id;
    DJ_TRY(uuid_parse("run_id", run_id, &id));
    struct db_params params;
    params_init(&params);
    params_add_uuid(&params, &id);
    dj_status status = client_call(client, call, &params, ret_rows);
    params_done(&params);
    if (status == DJ_OK && PQntuples(*ret_rows) == 0) {
        return dj_fail(DJ_NOT_FOUND, "run %s is not there", run_id);
    }
    return status;
}

static dj_status read_json(const PGresult *rows, int column, json_object **ret_value) {
    const char *text;
    size_t length;
    *ret_value = NULL;
    if (rows_is_null(rows, 0, column)) {
        return DJ_OK;
    }
    DJ_TRY(rows_jsonb_text(rows, 0, column, &text, &length));
    return json_read(text, length, ret_value);
}

dj_status dj_run_get(dj_client *client, const char *run_id, json_object **ret_run) {
    AUTO(pgresult) PGresult *rows = NULL;
    DJ_TRY(call_with_id(client, &CALL_RUN_GET, run_id, &rows));
    return read_json(rows, 0, ret_run);
}

/* DJ_TIMEOUT: it has not ended. */
static dj_status result_look(dj_client *client, const char *run_id, json_object **ret_result) {
    AUTO(pgresult) PGresult *rows = NULL;
    DJ_TRY(call_with_id(client, &CALL_RESULT, run_id, &rows));
    const char *status;
    size_t length;
    DJ_TRY(rows_text(rows, 0, RESULT_STATUS, &status, &length));
    if (length == 9 && memcmp(status, "completed", 9) == 0) {
        return read_json(rows, RESULT_RESULT, ret_result);
    }
    bool failed = length == 6 && memcmp(status, "failed", 6) == 0;
    bool cancelled = length == 9 && memcmp(status, "cancelled", 9) == 0;
    if (!failed && !cancelled) {
        return dj_fail(DJ_TIMEOUT, "run %s has not ended: it is %.*s", run_id, (int)length, status);
    }
    AUTO(json) json_object *error = NULL;
    DJ_TRY(read_json(rows, RESULT_ERROR, &error));
    const char *message = json_object_get_string(json_object_object_get(error, "message"));
    return dj_fail(failed ? DJ_FAILED : DJ_CANCELLED, "%s",
                   message != NULL ? message : "no reason is known");
}

dj_status dj_result_wait(dj_client *client, const char *run_id, int64_t timeout_ms,
                         json_object **ret_result) {
    int64_t until = clock_ms() + timeout_ms;
    int64_t rest = LOOK_MS_MIN;
    for (;;) {
        dj_status status = result_look(client, run_id, ret_result);
        int64_t left = until - clock_ms();
        if (status != DJ_TIMEOUT || left <= 0) {
            return status;
        }
        int64_t ms = rest < left ? rest : left;
        struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000 };
        (void)nanosleep(&pause, NULL);
        rest = rest * 2 < LOOK_MS_MAX ? rest * 2 : LOOK_MS_MAX;
    }
}
