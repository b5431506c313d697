#include "common/db_connect.h"

#include "common/auto.h"
#include "common/clock.h"
#include "common/db_conn.h"
#include "common/thread.h"
#include <stdio.h>
#include <string.h>

#define DELAY_MS_MIN 100
#define DELAY_MS_MAX 5000

static void *connect_thread(void *context) {
    struct db_connect *connect = context;
    connect->status = connect->open(connect);
    if (connect->status != DJ_OK) {
        (void)snprintf(connect->message, sizeof connect->message, "%s", dj_error_message());
        db_conn_close(TAKE(connect->conn));
    }
    mailbox_put(connect->mailbox, &connect->link);
    return NULL;
}

void db_connect_begin(struct db_connect *connect, dj_status (*open)(struct db_connect *connect),
                      struct mailbox *mailbox) {
    connect->open = open;
    connect->mailbox = mailbox;
    connect->threaded = true; /* before the thread is there, which may be done at once */
    int error = thread_begin(&connect->thread, connect_thread, connect);
    if (error != 0) {
        connect->threaded = false;
        connect->status = DJ_UNAVAILABLE;
        (void)snprintf(connect->message, sizeof connect->message, "cannot start a thread: %s",
                       strerror(error));
        mailbox_put(mailbox, &connect->link);
    }
}

struct db_connect *db_connect_taken(struct list *finished) {
    if (list_is_empty(finished)) {
        return NULL;
    }
    struct db_connect *connect = list_first(finished, struct db_connect, link);
    list_remove(&connect->link);
    if (connect->threaded) {
        (void)pthread_join(connect->thread, NULL); /* its last act was to put it here */
    }
    return connect;
}

void db_connect_abandon(struct db_connect *connect) {
    if (connect->threaded) {
        (void)pthread_detach(connect->thread);
    }
}

int64_t db_connect_delay_ms(int failures) {
    int64_t ms = failures > 6 ? DELAY_MS_MAX : DELAY_MS_MIN << failures;
    return with_jitter(ms < DELAY_MS_MAX ? ms : DELAY_MS_MAX);
}
