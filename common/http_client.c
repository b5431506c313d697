/* curl asks for sockets to be watched and for one timer; libevent has both. A call is one easy
 * handle. */
#include "common/http_client.h"

#include "common/address_guard.h"
#include "common/auto.h"
#include "common/check.h"
#include "common/failpoint.h"
#include "common/list.h"
#include "common/text.h"
#include <arpa/inet.h>
#include <curl/curl.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_MS_MAX 10000
#define CONNECTIONS_KEPT 256
#define CONNECTION_IDLE_S_MAX 3L      /* Node's servers, among others, close what is idle after 5 */
#define FAREWELL_BYTES_MAX 100        /* of TLS, when curl closes; no request is as short */
#define CERTIFICATES_S 600L           /* to read them takes 40 ms */
#define RETRY_AFTER_MS_MAX 86400000LL /* whoever says more is asked again after a day */

struct http_client {
    struct event_base *base;
    CURLM *multi;
    struct event *timer;
    struct list calls;
    bool forbid_private;
};

struct http_call {
    struct list link;
    struct http_client *client;
    CURL *easy;
    struct curl_slist *headers;
    char *body;
    struct http_answer answer;
    bool allow_private, refused, too_large, has_tls;
    char their_ip[INET6_ADDRSTRLEN]; /* of the connection that it went over; "": none yet */
    int their_port, our_port;
    bool was_read; /* the other side had all of it when it closed that connection */
    bool (*may_send)(void *context);
    http_done_fn done;
    void *context;
    char error[CURL_ERROR_SIZE];
    char reason[2 * CURL_ERROR_SIZE];
};

static void call_free(struct http_call *call) {
    list_remove(&call->link);
    (void)curl_multi_remove_handle(call->client->multi, call->easy);
    curl_easy_cleanup(call->easy);
    curl_slist_free_all(call->headers);
    buf_done(&call->answer.body);
    free(call->body);
    free(call);
}

void http_call_drop(struct http_call *call) {
    if (call != NULL) {
        call_free(call);
    }
}

static enum http_outcome outcome_of(const struct http_call *call, CURLcode code) {
    if (code != CURLE_OK && call->was_read) {
        return HTTP_CUT;
    }
    switch (code) {
    case CURLE_OK:
        return HTTP_ANSWERED;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
        return HTTP_NOT_REACHED;
    case CURLE_COULDNT_CONNECT:
        return call->refused ? HTTP_REFUSED : HTTP_NOT_REACHED;
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
        return HTTP_CUT;
    case CURLE_OPERATION_TIMEDOUT: {
        curl_off_t connected_us = 0;
        (void)curl_easy_getinfo(call->easy, CURLINFO_CONNECT_TIME_T, &connected_us);
        return connected_us > 0 ? HTTP_BROKEN : HTTP_NOT_REACHED;
    }
    case CURLE_ABORTED_BY_CALLBACK:
        return call->refused ? HTTP_REFUSED : HTTP_NOT_SENT;
    default: /* all others happen on a connection that was there */
        return HTTP_BROKEN;
    }
}

static void call_finish(struct http_call *call, CURLcode code) {
    struct http_answer *answer = &call->answer;
    long status = 0;
    curl_off_t retry_after_s = 0;
    answer->outcome = outcome_of(call, code);
    (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
    answer->status = (int)status;
    answer->retry_after_ms = retry_after_s <= 0                          ? -1
                             : retry_after_s > RETRY_AFTER_MS_MAX / 1000 ? RETRY_AFTER_MS_MAX
                                                                         : retry_after_s * 1000;
    if (answer->outcome != HTTP_ANSWERED) {
        /* curl's words may have bytes of the URL in them, and be cut anywhere: here they become a
         * line of text. */
        (void)dj_fail(DJ_UNAVAILABLE, "%s",
                      answer->outcome == HTTP_REFUSED ? "the address is not a public one"
                      : call->too_large               ? "the answer is too large"
                      : call->was_read                ? "the connection ended without an answer"
                      : call->error[0]                ? call->error
                                                      : curl_easy_strerror(code));
        text_copy(call->reason, sizeof call->reason, dj_error_message());
    }
    answer->reason = call->reason;
    call->done(call->context, answer);
    call_free(call);
}

static void take_finished(struct http_client *client) {
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(client->multi, &left)) != NULL;) {
        if (message->msg == CURLMSG_DONE) {
            struct http_call *call;
            CURLcode code = message->data.result;
            check(curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call) ==
                  CURLE_OK);
            if (FAILPOINT_DROPS("http.answered")) {
                code = CURLE_RECV_ERROR;
            }
            call_finish(call, code);
        }
    }
}

static void on_socket(evutil_socket_t fd, short what, void *context) {
    struct http_client *client = context;
    int running,
        flags = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
    (void)curl_multi_socket_action(client->multi, fd, flags, &running);
    take_finished(client);
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct http_client *client = context;
    int running;
    (void)fd;
    (void)what;
    (void)curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_finished(client);
}

