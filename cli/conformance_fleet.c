/* Plays a fleet of one worker: calls the endpoint, keeps what the run remembers, and takes commits.
 *
 * The listener behind commit.url is libevent's evhttp. It is not what durable-server is made of,
 * and need not be: it stands for a few seconds on 127.0.0.1, for one client that the user has
 * chosen, and parts of a server that can stand anything are not for programs in cli/ to know.
 *
 * Each play has a commit.url of its own, so that a late heartbeat of the play before, or an SDK
 * that rests after a fault, is not taken for this one's doing. */
#include "cli/conformance_play.h"

#include "common/auto.h"
#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/http_client.h"
#include "common/json.h"
#include "common/webhook.h"
#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#define CALL_MS_MAX 60000
#define CALLS_MAX 50
#define TOGETHER_MAX 3
#define TOGETHER_PAUSE_US 100000
#define ANSWER_BYTES_MAX ((size_t)4 * 1024 * 1024)
#define COMMIT_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define REQUEST_BYTES_MAX ((size_t)64 * 1024 * 1024)
#define SKEW_S 360
#define OTHER_SECRET "whsec_bm90IHRoZSBzZWNyZXQgb2YgdGhpcyBlbmRwb2ludA=="

struct call {
    struct play play;
    bool answered, more; /* more: the handler is to be called again */
    enum http_outcome outcome;
    char reason[200];
    int status;
    char *body;
    size_t body_length;
};

struct fleet {
    const char *url;
    const char *const *secrets;
    int secret_count;
    struct event_base *base;
    struct evhttp *server;
    struct http_client *client;
    int port, nobody_fd, nobody_port;
    int serial;
    struct call calls[TOGETHER_MAX]; /* those of this play, of a run each */
    int call_count;
};

static void reply(struct evhttp_request *request, int status, json_object *body) {
    struct evbuffer *buffer = evbuffer_new();
    check(buffer != NULL);
    const char *text = json_object_to_json_string_ext(body, JSON_C_TO_STRING_PLAIN);
    check(evbuffer_add(buffer, text, strlen(text)) == 0);
    (void)evhttp_add_header(evhttp_request_get_output_headers(request), "content-type",
                            "application/json");
    evhttp_send_reply(request, status, status == 200 ? "OK" : "No", buffer);
    evbuffer_free(buffer);
}

/* What is sent now reaches nobody: the other side sees the connection end. */
static void hang_up(struct evhttp_request *request) {
    struct bufferevent *stream =
        evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
    (void)shutdown(bufferevent_getfd(stream), SHUT_RDWR);
}

static void on_ref(struct play *play, struct evhttp_request *request) {
    char wanted[96];
    const char *said =
        evhttp_find_header(evhttp_request_get_input_headers(request), "authorization");
    (void)snprintf(wanted, sizeof wanted, "Bearer %s", play->token);
    if (said == NULL || strcmp(said, wanted) != 0) {
        verdict_fail(play->verdict, "authorization: Bearer and the token of this call", "%.80s",
                     said == NULL ? "no authorization" : said);
    }
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(request));
    bool known = play->one->ref != NULL && query != NULL && strcmp(query, "ref=1") == 0;
    AUTO(json)
    json_object *answer = known ? pattern_read(play->one->ref) : commit_code("not_found");
    play->refs_read += known;
    reply(request, known ? 200 : 404, answer);
}

/* Which fault this request meets. */
static enum commit_fault fault_now(struct play *play) {
    play->commits++;
    return play->commits == play->one->fault_at ? play->one->fault : COMMIT_GOOD;
}

static void check_again(struct play *play, const char *body) {
    if (play->again != NULL && strcmp(play->again, body) != 0) {
        verdict_fail(play->verdict, "the same request again, byte by byte", "%.200s", body);
    }
    free(TAKE(play->again));
}

/* The play that a part of a commit is of; NULL: none that goes on. */
static struct play *play_of(struct fleet *fleet, json_object *part) {
    json_object *token = NULL;
    (void)json_object_object_get_ex(part, "token", &token);
    for (int i = 0; i < fleet->call_count && json_object_is_type(token, json_type_string); i++) {
        if (strcmp(fleet->calls[i].play.token, json_object_get_string(token)) == 0) {
            return &fleet->calls[i].play;
        }
    }
    return NULL;
}

