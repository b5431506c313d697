/* Threads beside the loop, for what would keep it waiting. */
#ifndef COMMON_THREAD_H
#define COMMON_THREAD_H

#include <pthread.h>

/** Begins a thread that takes no signal: they are for the program's own threads. (ThreadSanitizer
 * loses one that comes to a thread on its way out.) Answers 0, or an errno value; then `ret_thread`
 * is not set. */
int thread_begin(pthread_t *ret_thread, void *(*body)(void *context), void *context);

#endif
