/* Runs: starting, looking, and what is done to one. Starts that gather while a batch is on its way
 * go together in one transaction; if that is refused, each is said again alone, so that each gets
 * its own answer. */
#include "server/api/api.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/check.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/rfc3339.h"
#include "common/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOGETHER_MAX 256
#define TOGETHER_BYTES_MAX (8 * 1024 * 1024)

/* One run to start, as its body says it. Everything lies in the body. */
struct start {
    char *job, *payload, *queue, *key, *concurrency_key;
    struct json_slice tags, backoff, on_terminal, version, debounce;
    int64_t ttl_ms, max_attempts, at_us, priority, timeout_ms;
    char *options; /* ours to free; NULL: none */
};

/* A request with its starts: one, or a batch. */
struct starting {
    struct list link;
    struct api *api;
    struct http_request *request;
    struct start *starts;
    int count;
    bool batch;
};

/* Starts that go in one transaction. */
struct together {
    struct starts *from;
    struct list members;
    int count;
};

struct starts {
    struct api *api;
    struct list waiting;
    bool asked; /* a call is in the queue, and will take them */
};

static dj_status start_options(struct start *start) {
    static const char *const names[] = { "backoff", "onTerminal", "version", "debounce" };
    const struct json_slice *slices[] = { &start->backoff, &start->on_terminal, &start->version,
                                          &start->debounce };
    struct buf options;
    dj_status status = DJ_OK;
    buf_init(&options, REQUEST_BYTES_MAX);
    for (size_t i = 0; status == DJ_OK && i < 4; i++) {
        if (slices[i]->text != NULL) {
            status = buf_addf(&options, "%s\"%s\":", options.length == 0 ? "{" : ",", names[i]);
        }
        if (status == DJ_OK && slices[i]->text != NULL) {
            status = buf_add(&options, slices[i]->text, slices[i]->length);
        }
    }
    if (status == DJ_OK && options.length > 0) {
        status = buf_add(&options, "}", 1);
        start->options = status == DJ_OK ? buf_take(&options) : NULL;
    }
    buf_done(&options);
    return status;
}

static dj_status start_read(const char *argument, char *text, size_t length, struct start *start) {
    *start = (struct start){ .payload = (char *)"{}",
                             .queue = (char *)"default",
                             .ttl_ms = FIELD_NONE,
                             .max_attempts = FIELD_NONE,
                             .at_us = FIELD_NONE,
                             .timeout_ms = FIELD_NONE };
    const struct field fields[] = {
        { .name = "job", .kind = FIELD_TEXT, .target = &start->job, .required = true },
        { .name = "payload", .kind = FIELD_JSON, .target = &start->payload },
        { .name = "queueName", .kind = FIELD_TEXT, .target = &start->queue },
        { .name = "idempotencyKey", .kind = FIELD_TEXT, .target = &start->key },
        { .name = "idempotencyTtl", .kind = FIELD_DURATION, .target = &start->ttl_ms },
        { .name = "onTerminal", .kind = FIELD_OPTION, .target = &start->on_terminal },
        { .name = "maxAttempts",
          .kind = FIELD_INT,
          .target = &start->max_attempts,
          .min = 1,
          .max = 1000000 },
        { .name = "backoff", .kind = FIELD_OPTION, .target = &start->backoff },
        { .name = "scheduledAt", .kind = FIELD_TIME, .target = &start->at_us },
        { .name = "priority",
          .kind = FIELD_INT,
          .target = &start->priority,
          .min = -32768,
          .max = 32767 },
        { .name = "concurrencyKey", .kind = FIELD_TEXT, .target = &start->concurrency_key },
        { .name = "debounce", .kind = FIELD_OPTION, .target = &start->debounce },
        { .name = "timeout", .kind = FIELD_DURATION, .target = &start->timeout_ms },
        { .name = "tags", .kind = FIELD_OPTION, .target = &start->tags },
        { .name = "version", .kind = FIELD_OPTION, .target = &start->version },
        { .name = NULL },
    };
    DJ_TRY(fields_read(argument, text, length, fields));
    DJ_TRY(check_name("job", start->job));
    DJ_TRY(check_name("queueName", start->queue));
    if (start->key != NULL) {
        DJ_TRY(check_key("idempotencyKey", start->key));
    }
    return start_options(start);
}

