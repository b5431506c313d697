/* Answers: counted, and in JSON. */
#include "server/api/api.h"

#include "common/check.h"
#include "common/db_rows.h"
#include "common/log.h"
#include <stdlib.h>
#include <string.h>

void api_reply(struct api *api, struct http_request *request, int status, const char *type,
               const char *headers, const void *body, size_t length) {
    long route = request->route == NULL ? ROUTES_MAX : request->route - routes;
    api->answered[route][status / 100]++;
    http_reply(request, status, type, headers, body, length);
}

void api_reply_json(struct api *api, struct http_request *request, int status, const char *body,
                    size_t length) {
    api_reply(api, request, status, "application/json", "", body, length);
}

struct sending {
    struct api *api;
    struct http_request *request;
    int status;
};

static void on_sent(void *context, const struct work_end *end) {
    struct sending sending = *(struct sending *)context;
    const char *text;
    size_t length;
    free(context);
    dj_status status = end->status;
    const char *message = end->message;
    if (status == DJ_OK) {
        status = rows_text(end->rows, 0, 0, &text, &length);
        message = dj_error_message();
    }
    if (status == DJ_OK) {
        api_reply_json(sending.api, sending.request, sending.status, text, length);
        return;
    }
    if (status == DJ_INTERNAL) {
        log_error("request.failed", "route", sending.request->route->pattern, "reason", message);
    }
    problem_reply_status(sending.api, sending.request, status, message);
}

void api_send(struct api *api, struct http_request *request, struct work *work, int status) {
    struct sending *sending = malloc(sizeof *sending);
    check(sending != NULL);
    *sending = (struct sending){ .api = api, .request = request, .status = status };
    database_send(api->database, work, on_sent, sending);
}

void params_add_time(struct db_params *params, int64_t us) {
    if (us == FIELD_NONE) {
        params_add_null(params);
    } else {
        params_add_timestamptz(params, us);
    }
}

void params_add_number(struct db_params *params, int64_t number) {
    if (number == FIELD_NONE) {
        params_add_null(params);
    } else {
        params_add_int4(params, (int32_t)number);
    }
}

void params_add_long(struct db_params *params, int64_t number) {
    if (number == FIELD_NONE) {
        params_add_null(params);
    } else {
        params_add_int8(params, number);
    }
}

void params_add_option(struct db_params *params, const struct json_slice *slice) {
    if (slice->text == NULL) {
        params_add_null(params);
    } else {
        char *text = (char *)slice->text, kept = text[slice->length];
        text[slice->length] = '\0';
        params_add_jsonb(params, text);
        text[slice->length] = kept;
    }
}
