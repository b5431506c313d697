/* Those who wait: for a run's result, or for what comes in its timeline. None of them holds a
 * connection of the database: a tick, four times a second while there is anybody, asks for all of
 * them at once. That some run has ended is notified while anybody waits for a result, and is a
 * reason to look at once; but where others' runs end all the time, only now and then. */
#include "server/api/api.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/db_rows.h"
#include "common/duration.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 250
#define TICK_MS_MIN 2 /* after a new one came: it may be a short one */
#define WAIT_MS_MAX 600000
#define VAIN_LOOKS_MAX 4 /* for a notification, in a row, before ticks alone have to do */
#define RESULTS_A_TICK 1000
#define STREAMS_A_TICK 64
#define STREAM_QUIET_MS 15000
#define LAST_EVENT_ID_DIGITS 18
#define LAST_EVENT_ID_MAX 999999999999999999LL
#define STREAM_ENTRIES_A_TICK 1024 /* of all streams together; a log line has up to 8 KiB */
#define STREAM_ENTRIES_MAX 64
#define STREAM_BEHIND_BYTES 65536 /* who has more to read gets nothing new */

struct waiter {
    struct list link;
    struct api *api;
    struct http_request *request;
    struct uuid id;
    uint64_t number;
    bool stream, last_look; /* a call for it alone is on its way */
    int64_t until_ms;       /* result: when to answer in any case */
    int64_t after_us;       /* stream: up to when it has been told */
    int64_t told_ms;
};

struct waits {
    struct api *api;
    struct event *tick;
    struct list results, streams;
    int64_t tick_ms; /* doubles with each look, until somebody new waits */
    uint64_t number;
    int vain_looks;
    bool asking_results, asking_streams, hinted;
};

static void tick_later(struct waits *waits) {
    struct timeval delay = { .tv_usec = waits->tick_ms * 1000 };
    bool anybody = !list_is_empty(&waits->results) || !list_is_empty(&waits->streams);
    if (anybody && event_pending(waits->tick, EV_TIMEOUT, NULL) == 0) {
        (void)event_add(waits->tick, &delay);
    }
}

/* Somebody new waits: look soon. */
static void tick_soon(struct waits *waits) {
    waits->vain_looks = 0;
    waits->tick_ms = TICK_MS_MIN;
    (void)event_del(waits->tick);
    tick_later(waits);
}

static void waiter_free(struct waiter *waiter) {
    list_remove(&waiter->link);
    free(waiter);
}

static void look(struct waiter *waiter, work_done_fn done) {
    struct work *work = work_new(&CALL_RESULT_TEXT, waiter->request->namespace_id);
    params_add_uuid(work_params(work), &waiter->id);
    params_add_bool(work_params(work), request_shows(waiter->request));
    waiter->last_look = true;
    database_send(waiter->api->database, work, done, waiter);
}

static void waiter_fail(struct waiter *waiter, dj_status status, const char *message) {
    struct api *api = waiter->api;
    struct http_request *request = waiter->request;
    waiter_free(waiter);
    problem_reply_status(api, request, status, message);
}

/* The first look: has it ended already, is it there at all? And the last. */
static void on_look(void *context, const struct work_end *end) {
    struct waiter *waiter = context;
    struct waits *waits = waiter->api->waits;
    const char *text = NULL;
    size_t length;
    bool ended = false;
    waiter->last_look = false;
    if (end->status != DJ_OK) {
        waiter_fail(waiter, end->status, end->message);
        return;
    }
    if (rows_bool(end->rows, 0, 0, &ended) != DJ_OK ||
        rows_text(end->rows, 0, 1, &text, &length) != DJ_OK) {
        waiter_fail(waiter, DJ_INTERNAL, dj_error_message());
        return;
    }
    bool go_on = http_is_heard(waiter->request) && !http_server_is_draining(waiter->api->http);
    if (!ended && go_on && clock_ms() < waiter->until_ms) {
        list_remove(&waiter->link);
        list_push(&waits->results, &waiter->link);
        tick_soon(waits);
        return;
    }
    struct api *api = waiter->api;
    struct http_request *request = waiter->request;
    waiter_free(waiter);
    api_reply_json(api, request, ended ? 200 : 202, text, length);
}

