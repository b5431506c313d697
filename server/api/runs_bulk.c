/* Runs by what they have in common: listing, and cancelling and retrying many. */
#include "server/api/api.h"

#include "common/bounds.h"
#include "common/check.h"
#include "common/db_rows.h"
#include "common/log.h"
#include "common/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BULK_A_CALL 100

struct filter {
    char *status, *job, *queue, *dead_letter_queue;
    char *tag[TAGS_MAX + 1]; /* k:v; NULL ends them */
    int64_t since_us, until_us;
};

#define FILTER_NONE                                                                                \
    (struct filter) {                                                                              \
        .since_us = FIELD_NONE, .until_us = FIELD_NONE                                             \
    }

static dj_status filter_check(const struct filter *filter) {
    static const char *const known[] = { "scheduled", "queued",    "running", "waiting",
                                         "retrying",  "completed", "failed",  "cancelled" };
    bool found = filter->status == NULL;
    for (size_t i = 0; !found && i < sizeof known / sizeof *known; i++) {
        found = strcmp(filter->status, known[i]) == 0;
    }
    if (!found) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "status %.40s is not known; scheduled, queued, running, waiting, retrying, "
                       "completed, failed and cancelled are",
                       filter->status);
    }
    if (filter->job != NULL) {
        DJ_TRY(check_name("job", filter->job));
    }
    if (filter->queue != NULL) {
        DJ_TRY(check_name("queue", filter->queue));
    }
    if (filter->dead_letter_queue != NULL) {
        DJ_TRY(check_name("deadLetterQueue", filter->dead_letter_queue));
    }
    return DJ_OK;
}

/* k:v, up to the first colon. */
static dj_status tags_print(struct buf *out, char *const tags[]) {
    for (int i = 0; tags[i] != NULL; i++) {
        char *colon = strchr(tags[i], ':');
        if (colon == NULL || colon == tags[i]) {
            return dj_fail(DJ_INVALID_ARGUMENT, "tag %.60s is not allowed; KEY:VALUE is", tags[i]);
        }
        *colon = '\0';
        DJ_TRY(buf_add(out, i == 0 ? "{" : ",", 1));
        DJ_TRY(buf_add_json(out, tags[i]));
        DJ_TRY(buf_add(out, ":", 1));
        DJ_TRY(buf_add_json(out, colon + 1));
        *colon = ':';
    }
    return tags[0] == NULL ? DJ_OK : buf_add(out, "}", 1);
}

static dj_status params_add_filter(struct db_params *params, const struct filter *filter) {
    struct buf tags;
    DJ_TRY(filter_check(filter));
    params_add_text(params, filter->status);
    params_add_text(params, filter->job);
    params_add_text(params, filter->queue);
    params_add_text(params, filter->dead_letter_queue);
    buf_init(&tags, 65536);
    dj_status status = tags_print(&tags, filter->tag);
    params_add_jsonb(params, tags.data);
    buf_done(&tags);
    params_add_time(params, filter->since_us);
    params_add_time(params, filter->until_us);
    return status;
}

void runs_list(struct api *api, struct http_request *request) {
    struct filter filter = FILTER_NONE;
    int64_t limit = 50;
    char *cursor = NULL;
    struct uuid before;
    const struct field fields[] = {
        { .name = "status", .kind = FIELD_TEXT, .target = &filter.status },
        { .name = "job", .kind = FIELD_TEXT, .target = &filter.job },
        { .name = "queue", .kind = FIELD_TEXT, .target = &filter.queue },
        { .name = "deadLetterQueue", .kind = FIELD_TEXT, .target = &filter.dead_letter_queue },
        { .name = "tag", .kind = FIELD_TEXT, .target = filter.tag, .max = TAGS_MAX },
        { .name = "since", .kind = FIELD_TIME, .target = &filter.since_us },
        { .name = "until", .kind = FIELD_TIME, .target = &filter.until_us },
        { .name = "limit", .kind = FIELD_INT, .target = &limit, .min = 1, .max = 200 },
        { .name = "cursor", .kind = FIELD_TEXT, .target = &cursor },
        { .name = NULL },
    };
    struct work *work = work_new(&CALL_RUNS_PAGE, request->namespace_id);
    dj_status status = query_read(request->query, fields);
    if (status == DJ_OK && cursor != NULL && uuid_parse("cursor", cursor, &before) != DJ_OK) {
        status = dj_fail(DJ_INVALID_ARGUMENT, "cursor is not one that a list has answered");
    }
    if (status == DJ_OK) {
        status = params_add_filter(work_params(work), &filter);
    }
    if (status != DJ_OK) {
        work_drop(work);
        problem_reply_status(api, request, status, dj_error_message());
        return;
    }
    if (cursor == NULL) {
        params_add_null(work_params(work));
    } else {
        params_add_uuid(work_params(work), &before);
    }
    params_add_int4(work_params(work), (int32_t)limit);
    params_add_bool(work_params(work), request_shows(request));
    api_send(api, request, work, 200);
}

