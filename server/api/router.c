/* The table of routes. openapi.json says the same to clients; a test holds the two together. */
#include "server/api/api.h"

#include "common/check.h"
#include <string.h>

#define PARTS_MAX 8

const struct route routes[] = {
    { "GET", "/healthz", SCOPE_NONE, health_live, 0 },
    { "GET", "/readyz", SCOPE_NONE, health_ready, 0 },
    { "GET", "/metrics", SCOPE_NONE, health_metrics, 0 },
    { "GET", "/openapi.json", SCOPE_NONE, health_openapi, 0 },

    { "POST", "/v1/runs", SCOPE_START, runs_start, REQUEST_BYTES_MAX },
    { "GET", "/v1/runs", SCOPE_READ, runs_list, 0 },
    { "POST", "/v1/runs/batch", SCOPE_START, runs_start_batch, BATCH_BYTES_MAX },
    { "POST", "/v1/runs/retry", SCOPE_OPERATE, runs_bulk_retry, REQUEST_BYTES_MAX },
    { "POST", "/v1/runs/cancel", SCOPE_OPERATE, runs_bulk_cancel, REQUEST_BYTES_MAX },
    { "GET", "/v1/runs/{id}", SCOPE_READ, runs_get, 0 },
    { "GET", "/v1/runs/{id}/timeline", SCOPE_READ, runs_timeline, 0 },
    { "GET", "/v1/runs/{id}/steps", SCOPE_READ, runs_steps, 0 },
    { "GET", "/v1/runs/{id}/attempts", SCOPE_READ, runs_attempts, 0 },
    { "GET", "/v1/runs/{id}/logs", SCOPE_READ, runs_logs, 0 },
    { "GET", "/v1/runs/{id}/why", SCOPE_READ, runs_why, 0 },
    { "GET", "/v1/runs/{id}/diff", SCOPE_READ, NULL, 0 },
    { "GET", "/v1/runs/{id}/result", SCOPE_READ, wait_result, 0 },
    { "GET", "/v1/runs/{id}/stream", SCOPE_READ, wait_stream, 0 },
    { "POST", "/v1/runs/{id}/cancel", SCOPE_OPERATE, runs_cancel, REQUEST_BYTES_MAX },
    { "POST", "/v1/runs/{id}/retry", SCOPE_OPERATE, runs_retry, REQUEST_BYTES_MAX },
    { "POST", "/v1/runs/{id}/reschedule", SCOPE_OPERATE, runs_reschedule, REQUEST_BYTES_MAX },
    { "POST", "/v1/runs/{id}/fork", SCOPE_OPERATE, NULL, REQUEST_BYTES_MAX },
    { "DELETE", "/v1/idempotency-keys/{key}", SCOPE_ADMIN, runs_release_key, 0 },

    { "POST", "/v1/events", SCOPE_START, events_send, REQUEST_BYTES_MAX },

    { "GET", "/v1/state/{key}", SCOPE_READ, state_get, 0 },
    { "PUT", "/v1/state/{key}", SCOPE_START, state_set, REQUEST_BYTES_MAX },
    { "DELETE", "/v1/state/{key}", SCOPE_START, state_delete, 0 },
    { "POST", "/v1/state/{key}/increment", SCOPE_START, state_increment, REQUEST_BYTES_MAX },
    { "POST", "/v1/state/{key}/lock", SCOPE_START, state_lock, REQUEST_BYTES_MAX },
    { "POST", "/v1/state/{key}/unlock", SCOPE_START, state_unlock, REQUEST_BYTES_MAX },

    { "GET", "/v1/queues", SCOPE_READ, queues_list, 0 },
    { "PUT", "/v1/queues/{name}", SCOPE_OPERATE, queues_set, REQUEST_BYTES_MAX },
    { "POST", "/v1/queues/{name}/pause", SCOPE_OPERATE, queues_pause, REQUEST_BYTES_MAX },
    { "POST", "/v1/queues/{name}/resume", SCOPE_OPERATE, queues_resume, REQUEST_BYTES_MAX },
    { "POST", "/v1/queues/{name}/redrive", SCOPE_OPERATE, NULL, REQUEST_BYTES_MAX },

    { "GET", "/v1/schedules", SCOPE_READ, NULL, 0 },
    { "PUT", "/v1/schedules/{name}", SCOPE_OPERATE, NULL, REQUEST_BYTES_MAX },
    { "DELETE", "/v1/schedules/{name}", SCOPE_OPERATE, NULL, 0 },
    { "POST", "/v1/schedules/{name}/trigger", SCOPE_OPERATE, NULL, REQUEST_BYTES_MAX },

    { "GET", "/v1/endpoints", SCOPE_READ, NULL, 0 },
    { "GET", "/v1/endpoints/{name}", SCOPE_READ, NULL, 0 },
    { "PUT", "/v1/endpoints/{name}", SCOPE_ADMIN, NULL, REQUEST_BYTES_MAX },
    { "DELETE", "/v1/endpoints/{name}", SCOPE_ADMIN, NULL, 0 },
    { "POST", "/v1/endpoints/{name}/sync", SCOPE_ADMIN, NULL, REQUEST_BYTES_MAX },
    { "POST", "/v1/endpoints/{name}/rotate-secret", SCOPE_ADMIN, NULL, REQUEST_BYTES_MAX },
    { "POST", "/v1/endpoints/{name}/pause", SCOPE_ADMIN, NULL, REQUEST_BYTES_MAX },
    { "POST", "/v1/endpoints/{name}/resume", SCOPE_ADMIN, NULL, REQUEST_BYTES_MAX },

    { "GET", "/v1/workers", SCOPE_READ, workers_list, 0 },
    { "GET", "/v1/stats", SCOPE_READ, NULL, 0 },
    { "GET", "/v1/storage", SCOPE_READ, NULL, 0 },
};
const int route_count = sizeof routes / sizeof *routes;
static_assert(sizeof routes / sizeof *routes <= ROUTES_MAX, "counters for each");

