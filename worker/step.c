/* Steps: run once, remembered for ever. Guarantee 3: a step's function is called only when its
 * place in the run's memory is empty, and its result is committed, under the lease, before the
 * handler goes on. */
#include "worker/step.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/buf.h"
#include "common/duration.h"
#include "common/failpoint.h"
#include "common/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_object *backoff_json(const dj_backoff *backoff) {
    json_object *policy = json_object_new_object();
    if (backoff->initial != NULL) {
        json_object_object_add(policy, "initial", json_object_new_string(backoff->initial));
    }
    if (backoff->factor != 0) {
        json_object_object_add(policy, "factor", json_object_new_double(backoff->factor));
    }
    if (backoff->max != NULL) {
        json_object_object_add(policy, "max", json_object_new_string(backoff->max));
    }
    if (backoff->jitter != 0) {
        json_object_object_add(policy, "jitter", json_object_new_double(backoff->jitter));
    }
    return policy;
}

dj_status backoff_check(const dj_backoff *backoff) {
    int64_t ms;
    if (backoff->initial != NULL) {
        DJ_TRY(duration_parse("backoff.initial", backoff->initial, &ms));
    }
    if (backoff->max != NULL) {
        DJ_TRY(duration_parse("backoff.max", backoff->max, &ms));
    }
    if (backoff->factor != 0 && !(backoff->factor >= 1 && backoff->factor <= 1000)) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "backoff.factor %g is out of range; 1 to 1000 is allowed", backoff->factor);
    }
    if (!(backoff->jitter >= 0 && backoff->jitter <= 1)) {
        return dj_fail(DJ_INVALID_ARGUMENT, "backoff.jitter %g is out of range; 0 to 1 is allowed",
                       backoff->jitter);
    }
    return DJ_OK;
}

/* What is committed when this try of a step has failed and another one is left. */
static json_object *retry_detail(const dj_run *run, const char *name, int tries,
                                 const dj_step_options *options, json_object *error) {
    json_object *detail = json_object_new_object();
    json_object_object_add(detail, "name", json_object_new_string(name));
    json_object_object_add(detail, "error", error);
    json_object_object_add(detail, "tries", json_object_new_int(tries));
    json_object_object_add(detail, "backoff", backoff_json(&options->backoff));
    if (run->error.set && run->error.retry_after_ms >= 0) {
        json_object_object_add(detail, "retryAfterMs",
                               json_object_new_int64(run->error.retry_after_ms));
    }
    return detail;
}

/* Before the step is called: what the loop commits in our place if it does not come back in time.
 */
static dj_status watch_begin(dj_run *run, const char *name, int tries,
                             const dj_step_options *options) {
    int64_t timeout_ms;
    DJ_TRY(duration_parse("timeout", options->timeout, &timeout_ms));
    char message[300];
    (void)snprintf(message, sizeof message, "step %s did not end within %s", name,
                   options->timeout);
    json_object *error = json_object_new_object();
    json_object_object_add(error, "name", json_object_new_string("StepTimeoutError"));
    json_object_object_add(error, "message", json_object_new_string(message));
    json_object_object_add(error, "step", json_object_new_string(name));
    json_object *detail;
    if (tries < options->max_attempts) {
        run->watch.op = "step_retry";
        detail = retry_detail(run, name, tries, options, error);
    } else {
        run->watch.op = "fail";
        detail = json_object_new_object();
        json_object_object_add(detail, "error", error);
    }
    json_object_object_add(detail, "bytes", json_object_new_int64(run->bytes));
    free(run->watch.detail);
    run->watch.detail = NULL;
    DJ_TRY(run_print(run, detail, &run->watch.detail));
    atomic_store(&run->watch.until_ms, clock_ms() + timeout_ms);
    return DJ_OK;
}

/* False: the step came too late, and the loop has spoken for it. */
static bool watch_end(dj_run *run) {
    int64_t until_ms = atomic_load(&run->watch.until_ms);
    return until_ms == WATCH_NONE ||
           (until_ms != WATCH_LATE &&
            atomic_compare_exchange_strong(&run->watch.until_ms, &until_ms, WATCH_NONE));
}

