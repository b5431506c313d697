/* durable endpoints: where handlers are served over HTTP. Through durable-server, which looks at an
 * endpoint itself, or over SQL, where we look from here. */
#include "cli/answer.h"
#include "cli/backend.h"
#include "cli/commands.h"
#include "cli/print.h"

#include "common/auto.h"
#include "common/config.h"
#include "common/db_conn.h"
#include "common/endpoint_look.h"
#include "common/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct endpoints_flags {
    struct backend backend;
    const char *timeout;
    int concurrency; /* 0: not given */
    bool allow_private;
};

static dj_status begin_look(void *context, struct http_client *client, http_done_fn done,
                            void *done_context) {
    struct http_call *call;
    return endpoint_look(client, context, done, done_context, &call);
}

/* Looks at the endpoint from here, and keeps what was found. */
static dj_status sql_look(PGconn *conn, const char *name) {
    struct db_params params;
    AUTO(pgresult) PGresult *target = NULL;
    AUTO(pgresult) PGresult *kept = NULL;
    AUTO(buf) struct buf version;
    AUTO(buf) struct buf jobs;
    struct http_answer answer;
    buf_init(&version, LOOK_BYTES_MAX);
    buf_init(&jobs, LOOK_BYTES_MAX);
    params_init(&params);
    params_add_text(&params, name);
    dj_status status = db_exec(conn, &CALL_ENDPOINT_TARGET, &params, &target);
    params_done(&params);
    DJ_TRY(status);
    DJ_TRY(http_wait(begin_look, target, &answer));
    status = endpoint_look_read(&answer, &version, &jobs);
    http_answer_done(&answer);
    DJ_TRY(status);
    params_init(&params);
    params_add_text(&params, name);
    params_add_text(&params, version.data);
    params_add_jsonb(&params, jobs.data);
    status = db_exec(conn, &CALL_ENDPOINT_SYNCED, &params, &kept);
    params_done(&params);
    return status;
}

/* What a verb asks; over SQL, of those that look, only the first half. */
static void ask_verb(struct ask *ask, const struct endpoints_flags *flags, const char *verb,
                     const char *name, const char *url) {
    bool adds = strcmp(verb, "add") == 0, removes = strcmp(verb, "remove") == 0;
    bool syncs = strcmp(verb, "sync") == 0, rotates = strcmp(verb, "rotate-secret") == 0;
    ask_init(ask,
             adds      ? "PUT"
             : removes ? "DELETE"
                       : "POST",
             "/v1/endpoints",
             adds      ? &CALL_ENDPOINT_PUT
             : syncs   ? &CALL_ENDPOINT_TEXT
             : rotates ? &CALL_ENDPOINT_ROTATE
                       : &CALL_ENDPOINT_CHANGE);
    ask_name(ask, name);
    if (adds) {
        ask_text(ask, "url", url);
        ask_bool(ask, "allowPrivate", flags->allow_private, flags->allow_private);
        ask_int4(ask, "concurrency", flags->concurrency, flags->concurrency > 0);
        ask_duration(ask, "timeout", "--timeout", flags->timeout);
        return;
    }
    if (!removes) {
        ask_path(ask, "/");
        ask_path(ask, verb);
    }
    if (!syncs && !rotates) {
        params_add_text(&ask->params, removes ? "drop" : verb);
    }
}

/* The second half over SQL: the endpoint as it is then, with `secret` and `syncError` as the server
 * has them. `*answer` is the secret, or the endpoint before. */
static dj_status sql_rest(struct backend *backend, const char *verb, const char *name,
                          char **answer) {
    AUTO(ask) struct ask ask;
    AUTO(free) char *before = TAKE(*answer);
    AUTO(free) char *after = NULL;
    AUTO(buf) struct buf whole;
    AUTO(buf) struct buf value;
    bool adds = strcmp(verb, "add") == 0, syncs = strcmp(verb, "sync") == 0;
    buf_init(&whole, ANSWER_BYTES_MAX);
    buf_init(&value, ANSWER_BYTES_MAX);
    dj_status looked = adds || syncs ? sql_look(backend->conn, name) : DJ_OK;
    if (looked == DJ_NOT_FOUND) {
        return looked;
    }
    if (looked != DJ_OK) {
        DJ_TRY(buf_add_json(&value, dj_error_message()));
    }
    ask_init(&ask, "GET", "", &CALL_ENDPOINT_TEXT);
    ask_name(&ask, name);
    DJ_TRY(backend_ask(backend, &ask, &after));
    DJ_TRY(buf_add_text(&whole, after));
    if (looked != DJ_OK) {
        DJ_TRY(answer_add(&whole, "syncError", answer_of(value.data)));
    }
    if (!syncs) {
        buf_reset(&value);
        DJ_TRY(buf_add_json(&value, before));
        DJ_TRY(answer_add(&whole, "secret", answer_of(value.data)));
    }
    *answer = buf_take(&whole);
    return DJ_OK;
}

static void cell_state(struct json_slice endpoint, struct buf *cell) {
    bool rests = answer_is(endpoint, "status", "resting");
    cell_add_field(cell, endpoint, "status");
    cell_add(cell, rests ? " until " : "");
    cell_add_field(cell, endpoint, rests ? "restUntil" : "-");
}

