/* See fuzz_values.h. What a value is like depends on the type; which of the known ids and names it
 * is, on the argument's name. */
#include "fuzz_values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KNOWN_MAX 20
#define VALUES_MAX 2048
#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint64_t random_state;
static struct known { char run_id[40], worker_id[40], fence[24]; } known[KNOWN_MAX];
static int known_count, value_count, array_length;
static const struct known *chosen;
static char *values[VALUES_MAX];

void random_begin(uint64_t seed) {
    random_state = seed * 0x9E3779B97F4A7C15U + 1;
}

uint64_t random_below(uint64_t bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return bound == 0 ? 0 : (random_state >> 11) % bound;
}

bool chance(int percent) {
    return (int)random_below(100) < percent;
}

void values_forget(void) {
    known_count = 0;
}

void values_learn(const char *run_id, const char *worker_id, const char *fence) {
    if (known_count < KNOWN_MAX) {
        struct known *one = &known[known_count++];
        (void)snprintf(one->run_id, sizeof one->run_id, "%s", run_id);
        (void)snprintf(one->worker_id, sizeof one->worker_id, "%s", worker_id);
        (void)snprintf(one->fence, sizeof one->fence, "%s", fence);
    }
}

void values_begin(void) {
    while (value_count > 0) {
        free(values[--value_count]);
    }
    chosen = known_count == 0 ? NULL : &known[random_below((uint64_t)known_count)];
    array_length = chance(70) ? 1 : (int)random_below(4);
}

#define PICK(list) (list)[random_below(COUNT(list))]

static char *keep(char *text) {
    if (text == NULL || value_count == VALUES_MAX) {
        abort();
    }
    return values[value_count++] = text;
}

static const char *repeated(const char *part, size_t times) {
    size_t length = strlen(part);
    char *text = malloc(length * times + 1);
    if (text == NULL) {
        abort();
    }
    for (size_t i = 0; i < times; i++) {
        memcpy(text + i * length, part, length);
    }
    text[length * times] = '\0';
    return keep(text);
}

static const char *between(const char *before, const char *middle, const char *after) {
    char *text = NULL;
    return asprintf(&text, "%s%s%s", before, middle, after) < 0 ? keep(NULL) : keep(text);
}

static const char *random_text(void) {
    static const char *const texts[] = {
        "",
        "a",
        "b",
        "other",
        "key",
        "default",
        "e",
        "k",
        "elsewhere",
        "30s",
        "1h30m",
        "0s",
        "3651d",
        "UTC",
        "completed",
        "cancel",
        "retry",
        "drop",
        "pause",
        "running",
        "queued",
        "skip",
        "concurrency_key",
        "tag:a",
        "it's",
        "100%s",
        "\\",
        "\xC3\xA9",
        "\xF0\x9F\x98\x80",
        "a b",
        "\t\n",
        "$child",
        "name#2",
        "http://a/",
        "https://[::1]/",
        "*/5 * * * *",
        "9223372036854775808",
        "-1",
        "NaN",
        "infinity",
        "a\x01",
        "public",
        "pg_catalog",
    };
    switch (random_below(40)) {
    case 0:
        return repeated("a", 200 + random_below(3));
    case 1:
        return repeated("\xC3\xA9", 255 + random_below(3));
    case 2:
        return repeated("x", 1024 * 1024 + random_below(2));
    case 3:
        return chance(10) ? repeated("y", (size_t)10 * 1024 * 1024) : "y";
    default:
        return PICK(texts);
    }
}

/* Nested lists or objects, or a number, or a text, that are long to read. */
static const char *large_json(void) {
    size_t depth = chance(50) ? 60 + random_below(8) : 5000;
    switch (random_below(6)) {
    case 0:
        return between(repeated("[", depth), "", repeated("]", depth));
    case 1:
        return between(repeated("{\"a\":", depth), "1", repeated("}", depth));
    case 2:
        return between("[", repeated("1e131071,", 1 + random_below(100)), "1]");
    case 3:
        return between("", repeated("7", 399 + random_below(3)), "");
    case 4:
        return between(
            "{\"a\":\"",
            repeated("z", chance(10) ? (size_t)10 * 1024 * 1024 : 1048560 + random_below(20)),
            "\"}");
    default:
        return between("[", repeated("0,", 100000), "0]");
    }
}

