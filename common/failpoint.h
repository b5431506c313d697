/* Named points at which a test lets a process die or stand still. Nothing in ordinary builds.
 *
 * DURABLE_FAILPOINT=NAME:HIT:ACTION, as turn.sent:2:kill. Actions: kill (SIGKILL), stop (SIGSTOP).
 */
#ifndef COMMON_FAILPOINT_H
#define COMMON_FAILPOINT_H

#ifdef DURABLE_FAULT_INJECTION
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void failpoint(const char *name, atomic_int *hits) {
    const char *wanted = getenv("DURABLE_FAILPOINT");
    size_t length = strlen(name);
    if (wanted == NULL || strncmp(wanted, name, length) != 0 || wanted[length] != ':') {
        return;
    }
    char *action;
    long hit = strtol(wanted + length + 1, &action, 10);
    if (atomic_fetch_add(hits, 1) + 1 == hit) {
        (void)kill(getpid(), strcmp(action, ":stop") == 0 ? SIGSTOP : SIGKILL);
    }
}
#define FAILPOINT(name)                                                                            \
    do {                                                                                           \
        static atomic_int hits_;                                                                   \
        failpoint(name, &hits_);                                                                   \
    } while (0)
#else
#define FAILPOINT(name) ((void)0)
#endif

#endif
