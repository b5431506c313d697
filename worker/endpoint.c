/* An endpoint is a URL, its secrets, and how many calls it takes at once; what is more waits here.
 * The table comes from the database, which leaves out the jobs of an endpoint that rests, so its
 * runs stay in their queue.
 *
 * What a call comes to (docs/protocol.md): an answer goes to the database as it is, and is read
 * there. A call that did not reach a handler (refused, 429, 503) is not the run's fault: the run
 * goes back, the endpoint rests, and no attempt is spent; after its rest a few calls are tried
 * before the others. Everything else fails the attempt, with a reason. */
#include "worker/endpoint.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/commit_token.h"
#include "common/db_calls.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/http_client.h"
#include "common/log.h"
#include "common/webhook.h"
#include "worker/endpoint_protocol.h"
#include "worker/run.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECRETS_MAX 12
#define REFRESH_MS 5000
#define REFRESH_FAILING_MS 500
#define QUOTE_BYTES_MAX 200
#define CALLS_WHILE_FAILING 4
#define CUT_TOGETHER_MS 1000

struct endpoint {
    struct list link;
    char *name, *url;
    char *secrets[SECRETS_MAX];
    int secret_count;
    bool allow_private, failing, resting, there;
    int concurrency;
    int64_t timeout_ms;
    int active;
    int company;         /* of those that were cut off at `cut_ms`: how many were active then */
    int64_t cut_ms;      /* and together with them, for a moment, whoever else is */
    struct list waiting; /* calls that are not begun */
};

struct endpoint_job { /* never freed before the end: runs point to them */
    struct job job;
    struct endpoint *endpoint;
};

struct endpoints {
    dj_worker *worker;
    struct http_client *http;
    char *commit_url;
    struct commit_secret secret;
    struct list all;
    struct endpoint_job **jobs; /* sorted by name */
    int job_count;
    bool asking;
    int64_t asked_ms;
};

struct endpoint_call {
    struct list link; /* among the endpoint's waiting */
    struct endpoint *endpoint;
    dj_run *run;
    struct http_call *http; /* NULL: not begun */
};

static char *copy(const char *text, size_t length) {
    char *own = strndup(text, length);
    check(own != NULL);
    return own;
}

/* The table. */

static int compare_jobs(const void *name, const void *job) {
    return strcmp(name, (*(struct endpoint_job *const *)job)->job.name);
}

static int order_jobs(const void *a, const void *b) {
    return strcmp((*(struct endpoint_job *const *)a)->job.name,
                  (*(struct endpoint_job *const *)b)->job.name);
}

static struct endpoint_job *job_find(const struct endpoints *endpoints, const char *name) {
    struct endpoint_job **found = endpoints->job_count == 0
                                      ? NULL
                                      : bsearch(name, endpoints->jobs, (size_t)endpoints->job_count,
                                                sizeof *endpoints->jobs, compare_jobs);
    return found == NULL ? NULL : *found;
}

const struct job *endpoints_job(const struct endpoints *endpoints, const char *name) {
    struct endpoint_job *job = job_find(endpoints, name);
    return job == NULL ? NULL : &job->job;
}

static void job_put(struct endpoints *endpoints, const char *name, size_t length,
                    struct endpoint *endpoint) {
    char *own = copy(name, length);
    struct endpoint_job *job = job_find(endpoints, own);
    if (job == NULL) {
        job = calloc(1, sizeof *job);
        endpoints->jobs =
            realloc(endpoints->jobs, ((size_t)endpoints->job_count + 1) * sizeof *endpoints->jobs);
        check(job != NULL && endpoints->jobs != NULL);
        job->job.name = TAKE(own);
        endpoints->jobs[endpoints->job_count++] = job;
        qsort(endpoints->jobs, (size_t)endpoints->job_count, sizeof *endpoints->jobs, order_jobs);
    }
    free(own);
    job->endpoint = endpoint;
}

