/* The job of the chaos run: interprets the program in its payload, a list of durable operations,
 * and computes a number whose value the program's author knows. The first thing that a function
 * does is a row in the evidence, on a connection of its own that commits at once.
 * tests/chaos/programs.py says what each operation is. */
#include <durable/worker.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULUS 1000003
#define NOTE_TRIES 200

static pthread_mutex_t evidence_mutex = PTHREAD_MUTEX_INITIALIZER;
static PGconn *evidence;

static const char *text_of(json_object *op, const char *name) {
    return json_object_get_string(json_object_object_get(op, name));
}

static int64_t number_of(json_object *op, const char *name) {
    return json_object_get_int64(json_object_object_get(op, name));
}

/* Writes down that this happens, and answers how often it has for this run. Without the evidence
 * nothing may go on: the process ends. */
static int note(dj_run *run, const char *kind, const char *step, const char *value) {
    char attempt[16], pid[16];
    int count = 0;
    (void)snprintf(attempt, sizeof attempt, "%d", dj_run_attempt(run));
    (void)snprintf(pid, sizeof pid, "%d", (int)getpid());
    const char *values[] = {
        dj_run_id(run), kind, step, attempt, getenv("CHAOS_ACTOR"), pid, value
    };
    (void)pthread_mutex_lock(&evidence_mutex);
    for (int tries = 0; tries < NOTE_TRIES && count == 0; tries++) {
        if (evidence == NULL) {
            evidence = PQconnectdb(getenv("CHAOS_EVIDENCE"));
        } else if (PQstatus(evidence) != CONNECTION_OK) {
            PQreset(evidence);
        }
        PGresult *result = PQexecParams(evidence,
                                        "insert into hc.effect (run, kind, step, attempt, actor, "
                                        "pid, value) values ($1, $2, $3, $4, $5, $6, $7) "
                                        "returning 1 + (select count(*) from hc.effect where run = "
                                        "$1 and kind = $2 and step = $3)",
                                        7, NULL, values, NULL, NULL, 0);
        if (PQresultStatus(result) == PGRES_TUPLES_OK) {
            count = (int)strtol(PQgetvalue(result, 0, 0), NULL, 10);
        } else {
            usleep(50000);
        }
        PQclear(result);
    }
    (void)pthread_mutex_unlock(&evidence_mutex);
    if (count == 0) {
        (void)fprintf(stderr, "kitchen_sink: the evidence cannot be reached\n");
        _exit(70);
    }
    return count;
}

static dj_status plain_step(dj_run *run, json_object *op, json_object **ret_result) {
    (void)note(run, "step", text_of(op, "name"), NULL);
    usleep((useconds_t)(1000 * number_of(op, "ms")));
    *ret_result = json_object_new_int64(number_of(op, "v"));
    return DJ_OK;
}

static dj_status op_burst(dj_run *run, json_object *op, int64_t *ret_value) {
    int64_t count = number_of(op, "count"), v = number_of(op, "v");
    *ret_value = 0;
    for (int64_t i = 0; i < count; i++) {
        char name[64];
        json_object *result = NULL, *step = json_object_new_object();
        (void)snprintf(name, sizeof name, "%s.%lld", text_of(op, "name"), (long long)i);
        json_object_object_add(step, "name", json_object_new_string(name));
        json_object_object_add(step, "v", json_object_new_int64(v + i));
        dj_status status = dj_step(run, name, plain_step, step, &result);
        json_object_put(step);
        DJ_TRY(status);
        *ret_value += json_object_get_int64(result);
    }
    return DJ_OK;
}

static dj_status tx_step(dj_run *run, PGconn *conn, json_object *op, json_object **ret_result) {
    const char *values[] = { dj_run_id(run), text_of(op, "name") };
    (void)note(run, "step", values[1], NULL);
    PGresult *result = PQexecParams(
        conn,
        "with a as (insert into public.hc_account as o values ($1, $2, 1) on conflict (run, step) "
        "do update set n = o.n + 1) insert into public.hc_tx (run, step) values ($1, $2)",
        2, NULL, values, NULL, NULL, 0);
    bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    if (!done) {
        return dj_run_fail(run, "%s", PQerrorMessage(conn));
    }
    *ret_result = json_object_new_int64(number_of(op, "v"));
    return DJ_OK;
}