static struct waiter *waiter_new(struct api *api, struct http_request *request) {
    struct uuid id;
    if (request_uuid(api, request, &id) != DJ_OK) {
        return NULL;
    }
    struct waiter *waiter = calloc(1, sizeof *waiter);
    check(waiter != NULL);
    waiter->api = api;
    waiter->request = request;
    waiter->id = id;
    waiter->number = ++api->waits->number;
    list_init(&waiter->link);
    return waiter;
}

void wait_result(struct api *api, struct http_request *request) {
    int64_t wait_ms = 0;
    const struct field fields[] = {
        { .name = "wait", .kind = FIELD_DURATION, .target = &wait_ms },
        { .name = NULL },
    };
    dj_status status = query_read(request->query, fields);
    if (status == DJ_OK && wait_ms > WAIT_MS_MAX) {
        status = dj_fail(DJ_INVALID_ARGUMENT, "wait is too long; up to 10m is allowed");
    }
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
        return;
    }
    struct waiter *waiter = waiter_new(api, request);
    if (waiter != NULL) {
        waiter->until_ms = clock_ms() + wait_ms;
        look(waiter, on_look);
    }
}

static void on_ended(void *context, const struct work_end *end) {
    struct waits *waits = context;
    struct uuid id;
    waits->asking_results = false;
    if (end->status == DJ_OK && PQntuples(end->rows) > 0) {
        waits->vain_looks = 0;
    } else if (waits->hinted) {
        waits->vain_looks++;
    }
    waits->hinted = false;
    for (int row = 0; end->status == DJ_OK && row < PQntuples(end->rows); row++) {
        if (rows_uuid(end->rows, row, 0, &id) != DJ_OK) {
            continue;
        }
        list_for_each(waiter, &waits->results, struct waiter, link) {
            if (uuid_equal(&waiter->id, &id) && !waiter->last_look) {
                waiter->until_ms = 0;
            }
        }
    }
    struct list done;
    list_init(&done);
    list_for_each(waiter, &waits->results, struct waiter, link) {
        if (waiter->until_ms == 0) {
            list_remove(&waiter->link);
            list_push(&done, &waiter->link);
        }
    }
    while (!list_is_empty(&done)) {
        struct waiter *waiter = list_first(&done, struct waiter, link);
        list_remove(&waiter->link);
        look(waiter, on_look);
    }
}

static void ask_results(struct waits *waits) {
    int64_t now = clock_ms();
    list_for_each(late, &waits->results, struct waiter, link) {
        late->until_ms = late->until_ms <= now ? 0 : late->until_ms;
    }
    if (!database_is_up(waits->api->database)) { /* it comes back; those whose time is over go */
        on_ended(waits, &(struct work_end){ .status = DJ_UNAVAILABLE });
        return;
    }
    int count = 0;
    struct work *work = work_new(&CALL_ENDED_RUNS, /* namespace_id= */ 0);
    params_array_begin(work_params(work), DB_UUID);
    while (!list_is_empty(&waits->results) && count < RESULTS_A_TICK) {
        struct waiter *waiter = list_first(&waits->results, struct waiter, link);
        if (count > 0 && waiter->told_ms == now) {
            break; /* once around */
        }
        waiter->told_ms = now;
        params_array_uuid(work_params(work), &waiter->id);
        list_remove(&waiter->link);
        list_push(&waits->results, &waiter->link);
        count++;
    }
    params_array_end(work_params(work));
    waits->asking_results = true;
    database_send(waits->api->database, work, on_ended, waits);
}

/* Some run has ended. */
void waits_hint(struct api *api) {
    struct waits *waits = api->waits;
    if (!waits->asking_results && !list_is_empty(&waits->results) &&
        waits->vain_looks < VAIN_LOOKS_MAX) {
        waits->hinted = true;
        ask_results(waits);
    }
}

/* Which streams a call was for. */
struct tails {
    struct waits *waits;
    int count, entries_max;
    uint64_t numbers[STREAMS_A_TICK];
};

static struct waiter *stream_by_number(struct waits *waits, uint64_t number) {
    list_for_each(waiter, &waits->streams, struct waiter, link) {
        if (waiter->number == number) {
            return waiter;
        }
    }
    return NULL; /* gone meanwhile */
}

