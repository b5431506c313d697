/* The handlers that tests run. A step function's first act is a row in `effect`, on a connection of
 * its own that commits at once: so a test knows every call, whatever became of its worker. */
#include <durable/worker.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t effects_mutex = PTHREAD_MUTEX_INITIALIZER;
static PGconn *effects;

static void note(dj_run *run, const char *step) {
    char attempt[16];
    (void)snprintf(attempt, sizeof attempt, "%d", dj_run_attempt(run));
    const char *values[] = { dj_run_id(run), step, attempt };
    (void)pthread_mutex_lock(&effects_mutex);
    for (int tries = 0; tries < 100; tries++) {
        if (effects == NULL) {
            effects = PQconnectdb(getenv("DURABLE_DATABASE_URL"));
        } else if (PQstatus(effects) != CONNECTION_OK) {
            PQreset(effects);
        }
        PGresult *result =
            PQexecParams(effects, "insert into effect (run_id, step, attempt) values ($1, $2, $3)",
                         3, NULL, values, NULL, NULL, 0);
        bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
        if (done) {
            break;
        }
        usleep(50000);
    }
    (void)pthread_mutex_unlock(&effects_mutex);
}

static int member(json_object *payload, const char *name, int fallback) {
    json_object *value;
    return json_object_object_get_ex(payload, name, &value) ? json_object_get_int(value) : fallback;
}

static dj_status counted(dj_run *run, json_object *input, json_object **ret_result) {
    const char *name = json_object_get_string(json_object_object_get(input, "step"));
    note(run, name);
    usleep((useconds_t)member(input, "us", 0));
    *ret_result = json_object_get(input);
    return DJ_OK;
}

/* steps: {"steps": n, "us": each}. */
static dj_status steps(dj_run *run, json_object *payload) {
    int count = member(payload, "steps", 5);
    int us = member(payload, "us", 0);
    int jitter = member(payload, "jitter_us", 0);
    for (int i = 1; i <= count; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "s%d", i);
        json_object *input = json_object_new_object();
        json_object_object_add(input, "step", json_object_new_string(name));
        json_object_object_add(
            input, "us", json_object_new_int(us + (jitter > 0 ? (int)(random() % jitter) : 0)));
        dj_status status = dj_step(run, name, counted, input, NULL);
        json_object_put(input);
        DJ_TRY(status);
    }
    return dj_complete(run, json_object_new_int(count));
}

/* brims: {"steps": n, "then": "sleep", "wait" or "child"}, what there may be no place for. */
static dj_status brims(dj_run *run, json_object *payload) {
    const char *then = json_object_get_string(json_object_object_get(payload, "then"));
    for (int i = 1; i <= member(payload, "steps", 0); i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "s%d", i);
        DJ_TRY(dj_step(run, name, counted, payload, NULL));
    }
    if (strcmp(then, "sleep") == 0) {
        DJ_TRY(dj_sleep(run, NULL, "1ms"));
    } else if (strcmp(then, "wait") == 0) {
        DJ_TRY(dj_wait_for_event(run, "go", NULL, NULL));
    } else {
        DJ_TRY(dj_run_child(run, "noop", NULL, NULL, NULL));
    }
    return dj_complete(run, NULL);
}

/* exponents: {"steps": n, "count": numbers that are short to say and long to print, in each}. */
static dj_status exponents(dj_run *run, json_object *input, json_object **ret_result) {
    (void)run;
    *ret_result = json_object_new_array();
    for (int i = 0; i < member(input, "count", 1); i++) {
        json_object_array_add(*ret_result, json_object_new_double_s(1e300, "1e300"));
    }
    return DJ_OK;
}

static dj_status swells(dj_run *run, json_object *payload) {
    for (int i = 0; i < member(payload, "steps", 1); i++) {
        DJ_TRY(dj_step(run, "swell", exponents, payload, NULL));
    }
    return dj_complete(run, NULL);
}

