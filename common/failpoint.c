/* What a failpoint does when its hit has come. On whatever thread reaches it. */
#include "common/failpoint.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The linker puts these around the section, if there is one. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): the linker's names */
extern struct failpoint *__start_failpoints[] __attribute__((weak, visibility("hidden")));
extern struct failpoint *__stop_failpoints[] __attribute__((weak, visibility("hidden")));
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

static void sleep_ms(long ms) {
    struct timespec rest = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000 };
    (void)nanosleep(&rest, NULL);
}

const char *failpoint_due(struct failpoint *point) {
    size_t length = strlen(point->name);
    int hit = atomic_fetch_add(&point->hits, 1) + 1;
    const char *wanted = getenv("DURABLE_FAILPOINT"); /* NOLINT(concurrency-mt-unsafe): never set */
    while (wanted != NULL && *wanted != '\0') {
        char *action;
        if (strncmp(wanted, point->name, length) == 0 && wanted[length] == ':' &&
            strtol(wanted + length + 1, &action, 10) == hit && *action == ':') {
            return wanted;
        }
        wanted += strcspn(wanted, ",");
        wanted += *wanted == ',';
    }
    return NULL;
}

/* With `tally` among the parts of DURABLE_FAILPOINT, when the process ends by itself: how often
 * each point was passed. */
__attribute__((destructor)) static void tally(void) {
    const char *wanted = getenv("DURABLE_FAILPOINT"); /* NOLINT(concurrency-mt-unsafe): never set */
    if (wanted == NULL || strstr(wanted, "tally") == NULL) {
        return;
    }
    for (struct failpoint **point = __start_failpoints; point < __stop_failpoints; point++) {
        (void)dprintf(STDERR_FILENO, "failpoint.passed %s %d\n", (*point)->name,
                      atomic_load(&(*point)->hits));
    }
}

enum failpoint_action failpoint_act(const struct failpoint *point, const char *due) {
    char text[128], *word;
    (void)snprintf(text, sizeof text, "%.*s", (int)strcspn(due, ","), due);
    (void)dprintf(STDERR_FILENO, "failpoint.reached %s\n", text);
    word = strrchr(text, ':') + 1; /* it was looked for */
    bool known = strstr(point->actions, strncmp(word, "sleep=", 6) == 0 ? "sleep" : word) != NULL;
    if (known && strcmp(word, "kill") == 0) {
        (void)kill(getpid(), SIGKILL);
    } else if (known && strcmp(word, "stop") == 0) {
        (void)kill(getpid(), SIGSTOP);
    } else if (known && strncmp(word, "sleep=", 6) == 0) {
        sleep_ms(strtol(word + 6, NULL, 10));
    } else if (known) {
        return strcmp(word, "cut") == 0    ? FAILPOINT_CUT
               : strcmp(word, "drop") == 0 ? FAILPOINT_DROP
                                           : FAILPOINT_ERROR;
    } else {
        (void)dprintf(STDERR_FILENO, "%s has no action %s; it has: %s\n", point->name, word,
                      point->actions);
        _exit(64);
    }
    return FAILPOINT_NONE;
}

void failpoint_cut(enum failpoint_action action, int socket) {
    (void)shutdown(socket, action == FAILPOINT_DROP ? SHUT_RD : SHUT_RDWR);
}

void failpoints_list(int argc, char **argv) {
    if (argc != 2 || strcmp(argv[1], "--failpoints") != 0) {
        return;
    }
    for (struct failpoint **point = __start_failpoints; point < __stop_failpoints; point++) {
        (void)printf("%s %s\n", (*point)->name, (*point)->actions);
    }
    exit(EXIT_SUCCESS);
}
