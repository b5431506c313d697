#include "cli/backend.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/check.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include "common/duration.h"
#include "common/json.h"
#include "common/rfc3339.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES_MAX 8192
#define BODY_BYTES_MAX ((size_t)2 * PAYLOAD_BYTES_MAX)

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value == NULL || value[0] == '\0' ? NULL : value;
}

dj_status backend_open(struct backend *backend) {
    struct server *server = &backend->server;
    backend->conn = NULL;
    if (server->url != NULL && backend->database_url != NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "--url and --database-url together are not allowed; "
                                            "one of them is");
    }
    if (server->url == NULL && backend->database_url == NULL) {
        backend->database_url = variable("DURABLE_DATABASE_URL");
        server->url = backend->database_url == NULL ? variable("DURABLE_URL") : NULL;
    }
    if (server->url == NULL && backend->database_url == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "no database and no server is named; set DURABLE_DATABASE_URL, or "
                       "DURABLE_URL and DURABLE_API_KEY");
    }
    return server->url != NULL ? DJ_OK
                               : db_session_open(backend->database_url, "durable", &backend->conn);
}

void backend_close(struct backend *backend) {
    db_conn_close(TAKE(backend->conn));
}

void ask_init(struct ask *ask, const char *method, const char *path, const struct db_call *call) {
    *ask = (struct ask){ .method = method, .call = call };
    buf_init(&ask->path, PATH_BYTES_MAX);
    buf_init(&ask->body, BODY_BYTES_MAX);
    params_init(&ask->params);
    ask_path(ask, path);
}

void ask_done(struct ask *ask) {
    buf_done(&ask->path);
    buf_done(&ask->body);
    params_done(&ask->params);
}

void ask_path(struct ask *ask, const char *more) {
    if (ask->status == DJ_OK) {
        ask->status = buf_add_text(&ask->path, more);
    }
}

/* Dots too: to a client, `..` would be the folder above. */
static dj_status add_encoded(struct buf *path, const char *text) {
    for (; *text != '\0'; text++) {
        DJ_TRY(buf_addf(path, "%%%02X", (unsigned)(unsigned char)*text));
    }
    return DJ_OK;
}

void ask_id(struct ask *ask, const struct uuid *id) {
    char text[UUID_TEXT_BYTES];
    uuid_print(id, text);
    ask_path(ask, "/");
    ask_path(ask, text);
    params_add_uuid(&ask->params, id);
}

void ask_name(struct ask *ask, const char *name) {
    ask_path(ask, "/");
    if (ask->status == DJ_OK) {
        ask->status = add_encoded(&ask->path, name);
    }
    params_add_text(&ask->params, name);
}

/* A field in the query, or, where it is JSON, in the body. */
static dj_status add_field(struct ask *ask, const char *field, const char *value, bool json) {
    if (strcmp(ask->method, "GET") == 0) {
        bool first = memchr(ask->path.data, '?', ask->path.length) == NULL;
        DJ_TRY(buf_addf(&ask->path, "%c%s=", first ? '?' : '&', field));
        return add_encoded(&ask->path, value);
    }
    DJ_TRY(buf_addf(&ask->body, "%s\"%s\": ", ask->body.length == 0 ? "{" : ", ", field));
    return json ? buf_add_text(&ask->body, value) : buf_add_json(&ask->body, value);
}

static void ask_field(struct ask *ask, const char *field, const char *value, bool json) {
    if (ask->status == DJ_OK && value != NULL) {
        ask->status = add_field(ask, field, value, json);
    }
}

void ask_route_text(struct ask *ask, const char *field, const char *value) {
    ask_field(ask, field, value, /* json= */ false);
}

void ask_text(struct ask *ask, const char *field, const char *value) {
    ask_field(ask, field, value, /* json= */ false);
    params_add_text(&ask->params, value);
}

void ask_json(struct ask *ask, const char *field, const char *argument, const char *text) {
    if (ask->status == DJ_OK && text != NULL) {
        ask->status = json_check(argument, text, strlen(text), PAYLOAD_BYTES_MAX);
    }
    ask_field(ask, field, text, /* json= */ true);
    params_add_jsonb(&ask->params, text);
}

void ask_bool(struct ask *ask, const char *field, bool value, bool given) {
    ask_field(ask, field, !given ? NULL : value ? "true" : "false", /* json= */ true);
    given ? params_add_bool(&ask->params, value) : params_add_null(&ask->params);
}

static void ask_number(struct ask *ask, const char *field, int64_t value, bool given) {
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRId64, value);
    ask_field(ask, field, given ? text : NULL, /* json= */ true);
}

void ask_int4(struct ask *ask, const char *field, int32_t value, bool given) {
    ask_number(ask, field, value, given);
    given ? params_add_int4(&ask->params, value) : params_add_null(&ask->params);
}

void ask_int8(struct ask *ask, const char *field, int64_t value, bool given) {
    ask_number(ask, field, value, given);
    given ? params_add_int8(&ask->params, value) : params_add_null(&ask->params);
}

void ask_duration(struct ask *ask, const char *field, const char *argument, const char *text) {
    int64_t ms = 0;
    if (ask->status == DJ_OK && text != NULL) {
        ask->status = duration_parse(argument, text, &ms);
    }
    ask_field(ask, field, text, /* json= */ false);
    text != NULL ? params_add_int8(&ask->params, ms) : params_add_null(&ask->params);
}

void ask_time(struct ask *ask, const char *field, const char *argument, const char *text) {
    int64_t us = 0;
    if (ask->status == DJ_OK && text != NULL) {
        ask->status = rfc3339_parse(argument, text, &us);
    }
    ask_field(ask, field, text, /* json= */ false);
    text != NULL ? params_add_timestamptz(&ask->params, us) : params_add_null(&ask->params);
}

void ask_shown(struct ask *ask) {
    params_add_bool(&ask->params, true);
}

static dj_status ask_database(PGconn *conn, const struct ask *ask, char **ret_text) {
    AUTO(pgresult) PGresult *rows = NULL;
    const char *text;
    size_t length;
    DJ_TRY(db_exec(conn, ask->call, &ask->params, &rows));
    DJ_TRY(rows_text(rows, 0, 0, &text, &length));
    *ret_text = strdup(text);
    return *ret_text == NULL ? dj_fail(DJ_NO_MEMORY, "no memory for the answer") : DJ_OK;
}

dj_status backend_ask(struct backend *backend, struct ask *ask, char **ret_text) {
    DJ_TRY(ask->status);
    DJ_TRY(params_status(&ask->params));
    if (backend->conn != NULL) {
        return ask_database(backend->conn, ask, ret_text);
    }
    if (ask->body.length > 0) {
        DJ_TRY(buf_add_text(&ask->body, "}"));
    }
    return server_call(&backend->server, ask->method, ask->path.data, ask->body.data, ret_text);
}