static void starting_free(struct starting *starting) {
    for (int i = 0; i < starting->count; i++) {
        free(starting->starts[i].options);
    }
    free(starting->starts);
    free(starting);
}

#define ARRAY(type, add)                                                                           \
    params_array_begin(params, type);                                                              \
    list_for_each(starting, members, struct starting, link) {                                      \
        for (int i = 0; i < starting->count; i++) {                                                \
            const struct start *start = &starting->starts[i];                                      \
            add;                                                                                   \
        }                                                                                          \
    }                                                                                              \
    params_array_end(params)
#define OR_NULL(number, add)                                                                       \
    if ((number) == FIELD_NONE) {                                                                  \
        params_array_null(params);                                                                 \
    } else {                                                                                       \
        add;                                                                                       \
    }

/* A slice as it lies in the body, closed for a moment. */
static void array_option(struct db_params *params, const struct json_slice *slice) {
    if (slice->text == NULL) {
        params_array_null(params);
    } else {
        char *text = (char *)slice->text, kept = text[slice->length];
        text[slice->length] = '\0';
        params_array_jsonb(params, text);
        text[slice->length] = kept;
    }
}

static void params_add_starts(struct db_params *params, struct list *members) {
    ARRAY(DB_INT4, params_array_int4(params, starting->request->namespace_id); (void)start);
    ARRAY(DB_TEXT, params_array_text(params, start->job));
    ARRAY(DB_JSONB, params_array_jsonb(params, start->payload));
    ARRAY(DB_TEXT, params_array_text(params, start->queue));
    ARRAY(DB_TEXT, params_array_text(params, start->key));
    ARRAY(DB_INT8, OR_NULL(start->ttl_ms, params_array_int8(params, start->ttl_ms)));
    ARRAY(DB_INT4,
          OR_NULL(start->max_attempts, params_array_int4(params, (int32_t)start->max_attempts)));
    ARRAY(DB_TIMESTAMPTZ, OR_NULL(start->at_us, params_array_timestamptz(params, start->at_us)));
    ARRAY(DB_INT4, params_array_int4(params, (int32_t)start->priority));
    ARRAY(DB_TEXT, params_array_text(params, start->concurrency_key));
    ARRAY(DB_INT8, OR_NULL(start->timeout_ms, params_array_int8(params, start->timeout_ms)));
    ARRAY(DB_JSONB, array_option(params, &start->tags));
    ARRAY(DB_JSONB, params_array_jsonb(params, start->options));
}