struct parts {
    char *part[PARTS_MAX];
    int count;
};

/* Does the pattern fit? Then `args` are the parts that stand in braces. */
static bool fits(const char *pattern, const struct parts *parts, char *args[HTTP_ARGS_MAX]) {
    int arg = 0;
    for (int i = 0; i < parts->count; i++) {
        if (*pattern != '/') {
            return false;
        }
        pattern++;
        size_t length = strcspn(pattern, "/");
        if (*pattern == '{') {
            if (parts->part[i][0] == '\0') {
                return false;
            }
            args[arg++] = parts->part[i];
        } else if (strncmp(pattern, parts->part[i], length) != 0 ||
                   parts->part[i][length] != '\0') {
            return false;
        }
        pattern += length;
    }
    return *pattern == '\0';
}

dj_status route_find(struct api *api, struct http_request *request) {
    struct parts parts = { .count = 0 };
    struct buf allow;
    for (char *at = request->path; *at == '/' && parts.count < PARTS_MAX; at += strcspn(at, "/")) {
        *at++ = '\0';
        parts.part[parts.count++] = at;
    }
    if (parts.count == PARTS_MAX) {
        parts.count = 0;
    }
    for (int i = 0; i < parts.count; i++) {
        dj_status status = url_decode("the path", parts.part[i], /* plus= */ false);
        if (status != DJ_OK) {
            problem_reply_status(api, request, status, dj_error_message());
            return status;
        }
    }
    buf_init(&allow, 256);
    dj_status added = buf_add_text(&allow, "Allow: ");
    size_t none = allow.length;
    for (int i = 0; i < route_count; i++) {
        if (parts.count == 0 || !fits(routes[i].pattern, &parts, request->args)) {
            continue;
        }
        if (strcmp(routes[i].method, request->method) == 0) {
            request->route = &routes[i];
            buf_done(&allow);
            return DJ_OK;
        }
        if (added == DJ_OK) {
            added = buf_addf(&allow, "%s%s", allow.length > none ? ", " : "", routes[i].method);
        }
    }
    if (allow.length > none && buf_add_text(&allow, "\r\n") == DJ_OK) {
        problem_reply(api, request, PROBLEM_METHOD_NOT_ALLOWED, allow.data,
                      "this path does not know the method %s", request->method);
    } else {
        problem_reply(api, request, PROBLEM_NOT_FOUND, "", "there is nothing at this path");
    }
    buf_done(&allow);
    return DJ_NOT_FOUND;
}

void route_run(struct api *api, struct http_request *request) {
    if (request->route->run != NULL) {
        request->route->run(api, request);
        return;
    }
    problem_reply(api, request, PROBLEM_NOT_IMPLEMENTED, "", "%s %s is not available yet",
                  request->route->method, request->route->pattern);
}
