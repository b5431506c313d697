/* durable start, event, run, runs, cancel, retry. Payloads go through as text: they are never
 * printed anew. */
#include "cli/commands.h"
#include "cli/print.h"

#include "client/client.h"
#include "common/auto.h"
#include "common/bounds.h"
#include "common/config.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include "common/duration.h"
#include "common/json.h"
#include <stdio.h>
#include <string.h>

#define DATABASE_URL(target_)                                                                      \
    {                                                                                              \
        .flag = "database-url", .environment = "DURABLE_DATABASE_URL", .value_name = "URL",        \
        .help = "the PostgreSQL to work on", .kind = CONFIG_TEXT, .target = (target_)              \
    }
#define JSON_SWITCH(target_)                                                                       \
    { .flag = "json", .help = "print JSON", .kind = CONFIG_SWITCH, .target = (target_) }

static dj_status add_checked_json(struct db_params *params, const char *argument,
                                  const char *text) {
    AUTO(json) json_object *parsed = NULL; /* only to say what is wrong with it */
    DJ_TRY(json_parse(argument, text, strlen(text), PAYLOAD_BYTES_MAX, &parsed));
    params_add_jsonb(params, text);
    return DJ_OK;
}

static dj_status add_tags(struct db_params *params, const struct config_texts *tags) {
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
    params_add_json(params, "tags", object);
    return params_status(params);
}

/* Shows a run as JSON or with its timeline. */
static dj_status show_run(PGconn *conn, const struct uuid *id, bool json);

struct start_flags {
    const char *url, *queue, *key, *ttl, *at, *concurrency_key, *timeout, *wait;
    int max_attempts, priority;
    struct config_texts tags;
    bool json, restart;
};

static dj_status start_params(struct db_params *params, const struct start_flags *flags,
                              const char *job, const char *payload) {
    params_add_text(params, job);
    DJ_TRY(add_checked_json(params, "PAYLOAD", payload));
    params_add_text(params, flags->queue);
    params_add_text(params, flags->key);
    params_add_duration(params, "--ttl", flags->ttl);
    if (flags->max_attempts == 0) {
        params_add_null(params);
    } else {
        params_add_int4(params, flags->max_attempts);
    }
    params_add_text(params, flags->at);
    params_add_int4(params, flags->priority);
    params_add_text(params, flags->concurrency_key);
    params_add_duration(params, "--timeout", flags->timeout);
    DJ_TRY(add_tags(params, &flags->tags));
    params_add_jsonb(params, flags->restart ? "{\"onTerminal\": \"restart\"}" : "{}");
    return params_status(params);
}

/* --wait: until the run ends. Its end decides the exit status. */
static dj_status wait_for_end(PGconn *conn, const char *run_id, int64_t ms) {
    dj_client *client;
    AUTO(json) json_object *result = NULL;
    DJ_TRY(dj_client_wrap(conn, &client));
    dj_status status = dj_result_wait(client, run_id, ms, &result);
    dj_client_close(client);
    return status;
}

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
        JSON_SWITCH(&flags.json),
        DATABASE_URL(&flags.url),
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
    PGconn *conn;
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    char id_text[DJ_ID_BYTES];
    struct uuid id;
    int64_t wait_ms = 0;
    if (flags.wait != NULL) {
        DJ_TRY(duration_parse("--wait", flags.wait, &wait_ms));
    }
    DJ_TRY(db_conn_open(flags.url, "durable", &conn));
    params_init(&params);
    dj_status status = start_params(&params, &flags, argv[first], payload);
    if (status == DJ_OK) {
        status = db_exec(conn, &CALL_START, &params, &rows);
    }
    params_done(&params);
    if (status == DJ_OK) {
        status = rows_uuid(rows, 0, 0, &id);
    }
    if (status == DJ_OK) {
        uuid_print(&id, id_text);
        dj_status ended = flags.wait == NULL ? DJ_OK : wait_for_end(conn, id_text, wait_ms);
        if (flags.json || flags.wait != NULL) {
            status = show_run(conn, &id, flags.json);
        } else {
            (void)puts(id_text);
        }
        status = status == DJ_OK ? ended : status;
    }
    db_conn_close(conn);
    return status;
}