/* A new run, from what was sent and what the database added. */
static dj_status run_print(struct buf *out, const struct starting *starting,
                           const struct start *start, const PGresult *rows, int row) {
    struct uuid id;
    int64_t created_us;
    int32_t max_attempts;
    bool paused, served;
    char id_text[UUID_TEXT_BYTES], created[32], at[32];
    DJ_TRY(rows_uuid(rows, row, STARTED_RUN_ID, &id));
    DJ_TRY(rows_timestamptz(rows, row, STARTED_CREATED_AT, &created_us));
    DJ_TRY(rows_int4(rows, row, STARTED_MAX_ATTEMPTS, &max_attempts));
    DJ_TRY(rows_bool(rows, row, STARTED_PAUSED, &paused));
    DJ_TRY(rows_bool(rows, row, STARTED_SERVED, &served));
    bool later = start->at_us != FIELD_NONE && start->at_us > created_us;
    uuid_print(&id, id_text);
    rfc3339_print(created_us, created);
    rfc3339_print(start->at_us == FIELD_NONE ? created_us : start->at_us, at);
    DJ_TRY(buf_addf(out,
                    "{\"id\":\"%s\",\"job\":\"%s\",\"queueName\":\"%s\",\"status\":\"%s\","
                    "\"created\":true,",
                    id_text, start->job, start->queue, later ? "scheduled" : "queued"));
    if (request_shows(starting->request)) {
        DJ_TRY(buf_add_text(out, "\"payload\":"));
        DJ_TRY(buf_add_text(out, start->payload));
        DJ_TRY(buf_add_text(out, ",\"result\":null,"));
    }
    DJ_TRY(buf_addf(out,
                    "\"error\":null,\"attempt\":0,\"maxAttempts\":%d,\"priority\":%d,\"tags\":",
                    max_attempts, (int)start->priority));
    DJ_TRY(start->tags.text == NULL ? buf_add(out, "{}", 2)
                                    : buf_add(out, start->tags.text, start->tags.length));
    DJ_TRY(buf_add_text(out, ",\"idempotencyKey\":"));
    DJ_TRY(start->key == NULL ? buf_add(out, "null", 4) : buf_add_json(out, start->key));
    DJ_TRY(buf_add_text(out, ",\"concurrencyKey\":"));
    DJ_TRY(start->concurrency_key == NULL ? buf_add(out, "null", 4)
                                          : buf_add_json(out, start->concurrency_key));
    DJ_TRY(buf_add_text(out, ",\"version\":"));
    if (rows_is_null(rows, row, STARTED_VERSION)) {
        DJ_TRY(buf_add(out, "null", 4));
    } else {
        const char *version;
        size_t length;
        DJ_TRY(rows_text(rows, row, STARTED_VERSION, &version, &length));
        DJ_TRY(buf_add_json(out, version));
    }
    DJ_TRY(buf_addf(out,
                    ",\"createdAt\":\"%s\",\"scheduledAt\":\"%s\",\"startedAt\":null,"
                    "\"finishedAt\":null,\"nextAttemptAt\":null,\"waitingFor\":",
                    created, at));
    if (later) {
        DJ_TRY(buf_addf(out, "{\"kind\":\"time\",\"until\":\"%s\"}", at));
    } else if (paused) {
        DJ_TRY(buf_addf(out, "{\"kind\":\"paused\",\"queue\":\"%s\"}", start->queue));
    } else if (!served) {
        DJ_TRY(buf_addf(out, "{\"kind\":\"worker\",\"job\":\"%s\",\"queue\":\"%s\"}", start->job,
                        start->queue));
    } else {
        DJ_TRY(buf_add_text(out, "null"));
    }
    return buf_add_text(out,
                        ",\"deadLetterQueue\":null,\"deadLetteredAt\":null,\"parentRunId\":null}");
}

struct known {
    struct api *api;
    struct http_request *request;
};

/* The key was known: the run as it is now, with created:false. */
static void on_known(void *context, const struct work_end *end) {
    struct known known = *(struct known *)context;
    const char *text = NULL;
    size_t length = 0;
    free(context);
    dj_status status =
        end->status == DJ_OK ? rows_text(end->rows, 0, 0, &text, &length) : end->status;
    if (status != DJ_OK) {
        problem_reply_status(known.api, known.request, status,
                             end->status == DJ_OK ? dj_error_message() : end->message);
        return;
    }
    struct buf body;
    buf_init(&body, SIZE_MAX / 2);
    check(buf_add_text(&body, "{\"created\":false,") == DJ_OK);
    check(buf_add(&body, text + 1, length - 1) == DJ_OK);
    api_reply_json(known.api, known.request, 200, body.data, body.length);
    buf_done(&body);
}

static void reply_known(const struct starting *starting, const struct uuid *id) {
    struct known *known = malloc(sizeof *known);
    check(known != NULL);
    *known = (struct known){ .api = starting->api, .request = starting->request };
    struct work *work = work_new(&CALL_RUN_TEXT, starting->request->namespace_id);
    params_add_uuid(work_params(work), id);
    params_add_bool(work_params(work), request_shows(starting->request));
    database_send(starting->api->database, work, on_known, known);
}

static dj_status batch_print(struct buf *out, const struct starting *starting, const PGresult *rows,
                             int row) {
    DJ_TRY(buf_add_text(out, "{\"runs\":["));
    for (int i = 0; i < starting->count; i++) {
        struct uuid id;
        bool created;
        char text[UUID_TEXT_BYTES];
        DJ_TRY(rows_uuid(rows, row + i, STARTED_RUN_ID, &id));
        DJ_TRY(rows_bool(rows, row + i, STARTED_CREATED, &created));
        uuid_print(&id, text);
        DJ_TRY(buf_addf(out, "%s{\"id\":\"%s\",\"created\":%s}", i == 0 ? "" : ",", text,
                        created ? "true" : "false"));
        starting->api->runs_started += created ? 1 : 0;
    }
    return buf_add_text(out, "]}");
}

