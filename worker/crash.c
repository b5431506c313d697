/* The thread that crashed says which run it had, wakes the loop, and stands still. The loop tells
 * the database, which charges that run and gives the others back, and then lets the signal take its
 * course. If the loop cannot (the heap may be broken, a lock held), an alarm ends the process, and
 * the reaper charges all that it had. */
#include "worker/crash.h"

#include "worker/fleet.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALARM_S 3
#define SIGNAL_STACK_BYTES (64 * 1024)

static _Thread_local dj_run *current;
static _Thread_local void *signal_stack;
static dj_worker *watched;
static _Atomic(dj_run *) crashed;
static atomic_int crashed_by;

void crash_note_run(dj_run *run) {
    current = run;
}

dj_run *crash_taken(int *ret_signal) {
    *ret_signal = atomic_load(&crashed_by);
    return atomic_load(&crashed);
}

/* Hands the run to the loop; does not return if this thread has one. */
static void stand_still(int number) {
    dj_run *none = NULL;
    if (current == NULL || watched == NULL) {
        return;
    }
    atomic_store(&crashed_by, number);
    if (atomic_compare_exchange_strong(&crashed, &none, current)) {
        (void)alarm(ALARM_S);
        mailbox_wake(&watched->outcomes);
    }
    for (;;) {
        (void)pause();
    }
}

static void on_crash(int number) {
    stand_still(number);
    (void)signal(number, SIG_DFL); /* not a handler's thread: as it would have been */
    (void)raise(number);
}

static void on_exit_called(void) {
    stand_still(SIGABRT);
}

void crash_watch(dj_worker *worker) {
    static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
    struct sigaction action;
    watched = worker;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_crash;
    action.sa_flags = SA_ONSTACK | SA_NODEFER;
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        (void)sigaction(signals[i], &action, NULL);
    }
    (void)atexit(on_exit_called);
}

void crash_thread_begin(void) {
    signal_stack = watched == NULL ? NULL : malloc(SIGNAL_STACK_BYTES);
    if (signal_stack != NULL) {
        stack_t stack = { .ss_sp = signal_stack, .ss_size = SIGNAL_STACK_BYTES };
        (void)sigaltstack(&stack, NULL);
    }
}

void crash_thread_end(void) {
    if (signal_stack != NULL) {
        stack_t none = { .ss_flags = SS_DISABLE };
        (void)sigaltstack(&none, NULL);
        free(signal_stack);
        signal_stack = NULL;
    }
}
