/* A stack of its own for each handler, so that one that waits for a commit costs a parked stack and
 * not a thread. docs/decisions/0002 has the measurement. */
#ifndef WORKER_FIBER_H
#define WORKER_FIBER_H

#include "common/list.h"
#include "common/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <ucontext.h>

struct fiber {
    struct list link; /* among the spare ones */
    ucontext_t context;
    ucontext_t *back; /* the thread that runs it now */
    void (*enter)(void *argument);
    void *argument;
    void *stack; /* the mapping, its lowest page not accessible */
    size_t stack_bytes;
    bool finished;
    void *sanitizer_stack; /* AddressSanitizer's notes about a stack that is left */
    const void *back_bottom;
    size_t back_bytes;
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