/* A bulk request goes on call by call, a transaction each, until there are no more. */
struct bulk {
    struct api *api;
    struct http_request *request;
    const char *what; /* "cancel", "retry" */
    struct filter filter;
    char *reason;
    int64_t max_attempts, count;
    bool dry_run, has_last;
    struct uuid last;
};

static void on_bulk(void *context, const struct work_end *end);

static dj_status bulk_send(struct bulk *bulk) {
    struct work *work = work_new(&CALL_BULK, bulk->request->namespace_id);
    struct db_params *params = work_params(work);
    params_add_text(params, bulk->what);
    dj_status status = params_add_filter(params, &bulk->filter);
    if (status != DJ_OK) {
        work_drop(work);
        return status;
    }
    if (bulk->has_last) {
        params_add_uuid(params, &bulk->last);
    } else {
        params_add_null(params);
    }
    params_add_int4(params, BULK_A_CALL);
    params_add_text(params, bulk->reason);
    params_add_number(params, bulk->max_attempts);
    params_add_bool(params, bulk->dry_run);
    database_send(bulk->api->database, work, on_bulk, bulk);
    return DJ_OK;
}

static void bulk_fail(struct bulk *bulk, dj_status status, const char *message) {
    struct api *api = bulk->api;
    struct http_request *request = bulk->request;
    free(bulk);
    problem_reply_status(api, request, status, message);
}

static void on_bulk(void *context, const struct work_end *end) {
    struct bulk *bulk = context;
    int64_t done = 0;
    char text[64];
    if (end->status != DJ_OK) {
        bulk_fail(bulk, end->status, end->message);
        return;
    }
    dj_status status = rows_int8(end->rows, 0, 0, &done);
    bulk->count += done;
    bulk->has_last = !rows_is_null(end->rows, 0, 1);
    if (status == DJ_OK && bulk->has_last) {
        status = rows_uuid(end->rows, 0, 1, &bulk->last);
    }
    if (status == DJ_OK && bulk->has_last) {
        status = bulk_send(bulk);
        if (status == DJ_OK) {
            return;
        }
    }
    if (status != DJ_OK) {
        bulk_fail(bulk, status, dj_error_message());
        return;
    }
    int length = snprintf(text, sizeof text, "{\"count\":%lld}", (long long)bulk->count);
    struct api *api = bulk->api;
    struct http_request *request = bulk->request;
    free(bulk);
    api_reply_json(api, request, 200, text, (size_t)length);
}

static void runs_bulk(struct api *api, struct http_request *request, const char *what) {
    char *queue_name = NULL;
    if (body_check(api, request) != DJ_OK) {
        return;
    }
    struct bulk *bulk = calloc(1, sizeof *bulk);
    check(bulk != NULL);
    bool cancel = strcmp(what, "cancel") == 0;
    *bulk = (struct bulk){ .api = api,
                           .request = request,
                           .what = what,
                           .filter = FILTER_NONE,
                           .max_attempts = FIELD_NONE };
    const struct field reason = { .name = "reason", .kind = FIELD_TEXT, .target = &bulk->reason };
    const struct field attempts = { .name = "maxAttempts",
                                    .kind = FIELD_INT,
                                    .target = &bulk->max_attempts,
                                    .min = 1,
                                    .max = 1000000 };
    struct filter *filter = &bulk->filter;
    const struct field fields[] = {
        { .name = "status", .kind = FIELD_TEXT, .target = &filter->status },
        { .name = "job", .kind = FIELD_TEXT, .target = &filter->job },
        { .name = "queue", .kind = FIELD_TEXT, .target = &filter->queue },
        { .name = "queueName", .kind = FIELD_TEXT, .target = &queue_name },
        { .name = "deadLetterQueue", .kind = FIELD_TEXT, .target = &filter->dead_letter_queue },
        { .name = "tag", .kind = FIELD_TEXT, .target = &filter->tag[0] },
        { .name = "since", .kind = FIELD_TIME, .target = &filter->since_us },
        { .name = "until", .kind = FIELD_TIME, .target = &filter->until_us },
        { .name = "dryRun", .kind = FIELD_BOOL, .target = &bulk->dry_run },
        cancel ? reason : attempts,
        { .name = NULL },
    };
    dj_status status = fields_read("the body", request->body, request->body_length, fields);
    filter->queue = filter->queue == NULL ? queue_name : filter->queue;
    bool all = filter->status == NULL && filter->job == NULL && filter->queue == NULL &&
               filter->dead_letter_queue == NULL && filter->tag[0] == NULL &&
               filter->since_us == FIELD_NONE && filter->until_us == FIELD_NONE;
    if (status == DJ_OK && all && !bulk->dry_run) {
        status = dj_fail(DJ_INVALID_ARGUMENT,
                         "a filter is missing; one of status, job, queue, deadLetterQueue, tag, "
                         "since and until is needed");
    }
    if (status == DJ_OK) {
        status = bulk_send(bulk);
    }
    if (status != DJ_OK) {
        bulk_fail(bulk, status, dj_error_message());
    }
}

void runs_bulk_retry(struct api *api, struct http_request *request) {
    runs_bulk(api, request, "retry");
}

void runs_bulk_cancel(struct api *api, struct http_request *request) {
    runs_bulk(api, request, "cancel");
}