/* Answers a request whose runs are in `rows` from `row` on. */
static dj_status reply_started(const struct starting *starting, const PGresult *rows, int row) {
    struct uuid id;
    bool created;
    struct buf body;
    DJ_TRY(rows_uuid(rows, row, STARTED_RUN_ID, &id));
    DJ_TRY(rows_bool(rows, row, STARTED_CREATED, &created));
    if (!starting->batch && !created) {
        reply_known(starting, &id);
        return DJ_OK;
    }
    buf_init(&body, BATCH_BYTES_MAX);
    dj_status status = starting->batch ? batch_print(&body, starting, rows, row)
                                       : run_print(&body, starting, starting->starts, rows, row);
    if (status == DJ_OK) {
        starting->api->runs_started += starting->batch ? 0 : 1;
        api_reply_json(starting->api, starting->request, 201, body.data, body.length);
    }
    buf_done(&body);
    return status;
}

static void starting_send_alone(struct starting *starting);

static void starting_finish(struct starting *starting, const struct work_end *end, int row) {
    dj_status status = end->status;
    const char *message = end->message;
    if (status == DJ_OK) {
        status = reply_started(starting, end->rows, row);
        message = dj_error_message();
    }
    if (status != DJ_OK) {
        if (status == DJ_INTERNAL) {
            log_error("start.failed", "reason", message);
        }
        problem_reply_status(starting->api, starting->request, status, message);
    }
    starting_free(starting);
}

static void starts_ask(struct starts *starts);

static void on_together(void *context, const struct work_end *given) {
    static const struct work_end short_of_rows = { .status = DJ_INTERNAL,
                                                   .message = "a start was not answered",
                                                   .executed = true };
    struct together *together = context;
    const struct work_end *end = given;
    int row = 0;
    FAILPOINT("starts.answered");
    list_for_each(starting, &together->members, struct starting, link) {
        row += starting->count;
    }
    if (end->status == DJ_OK && PQntuples(end->rows) != row) {
        end = &short_of_rows;
    }
    bool alone = end->status != DJ_OK && !end->executed && together->count > 1 &&
                 database_is_up(together->from->api->database);
    row = 0;
    if (list_is_empty(&together->members)) { /* no connection took the call: nobody waits but all */
        together->from->asked = false;
        list_splice(&together->from->waiting, &together->members);
    }
    while (!list_is_empty(&together->members)) {
        struct starting *starting = list_first(&together->members, struct starting, link);
        list_remove(&starting->link);
        int count = starting->count;
        if (alone) {
            starting_send_alone(starting);
        } else {
            starting_finish(starting, end, row);
        }
        row += count;
    }
    free(together);
}

/* A connection takes the call: those that wait now go with it. */
static void on_fill(void *context, struct db_params *params) {
    struct together *together = context;
    struct starts *starts = together->from;
    size_t bytes = 0;
    int runs = 0;
    starts->asked = false;
    while (!list_is_empty(&starts->waiting)) {
        struct starting *starting = list_first(&starts->waiting, struct starting, link);
        bytes += starting->request->body_length;
        runs += starting->count;
        if (together->count > 0 && (runs > TOGETHER_MAX || bytes > TOGETHER_BYTES_MAX)) {
            break;
        }
        list_remove(&starting->link);
        list_push(&together->members, &starting->link);
        together->count++;
    }
    params_add_starts(params, &together->members);
    FAILPOINT("starts.gathered");
    if (!list_is_empty(&starts->waiting)) {
        starts_ask(starts);
    }
}

static struct together *together_new(struct starts *starts) {
    struct together *together = calloc(1, sizeof *together);
    check(together != NULL);
    together->from = starts;
    list_init(&together->members);
    return together;
}

static void starts_ask(struct starts *starts) {
    if (starts->asked) {
        return;
    }
    starts->asked = true;
    struct work *work = work_new(&CALL_START_BATCH, /* namespace_id= */ 0);
    work_fill_late(work, on_fill);
    database_send(starts->api->database, work, on_together, together_new(starts));
}