/* world: state, an event and a child, each of which may happen once only. */
static dj_status world(dj_run *run, json_object *payload) {
    json_object *result, *value;
    int64_t sum;
    bool locked;
    DJ_TRY(dj_run_state_increment(run, "worlds", 1, &sum));
    DJ_TRY(dj_run_state_lock(run, dj_run_id(run), "1h", &locked));
    DJ_TRY(dj_run_state_set(run, "last", payload, NULL));
    DJ_TRY(dj_run_state_get(run, "last", &value));
    if (!locked || !json_object_equal(value, payload)) {
        return dj_run_fail_permanently(run, "the state is not what was set");
    }
    DJ_TRY(dj_run_send_event(run, "hello", payload, dj_run_id(run)));
    DJ_TRY(dj_run_child(run, "steps", NULL, &(dj_child_options){ .name = "kid" }, &result));
    return dj_complete(run, json_object_get(result));
}

/* moods: waits to be told how it is to end. */
static dj_status moods(dj_run *run, json_object *payload) {
    json_object *event;
    (void)payload;
    DJ_TRY(dj_wait_for_event(run, "mood", &(dj_wait){ .correlation_key = dj_run_id(run) }, &event));
    json_object *mood = json_object_object_get(event, "payload");
    if (!json_object_get_boolean(mood)) {
        return dj_run_fail_permanently(run, "in a bad mood");
    }
    return dj_complete(run, json_object_get(mood));
}

/* family: {"kids": n} children, one after the other. */
static dj_status family(dj_run *run, json_object *payload) {
    for (int i = 0; i < member(payload, "kids", 1); i++) {
        DJ_TRY(dj_run_child(run, "moods", NULL, NULL, NULL));
    }
    return dj_complete(run, NULL);
}

static dj_status noop(dj_run *run, json_object *payload) {
    (void)payload;
    return dj_complete(run, NULL);
}

/* wait: {"event", "key", "timeout", "on": 0 … 2}, between two steps. */
static dj_status waits(dj_run *run, json_object *payload) {
    json_object *event = NULL;
    json_object *key = json_object_object_get(payload, "key");
    json_object *timeout = json_object_object_get(payload, "timeout");
    json_object *input = json_object_new_object();
    json_object_object_add(input, "step", json_object_new_string("before"));
    dj_status status = dj_step(run, "before", counted, input, NULL);
    json_object_put(input);
    DJ_TRY(status);
    dj_wait wait = { .correlation_key = key == NULL ? NULL : json_object_get_string(key),
                     .timeout = timeout == NULL ? NULL : json_object_get_string(timeout),
                     .on_timeout = (dj_on_timeout)member(payload, "on", 0) };
    DJ_TRY(dj_wait_for_event(run, "go", &wait, &event));
    return dj_complete(run, json_object_get(event));
}

static dj_status transfer(dj_run *run, PGconn *conn, json_object *input, json_object **ret_result) {
    const char *values[] = { dj_run_id(run) };
    PGresult *result = PQexecParams(conn, "insert into transfer (run_id) values ($1)", 1, NULL,
                                    values, NULL, NULL, 0);
    bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    if (!done) {
        return dj_run_fail(run, "%s", PQerrorMessage(conn));
    }
    usleep((useconds_t)(1000 * member(input, "ms", 0)));
    *ret_result = json_object_new_string("transferred");
    return DJ_OK;
}

/* transfers: {"ms": how long its transaction stays open}. */
static dj_status transfers(dj_run *run, json_object *payload) {
    json_object *result;
    DJ_TRY(dj_step_tx(run, "transfer", transfer, payload, &result));
    return dj_complete(run, json_object_get(result));
}

static dj_status slow_step(dj_run *run, json_object *input, json_object **ret_result) {
    (void)ret_result;
    note(run, "slow");
    for (int i = 0; i < member(input, "ms", 1000) / 10 && !dj_run_cancelled(run); i++) {
        usleep(10000);
    }
    return DJ_OK;
}

static dj_status after_step(dj_run *run, json_object *input, json_object **ret_result) {
    (void)input;
    (void)ret_result;
    note(run, "after");
    return DJ_OK;
}

static dj_status slow(dj_run *run, json_object *payload) {
    DJ_TRY(dj_step(run, "slow", slow_step, payload, NULL));
    DJ_TRY(dj_step(run, "after", after_step, payload, NULL));
    return dj_complete(run, NULL);
}

