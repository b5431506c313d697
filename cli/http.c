#include "cli/http.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/check.h"
#include "common/json.h"
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER_MS 60000
#define SERVER_BYTES_MAX (64 * 1024 * 1024)
#define SERVER_URL_BYTES_MAX (16 * 1024)

struct waiting {
    struct event_base *base;
    struct http_answer *answer;
};

/* The answer is kept beyond its callback. */
static void on_done(void *context, struct http_answer *answer) {
    struct waiting *waiting = context;
    *waiting->answer = *answer;
    waiting->answer->reason = answer->reason == NULL ? NULL : strdup(answer->reason);
    buf_init(&answer->body, 0);
    (void)event_base_loopbreak(waiting->base);
}

dj_status http_wait(http_begin_fn begin, void *context, struct http_answer *ret_answer) {
    struct http_client *client;
    struct waiting waiting = { .base = event_base_new(), .answer = ret_answer };
    check(waiting.base != NULL);
    *ret_answer = (struct http_answer){ .outcome = HTTP_NOT_REACHED };
    dj_status status = http_client_new(waiting.base, &client);
    if (status == DJ_OK) {
        status = begin(context, client, on_done, &waiting);
        if (status == DJ_OK) {
            (void)event_base_dispatch(waiting.base);
        }
        http_client_free(client);
    }
    event_base_free(waiting.base);
    return status;
}

void http_answer_done(struct http_answer *answer) {
    free((char *)answer->reason);
    buf_done(&answer->body);
}

struct calling {
    const struct server *server;
    const char *method, *path, *body;
};

static dj_status begin_call(void *context, struct http_client *client, http_done_fn done,
                            void *done_context) {
    const struct calling *calling = context;
    AUTO(buf) struct buf url;
    AUTO(buf) struct buf key;
    struct http_call *call;
    size_t length = strlen(calling->server->url);
    while (length > 0 && calling->server->url[length - 1] == '/') {
        length--;
    }
    buf_init(&url, SERVER_URL_BYTES_MAX);
    buf_init(&key, SERVER_URL_BYTES_MAX);
    DJ_TRY(buf_add(&url, calling->server->url, length));
    DJ_TRY(buf_add_text(&url, calling->path));
    DJ_TRY(buf_addf(&key, "authorization: Bearer %s", calling->server->api_key));
    struct http_request_out request = {
        .method = calling->method,
        .url = url.data,
        .headers = { key.data, "accept: application/json", "content-type: application/json" },
        .header_count = 3,
        .body = calling->body == NULL ? NULL : strdup(calling->body),
        .body_length = calling->body == NULL ? 0 : strlen(calling->body),
        .timeout_ms = SERVER_MS,
        .answer_bytes_max = SERVER_BYTES_MAX,
        .allow_private = true,
    };
    return http_client_send(client, &request, done, done_context, &call);
}

/* What the codes of docs/http.md are here; any other is a mistake of the server's. */
static const struct {
    const char *code;
    dj_status status;
} codes[] = {
    { "invalid_argument", DJ_INVALID_ARGUMENT },
    { "idempotency_conflict", DJ_IDEMPOTENCY_CONFLICT },
    { "not_found", DJ_NOT_FOUND },
    { "payload_too_large", DJ_TOO_LARGE },
    { "uri_too_long", DJ_TOO_LARGE },
    { "unauthorized", DJ_NOT_ALLOWED },
    { "forbidden", DJ_NOT_ALLOWED },
    { "conflict", DJ_NOT_ALLOWED },
    { "not_implemented", DJ_NOT_ALLOWED },
    { "rate_limited", DJ_UNAVAILABLE },
    { "unavailable", DJ_UNAVAILABLE },
    { "timeout", DJ_UNAVAILABLE },
};

/* Something else answered: a proxy whose server is away, or a server of another kind. */
static dj_status fail_foreign(const struct server *server, int http) {
    bool away = http == 502 || http == 503 || http == 504;
    return dj_fail(
        away ? DJ_UNAVAILABLE : DJ_INTERNAL,
        "%s answered %d, and not as durable-server does; DURABLE_URL or --url is to name one",
        server->url, http);
}

/* The problem's own words; who is not let in is told what to do. */
static dj_status fail_problem(const struct server *server, const struct http_answer *answer) {
    AUTO(json) json_object *problem = NULL;
    const char *detail = NULL, *code = NULL;
    dj_status status = DJ_INTERNAL;
    if (answer->body.data == NULL ||
        json_parse("the answer", answer->body.data, answer->body.length, SERVER_BYTES_MAX,
                   &problem) != DJ_OK ||
        json_get_string(problem, "detail", &detail) != DJ_OK || detail == NULL ||
        json_get_string(problem, "code", &code) != DJ_OK || code == NULL) {
        return fail_foreign(server, answer->status);
    }
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        status = strcmp(codes[i].code, code) == 0 ? codes[i].status : status;
    }
    if (answer->status == 401) {
        return dj_fail(status, "%s. DURABLE_API_KEY is to be a key that `durable keys create` made",
                       detail);
    }
    return dj_fail(status, "%s", detail);
}

dj_status server_call(const struct server *server, const char *method, const char *path,
                      const char *body, char **ret_text) {
    struct http_answer answer;
    struct calling calling = { server, method, path, body };
    if (server->api_key == NULL || server->api_key[0] == '\0') {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "no API key for %s; DURABLE_API_KEY is to be one that `durable keys create` "
                       "made",
                       server->url);
    }
    DJ_TRY(http_wait(begin_call, &calling, &answer));
    dj_status status = DJ_OK;
    if (answer.outcome != HTTP_ANSWERED) {
        status = dj_fail(DJ_UNAVAILABLE,
                         "%s: %s; is durable-server up there? DURABLE_URL or --url names it",
                         server->url, answer.reason == NULL ? "no answer" : answer.reason);
    } else if (answer.status >= 300) {
        status = fail_problem(server, &answer);
    } else if (answer.body.data == NULL ||
               json_check_inside("the answer", answer.body.data, answer.body.length,
                                 SERVER_BYTES_MAX, JSON_OUTER_DEPTH_MAX) != DJ_OK) {
        status = fail_foreign(server, answer.status);
    } else {
        *ret_text = buf_take(&answer.body);
        check(*ret_text != NULL);
    }
    http_answer_done(&answer);
    return status;
}