dj_status command_event(int argc, char **argv) {
    const char *url = NULL, *correlation_key = NULL, *key = NULL;
    bool json = false;
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
        JSON_SWITCH(&json),
        DATABASE_URL(&url),
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
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_text(&params, argv[first]);
    dj_status status =
        add_checked_json(&params, "PAYLOAD", argv[first + 1] != NULL ? argv[first + 1] : "{}");
    params_add_text(&params, correlation_key);
    params_add_text(&params, key);
    if (status == DJ_OK) {
        status = call_once(url, &CALL_SEND_EVENT, &params, &rows);
    }
    params_done(&params);
    DJ_TRY(status);
    char id[DJ_ID_BYTES];
    DJ_TRY(rows_id(rows, 0, id));
    (void)printf(json ? "{\"id\": \"%s\"}\n" : "%s\n", id);
    return DJ_OK;
}

/* The timeline, drawn: a line for each entry, its time since the start, and how long it took. */
static void draw_timeline(const PGresult *rows) {
    int count = PQntuples(rows);
    for (int row = 0; row < count; row++) {
        int at, kind, name, attempt, took, note;
        const char *at_text = text_at(rows, row, 0, &at);
        const char *kind_text = text_at(rows, row, 1, &kind);
        const char *name_text = text_at(rows, row, 2, &name);
        const char *attempt_text = text_at(rows, row, 3, &attempt);
        const char *took_text = text_at(rows, row, 4, &took);
        const char *note_text = text_at(rows, row, 5, &note);
        const char *mark = row == 0 ? "┌" : row == count - 1 ? "└" : "├";
        if (kind == 7 && memcmp(kind_text, "attempt", 7) == 0) {
            name_text = attempt_text;
            name = attempt;
        }
        (void)printf("  %s %.*s  %-13.*s %.*s", mark, at, at_text, kind, kind_text, name,
                     name_text);
        if (took > 0) {
            (void)printf("  (%.*s ms)", took, took_text);
        }
        if (note > 0) {
            (void)printf("  %.*s", note, note_text);
        }
        (void)putchar('\n');
    }
}

static dj_status show_run(PGconn *conn, const struct uuid *id, bool json) {
    static const char *const labels[] = { "run", "job",     "queue",  "status", "attempt",
                                          NULL,  "payload", "result", "error",  "why" };
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    AUTO(pgresult) PGresult *timeline = NULL;
    params_init(&params);
    params_add_uuid(&params, id);
    dj_status status = db_exec(conn, json ? &CALL_RUN_JSON : &CALL_RUN_TABLE, &params, &rows);
    if (status == DJ_OK && PQntuples(rows) == 0) {
        char text[DJ_ID_BYTES];
        uuid_print(id, text);
        status = dj_fail(DJ_NOT_FOUND, "run %s is not there; `durable runs` lists runs", text);
    }
    if (status == DJ_OK && !json) {
        status = db_exec(conn, &CALL_TIMELINE_TABLE, &params, &timeline);
    }
    params_done(&params);
    DJ_TRY(status);
    if (json) {
        return print_json(rows);
    }
    for (int column = 0; column < PQnfields(rows); column++) {
        int length, limit;
        const char *text = text_at(rows, 0, column, &length);
        if (labels[column] == NULL || length == 0) {
            continue;
        }
        (void)printf("%-8s %.*s", labels[column], length, text);
        if (column == 4) {
            const char *max = text_at(rows, 0, 5, &limit);
            (void)printf(" of %.*s", limit, max);
        }
        (void)putchar('\n');
    }
    (void)putchar('\n');
    draw_timeline(timeline);
    return DJ_OK;
}

dj_status command_run(int argc, char **argv) {
    const char *url = NULL;
    bool json = false;
    const struct config_option options[] = { JSON_SWITCH(&json),
                                             DATABASE_URL(&url),
                                             { .flag = NULL } };
    const struct config_command command = { .program = "durable run",
                                            .arguments = "ID",
                                            .summary =
                                                "shows a run, what it waits for, and its timeline",
                                            .options = options,
                                            .arguments_min = 1,
                                            .arguments_max = 1 };
    int first;
    struct uuid id;
    PGconn *conn;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    DJ_TRY(uuid_parse("ID", argv[first], &id));
    DJ_TRY(db_conn_open(url, "durable", &conn));
    dj_status status = show_run(conn, &id, json);
    db_conn_close(conn);
    return status;
}