/* tells: {"ms": of its step}, and whether its worker has lost it meanwhile. */
static dj_status tells(dj_run *run, json_object *payload) {
    dj_status status = dj_step(run, "slow", slow_step, payload, NULL);
    if (status == DJ_LEASE_LOST) {
        note(run, "told");
    }
    return status == DJ_OK ? dj_complete(run, NULL) : status;
}

/* ponders: {"ms": of its own between two steps}. */
static dj_status ponders(dj_run *run, json_object *payload) {
    for (int i = 0; i < 2; i++) {
        json_object *input = json_object_new_object();
        json_object_object_add(input, "step", json_object_new_string(i == 0 ? "s1" : "s2"));
        dj_status status = dj_step(run, i == 0 ? "s1" : "s2", counted, input, NULL);
        json_object_put(input);
        DJ_TRY(status);
        usleep((useconds_t)(i == 0 ? 1000 * member(payload, "ms", 0) : 0));
    }
    return dj_complete(run, NULL);
}

/* stubborn: whatever its calls answer, it makes the next one. */
static dj_status stubborn(dj_run *run, json_object *payload) {
    dj_status told[4];
    told[0] = dj_step(run, "slow", slow_step, payload, NULL);
    told[1] = dj_step(run, "after", after_step, payload, NULL);
    told[2] = dj_wait_for_event(run, "go", NULL, NULL);
    told[3] = dj_step(run, "after all", after_step, payload, NULL);
    (void)told;
    return dj_complete(run, NULL);
}

static dj_status fails(dj_run *run, json_object *payload) {
    (void)payload;
    note(run, "fails");
    return dj_run_fail(run, "attempt %d failed", dj_run_attempt(run));
}

static dj_status fails_permanently(dj_run *run, json_object *payload) {
    (void)payload;
    return dj_run_fail_permanently(run, "this will never work");
}

static dj_status fails_twice_step(dj_run *run, json_object *input, json_object **ret_result) {
    static atomic_int calls;
    (void)input;
    (void)ret_result;
    note(run, "flaky");
    return ++calls <= 2 ? dj_run_fail(run, "call %d failed", calls) : DJ_OK;
}

static dj_status flaky(dj_run *run, json_object *payload) {
    dj_step_options options = { .max_attempts = 5, .backoff = { .initial = "20ms" } };
    (void)payload;
    DJ_TRY(dj_step_with(run, "flaky", fails_twice_step, NULL, &options, NULL));
    return dj_complete(run, NULL);
}

static double number(json_object *payload, const char *name) {
    return json_object_get_double(json_object_object_get(payload, name));
}

/* backs-off: {"initial", "factor", "max", "jitter"} of a step that fails. */
static dj_status backs_off(dj_run *run, json_object *payload) {
    dj_step_options options = {
        .max_attempts = 2,
        .backoff = { .initial = json_object_get_string(json_object_object_get(payload, "initial")),
                     .factor = number(payload, "factor"),
                     .max = json_object_get_string(json_object_object_get(payload, "max")),
                     .jitter = number(payload, "jitter") },
    };
    DJ_TRY(dj_step_with(run, "flaky", fails_twice_step, NULL, &options, NULL));
    return dj_complete(run, NULL);
}

/* chatters: {"lines": n, "bytes": of each}, before a step and after it. */
static dj_status chatters(dj_run *run, json_object *payload) {
    int bytes = member(payload, "bytes", 0);
    for (int part = 0; part < 2; part++) {
        for (int i = 0; i < member(payload, "lines", 1); i++) {
            DJ_TRY(dj_log(run, part == 0 ? DJ_DEBUG : DJ_INFO, "%*s", bytes, ""));
        }
        DJ_TRY(part == 0 ? dj_step(run, "after", after_step, NULL, NULL) : DJ_OK);
    }
    return dj_complete(run, NULL);
}

/* late: {"ms": n, "stubborn": goes on, whatever the step has come to}. */
static dj_status late(dj_run *run, json_object *payload) {
    dj_step_options options = { .timeout = "200ms" };
    dj_status status = dj_step_with(run, "late", slow_step, payload, &options, NULL);
    if (member(payload, "stubborn", 0) == 0) {
        DJ_TRY(status);
    }
    DJ_TRY(dj_step_with(run, "after", after_step, payload, &options, NULL));
    return dj_complete(run, NULL);
}