/* The step failed. With tries left it is tried again later; else, with a policy, its error is
 * remembered; without one it is the handler's to deal with. */
static dj_status step_failed(dj_run *run, const char *name, dj_status status, int tries,
                             const dj_step_options *options, int64_t elapsed_us) {
    if (status != DJ_FAILED || !run->error.set) {
        run_error_from_status(run, status);
    }
    free(run->error.step);
    run->error.step = strdup(name);
    bool has_policy = options != NULL && options->max_attempts > 1;
    if (has_policy && tries < options->max_attempts && !run->error.permanent) {
        return run_leave(run, "step_retry",
                         retry_detail(run, name, tries, options, run_error_json(run, name)));
    }
    if (has_policy) {
        char *error;
        DJ_TRY(run_print(run, run_error_json(run, name), &error));
        DJ_TRY(run_commit_step(run, name, "step", NULL, error, elapsed_us));
    }
    return dj_fail(DJ_FAILED, "%s", run->error.message == NULL ? "failed" : run->error.message);
}

dj_status step_print_result(dj_run *run, const char *name, json_object *result, char **ret_text) {
    *ret_text = NULL;
    if (result == NULL) {
        return DJ_OK;
    }
    struct buf text;
    buf_init(&text, PAYLOAD_BYTES_MAX + 1);
    char argument[240];
    (void)snprintf(argument, sizeof argument, "result of step %s", name);
    dj_status status = json_print(argument, result, PAYLOAD_BYTES_MAX, &text);
    if (status == DJ_OK && run->bytes + history_bytes(text.data) > HISTORY_BYTES_MAX) {
        status = dj_fail(DJ_TOO_LARGE,
                         "step %s makes the run's history larger than %d bytes: keep what is large "
                         "elsewhere, and remember where",
                         name, HISTORY_BYTES_MAX);
    }
    if (status == DJ_OK) {
        *ret_text = buf_take(&text);
    }
    buf_done(&text);
    if (status == DJ_TOO_LARGE || status == DJ_INVALID_ARGUMENT) {
        return run_refuse(run, status, "ResultRefused", name);
    }
    return status;
}

dj_status dj_step_with(dj_run *run, const char *name, dj_step_fn step, json_object *input,
                       const dj_step_options *options, json_object **ret_result) {
    const struct memory *memory;
    const char *full_name;
    DJ_TRY(run_recall(run, name, "step", &full_name, &memory));
    if (memory != NULL) {
        return run_give(run, memory, ret_result);
    }
    if (options != NULL) {
        DJ_TRY(backoff_check(&options->backoff));
    }
    DJ_TRY(run_prove_lease(run));
    FAILPOINT("step.before");
    int tries = replay_tries(&run->replay, full_name) + 1;
    if (options != NULL && options->timeout != NULL) {
        DJ_TRY(watch_begin(run, full_name, tries, options));
    }
    json_object *result = NULL;
    int64_t began_us = clock_us();
    run_error_clear(run);
    run->in_step = true;
    run->step_name = full_name;
    dj_status status = step(run, input, &result);
    run->step_name = NULL;
    run->in_step = false;
    int64_t elapsed_us = clock_us() - began_us;
    FAILPOINT("step.after_effect");
    if (!watch_end(run)) {
        json_object_put(result);
        return dj_fail(DJ_LEASE_LOST, "step %s came back after its timeout", full_name);
    }
    if (status != DJ_OK) {
        json_object_put(result);
        return step_failed(run, full_name, status, tries, options, elapsed_us);
    }
    DJ_TRY(run_own(run, result));
    char *text;
    DJ_TRY(step_print_result(run, full_name, result, &text));
    DJ_TRY(run_commit_step(run, full_name, "step", text, NULL, elapsed_us));
    FAILPOINT("step.committed");
    if (ret_result != NULL) {
        *ret_result = result;
    }
    return DJ_OK;
}

dj_status dj_step(dj_run *run, const char *name, dj_step_fn step, json_object *input,
                  json_object **ret_result) {
    return dj_step_with(run, name, step, input, NULL, ret_result);
}
