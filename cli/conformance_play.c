#include "cli/conformance_play.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEARTBEAT_MS_MAX 5500
#define WAITS " wait_event wait_any sleep child "

static const char *field(json_object *object, const char *name) {
    json_object *value = NULL;
    (void)json_object_object_get_ex(object, name, &value);
    return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
}

static json_object *copy_of(json_object *object, const char *name) {
    json_object *value = NULL;
    (void)json_object_object_get_ex(object, name, &value);
    return json_object_get(value);
}

void play_init(struct play *play, const struct conformance_case *one, bool answering,
               struct verdict *verdict) {
    *play = (struct play){ .one = one,
                           .verdict = verdict,
                           .answering = answering,
                           .attempt = 1,
                           .steps = pattern_read(one->remembered ? one->remembered : "[]"),
                           .tries = json_object_new_object(),
                           .ops = json_object_new_array(),
                           .notes = json_object_new_array(),
                           .gives = pattern_read(one->gives ? one->gives : "[]"),
                           .failures = json_object_new_array(),
                           .suspended = json_object_new_array(),
                           .heartbeat_ms = -1 };
}

void play_done(struct play *play) {
    json_object_put(play->steps);
    json_object_put(play->tries);
    json_object_put(play->ops);
    json_object_put(play->notes);
    json_object_put(play->gives);
    json_object_put(play->failures);
    json_object_put(play->suspended);
    free(TAKE(play->again));
}

/* What a run remembers. */

static json_object *by_its_name(json_object *list, const char *name) {
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *entry = json_object_array_get_idx(list, i);
        if (strcmp(field(entry, "name"), name) == 0) {
            return entry;
        }
    }
    return NULL;
}

/* Is this what a retry leaves of an error: a place, in which it is to be done again? */
static bool is_forgotten(json_object *entry) {
    return !json_object_object_get_ex(entry, "result", NULL) &&
           !json_object_object_get_ex(entry, "error", NULL) &&
           !json_object_object_get_ex(entry, "ref", NULL);
}

static void copy_outcome(json_object *from, json_object *to) {
    const char *outcome = json_object_object_get_ex(from, "error", NULL) ? "error" : "result";
    json_object_object_add(to, outcome, copy_of(from, outcome));
}

/* Remembers `of`'s result or error under the op's name. */
static void remember(struct play *play, json_object *op, const char *kind, json_object *of) {
    json_object *entry = by_its_name(play->steps, field(op, "name"));
    if (entry != NULL && is_forgotten(entry)) {
        copy_outcome(of, entry);
        return;
    }
    entry = json_object_new_object();
    json_object_object_add(entry, "name", json_object_new_string(field(op, "name")));
    json_object_object_add(entry, "kind", json_object_new_string(kind));
    copy_outcome(of, entry);
    (void)json_object_array_add(play->steps, entry);
}

/* The next of what the case gives to one of `ops`, and to which; NULL: nothing. Yours; *ret_op is
 * lent. */
static json_object *next_given(struct play *play, json_object *ops, json_object **ret_op) {
    for (size_t i = 0; i < json_object_array_length(play->gives); i++) {
        json_object *given = json_object_array_get_idx(play->gives, i);
        const char *name = field(given, "name");
        *ret_op = name[0] == '\0' ? json_object_array_get_idx(ops, 0) : by_its_name(ops, name);
        if (*ret_op != NULL) {
            (void)json_object_get(given);
            (void)json_object_array_del_idx(play->gives, i, 1);
            return given;
        }
    }
    return NULL;
}

static bool is_one_of(const char *name, const char *names) {
    char spaced[64];
    (void)snprintf(spaced, sizeof spaced, " %.40s ", name);
    return name[0] != '\0' && strstr(names, spaced) != NULL;
}

/* {"id": the run's}. */
static json_object *own_id(const struct play *play) {
    json_object *id = json_object_new_object();
    json_object_object_add(id, "id", json_object_new_string(play->run_id));
    return id;
}

/* The ops that have a result at once: {"result": …} or {"error": …}, as the case gives it. */
static json_object *give_result(struct play *play, json_object *op, const char *kind) {
    json_object *result = json_object_new_object(), *of;
    AUTO(json) json_object *ops = json_object_new_array();
    (void)json_object_array_add(ops, json_object_get(op));
    AUTO(json) json_object *given = next_given(play, ops, &of);
    if (given == NULL) {
        verdict_fail(play->verdict, "no such op any more", "%s %s", kind, field(op, "name"));
        return result;
    }
    if (play->one->together > 0) { /* each run has a result of its own */
        json_object_object_add(result, "result", own_id(play));
    } else {
        copy_outcome(given, result);
    }
    remember(play, op, kind, result);
    return result;
}

/* Several waits, sleeps and children may suspend a run at once; nothing else comes behind an op
 * that suspends. */
