/* Waits and sleeps: the run leaves this worker, and PostgreSQL keeps what it waits for. When it
 * comes back, to any worker, what it waited for is remembered as a step. */
#include "worker/run.h"

#include "common/bounds.h"
#include "common/duration.h"
#include "common/rfc3339.h"
#include "common/text.h"

static void add_event(json_object *object, const dj_event_key *event) {
    json_object_object_add(object, "event", json_object_new_string(event->event));
    if (event->correlation_key != NULL) {
        json_object_object_add(object, "key", json_object_new_string(event->correlation_key));
    }
}

static json_object *wait_detail(const dj_run *run, const char *name) {
    json_object *detail = json_object_new_object();
    json_object_object_add(detail, "position", json_object_new_int(run->replay.position));
    json_object_object_add(detail, "name", json_object_new_string(name));
    return detail;
}

/* `kind` is wait_event for one event, wait_any for several, child for a child's end. */
dj_status run_wait(dj_run *run, const char *kind, const dj_event_key *events, size_t count,
                   const dj_wait *wait, json_object **ret_event) {
    static const char *const on_timeout[] = { "fail", "continue", "cancel" };
    const dj_wait defaults = { .name = NULL };
    if (wait == NULL) {
        wait = &defaults;
    }
    for (size_t i = 0; i < count; i++) {
        if (events[i].correlation_key != NULL) {
            DJ_TRY(check_key("correlation_key", events[i].correlation_key));
        }
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
    DJ_TRY(
        run_recall(run, wait->name != NULL ? wait->name : events[0].event, kind, &name, &memory));
    if (memory != NULL) {
        return run_give(run, memory, ret_event);
    }
    json_object *detail = wait_detail(run, name);
    add_event(detail, &events[0]);
    if (count > 1) {
        json_object *others = json_object_new_array_ext((int)count - 1);
        for (size_t i = 1; i < count; i++) {
            json_object *other = json_object_new_object();
            add_event(other, &events[i]);
            json_object_array_add(others, other);
        }
        json_object_object_add(detail, "others", others);
    }
    json_object_object_add(detail, "onTimeout",
                           json_object_new_string(on_timeout[wait->on_timeout]));
    if (wait->timeout != NULL) {
        json_object_object_add(detail, "timeoutMs", json_object_new_int64(timeout_ms));
    }
    return run_leave(run, "wait", detail);
}

dj_status dj_wait_for_event(dj_run *run, const char *event, const dj_wait *wait,
                            json_object **ret_event) {
    DJ_TRY(check_name("event", event));
    dj_event_key one = { .event = event,
                         .correlation_key = wait == NULL ? NULL : wait->correlation_key };
    return run_wait(run, "wait_event", &one, 1, wait, ret_event);
}

dj_status dj_wait_for_any(dj_run *run, const dj_event_key *events, size_t count,
                          const dj_wait *wait, json_object **ret_event) {
    for (size_t i = 0; i < count; i++) {
        DJ_TRY(check_name("event", events[i].event));
    }
    if (count < 2 || count > WAIT_EVENTS_MAX) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%zu events are not allowed; 2 to %d are", count,
                       WAIT_EVENTS_MAX);
    }
    if (wait != NULL && wait->correlation_key != NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "correlation_key is not allowed here; each event has one");
    }
    return run_wait(run, "wait_any", events, count, wait, ret_event);
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
