/* Endpoints: where handlers are served. The server looks at one when it is registered, and on
 * /sync: it asks for the jobs there, signed as a call is. That the look fails is not the
 * registration's failure: its secret is needed to answer. */
#include "server/api/api.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/db_rows.h"
#include "common/endpoint_look.h"
#include "common/failpoint.h"
#include "common/http_client.h"
#include <stdlib.h>
#include <string.h>

/* A request on its way through the database, to the endpoint and back. */
struct looking {
    struct api *api;
    struct http_request *request;
    char *secret;  /* shown once; NULL: it is not new */
    char *problem; /* why the look failed; NULL: it did not */
    struct http_call *call;
};

static struct looking *looking_new(struct api *api, struct http_request *request) {
    struct looking *looking = calloc(1, sizeof *looking);
    check(looking != NULL);
    looking->api = api;
    looking->request = request;
    return looking;
}

static void looking_free(struct looking *looking) {
    free(looking->secret);
    free(looking->problem);
    free(looking);
}

static void looking_fail(struct looking *looking, dj_status status, const char *message) {
    problem_reply_status(looking->api, looking->request, status, message);
    looking_free(looking);
}

/* The endpoint as it is now, with what only this request may see. */
static void on_shown(void *context, const struct work_end *end) {
    struct looking *looking = context;
    const char *text, *message = end->message;
    size_t length;
    struct buf body;
    dj_status status = end->status;
    if (status == DJ_OK) {
        status = rows_text(end->rows, 0, 0, &text, &length);
        message = dj_error_message();
    }
    if (status != DJ_OK) {
        looking_fail(looking, status, message);
        return;
    }
    buf_init(&body, SIZE_MAX / 2);
    check(buf_add(&body, text, length - 1) == DJ_OK); /* without the last brace */
    if (looking->secret != NULL) {
        check(buf_addf(&body, ",\"secret\":\"%s\"", looking->secret) == DJ_OK);
    }
    if (looking->problem != NULL) {
        check(buf_add_text(&body, ",\"syncError\":") == DJ_OK &&
              buf_add_json(&body, looking->problem) == DJ_OK);
    }
    check(buf_add_text(&body, "}") == DJ_OK);
    api_reply_json(looking->api, looking->request, 200, body.data, body.length);
    buf_done(&body);
    looking_free(looking);
}

static void show(struct looking *looking) {
    struct work *work = work_new(&CALL_ENDPOINT_TEXT, looking->request->namespace_id);
    params_add_text(work_params(work), looking->request->args[0]);
    database_send(looking->api->database, work, on_shown, looking);
}

static void look_failed(struct looking *looking, const char *reason) {
    looking->problem = strdup(reason);
    show(looking);
}

static void on_synced(void *context, const struct work_end *end) {
    struct looking *looking = context;
    FAILPOINT("look.synced");
    if (end->status != DJ_OK) {
        look_failed(looking, end->message);
    } else {
        show(looking);
    }
}

/* What was found goes to the database. */
static dj_status keep(struct looking *looking, const struct http_answer *answer) {
    AUTO(buf) struct buf version;
    AUTO(buf) struct buf jobs;
    buf_init(&version, LOOK_BYTES_MAX);
    buf_init(&jobs, LOOK_BYTES_MAX);
    DJ_TRY(endpoint_look_read(answer, &version, &jobs));
    struct work *work = work_new(&CALL_ENDPOINT_SYNCED, looking->request->namespace_id);
    params_add_text(work_params(work), looking->request->args[0]);
    params_add_text(work_params(work), version.data);
    params_add_jsonb(work_params(work), jobs.data);
    database_send(looking->api->database, work, on_synced, looking);
    return DJ_OK;
}

static void on_looked(void *context, struct http_answer *answer) {
    FAILPOINT("look.answered");
    if (keep(context, answer) != DJ_OK) {
        look_failed(context, dj_error_message());
    }
}