static dj_status tell(struct waits *waits, const struct tails *tails, const PGresult *rows,
                      int row) {
    int32_t n;
    int64_t at_us;
    const char *entry;
    size_t length;
    bool ended;
    char id[64];
    DJ_TRY(rows_int4(rows, row, 0, &n));
    DJ_TRY(rows_int8(rows, row, 1, &at_us));
    DJ_TRY(rows_text(rows, row, 2, &entry, &length));
    DJ_TRY(rows_bool(rows, row, 3, &ended));
    struct waiter *waiter =
        n >= 1 && n <= tails->count ? stream_by_number(waits, tails->numbers[n - 1]) : NULL;
    if (waiter == NULL) {
        return DJ_OK;
    }
    int head = snprintf(id, sizeof id, "id: %" PRId64 "\ndata: ", at_us);
    struct buf text;
    buf_init(&text, SIZE_MAX / 2);
    check(buf_add(&text, id, (size_t)head) == DJ_OK && buf_add(&text, entry, length) == DJ_OK &&
          buf_add(&text, "\n\n", 2) == DJ_OK);
    bool there = http_stream_add(waiter->request, text.data, text.length);
    buf_done(&text);
    waiter->after_us = at_us > waiter->after_us ? at_us : waiter->after_us;
    waiter->told_ms = clock_ms();
    if (there && ended) {
        http_stream_end(waiter->request);
    }
    if (!there || ended) {
        waiter_free(waiter);
    }
    return DJ_OK;
}

static void on_tails(void *context, const struct work_end *end) {
    struct tails *tails = context;
    struct waits *waits = tails->waits;
    waits->asking_streams = false;
    for (int row = 0; end->status == DJ_OK && row < PQntuples(end->rows); row++) {
        (void)tell(waits, tails, end->rows, row);
    }
    if (end->status == DJ_OK && PQntuples(end->rows) >= tails->entries_max) {
        tick_soon(waits); /* there may be more */
    }
    free(tails);
}

static void ask_streams(struct waits *waits) {
    struct tails *tails = calloc(1, sizeof *tails);
    check(tails != NULL);
    struct waiter *asked[STREAMS_A_TICK], *first = list_first(&waits->streams, struct waiter, link),
                                          *waiter = first;
    tails->waits = waits;
    do { /* once around */
        list_remove(&waiter->link);
        list_push(&waits->streams, &waiter->link);
        if (http_stream_behind(waiter->request) <= STREAM_BEHIND_BYTES) {
            asked[tails->count] = waiter;
            tails->numbers[tails->count++] = waiter->number;
        }
        waiter = list_first(&waits->streams, struct waiter, link);
    } while (waiter != first && tails->count < STREAMS_A_TICK);
    if (tails->count == 0) {
        free(tails);
        return;
    }
    int share = STREAM_ENTRIES_A_TICK / tails->count;
    tails->entries_max = share > STREAM_ENTRIES_MAX ? STREAM_ENTRIES_MAX : share;
    struct work *work = work_new(&CALL_STREAM_TAILS, /* namespace_id= */ 0);
    struct db_params *params = work_params(work);
    params_array_begin(params, DB_INT4);
    for (int i = 0; i < tails->count; i++) {
        params_array_int4(params, asked[i]->request->namespace_id);
    }
    params_array_end(params);
    params_array_begin(params, DB_UUID);
    for (int i = 0; i < tails->count; i++) {
        params_array_uuid(params, &asked[i]->id);
    }
    params_array_end(params);
    params_array_begin(params, DB_INT8);
    for (int i = 0; i < tails->count; i++) {
        params_array_int8(params, asked[i]->after_us);
    }
    params_array_end(params);
    params_add_number(params, tails->entries_max);
    waits->asking_streams = true;
    database_send(waits->api->database, work, on_tails, tails);
}

/* Now and then a word, so that what lies between does not think that nobody is there. */
static void keep_alive(struct waits *waits) {
    int64_t now = clock_ms();
    list_for_each(waiter, &waits->streams, struct waiter, link) {
        if (now - waiter->told_ms > STREAM_QUIET_MS) {
            waiter->told_ms = now;
            if (!http_stream_add(waiter->request, ":\n\n", 3)) {
                waiter_free(waiter);
            }
        }
    }
}

