/* durable keys: API keys, for whoever owns the database: no server makes one. A key's text is
 * printed once, here. */
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/print.h"

#include "client/client.h"
#include "common/auto.h"
#include "common/config.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct keys_flags {
    const char *url, *namespace, *scopes, *overlap;
    bool json;
};

/* Calls, frees the parameters, and hands on the answer's one text: yours (free). */
static dj_status call_text(const char *url, const struct db_call *call, struct db_params *params,
                           char **ret_text) {
    AUTO(pgresult) PGresult *rows = NULL;
    PGconn *conn = NULL;
    const char *text = NULL;
    size_t length;
    dj_status status = params_status(params);
    if (status == DJ_OK) {
        status = db_session_open(url, "durable", &conn);
    }
    if (status == DJ_OK) {
        status = db_exec(conn, call, params, &rows);
    }
    db_conn_close(conn);
    params_done(params);
    DJ_TRY(status);
    DJ_TRY(rows_text(rows, 0, 0, &text, &length));
    *ret_text = strdup(text);
    return *ret_text == NULL ? dj_fail(DJ_NO_MEMORY, "no memory for the answer") : DJ_OK;
}

/* A key alone in its line, or JSON. */
static dj_status call_and_print(const char *url, const struct db_call *call,
                                struct db_params *params) {
    AUTO(free) char *text = NULL;
    DJ_TRY(call_text(url, call, params, &text));
    (void)puts(text);
    return DJ_OK;
}

static dj_status keys_list(const struct keys_flags *flags) {
    static const struct column columns[] = {
        { "ID", "id", NULL },
        { "NAMESPACE", "namespace", NULL },
        { "NAME", "name", NULL },
        { "SCOPES", "scopes", cell_list },
        { "STATUS", "status", NULL },
        { "CREATED", "createdAt", cell_time },
        { "EXPIRES", "expiresAt", cell_time },
        { "REPLACED BY", "replacedBy", NULL },
    };
    struct db_params params;
    AUTO(free) char *text = NULL;
    params_init(&params);
    DJ_TRY(call_text(flags->url, &CALL_KEYS_JSON, &params, &text));
    if (flags->json) {
        (void)puts(text);
        return DJ_OK;
    }
    return print_table(answer_at(answer_of(text), "keys"), columns,
                       sizeof columns / sizeof *columns);
}

static dj_status key_create(const struct keys_flags *flags, const char *name) {
    struct db_params params;
    params_init(&params);
    params_add_text(&params, flags->namespace);
    params_add_text(&params, name);
    params_add_text(&params, flags->scopes);
    return call_and_print(flags->url, flags->json ? &CALL_KEY_CREATE_JSON : &CALL_KEY_CREATE,
                          &params);
}

static dj_status key_revoke(const struct keys_flags *flags, const char *id) {
    struct db_params params;
    params_init(&params);
    params_add_text(&params, id);
    return call_and_print(flags->url, flags->json ? &CALL_KEY_REVOKE_JSON : &CALL_KEY_REVOKE,
                          &params);
}

static dj_status key_rotate(const struct keys_flags *flags, const char *id) {
    struct db_params params;
    params_init(&params);
    params_add_text(&params, id);
    params_add_duration(&params, "--overlap", flags->overlap);
    return call_and_print(flags->url, flags->json ? &CALL_KEY_ROTATE_JSON : &CALL_KEY_ROTATE,
                          &params);
}

dj_status command_keys(int argc, char **argv) {
    struct keys_flags flags = { .namespace = "default",
                                .scopes = "read,start,operate,admin,payloads",
                                .overlap = "24h" };
    const struct config_option options[] = {
        { .flag = "namespace",
          .value_name = "NAME",
          .default_text = "default",
          .help = "create: whose it is; made if it is not there",
          .kind = CONFIG_TEXT,
          .target = &flags.namespace },
        { .flag = "scopes",
          .value_name = "A,B",
          .default_text = "all",
          .help = "create: what it may do, of read, start, operate, admin, payloads",
          .kind = CONFIG_TEXT,
          .target = &flags.scopes },
        { .flag = "overlap",
          .value_name = "TIME",
          .default_text = "24h",
          .help = "rotate: how long the old key holds on; `revoke` ends it sooner",
          .kind = CONFIG_TEXT,
          .target = &flags.overlap },
        { .flag = "json", .help = "print JSON", .kind = CONFIG_SWITCH, .target = &flags.json },
        { .flag = "database-url",
          .environment = "DURABLE_DATABASE_URL",
          .value_name = "URL",
          .help = "the PostgreSQL to work on",
          .kind = CONFIG_TEXT,
          .target = &flags.url },
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable keys",
        .arguments = "[list | create NAME | revoke ID | rotate ID]",
        .summary = "lists, makes and ends API keys; a new key is shown once",
        .options = options,
        .arguments_max = 2
    };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    const char *server = getenv("DURABLE_URL");
    if (flags.url == NULL && server != NULL && server[0] != '\0') {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "API keys are made in the database, by its owner, and by no server; "
                       "DURABLE_DATABASE_URL or --database-url names the database");
    }
    const char *verb = argv[first] == NULL ? "list" : argv[first];
    const char *argument = argv[first] == NULL ? NULL : argv[first + 1];
    if (strcmp(verb, "list") == 0 && argument == NULL) {
        return keys_list(&flags);
    }
    if (strcmp(verb, "create") == 0 && argument != NULL) {
        return key_create(&flags, argument);
    }
    if (strcmp(verb, "revoke") == 0 && argument != NULL) {
        return key_revoke(&flags, argument);
    }
    if (strcmp(verb, "rotate") == 0 && argument != NULL) {
        return key_rotate(&flags, argument);
    }
    return dj_fail(DJ_INVALID_ARGUMENT,
                   "'%s' is not allowed so; `list`, `create NAME`, `revoke ID` and `rotate ID` are",
                   verb);
}
