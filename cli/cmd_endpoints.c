/* durable endpoints: where handlers are served over HTTP. Through durable-server, which looks at an
 * endpoint itself, or over SQL, where we look from here. Either answers the same JSON, and tables
 * are made of that. */
#include "cli/commands.h"
#include "cli/http.h"
#include "cli/print.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/config.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include "common/duration.h"
#include "common/endpoint_look.h"
#include "common/json.h"
#include "common/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_BYTES_MAX (64 * 1024 * 1024)
#define PATH_BYTES_MAX 1024

struct endpoints_flags {
    struct server server;
    const char *database_url, *timeout;
    int concurrency; /* 0: not given */
    int64_t timeout_ms;
    bool allow_private, json;
};

static dj_status parse(const char *text, json_object **ret_value) {
    return json_parse("the answer", text, strlen(text), ANSWER_BYTES_MAX, ret_value);
}

static dj_status call_json(PGconn *conn, const struct db_call *call, struct db_params *params,
                           json_object **ret_value) {
    AUTO(pgresult) PGresult *rows = NULL;
    const char *text;
    size_t length;
    dj_status status = params_status(params);
    if (status == DJ_OK) {
        status = db_exec(conn, call, params, &rows);
    }
    params_done(params);
    DJ_TRY(status);
    DJ_TRY(rows_text(rows, 0, 0, &text, &length));
    return parse(text, ret_value);
}

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

static dj_status sql_secret(PGconn *conn, const struct endpoints_flags *flags, const char *verb,
                            const char *name, const char *url, json_object **ret_secret) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    const char *text;
    size_t length;
    bool adds = strcmp(verb, "add") == 0;
    params_init(&params);
    params_add_text(&params, name);
    if (adds) {
        params_add_text(&params, url);
        flags->allow_private ? params_add_bool(&params, true) : params_add_null(&params);
        flags->concurrency > 0 ? params_add_int4(&params, flags->concurrency)
                               : params_add_null(&params);
        flags->timeout_ms > 0 ? params_add_int8(&params, flags->timeout_ms)
                              : params_add_null(&params);
    }
    dj_status status =
        db_exec(conn, adds ? &CALL_ENDPOINT_PUT : &CALL_ENDPOINT_ROTATE, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    DJ_TRY(rows_text(rows, 0, 0, &text, &length));
    *ret_secret = json_object_new_string(text);
    return DJ_OK;
}

/* A verb over SQL: the endpoint as it is then, with `secret` and `syncError` as the server has
 * them. */
static dj_status sql_verb(PGconn *conn, const struct endpoints_flags *flags, const char *verb,
                          const char *name, const char *url, json_object **ret_endpoint) {
    struct db_params params;
    AUTO(json) json_object *secret = NULL;
    AUTO(json) json_object *problem = NULL;
    bool changes =
        strcmp(verb, "pause") == 0 || strcmp(verb, "resume") == 0 || strcmp(verb, "remove") == 0;
    if (strcmp(verb, "add") == 0 || strcmp(verb, "rotate-secret") == 0) {
        DJ_TRY(sql_secret(conn, flags, verb, name, url, &secret));
    }
    if (strcmp(verb, "add") == 0 || strcmp(verb, "sync") == 0) {
        dj_status status = sql_look(conn, name);
        if (status == DJ_NOT_FOUND) {
            return status;
        }
        problem = status == DJ_OK ? NULL : json_object_new_string(dj_error_message());
    }
    params_init(&params);
    params_add_text(&params, name);
    if (changes) {
        params_add_text(&params, strcmp(verb, "remove") == 0 ? "drop" : verb);
    }
    DJ_TRY(call_json(conn, changes ? &CALL_ENDPOINT_CHANGE : &CALL_ENDPOINT_TEXT, &params,
                     ret_endpoint));
    if (secret != NULL) {
        json_object_object_add(*ret_endpoint, "secret", TAKE(secret));
    }
    if (problem != NULL) {
        json_object_object_add(*ret_endpoint, "syncError", TAKE(problem));
    }
    return DJ_OK;
}

