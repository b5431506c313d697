/* See api.h. */
#include "tests/fuzz/api.h"

#include "common/auto.h"
#include "common/commit_token.h"
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#define QUIET_ROUNDS 3
#define ROUNDS_MAX 20000

static struct api api;
static char socket_path[64];

static void remove_socket(void) {
    (void)unlink(socket_path);
}

void api_start(void) {
    (void)snprintf(socket_path, sizeof socket_path, "/tmp/durable-fuzz.%d", (int)getpid());
    const struct api_settings settings = {
        .conninfo = "",
        .listen = "",
        .unix_path = socket_path,
        .connections = 1,
        .limits = { .connections = 4,
                    .head_ms = 60000,
                    .body_ms = 60000,
                    .idle_ms = 60000,
                    .write_ms = 60000 },
    };
    (void)signal(SIGPIPE, SIG_IGN);
    (void)atexit(remove_socket);
    api.base = event_base_new();
    promise(api.base != NULL && api_open(&api, &settings) == DJ_OK);
    while (stand_ins_answer()) { /* the secret of commits */
    }
}

const char *api_token(void) {
    static char text[128];
    const struct commit_secret secret = { .bytes = "secret", .length = 6 };
    const struct lease_name lease = { .fence = 42 };
    AUTO(buf) struct buf token;
    buf_init(&token, sizeof text);
    promise(commit_token_print(&secret, &lease, &token) == DJ_OK);
    (void)snprintf(text, sizeof text, "%s", token.data);
    return text;
}

/* Reads what is there; false once the server has closed. */
static bool hear(int fd, struct buf *heard) {
    static char text[65536];
    for (;;) {
        ssize_t n = recv(fd, text, sizeof text, MSG_DONTWAIT);
        if (n <= 0) {
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        }
        promise(buf_add(heard, text, (size_t)n) == DJ_OK);
    }
}

/* Lets the server work until nothing more comes of it. */
static bool work(int fd, struct buf *heard) {
    bool open = true;
    for (int quiet = 0; quiet < QUIET_ROUNDS && open;) {
        size_t before = heard->length;
        (void)event_base_loop(api.base, EVLOOP_NONBLOCK);
        bool answered = stand_ins_answer();
        open = hear(fd, heard);
        quiet = answered || heard->length > before ? 0 : quiet + 1;
    }
    return open;
}

static void read_one(struct api_answers *answers, size_t *at) {
    const char *head = answers->text + *at, *end = strstr(head, "\r\n\r\n");
    promise(end != NULL && strncmp(head, "HTTP/1.1 ", 9) == 0);
    int status = atoi(head + 9);
    const char *body = end + 4;
    size_t left = answers->length - (size_t)(body - answers->text);
    *at = answers->length - left;
    if (status == 100) {
        return;
    }
    struct api_answer *answer = &answers->answers[answers->count];
    const char *type = strstr(head, "\r\nContent-Type: "),
               *said = strstr(head, "\r\nContent-Length: ");
    *answer = (struct api_answer){ .status = status, .body = body };
    promise((type != NULL && type < end) == (status != 204));
    if (status == 204) {
        promise(said == NULL || said > end);
    } else if (strncmp(type + 16, "text/event-stream", 17) == 0) {
        answers->stream = true;
        answer->length = left;
        *at = answers->length;
    } else {
        promise(said != NULL && said < end);
        answer->length = strtoul(said + 18, NULL, 10);
        answer->json = strstr(type, "json") != NULL && strstr(type, "json") < end;
        if (answer->length > left || strncmp(body, "HTTP/1.1 ", 9) == 0) {
            answer->length = 0; /* to HEAD: checked by the caller's count of bytes */
            answer->json = false;
        }
        *at += answer->length;
    }
    if (answers->count < ANSWERS_MAX - 1) {
        answers->count++;
    }
}

static void check_answer(const struct api_answer *answer) {
    static const int known[] = { 200, 201, 202, 204, 400, 401, 403, 404, 405, 408,
                                 409, 413, 414, 415, 429, 431, 500, 501, 503 };
    bool is_known = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        is_known = is_known || known[i] == answer->status;
    }
    promise(is_known);
    if (answer->json) {
        promise(json_check("the answer", answer->body, answer->length, (size_t)1 << 30) == DJ_OK ||
                strstr(dj_error_message(), "nested too deep") != NULL);
    }
}

void api_say(const char *bytes, size_t length, size_t piece, const struct moods *moods,
             struct api_answers *ret_answers) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct buf heard;
    bool open = true;
    buf_init(&heard, SIZE_MAX / 2);
    stand_ins_reset(moods);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    promise(fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0);
    for (size_t at = 0, rounds = 0; open && at < length && rounds < ROUNDS_MAX; rounds++) {
        size_t take = piece == 0 || piece > length - at ? length - at : piece;
        ssize_t n = send(fd, bytes + at, take, MSG_NOSIGNAL | MSG_DONTWAIT);
        at += n > 0 ? (size_t)n : 0;
        open = (n > 0 || errno == EAGAIN) && work(fd, &heard);
    }
    (void)work(fd, &heard);
    (void)close(fd);
    for (int i = 0; http_server_connections(api.http) > 0; i++) {
        promise(i < ROUNDS_MAX);
        (void)event_base_loop(api.base, i < 8 ? EVLOOP_NONBLOCK : EVLOOP_ONCE);
        (void)stand_ins_answer();
    }
    *ret_answers = (struct api_answers){ .length = heard.length };
    ret_answers->text = buf_take(&heard);
    buf_done(&heard);
    for (size_t at = 0; at < ret_answers->length && ret_answers->count < ANSWERS_MAX - 1;) {
        read_one(ret_answers, &at);
    }
    for (int i = 0; i < ret_answers->count; i++) {
        check_answer(&ret_answers->answers[i]);
    }
}

void api_answers_done(struct api_answers *answers) {
    free(answers->text);
}