void http_client_flush(struct http_client *client) {
    on_timer(-1, 0, client);
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *of_socket) {
    struct http_client *client = context;
    struct event *event = of_socket;
    (void)easy;
    if (event != NULL) {
        event_free(event);
        (void)curl_multi_assign(client->multi, fd, NULL);
    }
    if (what == CURL_POLL_REMOVE) {
        return 0;
    }
    short flags = (short)(EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) |
                          (what & CURL_POLL_OUT ? EV_WRITE : 0));
    event = event_new(client->base, fd, flags, on_socket, client);
    check(event != NULL && event_add(event, NULL) == 0);
    (void)curl_multi_assign(client->multi, fd, event);
    return 0;
}

static int set_timer(CURLM *multi, long ms, void *context) {
    struct http_client *client = context;
    struct timeval delay = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
    (void)multi;
    (void)(ms < 0 ? event_del(client->timer) : event_add(client->timer, &delay));
    return 0;
}

/* The guard: here the name is resolved, and nothing has been sent. What has not arrived when a call
 * is dropped, or when this process dies, is not to arrive: else the kernel would go on trying for
 * minutes, and a call reach its handler when nobody is there for it. */
static curl_socket_t open_socket(void *context, curlsocktype purpose,
                                 struct curl_sockaddr *address) {
    static const struct linger forget = { .l_onoff = 1, .l_linger = 0 };
    struct http_call *call = context;
    (void)purpose;
    if (call->was_read) {
        return CURL_SOCKET_BAD;
    }
    if (!call->allow_private && !address_is_public(&address->addr)) {
        call->refused = true;
        return CURL_SOCKET_BAD;
    }
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd >= 0) {
        check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &forget, sizeof forget) == 0);
    }
    return fd;
}

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

static int port_of(const union address *address) {
    return address->any.sa_family == AF_INET    ? ntohs(address->in.sin_port)
           : address->any.sa_family == AF_INET6 ? ntohs(address->in6.sin6_port)
                                                : 0;
}

/* curl says a request again, on another connection, if one that was kept ends before the first byte
 * of an answer: the server may have closed it just before the request came. If it had read the
 * request, its process has died of it, or of another one, and must not get it a second time.
 * It had where an orderly end has come and all of ours was acknowledged: who closes a socket that
 * has something to read, or gets it afterwards, answers with a reset. With TLS curl has said
 * farewell by now, to which a process that has died answers with a reset as well: there what
 * arrived is taken for read. That a server closes what is idle at that very instant is made rare:
 * connections are not kept for as long as servers keep them. */
static void mark_read(struct http_client *client, curl_socket_t fd, int bytes_left) {
    union address ours = { .in6 = { 0 } }, theirs = { .in6 = { 0 } };
    struct tcp_info info = { 0 };
    socklen_t ours_length = sizeof ours, theirs_length = sizeof theirs, info_length = sizeof info;
    char ip[INET6_ADDRSTRLEN];
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_length) != 0 ||
        getsockname(fd, &ours.any, &ours_length) != 0) {
        return;
    }
    bool is_orderly = info.tcpi_state == TCP_CLOSE_WAIT && bytes_left == 0;
    bool has_ended = (info.tcpi_state == TCP_CLOSE_WAIT || info.tcpi_state == TCP_CLOSE) &&
                     bytes_left < FAREWELL_BYTES_MAX;
    bool is_known = getpeername(fd, &theirs.any, &theirs_length) == 0 &&
                    getnameinfo(&theirs.any, theirs_length, ip, sizeof ip, NULL, 0,
                                NI_NUMERICHOST) == 0; /* not after a reset */
    list_for_each(call, &client->calls, struct http_call, link) {
        if (call->our_port == port_of(&ours) &&
            (!is_known ||
             (call->their_port == port_of(&theirs) && strcmp(call->their_ip, ip) == 0))) {
            call->was_read = is_orderly || (call->has_tls && has_ended);
        }
    }
}

/* Where all has arrived, as on a connection that was kept, the other side sees an orderly end. */
static int close_socket(void *context, curl_socket_t fd) {
    static const struct linger orderly = { .l_onoff = 0 };
    int bytes_left = 0;
    if (ioctl(fd, SIOCOUTQ, &bytes_left) == 0) {
        mark_read(context, fd, bytes_left);
        if (bytes_left == 0) {
            (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &orderly, sizeof orderly);
        }
    }
    return close(fd);
}

/* The last thing before the first byte, and the guard once more: the connection may be one that was
 * kept after a call that was allowed to go there. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the type is libcurl's */
