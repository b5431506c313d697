/* The pool, its stacks and the mailbox back, without a worker: handlers that park and go on, on
 * whatever thread is free. */
#include "support.h"

#include "common/mailbox.h"
#include "worker/crash.h"
#include "worker/pool.h"
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#define RUNS 64
#define PARTS 50 /* of a handler: between them it is parked */
#define THREADS_MAX 4

static struct mailbox back;
static atomic_int at_work, at_work_most;
static atomic_bool held; /* threads stay before the handler */

/* In place of crash.c and run.c. */
void crash_thread_begin(void) {}
void crash_thread_end(void) {}

static void handler(void *context) {
    dj_run *run = context;
    char kept[64]; /* on the stack that is parked */
    for (int part = 0; part < PARTS; part++) {
        (void)memset(kept, part, sizeof kept);
        assert_int_equal(run->position, part);
        run->position++;
        fiber_park(run->fiber);
        assert_int_equal(kept[sizeof kept - 1], part);
    }
}

void run_execute(dj_run *run) {
    int now = atomic_fetch_add(&at_work, 1) + 1, most = atomic_load(&at_work_most);
    while (now > most && !atomic_compare_exchange_weak(&at_work_most, &most, now)) {
    }
    if (run->fiber == NULL) {
        assert_int_equal(fiber_new(&run->fiber), DJ_OK);
        run->fiber->enter = handler;
        run->fiber->argument = run;
        run->begun = true;
    }
    while (atomic_load(&held)) {
        sleep_ms(1);
    }
    if (fiber_run(run->fiber)) {
        fiber_free(run->fiber);
        run->fiber = NULL;
    }
    atomic_fetch_sub(&at_work, 1);
    mailbox_put(&back, &run->link);
}

static void wait_for_mail(void) {
    struct pollfd fd = { .fd = back.fd, .events = POLLIN };
    assert_int_equal(poll(&fd, 1, 30000), 1);
}

static void push_all(struct pool *pool, dj_run *runs, int count) {
    struct list list;
    list_init(&list);
    memset(runs, 0, (size_t)count * sizeof *runs);
    for (int i = 0; i < count; i++) {
        list_push(&list, &runs[i].link);
    }
    pool_push(pool, &list, count);
}

/* As the loop does: what comes back parked goes on, until `left` have finished. */
static void go_on(struct pool *pool, int left) {
    while (left > 0) {
        struct list taken, again;
        int count = 0;
        list_init(&taken);
        list_init(&again);
        wait_for_mail();
        mailbox_take(&back, &taken);
        list_for_each(run, &taken, dj_run, link) {
            list_remove(&run->link);
            if (run->fiber == NULL) {
                assert_int_equal(run->position, PARTS);
                left--;
            } else {
                list_push(&again, &run->link);
                count++;
            }
        }
        pool_push(pool, &again, count);
    }
}

static void parked_handlers_go_on_where_they_were_on_any_thread(void **state) {
    struct pool pool;
    dj_run runs[RUNS];
    (void)state;
    atomic_store(&at_work_most, 0);
    assert_int_equal(pool_init(&pool, THREADS_MAX), DJ_OK);
    for (int round = 0; round < 10; round++) {
        push_all(&pool, runs, RUNS);
        go_on(&pool, RUNS);
    }
    assert_int_equal(pool_waiting(&pool), 0);
    assert_in_range(atomic_load(&at_work_most), 1, THREADS_MAX);
    assert_true(pool_stop(&pool, 10000));
    fiber_trim(0);
}

static void wait_for_work(int count) {
    for (int tries = 0; atomic_load(&at_work) != count; tries++) {
        assert_in_range(tries, 0, 10000);
        sleep_ms(1);
    }
}

static void a_stuck_thread_makes_room_for_another_and_what_waits_can_be_taken_back(void **state) {
    struct pool pool;
    dj_run runs[3];
    struct list unbegun;
    (void)state;
    list_init(&unbegun);
    atomic_store(&held, true);
    assert_int_equal(pool_init(&pool, 1), DJ_OK);
    push_all(&pool, runs, 3);
    wait_for_work(1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&at_work), 1);
    assert_int_equal(pool_waiting(&pool), 2);
    pool_note_stuck(&pool, 1);
    wait_for_work(2);
    assert_int_equal(pool_waiting(&pool), 1);
    pool_take_back(&pool, &unbegun, /* only_unbegun= */ true);
    assert_ptr_equal(list_first(&unbegun, dj_run, link), &runs[2]);
    assert_int_equal(pool_waiting(&pool), 0);
    assert_false(pool_stop(&pool, 999)); /* past the end of a second, as good as ever */
    atomic_store(&held, false);
    assert_true(pool_stop(&pool, 10000));

    /* They stand after their first part; a pool of their own brings them to their ends. */
    struct pool next;
    assert_int_equal(pool_init(&next, 2), DJ_OK);
    go_on(&next, 2);
    assert_true(pool_stop(&next, 10000));
    fiber_trim(0);
}

static int open_back(void **state) {
    (void)state;
    return mailbox_init(&back) == DJ_OK ? 0 : -1;
}

static int close_back(void **state) {
    (void)state;
    mailbox_done(&back);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parked_handlers_go_on_where_they_were_on_any_thread),
        cmocka_unit_test(a_stuck_thread_makes_room_for_another_and_what_waits_can_be_taken_back),
    };
    return cmocka_run_group_tests(tests, open_back, close_back);
}