static struct endpoint *endpoint_find(const struct endpoints *endpoints, const char *name,
                                      size_t length) {
    list_for_each(endpoint, &endpoints->all, struct endpoint, link) {
        if (strlen(endpoint->name) == length && memcmp(endpoint->name, name, length) == 0) {
            return endpoint;
        }
    }
    return NULL;
}

static void secrets_drop(struct endpoint *endpoint) {
    while (endpoint->secret_count > 0) {
        free(endpoint->secrets[--endpoint->secret_count]);
    }
}

static dj_status read_endpoint(struct endpoints *endpoints, const PGresult *rows, int row) {
    const char *text;
    size_t length;
    struct db_text_array array;
    DJ_TRY(rows_text(rows, row, ENDPOINT_NAME, &text, &length));
    struct endpoint *endpoint = endpoint_find(endpoints, text, length);
    if (endpoint == NULL) {
        endpoint = calloc(1, sizeof *endpoint);
        check(endpoint != NULL);
        endpoint->name = copy(text, length);
        list_init(&endpoint->waiting);
        list_push(&endpoints->all, &endpoint->link);
    }
    DJ_TRY(rows_text(rows, row, ENDPOINT_URL, &text, &length));
    free(endpoint->url);
    endpoint->url = copy(text, length);
    secrets_drop(endpoint);
    DJ_TRY(rows_text_array(rows, row, ENDPOINT_SECRETS, &array));
    while (array.count > 0 && endpoint->secret_count < SECRETS_MAX) {
        DJ_TRY(db_text_array_next(&array, &text, &length));
        endpoint->secrets[endpoint->secret_count++] = copy(text, length);
    }
    int32_t concurrency;
    DJ_TRY(rows_bool(rows, row, ENDPOINT_ALLOW_PRIVATE, &endpoint->allow_private));
    DJ_TRY(rows_int4(rows, row, ENDPOINT_CONCURRENCY, &concurrency));
    DJ_TRY(rows_int8(rows, row, ENDPOINT_TIMEOUT_MS, &endpoint->timeout_ms));
    DJ_TRY(rows_bool(rows, row, ENDPOINT_FAILING, &endpoint->failing));
    DJ_TRY(rows_bool(rows, row, ENDPOINT_RESTING, &endpoint->resting));
    endpoint->concurrency = concurrency;
    endpoint->there = true;
    DJ_TRY(rows_text_array(rows, row, ENDPOINT_JOBS, &array));
    while (array.count > 0) {
        DJ_TRY(db_text_array_next(&array, &text, &length));
        job_put(endpoints, text, length, endpoint);
    }
    return DJ_OK;
}

static dj_status read_endpoints(struct endpoints *endpoints, const PGresult *rows,
                                const PGresult *secret) {
    const char *text;
    size_t length;
    DJ_TRY(rows_text(secret, 0, 0, &text, &length));
    if (length == 0 || length > COMMIT_SECRET_BYTES_MAX) {
        return dj_fail(DJ_INTERNAL, "the secret of commits has %zu bytes", length);
    }
    memcpy(endpoints->secret.bytes, text, length);
    endpoints->secret.length = length;
    list_for_each(endpoint, &endpoints->all, struct endpoint, link) {
        endpoint->there = false;
    }
    for (int row = 0; row < PQntuples(rows); row++) {
        DJ_TRY(read_endpoint(endpoints, rows, row));
    }
    return DJ_OK;
}

static void refresh_done(struct db_batch *batch) {
    struct endpoints *endpoints = batch->context;
    endpoints->asking = false;
    FAILPOINT_ANSWER("endpoints.answered", batch, &endpoints->worker->control);
    dj_status status = batch->status;
    if (status == DJ_OK) {
        status = read_endpoints(endpoints, batch->results[0], batch->results[1]);
    }
    if (status != DJ_OK) {
        log_warning("endpoints.not_read", "reason",
                    batch->status != DJ_OK ? batch->message : dj_error_message());
        return;
    }
    turn_hint(endpoints->worker, /* event= */ false);
}

