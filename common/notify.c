/* Three words to a service manager. By hand: docs/decisions/0008-notify-by-hand.md. */
#include "common/notify.h"
#include "common/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int notify_fd = -1;
static struct sockaddr_un address;
static socklen_t address_bytes;
static int64_t alive_every_ms, alive_next_ms; /* 0: nobody watches */
static atomic_flag ready_said = ATOMIC_FLAG_INIT, stopping_said = ATOMIC_FLAG_INIT;

/* A path, or with an @ in front the name of an abstract socket, which has a zero byte there. */
static void open_socket(const char *name) {
    size_t length = name == NULL ? 0 : strlen(name);
    if (length < 2 || length >= sizeof address.sun_path || (name[0] != '/' && name[0] != '@')) {
        return;
    }
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, name, length);
    if (name[0] == '@') {
        address.sun_path[0] = '\0';
    }
    address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

void notify_open(void) {
    const char *pid = getenv("WATCHDOG_PID"), *usec = getenv("WATCHDOG_USEC");
    open_socket(getenv("NOTIFY_SOCKET"));
    if (usec != NULL && (pid == NULL || strtoll(pid, NULL, 10) == getpid())) {
        alive_every_ms = strtoll(usec, NULL, 10) / 2000;
    }
    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_PID");
    (void)unsetenv("WATCHDOG_USEC");
}

/* Without waiting: a manager that does not read must not hold the loop. */
static void say(const char *words) {
    int saved = errno;
    if (notify_fd >= 0) {
        (void)sendto(notify_fd, words, strlen(words), MSG_DONTWAIT | MSG_NOSIGNAL,
                     (const struct sockaddr *)&address, address_bytes);
    }
    errno = saved;
}

void notify_ready(void) {
    if (!atomic_flag_test_and_set(&ready_said)) {
        say("READY=1");
    }
}

void notify_stopping(void) {
    if (!atomic_flag_test_and_set(&stopping_said)) {
        say("STOPPING=1");
    }
}

void notify_alive(void) {
    int64_t now = alive_every_ms > 0 ? clock_ms() : 0;
    if (alive_every_ms > 0 && now >= alive_next_ms) {
        alive_next_ms = now + alive_every_ms;
        say("WATCHDOG=1");
    }
}
