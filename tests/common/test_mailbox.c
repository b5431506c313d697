#include "unit.h"

#include "common/mailbox.h"
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define THREADS 4
#define ITEMS 20000 /* of each thread */

struct item {
    struct list link;
    int thread, number;
};

static bool is_readable(const struct mailbox *mailbox, int timeout_ms) {
    struct pollfd fd = { .fd = mailbox->fd, .events = POLLIN };
    return poll(&fd, 1, timeout_ms) == 1;
}

static void a_wake_is_seen_once_and_only_where_something_was_put(void **state) {
    struct mailbox mailbox;
    struct item items[3];
    struct list taken;
    (void)state;
    list_init(&taken);
    assert_ok(mailbox_init(&mailbox));
    assert_false(is_readable(&mailbox, 0));
    for (int i = 0; i < 3; i++) {
        items[i].number = i;
        mailbox_put(&mailbox, &items[i].link);
    }
    assert_true(is_readable(&mailbox, 0));
    mailbox_take(&mailbox, &taken);
    assert_false(is_readable(&mailbox, 0));
    int next = 0;
    list_for_each(item, &taken, struct item, link) {
        assert_int_equal(item->number, next++);
    }
    assert_int_equal(next, 3);
    mailbox_done(&mailbox);
}

static void a_wake_brings_nothing(void **state) {
    struct mailbox mailbox;
    struct list taken;
    (void)state;
    list_init(&taken);
    assert_ok(mailbox_init(&mailbox));
    mailbox_wake(&mailbox);
    assert_true(is_readable(&mailbox, 0));
    mailbox_take(&mailbox, &taken);
    assert_true(list_is_empty(&taken));
    mailbox_done(&mailbox);
}

static void without_a_descriptor_there_is_no_mailbox(void **state) {
    struct mailbox mailbox;
    struct rlimit before, none;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){ .rlim_cur = 0, .rlim_max = before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    dj_status status = mailbox_init(&mailbox);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(status, DJ_UNAVAILABLE);
    assert_non_null(strstr(dj_error_message(), "eventfd"));
    mailbox_done(&mailbox);
}

struct putter {
    struct mailbox *mailbox;
    struct item *items;
};

static void *put_all(void *context) {
    const struct putter *putter = context;
    for (int i = 0; i < ITEMS; i++) {
        mailbox_put(putter->mailbox, &putter->items[i].link);
    }
    return NULL;
}

/* Whoever waits for a wake that was lost waits for ever. */
static void what_threads_put_is_taken_in_their_order_and_no_wake_is_lost(void **state) {
    struct mailbox mailbox;
    struct putter putters[THREADS];
    pthread_t threads[THREADS];
    int next[THREADS] = { 0 }, left = THREADS * ITEMS;
    (void)state;
    assert_ok(mailbox_init(&mailbox));
    for (int t = 0; t < THREADS; t++) {
        putters[t] = (struct putter){ &mailbox, calloc(ITEMS, sizeof *putters[t].items) };
        assert_non_null(putters[t].items);
        for (int i = 0; i < ITEMS; i++) {
            putters[t].items[i].thread = t;
            putters[t].items[i].number = i;
        }
        assert_int_equal(pthread_create(&threads[t], NULL, put_all, &putters[t]), 0);
    }
    while (left > 0) {
        struct list taken;
        list_init(&taken);
        assert_true(is_readable(&mailbox, 30000));
        mailbox_take(&mailbox, &taken);
        list_for_each(item, &taken, struct item, link) {
            assert_int_equal(item->number, next[item->thread]++);
            left--;
        }
    }
    for (int t = 0; t < THREADS; t++) {
        (void)pthread_join(threads[t], NULL);
        free(putters[t].items);
    }
    mailbox_done(&mailbox);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wake_is_seen_once_and_only_where_something_was_put),
        cmocka_unit_test(a_wake_brings_nothing),
        cmocka_unit_test(without_a_descriptor_there_is_no_mailbox),
        cmocka_unit_test(what_threads_put_is_taken_in_their_order_and_no_wake_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