static void suspend(struct play *play, json_object *op) {
    json_object *first = json_object_array_get_idx(play->suspended, 0);
    if (first != NULL && !is_one_of(field(first, "op"), WAITS)) {
        verdict_fail(play->verdict, "an op that suspends to be the last one", "%s %s behind it",
                     field(op, "op"), field(op, "name"));
        return;
    }
    (void)json_object_array_add(play->suspended, json_object_get(op));
}

static bool is_asked_again(const struct play *play, json_object *op) {
    json_object *before = by_its_name(play->ops, field(op, "name"));
    return is_one_of(field(op, "op"), WAITS) && before != NULL && json_object_equal(before, op);
}

/* Does one op; answers what its entry in `results` is. */
static json_object *op_do(struct play *play, json_object *op) {
    const char *kind = field(op, "op"), *name = field(op, "name");
    if (is_one_of(kind, " log progress ")) {
        (void)json_object_array_add(play->notes, json_object_get(op));
        return json_object_new_object();
    }
    if (json_object_array_length(play->suspended) > 0 && !is_one_of(kind, WAITS)) {
        verdict_fail(play->verdict, "an op that suspends to be the last one", "%s %s behind it",
                     kind, name);
        return json_object_new_object();
    }
    bool acts = is_one_of(kind, " step state send_event ");
    json_object *known = acts ? by_its_name(play->steps, name) : NULL;
    if (known != NULL && !is_forgotten(known)) { /* said again: its result comes again */
        json_object *result = json_object_new_object();
        if (strcmp(kind, "step") != 0) {
            copy_outcome(known, result);
        }
        return result;
    }
    if (!is_asked_again(play, op)) {
        (void)json_object_array_add(play->ops, json_object_get(op));
    }
    if (strcmp(kind, "step") == 0) {
        remember(play, op, "step", op);
    } else if (acts) {
        return give_result(play, op, kind);
    } else if (is_one_of(kind, WAITS) || is_one_of(kind, " step_retry park ")) {
        suspend(play, op);
    } else {
        verdict_fail(play->verdict, "an op of the protocol", "op '%.40s'", kind);
    }
    return json_object_new_object();
}

static void ops_do(struct play *play, json_object *ops, json_object *results) {
    for (size_t i = 0; i < json_object_array_length(ops); i++) {
        json_object *result = op_do(play, json_object_array_get_idx(ops, i));
        (void)json_object_array_add(results, result);
    }
}

/* The first that the run waits for is over: true, if the case says what it comes to. */
static bool resume(struct play *play) {
    AUTO(json) json_object *suspended = TAKE(play->suspended);
    json_object *op = json_object_array_get_idx(suspended, 0);
    play->suspended = json_object_new_array();
    if (strcmp(field(op, "op"), "step_retry") == 0) {
        json_object_object_add(play->tries, field(op, "name"), copy_of(op, "tries"));
        return true;
    }
    if (strcmp(field(op, "op"), "park") == 0) {
        return false;
    }
    AUTO(json) json_object *given = next_given(play, suspended, &op);
    if (given != NULL) {
        remember(play, op, field(op, "op"), given);
    }
    return given != NULL;
}

/* Commits. */

json_object *commit_code(const char *code) {
    json_object *answer = json_object_new_object();
    json_object_object_add(answer, "code", json_object_new_string(code));
    json_object_object_add(answer, "message", json_object_new_string("as the case wants it"));
    return answer;
}

static void note_heartbeat(struct play *play, size_t op_count) {
    if (op_count == 0 && play->heartbeat_ms < 0) {
        play->heartbeat_ms = clock_ms() - play->called_ms;
    }
}

json_object *play_commit(struct play *play, json_object *part, enum commit_fault fault) {
    json_object *ops = NULL;
    (void)json_object_object_get_ex(part, "ops", &ops);
    if (play == NULL || strcmp(field(part, "token"), play->token) != 0) {
        return commit_code("lease_lost");
    }
    size_t count = json_object_is_type(ops, json_type_array) ? json_object_array_length(ops) : 0;
    if (play->over && count > 0) {
        verdict_fail(play->verdict, "no more ops from this handler", "%s %s",
                     field(json_object_array_get_idx(ops, 0), "op"),
                     field(json_object_array_get_idx(ops, 0), "name"));
    }
    note_heartbeat(play, count);
    play->over = play->over || fault == COMMIT_LEASE_LOST || fault == COMMIT_CANCELLED ||
                 fault == COMMIT_REFUSED;
    if (play->over && fault != COMMIT_CANCELLED) {
        return commit_code(fault == COMMIT_REFUSED ? "payload_too_large" : "lease_lost");
    }
    json_object *answer = json_object_new_object(), *results = json_object_new_array();
    for (size_t i = 0; play->over && i < count; i++) {
        (void)json_object_array_add(results, json_object_new_object());
    }
    if (!play->over && count > 0) {
        ops_do(play, ops, results);
    }
    json_object_object_add(answer, "results", results);
    json_object_object_add(answer, "cancelled", json_object_new_boolean(play->over));
    json_object_object_add(answer, "leaseUntil", json_object_new_string("2036-01-01T00:00:00Z"));
    return answer;
}