static void on_target(void *context, const struct work_end *end) {
    struct looking *looking = context;
    FAILPOINT("look.targeted");
    if (end->status != DJ_OK) {
        looking_fail(looking, end->status, end->message);
    } else if (endpoint_look(looking->api->http_client, end->rows, on_looked, looking,
                             &looking->call) != DJ_OK) {
        look_failed(looking, dj_error_message());
    }
}

static void find_target(struct looking *looking) {
    struct work *work = work_new(&CALL_ENDPOINT_TARGET, looking->request->namespace_id);
    params_add_text(work_params(work), looking->request->args[0]);
    database_send(looking->api->database, work, on_target, looking);
}

/* A new secret is there: of a registration, which looks, or of a rotation, which shows. */
static void take_secret(struct looking *looking, const struct work_end *end,
                        void (*next)(struct looking *)) {
    const char *text;
    size_t length;
    if (end->status != DJ_OK) {
        looking_fail(looking, end->status, end->message);
        return;
    }
    check(rows_text(end->rows, 0, 0, &text, &length) == DJ_OK);
    looking->secret = strndup(text, length);
    check(looking->secret != NULL);
    next(looking);
}

static void on_put(void *context, const struct work_end *end) {
    take_secret(context, end, find_target);
}

static void on_rotated(void *context, const struct work_end *end) {
    take_secret(context, end, show);
}

void endpoints_put(struct api *api, struct http_request *request) {
    char *url = NULL;
    bool allow_private = api->allow_private;
    int64_t concurrency = FIELD_NONE, timeout_ms = FIELD_NONE;
    const struct field fields[] = {
        { .name = "url", .kind = FIELD_TEXT, .target = &url, .required = true },
        { .name = "allowPrivate", .kind = FIELD_BOOL, .target = &allow_private },
        { .name = "concurrency",
          .kind = FIELD_INT,
          .target = &concurrency,
          .min = 1,
          .max = 10000 },
        { .name = "timeout", .kind = FIELD_DURATION, .target = &timeout_ms },
        { .name = NULL },
    };
    if (body_read(api, request, fields) != DJ_OK) {
        return;
    }
    if (allow_private && api->forbid_private) {
        problem_reply(api, request, PROBLEM_FORBIDDEN, "",
                      "allowPrivate is not allowed here: the server runs with --forbid-private");
        return;
    }
    struct work *work = work_new(&CALL_ENDPOINT_PUT, request->namespace_id);
    params_add_text(work_params(work), request->args[0]);
    params_add_text(work_params(work), url);
    params_add_bool(work_params(work), allow_private);
    params_add_number(work_params(work), concurrency);
    params_add_long(work_params(work), timeout_ms);
    database_send(api->database, work, on_put, looking_new(api, request));
}

void endpoints_rotate(struct api *api, struct http_request *request) {
    struct work *work = work_new(&CALL_ENDPOINT_ROTATE, request->namespace_id);
    params_add_text(work_params(work), request->args[0]);
    database_send(api->database, work, on_rotated, looking_new(api, request));
}

void endpoints_sync(struct api *api, struct http_request *request) {
    find_target(looking_new(api, request));
}

void endpoints_list(struct api *api, struct http_request *request) {
    api_send(api, request, work_new(&CALL_ENDPOINTS_TEXT, request->namespace_id), 200);
}

void endpoints_get(struct api *api, struct http_request *request) {
    struct work *work = work_new(&CALL_ENDPOINT_TEXT, request->namespace_id);
    params_add_text(work_params(work), request->args[0]);
    api_send(api, request, work, 200);
}

static void change(struct api *api, struct http_request *request, const char *what) {
    struct work *work = work_new(&CALL_ENDPOINT_CHANGE, request->namespace_id);
    params_add_text(work_params(work), request->args[0]);
    params_add_text(work_params(work), what);
    api_send(api, request, work, 200);
}

void endpoints_drop(struct api *api, struct http_request *request) {
    change(api, request, "drop");
}

void endpoints_pause(struct api *api, struct http_request *request) {
    change(api, request, "pause");
}

void endpoints_resume(struct api *api, struct http_request *request) {
    change(api, request, "resume");
}
