/* Handlers that crash the process, where the process can catch it: only the run whose thread raised
 * the signal is charged. */
#ifndef WORKER_CRASH_H
#define WORKER_CRASH_H

#include "worker/run_state.h"

/** Watches SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, and exit() called by a handler. For
 * durable-worker only: a library leaves its host's signals alone. */
void crash_watch(dj_worker *worker);

/** This thread runs handlers: it gets a stack of its own for signals, because a handler may
 * overflow its own. */
void crash_thread_begin(void);
void crash_thread_end(void);

/** This thread has this run now; NULL: none. */
void crash_note_run(dj_run *run);

/** The loop: a run has crashed and its thread waits. NULL: none. */
dj_run *crash_taken(int *ret_signal);

#endif