void endpoints_refresh(struct endpoints *endpoints) {
    dj_worker *worker = endpoints->worker;
    if (endpoints->asking || !worker->registered || !db_pipeline_is_open(&worker->control)) {
        return;
    }
    struct db_params id, none;
    params_init(&id);
    params_init(&none);
    params_add_uuid(&id, &worker->id);
    if (params_status(&id) == DJ_OK) {
        const struct db_call *calls[] = { &CALL_WORKER_ENDPOINTS, &CALL_COMMIT_SECRET };
        struct db_params *params[] = { &id, &none };
        endpoints->asking = true;
        endpoints->asked_ms = clock_ms();
        db_pipeline_send(&worker->control, calls, params, 2, refresh_done, endpoints);
        FAILPOINT_SOCKET("endpoints.sent", PQsocket(worker->control.conn));
    }
    params_done(&id);
    params_done(&none);
}

/* Calls. While we are not sure that our leases hold, none is begun: they wait for a beat's answer.
 */

static void call_begin(struct endpoints *endpoints, struct endpoint_call *call);

static bool has_room(const struct endpoints *endpoints, const struct endpoint *endpoint) {
    int room = endpoint->concurrency;
    if (endpoint->failing && room > CALLS_WHILE_FAILING) {
        room = CALLS_WHILE_FAILING;
    }
    return !endpoint->resting && endpoint->active < room && worker_is_sure(endpoints->worker);
}

static void begin_waiting(struct endpoints *endpoints, struct endpoint *endpoint) {
    while (has_room(endpoints, endpoint) && !list_is_empty(&endpoint->waiting)) {
        struct endpoint_call *call = list_first(&endpoint->waiting, struct endpoint_call, link);
        list_remove(&call->link);
        call_begin(endpoints, call);
    }
}

/* The run's turn at its handler is over: what the next turn commits is `op` with `detail` (taken,
 * JSON text). */
static void call_end(struct endpoints *endpoints, struct endpoint_call *call, const char *op,
                     char *detail) {
    dj_run *run = call->run;
    struct endpoint *endpoint = call->endpoint;
    endpoint->active -= call->http != NULL;
    list_remove(&call->link);
    free(call);
    run->call = NULL;
    run->op = op == NULL ? OP_NONE : OP_OTHER;
    run->kind = op;
    free(run->result);
    run->result = detail;
    FAILPOINT("call.ended");
    worker_take_outcome(endpoints->worker, run);
    begin_waiting(endpoints, endpoint);
    turns_consider(endpoints->worker);
}

/* {"error": {"name": …, "message": …}}. NULL: no memory; the op then says no more than that it
 * failed. */
static char *error_detail(const char *message) {
    json_object *error = json_object_new_object(), *detail = json_object_new_object();
    json_object_object_add(error, "name", json_object_new_string("EndpointError"));
    json_object_object_add(error, "message", json_object_new_string(message));
    json_object_object_add(detail, "error", error);
    const char *text = json_object_to_json_string_ext(detail, JSON_C_TO_STRING_PLAIN);
    char *own = text == NULL ? NULL : strdup(text);
    json_object_put(detail);
    return own;
}

static void call_fail(struct endpoints *endpoints, struct endpoint_call *call,
                      const char *message) {
    call_end(endpoints, call, "fail", error_detail(message));
}

/* The calls that are not begun. */
static void give_back(struct endpoints *endpoints, struct endpoint *endpoint) {
    while (!list_is_empty(&endpoint->waiting)) {
        call_end(endpoints, list_first(&endpoint->waiting, struct endpoint_call, link), "yield",
                 strdup("{}"));
    }
}

