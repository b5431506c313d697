#include "cli/run_show.h"

#include "cli/answer.h"
#include "cli/print.h"
#include "common/auto.h"
#include "common/rfc3339.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_ENTRIES 1000

static dj_status ask_run(struct backend *backend, const struct uuid *id, char **ret_run) {
    AUTO(ask) struct ask ask;
    ask_init(&ask, "GET", "/v1/runs", &CALL_RUN_TEXT);
    ask_id(&ask, id);
    ask_shown(&ask);
    dj_status status = backend_ask(backend, &ask, ret_run);
    return status == DJ_NOT_FOUND
               ? dj_fail(status, "%s; `durable runs` lists runs", dj_error_message())
               : status;
}

static dj_status ask_why(struct backend *backend, const struct uuid *id, char **ret_why) {
    AUTO(ask) struct ask ask;
    ask_init(&ask, "GET", "/v1/runs", &CALL_WHY_TEXT);
    ask_id(&ask, id);
    ask_path(&ask, "/why");
    return backend_ask(backend, &ask, ret_why);
}

static dj_status ask_timeline(struct backend *backend, const struct uuid *id, struct buf *list) {
    AUTO(pages) struct pages pages;
    pages_init(&pages, "timeline", INT64_MAX);
    while (pages.more) {
        AUTO(ask) struct ask ask;
        AUTO(free) char *page = NULL;
        ask_init(&ask, "GET", "/v1/runs", &CALL_TIMELINE_PAGE);
        ask_id(&ask, id);
        ask_path(&ask, "/timeline");
        ask_int8(&ask, "cursor", pages.count, true);
        ask_int4(&ask, "limit", PAGE_ENTRIES, true);
        DJ_TRY(backend_ask(backend, &ask, &page));
        DJ_TRY(pages_add(&pages, page));
    }
    return pages_list(&pages, list);
}

static int64_t time_us(struct json_slice entry) {
    AUTO(free) char *text = answer_text(entry, "at");
    int64_t us;
    return rfc3339_parse("at", text, &us) == DJ_OK ? us : 0;
}

static void draw_entry(struct json_slice entry, const char *mark, int64_t since_us) {
    AUTO(free) char *kind = answer_text(entry, "kind");
    AUTO(free) char *name = answer_text(entry, strcmp(kind, "attempt") == 0 ? "attempt" : "name");
    AUTO(free) char *took = answer_text(entry, "durationMs");
    AUTO(free)
    char *note =
        answer_text(entry, answer_has(entry, "detail.error") ? "detail.error" : "detail.message");
    int64_t ms = since_us / 1000;
    (void)printf("  %s %02" PRId64 ":%02d:%02d.%03d  %-13s ", mark, ms / 3600000,
                 (int)(ms / 60000 % 60), (int)(ms / 1000 % 60), (int)(ms % 1000), kind);
    print_text(name);
    if (took[0] != '\0') {
        (void)printf("  (%.1f ms)", strtod(took, NULL));
    }
    if (note[0] != '\0') {
        (void)printf("  ");
        print_text(note);
    }
    (void)putchar('\n');
}

/* A line for each entry, its time since the start, and how long it took. */
static dj_status draw_timeline(struct json_slice list) {
    struct json_slice none, entry, next = { .text = NULL };
    struct json_walk walk;
    bool more;
    DJ_TRY(json_walk_begin(&walk, "timeline", list.text, list.length, /* object= */ false));
    DJ_TRY(json_walk_next(&walk, &more, &none, &next));
    int64_t first_us = more ? time_us(next) : 0;
    for (bool first = true; more; first = false) {
        entry = next;
        DJ_TRY(json_walk_next(&walk, &more, &none, &next));
        draw_entry(entry, first ? "┌" : more ? "├" : "└", time_us(entry) - first_us);
    }
    return DJ_OK;
}

static void cell_attempt(struct json_slice run, struct buf *cell) {
    cell_add_field(cell, run, "attempt");
    cell_add(cell, " of ");
    cell_add_field(cell, run, "maxAttempts");
}

static void cell_error(struct json_slice error, struct buf *cell) {
    cell_add_field(cell, error, "name");
    cell_add(cell, answer_has(error, "name") ? ": " : "");
    cell_add_field(cell, error, "message");
}

dj_status run_show(struct backend *backend, const struct uuid *id) {
    static const struct column fields[] = {
        { .heading = "run", .field = "id" },
        { .heading = "job", .field = "job" },
        { .heading = "queue", .field = "queueName" },
        { .heading = "status", .field = "status" },
        { .heading = "attempt", .field = "", .print = cell_attempt },
        { .heading = "payload", .field = "payload", .print = cell_json },
        { .heading = "result", .field = "result", .print = cell_json },
        { .heading = "error", .field = "error", .print = cell_error },
        { .heading = "why", .field = "why" },
    };
    AUTO(free) char *run = NULL;
    AUTO(free) char *why = NULL;
    AUTO(buf) struct buf timeline;
    AUTO(buf) struct buf whole;
    buf_init(&timeline, ANSWER_BYTES_MAX);
    buf_init(&whole, ANSWER_BYTES_MAX);
    DJ_TRY(ask_run(backend, id, &run));
    DJ_TRY(ask_why(backend, id, &why));
    DJ_TRY(ask_timeline(backend, id, &timeline));
    DJ_TRY(buf_add_text(&whole, run));
    DJ_TRY(answer_add(&whole, "why", answer_at(answer_of(why), "why")));
    if (backend->json) {
        DJ_TRY(answer_add(&whole, "timeline", answer_of(timeline.data)));
        (void)puts(whole.data);
        return DJ_OK;
    }
    print_fields(answer_of(whole.data), fields, sizeof fields / sizeof *fields);
    (void)putchar('\n');
    return draw_timeline(answer_of(timeline.data));
}