/* /v1/endpoints/NAME, and what follows; the name percent-encoded. */
static void path_of(const char *name, const char *more, char path[PATH_BYTES_MAX]) {
    size_t length = (size_t)snprintf(path, PATH_BYTES_MAX, "/v1/endpoints/");
    for (; *name != '\0' && length < PATH_BYTES_MAX - 64; name++) {
        length += (size_t)snprintf(path + length, PATH_BYTES_MAX - length, "%%%02X",
                                   (unsigned)(unsigned char)*name);
    }
    (void)snprintf(path + length, PATH_BYTES_MAX - length, "%s", more);
}

static dj_status http_verb(const struct endpoints_flags *flags, const char *verb, const char *name,
                           const char *url, json_object **ret_endpoint) {
    char path[PATH_BYTES_MAX], more[32] = "";
    AUTO(free) char *text = NULL;
    AUTO(json) json_object *body = NULL;
    const char *method = "POST";
    if (strcmp(verb, "add") == 0) {
        method = "PUT";
        body = json_object_new_object();
        json_object_object_add(body, "url", json_object_new_string(url));
        if (flags->allow_private) {
            json_object_object_add(body, "allowPrivate", json_object_new_boolean(1));
        }
        if (flags->concurrency > 0) {
            json_object_object_add(body, "concurrency", json_object_new_int(flags->concurrency));
        }
        if (flags->timeout != NULL) {
            json_object_object_add(body, "timeout", json_object_new_string(flags->timeout));
        }
    } else if (strcmp(verb, "remove") == 0) {
        method = "DELETE";
    } else {
        (void)snprintf(more, sizeof more, "/%s", verb);
    }
    path_of(name, more, path);
    DJ_TRY(server_call(&flags->server, method, path,
                       body == NULL ? NULL : json_object_to_json_string(body), &text));
    return parse(text, ret_endpoint);
}

static const char *text_of(json_object *object, const char *field) {
    json_object *value = NULL;
    (void)json_object_object_get_ex(object, field, &value);
    return value == NULL ? "" : json_object_get_string(value);
}

/* The jobs with commas between them. */
static void print_jobs(json_object *endpoint, struct buf *out) {
    json_object *jobs = NULL;
    (void)json_object_object_get_ex(endpoint, "jobs", &jobs);
    for (size_t i = 0; jobs != NULL && i < json_object_array_length(jobs); i++) {
        check(buf_addf(out, "%s%s", i == 0 ? "" : ",",
                       json_object_get_string(json_object_array_get_idx(jobs, i))) == DJ_OK);
    }
}

static dj_status print_endpoints(json_object *list) {
    static const char *const headings[] = { "NAME",        "URL",    "STATUS", "JOBS",
                                            "CONCURRENCY", "SYNCED", "REASON" };
    struct table table;
    table_init(&table, headings, sizeof headings / sizeof *headings);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *one = json_object_array_get_idx(list, i);
        AUTO(buf) struct buf jobs;
        char state[96];
        bool rests = strcmp(text_of(one, "status"), "resting") == 0;
        buf_init(&jobs, ANSWER_BYTES_MAX);
        print_jobs(one, &jobs);
        (void)snprintf(state, sizeof state, "%s%s%s", text_of(one, "status"),
                       rests ? " until " : "", rests ? text_of(one, "restUntil") : "");
        const char *cells[] = { text_of(one, "name"),
                                text_of(one, "url"),
                                state,
                                jobs.data == NULL ? "" : jobs.data,
                                text_of(one, "concurrency"),
                                text_of(one, "syncedAt"),
                                text_of(one, "lastError") };
        table_add(&table, cells);
    }
    return table_print(&table);
}

static dj_status print_whole(json_object *value) {
    AUTO(buf) struct buf text;
    buf_init(&text, ANSWER_BYTES_MAX);
    DJ_TRY(json_print("the answer", value, ANSWER_BYTES_MAX, &text));
    (void)puts(text.data);
    return DJ_OK;
}

static dj_status endpoints_list(const struct endpoints_flags *flags, PGconn *conn) {
    AUTO(free) char *text = NULL;
    AUTO(json) json_object *answer = NULL;
    json_object *list = NULL;
    struct db_params params;
    if (conn != NULL) {
        params_init(&params);
        DJ_TRY(call_json(conn, &CALL_ENDPOINTS_TEXT, &params, &answer));
    } else {
        DJ_TRY(server_call(&flags->server, "GET", "/v1/endpoints", NULL, &text));
        DJ_TRY(parse(text, &answer));
    }
    DJ_TRY(json_require(answer, "endpoints"));
    DJ_TRY(json_get_array(answer, "endpoints", &list));
    return flags->json ? print_whole(answer) : print_endpoints(list);
}

