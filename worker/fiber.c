/* Stacks by mmap with a guard page. A stack is entered once, by ucontext; after that every switch
 * is a _setjmp and a _longjmp, which leave the signal mask alone: no assembly of our own, and no
 * system call in a switch (swapcontext makes one each way).
 *
 * A fiber may go on on another thread than the one it parked on. What makes that safe here: all
 * that is shared was handed over through a mutex, and the headers tell handlers what it asks of
 * them. */
#undef _FORTIFY_SOURCE /* its longjmp takes the other stack for a broken one */
#include "worker/fiber.h"

#include "common/check.h"
#include <durable/worker.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define FIBER_STACK_BYTES (4 * (size_t)DJ_STACK_BYTES) /* instrumented frames are larger */
#else
#define __sanitizer_start_switch_fiber(save, bottom, size)                                         \
    ((void)(save), (void)(bottom), (void)(size))
#define __sanitizer_finish_switch_fiber(save, bottom, size)                                        \
    ((void)(save), (void)(bottom), (void)(size))
#define FIBER_STACK_BYTES ((size_t)DJ_STACK_BYTES)
#endif

#define FIBER_SPARE_MAX 1024 /* of an idle worker: one, see fiber_trim() */

static pthread_mutex_t spare_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct list spare = { &spare, &spare };
static int spare_count;

static char *stack_bottom(const struct fiber *fiber) {
    return (char *)fiber->stack + sysconf(_SC_PAGESIZE);
}

static size_t stack_bytes(const struct fiber *fiber) {
    return fiber->stack_bytes - (size_t)sysconf(_SC_PAGESIZE);
}

/* To the thread that runs the fiber, until it is to go on. */
static void fiber_leave(struct fiber *fiber) {
    __sanitizer_start_switch_fiber(&fiber->notes, fiber->back_bottom, fiber->back_bytes);
    if (_setjmp(fiber->parked) == 0) {
        _longjmp(*fiber->back, 1);
    }
    __sanitizer_finish_switch_fiber(fiber->notes, &fiber->back_bottom, &fiber->back_bytes);
}

/* The first frame of a stack, for as long as the stack is there. makecontext passes ints: a pointer
 * comes as its two halves. */
static void fiber_main(unsigned int high, unsigned int low) {
    struct fiber *fiber = (struct fiber *)(((uintptr_t)high << 32) | (uintptr_t)low);
    __sanitizer_finish_switch_fiber(NULL, &fiber->back_bottom, &fiber->back_bytes);
    for (;;) {
        fiber_leave(fiber);
        fiber->enter(fiber->argument);
        fiber->finished = true;
    }
}

/* Gives a new stack its first frame, which parks at once. */
static void fiber_found(struct fiber *fiber) {
    ucontext_t there;
    jmp_buf back;
    check(getcontext(&there) == 0);
    there.uc_stack.ss_sp = stack_bottom(fiber);
    there.uc_stack.ss_size = stack_bytes(fiber);
    there.uc_link = NULL;
    makecontext(&there, (void (*)(void))fiber_main, 2, (unsigned int)((uintptr_t)fiber >> 32),
                (unsigned int)(uintptr_t)fiber);
    fiber->back = &back;
    __sanitizer_start_switch_fiber(&fiber->back_notes, stack_bottom(fiber), stack_bytes(fiber));
    if (_setjmp(back) == 0) {
        check(setcontext(&there) == 0); /* does not come back here */
    }
    __sanitizer_finish_switch_fiber(fiber->back_notes, NULL, NULL);
}

static void fiber_unmap(struct fiber *fiber) {
    (void)munmap(fiber->stack, fiber->stack_bytes);
    free(fiber);
}

dj_status fiber_new(struct fiber **ret_fiber) {
    struct fiber *fiber = NULL;
    (void)pthread_mutex_lock(&spare_mutex);
    if (!list_is_empty(&spare)) {
        fiber = list_first(&spare, struct fiber, link);
        list_remove(&fiber->link);
        spare_count--;
    }
    (void)pthread_mutex_unlock(&spare_mutex);
    if (fiber == NULL) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        size_t bytes = FIBER_STACK_BYTES + page;
        void *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) {
            return dj_fail(DJ_NO_MEMORY, "no memory for a handler's stack: %s", strerror(errno));
        }
        fiber = calloc(1, sizeof *fiber);
        if (fiber == NULL || mprotect(stack, page, PROT_NONE) != 0) {
            free(fiber);
            (void)munmap(stack, bytes);
            return dj_fail(DJ_NO_MEMORY, "no memory for a handler's stack");
        }
        fiber->stack = stack;
        fiber->stack_bytes = bytes;
        fiber_found(fiber);
    }
    fiber->finished = false;
    *ret_fiber = fiber;
    return DJ_OK;
}

void fiber_free(struct fiber *fiber) {
    assert(fiber->finished);
    (void)pthread_mutex_lock(&spare_mutex);
    bool keep = spare_count < FIBER_SPARE_MAX;
    if (keep) {
        list_push_front(&spare, &fiber->link); /* the warm ones first */
        spare_count++;
    }
    (void)pthread_mutex_unlock(&spare_mutex);
    if (!keep) {
        fiber_unmap(fiber);
    }
}

void fiber_trim(int keep) {
    struct list gone;
    list_init(&gone);
    (void)pthread_mutex_lock(&spare_mutex);
    while (spare_count > keep) {
        struct fiber *fiber = list_first(&spare, struct fiber, link);
        list_remove(&fiber->link);
        list_push(&gone, &fiber->link);
        spare_count--;
    }
    (void)pthread_mutex_unlock(&spare_mutex);
    while (!list_is_empty(&gone)) {
        struct fiber *fiber = list_first(&gone, struct fiber, link);
        list_remove(&fiber->link);
        fiber_unmap(fiber);
    }
}

bool fiber_run(struct fiber *fiber) {
    jmp_buf here;
    fiber->back = &here;
    __sanitizer_start_switch_fiber(&fiber->back_notes, stack_bottom(fiber), stack_bytes(fiber));
    if (_setjmp(here) == 0) {
        _longjmp(fiber->parked, 1);
    }
    __sanitizer_finish_switch_fiber(fiber->back_notes, NULL, NULL);
    return fiber->finished;
}

void fiber_park(struct fiber *fiber) {
    fiber_leave(fiber);
}