static void on_tick(evutil_socket_t fd, short what, void *context) {
    struct waits *waits = context;
    (void)fd;
    (void)what;
    if (!waits->asking_results && !list_is_empty(&waits->results)) {
        ask_results(waits);
    }
    keep_alive(waits);
    waits->tick_ms = waits->tick_ms * 2 < TICK_MS ? waits->tick_ms * 2 : TICK_MS;
    if (!waits->asking_streams && !list_is_empty(&waits->streams)) {
        ask_streams(waits);
    }
    tick_later(waits);
}

/* The run is there: the stream begins. Or it has ended before what was told last, and a browser
 * that asks again whenever a stream ends is told to leave it at that. */
static void on_stream(void *context, const struct work_end *end) {
    struct waiter *waiter = context;
    struct waits *waits = waiter->api->waits;
    bool over = false;
    waiter->last_look = false;
    if (end->status == DJ_OK && rows_bool(end->rows, 0, 0, &over) == DJ_OK && over) {
        struct http_request *request = waiter->request;
        waiter_free(waiter);
        http_reply(request, 204, NULL, "", "", 0);
        return;
    }
    if (end->status != DJ_OK) {
        waiter_fail(waiter, end->status, end->message);
        return;
    }
    if (!http_is_heard(waiter->request)) {
        waiter_fail(waiter, DJ_CANCELLED, "the client has gone");
        return;
    }
    waiter->told_ms = clock_ms();
    http_stream_begin(waiter->request, "text/event-stream");
    list_push(&waits->streams, &waiter->link);
    if (!waits->asking_streams) {
        ask_streams(waits);
    }
    tick_later(waits);
}

void wait_stream(struct api *api, struct http_request *request) {
    int64_t after_us = 0;
    const struct field fields[] = {
        { .name = "lastEventId",
          .kind = FIELD_INT,
          .target = &after_us,
          .min = 0,
          .max = LAST_EVENT_ID_MAX },
        { .name = NULL },
    };
    dj_status status = query_read(request->query, fields);
    if (status == DJ_OK && request->last_event_id != NULL) {
        size_t digits = strspn(request->last_event_id, "0123456789");
        if (digits == 0 || digits > LAST_EVENT_ID_DIGITS ||
            request->last_event_id[digits] != '\0') {
            status = dj_fail(DJ_INVALID_ARGUMENT, "Last-Event-ID is not an id of this stream");
        } else {
            after_us = strtoll(request->last_event_id, NULL, 10);
        }
    }
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
        return;
    }
    struct waiter *waiter = waiter_new(api, request);
    if (waiter != NULL) {
        waiter->stream = true;
        waiter->after_us = after_us;
        waiter->last_look = true;
        struct work *work = work_new(&CALL_STREAM_IS_OVER, request->namespace_id);
        params_add_uuid(work_params(work), &waiter->id);
        params_add_int8(work_params(work), after_us);
        database_send(api->database, work, on_stream, waiter);
    }
}

void waits_open(struct api *api) {
    api->waits = calloc(1, sizeof *api->waits);
    check(api->waits != NULL);
    api->waits->api = api;
    api->waits->tick_ms = TICK_MS;
    list_init(&api->waits->results);
    list_init(&api->waits->streams);
    api->waits->tick = event_new(api->base, -1, 0, on_tick, api->waits);
    check(api->waits->tick != NULL);
}

bool waits_forget(struct api *api, struct http_request *request) {
    struct list *lists[] = { &api->waits->results, &api->waits->streams };
    for (int i = 0; i < 2; i++) {
        list_for_each(waiter, lists[i], struct waiter, link) {
            if (waiter->request == request) {
                waiter_free(waiter);
                return true;
            }
        }
    }
    return false; /* a call for it is on its way, and will be answered in vain */
}

void waits_drain(struct api *api) {
    struct waits *waits = api->waits;
    list_for_each(waiter, &waits->streams, struct waiter, link) {
        http_stream_end(waiter->request);
        waiter_free(waiter);
    }
    list_for_each(late, &waits->results, struct waiter, link) {
        late->until_ms = 0;
    }
    on_ended(waits, &(struct work_end){ .status = DJ_UNAVAILABLE });
}
