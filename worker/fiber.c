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

/* Who follows what is on a stack is told of each switch. ThreadSanitizer also follows calls: so it
 * is told in the frame that leaves, as the last thing there. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define asan_leave __sanitizer_start_switch_fiber
#define asan_arrive __sanitizer_finish_switch_fiber
#else
#define asan_leave(notes, bottom, bytes) ((void)(notes), (void)(bottom), (void)(bytes))
#define asan_arrive(notes, bottom, bytes) ((void)(notes), (void)(bottom), (void)(bytes))
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define tsan_new() __tsan_create_fiber(0)
#define tsan_free(notes) __tsan_destroy_fiber(notes)
#define tsan_here() __tsan_get_current_fiber()
#define tsan_switch(notes) __tsan_switch_to_fiber(notes, 0)
#else
#define tsan_new() NULL
#define tsan_free(notes) ((void)(notes))
#define tsan_here() NULL
#define tsan_switch(notes) ((void)(notes))
#endif
#if defined(DURABLE_VALGRIND)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(bottom, top) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FIBER_STACK_BYTES (4 * (size_t)DJ_STACK_BYTES) /* instrumented frames are larger */
#else
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
    asan_leave(&fiber->notes, fiber->back_bottom, fiber->back_bytes);
    if (_setjmp(fiber->parked) == 0) {
        tsan_switch(fiber->tsan_back);
        _longjmp(*fiber->back, 1);
    }
    asan_arrive(fiber->notes, &fiber->back_bottom, &fiber->back_bytes);
}

/* The first frame of a stack, for as long as the stack is there. makecontext passes ints: a pointer
 * comes as its two halves. */
static void fiber_main(unsigned int high, unsigned int low) {
    uintptr_t whole = ((uintptr_t)high << 32) | (uintptr_t)low;
    struct fiber *fiber = (struct fiber *)whole; /* NOLINT(performance-no-int-to-ptr) */
    asan_arrive(NULL, &fiber->back_bottom, &fiber->back_bytes);
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
    fiber->valgrind =
        VALGRIND_STACK_REGISTER(stack_bottom(fiber), stack_bottom(fiber) + stack_bytes(fiber) - 1);
    fiber->tsan = tsan_new();
    fiber->tsan_back = tsan_here();
    asan_leave(&fiber->back_notes, stack_bottom(fiber), stack_bytes(fiber));
    if (_setjmp(back) == 0) {
        tsan_switch(fiber->tsan);
        check(setcontext(&there) == 0); /* does not come back here */
    }
    asan_arrive(fiber->back_notes, NULL, NULL);
}

static void fiber_unmap(struct fiber *fiber) {
    tsan_free(fiber->tsan);
    VALGRIND_STACK_DEREGISTER(fiber->valgrind);
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
    fiber->tsan_back = tsan_here();
    asan_leave(&fiber->back_notes, stack_bottom(fiber), stack_bytes(fiber));
    if (_setjmp(here) == 0) {
        tsan_switch(fiber->tsan);
        _longjmp(fiber->parked, 1);
    }
    asan_arrive(fiber->back_notes, NULL, NULL);
    return fiber->finished;
}

void fiber_park(struct fiber *fiber) {
    fiber_leave(fiber);
}
