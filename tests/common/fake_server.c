/* Messages of protocol 3: a type, the length of what follows and of itself,
 * what follows. */
#include "tests/common/fake_server.h"

#include "common/auto.h"
#include "common/buf.h"
#include "common/check.h"
#include "tests/common/loopback.h"
#include <endian.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void message(struct buf *out, char type, const char *body, size_t length) {
    check(buf_add(out, &type, 1) == DJ_OK);
    check(buf_add_be32(out, (uint32_t)length + 4) == DJ_OK);
    check(buf_add(out, body, length) == DJ_OK);
}

#define MESSAGE(out, type, literal) message(out, type, literal, sizeof(literal) - 1)

static void parameter(struct buf *out, const char *name, const char *value) {
    char body[100];
    int length = snprintf(body, sizeof body, "%s%c%s", name, 0, value);
    message(out, 'S', body, (size_t)length + 1);
}

static bool flush(int fd, struct buf *out) {
    bool sent = send(fd, out->data, out->length, MSG_NOSIGNAL) == (ssize_t)out->length;
    buf_reset(out);
    return sent;
}

static void add_row(struct buf *out) {
    MESSAGE(out, 'T', "\0\1n\0\0\0\0\0\0\0\0\0\0\x17\0\4\xFF\xFF\xFF\xFF\0\1");
    MESSAGE(out, 'D', "\0\1\0\0\0\4\0\0\0\7");
    MESSAGE(out, 'C', "SELECT 1\0");
}

static void add_long_error(struct buf *out) {
#define TEN "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN
    MESSAGE(out, 'E',
            "SERROR\0VERROR\0CDJ001\0M" HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED
                HUNDRED HUNDRED "\0\0");
}

static bool answer_call(struct fake_server *server, int fd, enum answer answer, struct buf *out) {
    MESSAGE(out, '1', ""); /* parsed, bound */
    MESSAGE(out, '2', "");
    switch (answer) {
    case ANSWER_ROW:
    case ANSWER_ROW_TO_WHAT_IS_READ_LATE:
        add_row(out);
        break;
    case ANSWER_UNCONFIRMED_ROW:
    case ANSWER_UNCONFIRMED_ROW_HELD:
        add_row(out);
        MESSAGE(out, 'N', "SWARNUNG\0VWARNING\0C01000\0Mabgebrochen\0RSyncRepWaitForLSN\0\0");
        break;
    case ANSWER_NOTICE:
        add_row(out);
        MESSAGE(out, 'N', "SNOTICE\0VNOTICE\0C00000\0Mhello\0Rexec_stmt_raise\0\0");
        break;
    case ANSWER_ERROR:
        MESSAGE(out, 'E', "SERROR\0VERROR\0CDJ001\0Mjob is not a name\0Htry another\0\0");
        break;
    case ANSWER_LONG_ERROR:
        add_long_error(out);
        break;
    case ANSWER_NO_ROWS:
        MESSAGE(out, 'n', "");
        MESSAGE(out, 'C', "BEGIN\0");
        break;
    case ANSWER_HANG_UP:
    case ANSWER_HANG_UP_UNREAD:
        return false;
    }
    if (answer == ANSWER_UNCONFIRMED_ROW_HELD) {
        check(flush(fd, out));
        check(sem_wait(&server->go_on) == 0);
    }
    MESSAGE(out, 'Z', "I");
    return flush(fd, out);
}

static bool read_all(int fd, void *bytes, size_t length) {
    return length == 0 || recv(fd, bytes, length, MSG_WAITALL) == (ssize_t)length;
}

/* Throws away what follows a length, which counts itself. */
static bool skip_body(int fd, uint32_t big_endian_length) {
    char body[65536];
    size_t left = be32toh(big_endian_length) - 4;
    while (left > sizeof body && read_all(fd, body, sizeof body)) {
        left -= sizeof body;
    }
    return left <= sizeof body && read_all(fd, body, left);
}

/* The type of the next message; 0: the client has gone. */
static char next_message(int fd) {
    char type;
    uint32_t length;
    bool got =
        read_all(fd, &type, 1) && read_all(fd, &length, sizeof length) && skip_body(fd, length);
    return (char)(got ? type : 0);
}

static bool greet(struct fake_server *server, int fd, struct buf *out) {
    uint32_t length;
    if (!read_all(fd, &length, sizeof length) || !skip_body(fd, length)) {
        return false;
    }
    MESSAGE(out, 'R', "\0\0\0\0");
    parameter(out, "server_version", "15.0");
    parameter(out, "client_encoding", "UTF8");
    parameter(out, "default_transaction_read_only", "off");
    parameter(out, "in_hot_standby", server->in_hot_standby);
    MESSAGE(out, 'K', "\0\0\0\1\0\0\0\1");
    MESSAGE(out, 'Z', "I");
    return flush(fd, out);
}

static void *serve(void *context) {
    struct fake_server *server = context;
    AUTO(fd) int fd = accept(server->listener, NULL, NULL);
    AUTO(buf) struct buf out;
    buf_init(&out, 10000);
    bool open = fd >= 0 && greet(server, fd, &out);
    for (int calls = 0; open && calls < server->answer_count; calls++) {
        enum answer answer = server->answers[calls];
        char type;
        if (answer == ANSWER_ROW_TO_WHAT_IS_READ_LATE || answer == ANSWER_HANG_UP_UNREAD) {
            check(sem_wait(&server->go_on) == 0);
        }
        if (answer == ANSWER_HANG_UP_UNREAD) {
            break;
        }
        do {
            type = next_message(fd);
        } while (type != 'S' && type != 'X' && type != 0); /* sync, end */
        open = type == 'S' && answer_call(server, fd, answer, &out);
    }
    return NULL;
}

void fake_server_start(struct fake_server *server, const char *in_hot_standby,
                       const enum answer answers[], int answer_count) {
    int port;
    check(answer_count <= FAKE_ANSWERS_MAX);
    server->in_hot_standby = in_hot_standby;
    memcpy(server->answers, answers, (size_t)answer_count * sizeof *answers);
    server->answer_count = answer_count;
    server->listener = loopback_listen(1, &port);
    (void)snprintf(server->conninfo, sizeof server->conninfo,
                   "host=127.0.0.1 port=%d user=u dbname=d sslmode=disable "
                   "gssencmode=disable",
                   port);
    check(sem_init(&server->go_on, 0, 0) == 0);
    check(pthread_create(&server->thread, NULL, serve, server) == 0);
}

void fake_server_go_on(struct fake_server *server) {
    check(sem_post(&server->go_on) == 0);
}

void fake_server_stop(struct fake_server *server) {
    check(pthread_join(server->thread, NULL) == 0);
    (void)close(server->listener);
    (void)sem_destroy(&server->go_on);
}
