/* durable state: get, set, delete, increment. Values go through as text: they are never printed
 * anew. */
#include "cli/commands.h"
#include "cli/print.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/config.h"
#include "common/db_calls.h"
#include "common/db_rows.h"
#include "common/json.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct state_flags {
    const char *url, *expires_at, *if_version;
    bool json;
};

static dj_status parse_integer(const char *argument, const char *text, int64_t *ret_value) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s '%.60s' is not allowed; an integer of 64 bits is",
                       argument, text);
    }
    *ret_value = value;
    return DJ_OK;
}

/* Calls, frees the parameters, and prints the one text; no row: the key is absent. */
static dj_status call_and_print(const struct state_flags *flags, const struct db_call *text_call,
                                const struct db_call *json_call, const char *key,
                                struct db_params *params) {
    AUTO(pgresult) PGresult *rows = NULL;
    dj_status status = call_once(flags->url, flags->json ? json_call : text_call, params, &rows);
    params_done(params);
    DJ_TRY(status);
    if (PQntuples(rows) == 0) {
        return dj_fail(DJ_NOT_FOUND, "key '%.60s' is absent", key);
    }
    return print_json(rows);
}

static dj_status state_get(const struct state_flags *flags, const char *key) {
    struct db_params params;
    params_init(&params);
    params_add_text(&params, key);
    return call_and_print(flags, &CALL_STATE_TEXT, &CALL_STATE_JSON, key, &params);
}

static dj_status state_set(const struct state_flags *flags, const char *key, const char *value) {
    struct db_params params;
    int64_t if_version = 0;
    AUTO(json) json_object *parsed = NULL; /* only to say what is wrong with it */
    DJ_TRY(json_parse("VALUE", value, strlen(value), PAYLOAD_BYTES_MAX, &parsed));
    if (flags->if_version != NULL) {
        DJ_TRY(parse_integer("--if-version", flags->if_version, &if_version));
    }
    params_init(&params);
    params_add_text(&params, key);
    params_add_jsonb(&params, value);
    params_add_text(&params, flags->expires_at);
    if (flags->if_version != NULL) {
        params_add_int8(&params, if_version);
    } else {
        params_add_null(&params);
    }
    return call_and_print(flags, &CALL_STATE_SET_TEXT, &CALL_STATE_SET_JSON, key, &params);
}

static dj_status state_delete(const struct state_flags *flags, const char *key) {
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    bool deleted;
    params_init(&params);
    params_add_text(&params, key);
    dj_status status = call_once(flags->url, &CALL_STATE_DELETE, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    DJ_TRY(rows_bool(rows, 0, 0, &deleted));
    if (!deleted) {
        return dj_fail(DJ_NOT_FOUND, "key '%.60s' is absent", key);
    }
    (void)puts(flags->json ? "{\"deleted\": true}" : "deleted");
    return DJ_OK;
}

static dj_status state_increment(const struct state_flags *flags, const char *key, const char *by) {
    struct db_params params;
    int64_t number = 1;
    if (by != NULL) {
        DJ_TRY(parse_integer("BY", by, &number));
    }
    params_init(&params);
    params_add_text(&params, key);
    params_add_int8(&params, number);
    params_add_text(&params, flags->expires_at);
    return call_and_print(flags, &CALL_STATE_INCREMENT_TEXT, &CALL_STATE_INCREMENT_JSON, key,
                          &params);
}

dj_status command_state(int argc, char **argv) {
    struct state_flags flags = { .url = NULL };
    const struct config_option options[] = {
        { .flag = "expires-at",
          .value_name = "TIME",
          .help = "set, increment: when it is gone, RFC 3339; not given: set has no end, increment "
                  "leaves it",
          .kind = CONFIG_TEXT,
          .target = &flags.expires_at },
        { .flag = "if-version",
          .value_name = "N",
          .help = "set: only if this version is there; 0: only if the key is absent",
          .kind = CONFIG_TEXT,
          .target = &flags.if_version },
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
        .program = "durable state",
        .arguments = "get KEY | set KEY VALUE | delete KEY | increment KEY [BY]",
        .summary = "reads and changes the namespace's state; VALUE is JSON, BY an integer (1)",
        .options = options,
        .arguments_min = 2,
        .arguments_max = 3
    };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    const char *verb = argv[first], *key = argv[first + 1], *more = argv[first + 2];
    if (strcmp(verb, "get") == 0 && more == NULL) {
        return state_get(&flags, key);
    }
    if (strcmp(verb, "set") == 0 && more != NULL) {
        return state_set(&flags, key, more);
    }
    if (strcmp(verb, "delete") == 0 && more == NULL) {
        return state_delete(&flags, key);
    }
    if (strcmp(verb, "increment") == 0) {
        return state_increment(&flags, key, more);
    }
    return dj_fail(DJ_INVALID_ARGUMENT,
                   "'%s' is not allowed so; `get KEY`, `set KEY VALUE`, `delete KEY` and "
                   "`increment KEY [BY]` are",
                   verb);
}
