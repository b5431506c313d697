/* Commands over HTTP: one request to durable-server, waited for. */
#ifndef CLI_HTTP_H
#define CLI_HTTP_H

#include "common/http_client.h"
#include "common/status.h"

/** Begins one request on `client`, as http_client_send does. */
typedef dj_status (*http_begin_fn)(void *context, struct http_client *client, http_done_fn done,
                                   void *done_context);

/** Sends what `begin` begins, and waits. `*ret_answer` is yours: http_answer_done(). */
MUST_CHECK dj_status http_wait(http_begin_fn begin, void *context, struct http_answer *ret_answer);
void http_answer_done(struct http_answer *answer);

struct server {
    const char *url; /* "http://127.0.0.1:7070" */
    const char *api_key;
};

/** Calls a route, such as "/v1/endpoints"; `body` may be NULL. `*ret_text` is the answer's JSON,
 * yours (free). A problem that the server answers is a failure with its words. */
MUST_CHECK dj_status server_call(const struct server *server, const char *method, const char *path,
                                 const char *body, char **ret_text);

#endif
