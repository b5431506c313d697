/* durable run, runs, cancel, retry. */
#include "cli/answer.h"
#include "cli/backend.h"
#include "cli/commands.h"
#include "cli/print.h"
#include "cli/run_show.h"

#include "common/auto.h"
#include "common/config.h"
#include <stdio.h>
#include <string.h>

#define PAGE_RUNS 200 /* as many as a server gives */

dj_status command_run(int argc, char **argv) {
    struct backend backend = { .json = false };
    const struct config_option options[] = { BACKEND_OPTIONS(&backend), { .flag = NULL } };
    const struct config_command command = { .program = "durable run",
                                            .arguments = "ID",
                                            .summary =
                                                "shows a run, what it waits for, and its timeline",
                                            .options = options,
                                            .arguments_min = 1,
                                            .arguments_max = 1 };
    int first;
    struct uuid id;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    DJ_TRY(uuid_parse("ID", argv[first], &id));
    DJ_TRY(backend_open(&backend));
    dj_status status = run_show(&backend, &id);
    backend_close(&backend);
    return status;
}

struct runs_flags {
    struct backend backend;
    const char *state, *job, *queue;
    int limit;
};

static dj_status ask_page(struct runs_flags *flags, const struct pages *pages, char **ret_page) {
    AUTO(ask) struct ask ask;
    struct uuid before;
    int64_t left = pages->most - pages->count;
    if (pages->cursor != NULL) {
        DJ_TRY(uuid_parse("nextCursor", pages->cursor, &before));
    }
    ask_init(&ask, "GET", "/v1/runs", &CALL_RUNS_PAGE);
    ask_text(&ask, "status", flags->state);
    ask_text(&ask, "job", flags->job);
    ask_text(&ask, "queue", flags->queue);
    for (int other = 0; other < 4; other++) { /* deadLetterQueue, tag, since, until */
        params_add_null(&ask.params);
    }
    ask_route_text(&ask, "cursor", pages->cursor);
    pages->cursor != NULL ? params_add_uuid(&ask.params, &before) : params_add_null(&ask.params);
    ask_int4(&ask, "limit", (int32_t)(left < PAGE_RUNS ? left : PAGE_RUNS), true);
    ask_shown(&ask);
    return backend_ask(&flags->backend, &ask, ret_page);
}

static void cell_attempt(struct json_slice run, struct buf *cell) {
    cell_add_field(cell, run, "attempt");
    cell_add(cell, "/");
    cell_add_field(cell, run, "maxAttempts");
}

static void cell_note(struct json_slice run, struct buf *cell) {
    cell_add_field(cell, run, answer_has(run, "error") ? "error.message" : "waitingFor.kind");
}

static dj_status list_runs(struct runs_flags *flags) {
    static const struct column columns[] = {
        { "ID", "id", NULL },
        { "STATUS", "status", NULL },
        { "JOB", "job", NULL },
        { "QUEUE", "queueName", NULL },
        { "ATTEMPT", "", cell_attempt },
        { "CREATED", "createdAt", cell_time },
        { "NOTE", "", cell_note },
    };
    AUTO(pages) struct pages pages;
    AUTO(buf) struct buf list;
    pages_init(&pages, "runs", flags->limit);
    buf_init(&list, ANSWER_BYTES_MAX);
    while (pages.more) {
        AUTO(free) char *page = NULL;
        DJ_TRY(ask_page(flags, &pages, &page));
        DJ_TRY(pages_add(&pages, page));
    }
    DJ_TRY(pages_list(&pages, &list));
    if (!flags->backend.json) {
        return print_table(answer_of(list.data), columns, sizeof columns / sizeof *columns);
    }
    const char *quote = pages.cursor == NULL ? "" : "\"";
    (void)printf("{\"runs\": %s, \"nextCursor\": %s%s%s}\n", list.data, quote,
                 pages.cursor == NULL ? "null" : pages.cursor, quote);
    return DJ_OK;
}