static const char *random_json(void) {
    static const char *const parts[] = {
        "null",
        "true",
        "0",
        "-0",
        "1.10",
        "1e131071",
        "1e-16383",
        "1e400",
        "-1e401",
        "9007199254740993",
        "\"\"",
        "\"a\"",
        "\"30s\"",
        "\"\\ud83d\\ude00\"",
        "[]",
        "{}",
        "[[]]",
        "[null]",
        "{\"a\":null}",
        "{\"a\":1,\"a\":2}",
        "\"restart\"",
        "{\"initial\":\"1s\",\"factor\":2}",
        "{\"factor\":1e131071}",
        "{\"jitter\":\"x\"}",
        "\"2026-05-06T09:00:00Z\"",
        "\"infinity\"",
        "\"294277-01-01\"",
        "\"-infinity\"",
        "99999999999",
        "-1",
        "{\"name\":\"E\",\"message\":\"m\"}",
    };
    static const char *const fields[] = {
        "backoff",     "onTerminal",   "version",   "debounce", "initial",     "max",
        "factor",      "jitter",       "a",         "job",      "payload",     "options",
        "maxAttempts", "priority",     "queueName", "timeout",  "scheduledAt", "tags",
        "error",       "result",       "status",    "ops",      "delay",       "until",
        "permanent",   "retryAfterMs", "restMs",    "endpoint", "reason",      "company",
        "event",       "key",          "position",  "name",     "timeoutMs",   "onTimeout",
        "others",      "step",         "expected",  "found",    "level",       "message",
        "at",
    };
    if (chance(5)) {
        return large_json();
    }
    if (chance(45)) {
        return PICK(parts);
    }
    const char *text = "{";
    for (uint64_t i = 0, count = 1 + random_below(5); i < count; i++) {
        text = between(text, i == 0 ? "\"" : ",\"", PICK(fields));
        text = between(text, "\":", PICK(parts));
    }
    return between(text, "}", "");
}

/* What a handler's commit may hold, and what an outcome may be. */
static const char *random_ops(void) {
    static const char *const kinds[] = { "step",     "state", "send_event", "wait_event",
                                         "wait_any", "sleep", "child",      "step_retry",
                                         "park",     "log",   "progress",   "nothing" };
    static const char *const fields[] = {
        "\"name\":\"s1\"",
        "\"name\":\"s2#2\"",
        "\"name\":null",
        "\"name\":7",
        "\"result\":{\"a\":1}",
        "\"result\":1e131071",
        "\"error\":{\"message\":\"m\",\"retryable\":[]}",
        "\"error\":\"text\"",
        "\"startedAt\":\"2026-05-06T09:00:00Z\"",
        "\"startedAt\":\"infinity\"",
        "\"startedAt\":[]",
        "\"action\":\"set\"",
        "\"action\":\"increment\"",
        "\"action\":\"lock\"",
        "\"action\":\"get\"",
        "\"key\":\"key\"",
        "\"key\":\"\"",
        "\"value\":1",
        "\"value\":{\"x\":1e131071}",
        "\"by\":1",
        "\"by\":\"x\"",
        "\"by\":1e30",
        "\"ttl\":\"30s\"",
        "\"ttl\":\"-1\"",
        "\"event\":\"e\"",
        "\"event\":\"$child\"",
        "\"correlationKey\":\"key\"",
        "\"timeout\":\"24h\"",
        "\"timeout\":\"99999999999d\"",
        "\"timeout\":5",
        "\"onTimeout\":\"continue\"",
        "\"onTimeout\":\"x\"",
        "\"events\":[{\"event\":\"e\"}]",
        "\"events\":[1]",
        "\"events\":{}",
        "\"duration\":\"5m\"",
        "\"until\":\"2027-01-01T00:00:00Z\"",
        "\"until\":\"-infinity\"",
        "\"job\":\"a\"",
        "\"job\":null",
        "\"payload\":[1]",
        "\"options\":{\"priority\":99999999999}",
        "\"options\":{\"maxAttempts\":\"x\"}",
        "\"options\":7",
        "\"tries\":1",
        "\"tries\":\"x\"",
        "\"retryAfter\":\"1s\"",
        "\"level\":\"info\"",
        "\"message\":7",
        "\"fields\":[1e131071]",
        "\"expected\":\"x\"",
        "\"expiresAt\":\"infinity\"",
        "\"expiresAt\":\"2027-01-01T00:00:00Z\"",
        "\"ifVersion\":-1",
        "\"idempotencyKey\":\"k\"",
    };
    const char *text = "[";
    for (uint64_t i = 0, count = random_below(3) + 1; i < count; i++) {
        text = between(text, i == 0 ? "{\"op\":\"" : ",{\"op\":\"", PICK(kinds));
        text = between(text, "\",\"name\":\"s", chance(70) ? "3\"" : "#\"");
        for (uint64_t j = 0, many = random_below(6); j < many; j++) {
            text = between(text, ",", PICK(fields));
        }
        text = between(text, "}", "");
    }
    return between(text, "]", "");
}

static const char *json_for(const char *name) {
    if (strcmp(name, "op") == 0 && chance(90)) {
        const char *list =
            random_ops(); /* one of its objects is enough: cut the brackets off when there is one */
        size_t length = strlen(list);
        char *copy = keep(strdup(list + 1));
        copy[length - 2] = '\0';
        return copy;
    }
    if (strcmp(name, "ops") == 0 && chance(90)) {
        return random_ops();
    }
    if (strstr(name, "detail") != NULL && chance(60)) {
        static const char *const ends[] = { ",\"status\":\"completed\",\"result\":1}",
                                            ",\"status\":\"continue\"}",
                                            ",\"status\":\"failed\",\"error\":{\"message\":\"m\"}}",
                                            ",\"status\":\"suspended\"}", ",\"status\":7}" };
        return between("{\"ops\":", random_ops(), PICK(ends));
    }
    return random_json();
}