/* Several runs: the second one alone meets the fault. While the first request waits, the others
 * gather; that the loop stands still meanwhile is no harm here. */
static enum commit_fault fault_of_part(struct fleet *fleet, struct play *play,
                                       enum commit_fault of_request) {
    if (fleet->call_count == 1 || play == NULL) {
        return of_request;
    }
    return play == &fleet->calls[1].play ? play->one->fault : COMMIT_GOOD;
}

static void on_commit(struct fleet *fleet, struct play *play, struct evhttp_request *request,
                      char *body, json_object *commits) {
    enum commit_fault fault = play == NULL ? COMMIT_GOOD : fault_now(play);
    if (play != NULL) {
        check_again(play, body);
    }
    if (fleet->call_count > 1 && play != NULL && play->commits == 1) {
        (void)usleep(TOGETHER_PAUSE_US);
    }
    if (fault == COMMIT_ANSWER_LOST || fault == COMMIT_UNAVAILABLE) {
        play->again = strdup(body);
        check(play->again != NULL);
    }
    if (fault == COMMIT_UNAVAILABLE) {
        AUTO(json) json_object *answer = commit_code("unavailable");
        reply(request, 503, answer);
        return;
    }
    AUTO(json) json_object *answer = json_object_new_object();
    json_object *list = json_object_new_array();
    json_object_object_add(answer, "commits", list);
    for (size_t i = 0; i < json_object_array_length(commits); i++) {
        json_object *part = json_object_array_get_idx(commits, i);
        struct play *of = play == NULL ? NULL : play_of(fleet, part);
        (void)json_object_array_add(list, play_commit(of, part, fault_of_part(fleet, of, fault)));
    }
    if (fault == COMMIT_ANSWER_LOST) {
        hang_up(request);
    }
    reply(request, 200, answer);
}

static void on_request(struct evhttp_request *request, void *context) {
    struct fleet *fleet = context;
    char path[64];
    (void)snprintf(path, sizeof path, "/v1/commit/%d", fleet->serial);
    const char *said = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(request));
    struct play *play = said != NULL && strcmp(said, path) == 0 && fleet->call_count > 0
                            ? &fleet->calls[0].play
                            : NULL;
    if (evhttp_request_get_command(request) == EVHTTP_REQ_GET && play != NULL) {
        on_ref(play, request);
        return;
    }
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    size_t length = evbuffer_get_length(input);
    AUTO(free) char *body = calloc(1, length + 1);
    check(body != NULL && evbuffer_copyout(input, body, length) == (ssize_t)length);
    AUTO(json) json_object *value = NULL;
    json_object *commits = NULL;
    if (json_parse("the commit", body, length, COMMIT_BYTES_MAX, &value) == DJ_OK) {
        (void)json_object_object_get_ex(value, "commits", &commits);
    }
    if (!json_object_is_type(commits, json_type_array)) {
        if (play != NULL) {
            verdict_fail(play->verdict, "{\"commits\": […]} at commit.url", "%.200s", body);
        }
        AUTO(json) json_object *answer = commit_code("invalid_argument");
        reply(request, 400, answer);
        return;
    }
    on_commit(fleet, play, request, body, commits);
}

/* Calls. */

static void add_text(json_object *object, const char *name, const char *text) {
    json_object_object_add(object, name, text == NULL ? NULL : json_object_new_string(text));
}

static json_object *run_of(const struct play *play) {
    json_object *run = json_object_new_object(), *tags = json_object_new_object();
    add_text(run, "id", play->run_id);
    add_text(run, "job", play->one->job);
    add_text(run, "queueName", "default");
    json_object_object_add(run, "attempt", json_object_new_int(play->attempt));
    json_object_object_add(run, "maxAttempts",
                           json_object_new_int(play->one->attempts > 0 ? play->one->attempts : 1));
    add_text(run, "createdAt", "2026-05-06T09:00:00.000000Z");
    add_text(run, "namespace", "default");
    add_text(run, "version", NULL);
    add_text(tags, "team", "a");
    json_object_object_add(run, "tags", tags);
    return run;
}