dj_status command_runs(int argc, char **argv) {
    static const char *const headings[] = { "ID",      "STATUS",  "JOB", "QUEUE",
                                            "ATTEMPT", "CREATED", "NOTE" };
    static const char *const states[] = { "scheduled", "queued",    "running", "waiting",
                                          "retrying",  "completed", "failed",  "cancelled" };
    const char *url = NULL, *state = NULL, *job = NULL, *queue = NULL;
    int limit = 20;
    bool json = false;
    const struct config_option options[] = {
        { .flag = "status",
          .value_name = "STATUS",
          .help = "only runs of this status",
          .kind = CONFIG_TEXT,
          .target = &state },
        { .flag = "job",
          .value_name = "NAME",
          .help = "only runs of this job",
          .kind = CONFIG_TEXT,
          .target = &job },
        { .flag = "queue",
          .value_name = "NAME",
          .help = "only runs in this queue",
          .kind = CONFIG_TEXT,
          .target = &queue },
        { .flag = "limit",
          .value_name = "N",
          .default_text = "20",
          .help = "so many at most",
          .kind = CONFIG_INT,
          .target = &limit,
          .min = 1,
          .max = 10000 },
        JSON_SWITCH(&json),
        DATABASE_URL(&url),
        { .flag = NULL },
    };
    const struct config_command command = { .program = "durable runs",
                                            .summary = "lists runs, newest first",
                                            .options = options };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    bool known = state == NULL;
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        known = known || strcmp(state, states[i]) == 0;
    }
    if (!known) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "--status %s is not known; scheduled, queued, running, waiting, "
                       "retrying, completed, failed and cancelled are",
                       state);
    }
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_text(&params, state);
    params_add_text(&params, job);
    params_add_text(&params, queue);
    params_add_int4(&params, limit);
    dj_status status = call_once(url, json ? &CALL_RUNS_JSON : &CALL_RUNS_TABLE, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    return json ? print_json(rows) : print_table(rows, headings, 7);
}

dj_status command_cancel(int argc, char **argv) {
    const char *url = NULL, *reason = NULL;
    bool json = false, cancelled;
    const struct config_option options[] = {
        { .flag = "reason",
          .value_name = "TEXT",
          .help = "why, for the timeline",
          .kind = CONFIG_TEXT,
          .target = &reason },
        JSON_SWITCH(&json),
        DATABASE_URL(&url),
        { .flag = NULL },
    };
    const struct config_command command = { .program = "durable cancel",
                                            .arguments = "ID",
                                            .summary = "cancels a run",
                                            .options = options,
                                            .arguments_min = 1,
                                            .arguments_max = 1 };
    int first;
    dj_client *client;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    DJ_TRY(dj_client_open(url, &client));
    dj_status status = dj_cancel(client, argv[first], reason, &cancelled);
    dj_client_close(client);
    DJ_TRY(status);
    if (json) {
        (void)printf("{\"cancelled\": %s}\n", cancelled ? "true" : "false");
    } else {
        (void)puts(cancelled ? "cancelled" : "it had ended before");
    }
    return DJ_OK;
}

dj_status command_retry(int argc, char **argv) {
    const char *url = NULL;
    int max_attempts = 0;
    bool json = false;
    const struct config_option options[] = {
        { .flag = "max-attempts",
          .value_name = "N",
          .default_text = "as at first",
          .help = "so many further attempts",
          .kind = CONFIG_INT,
          .target = &max_attempts,
          .min = 1,
          .max = 1000000 },
        JSON_SWITCH(&json),
        DATABASE_URL(&url),
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
    dj_client *client;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    DJ_TRY(dj_client_open(url, &client));
    dj_status status = dj_retry(client, argv[first], max_attempts);
    dj_client_close(client);
    DJ_TRY(status);
    (void)puts(json ? "{\"retried\": true}" : "it goes on");
    return DJ_OK;
}
