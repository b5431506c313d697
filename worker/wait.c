/* Waits and sleeps: the run leaves this worker, and PostgreSQL keeps what it waits for. When it
 * comes back, to any worker, what it waited for is remembered as a step. */
#include "worker/run.h"

#include "common/duration.h"
#include "common/rfc3339.h"
#include "common/text.h"

static json_object *wait_detail(const dj_run *run, const char *name) {
    json_object *detail = json_object_new_object();
    json_object_object_add(detail, "position", json_object_new_int(run->replay.position));
    json_object_object_add(detail, "name", json_object_new_string(name));
    return detail;
}

dj_status dj_wait_for_event(dj_run *run, const char *event, const dj_wait *wait,
                            json_object **ret_event) {
    static const char *const on_timeout[] = { "fail", "continue", "cancel" };
    const dj_wait defaults = { .name = NULL };
    if (wait == NULL) {
        wait = &defaults;
    }
    DJ_TRY(check_name("event", event));
    if (wait->correlation_key != NULL) {
        DJ_TRY(check_key("correlation_key", wait->correlation_key));
    }
    if ((unsigned int)wait->on_timeout > DJ_TIMEOUT_CANCEL) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "on_timeout %d is not known; DJ_TIMEOUT_FAIL, _CONTINUE "
                       "and _CANCEL are allowed",
                       (int)wait->on_timeout);
    }
    int64_t timeout_ms = 0;
    if (wait->timeout != NULL) {
        DJ_TRY(duration_parse("timeout", wait->timeout, &timeout_ms));
    }
    const struct memory *memory;
    const char *name;
    DJ_TRY(run_recall(run, wait->name != NULL ? wait->name : event, "wait_event", &name, &memory));
    if (memory != NULL) {
        return run_give(run, memory, ret_event);
    }
    json_object *detail = wait_detail(run, name);
    json_object_object_add(detail, "event", json_object_new_string(event));
    json_object_object_add(detail, "onTimeout",
                           json_object_new_string(on_timeout[wait->on_timeout]));
    if (wait->correlation_key != NULL) {
        json_object_object_add(detail, "key", json_object_new_string(wait->correlation_key));
    }
    if (wait->timeout != NULL) {
        json_object_object_add(detail, "timeoutMs", json_object_new_int64(timeout_ms));
    }
    return run_leave(run, "wait", detail);
}

/* `field` of the detail says for how long, or until when. */
static dj_status run_sleep(dj_run *run, const char *name, const char *field, int64_t value) {
    const struct memory *memory;
    const char *full_name;
    DJ_TRY(run_recall(run, name != NULL ? name : "sleep", "sleep", &full_name, &memory));
    if (memory != NULL) {
        return run_give(run, memory, NULL);
    }
    json_object *detail = wait_detail(run, full_name);
    json_object_object_add(detail, field, json_object_new_int64(value));
    return run_leave(run, "sleep", detail);
}

dj_status dj_sleep(dj_run *run, const char *name, const char *duration) {
    int64_t ms;
    DJ_TRY(duration_parse("duration", duration, &ms));
    return run_sleep(run, name, "ms", ms);
}

dj_status dj_sleep_until(dj_run *run, const char *name, const char *time) {
    int64_t us;
    DJ_TRY(rfc3339_parse("time", time, &us));
    return run_sleep(run, name, "untilUs", us);
}
