/* State: values, counters and locks of a namespace, over HTTP. */
#include "server/api/api.h"

#include <stdio.h>
#include <string.h>

/* Reads a body, and begins a call with the key. NULL: it has answered. */
static struct work *state_work(struct api *api, struct http_request *request,
                               const struct db_call *call, const struct field fields[]) {
    if (body_read(api, request, fields) != DJ_OK) {
        return NULL;
    }
    struct work *work = work_new(call, request->namespace_id);
    params_add_text(work_params(work), request->args[0]);
    return work;
}

static const struct field no_fields[] = { { .name = NULL } };

void state_get(struct api *api, struct http_request *request) {
    struct work *work = state_work(api, request, &CALL_API_STATE_GET, no_fields);
    if (work != NULL) {
        params_add_bool(work_params(work), request_shows(request));
        api_send(api, request, work, 200);
    }
}

void state_set(struct api *api, struct http_request *request) {
    char *value = NULL;
    int64_t expires_us = FIELD_NONE, if_version = FIELD_NONE;
    const struct field fields[] = {
        { .name = "value", .kind = FIELD_JSON, .target = &value, .required = true },
        { .name = "expiresAt", .kind = FIELD_TIME, .target = &expires_us },
        { .name = "ifVersion",
          .kind = FIELD_INT,
          .target = &if_version,
          .min = 0,
          .max = INT64_MAX },
        { .name = NULL },
    };
    struct work *work = state_work(api, request, &CALL_API_STATE_SET, fields);
    if (work != NULL) {
        params_add_jsonb(work_params(work), value);
        params_add_time(work_params(work), expires_us);
        params_add_long(work_params(work), if_version);
        params_add_bool(work_params(work), request_shows(request));
        api_send(api, request, work, 200);
    }
}

void state_delete(struct api *api, struct http_request *request) {
    struct work *work = state_work(api, request, &CALL_API_STATE_DELETE, no_fields);
    if (work != NULL) {
        api_send(api, request, work, 200);
    }
}

void state_increment(struct api *api, struct http_request *request) {
    int64_t by = 1, expires_us = FIELD_NONE;
    const struct field fields[] = {
        { .name = "by", .kind = FIELD_INT, .target = &by, .min = -INT64_MAX, .max = INT64_MAX },
        { .name = "expiresAt", .kind = FIELD_TIME, .target = &expires_us },
        { .name = NULL },
    };
    struct work *work = state_work(api, request, &CALL_API_STATE_INCREMENT, fields);
    if (work != NULL) {
        params_add_int8(work_params(work), by);
        params_add_time(work_params(work), expires_us);
        api_send(api, request, work, 200);
    }
}

void state_lock(struct api *api, struct http_request *request) {
    char *owner = NULL;
    int64_t ttl_ms = FIELD_NONE;
    const struct field fields[] = {
        { .name = "owner", .kind = FIELD_TEXT, .target = &owner, .required = true },
        { .name = "ttl", .kind = FIELD_DURATION, .target = &ttl_ms, .required = true },
        { .name = NULL },
    };
    struct work *work = state_work(api, request, &CALL_API_STATE_LOCK, fields);
    if (work != NULL) {
        params_add_text(work_params(work), owner);
        params_add_long(work_params(work), ttl_ms);
        api_send(api, request, work, 200);
    }
}

void state_unlock(struct api *api, struct http_request *request) {
    char *owner = NULL;
    const struct field fields[] = {
        { .name = "owner", .kind = FIELD_TEXT, .target = &owner, .required = true },
        { .name = NULL },
    };
    struct work *work = state_work(api, request, &CALL_API_STATE_UNLOCK, fields);
    if (work != NULL) {
        params_add_text(work_params(work), owner);
        api_send(api, request, work, 200);
    }
}
