/* durable start, event. Payloads go through as text: they are never printed anew. */
#include "cli/answer.h"
#include "cli/backend.h"
#include "cli/commands.h"
#include "cli/run_show.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/duration.h"
#include "common/json.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LOOK_MS_MIN 2
#define LOOK_MS_MAX 250
#define SERVER_WAIT_MS 30000

struct start_flags {
    struct backend backend;
    const char *queue, *key, *ttl, *at, *concurrency_key, *timeout, *wait;
    int max_attempts, priority;
    struct config_texts tags;
    bool restart;
};

static dj_status tags_print(const struct config_texts *tags, struct buf *text) {
    AUTO(json) json_object *object = json_object_new_object();
    for (int i = 0; i < tags->count; i++) {
        char key[TAG_KEY_BYTES_MAX + 2];
        const char *equals = strchr(tags->texts[i], '=');
        if (equals == NULL) {
            return dj_fail(DJ_INVALID_ARGUMENT, "--tag %s is not allowed; KEY=VALUE is",
                           tags->texts[i]);
        }
        size_t length = (size_t)(equals - tags->texts[i]);
        if (length > TAG_KEY_BYTES_MAX) {
            return dj_fail(DJ_INVALID_ARGUMENT,
                           "--tag has a key of %zu bytes; up to %d are allowed", length,
                           TAG_KEY_BYTES_MAX);
        }
        memcpy(key, tags->texts[i], length);
        key[length] = '\0';
        json_object_object_add(object, key, json_object_new_string(equals + 1));
    }
    return json_print("--tag", object, PAYLOAD_BYTES_MAX, text);
}

static dj_status ask_start(struct start_flags *flags, const char *job, const char *payload,
                           char **ret_run) {
    AUTO(ask) struct ask ask;
    AUTO(buf) struct buf tags;
    buf_init(&tags, PAYLOAD_BYTES_MAX);
    ask_init(&ask, "POST", "/v1/runs", &CALL_START_TEXT);
    DJ_TRY(tags_print(&flags->tags, &tags));
    ask_text(&ask, "job", job);
    ask_json(&ask, "payload", "PAYLOAD", payload);
    ask_text(&ask, "queueName", flags->queue);
    ask_text(&ask, "idempotencyKey", flags->key);
    ask_duration(&ask, "idempotencyTtl", "--ttl", flags->ttl);
    ask_int4(&ask, "maxAttempts", flags->max_attempts, flags->max_attempts > 0);
    ask_time(&ask, "scheduledAt", "--at", flags->at);
    ask_int4(&ask, "priority", flags->priority, true);
    ask_text(&ask, "concurrencyKey", flags->concurrency_key);
    ask_duration(&ask, "timeout", "--timeout", flags->timeout);
    ask_json(&ask, "tags", "--tag", tags.data);
    ask_text(&ask, "onTerminal", flags->restart ? "restart" : NULL);
    return backend_ask(&flags->backend, &ask, ret_run);
}

/* How it ended; DJ_TIMEOUT: it has not. A server waits for up to `wait_ms`, a database does not. */
static dj_status ask_result(struct backend *backend, const struct uuid *id, int64_t wait_ms) {
    AUTO(ask) struct ask ask;
    AUTO(free) char *text = NULL;
    char wait[32], run_id[UUID_TEXT_BYTES];
    duration_print(wait_ms < 1 ? 1 : wait_ms, wait);
    ask_init(&ask, "GET", "/v1/runs", &CALL_RESULT_LOOK);
    ask_id(&ask, id);
    ask_path(&ask, "/result");
    ask_route_text(&ask, "wait", wait);
    ask_shown(&ask);
    DJ_TRY(backend_ask(backend, &ask, &text));
    struct json_slice result = answer_of(text);
    AUTO(free) char *status = answer_text(result, "status");
    AUTO(free) char *reason = answer_text(result, "error.message");
    bool failed = strcmp(status, "failed") == 0;
    if (strcmp(status, "completed") == 0) {
        return DJ_OK;
    }
    if (failed || strcmp(status, "cancelled") == 0) {
        return dj_fail(failed ? DJ_FAILED : DJ_CANCELLED, "%s",
                       reason[0] == '\0' ? "no reason is known" : reason);
    }
    uuid_print(id, run_id);
    return dj_fail(DJ_TIMEOUT, "run %s has not ended: it is %s", run_id, status);
}

/* --wait: until the run ends. Its end decides the exit status. */
static dj_status wait_for_end(struct backend *backend, const struct uuid *id, int64_t ms) {
    int64_t until = clock_ms() + ms, rest = LOOK_MS_MIN;
    for (;;) {
        int64_t left = until - clock_ms();
        dj_status status = ask_result(backend, id, left < SERVER_WAIT_MS ? left : SERVER_WAIT_MS);
        left = until - clock_ms();
        if (status != DJ_TIMEOUT || left <= 0) {
            return status;
        }
        if (backend->conn != NULL) { /* looks again, a little later each time */
            int64_t pause = rest < left ? rest : left;
            (void)nanosleep(&(struct timespec){ .tv_nsec = pause * 1000000 }, NULL);
            rest = rest * 2 < LOOK_MS_MAX ? rest * 2 : LOOK_MS_MAX;
        }
    }
}

