/* The server put together: its parts are opened, and what HTTP has read is led to the routes. */
#include "server/api/api.h"

#include "common/http_client.h"
#include <string.h>

static struct api *served; /* the hooks know no other */

static dj_status on_head(struct http_request *request, size_t *ret_body_bytes_max) {
    DJ_TRY(route_find(served, request));
    *ret_body_bytes_max =
        request->route->body_bytes_max == 0 ? REQUEST_BYTES_MAX : request->route->body_bytes_max;
    request->known = request->route->scope != SCOPE_NONE || commits_know(served, request);
    return keys_check(served, request);
}

static void on_request(struct http_request *request) {
    route_run(served, request);
}

static bool on_gone(struct http_request *request) {
    return waits_forget(served, request);
}

static void on_notify(const char *channel) {
    if (strcmp(channel, "durable_ended") == 0) {
        waits_hint(served);
    } else {
        keys_forget(served);
        commits_look(served);
    }
}

/* Notifications may have been missed. */
static void on_up(void) {
    keys_forget(served);
    commits_look(served);
}

dj_status api_open(struct api *api, const struct api_settings *settings) {
    static const struct http_hooks hooks = { .on_head = on_head,
                                             .on_request = on_request,
                                             .on_gone = on_gone,
                                             .on_refused = problem_write };
    served = api;
    DJ_TRY(http_server_open(api->base, &settings->limits, &hooks, &api->http));
    if (settings->listen[0] != '\0') {
        DJ_TRY(http_server_listen(api->http, settings->listen));
    }
    if (settings->unix_path != NULL) {
        DJ_TRY(http_server_listen_unix(api->http, settings->unix_path));
    }
    DJ_TRY(database_open(api->base, settings->conninfo, settings->connections, &api->database));
    keys_open(api, settings->rate_limit, settings->bad_keys);
    starts_open(api);
    commits_open(api);
    api->allow_private = settings->allow_private && !settings->forbid_private;
    api->forbid_private = settings->forbid_private;
    DJ_TRY(http_client_new(api->base, &api->http_client));
    if (api->forbid_private) {
        http_client_forbid_private(api->http_client);
    }
    waits_open(api);
    database_on_notify(api->database, on_notify, on_up);
    return DJ_OK;
}
