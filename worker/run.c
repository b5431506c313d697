/* A run on its handler's thread: begin, go on, and what its durable calls have in common.
 *
 * A durable call that has something to commit and goes on afterwards (a step) parks the handler's
 * stack; the thread puts the run into the mailbox only when it has left that stack. One that ends
 * the run's stay here (a wait, say) answers DJ_SUSPENDED, which the handler hands up; its op is put
 * into the mailbox when the handler is back. So whatever the handler makes of DJ_SUSPENDED, the run
 * is suspended. */
#include "worker/run.h"

#include "common/bounds.h"
#include "common/check.h"
#include "common/duration.h"
#include "common/json.h"
#include "common/text.h"
#include "worker/crash.h"
#include "worker/fleet.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ERROR_MESSAGE_BYTES_MAX 8192

const char *dj_run_id(const dj_run *run) {
    return run->id_text;
}

const char *dj_run_job(const dj_run *run) {
    return run->job->name;
}

int dj_run_attempt(const dj_run *run) {
    return run->attempt;
}

void *dj_run_context(const dj_run *run) {
    return run->job->context;
}

bool dj_run_cancelled(const dj_run *run) {
    return atomic_load_explicit(&run->lost, memory_order_acquire);
}

static dj_status fail_lost(const dj_run *run) {
    return dj_fail(DJ_LEASE_LOST, "run %s is not leased to this worker any more", run->id_text);
}

dj_status dj_heartbeat(dj_run *run) {
    if (dj_run_cancelled(run)) {
        return fail_lost(run);
    }
    if (atomic_load(&run->watch.until_ms) == WATCH_LATE) {
        return dj_fail(DJ_TIMEOUT, "the step is over its timeout");
    }
    return DJ_OK;
}

/* Errors. */

static char *message_copy(const char *message) {
    size_t length = strnlen(message, ERROR_MESSAGE_BYTES_MAX);
    while (length > 0 && !text_is_utf8(message, length)) {
        length--; /* the longest part that is text */
    }
    char *copy = strndup(message, length);
    return copy;
}

void run_error_clear(dj_run *run) {
    free(run->error.name);
    free(run->error.message);
    free(run->error.step);
    run->error = (struct run_error){ .retry_after_ms = -1 };
}

static dj_status run_error_set(dj_run *run, const char *name, bool permanent,
                               int64_t retry_after_ms, const char *format, va_list arguments) {
    char message[ERROR_MESSAGE_BYTES_MAX];
    (void)vsnprintf(message, sizeof message, format, arguments);
    run_error_clear(run);
    run->error.set = true;
    run->error.permanent = permanent;
    run->error.retry_after_ms = retry_after_ms;
    run->error.name = strdup(name);
    run->error.message = message_copy(message);
    return dj_fail(DJ_FAILED, "%s", message);
}

static dj_status run_error_setf(dj_run *run, const char *name, bool permanent, const char *format,
                                ...) __attribute__((format(printf, 4, 5)));
static dj_status run_error_setf(dj_run *run, const char *name, bool permanent, const char *format,
                                ...) {
    va_list arguments;
    va_start(arguments, format);
    dj_status status = run_error_set(run, name, permanent, -1, format, arguments);
    va_end(arguments);
    return status;
}

dj_status dj_run_fail(dj_run *run, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    dj_status status = run_error_set(run, "Error", false, -1, format, arguments);
    va_end(arguments);
    return status;
}

dj_status dj_run_fail_permanently(dj_run *run, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    dj_status status = run_error_set(run, "NonRetryableError", true, -1, format, arguments);
    va_end(arguments);
    return status;
}

dj_status dj_run_retry_after(dj_run *run, const char *delay, const char *format, ...) {
    int64_t delay_ms;
    DJ_TRY(duration_parse("delay", delay, &delay_ms));
    va_list arguments;
    va_start(arguments, format);
    dj_status status = run_error_set(run, "RetryAfterError", false, delay_ms, format, arguments);
    va_end(arguments);
    return status;
}

void run_error_from_status(dj_run *run, dj_status status) {
    (void)run_error_setf(run, dj_status_name(status), status == DJ_INVALID_ARGUMENT, "%s",
                         dj_error_message());
}

static void add_text(json_object *object, const char *key, const char *text) {
    if (text != NULL) {
        json_object_object_add(object, key, json_object_new_string(text));
    }
}