dj_status command_runs(int argc, char **argv) {
    static const char *const states[] = { "scheduled", "queued",    "running", "waiting",
                                          "retrying",  "completed", "failed",  "cancelled" };
    struct runs_flags flags = { .limit = 20 };
    const struct config_option options[] = {
        { .flag = "status",
          .value_name = "STATUS",
          .help = "only runs of this status",
          .kind = CONFIG_TEXT,
          .target = &flags.state },
        { .flag = "job",
          .value_name = "NAME",
          .help = "only runs of this job",
          .kind = CONFIG_TEXT,
          .target = &flags.job },
        { .flag = "queue",
          .value_name = "NAME",
          .help = "only runs in this queue",
          .kind = CONFIG_TEXT,
          .target = &flags.queue },
        { .flag = "limit",
          .value_name = "N",
          .default_text = "20",
          .help = "so many at most",
          .kind = CONFIG_INT,
          .target = &flags.limit,
          .min = 1,
          .max = 10000 },
        BACKEND_OPTIONS(&flags.backend),
        { .flag = NULL },
    };
    const struct config_command command = { .program = "durable runs",
                                            .summary = "lists runs, newest first",
                                            .options = options };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    bool known = flags.state == NULL;
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        known = known || strcmp(flags.state, states[i]) == 0;
    }
    if (!known) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "--status %s is not known; scheduled, queued, running, waiting, "
                       "retrying, completed, failed and cancelled are",
                       flags.state);
    }
    DJ_TRY(backend_open(&flags.backend));
    dj_status status = list_runs(&flags);
    backend_close(&flags.backend);
    return status;
}

/* What is done to one run: asks, and prints the run as JSON, or a word. */
static dj_status control(struct backend *backend, struct ask *ask, const char *done) {
    AUTO(free) char *run = NULL;
    ask_shown(ask);
    DJ_TRY(backend_open(backend));
    dj_status status = backend_ask(backend, ask, &run);
    backend_close(backend);
    DJ_TRY(status);
    (void)puts(backend->json ? run : done);
    return DJ_OK;
}

dj_status command_cancel(int argc, char **argv) {
    struct backend backend = { .json = false };
    const char *reason = NULL;
    const struct config_option options[] = {
        { .flag = "reason",
          .value_name = "TEXT",
          .help = "why, for the timeline",
          .kind = CONFIG_TEXT,
          .target = &reason },
        BACKEND_OPTIONS(&backend),
        { .flag = NULL },
    };
    const struct config_command command = { .program = "durable cancel",
                                            .arguments = "ID",
                                            .summary = "cancels a run",
                                            .options = options,
                                            .arguments_min = 1,
                                            .arguments_max = 1 };
    int first;
    struct uuid id;
    AUTO(ask) struct ask ask;
    ask_init(&ask, "POST", "/v1/runs", &CALL_CANCEL_TEXT);
    DJ_TRY(config_parse(&command, argc, argv, &first));
    DJ_TRY(uuid_parse("ID", argv[first], &id));
    ask_id(&ask, &id);
    ask_path(&ask, "/cancel");
    ask_text(&ask, "reason", reason);
    return control(&backend, &ask, "cancelled");
}

dj_status command_retry(int argc, char **argv) {
    struct backend backend = { .json = false };
    int max_attempts = 0;
    const struct config_option options[] = {
        { .flag = "max-attempts",
          .value_name = "N",
          .default_text = "as at first",
          .help = "so many further attempts",
          .kind = CONFIG_INT,
          .target = &max_attempts,
          .min = 1,
          .max = 1000000 },
        BACKEND_OPTIONS(&backend),
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable retry",
        .arguments = "ID",
        .summary = "lets a failed or cancelled run go on; completed steps are reused",
        .options = options,
        .arguments_min = 1,
        .arguments_max = 1
    };
    int first;
    struct uuid id;
    AUTO(ask) struct ask ask;
    ask_init(&ask, "POST", "/v1/runs", &CALL_RETRY_TEXT);
    DJ_TRY(config_parse(&command, argc, argv, &first));
    DJ_TRY(uuid_parse("ID", argv[first], &id));
    ask_id(&ask, &id);
    ask_path(&ask, "/retry");
    ask_int4(&ask, "maxAttempts", max_attempts, max_attempts > 0);
    return control(&backend, &ask, "it goes on");
}