static int before_request(void *context, char *their_ip, char *our_ip, int their_port,
                          int our_port) {
    struct http_call *call = context;
    (void)our_ip;
    if (call->was_read) {
        return CURL_PREREQFUNC_ABORT;
    }
    text_copy(call->their_ip, sizeof call->their_ip, their_ip);
    call->their_port = their_port;
    call->our_port = our_port;
    call->refused = !call->allow_private && !address_text_is_public(their_ip);
    if (call->refused) {
        return CURL_PREREQFUNC_ABORT;
    }
    bool may = call->may_send == NULL || call->may_send(call->context);
    return may ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

static size_t take_body(char *bytes, size_t size, size_t count, void *context) {
    struct http_call *call = context;
    size_t length = size * count;
    if (FAILPOINT_DROPS("http.half_read")) {
        return 0;
    }
    if (buf_add(&call->answer.body, bytes, length) != DJ_OK) {
        call->too_large = true;
        return 0;
    }
    return length;
}

static dj_status call_configure(struct http_call *call, const struct http_request_out *request) {
    CURL *easy = call->easy;
    for (int i = 0; i < request->header_count; i++) {
        struct curl_slist *longer = curl_slist_append(call->headers, request->headers[i]);
        if (longer == NULL) {
            return dj_fail(DJ_NO_MEMORY, "no memory for a request");
        }
        call->headers = longer;
    }
    bool ok = true;
#define SET(option, value) ok = ok && curl_easy_setopt(easy, option, value) == CURLE_OK
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_PRIVATE, call);
    SET(CURLOPT_ERRORBUFFER, call->error);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L); /* else the end of a call waits for who asks its name */
    SET(CURLOPT_MAXAGE_CONN, CONNECTION_IDLE_S_MAX);
    SET(CURLOPT_CAPATH, NULL); /* with a folder as well, curl reads CAINFO's anew each time */
    SET(CURLOPT_CA_CACHE_TIMEOUT, CERTIFICATES_S);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    SET(CURLOPT_USERAGENT, "durable-jobs");
    SET(CURLOPT_CONNECTTIMEOUT_MS,
        (long)(request->timeout_ms < CONNECT_MS_MAX ? request->timeout_ms : CONNECT_MS_MAX));
    SET(CURLOPT_TIMEOUT_MS, (long)request->timeout_ms);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_OPENSOCKETDATA, call);
    SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    SET(CURLOPT_CLOSESOCKETDATA, call->client);
    SET(CURLOPT_PREREQFUNCTION, before_request);
    SET(CURLOPT_PREREQDATA, call);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, call);
    if (strcmp(request->method, "GET") != 0) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, call->body == NULL ? "" : call->body);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_length);
        SET(CURLOPT_CUSTOMREQUEST, request->method);
    }
    SET(CURLOPT_HTTPHEADER, call->headers);
#undef SET
    return ok ? DJ_OK : dj_fail(DJ_INVALID_ARGUMENT, "curl refuses the request: %s", call->error);
}

dj_status http_client_send(struct http_client *client, const struct http_request_out *request,
                           http_done_fn done, void *context, struct http_call **ret_call) {
    struct http_call *call = calloc(1, sizeof *call);
    CURL *easy = curl_easy_init();
    if (call == NULL || easy == NULL) {
        free(call);
        curl_easy_cleanup(easy);
        free(request->body);
        return dj_fail(DJ_NO_MEMORY, "no memory for a request");
    }
    call->client = client;
    call->easy = easy;
    call->body = request->body;
    call->allow_private = request->allow_private && !client->forbid_private;
    call->has_tls = strncasecmp(request->url, "https:", 6) == 0;
    call->may_send = request->may_send;
    call->done = done;
    call->context = context;
    buf_init(&call->answer.body, request->answer_bytes_max);
    list_push(&client->calls, &call->link);
    dj_status status = call_configure(call, request);
    if (status == DJ_OK && curl_multi_add_handle(client->multi, easy) != CURLM_OK) {
        status = dj_fail(DJ_INTERNAL, "curl does not take the request");
    }
    if (status != DJ_OK) {
        call_free(call);
        return status;
    }
    *ret_call = call;
    return DJ_OK;
}

dj_status http_client_new(struct event_base *base, struct http_client **ret_client) {
    struct http_client *client = calloc(1, sizeof *client);
    if (client == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(client);
        return dj_fail(DJ_NO_MEMORY, "cannot make an HTTP client");
    }
    client->base = base;
    list_init(&client->calls);
    client->multi = curl_multi_init();
    client->timer = event_new(base, -1, 0, on_timer, client);
    if (client->multi == NULL || client->timer == NULL) {
        http_client_free(client);
        return dj_fail(DJ_NO_MEMORY, "cannot make an HTTP client");
    }
    (void)curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    (void)curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    (void)curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    (void)curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    (void)curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_KEPT);
    *ret_client = client;
    return DJ_OK;
}

void http_client_forbid_private(struct http_client *client) {
    client->forbid_private = true;
}

void http_client_free(struct http_client *client) {
    if (client == NULL) {
        return;
    }
    while (!list_is_empty(&client->calls)) {
        call_free(list_first(&client->calls, struct http_call, link));
    }
    if (client->multi != NULL) {
        (void)curl_multi_cleanup(client->multi);
    }
    if (client->timer != NULL) {
        event_free(client->timer);
    }
    free(client);
    curl_global_cleanup();
}