/* The endpoint rests, and the run goes back to its queue. */
static void call_rest(struct endpoints *endpoints, struct endpoint_call *call, const char *reason,
                      int64_t rest_ms) {
    json_object *detail = json_object_new_object();
    json_object_object_add(detail, "endpoint", json_object_new_string(call->endpoint->name));
    json_object_object_add(detail, "reason", json_object_new_string(reason));
    if (rest_ms >= 0) {
        json_object_object_add(detail, "restMs", json_object_new_int64(rest_ms));
    }
    const char *text = json_object_to_json_string_ext(detail, JSON_C_TO_STRING_PLAIN);
    char *own = text == NULL ? NULL : strdup(text);
    json_object_put(detail);
    if (!call->endpoint->failing) {
        log_warning("endpoint.rests", "endpoint", call->endpoint->name, "reason", reason);
    }
    struct endpoint *endpoint = call->endpoint;
    endpoint->failing = endpoint->resting = true;
    call_end(endpoints, call, "rest", own);
    give_back(endpoints, endpoint);
}

/* How many shared the process that this call was cut off from. Those of one death are told to us
 * one after the other, while fewer and fewer are left. */
static int company_of_cut(struct endpoint *endpoint) {
    int64_t now_ms = clock_ms();
    if (endpoint->cut_ms == 0 || now_ms - endpoint->cut_ms > CUT_TOGETHER_MS) {
        endpoint->cut_ms = now_ms;
        endpoint->company = 0;
    }
    if (endpoint->company < endpoint->active) {
        endpoint->company = endpoint->active;
    }
    return endpoint->company;
}

/* The process there has died, of this run or of another one in its hands. */
static void call_crash(struct endpoints *endpoints, struct endpoint_call *call,
                       const char *reason) {
    json_object *detail = json_object_new_object();
    json_object_object_add(detail, "company", json_object_new_int(company_of_cut(call->endpoint)));
    json_object_object_add(detail, "reason", json_object_new_string(reason));
    const char *text = json_object_to_json_string_ext(detail, JSON_C_TO_STRING_PLAIN);
    char *own = text == NULL ? NULL : strdup(text);
    json_object_put(detail);
    call_end(endpoints, call, "crash", own);
}

static void say_well(struct endpoints *endpoints, struct endpoint *endpoint) {
    dj_worker *worker = endpoints->worker;
    endpoint->failing = endpoint->resting = false;
    begin_waiting(endpoints, endpoint);
    if (!db_pipeline_is_open(&worker->control)) {
        return;
    }
    struct db_params params;
    params_init(&params);
    params_add_uuid(&params, &worker->id);
    params_add_text(&params, endpoint->name);
    if (params_status(&params) == DJ_OK) {
        const struct db_call *call = &CALL_ENDPOINT_WELL;
        struct db_params *list = &params;
        db_pipeline_send(&worker->control, &call, &list, 1, db_batch_ignore, NULL);
    }
    params_done(&params);
}

/* The beginning of what somebody else wrote, for a message: without what a terminal would act on.
 */
static void quote(const struct buf *body, char text[QUOTE_BYTES_MAX + 1]) {
    size_t length = body->length < QUOTE_BYTES_MAX ? body->length : QUOTE_BYTES_MAX;
    for (size_t i = 0; i < length; i++) {
        char c = body->data[i];
        text[i] = c >= ' ' && c <= '~' ? c : '.';
    }
    text[length] = '\0';
}

static void call_answered(struct endpoints *endpoints, struct endpoint_call *call,
                          struct http_answer *answer) {
    char message[512], said[QUOTE_BYTES_MAX + 1];
    if (answer->status == 429 || answer->status == 503) {
        (void)snprintf(message, sizeof message, "it answered %d", answer->status);
        call_rest(endpoints, call, message, answer->retry_after_ms);
        return;
    }
    if (call->endpoint->failing) {
        say_well(endpoints, call->endpoint);
    }
    if (answer->status != 200) {
        quote(&answer->body, said);
        (void)snprintf(message, sizeof message, "endpoint %s answered %d: %s", call->endpoint->name,
                       answer->status, said);
        call_fail(endpoints, call, message);
        return;
    }
    if (protocol_answer_check(&answer->body) != DJ_OK) {
        quote(&answer->body, said);
        (void)snprintf(message, sizeof message,
                       "endpoint %s did not answer with a JSON object (%s): %s",
                       call->endpoint->name, dj_error_message(), said);
        call_fail(endpoints, call, message);
        return;
    }
    call_end(endpoints, call, "answer", buf_take(&answer->body));
}