static dj_status start(struct start_flags *flags, const char *job, const char *payload,
                       int64_t wait_ms) {
    AUTO(free) char *run = NULL;
    struct uuid id;
    DJ_TRY(ask_start(flags, job, payload, &run));
    AUTO(free) char *run_id = answer_text(answer_of(run), "id");
    if (flags->wait == NULL) {
        (void)puts(flags->backend.json ? run : run_id);
        return DJ_OK;
    }
    DJ_TRY(uuid_parse("id", run_id, &id));
    dj_status ended = wait_for_end(&flags->backend, &id, wait_ms);
    if (ended == DJ_OK) {
        return run_show(&flags->backend, &id);
    }
    AUTO(free) char *reason = strdup(dj_error_message());
    DJ_TRY(run_show(&flags->backend, &id));
    return dj_fail(ended, "%s", reason == NULL ? "" : reason);
}

/* NOLINTNEXTLINE(readability-function-size): a table */
dj_status command_start(int argc, char **argv) {
    struct start_flags flags = { .queue = "default" };
    const struct config_option options[] = {
        { .flag = "queue",
          .value_name = "NAME",
          .default_text = "default",
          .help = "where it waits for a worker",
          .kind = CONFIG_TEXT,
          .target = &flags.queue },
        { .flag = "key",
          .value_name = "KEY",
          .help = "idempotency key: a repeated start is the same run",
          .kind = CONFIG_TEXT,
          .target = &flags.key },
        { .flag = "ttl",
          .value_name = "TIME",
          .help = "how long the key holds",
          .kind = CONFIG_TEXT,
          .target = &flags.ttl },
        { .flag = "restart",
          .help = "a failed or cancelled run gives the key up",
          .kind = CONFIG_SWITCH,
          .target = &flags.restart },
        { .flag = "max-attempts",
          .value_name = "N",
          .help = "attempts until it fails for good",
          .kind = CONFIG_INT,
          .target = &flags.max_attempts,
          .min = 1,
          .max = 1000000 },
        { .flag = "at",
          .value_name = "TIME",
          .help = "when it is due, RFC 3339",
          .kind = CONFIG_TEXT,
          .target = &flags.at },
        { .flag = "priority",
          .value_name = "N",
          .default_text = "0",
          .help = "higher first",
          .kind = CONFIG_INT,
          .target = &flags.priority,
          .min = -32768,
          .max = 32767 },
        { .flag = "concurrency-key",
          .value_name = "KEY",
          .help = "runs of one key share a limit",
          .kind = CONFIG_TEXT,
          .target = &flags.concurrency_key },
        { .flag = "timeout",
          .value_name = "TIME",
          .help = "of the whole run",
          .kind = CONFIG_TEXT,
          .target = &flags.timeout },
        { .flag = "tag",
          .value_name = "KEY=VALUE",
          .help = "may be repeated",
          .kind = CONFIG_TEXTS,
          .target = &flags.tags },
        { .flag = "wait",
          .value_name = "TIME",
          .help = "wait so long for its end, and show it",
          .kind = CONFIG_TEXT,
          .target = &flags.wait },
        BACKEND_OPTIONS(&flags.backend),
        { .flag = NULL },
    };
    const struct config_command command = { .program = "durable start",
                                            .arguments = "JOB [PAYLOAD]",
                                            .summary = "starts a run of a job; PAYLOAD is JSON",
                                            .options = options,
                                            .arguments_min = 1,
                                            .arguments_max = 2 };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    const char *payload = argv[first + 1] != NULL ? argv[first + 1] : "{}";
    int64_t wait_ms = 0;
    if (flags.wait != NULL) {
        DJ_TRY(duration_parse("--wait", flags.wait, &wait_ms));
    }
    DJ_TRY(backend_open(&flags.backend));
    dj_status status = start(&flags, argv[first], payload, wait_ms);
    backend_close(&flags.backend);
    return status;
}

static dj_status send_event(struct backend *backend, const char *name, const char *payload,
                            const char *correlation_key, const char *key) {
    AUTO(ask) struct ask ask;
    AUTO(free) char *event = NULL;
    ask_init(&ask, "POST", "/v1/events", &CALL_EVENT_TEXT);
    ask_text(&ask, "name", name);
    ask_json(&ask, "payload", "PAYLOAD", payload != NULL ? payload : "{}");
    ask_text(&ask, "correlationKey", correlation_key);
    ask_text(&ask, "idempotencyKey", key);
    DJ_TRY(backend_ask(backend, &ask, &event));
    AUTO(free) char *id = answer_text(answer_of(event), "id");
    (void)puts(backend->json ? event : id);
    return DJ_OK;
}

dj_status command_event(int argc, char **argv) {
    struct backend backend = { .json = false };
    const char *correlation_key = NULL, *key = NULL;
    const struct config_option options[] = {
        { .flag = "correlation-key",
          .value_name = "KEY",
          .help = "meets the waits for this key; none: waits without a key",
          .kind = CONFIG_TEXT,
          .target = &correlation_key },
        { .flag = "key",
          .value_name = "KEY",
          .help = "idempotency key: a repeated event is one",
          .kind = CONFIG_TEXT,
          .target = &key },
        BACKEND_OPTIONS(&backend),
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable event",
        .arguments = "NAME [PAYLOAD]",
        .summary = "sends an event to the runs that wait for it, now or later",
        .options = options,
        .arguments_min = 1,
        .arguments_max = 2
    };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    DJ_TRY(backend_open(&backend));
    dj_status status = send_event(&backend, argv[first], argv[first + 1], correlation_key, key);
    backend_close(&backend);
    return status;
}