static dj_status failing_step(dj_run *run, json_object *input, json_object **ret_result) {
    (void)input;
    (void)ret_result;
    return dj_run_fail(run, "not yet");
}

/* persists: {"ms": for how long it tries a step that fails, each time within its timeout}. */
static dj_status persists(dj_run *run, json_object *payload) {
    dj_step_options options = { .timeout = "30s" };
    for (int i = 0; i < member(payload, "ms", 1000); i++) {
        if (dj_step_with(run, "fails", failing_step, NULL, &options, NULL) != DJ_FAILED) {
            return dj_run_fail_permanently(run, "the step did not fail");
        }
        usleep(1000);
    }
    return dj_complete(run, NULL);
}

static dj_status dies(dj_run *run, json_object *payload) {
    note(run, "dies");
    usleep((useconds_t)(1000 * member(payload, "ms", 0)));
    abort();
}

static dj_status sleeps(dj_run *run, json_object *payload) {
    (void)payload;
    DJ_TRY(dj_sleep(run, NULL, "300ms"));
    return dj_complete(run, NULL);
}

static dj_status large_step(dj_run *run, json_object *input, json_object **ret_result) {
    (void)run;
    int bytes = member(input, "bytes", 0);
    char *text = malloc((size_t)bytes + 1);
    memset(text, 'x', (size_t)bytes);
    text[bytes] = '\0';
    *ret_result = json_object_new_string(text);
    free(text);
    return DJ_OK;
}

static dj_status large(dj_run *run, json_object *payload) {
    DJ_TRY(dj_step(run, "large", large_step, payload, NULL));
    return dj_complete(run, NULL);
}

static dj_status
swapped(dj_run *run, json_object *payload) { /* asks for its steps in the order of the payload */
    const char *order = json_object_get_string(json_object_object_get(payload, "order"));
    const char *forced = getenv("TEST_STEP_ORDER");
    for (const char *step = forced != NULL ? forced : order; *step != '\0'; step++) {
        char name[2] = { *step, '\0' };
        DJ_TRY(dj_step(run, name, after_step, NULL, NULL));
    }
    DJ_TRY(dj_wait_for_event(run, "go", NULL, NULL));
    return dj_complete(run, NULL);
}

dj_status dj_module_init(dj_worker *worker) {
    static const struct {
        const char *name;
        dj_handler handler;
        dj_job_options options;
    } jobs[] = {
        { "steps", steps, { .context = NULL } },
        { "noop", noop, { .context = NULL } },
        { "world", world, { .context = NULL } },
        { "moods", moods, { .context = NULL } },
        { "family", family, { .max_attempts = 1 } },
        { "brims", brims, { .context = NULL } },
        { "swells", swells, { .context = NULL } },
        { "waits", waits, { .context = NULL } },
        { "transfers", transfers, { .context = NULL } },
        { "slow", slow, { .context = NULL } },
        { "tells", tells, { .context = NULL } },
        { "ponders", ponders, { .context = NULL } },
        { "stubborn", stubborn, { .context = NULL } },
        { "fails", fails, { .max_attempts = 3, .backoff = { .initial = "20ms" } } },
        { "fails-permanently", fails_permanently, { .context = NULL } },
        { "flaky", flaky, { .context = NULL } },
        { "backs-off", backs_off, { .max_attempts = 1 } },
        { "chatters", chatters, { .max_attempts = 1 } },
        { "late", late, { .max_attempts = 1 } },
        { "persists", persists, { .max_attempts = 1 } },
        { "dies", dies, { .context = NULL } },
        { "sleeps", sleeps, { .context = NULL } },
        { "large", large, { .context = NULL } },
        { "swapped", swapped, { .context = NULL } },
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        dj_job_options options = jobs[i].options;
        options.version = getenv("TEST_VERSION");
        DJ_TRY(dj_worker_register(worker, jobs[i].name, jobs[i].handler, &options));
    }
    return DJ_OK;
}