static dj_status flaky_step(dj_run *run, json_object *op, json_object **ret_result) {
    int calls = note(run, "step", text_of(op, "name"), NULL);
    if (calls < number_of(op, "tries")) {
        return dj_run_fail(run, "call %d fails", calls);
    }
    *ret_result = json_object_new_int64(number_of(op, "v"));
    return DJ_OK;
}

static dj_status hanging_step(dj_run *run, json_object *op, json_object **ret_result) {
    if (note(run, "step", text_of(op, "name"), NULL) == 1) {
        usleep((useconds_t)(1000 * number_of(op, "ms")));
    }
    *ret_result = json_object_new_int64(number_of(op, "v"));
    return DJ_OK;
}

static dj_status big_step(dj_run *run, json_object *op, json_object **ret_result) {
    size_t bytes = (size_t)number_of(op, "bytes");
    (void)note(run, "step", text_of(op, "name"), NULL);
    char *text = malloc(bytes + 1);
    if (text == NULL) {
        return dj_run_fail(run, "no memory");
    }
    memset(text, 'x', bytes);
    text[bytes] = '\0';
    *ret_result = json_object_new_string(text);
    free(text);
    return DJ_OK;
}

static dj_status bad_step(dj_run *run, json_object *op, json_object **ret_result) {
    (void)note(run, "step", text_of(op, "name"), NULL);
    *ret_result = json_object_new_string("\xff\xfe is no text");
    return DJ_OK;
}

static int64_t value_of_event(json_object *event) {
    return number_of(json_object_object_get(event, "payload"), "v");
}

/* What a wait gave back is the same in each attempt: the evidence has it each time. */
static void note_wait(dj_run *run, json_object *op, json_object *event) {
    bool timed_out = json_object_get_boolean(json_object_object_get(event, "timedOut"));
    (void)note(run, "wait", text_of(op, "name"), timed_out ? "timed out" : text_of(event, "id"));
}

static dj_status op_wait(dj_run *run, json_object *op, int64_t *ret_value) {
    const char *timeout = text_of(op, "timeout");
    json_object *event = NULL;
    dj_wait wait = { .correlation_key = text_of(op, "key"),
                     .timeout = timeout,
                     .on_timeout = DJ_TIMEOUT_CONTINUE,
                     .name = text_of(op, "name") };
    DJ_TRY(dj_wait_for_event(run, text_of(op, "event"), &wait, &event));
    note_wait(run, op, event);
    if (timeout == NULL) {
        *ret_value = value_of_event(event);
    }
    return DJ_OK;
}

static dj_status op_any(dj_run *run, json_object *op, int64_t *ret_value) {
    json_object *event = NULL;
    dj_event_key keys[2] = { { text_of(op, "event"), text_of(op, "key") },
                             { text_of(op, "event"), text_of(op, "other") } };
    DJ_TRY(dj_wait_for_any(run, keys, 2, &(dj_wait){ .name = text_of(op, "name") }, &event));
    note_wait(run, op, event);
    *ret_value = value_of_event(event);
    return DJ_OK;
}

static dj_status op_set_get(dj_run *run, json_object *op, int64_t *ret_value) {
    json_object *value = NULL;
    DJ_TRY(dj_run_state_set(run, text_of(op, "key"), json_object_object_get(op, "v"), NULL));
    DJ_TRY(dj_run_state_get(run, text_of(op, "key"), &value));
    *ret_value = json_object_get_int64(value);
    return DJ_OK;
}

static dj_status op_locked(dj_run *run, json_object *op, int64_t *ret_value) {
    bool locked;
    DJ_TRY(dj_run_state_lock(run, text_of(op, "key"), "10s", &locked));
    DJ_TRY(dj_step(run, text_of(op, "name"), plain_step, op, NULL));
    if (locked) {
        DJ_TRY(dj_run_state_unlock(run, text_of(op, "key")));
    }
    *ret_value = number_of(op, "v");
    return DJ_OK;
}

/* A step with tries of its own. */
static dj_status op_tried(dj_run *run, json_object *op, dj_step_fn step, int64_t *ret_value) {
    dj_step_options options = { .max_attempts = 20,
                                .backoff = { .initial = "50ms", .max = "200ms" },
                                .timeout = text_of(op, "timeout") };
    json_object *result = NULL;
    DJ_TRY(dj_step_with(run, text_of(op, "name"), step, op, &options, &result));
    *ret_value = json_object_get_int64(result);
    return DJ_OK;
}

