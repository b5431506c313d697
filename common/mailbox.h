/* The one door from threads to the loop: put from anywhere, taken on the loop. A wake is a hint;
 * the loop takes all there is. */
#ifndef COMMON_MAILBOX_H
#define COMMON_MAILBOX_H

#include "common/list.h"
#include "common/status.h"
#include <pthread.h>
#include <stdbool.h>

struct mailbox {
    pthread_mutex_t mutex;
    struct list items;
    bool woken; /* a wake is on its way, and another would say nothing new */
    int fd;     /* an eventfd, readable once something was put */
};

MUST_CHECK dj_status mailbox_init(struct mailbox *mailbox);
void mailbox_done(struct mailbox *mailbox);

/** Puts an item by its link. From any thread. */
void mailbox_put(struct mailbox *mailbox, struct list *link);

/** Wakes the loop without putting anything. From any thread, and from a signal handler. */
void mailbox_wake(const struct mailbox *mailbox);

/** Moves all items, in the order in which they were put, to the end of `ret_items`. On the loop. */
void mailbox_take(struct mailbox *mailbox, struct list *ret_items);

#endif
