/* durable queues, workers. */
#include "cli/answer.h"
#include "cli/backend.h"
#include "cli/commands.h"
#include "cli/print.h"

#include "common/auto.h"
#include "common/config.h"
#include "common/duration.h"
#include "common/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

struct queue_flags {
    struct backend backend;
    int concurrency, key_concurrency, rate_limit, key_rate_limit, max_attempts; /* -1: not given */
    const char *rate_period, *fair_by, *weights, *backoff, *dead_letter_queue;
};

static void cell_age(struct json_slice value, struct buf *cell) {
    AUTO(free) char *ms = answer_text(value, "");
    char text[32];
    duration_print(strtoll(ms, NULL, 10) / 1000 * 1000, text);
    cell_add(cell, ms[0] == '\0' ? "" : text);
}

static const struct column queue_columns[] = {
    { "QUEUE", "name", NULL },
    { "READY", "depth", NULL },
    { "RUNNING", "running", NULL },
    { "PAUSED", "paused", cell_yes },
    { "OLDEST", "oldestAgeMs", cell_age },
    { "DEAD LETTERS", "deadLetterQueue", NULL },
};

/* A list without filters, as a table or as JSON. */
static dj_status list(struct backend *backend, const char *path, const char *name,
                      const struct db_call *call, const struct column columns[], int count) {
    AUTO(ask) struct ask ask;
    AUTO(free) char *answer = NULL;
    ask_init(&ask, "GET", path, call);
    DJ_TRY(backend_ask(backend, &ask, &answer));
    if (backend->json) {
        (void)puts(answer);
        return DJ_OK;
    }
    return print_table(answer_at(answer_of(answer), name), columns, count);
}

/* Asks for a change of a queue, and shows the queue. */
static dj_status change(struct backend *backend, struct ask *ask) {
    AUTO(free) char *queue = NULL;
    DJ_TRY(backend_ask(backend, ask, &queue));
    if (backend->json) {
        (void)puts(queue);
        return DJ_OK;
    }
    return print_row(answer_of(queue), queue_columns, COUNT(queue_columns));
}

static dj_status queue_pause(struct backend *backend, const char *name, bool paused) {
    AUTO(ask) struct ask ask;
    ask_init(&ask, "POST", "/v1/queues", &CALL_PAUSE_QUEUE_TEXT);
    ask_name(&ask, name);
    ask_path(&ask, paused ? "/pause" : "/resume");
    params_add_bool(&ask.params, paused);
    return change(backend, &ask);
}

static dj_status queue_set(struct queue_flags *flags, const char *name) {
    AUTO(ask) struct ask ask;
    ask_init(&ask, "PUT", "/v1/queues", &CALL_SET_QUEUE_TEXT);
    ask_name(&ask, name);
    ask_int4(&ask, "concurrency", flags->concurrency, flags->concurrency >= 0);
    ask_int4(&ask, "keyConcurrency", flags->key_concurrency, flags->key_concurrency >= 0);
    ask_int4(&ask, "rateLimit", flags->rate_limit, flags->rate_limit >= 0);
    ask_duration(&ask, "ratePeriod", "--rate-period", flags->rate_period);
    ask_int4(&ask, "keyRateLimit", flags->key_rate_limit, flags->key_rate_limit >= 0);
    ask_text(&ask, "fairBy", flags->fair_by);
    ask_json(&ask, "weights", "--weights", flags->weights);
    ask_int4(&ask, "maxAttempts", flags->max_attempts, flags->max_attempts >= 0);
    ask_json(&ask, "backoff", "--backoff", flags->backoff);
    ask_text(&ask, "deadLetterQueue", flags->dead_letter_queue);
    return change(&flags->backend, &ask);
}

static dj_status queues(struct queue_flags *flags, const char *verb, const char *name) {
    if (name == NULL) {
        return list(&flags->backend, "/v1/queues", "queues", &CALL_QUEUES_TEXT, queue_columns,
                    COUNT(queue_columns));
    }
    return strcmp(verb, "set") == 0
               ? queue_set(flags, name)
               : queue_pause(&flags->backend, name, strcmp(verb, "pause") == 0);
}