static const struct column columns[] = {
    { "NAME", "name", NULL },
    { "URL", "url", NULL },
    { "STATUS", "", cell_state },
    { "JOBS", "jobs", cell_list },
    { "CONCURRENCY", "concurrency", NULL },
    { "SYNCED", "syncedAt", cell_time },
    { "REASON", "lastError", NULL },
};

static dj_status endpoints_list(struct backend *backend) {
    AUTO(ask) struct ask ask;
    AUTO(free) char *answer = NULL;
    ask_init(&ask, "GET", "/v1/endpoints", &CALL_ENDPOINTS_TEXT);
    DJ_TRY(backend_ask(backend, &ask, &answer));
    if (backend->json) {
        (void)puts(answer);
        return DJ_OK;
    }
    return print_table(answer_at(answer_of(answer), "endpoints"), columns,
                       sizeof columns / sizeof *columns);
}

/* A new secret stands alone in its line, so that a script can take it; what people have to know
 * besides goes to where errors go. */
static dj_status show(const struct backend *backend, const char *verb, const char *name,
                      const char *answer) {
    struct json_slice endpoint = answer_of(answer);
    AUTO(free) char *secret = answer_text(endpoint, "secret");
    AUTO(free) char *problem = answer_text(endpoint, "syncError");
    if (backend->json) {
        (void)puts(answer);
    } else if (secret[0] != '\0') {
        (void)puts(secret);
    } else if (strcmp(verb, "remove") == 0) {
        (void)puts("removed");
    } else if (problem[0] == '\0') {
        DJ_TRY(print_row(endpoint, columns, sizeof columns / sizeof *columns));
    }
    if (problem[0] == '\0') {
        return DJ_OK;
    }
    if (strcmp(verb, "sync") == 0) {
        return dj_fail(DJ_UNAVAILABLE, "endpoint %s: %s", name, problem);
    }
    (void)fprintf(stderr,
                  "durable endpoints: %s is kept, and its jobs are not known yet: %s; `durable "
                  "endpoints sync %s` looks again\n",
                  name, problem, name);
    return DJ_OK;
}

static dj_status run_verb(struct endpoints_flags *flags, const char *verb, const char *name,
                          const char *url) {
    static const char *const looks[] = { "add", "sync", "rotate-secret" };
    struct backend *backend = &flags->backend;
    AUTO(ask) struct ask ask;
    AUTO(free) char *answer = NULL;
    ask_verb(&ask, flags, verb, name, url);
    DJ_TRY(backend_ask(backend, &ask, &answer));
    for (size_t i = 0; backend->conn != NULL && i < sizeof looks / sizeof *looks; i++) {
        if (strcmp(verb, looks[i]) == 0) {
            DJ_TRY(sql_rest(backend, verb, name, &answer));
        }
    }
    return show(backend, verb, name, answer);
}

static dj_status check_verb(const char *verb, const char *const more[], int count) {
    static const char *const named[] = { "sync", "rotate-secret", "pause", "resume", "remove" };
    bool ok = (strcmp(verb, "list") == 0 && count == 0) || (strcmp(verb, "add") == 0 && count == 2);
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        ok = ok || (strcmp(verb, named[i]) == 0 && count == 1);
    }
    if (!ok) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "'%s' is not allowed so; `list`, `add NAME URL`, `sync NAME`, "
                       "`rotate-secret NAME`, `pause NAME`, `resume NAME` and `remove NAME` are",
                       verb);
    }
    return count == 0 ? DJ_OK : check_name("NAME", more[0]);
}

dj_status command_endpoints(int argc, char **argv) {
    struct endpoints_flags flags = { .concurrency = 0 };
    const struct config_option options[] = {
        { .flag = "allow-private",
          .help = "add: its address may be of a private network, or this machine",
          .kind = CONFIG_SWITCH,
          .target = &flags.allow_private },
        { .flag = "concurrency",
          .value_name = "N",
          .default_text = "200",
          .help = "add: calls at once, of one worker",
          .kind = CONFIG_INT,
          .target = &flags.concurrency,
          .min = 1,
          .max = 10000 },
        { .flag = "timeout",
          .value_name = "TIME",
          .default_text = "5m30s",
          .help = "add: how long a call may take",
          .kind = CONFIG_TEXT,
          .target = &flags.timeout },
        BACKEND_OPTIONS(&flags.backend),
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable endpoints",
        .arguments = "[list | add NAME URL | sync NAME | rotate-secret NAME | pause NAME | resume "
                     "NAME | remove NAME]",
        .summary = "lists, registers and steers the places where handlers are served over HTTP; a "
                   "new secret is shown once",
        .options = options,
        .arguments_max = 3
    };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    const char *verb = argv[first] == NULL ? "list" : argv[first];
    int count = 0;
    const char *more[2] = { NULL, NULL };
    for (; argv[first] != NULL && argv[first + 1 + count] != NULL; count++) {
        more[count] = argv[first + 1 + count];
    }
    DJ_TRY(check_verb(verb, more, count));
    DJ_TRY(backend_open(&flags.backend));
    dj_status status = strcmp(verb, "list") == 0 ? endpoints_list(&flags.backend)
                                                 : run_verb(&flags, verb, more[0], more[1]);
    backend_close(&flags.backend);
    return status;
}