/* Judging. */

void play_answer(struct play *play, json_object *answer, bool *ret_more) {
    json_object *ops = NULL, *protocol = NULL;
    const char *status = field(answer, "status");
    *ret_more = false;
    if (!is_one_of(status, " completed failed suspended continue ") ||
        !json_object_object_get_ex(answer, "protocol", &protocol) ||
        json_object_get_int(protocol) != 1 || !json_object_object_get_ex(answer, "ops", &ops) ||
        !json_object_is_type(ops, json_type_array)) {
        verdict_fail(play->verdict, "an answer with protocol 1, ops and status", "%.200s",
                     json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN));
        return;
    }
    AUTO(json) json_object *results = json_object_new_array();
    size_t before = json_object_array_length(play->ops);
    ops_do(play, ops, results);
    bool suspended = strcmp(status, "suspended") == 0;
    if (suspended != (json_object_array_length(play->suspended) > 0)) {
        verdict_fail(play->verdict,
                     suspended ? "an op that suspends, before status suspended"
                               : "status suspended, after an op that suspends",
                     "status %s", status);
        return;
    }
    if (suspended) {
        *ret_more = resume(play);
    } else if (strcmp(status, "continue") == 0) {
        bool moved = json_object_array_length(play->ops) > before;
        bool allowed = play->answering || play->one->fault == COMMIT_NOBODY;
        if (allowed ? !moved : play->one->max_run_ms == 0) {
            verdict_fail(play->verdict,
                         allowed ? "something done, before status continue"
                                 : "no status continue, before maxRunMs has passed",
                         "status continue");
            return;
        }
        *ret_more = true;
    } else if (strcmp(status, "failed") == 0 && play->attempt < play->one->attempts) {
        json_object *error = NULL, *retryable = NULL;
        (void)json_object_object_get_ex(answer, "error", &error);
        if (!json_object_object_get_ex(error, "retryable", &retryable) ||
            json_object_get_boolean(retryable)) {
            (void)json_object_array_add(play->failures, json_object_get(error));
            play->attempt++;
            *ret_more = true;
        }
    }
}

void play_judge_http(struct play *play, int status, const char *body) {
    int wanted = play->one->http_status;
    char expected[64];
    if (wanted != HTTP_FAILS) {
        (void)snprintf(expected, sizeof expected, "HTTP status %d", wanted == 0 ? 200 : wanted);
        if (status != (wanted == 0 ? 200 : wanted)) {
            verdict_fail(play->verdict, expected, "%d %.160s", status, body);
        }
    } else if (status == 401 || status == 429 || status == 503 ||
               (status == 200 && strstr(body, "\"failed\"") == NULL)) {
        verdict_fail(play->verdict, "status failed, or an HTTP status that fails the attempt",
                     "%d %.160s", status, body);
    }
}

static void judge_pattern(struct play *play, const char *path, const char *text,
                          json_object *value) {
    if (text != NULL) {
        AUTO(json) json_object *pattern = pattern_read(text);
        (void)pattern_fits(path, pattern, value, play->verdict);
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp(field(*(json_object *const *)a, "name"), field(*(json_object *const *)b, "name"));
}

void play_judge(struct play *play, json_object *answer, int64_t took_ms) {
    const struct conformance_case *one = play->one;
    if (answer != NULL) {
        judge_pattern(play, "the answer", one->end, answer);
    }
    if (answer != NULL && one->together > 0 && strcmp(field(answer, "result"), play->run_id) != 0) {
        verdict_fail(play->verdict, "the result of this run's own op", "%.80s",
                     field(answer, "result"));
    }
    if (one->any_order) {
        json_object_array_sort(play->ops, by_name);
    }
    judge_pattern(play, "ops", one->ops, play->ops);
    judge_pattern(play, "log and progress", one->notes, play->notes);
    if (one->attempts > 0 && one->failures != NULL) {
        judge_pattern(play, "errors", one->failures, play->failures);
    }
    if (play->again != NULL) {
        verdict_fail(play->verdict, "the commit said again", "nothing");
    }
    if (one->fault_at > play->commits && !play->answering) {
        verdict_fail(play->verdict, "a commit or heartbeat at commit.url", "%d of them",
                     play->commits);
    }
    if (one->ref != NULL && play->refs_read == 0) {
        verdict_fail(play->verdict, "GET commit.url?ref=1", "none");
    }
    if (play->calls < one->calls_min) {
        verdict_fail(play->verdict, "more calls of the handler", "%d", play->calls);
    }
    if (one->heartbeat && (play->heartbeat_ms < 0 || play->heartbeat_ms > HEARTBEAT_MS_MAX)) {
        verdict_fail(play->verdict, "a heartbeat within 5 s", "%s",
                     play->heartbeat_ms < 0 ? "none" : "a later one");
    }
    if (one->within_ms > 0 && took_ms > one->within_ms) {
        verdict_fail(play->verdict, "the call to end soon after it", "%lld ms", (long long)took_ms);
    }
}
