/* Opening, closing and calling. Blocking; one thread at a time. */
#include "client/client.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include "common/duration.h"
#include "common/json.h"
#include <stdio.h>
#include <stdlib.h>

dj_status dj_client_wrap(PGconn *conn, dj_client **ret_client) {
    if (conn == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "conn must not be NULL; an open connection is allowed");
    }
    dj_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a client");
    }
    client->conn = conn;
    *ret_client = client;
    return DJ_OK;
}

dj_status dj_client_open(const char *conninfo, dj_client **ret_client) {
    PGconn *conn;
    DJ_TRY(db_session_open(conninfo, "durable-client", &conn));
    dj_status status = dj_client_wrap(conn, ret_client);
    if (status != DJ_OK) {
        db_conn_close(conn);
        return status;
    }
    (*ret_client)->owned = true;
    return DJ_OK;
}

void dj_client_close(dj_client *client) {
    if (client != NULL && client->owned) {
        db_conn_close(client->conn);
    }
    free(client);
}

static dj_status client_reconnect(dj_client *client) {
    client->lost = true; /* until its session is one of ours again */
    PQreset(client->conn);
    if (PQstatus(client->conn) != CONNECTION_OK) {
        return dj_fail_pg(client->conn);
    }
    DJ_TRY(db_session_set(client->conn, ""));
    client->lost = false;
    return DJ_OK;
}

dj_status client_call(dj_client *client, const struct db_call *call, const struct db_params *params,
                      PGresult **ret_rows) {
    if (client->owned && (client->lost || PQstatus(client->conn) != CONNECTION_OK)) {
        DJ_TRY(client_reconnect(client));
    }
    return db_exec(client->conn, call, params, ret_rows);
}

void params_add_json(struct db_params *params, const char *argument, json_object *value) {
    if (value == NULL) {
        params_add_jsonb(params, "{}");
        return;
    }
    AUTO(buf) struct buf text;
    buf_init(&text, PAYLOAD_BYTES_MAX);
    dj_status status = json_print(argument, value, PAYLOAD_BYTES_MAX, &text);
    params_add_jsonb(params, status == DJ_OK ? text.data : NULL);
    if (params->status == DJ_OK) {
        params->status = status;
    }
}

void params_add_duration(struct db_params *params, const char *argument, const char *duration) {
    char text[48];
    int64_t ms = 0;
    if (duration == NULL) {
        params_add_null(params);
        return;
    }
    dj_status status = duration_parse(argument, duration, &ms);
    (void)snprintf(text, sizeof text, "%lld milliseconds", (long long)ms);
    params_add_text(params, text);
    if (params->status == DJ_OK) {
        params->status = status;
    }
}

dj_status rows_id(const PGresult *rows, int row, char ret_id[DJ_ID_BYTES]) {
    struct uuid id;
    DJ_TRY(rows_uuid(rows, row, 0, &id));
    uuid_print(&id, ret_id);
    return DJ_OK;
}
