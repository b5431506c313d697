/* A server made up: a thread that speaks just enough of PostgreSQL's protocol
 * to answer one connection's calls with what a real server answers rarely: a
 * cancelled wait for a standby, an error, a hang-up. */
#ifndef TESTS_COMMON_FAKE_SERVER_H
#define TESTS_COMMON_FAKE_SERVER_H

#include <pthread.h>
#include <semaphore.h>

#define FAKE_ANSWERS_MAX 4

enum answer {
    ANSWER_ROW,                  /* one column `n`, an int4: 7 */
    ANSWER_UNCONFIRMED_ROW,      /* the same, and that the commit did not wait for its
                                    standby */
    ANSWER_UNCONFIRMED_ROW_HELD, /* the same, and the end of it only after
                                    fake_server_go_on() */
    ANSWER_NOTICE,               /* the row, and a notice of no interest */
    ANSWER_ERROR,                /* DJ001, with a hint */
    ANSWER_LONG_ERROR,           /* DJ001, in 900 bytes: two to a character */
    ANSWER_NO_ROWS,
    ANSWER_HANG_UP,
    ANSWER_ROW_TO_WHAT_IS_READ_LATE, /* the row; the call is read only after fake_server_go_on() */
    ANSWER_HANG_UP_UNREAD,           /* the call never is, and it hangs up after that */
};

struct fake_server {
    char conninfo[200];
    const char *in_hot_standby;
    enum answer answers[FAKE_ANSWERS_MAX]; /* to the first, second … call; then it
                                              hangs up */
    int answer_count;
    pthread_t thread;
    int listener;
    sem_t go_on;
};

/** `in_hot_standby` is "on" or "off". */
void fake_server_start(struct fake_server *server, const char *in_hot_standby,
                       const enum answer answers[], int answer_count);
void fake_server_go_on(struct fake_server *server);

/** Waits until the client has closed the connection, or the server has hung up.
 */
void fake_server_stop(struct fake_server *server);

#endif
