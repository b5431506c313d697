/* The bytes that a handler's server says, as the worker reads them: over a socket, through our HTTP
 * client, up to the check of the answer; what is in its ops is read by the database (sql.c). A
 * server may say anything: each call ends, with an outcome that has its words, and what counts as
 * an answer is an object within the limits. */
#include "tests/fuzz/fuzz.h"

#include "common/auto.h"
#include "common/http_client.h"
#include "common/json.h"
#include "common/text.h"
#include "worker/endpoint_protocol.h"
#include <arpa/inet.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

static struct event_base *base;
static struct http_client *client;
static char url[64];
static const uint8_t *saying;
static size_t saying_bytes;
static bool ended;

/* Says it all at once, and closes. What is asked for is read, or closing would cut the answer off.
 */
static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int length, void *context) {
    static char asked[4096];
    (void)listener;
    (void)address;
    (void)length;
    (void)context;
    (void)recv(fd, asked, sizeof asked, MSG_DONTWAIT);
    (void)send(fd, saying, saying_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)shutdown(fd, SHUT_WR);
    while (recv(fd, asked, sizeof asked, MSG_DONTWAIT) > 0) {
    }
    (void)close(fd);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof address;
    (void)argc;
    (void)argv;
    (void)signal(SIGPIPE, SIG_IGN);
    base = event_base_new();
    struct evconnlistener *listener =
        evconnlistener_new_bind(base, on_accept, NULL, LEV_OPT_CLOSE_ON_EXEC, 64,
                                (const struct sockaddr *)&address, sizeof address);
    promise(listener != NULL && http_client_new(base, &client) == DJ_OK);
    promise(getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&address, &length) ==
            0);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/", ntohs(address.sin_port));
    return 0;
}

static void check_body(const struct buf *body) {
    AUTO(json) json_object *value = NULL;
    if (protocol_answer_check(body) != DJ_OK) {
        promise(text_is_utf8(dj_error_message(), strlen(dj_error_message())));
        return;
    }
    promise(body->length <= ANSWER_BYTES_MAX && body->data != NULL);
    promise(json_read(body->data, body->length, &value) == DJ_OK);
    promise(json_object_is_type(value, json_type_object));
}

static void on_answer(void *context, struct http_answer *answer) {
    (void)context;
    ended = true;
    (void)event_base_loopbreak(base);
    promise(answer->retry_after_ms >= -1 && answer->retry_after_ms <= 86400000);
    if (answer->outcome != HTTP_ANSWERED) {
        promise(answer->reason[0] != '\0');
        promise(text_is_utf8(answer->reason, strlen(answer->reason)));
        return;
    }
    if (answer->status ==
        200) { /* curl makes any number of a status line that is none: all others have failed */
        check_body(&answer->body);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct http_call *call;
    const struct http_request_out request = {
        .method = "POST",
        .url = url,
        .headers = { "content-type: application/json", "expect:" },
        .header_count = 2,
        .body = strdup("{}"),
        .body_length = 2,
        .timeout_ms = 2000,
        .answer_bytes_max = ANSWER_BYTES_MAX,
        .allow_private = true,
    };
    saying = data;
    saying_bytes = size;
    ended = false;
    promise(http_client_send(client, &request, on_answer, NULL, &call) == DJ_OK);
    (void)event_base_dispatch(base);
    promise(ended);
    return 0;
}
