#include "common/thread.h"

#include <signal.h>
#include <stddef.h>

int thread_begin(pthread_t *ret_thread, void *(*body)(void *context), void *context) {
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(ret_thread, NULL, body, context);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}