json_object *run_error_json(const dj_run *run, const char *step) {
    json_object *error = json_object_new_object();
    add_text(error, "name", run->error.name);
    add_text(error, "message", run->error.message);
    add_text(error, "step", step != NULL ? step : run->error.step);
    json_object_object_add(error, "retryable", json_object_new_boolean(!run->error.permanent));
    return error;
}

/* What durable calls share. */

dj_status run_may_call(dj_run *run) {
    if (run->handed_up) {
        return dj_fail(DJ_SUSPENDED, "the run is suspended; the handler has to return");
    }
    if (dj_run_cancelled(run)) {
        return fail_lost(run);
    }
    if (atomic_load(&run->watch.until_ms) == WATCH_LATE) {
        return dj_fail(DJ_LEASE_LOST, "a step of run %s came back after its timeout", run->id_text);
    }
    if (run->in_step) {
        return dj_fail(DJ_NOT_ALLOWED, "a durable call inside of a step is not allowed; make it in "
                                       "the handler, before or after the step");
    }
    if (run->done) {
        return dj_fail(DJ_NOT_ALLOWED, "a durable call after dj_complete is not allowed");
    }
    return DJ_OK;
}

dj_status run_own(dj_run *run, json_object *object) {
    if (object == NULL) {
        return DJ_OK;
    }
    if (run->objects == NULL) {
        run->objects = json_object_new_array();
    }
    if (run->objects == NULL || json_object_array_add(run->objects, object) != 0) {
        json_object_put(object);
        return dj_fail(DJ_NO_MEMORY, "no memory for a result");
    }
    return DJ_OK;
}

dj_status run_print(dj_run *run, json_object *detail, char **ret_text) {
    (void)run;
    const char *text = json_object_to_json_string_ext(detail, JSON_C_TO_STRING_PLAIN);
    *ret_text = text == NULL ? NULL : strdup(text);
    json_object_put(detail);
    return *ret_text == NULL ? dj_fail(DJ_NO_MEMORY, "no memory to say what the run came to")
                             : DJ_OK;
}

dj_status run_leave(dj_run *run, const char *op, json_object *detail) {
    json_object_object_add(detail, "bytes", json_object_new_int64(run->bytes));
    char *text;
    DJ_TRY(run_print(run, detail, &text));
    free(run->result);
    run->result = text;
    run->kind = op;
    run->op = OP_OTHER;
    run->handed_up = true;
    return dj_fail(DJ_SUSPENDED, "the run is suspended; the handler has to return");
}

static json_object *failure_detail(const dj_run *run, const char *step) {
    json_object *detail = json_object_new_object();
    json_object_object_add(detail, "error", run_error_json(run, step));
    if (run->error.permanent) {
        json_object_object_add(detail, "permanent", json_object_new_boolean(1));
    }
    if (run->error.retry_after_ms >= 0) {
        json_object_object_add(detail, "retryAfterMs",
                               json_object_new_int64(run->error.retry_after_ms));
    }
    return detail;
}

dj_status run_refuse(dj_run *run, dj_status status, const char *error_name, const char *step) {
    char message[1024];
    (void)snprintf(message, sizeof message, "%s", dj_error_message());
    (void)run_error_setf(run, error_name, true, "%s", message);
    if (run_leave(run, "fail", failure_detail(run, step)) == DJ_NO_MEMORY) {
        return DJ_NO_MEMORY;
    }
    return dj_fail(status, "%s", message);
}

/* The words are no_place_left's, in 28_branch.sql. */
static dj_status refuse_place(dj_run *run, const char *name, int place) {
    dj_status status = dj_fail(DJ_TOO_LARGE,
                               "step %s is number %d; the limit is %d steps a run: let one step do "
                               "more, or a run of its own do the rest",
                               name, place, STEPS_MAX);
    return run_refuse(run, status, "TooManySteps", name);
}

dj_status run_need_places(dj_run *run, const char *name, int places) {
    DJ_TRY(run_may_call(run));
    if (run->replay.position + places > STEPS_MAX) {
        return refuse_place(run, name, run->replay.position + places);
    }
    return DJ_OK;
}