static dj_status op_child(dj_run *run, json_object *op, int64_t *ret_value) {
    json_object *result = NULL;
    DJ_TRY(dj_run_child(run, text_of(op, "job"), json_object_object_get(op, "payload"),
                        &(dj_child_options){ .name = text_of(op, "name"), .max_attempts = 50 },
                        &result));
    *ret_value = json_object_get_int64(result);
    return DJ_OK;
}

static dj_status op_count(dj_run *run, json_object *payload) {
    int64_t sum;
    return dj_run_state_increment(run, text_of(payload, "counter"), number_of(payload, "by"), &sum);
}

static dj_status interpret(dj_run *run, json_object *payload, json_object *op, int64_t *ret_value) {
    const char *what = text_of(op, "op");
    json_object *result = NULL;
    *ret_value = 1;
    if (strcmp(what, "step") == 0 || strcmp(what, "tx") == 0) {
        DJ_TRY(what[0] == 't' ? dj_step_tx(run, text_of(op, "name"), tx_step, op, &result)
                              : dj_step(run, text_of(op, "name"), plain_step, op, &result));
        *ret_value = json_object_get_int64(result);
        return DJ_OK;
    }
    if (strcmp(what, "big") == 0) {
        DJ_TRY(dj_step(run, text_of(op, "name"), big_step, op, &result));
        *ret_value = json_object_get_string_len(result);
        return DJ_OK;
    }
    if (strcmp(what, "burst") == 0) {
        return op_burst(run, op, ret_value);
    }
    if (strcmp(what, "bad") == 0) {
        return dj_step(run, text_of(op, "name"), bad_step, op, NULL);
    }
    if (strcmp(what, "flaky") == 0) {
        return op_tried(run, op, flaky_step, ret_value);
    }
    if (strcmp(what, "hang") == 0) {
        return op_tried(run, op, hanging_step, ret_value);
    }
    if (strcmp(what, "wait") == 0) {
        return op_wait(run, op, ret_value);
    }
    if (strcmp(what, "any") == 0) {
        return op_any(run, op, ret_value);
    }
    if (strcmp(what, "sleep") == 0) {
        return dj_sleep(run, text_of(op, "name"), text_of(op, "for"));
    }
    if (strcmp(what, "child") == 0) {
        return op_child(run, op, ret_value);
    }
    if (strcmp(what, "count") == 0) {
        return op_count(run, payload);
    }
    if (strcmp(what, "setget") == 0) {
        return op_set_get(run, op, ret_value);
    }
    if (strcmp(what, "locked") == 0) {
        return op_locked(run, op, ret_value);
    }
    if (strcmp(what, "send") == 0) {
        return dj_run_send_event(run, text_of(op, "event"), op, text_of(payload, "key"));
    }
    if (strcmp(what, "fail") == 0) {
        return dj_run_attempt(run) < number_of(op, "until")
                   ? dj_run_fail(run, "attempt %d fails", dj_run_attempt(run))
                   : DJ_OK;
    }
    if (strcmp(what, "crash") == 0) {
        if (note(run, "crash", text_of(op, "name"), NULL) == 1) {
            abort();
        }
        return DJ_OK;
    }
    return dj_run_fail_permanently(run, "%s", what); /* doom, and what nobody knows */
}

static dj_status kitchen_sink(dj_run *run, json_object *payload) {
    json_object *ops = json_object_object_get(payload, "ops");
    int64_t sum = 0;
    (void)note(run, "enter", NULL, NULL);
    for (size_t i = 0; i < json_object_array_length(ops); i++) {
        int64_t value;
        DJ_TRY(interpret(run, payload, json_object_array_get_idx(ops, i), &value));
        sum = (sum * 31 + value) % MODULUS;
    }
    (void)note(run, "leave", NULL, NULL);
    return dj_complete(run, json_object_new_int64(sum));
}

dj_status dj_module_init(dj_worker *worker) {
    /* Nemeses kill often: a run has to outlive more deaths in a row than a customer would want it
     * to. */
    dj_job_options options = { .max_attempts = 50,
                               .max_crashes = 1000,
                               .backoff = { .initial = "100ms", .max = "1s" } };
    return dj_worker_register(worker, "sink.c", kitchen_sink, &options);
}
