/* Events: sending. */
#include "server/api/api.h"

void events_send(struct api *api, struct http_request *request) {
    char *name = NULL, *payload = (char *)"{}", *correlation_key = NULL, *idempotency_key = NULL;
    const struct field fields[] = {
        { .name = "name", .kind = FIELD_TEXT, .target = &name, .required = true },
        { .name = "payload", .kind = FIELD_JSON, .target = &payload },
        { .name = "correlationKey", .kind = FIELD_TEXT, .target = &correlation_key },
        { .name = "idempotencyKey", .kind = FIELD_TEXT, .target = &idempotency_key },
        { .name = NULL },
    };
    if (body_read(api, request, fields) != DJ_OK) {
        return;
    }
    struct work *work = work_new(&CALL_EVENT_TEXT, request->namespace_id);
    params_add_text(work_params(work), name);
    params_add_jsonb(work_params(work), payload);
    params_add_text(work_params(work), correlation_key);
    params_add_text(work_params(work), idempotency_key);
    api_send(api, request, work, 202);
}