dj_status run_recall(dj_run *run, const char *name, const char *kind, const char **ret_name,
                     const struct memory **ret_memory) {
    DJ_TRY(run_may_call(run));
    if (worker_is_draining(run->worker)) {
        return run_leave(run, "yield",
                         json_object_new_object()); /* another worker goes on from here */
    }
    DJ_TRY(check_name("name", name));
    DJ_TRY(replay_name(&run->replay, &run->arena, name, ret_name));
    const struct memory *memory = NULL;
    *ret_memory = NULL;
    switch (replay_next(&run->replay, *ret_name, kind, &memory)) {
    case REPLAY_REMEMBERED:
        *ret_memory = memory;
        return DJ_OK;
    case REPLAY_OUT_OF_PLACE: {
        json_object *detail = json_object_new_object();
        add_text(detail, "step", memory->name);
        add_text(detail, "expected", memory->name);
        add_text(detail, "found", *ret_name);
        add_text(detail, "version", run->job->version);
        return run_leave(run, "park", detail);
    }
    case REPLAY_NEW:
        return run->replay.position > STEPS_MAX ? refuse_place(run, *ret_name, run->replay.position)
                                                : DJ_OK;
    }
    return dj_fail(DJ_INTERNAL, "replay answered what it cannot");
}

static dj_status give_error(dj_run *run, const struct memory *memory) {
    json_object *error;
    DJ_TRY(json_read(memory->error, strlen(memory->error), &error));
    DJ_TRY(run_own(run, error));
    const char *message = json_object_get_string(json_object_object_get(error, "message"));
    (void)run_error_setf(run, "Error", false, "%s", message == NULL ? "the step failed" : message);
    run->error.step = strdup(memory->name);
    return DJ_FAILED;
}

dj_status run_give(dj_run *run, const struct memory *memory, json_object **ret_result) {
    if (memory->error != NULL) {
        return give_error(run, memory);
    }
    json_object *result = NULL;
    if (ret_result != NULL && memory->result != NULL) {
        DJ_TRY(json_read(memory->result, strlen(memory->result), &result));
        DJ_TRY(run_own(run, result));
    }
    if (ret_result != NULL) {
        *ret_result = result;
    }
    return DJ_OK;
}

/* Leaves the handler's stack with something for the loop to do, and comes back when it is done. */
static dj_status run_park(dj_run *run, enum op_kind op) {
    run->op = op;
    fiber_park(run->fiber);
    run->op = OP_NONE;
    free(run->result);
    free(run->step_error);
    run->result = run->step_error = NULL;
    if (run->verdict != DJ_OK) {
        return fail_lost(run);
    }
    return DJ_OK;
}

int64_t history_bytes(const char *text) {
    return text == NULL ? 0 : (int64_t)json_stored_length(text, strlen(text));
}

dj_status run_commit_step(dj_run *run, const char *name, const char *kind, char *result,
                          char *step_error, int64_t elapsed_us) {
    run->position = run->replay.position;
    run->name = name;
    run->kind = kind;
    run->result = result;
    run->step_error = step_error;
    run->elapsed_us = elapsed_us;
    run->bytes += history_bytes(result) + history_bytes(step_error);
    return run_park(run, OP_STEP);
}

dj_status run_prove_lease(dj_run *run) {
    if (worker_is_sure(run->worker)) {
        return DJ_OK;
    }
    return run_park(run, OP_ASK);
}

static dj_status log_add(dj_run *run, dj_level level, const char *text, size_t length,
                         size_t room) {
    struct log_line *line = malloc(sizeof *line + room + 1);
    if (line == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a line of the log");
    }
    line->level = level;
    line->at_us = clock_us();
    memcpy(line->text, text, length);
    line->text[length] = '\0';
    list_push(&run->logs, &line->link);
    return DJ_OK;
}

/* From the first line for which there is no room until the next commit: the last one says how many.
 */
static dj_status log_drop(dj_run *run) {
    char text[128];
    (void)snprintf(text, sizeof text,
                   "%d lines of the log were dropped; the limit between two commits is %d lines "
                   "and %d bytes",
                   run->logs_dropped + 1, LOG_LINES_MAX, LOG_BYTES_MAX);
    if (run->logs_dropped == 0) {
        DJ_TRY(log_add(run, DJ_WARNING, text, strlen(text), sizeof text));
    } else {
        struct log_line *last = list_item(run->logs.prev, struct log_line, link);
        memcpy(last->text, text, sizeof text);
    }
    run->logs_dropped++;
    return DJ_OK;
}