/* The body of a call; with fields besides, which are to be ignored. */
static dj_status request_print(const struct fleet *fleet, const struct play *play,
                               struct buf *body) {
    const struct conformance_case *one = play->one;
    AUTO(json) json_object *call = json_object_new_object();
    json_object *commit = NULL;
    char url[96];
    json_object_object_add(call, "protocol", json_object_new_int(1));
    json_object_object_add(call, "run", run_of(play));
    json_object_object_add(call, "payload", pattern_read(one->payload ? one->payload : "{}"));
    json_object_object_add(call, "steps", json_object_get(play->steps));
    json_object_object_add(call, "tries", json_object_get(play->tries));
    if (!play->answering) {
        (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/commit/%d",
                       one->fault == COMMIT_NOBODY ? fleet->nobody_port : fleet->port,
                       fleet->serial);
        commit = json_object_new_object();
        add_text(commit, "url", url);
        add_text(commit, "token", play->token);
        json_object_object_add(commit, "maxRunMs",
                               json_object_new_int(one->max_run_ms > 0 ? one->max_run_ms : 300000));
        add_text(commit, "more", "to be ignored");
    }
    json_object_object_add(call, "commit", commit);
    add_text(call, "traceparent", "00-0190e0b2000070008000000000000001-0000000000000001-01");
    json_object_object_add(call, "more", pattern_read("{'to':['be','ignored']}"));
    return buf_add_text(body, json_object_to_json_string_ext(call, JSON_C_TO_STRING_PLAIN));
}

static dj_status sign(const struct fleet *fleet, enum request_flaw flaw, const char *id,
                      int64_t time_s, const struct buf *body, struct buf *header) {
    const char *text = body->data == NULL ? "" : body->data;
    DJ_TRY(buf_add_text(header, "webhook-signature: "));
    AUTO(buf) struct buf signatures;
    buf_init(&signatures, 2048);
    if (flaw == REQUEST_SIGNATURE_BAD || flaw == REQUEST_SIGNATURE_SECOND) {
        DJ_TRY(webhook_sign(OTHER_SECRET, id, time_s, text, body->length, &signatures));
    }
    if (flaw == REQUEST_SIGNATURE_UNKNOWN) {
        DJ_TRY(buf_add_text(&signatures, "v9a,AAAA"));
    }
    for (int i = 0; flaw != REQUEST_SIGNATURE_BAD && i < fleet->secret_count; i++) {
        DJ_TRY(webhook_sign(fleet->secrets[i], id, time_s, text, body->length, &signatures));
    }
    size_t length = signatures.length - (flaw == REQUEST_SIGNATURE_TRUNCATED ? 8 : 0);
    return buf_add(header, signatures.data, length);
}

static void on_answered(void *context, struct http_answer *answer) {
    struct call *call = context;
    call->answered = true;
    call->outcome = answer->outcome;
    (void)snprintf(call->reason, sizeof call->reason, "%s", answer->reason);
    call->status = answer->status;
    call->body_length = answer->body.length;
    call->body = buf_take(&answer->body);
    check(call->body != NULL);
}

