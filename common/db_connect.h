/* A connection that a loop asks for: made on a thread of its own, because libpq resolves names
 * blocking, and handed back through a mailbox. */
#ifndef COMMON_DB_CONNECT_H
#define COMMON_DB_CONNECT_H

#include "common/list.h"
#include "common/mailbox.h"
#include "common/status.h"
#include <libpq-fe.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* One attempt, embedded in its owner's: filled on its thread, read on the loop. */
struct db_connect {
    struct list link;
    struct mailbox *mailbox;
    /* On the thread: opens `conn`, and makes its session ready. Whatever it leaves there when it
     * fails is closed. */
    dj_status (*open)(struct db_connect *connect);
    PGconn *conn;
    dj_status status;
    char message[512]; /* why there is no connection */
    pthread_t thread;
    bool threaded;
};

/** Begins; `connect` is put into the mailbox when it is over, well or not. On the loop. */
void db_connect_begin(struct db_connect *connect, dj_status (*open)(struct db_connect *connect),
                      struct mailbox *mailbox);

/** The next of the finished ones that were taken out of the mailbox, whose thread is gone; NULL:
 * none. */
struct db_connect *db_connect_taken(struct list *finished);

/** One that is not finished, as far as we know, is left to itself: the process is about to end. */
void db_connect_abandon(struct db_connect *connect);

/** How long to wait before the next attempt: longer after each failure, with jitter, so that a
 * fleet does not storm a database that has just come up. */
int64_t db_connect_delay_ms(int failures);

#endif