static void on_answer(void *context, struct http_answer *answer) {
    struct endpoint_call *call = context;
    struct endpoints *endpoints = call->run->worker->endpoints;
    char message[512];
    FAILPOINT("call.answered");
    switch (answer->outcome) {
    case HTTP_ANSWERED:
        call_answered(endpoints, call, answer);
        return;
    case HTTP_NOT_REACHED:
    case HTTP_REFUSED:
        call_rest(endpoints, call, answer->reason, -1);
        return;
    case HTTP_NOT_SENT:
        call_end(endpoints, call, "yield", strdup("{}"));
        return;
    case HTTP_CUT:
        call_crash(endpoints, call, answer->reason);
        return;
    case HTTP_BROKEN:
        (void)snprintf(message, sizeof message, "the call of endpoint %s broke: %s",
                       call->endpoint->name, answer->reason);
        call_fail(endpoints, call, message);
        return;
    }
}

/* We may have stood still since the call was begun, and another worker have the run. */
static bool may_send(void *context) {
    const struct endpoint_call *call = context;
    return worker_is_sure(call->run->worker) && !atomic_load(&call->run->lost);
}

static dj_status sign(const struct endpoint *endpoint, const dj_run *run, const struct buf *body,
                      struct buf *id_header, struct buf *time_header,
                      struct buf *signature_header) {
    char id[80];
    AUTO(buf) struct buf signatures;
    buf_init(&signatures, 4096);
    int64_t now = (int64_t)time(NULL);
    (void)snprintf(id, sizeof id, "msg_%s_%lld", run->id_text, (long long)run->fence);
    for (int i = 0; i < endpoint->secret_count; i++) {
        DJ_TRY(webhook_sign(endpoint->secrets[i], id, now, body->data, body->length, &signatures));
    }
    DJ_TRY(buf_addf(id_header, "webhook-id: %s", id));
    DJ_TRY(buf_addf(time_header, "webhook-timestamp: %lld", (long long)now));
    return buf_addf(signature_header, "webhook-signature: %s",
                    signatures.data == NULL ? "" : signatures.data);
}

static dj_status call_send(struct endpoints *endpoints, struct endpoint_call *call) {
    dj_run *run = call->run;
    struct lease_name lease = { .run_id = run->id,
                                .fence = run->fence,
                                .worker_id = endpoints->worker->id };
    AUTO(buf) struct buf token, body, id, timestamp, signature;
    buf_init(&token, 256);
    buf_init(&body, CALL_BODY_BYTES_MAX);
    buf_init(&id, 256);
    buf_init(&timestamp, 64);
    buf_init(&signature, 8192);
    DJ_TRY(commit_token_print(&endpoints->secret, &lease, &token));
    DJ_TRY(protocol_request(run, endpoints->commit_url, token.data, &body));
    DJ_TRY(sign(call->endpoint, run, &body, &id, &timestamp, &signature));
    struct http_request_out request = {
        .method = "POST",
        .url = call->endpoint->url,
        .headers = { "content-type: application/json", "accept: application/json",
                     "expect:", id.data, timestamp.data, signature.data },
        .header_count = 6,
        .body_length = body.length,
        .timeout_ms = call->endpoint->timeout_ms,
        .answer_bytes_max = ANSWER_BYTES_MAX,
        .allow_private = call->endpoint->allow_private,
        .may_send = may_send,
    };
    request.body = buf_take(&body);
    return http_client_send(endpoints->http, &request, on_answer, call, &call->http);
}

static void call_begin(struct endpoints *endpoints, struct endpoint_call *call) {
    call->run->begun = true;
    FAILPOINT("call.before");
    if (call_send(endpoints, call) != DJ_OK) {
        call_fail(endpoints, call, dj_error_message());
        return;
    }
    call->endpoint->active++;
    FAILPOINT("call.begun");
}