static dj_status call_send(struct fleet *fleet, struct call *call) {
    const struct play *play = &call->play;
    enum request_flaw flaw = play->one->request;
    char id_header[96], time_header[96];
    AUTO(buf) struct buf body;
    AUTO(buf) struct buf signature;
    buf_init(&body, REQUEST_BYTES_MAX);
    buf_init(&signature, 2048);
    if (play->one->job != NULL) {
        DJ_TRY(request_print(fleet, play, &body));
    }
    int64_t time_s = (int64_t)time(NULL) + (flaw == REQUEST_TIMESTAMP_OLD     ? -SKEW_S
                                            : flaw == REQUEST_TIMESTAMP_AHEAD ? SKEW_S
                                                                              : 0);
    char id[80];
    (void)snprintf(id, sizeof id, "msg_%s_%d", play->run_id, play->calls);
    DJ_TRY(sign(fleet, flaw, id, time_s, &body, &signature));
    (void)snprintf(id_header, sizeof id_header, "webhook-id: %s%s", id,
                   flaw == REQUEST_ID_CHANGED ? "0" : "");
    (void)snprintf(time_header, sizeof time_header, "webhook-timestamp: %lld", (long long)time_s);
    if (flaw == REQUEST_BODY_CHANGED) {
        DJ_TRY(buf_add_text(&body, " "));
    }
    size_t length = body.length;
    struct http_request_out request = {
        .method = play->one->job == NULL ? "GET" : "POST",
        .url = fleet->url,
        .headers = { "content-type: application/json", "expect:", id_header, time_header,
                     signature.data },
        .header_count = flaw == REQUEST_SIGNATURE_MISSING ? 4 : 5,
        .body = play->one->job == NULL ? NULL : buf_take(&body),
        .body_length = length,
        .timeout_ms = CALL_MS_MAX,
        .answer_bytes_max = ANSWER_BYTES_MAX,
        .allow_private = true,
    };
    struct http_call *http;
    call->answered = false;
    free(TAKE(call->body));
    return http_client_send(fleet->client, &request, on_answered, call, &http);
}

/* Plays. */

static dj_status call_begin(struct fleet *fleet, struct call *call) {
    struct play *play = &call->play;
    play->calls++;
    (void)snprintf(play->token, sizeof play->token, "conformance.%d.%d.%d", fleet->serial,
                   (int)(call - fleet->calls), play->calls);
    play->called_ms = clock_ms();
    return call_send(fleet, call);
}

/* Judges what was answered; says by `more` whether that was not the end. */
static void call_judge(struct call *call) {
    struct play *play = &call->play;
    int64_t took_ms = clock_ms() - play->called_ms;
    call->more = false;
    if (call->outcome != HTTP_ANSWERED) {
        verdict_fail(play->verdict, "an answer", "%s", call->reason);
        return;
    }
    if (play->over && play->one->fault != COMMIT_REFUSED) { /* whatever it is, it is not read */
        play_judge(play, NULL, took_ms);
        return;
    }
    play_judge_http(play, call->status, call->body);
    if (play->verdict->failed || call->status != 200 || play->one->http_status != 0) {
        play_judge(play, NULL, took_ms);
        return;
    }
    AUTO(json) json_object *answer = NULL;
    if (json_parse("the answer", call->body, call->body_length, ANSWER_BYTES_MAX, &answer) !=
        DJ_OK) {
        verdict_fail(play->verdict, "JSON", "%s", dj_error_message());
        return;
    }
    if (!json_object_is_type(answer, json_type_object)) {
        verdict_fail(play->verdict, "an object", "%.200s", call->body);
        return;
    }
    if (play->one->job != NULL) {
        play_answer(play, answer, &call->more);
    }
    if (!call->more) {
        play_judge(play, answer, took_ms);
    } else if (play->calls == CALLS_MAX) {
        verdict_fail(play->verdict, "an end", "none after %d calls", play->calls);
    }
}

static bool all_answered(const struct fleet *fleet) {
    bool all = true;
    for (int i = 0; i < fleet->call_count; i++) {
        all = all && fleet->calls[i].answered;
    }
    return all;
}

/* Calls once for each run that goes on, and waits for all answers. */
static dj_status round_play(struct fleet *fleet, bool *ret_more) {
    *ret_more = false;
    for (int i = 0; i < fleet->call_count; i++) {
        if (fleet->calls[i].more) {
            DJ_TRY(call_begin(fleet, &fleet->calls[i]));
        }
    }
    while (!all_answered(fleet)) {
        (void)event_base_loop(fleet->base, EVLOOP_ONCE);
    }
    for (int i = 0; i < fleet->call_count; i++) {
        struct call *call = &fleet->calls[i];
        if (call->more && call->outcome == HTTP_NOT_REACHED) {
            return dj_fail(DJ_UNAVAILABLE, "%s cannot be reached: %s", fleet->url, call->reason);
        }
        if (call->more) {
            call_judge(call);
        }
        *ret_more = *ret_more || call->more;
    }
    return DJ_OK;
}