dj_status dj_log(dj_run *run, dj_level level, const char *format, ...) {
    if (run->replay.next < run->replay.step_count) {
        return DJ_OK; /* said before: the handler is only on its way back to where it was */
    }
    if (run->logs_dropped > 0 || run->logs_count >= LOG_LINES_MAX) {
        return log_drop(run);
    }
    char text[LOG_LINE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = strlen(text);
    while (length > 0 && !text_is_utf8(text, length)) {
        length--;
    }
    if (run->logs_bytes + length > LOG_BYTES_MAX) {
        return log_drop(run);
    }
    DJ_TRY(log_add(run, level, text, length, length));
    run->logs_count++;
    run->logs_bytes += length;
    return DJ_OK;
}

dj_status dj_complete(dj_run *run, json_object *result) {
    struct buf text;
    buf_init(&text, PAYLOAD_BYTES_MAX + 1);
    dj_status status = run_may_call(run);
    if (status == DJ_OK && result != NULL) {
        status = json_print("result", result, PAYLOAD_BYTES_MAX, &text);
        if (status == DJ_TOO_LARGE || status == DJ_INVALID_ARGUMENT) {
            status = run_refuse(run, status, "ResultRefused", NULL);
        }
    }
    json_object_put(result);
    if (status == DJ_OK) {
        free(run->result);
        run->result = result == NULL ? NULL : buf_take(&text);
        run->done = true;
    }
    buf_done(&text);
    return status;
}

/* The handler from its first line to its last. */

/* Decides what the handler has come to. */
static void run_settle(dj_run *run, dj_status status) {
    if (atomic_load(&run->watch.until_ms) == WATCH_LATE || dj_run_cancelled(run) ||
        run->verdict != DJ_OK) {
        run->op = OP_NONE; /* the loop has said or will say what becomes of it */
        return;
    }
    if (run->handed_up) {
        run->op = OP_OTHER;
        return;
    }
    if (status == DJ_OK) {
        if (!run->done) {
            free(run->result);
            run->result = NULL;
        }
        run->op = OP_DONE;
        return;
    }
    if (status != DJ_FAILED || !run->error.set) {
        run_error_from_status(run, status);
    }
    free(run->result);
    run->result = NULL;
    run->kind = "fail";
    run->op = OP_OTHER;
    if (run_print(run, failure_detail(run, NULL), &run->result) != DJ_OK) {
        run->result = strdup("{\"error\":{\"name\":\"Error\",\"message\":\"out of memory\"}}");
    }
}

static void run_handler(void *context) {
    dj_run *run = context;
    json_object *payload = NULL;
    dj_status status = json_read(run->payload, run->payload_length, &payload);
    if (status == DJ_OK) {
        status = run_own(run, payload);
    }
    if (status == DJ_OK) {
        status = run->job->handler(run, payload);
    }
    run_settle(run, status);
    json_object_put(run->objects);
    run->objects = NULL;
}

void run_execute(dj_run *run) {
    dj_status status = DJ_OK;
    if (run->fiber == NULL) {
        status = fiber_new(&run->fiber);
        if (status == DJ_OK) {
            run->fiber->enter = run_handler;
            run->fiber->argument = run;
        }
        run->begun = true;
    }
    crash_note_run(run);
    if (status != DJ_OK) {
        run_settle(run, status);
    } else if (fiber_run(run->fiber)) {
        fiber_free(run->fiber);
        run->fiber = NULL;
    }
    crash_note_run(NULL);
    worker_post(run->worker, run);
}

void run_logs_clear(dj_run *run) {
    while (!list_is_empty(&run->logs)) {
        struct log_line *line = list_first(&run->logs, struct log_line, link);
        list_remove(&line->link);
        free(line);
    }
    run->logs_count = run->logs_dropped = 0;
    run->logs_bytes = 0;
}

void run_free(dj_run *run) {
    assert(run->fiber == NULL);
    run_error_clear(run);
    replay_done(&run->replay);
    run_logs_clear(run);
    free(run->result);
    free(run->step_error);
    free(run->watch.detail);
    struct arena arena = run->arena; /* the run lies in it */
    arena_done(&arena);
}
