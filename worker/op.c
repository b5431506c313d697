/* What a handler does beside its steps: state, events, children. Each is a step whose SQL is one
 * call of ours, on the connection and in the transaction of dj_step_tx: so it happens once, with
 * the step that remembers it. On the handler's thread. */
#include "worker/run.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_params.h"
#include "common/db_rows.h"
#include "common/json.h"
#include <stdio.h>
#include <string.h>

/* A step of dj_step_tx: `op` is its input, as docs/protocol.md has it. */
static dj_status op_call(dj_run *run, PGconn *conn, json_object *op, json_object **ret_result) {
    AUTO(buf) struct buf text;
    AUTO(pgresult) PGresult *rows = NULL;
    const char *answer;
    size_t length;
    buf_init(&text, PAYLOAD_BYTES_MAX + 4096);
    DJ_TRY(json_print("payload", op, PAYLOAD_BYTES_MAX + 4096, &text));
    struct db_params params;
    params_init(&params);
    params_add_uuid(&params, &run->id);
    params_add_jsonb(&params, text.data);
    dj_status status = db_exec(conn, &CALL_RUN_OP, &params, &rows);
    params_done(&params);
    DJ_TRY(status);
    DJ_TRY(rows_jsonb_text(rows, 0, 0, &answer, &length));
    return json_read(answer, length, ret_result);
}

static void add_text(json_object *object, const char *field, const char *text) {
    if (text != NULL) {
        json_object_object_add(object, field, json_object_new_string(text));
    }
}

static json_object *op_new(const char *op, const char *field, const char *value) {
    json_object *object = json_object_new_object();
    add_text(object, "op", op);
    add_text(object, field, value);
    return object;
}

/* Takes `op`. */
static dj_status op_run(dj_run *run, const char *name, json_object *given,
                        json_object **ret_result) {
    AUTO(json) json_object *op = given;
    return dj_step_tx(run, name, op_call, op, ret_result);
}

static dj_status state(dj_run *run, const char *action, const char *key, json_object *given,
                       json_object **ret_result) {
    char name[64];
    json_object *op = given;
    add_text(op, "action", action);
    add_text(op, "key", key);
    (void)snprintf(name, sizeof name, "state.%s", action);
    return op_run(run, name, op, ret_result);
}

dj_status dj_run_state_get(dj_run *run, const char *key, json_object **ret_value) {
    json_object *found;
    DJ_TRY(state(run, "get", key, op_new("state", NULL, NULL), &found));
    *ret_value = json_object_object_get(found, "value");
    return DJ_OK;
}

dj_status dj_run_state_set(dj_run *run, const char *key, json_object *value,
                           const char *expires_at) {
    json_object *op = op_new("state", "expiresAt", expires_at);
    json_object_object_add(op, "value", json_object_get(value));
    return state(run, "set", key, op, NULL);
}

dj_status dj_run_state_delete(dj_run *run, const char *key) {
    return state(run, "delete", key, op_new("state", NULL, NULL), NULL);
}

dj_status dj_run_state_increment(dj_run *run, const char *key, int64_t by, int64_t *ret_sum) {
    json_object *sum;
    json_object *op = op_new("state", NULL, NULL);
    json_object_object_add(op, "by", json_object_new_int64(by));
    DJ_TRY(state(run, "increment", key, op, &sum));
    if (ret_sum != NULL) {
        *ret_sum = json_object_get_int64(sum);
    }
    return DJ_OK;
}

dj_status dj_run_state_lock(dj_run *run, const char *key, const char *ttl, bool *ret_locked) {
    json_object *locked;
    DJ_TRY(state(run, "lock", key, op_new("state", "ttl", ttl), &locked));
    *ret_locked = json_object_get_boolean(locked) != 0;
    return DJ_OK;
}

dj_status dj_run_state_unlock(dj_run *run, const char *key) {
    return state(run, "unlock", key, op_new("state", NULL, NULL), NULL);
}

dj_status dj_run_send_event(dj_run *run, const char *event, json_object *payload,
                            const char *correlation_key) {
    char name[NAME_BYTES_MAX + 1];
    json_object *op = op_new("send_event", "event", event);
    add_text(op, "correlationKey", correlation_key);
    json_object_object_add(op, "payload",
                           payload == NULL ? json_object_new_object() : json_object_get(payload));
    (void)snprintf(name, sizeof name, "send:%s", event);
    return op_run(run, name, op, NULL);
}

/* Two things are remembered: that the child was started, and how it ended. A run that has no place
 * for the second starts none. */
dj_status dj_run_child(dj_run *run, const char *job, json_object *payload,
                       const dj_child_options *options, json_object **ret_result) {
    static const dj_child_options defaults;
    char start[NAME_BYTES_MAX + 1];
    const dj_child_options *o = options == NULL ? &defaults : options;
    const char *name = o->name == NULL ? job : o->name;
    DJ_TRY(run_need_places(run, name, 2));
    json_object *op = op_new("child", "job", job), *how = json_object_new_object(), *child;
    json_object_object_add(op, "payload",
                           payload == NULL ? json_object_new_object() : json_object_get(payload));
    add_text(how, "queueName", o->queue);
    add_text(how, "timeout", o->timeout);
    json_object_object_add(how, "priority", json_object_new_int(o->priority));
    if (o->max_attempts != 0) {
        json_object_object_add(how, "maxAttempts", json_object_new_int(o->max_attempts));
    }
    json_object_object_add(op, "options", how);
    (void)snprintf(start, sizeof start, "start:%s", name);
    DJ_TRY(op_run(run, start, op, &child));
    dj_event_key end = { .event = CHILD_EVENT, .correlation_key = json_object_get_string(child) };
    return run_wait(run, "child", &end, 1, &(dj_wait){ .name = name }, ret_result);
}