static void run_id_make(char text[40]) {
    uint8_t b[16];
    check(getrandom(b, sizeof b, 0) == (ssize_t)sizeof b);
    (void)snprintf(text, 40,
                   "%02x%02x%02x%02x-%02x%02x-7%01x%02x-8%01x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                   b[1], b[2], b[3], b[4], b[5], b[6] & 15, b[7], b[8] & 15, b[9], b[10], b[11],
                   b[12], b[13], b[14], b[15]);
}

static void call_init(struct call *call, const struct conformance_case *one, bool answering,
                      struct verdict *verdict) {
    *call = (struct call){ .more = true };
    play_init(&call->play, one, answering, verdict);
    run_id_make(call->play.run_id);
}

dj_status fleet_play(struct fleet *fleet, const struct conformance_case *one, bool answering,
                     struct verdict *ret_verdict) {
    *ret_verdict = (struct verdict){ .failed = false };
    fleet->serial++;
    fleet->call_count = one->together > 0 ? one->together : 1;
    check(fleet->call_count <= TOGETHER_MAX);
    for (int i = 0; i < fleet->call_count; i++) {
        call_init(&fleet->calls[i], one, answering, ret_verdict);
    }
    dj_status status = DJ_OK;
    bool more = true;
    while (status == DJ_OK && more && !ret_verdict->failed) {
        status = round_play(fleet, &more);
    }
    for (int i = 0; i < fleet->call_count; i++) {
        play_done(&fleet->calls[i].play);
        free(TAKE(fleet->calls[i].body));
    }
    fleet->call_count = 0;
    return status;
}

static int listen_nobody(struct fleet *fleet) {
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    fleet->nobody_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fleet->nobody_fd < 0 ||
        bind(fleet->nobody_fd, (const struct sockaddr *)&address, length) != 0 ||
        getsockname(fleet->nobody_fd, (struct sockaddr *)&address, &length) != 0) {
        return -1;
    }
    fleet->nobody_port = ntohs(address.sin_port); /* ours, and nobody listens there */
    return 0;
}

static int listen_commits(struct fleet *fleet) {
    struct sockaddr_in address = { .sin_port = 0 };
    socklen_t length = sizeof address;
    struct evhttp_bound_socket *bound =
        fleet->server == NULL ? NULL
                              : evhttp_bind_socket_with_handle(fleet->server, "127.0.0.1", 0);
    if (bound == NULL ||
        getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&address, &length) != 0) {
        return -1;
    }
    fleet->port = ntohs(address.sin_port);
    evhttp_set_max_body_size(fleet->server, (ev_ssize_t)COMMIT_BYTES_MAX);
    evhttp_set_allowed_methods(fleet->server, EVHTTP_REQ_GET | EVHTTP_REQ_POST);
    evhttp_set_gencb(fleet->server, on_request, fleet);
    return 0;
}

dj_status fleet_open(const char *url, const char *const *secrets, int secret_count,
                     struct fleet **ret_fleet) {
    struct fleet *fleet = calloc(1, sizeof *fleet);
    check(fleet != NULL);
    fleet->url = url;
    fleet->secrets = secrets;
    fleet->secret_count = secret_count;
    fleet->nobody_fd = -1;
    fleet->base = event_base_new();
    check(fleet->base != NULL);
    fleet->server = evhttp_new(fleet->base);
    dj_status status = http_client_new(fleet->base, &fleet->client);
    if (status == DJ_OK && (listen_commits(fleet) != 0 || listen_nobody(fleet) != 0)) {
        status = dj_fail(DJ_UNAVAILABLE, "no port of 127.0.0.1 can be had");
    }
    if (status != DJ_OK) {
        fleet_close(fleet);
        return status;
    }
    *ret_fleet = fleet;
    return DJ_OK;
}

void fleet_close(struct fleet *fleet) {
    http_client_free(fleet->client);
    if (fleet->server != NULL) {
        evhttp_free(fleet->server);
    }
    event_base_free(fleet->base);
    if (fleet->nobody_fd >= 0) {
        (void)close(fleet->nobody_fd);
    }
    free(fleet);
}