/* A new secret stands alone in its line, so that a script can take it; what people have to know
 * besides goes to where errors go. */
static dj_status show(const struct endpoints_flags *flags, const char *verb, const char *name,
                      json_object *endpoint) {
    const char *secret = text_of(endpoint, "secret"), *problem = text_of(endpoint, "syncError");
    if (flags->json) {
        DJ_TRY(print_whole(endpoint));
    } else if (secret[0] != '\0') {
        (void)puts(secret);
    } else if (strcmp(verb, "remove") == 0) {
        (void)puts("removed");
    } else if (problem[0] == '\0') {
        AUTO(json) json_object *list = json_object_new_array();
        (void)json_object_array_add(list, json_object_get(endpoint));
        DJ_TRY(print_endpoints(list));
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

static dj_status run_verb(const struct endpoints_flags *flags, PGconn *conn, const char *verb,
                          const char *name, const char *url) {
    AUTO(json) json_object *endpoint = NULL;
    DJ_TRY(conn != NULL ? sql_verb(conn, flags, verb, name, url, &endpoint)
                        : http_verb(flags, verb, name, url, &endpoint));
    return show(flags, verb, name, endpoint);
}

/* A flag that names where to work wins over the environment; there, the database over the server.
 * `*ret_conn` NULL: over HTTP. */
static dj_status choose(struct endpoints_flags *flags, PGconn **ret_conn) {
    const char *database_url = getenv("DURABLE_DATABASE_URL"), *server_url = getenv("DURABLE_URL");
    *ret_conn = NULL;
    if (flags->server.url != NULL && flags->database_url != NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "--url and --database-url together are not allowed; "
                                            "one of them is");
    }
    if (flags->server.url == NULL && flags->database_url == NULL &&
        (database_url == NULL || database_url[0] == '\0')) {
        flags->server.url = server_url == NULL || server_url[0] == '\0' ? NULL : server_url;
        if (flags->server.url == NULL) {
            return dj_fail(DJ_INVALID_ARGUMENT,
                           "no database and no server is named; set DURABLE_DATABASE_URL, or "
                           "DURABLE_URL and DURABLE_API_KEY");
        }
    }
    return flags->server.url != NULL ? DJ_OK
                                     : db_conn_open(flags->database_url, "durable", ret_conn);
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
    struct endpoints_flags flags = { .json = false };
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
        { .flag = "json", .help = "print JSON", .kind = CONFIG_SWITCH, .target = &flags.json },
        { .flag = "database-url",
          .value_name = "URL",
          .help = "the PostgreSQL to work on (DURABLE_DATABASE_URL)",
          .kind = CONFIG_TEXT,
          .target = &flags.database_url },
        { .flag = "url",
          .value_name = "URL",
          .help = "… or the durable-server to ask (DURABLE_URL)",
          .kind = CONFIG_TEXT,
          .target = &flags.server.url },
        { .flag = "api-key",
          .environment = "DURABLE_API_KEY",
          .value_name = "KEY",
          .help = "for --url: a key with scope admin; to list, read",
          .kind = CONFIG_TEXT,
          .target = &flags.server.api_key },
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
    PGconn *conn;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    const char *verb = argv[first] == NULL ? "list" : argv[first];
    int count = 0;
    const char *more[2] = { NULL, NULL };
    for (; argv[first] != NULL && argv[first + 1 + count] != NULL; count++) {
        more[count] = argv[first + 1 + count];
    }
    DJ_TRY(check_verb(verb, more, count));
    if (flags.timeout != NULL) {
        DJ_TRY(duration_parse("--timeout", flags.timeout, &flags.timeout_ms));
    }
    DJ_TRY(choose(&flags, &conn));
    dj_status status = strcmp(verb, "list") == 0 ? endpoints_list(&flags, conn)
                                                 : run_verb(&flags, conn, verb, more[0], more[1]);
    db_conn_close(conn);
    return status;
}
