/* What machines ask of the server itself: is it alive, can it work, what has it done, what does it
 * offer. Without a key, and without the database. */
#include "server/api/api.h"

#include "common/check.h"
#include "server/api/openapi.h"
#include <string.h>

void health_live(struct api *api, struct http_request *request) {
    api_reply_json(api, request, 200, "{\"status\":\"ok\"}", 15);
}

void health_ready(struct api *api, struct http_request *request) {
    if (http_server_is_draining(api->http)) {
        problem_reply(api, request, PROBLEM_UNAVAILABLE, "", "the server is draining");
    } else if (!database_is_up(api->database)) {
        problem_reply(api, request, PROBLEM_UNAVAILABLE, "", "the database cannot be reached");
    } else {
        api_reply_json(api, request, 200, "{\"status\":\"ready\"}", 18);
    }
}

void health_openapi(struct api *api, struct http_request *request) {
    api_reply_json(api, request, 200, openapi[0].text, strlen(openapi[0].text));
}

static dj_status metrics_print(const struct api *api, struct buf *out) {
    DJ_TRY(buf_add_text(out, "# HELP durable_http_requests_total Requests answered.\n"
                             "# TYPE durable_http_requests_total counter\n"));
    for (int i = 0; i <= ROUTES_MAX; i++) {
        for (int class = 1; class < 6; class ++) {
            if (api->answered[i][class] > 0) {
                DJ_TRY(buf_addf(out,
                                "durable_http_requests_total{method=\"%s\",route=\"%s\",status="
                                "\"%dxx\"} %lld\n",
                                i < route_count ? routes[i].method : "",
                                i < route_count ? routes[i].pattern : "", class,
                                api->answered[i][class]));
            }
        }
    }
    DJ_TRY(buf_addf(out,
                    "# HELP durable_runs_started_total Runs that this server has started.\n"
                    "# TYPE durable_runs_started_total counter\n"
                    "durable_runs_started_total %lld\n",
                    api->runs_started));
    return buf_addf(out,
                    "# HELP durable_http_connections Connections that are open.\n"
                    "# TYPE durable_http_connections gauge\n"
                    "durable_http_connections %d\n"
                    "# HELP durable_database_up 1 while a connection to the database is up.\n"
                    "# TYPE durable_database_up gauge\n"
                    "durable_database_up %d\n",
                    http_server_connections(api->http), database_is_up(api->database) ? 1 : 0);
}

void health_metrics(struct api *api, struct http_request *request) {
    struct buf out;
    buf_init(&out, 1024 * 1024);
    check(metrics_print(api, &out) == DJ_OK);
    api_reply(api, request, 200, "text/plain; version=0.0.4", "", out.data, out.length);
    buf_done(&out);
}