#define NUMBER(flag_, target_, help_)                                                              \
    {                                                                                              \
        .flag = (flag_), .value_name = "N", .help = "set: " help_, .kind = CONFIG_INT,             \
        .target = (target_), .min = 0, .max = 1000000000                                           \
    }
#define TEXT(flag_, value_, target_, help_)                                                        \
    {                                                                                              \
        .flag = (flag_), .value_name = (value_), .help = "set: " help_, .kind = CONFIG_TEXT,       \
        .target = (target_)                                                                        \
    }

dj_status command_queues(int argc, char **argv) {
    struct queue_flags flags = { .concurrency = -1,
                                 .key_concurrency = -1,
                                 .rate_limit = -1,
                                 .key_rate_limit = -1,
                                 .max_attempts = -1 };
    const struct config_option options[] = {
        NUMBER("max-attempts", &flags.max_attempts, "for runs whose start says nothing"),
        TEXT("backoff", "JSON", &flags.backoff, "between attempts: initial, factor, max, jitter"),
        TEXT("dead-letter-queue", "NAME", &flags.dead_letter_queue,
             "where failed runs are listed too"),
        NUMBER("concurrency", &flags.concurrency, "runs at once; 0: no limit"),
        NUMBER("key-concurrency", &flags.key_concurrency, "… of one concurrency key"),
        NUMBER("rate-limit", &flags.rate_limit, "starts in a period; 0: no limit"),
        TEXT("rate-period", "TIME", &flags.rate_period, "the period"),
        NUMBER("key-rate-limit", &flags.key_rate_limit, "… of one concurrency key"),
        TEXT("fair-by", "WHAT", &flags.fair_by, "concurrency_key, or tag:NAME"),
        TEXT("weights", "JSON", &flags.weights, "the share of each"),
        BACKEND_OPTIONS(&flags.backend),
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable queues",
        .arguments = "[list | set NAME | pause NAME | resume NAME]",
        .summary = "lists queues, sets what they do, pauses and resumes them; what is not given "
                   "stays as it is",
        .options = options,
        .arguments_max = 2
    };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    const char *verb = argv[first] == NULL ? "list" : argv[first];
    const char *name = argv[first] == NULL ? NULL : argv[first + 1];
    bool named =
        strcmp(verb, "set") == 0 || strcmp(verb, "pause") == 0 || strcmp(verb, "resume") == 0;
    if (named != (name != NULL) || (!named && strcmp(verb, "list") != 0)) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "'%s' is not allowed so; `list`, `set NAME`, `pause NAME` and `resume "
                       "NAME` are",
                       verb);
    }
    if (named) {
        DJ_TRY(check_name("NAME", name));
    }
    DJ_TRY(backend_open(&flags.backend));
    dj_status status = queues(&flags, verb, name);
    backend_close(&flags.backend);
    return status;
}

static void cell_in_hand(struct json_slice worker, struct buf *cell) {
    cell_add_field(cell, worker, "inHand");
    cell_add(cell, "/");
    cell_add_field(cell, worker, "slots");
}

static void cell_jobs(struct json_slice worker, struct buf *cell) {
    cell_list(answer_at(worker, "jobs"), cell);
    cell_list(answer_at(worker, "endpointJobs"), cell);
}

dj_status command_workers(int argc, char **argv) {
    static const struct column columns[] = {
        { "ID", "id", NULL },
        { "NAME", "name", NULL },
        { "PID", "pid", NULL },
        { "STATUS", "status", NULL },
        { "IN HAND", "", cell_in_hand },
        { "JOBS", "", cell_jobs },
        { "STARTED", "startedAt", cell_time },
    };
    struct backend backend = { .json = false };
    const struct config_option options[] = { BACKEND_OPTIONS(&backend), { .flag = NULL } };
    const struct config_command command = { .program = "durable workers",
                                            .summary = "lists workers",
                                            .options = options };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    DJ_TRY(backend_open(&backend));
    dj_status status =
        list(&backend, "/v1/workers", "workers", &CALL_WORKERS_TEXT, columns, COUNT(columns));
    backend_close(&backend);
    return status;
}
