/* Named points at which a test lets a process die, stand still, or miss an answer. Nothing in
 * ordinary builds.
 *
 * DURABLE_FAILPOINT=NAME:HIT:ACTION, as turn.sent:2:kill. Actions: kill (SIGKILL), stop (SIGSTOP),
 * and at points with a socket deaf: what was sent arrives, and the answer is never heard. */
#ifndef COMMON_FAILPOINT_H
#define COMMON_FAILPOINT_H

#ifdef DURABLE_FAULT_INJECTION
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static inline void failpoint(const char *name, atomic_int *hits, int socket) {
    const char *wanted = getenv("DURABLE_FAILPOINT");
    size_t length = strlen(name);
    if (wanted == NULL || strncmp(wanted, name, length) != 0 || wanted[length] != ':') {
        return;
    }
    char *action;
    long hit = strtol(wanted + length + 1, &action, 10);
    if (atomic_fetch_add(hits, 1) + 1 != hit) {
        return;
    }
    if (strcmp(action, ":deaf") == 0) {
        (void)shutdown(socket, SHUT_RD);
    } else {
        (void)kill(getpid(), strcmp(action, ":stop") == 0 ? SIGSTOP : SIGKILL);
    }
}
#define FAILPOINT_SOCKET(name, socket)                                                             \
    do {                                                                                           \
        static atomic_int hits_;                                                                   \
        failpoint(name, &hits_, socket);                                                           \
    } while (0)
#else
#define FAILPOINT_SOCKET(name, socket) ((void)0)
#endif
#define FAILPOINT(name) FAILPOINT_SOCKET(name, -1)

#endif
