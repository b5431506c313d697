/* The native handlers of the failpoint runs: between them they make every durable call there is.
 * Each call of a step's function appends a line to the file FAILPOINT_EFFECTS before anything else,
 * in one write: run, step, process, time. */
#include <durable/worker.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int effects = -1;

static void note(dj_run *run, const char *step) {
    char line[256];
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(line, sizeof line, "%s %s %d %lld.%06ld\n", dj_run_id(run), step,
                          (int)getpid(), (long long)now.tv_sec, now.tv_nsec / 1000);
    if (write(effects, line, (size_t)length) != length) {
        abort();
    }
}

static const char *text(json_object *payload, const char *name) {
    return json_object_get_string(json_object_object_get(payload, name));
}

static dj_status noted(dj_run *run, json_object *input, json_object **ret_result) {
    note(run, json_object_get_string(input));
    *ret_result = json_object_get(input);
    return DJ_OK;
}

static dj_status flaky(dj_run *run, json_object *input, json_object **ret_result) {
    DJ_TRY(noted(run, input, ret_result));
    return random() % 2 == 0 ? dj_run_fail(run, "it failed by chance") : DJ_OK;
}

static dj_status transfer(dj_run *run, PGconn *conn, json_object *input, json_object **ret_result) {
    const char *values[] = { dj_run_id(run) };
    PGresult *result = PQexecParams(conn, "insert into transfer (run_id) values ($1)", 1, NULL,
                                    values, NULL, NULL, 0);
    bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    *ret_result = json_object_get(input);
    return done ? DJ_OK : dj_run_fail(run, "%s", PQerrorMessage(conn));
}

static dj_status step(dj_run *run, const char *name, dj_step_fn function,
                      const dj_step_options *options) {
    json_object *input = json_object_new_string(name);
    dj_status status = dj_step_with(run, name, function, input, options, NULL);
    json_object_put(input);
    return status;
}

static dj_status everything(dj_run *run, json_object *payload) {
    const dj_step_options stubborn = { .max_attempts = 100,
                                       .backoff = { .initial = "20ms", .factor = 1 } };
    DJ_TRY(dj_log(run, DJ_INFO, "the run of key %s begins", text(payload, "key")));
    DJ_TRY(step(run, "first", noted, NULL));
    DJ_TRY(dj_step_tx(run, "transfer", transfer, NULL, NULL));
    DJ_TRY(dj_run_state_increment(run, text(payload, "counter"), 1, NULL));
    DJ_TRY(step(run, "flaky", flaky, &stubborn));
    DJ_TRY(dj_sleep(run, "nap", "50ms"));
    dj_wait wait = { .correlation_key = text(payload, "key") };
    DJ_TRY(dj_wait_for_event(run, "go", &wait, NULL));
    DJ_TRY(dj_run_child(run, "kid", payload, &(dj_child_options){ .max_attempts = 50 }, NULL));
    DJ_TRY(step(run, "last", noted, NULL));
    return dj_complete(run, NULL);
}

static dj_status kid(dj_run *run, json_object *payload) {
    (void)payload;
    DJ_TRY(step(run, "only", noted, NULL));
    return dj_complete(run, NULL);
}

static dj_status plain(dj_run *run, json_object *payload) {
    static const char *const names[] = { "s1", "s2", "s3", "s4", "s5" };
    (void)payload;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        DJ_TRY(step(run, names[i], noted, NULL));
        (void)usleep(2000);
    }
    return dj_complete(run, NULL);
}

dj_status dj_module_init(dj_worker *worker) {
    const dj_job_options options = { .max_attempts = 50, .backoff = { .initial = "20ms" } };
    effects = open(getenv("FAILPOINT_EFFECTS"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (effects < 0) {
        abort();
    }
    srandom((unsigned int)getpid());
    DJ_TRY(dj_worker_register(worker, "everything", everything, &options));
    DJ_TRY(dj_worker_register(worker, "kid", kid, &options));
    return dj_worker_register(worker, "plain", plain, &options);
}
