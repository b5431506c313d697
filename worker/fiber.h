/* A stack of its own for each handler, so that one that waits for a commit costs a parked stack and
 * not a thread. docs/decisions/0002 has the measurement. */
#ifndef WORKER_FIBER_H
#define WORKER_FIBER_H

#include "common/list.h"
#include "common/status.h"
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>

struct fiber {
    struct list link; /* among the spare ones */
    void (*enter)(void *argument);
    void *argument;
    bool finished;
    bool begun;  /* its stack has its first frame; a spare one keeps that */
    void *stack; /* the mapping, its lowest page not accessible */
    size_t stack_bytes;
    jmp_buf parked; /* where it goes on */
    jmp_buf *back;  /* where the thread goes on that runs it now */
    void *notes;    /* AddressSanitizer's of the stack that was left: ours, and the thread's */
    void *back_notes;
    const void *back_bottom;
    size_t back_bytes;
    void *tsan; /* ThreadSanitizer's, of the same two */
    void *tsan_back;
    unsigned int valgrind; /* … and valgrind's number of the stack */
};

/** Makes a fiber, or takes a spare one. DJ_NO_MEMORY. */
MUST_CHECK dj_status fiber_new(struct fiber **ret_fiber);

/** Keeps it among the spare ones, or unmaps it. Only a fiber that has finished. */
void fiber_free(struct fiber *fiber);

/** Unmaps all spare fibers but `keep`. */
void fiber_trim(int keep);

/** Runs the fiber on this thread until it parks or `enter` returns; true: it has finished. */
bool fiber_run(struct fiber *fiber);

/** Leaves the fiber for the thread that runs it. Returns when another fiber_run() goes on with it.
 */
void fiber_park(struct fiber *fiber);

#endif