static void starting_send_alone(struct starting *starting) {
    struct together *together = together_new(starting->api->starts);
    struct work *work = work_new(&CALL_START_BATCH, /* namespace_id= */ 0);
    list_push(&together->members, &starting->link);
    together->count = 1;
    params_add_starts(work_params(work), &together->members);
    database_send(starting->api->database, work, on_together, together);
}

void starts_open(struct api *api) {
    api->starts = calloc(1, sizeof *api->starts);
    check(api->starts != NULL);
    api->starts->api = api;
    list_init(&api->starts->waiting);
}

static struct starting *starting_new(struct api *api, struct http_request *request, int count) {
    struct starting *starting = calloc(1, sizeof *starting);
    check(starting != NULL);
    starting->starts = calloc((size_t)(count == 0 ? 1 : count), sizeof *starting->starts);
    check(starting->starts != NULL);
    starting->api = api;
    starting->request = request;
    starting->count = count;
    return starting;
}

void runs_start(struct api *api, struct http_request *request) {
    if (body_check(api, request) != DJ_OK) {
        return;
    }
    struct starting *starting = starting_new(api, request, 1);
    dj_status status =
        start_read("the body", request->body, request->body_length, starting->starts);
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
        starting_free(starting);
        return;
    }
    list_push(&api->starts->waiting, &starting->link);
    starts_ask(api->starts);
}

/* {runs: […]}: first how many there are, then each. */
static dj_status read_batch(struct http_request *request, struct json_slice *ret_runs,
                            int *ret_count) {
    struct json_slice runs = { .text = NULL }, value, none;
    const struct field fields[] = {
        { .name = "runs", .kind = FIELD_LIST, .target = &runs, .required = true },
        { .name = NULL },
    };
    struct json_walk walk;
    bool more = true;
    DJ_TRY(fields_read("the body", request->body, request->body_length, fields));
    DJ_TRY(json_walk_begin(&walk, "runs", runs.text, runs.length, /* object= */ false));
    for (*ret_count = 0;; (*ret_count)++) {
        DJ_TRY(json_walk_next(&walk, &more, &none, &value));
        if (!more) {
            break;
        }
    }
    if (*ret_count > BATCH_RUNS_MAX) {
        return dj_fail(DJ_TOO_LARGE, "runs has %d runs; the limit is %d", *ret_count,
                       BATCH_RUNS_MAX);
    }
    *ret_runs = runs;
    return DJ_OK;
}

static dj_status read_items(const struct starting *starting, const struct json_slice *runs) {
    struct json_walk walk;
    struct json_slice value, none;
    struct json_slice items[BATCH_RUNS_MAX];
    bool more;
    DJ_TRY(json_walk_begin(&walk, "runs", runs->text, runs->length, /* object= */ false));
    for (int i = 0; i < starting->count; i++) {
        DJ_TRY(json_walk_next(&walk, &more, &none, &value));
        items[i] = value; /* they are cut up only when all have been found */
    }
    for (int i = 0; i < starting->count; i++) {
        char name[32], message[512];
        (void)snprintf(name, sizeof name, "runs[%d]", i);
        dj_status status =
            start_read(name, (char *)items[i].text, items[i].length, &starting->starts[i]);
        if (status != DJ_OK) {
            (void)snprintf(message, sizeof message, "%s", dj_error_message());
            return strncmp(message, "runs[", 5) == 0 ? status
                                                     : dj_fail(status, "%s.%s", name, message);
        }
    }
    return DJ_OK;
}

void runs_start_batch(struct api *api, struct http_request *request) {
    struct json_slice runs = { .text = NULL };
    int count;
    if (body_check(api, request) != DJ_OK) {
        return;
    }
    dj_status status = read_batch(request, &runs, &count);
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
        return;
    }
    if (count == 0) {
        api_reply_json(api, request, 201, "{\"runs\":[]}", 11);
        return;
    }
    struct starting *starting = starting_new(api, request, count);
    starting->batch = true;
    status = read_items(starting, &runs);
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
        starting_free(starting);
        return;
    }
    starting_send_alone(starting); /* it is large: it goes for itself */
}

/* A call whose first value is the run, and then others. */
static struct work *run_work(struct api *api, struct http_request *request,
                             const struct db_call *call) {
    struct uuid id;
    if (request_uuid(api, request, &id) != DJ_OK) {
        return NULL;
    }
    struct work *work = work_new(call, request->namespace_id);
    params_add_uuid(work_params(work), &id);
    return work;
}

