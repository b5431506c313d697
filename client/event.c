#include "client/client.h"

#include "common/auto.h"
#include "common/db_calls.h"

dj_status dj_send_event(dj_client *client, const char *name, json_object *payload,
                        const char *correlation_key, const char *idempotency_key,
                        char ret_event_id[DJ_ID_BYTES]) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_text(&params, name);
    params_add_json(&params, "payload", payload);
    params_add_text(&params, correlation_key);
    params_add_text(&params, idempotency_key);
    dj_status status = client_call(client, &CALL_SEND_EVENT, &params, &rows);
    params_done(&params);
    return status == DJ_OK ? rows_id(rows, 0, ret_event_id) : status;
}
