/* durable state: get, set, delete, increment, lock, unlock. Values go through as text: they are
 * never printed anew. */
#include "cli/answer.h"
#include "cli/backend.h"
#include "cli/commands.h"

#include "common/auto.h"
#include "common/config.h"
#include "common/text.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct state_flags {
    struct backend backend;
    const char *expires_at, *if_version;
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

static void ask_get(struct ask *ask, const char *key) {
    ask_init(ask, "GET", "/v1/state", &CALL_API_STATE_GET);
    ask_name(ask, key);
    ask_shown(ask);
}

static dj_status ask_set(struct ask *ask, const struct state_flags *flags, const char *key,
                         const char *value) {
    int64_t if_version = 0;
    ask_init(ask, "PUT", "/v1/state", &CALL_API_STATE_SET);
    if (flags->if_version != NULL) {
        DJ_TRY(parse_integer("--if-version", flags->if_version, &if_version));
    }
    ask_name(ask, key);
    ask_json(ask, "value", "VALUE", value);
    ask_time(ask, "expiresAt", "--expires-at", flags->expires_at);
    ask_int8(ask, "ifVersion", if_version, flags->if_version != NULL);
    ask_shown(ask);
    return DJ_OK;
}

static void ask_delete(struct ask *ask, const char *key) {
    ask_init(ask, "DELETE", "/v1/state", &CALL_API_STATE_DELETE);
    ask_name(ask, key);
}

static dj_status ask_increment(struct ask *ask, const struct state_flags *flags, const char *key,
                               const char *by) {
    int64_t number = 1;
    ask_init(ask, "POST", "/v1/state", &CALL_API_STATE_INCREMENT);
    if (by != NULL) {
        DJ_TRY(parse_integer("BY", by, &number));
    }
    ask_name(ask, key);
    ask_path(ask, "/increment");
    ask_int8(ask, "by", number, true);
    ask_time(ask, "expiresAt", "--expires-at", flags->expires_at);
    return DJ_OK;
}

static void ask_lock(struct ask *ask, const char *key, const char *owner, const char *ttl) {
    bool locks = ttl != NULL;
    ask_init(ask, "POST", "/v1/state", locks ? &CALL_API_STATE_LOCK : &CALL_API_STATE_UNLOCK);
    ask_name(ask, key);
    ask_path(ask, locks ? "/lock" : "/unlock");
    ask_text(ask, "owner", owner);
    if (locks) {
        ask_duration(ask, "ttl", "TTL", ttl);
    }
}

/* The verbs: how many arguments each takes behind its KEY, and what it prints: a field of the
 * answer, or a word. */
static const struct verb {
    const char *name;
    int more_min, more_max;
    const char *field, *word;
} verbs[] = {
    { "get", 0, 0, "value", NULL },      { "set", 1, 1, "version", NULL },
    { "delete", 0, 0, NULL, "deleted" }, { "increment", 0, 1, "value", NULL },
    { "lock", 2, 2, NULL, "locked" },    { "unlock", 1, 1, NULL, "unlocked" },
};

static dj_status ask_verb(struct ask *ask, const struct state_flags *flags, const char *verb,
                          char **arguments) {
    const char *key = arguments[0];
    if (strcmp(verb, "get") == 0) {
        ask_get(ask, key);
    } else if (strcmp(verb, "set") == 0) {
        return ask_set(ask, flags, key, arguments[1]);
    } else if (strcmp(verb, "delete") == 0) {
        ask_delete(ask, key);
    } else if (strcmp(verb, "increment") == 0) {
        return ask_increment(ask, flags, key, arguments[1]);
    } else {
        ask_lock(ask, key, arguments[1], strcmp(verb, "lock") == 0 ? arguments[2] : NULL);
    }
    return DJ_OK;
}

static dj_status show(const struct verb *verb, const struct backend *backend, const char *answer) {
    struct json_slice value = answer_at(answer_of(answer), verb->field == NULL ? "" : verb->field);
    if (backend->json) {
        (void)puts(answer);
    } else if (verb->field == NULL) {
        (void)puts(verb->word);
    } else if (value.text == NULL) {
        return dj_fail(DJ_NOT_ALLOWED, "the value is not shown; DURABLE_API_KEY needs scope "
                                       "payloads");
    } else {
        (void)printf("%.*s\n", (int)value.length, value.text);
    }
    return DJ_OK;
}

static dj_status run_verb(struct state_flags *flags, const struct verb *verb, char **arguments) {
    AUTO(ask) struct ask ask = { .method = NULL };
    AUTO(free) char *answer = NULL;
    DJ_TRY(check_key("key", arguments[0]));
    DJ_TRY(ask_verb(&ask, flags, verb->name, arguments));
    DJ_TRY(ask.status);
    DJ_TRY(backend_open(&flags->backend));
    dj_status status = backend_ask(&flags->backend, &ask, &answer);
    backend_close(&flags->backend);
    DJ_TRY(status);
    return show(verb, &flags->backend, answer);
}

dj_status command_state(int argc, char **argv) {
    struct state_flags flags = { .expires_at = NULL };
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
        BACKEND_OPTIONS(&flags.backend),
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable state",
        .arguments = "get KEY | set KEY VALUE | delete KEY | increment KEY [BY] | lock KEY OWNER "
                     "TTL | unlock KEY OWNER",
        .summary = "reads and changes the namespace's state; VALUE is JSON, BY an integer (1), TTL "
                   "a time such as 30s",
        .options = options,
        .arguments_min = 2,
        .arguments_max = 4
    };
    int first, more = 0;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    char **arguments = argv + first + 1;
    while (arguments[1 + more] != NULL) {
        more++;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(argv[first], verbs[i].name) == 0 && more >= verbs[i].more_min &&
            more <= verbs[i].more_max) {
            return run_verb(&flags, &verbs[i], arguments);
        }
    }
    return dj_fail(DJ_INVALID_ARGUMENT,
                   "'%s' is not allowed so; `get KEY`, `set KEY VALUE`, `delete KEY`, `increment "
                   "KEY [BY]`, `lock KEY OWNER TTL` and `unlock KEY OWNER` are",
                   argv[first]);
}