void runs_get(struct api *api, struct http_request *request) {
    struct work *work = run_work(api, request, &CALL_RUN_TEXT);
    if (work != NULL) {
        params_add_bool(work_params(work), request_shows(request));
        api_send(api, request, work, 200);
    }
}

void runs_why(struct api *api, struct http_request *request) {
    struct work *work = run_work(api, request, &CALL_WHY_TEXT);
    if (work != NULL) {
        api_send(api, request, work, 200);
    }
}

/* Lists that belong to a run: ?limit= and ?cursor=, which is how many came before. */
static void run_list(struct api *api, struct http_request *request, const struct db_call *call,
                     bool shows) {
    int64_t limit = 1000, cursor = 0;
    const struct field fields[] = {
        { .name = "limit", .kind = FIELD_INT, .target = &limit, .min = 1, .max = 10000 },
        { .name = "cursor", .kind = FIELD_INT, .target = &cursor, .min = 0, .max = 1000000000 },
        { .name = NULL },
    };
    dj_status status = query_read(request->query, fields);
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
        return;
    }
    struct work *work = run_work(api, request, call);
    if (work == NULL) {
        return;
    }
    params_add_int8(work_params(work), cursor);
    params_add_int4(work_params(work), (int32_t)limit);
    if (shows) {
        params_add_bool(work_params(work), request_shows(request));
    }
    api_send(api, request, work, 200);
}

void runs_timeline(struct api *api, struct http_request *request) {
    run_list(api, request, &CALL_TIMELINE_PAGE, false);
}

void runs_steps(struct api *api, struct http_request *request) {
    run_list(api, request, &CALL_STEPS_PAGE, true);
}

void runs_attempts(struct api *api, struct http_request *request) {
    run_list(api, request, &CALL_ATTEMPTS_PAGE, true);
}

void runs_logs(struct api *api, struct http_request *request) {
    run_list(api, request, &CALL_LOGS_PAGE, true);
}

/* Reads a body; NULL: it has answered. */
static struct work *body_work(struct api *api, struct http_request *request,
                              const struct db_call *call, const struct field fields[]) {
    if (body_read(api, request, fields) != DJ_OK) {
        return NULL;
    }
    return run_work(api, request, call);
}

void runs_cancel(struct api *api, struct http_request *request) {
    char *reason = NULL;
    const struct field fields[] = {
        { .name = "reason", .kind = FIELD_TEXT, .target = &reason },
        { .name = NULL },
    };
    struct work *work = body_work(api, request, &CALL_CANCEL_TEXT, fields);
    if (work != NULL) {
        params_add_text(work_params(work), reason);
        params_add_bool(work_params(work), request_shows(request));
        api_send(api, request, work, 200);
    }
}

void runs_retry(struct api *api, struct http_request *request) {
    int64_t max_attempts = FIELD_NONE;
    const struct field fields[] = {
        { .name = "maxAttempts",
          .kind = FIELD_INT,
          .target = &max_attempts,
          .min = 1,
          .max = 1000000 },
        { .name = NULL },
    };
    struct work *work = body_work(api, request, &CALL_RETRY_TEXT, fields);
    if (work != NULL) {
        params_add_number(work_params(work), max_attempts);
        params_add_bool(work_params(work), request_shows(request));
        api_send(api, request, work, 200);
    }
}

void runs_reschedule(struct api *api, struct http_request *request) {
    int64_t at_us = FIELD_NONE;
    const struct field fields[] = {
        { .name = "scheduledAt", .kind = FIELD_TIME, .target = &at_us, .required = true },
        { .name = NULL },
    };
    struct work *work = body_work(api, request, &CALL_RESCHEDULE_TEXT, fields);
    if (work != NULL) {
        params_add_time(work_params(work), at_us);
        params_add_bool(work_params(work), request_shows(request));
        api_send(api, request, work, 200);
    }
}

void runs_release_key(struct api *api, struct http_request *request) {
    struct work *work = work_new(&CALL_RELEASE_KEY_TEXT, request->namespace_id);
    params_add_text(work_params(work), request->args[0]);
    api_send(api, request, work, 200);
}
