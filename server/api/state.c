/* State: values, counters and locks of the key's namespace. The bodies are read in the database,
 * which knows what an action takes; here they are only known to be objects. */
#include "server/api/api.h"

static void state_send(struct api *api, struct http_request *request, const char *action) {
    struct json_walk walk;
    if (body_check(api, request) != DJ_OK) {
        return;
    }
    const char *args = request->body_length == 0 ? "{}" : request->body;
    dj_status status = json_walk_begin(&walk, "the body", args,
                                       request->body_length == 0 ? 2 : request->body_length, true);
    for (bool more = true; status == DJ_OK && more;) {
        struct json_slice key, value;
        status = json_walk_next(&walk, &more, &key, &value);
    }
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
        return;
    }
    struct work *work = work_new(&CALL_API_STATE, request->namespace_id);
    params_add_text(work_params(work), action);
    params_add_text(work_params(work), request->args[0]);
    params_add_jsonb(work_params(work), args);
    api_send(api, request, work, 200);
}

void state_get(struct api *api, struct http_request *request) {
    state_send(api, request, "get");
}

void state_set(struct api *api, struct http_request *request) {
    state_send(api, request, "set");
}

void state_delete(struct api *api, struct http_request *request) {
    state_send(api, request, "delete");
}

void state_increment(struct api *api, struct http_request *request) {
    state_send(api, request, "increment");
}

void state_lock(struct api *api, struct http_request *request) {
    state_send(api, request, "lock");
}

void state_unlock(struct api *api, struct http_request *request) {
    state_send(api, request, "unlock");
}
