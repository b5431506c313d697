/* Queues: looking, settings, pause and resume. */
#include "server/api/api.h"

void queues_list(struct api *api, struct http_request *request) {
    api_send(api, request, work_new(&CALL_QUEUES_TEXT, request->namespace_id), 200);
}

#define LIMIT(field_name, field_target)                                                            \
    {                                                                                              \
        .name = (field_name), .kind = FIELD_INT, .target = (field_target), .min = 0,               \
        .max = 1000000000                                                                          \
    }

void queues_set(struct api *api, struct http_request *request) {
    int64_t concurrency = FIELD_NONE, key_concurrency = FIELD_NONE, rate_limit = FIELD_NONE;
    int64_t rate_period_ms = FIELD_NONE, key_rate_limit = FIELD_NONE, max_attempts = FIELD_NONE;
    char *fair_by = NULL, *dead_letter_queue = NULL;
    struct json_slice weights = { .text = NULL }, backoff = { .text = NULL };
    const struct field fields[] = {
        LIMIT("concurrency", &concurrency),
        LIMIT("keyConcurrency", &key_concurrency),
        LIMIT("rateLimit", &rate_limit),
        { .name = "ratePeriod", .kind = FIELD_DURATION, .target = &rate_period_ms },
        LIMIT("keyRateLimit", &key_rate_limit),
        { .name = "fairBy", .kind = FIELD_TEXT, .target = &fair_by },
        { .name = "weights", .kind = FIELD_OPTION, .target = &weights },
        LIMIT("maxAttempts", &max_attempts),
        { .name = "backoff", .kind = FIELD_OPTION, .target = &backoff },
        { .name = "deadLetterQueue", .kind = FIELD_TEXT, .target = &dead_letter_queue },
        { .name = NULL },
    };
    if (body_read(api, request, fields) != DJ_OK) {
        return;
    }
    struct work *work = work_new(&CALL_SET_QUEUE_TEXT, request->namespace_id);
    struct db_params *params = work_params(work);
    params_add_text(params, request->args[0]);
    params_add_number(params, concurrency);
    params_add_number(params, key_concurrency);
    params_add_number(params, rate_limit);
    params_add_long(params, rate_period_ms);
    params_add_number(params, key_rate_limit);
    params_add_text(params, fair_by);
    params_add_option(params, &weights);
    params_add_number(params, max_attempts);
    params_add_option(params, &backoff);
    params_add_text(params, dead_letter_queue);
    api_send(api, request, work, 200);
}

static void queue_pause(struct api *api, struct http_request *request, bool paused) {
    struct work *work = work_new(&CALL_PAUSE_QUEUE_TEXT, request->namespace_id);
    params_add_text(work_params(work), request->args[0]);
    params_add_bool(work_params(work), paused);
    api_send(api, request, work, 200);
}

void queues_pause(struct api *api, struct http_request *request) {
    queue_pause(api, request, true);
}

void queues_resume(struct api *api, struct http_request *request) {
    queue_pause(api, request, false);
}