static const char *text_for(const char *name) {
    static const char *const ops[] = { "answer", "fail",  "complete", "yield", "sleep",
                                       "wait",   "retry", "rest",     "crash", "park" };
    static const char *const urls[] = { "http://a/", "https://b.example/x", "ftp://a",
                                        "http://u@a/", "http://a\n" };
    if (chance(25)) {
        return random_text();
    }
    if (strstr(name, "kind") != NULL || strstr(name, "_op") != NULL) {
        return PICK(ops);
    }
    if (strcmp(name, "url") == 0) {
        return PICK(urls);
    }
    if (strstr(name, "job") != NULL) {
        return chance(50) ? "a" : "b";
    }
    if (strstr(name, "queue") != NULL) {
        return chance(50) ? "default" : "other";
    }
    return strstr(name, "key") != NULL ? "key" : random_text();
}

static const char *uuid_for(const char *name) {
    static const char *const odd[] = { "00000000-0000-0000-0000-000000000000",
                                       "ffffffff-ffff-ffff-ffff-ffffffffffff",
                                       "01890a5d-ac96-774b-bcce-b302099a8057" };
    if (chosen == NULL || chance(15)) {
        return PICK(odd);
    }
    return strstr(name, "worker") != NULL && chosen->worker_id[0] != '\0' ? chosen->worker_id
                                                                          : chosen->run_id;
}

static const char *number_for(const char *type, const char *name) {
    static const char *const small[] = { "0",   "1",      "2",     "-1",         "5",          "10",
                                         "100", "-32768", "32767", "2147483647", "-2147483648" };
    static const char *const wide[] = { "9223372036854775807", "-9223372036854775808", "4294967296",
                                        "999999999999999" };
    if (strstr(name, "fence") != NULL && chosen != NULL && chosen->fence[0] != '\0' && chance(80)) {
        return chosen->fence;
    }
    return strcmp(type, "bigint") == 0 && chance(25) ? PICK(wide) : PICK(small);
}

static const char *scalar_of(const char *type, const char *name) {
    static const char *const times[] = { "infinity",
                                         "-infinity",
                                         "now",
                                         "tomorrow",
                                         "yesterday",
                                         "2026-05-06T09:00:00Z",
                                         "294276-12-31 23:59:59Z",
                                         "4713-01-01 00:00:00Z BC",
                                         "2036-11-01T00:00:00Z" };
    static const char *const spans[] = { "0",
                                         "1 second",
                                         "-1 second",
                                         "1 day",
                                         "3650 days",
                                         "10 years",
                                         "1 mon -40 days",
                                         "178000000 years",
                                         "-178000000 years",
                                         "1 microsecond",
                                         "999999999 hours",
                                         "2147483647 days",
                                         "-2147483648 days" };
    if (strcmp(type, "uuid") == 0) {
        return uuid_for(name);
    }
    if (strcmp(type, "jsonb") == 0) {
        return json_for(name);
    }
    if (strcmp(type, "bigint") == 0 || strcmp(type, "integer") == 0 ||
        strcmp(type, "smallint") == 0) {
        return number_for(type, name);
    }
    if (strcmp(type, "boolean") == 0) {
        return chance(50) ? "true" : "false";
    }
    if (strncmp(type, "timestamp", 9) == 0) {
        return PICK(times);
    }
    if (strcmp(type, "interval") == 0) {
        return PICK(spans);
    }
    return strcmp(type, "text") == 0 || strcmp(type, "name") == 0 ? text_for(name) : NULL;
}

/* Elements in quotes, those inside escaped. */
static const char *quoted(const char *text) {
    char *out = malloc(2 * strlen(text) + 3), *at = out;
    if (out == NULL) {
        abort();
    }
    *at++ = '"';
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            *at++ = '\\';
        }
        *at++ = *text;
    }
    *at++ = '"';
    *at = '\0';
    return keep(out);
}

const char *value_of(const char *type, const char *name) {
    char element[64];
    size_t length = strlen(type);
    if (value_count > VALUES_MAX - 200) { /* enough for one call */
        return NULL;
    }
    if (chance(8)) {
        return NULL;
    }
    if (length < 3 || strcmp(type + length - 2, "[]") != 0) {
        return scalar_of(type, name);
    }
    (void)snprintf(element, sizeof element, "%.*s", (int)(length - 2), type);
    int many = chance(90) ? array_length : (int)random_below(4);
    const char *text = "{";
    for (int i = 0; i < many; i++) {
        const char *value = chance(5) ? NULL : scalar_of(element, name);
        text = between(text, i == 0 ? "" : ",", value == NULL ? "null" : quoted(value));
    }
    return between(text, "}", "");
}
