#include "client/client.h"

#include "common/auto.h"
#include "common/db_calls.h"
#include "common/db_rows.h"

dj_status dj_cancel(dj_client *client, const char *run_id, const char *reason,
                    bool *ret_cancelled) {
    struct uuid id;
    DJ_TRY(uuid_parse("run_id", run_id, &id));
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_uuid(&params, &id);
    params_add_text(&params, reason);
    dj_status status = client_call(client, &CALL_CANCEL, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    bool cancelled;
    DJ_TRY(rows_bool(rows, 0, 0, &cancelled));
    if (ret_cancelled != NULL) {
        *ret_cancelled = cancelled;
    }
    return DJ_OK;
}

dj_status dj_retry(dj_client *client, const char *run_id, int max_attempts) {
    struct uuid id;
    DJ_TRY(uuid_parse("run_id", run_id, &id));
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_uuid(&params, &id);
    if (max_attempts == 0) {
        params_add_null(&params);
    } else {
        params_add_int4(&params, max_attempts);
    }
    dj_status status = client_call(client, &CALL_RETRY, &params, &rows);
    params_done(&params);
    return status;
}
