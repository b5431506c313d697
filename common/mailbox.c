/* A list under a mutex, and an eventfd that wakes the loop once for however much is put meanwhile.
 */
#include "common/mailbox.h"

#include "common/check.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

dj_status mailbox_init(struct mailbox *mailbox) {
    *mailbox = (struct mailbox){ .mutex = PTHREAD_MUTEX_INITIALIZER };
    list_init(&mailbox->items);
    mailbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mailbox->fd < 0) {
        return dj_fail(DJ_UNAVAILABLE, "cannot make an eventfd: %s", strerror(errno));
    }
    return DJ_OK;
}

void mailbox_done(struct mailbox *mailbox) {
    if (mailbox->fd >= 0) {
        (void)close(mailbox->fd);
        mailbox->fd = -1;
    }
    (void)pthread_mutex_destroy(&mailbox->mutex);
}

void mailbox_wake(const struct mailbox *mailbox) {
    int saved = errno;
    uint64_t one = 1;
    ssize_t written = write(mailbox->fd, &one, sizeof one);
    (void)written; /* full means that it is readable, which is all we want */
    errno = saved;
}

void mailbox_put(struct mailbox *mailbox, struct list *link) {
    (void)pthread_mutex_lock(&mailbox->mutex);
    list_push(&mailbox->items, link);
    bool wake = !mailbox->woken;
    mailbox->woken = true;
    (void)pthread_mutex_unlock(&mailbox->mutex);
    if (wake) {
        mailbox_wake(mailbox);
    }
}

void mailbox_take(struct mailbox *mailbox, struct list *ret_items) {
    uint64_t count;
    ssize_t got = read(mailbox->fd, &count, sizeof count);
    (void)got; /* nothing to read: somebody else's wake was ours */
    (void)pthread_mutex_lock(&mailbox->mutex);
    mailbox->woken = false;
    list_splice(&mailbox->items, ret_items);
    (void)pthread_mutex_unlock(&mailbox->mutex);
}
