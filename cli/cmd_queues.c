/* durable queues, workers. */
#include "cli/commands.h"
#include "cli/print.h"

#include "common/auto.h"
#include "common/config.h"
#include "common/db_calls.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A list without filters, as a table or as JSON. */
static dj_status list(const char *url, bool json, const struct db_call *table_call,
                      const struct db_call *json_call, const char *const headings[], int count) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    dj_status status = call_once(url, json ? json_call : table_call, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    return json ? print_json(rows) : print_table(rows, headings, count);
}

static dj_status set_paused(const char *url, const char *verb, const char *name) {
    bool pause = strcmp(verb, "pause") == 0;
    if ((!pause && strcmp(verb, "resume") != 0) || name == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "'%s' is not allowed here; `pause NAME` and `resume NAME` are", verb);
    }
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    params_init(&params);
    params_add_text(&params, name);
    dj_status status =
        call_once(url, pause ? &CALL_PAUSE_QUEUE : &CALL_RESUME_QUEUE, &params, &rows);
    params_done(&params);
    return status;
}

dj_status command_queues(int argc, char **argv) {
    static const char *const headings[] = { "QUEUE",  "READY",  "RUNNING",
                                            "PAUSED", "OLDEST", "DEAD LETTERS" };
    const char *url = NULL;
    bool json = false;
    const struct config_option options[] = {
        { .flag = "json", .help = "print JSON", .kind = CONFIG_SWITCH, .target = &json },
        { .flag = "database-url",
          .environment = "DURABLE_DATABASE_URL",
          .value_name = "URL",
          .help = "the PostgreSQL to work on",
          .kind = CONFIG_TEXT,
          .target = &url },
        { .flag = NULL },
    };
    const struct config_command command = { .program = "durable queues",
                                            .arguments = "[pause NAME | resume NAME]",
                                            .summary = "lists queues; pauses and resumes them",
                                            .options = options,
                                            .arguments_max = 2 };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    if (argv[first] != NULL) {
        DJ_TRY(set_paused(url, argv[first], argv[first + 1]));
    }
    return list(url, json, &CALL_QUEUES_TABLE, &CALL_QUEUES_TEXT, headings, 6);
}

dj_status command_workers(int argc, char **argv) {
    static const char *const headings[] = {
        "ID", "NAME", "PID", "STATUS", "IN HAND", "JOBS", "UP"
    };
    const char *url = NULL;
    bool json = false;
    const struct config_option options[] = {
        { .flag = "json", .help = "print JSON", .kind = CONFIG_SWITCH, .target = &json },
        { .flag = "database-url",
          .environment = "DURABLE_DATABASE_URL",
          .value_name = "URL",
          .help = "the PostgreSQL to work on",
          .kind = CONFIG_TEXT,
          .target = &url },
        { .flag = NULL },
    };
    const struct config_command command = { .program = "durable workers",
                                            .summary = "lists workers",
                                            .options = options };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    return list(url, json, &CALL_WORKERS_TABLE, &CALL_WORKERS_TEXT, headings, 7);
}