static void call_new(struct endpoints *endpoints, dj_run *run) {
    struct endpoint_job *job = job_find(endpoints, run->job->name);
    struct endpoint_call *call = calloc(1, sizeof *call);
    check(job != NULL && call != NULL);
    *call = (struct endpoint_call){ .endpoint = job->endpoint, .run = run };
    list_init(&call->link);
    run->call = call;
    run->with_handler = true;
    if (!job->endpoint->there || job->endpoint->resting) {
        call_end(endpoints, call, "yield", strdup("{}"));
    } else if (has_room(endpoints, job->endpoint)) {
        call_begin(endpoints, call);
    } else {
        list_push(&job->endpoint->waiting, &call->link);
    }
}

void endpoints_call(struct endpoints *endpoints, struct list *runs) {
    while (!list_is_empty(runs)) {
        dj_run *run = list_first(runs, dj_run, link);
        list_remove(&run->link);
        call_new(endpoints, run);
    }
    http_client_flush(endpoints->http);
}

void endpoints_give_back(struct endpoints *endpoints) {
    list_for_each(endpoint, &endpoints->all, struct endpoint, link) {
        give_back(endpoints, endpoint);
    }
}

void endpoint_call_drop(dj_run *run) {
    http_call_drop(run->call->http);
    list_remove(&run->call->link);
    free(run->call);
    run->call = NULL;
}

/* Cuts off the calls of runs that are not ours any more. */
static void drop_lost(struct endpoints *endpoints) {
    list_for_each(run, &endpoints->worker->hand, dj_run, hand_link) {
        if (run->call != NULL && atomic_load(&run->lost)) {
            http_call_drop(run->call->http);
            call_end(endpoints, run->call, /* op= */ NULL, NULL);
        }
    }
}

void endpoints_go_on(struct endpoints *endpoints) {
    drop_lost(endpoints);
    list_for_each(endpoint, &endpoints->all, struct endpoint, link) {
        begin_waiting(endpoints, endpoint);
    }
}

void endpoints_tick(struct endpoints *endpoints) {
    bool failing = false;
    list_for_each(endpoint, &endpoints->all, struct endpoint, link) {
        failing = failing || endpoint->failing;
    }
    drop_lost(endpoints);
    if (clock_ms() - endpoints->asked_ms >= (failing ? REFRESH_FAILING_MS : REFRESH_MS)) {
        endpoints_refresh(endpoints);
    }
}

dj_status endpoints_new(dj_worker *worker, const dj_worker_options *options,
                        struct endpoints **ret_endpoints) {
    struct endpoints *endpoints = calloc(1, sizeof *endpoints);
    if (endpoints == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for the endpoints");
    }
    endpoints->worker = worker;
    list_init(&endpoints->all);
    dj_status status = http_client_new(worker->base, &endpoints->http);
    if (status == DJ_OK && options->forbid_private) {
        http_client_forbid_private(endpoints->http);
    }
    if (status == DJ_OK && options->public_url != NULL &&
        asprintf(&endpoints->commit_url, "%s/v1/commit", options->public_url) < 0) {
        endpoints->commit_url = NULL;
        status = dj_fail(DJ_NO_MEMORY, "no memory for the endpoints");
    }
    if (status != DJ_OK) {
        endpoints_free(endpoints);
        return status;
    }
    *ret_endpoints = endpoints;
    return DJ_OK;
}

void endpoints_free(struct endpoints *endpoints) {
    if (endpoints == NULL) {
        return;
    }
    http_client_free(endpoints->http);
    while (!list_is_empty(&endpoints->all)) {
        struct endpoint *endpoint = list_first(&endpoints->all, struct endpoint, link);
        list_remove(&endpoint->link);
        secrets_drop(endpoint);
        free(endpoint->name);
        free(endpoint->url);
        free(endpoint);
    }
    for (int i = 0; i < endpoints->job_count; i++) {
        free(endpoints->jobs[i]->job.name);
        free(endpoints->jobs[i]);
    }
    free(endpoints->jobs);
    free(endpoints->commit_url);
    free(endpoints);
}
