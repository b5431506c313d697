/* The pieces of durable dev: its private PostgreSQL, and its child processes. */
#ifndef CLI_DEV_H
#define CLI_DEV_H

#include "common/status.h"
#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct child {
    const char *name;
    char **argv; /* owned by whoever started it */
    char log[PATH_MAX];
    pid_t pid; /* 0: not running */
    int stop_signal;
    int death_signal; /* what it gets if we are killed */
    uid_t uid;        /* 0: as we are */
    gid_t gid;
    const char *user;
};

struct dev_postgres {
    char bindir[PATH_MAX];
    char data[PATH_MAX];
    char password[48];
    char url[256];
    int port;
    struct child server;
    char *argv[16];
    char arguments[4][PATH_MAX + 64];
};

/** Starts a child; its output goes to its log. It dies with us. */
MUST_CHECK dj_status child_start(struct child *child);

/** Asks it to stop, and waits; after `timeout_ms` it is killed. */
void child_stop(struct child *child, int timeout_ms);

/** Takes in a child that has ended by itself. True: this one has. */
bool child_has_ended(struct child *child);

/** Finds PostgreSQL's programs, makes the cluster in DIR where there is none, and starts the
 * server. DIR is absolute. As root the server runs as user postgres. */
MUST_CHECK dj_status dev_postgres_start(struct dev_postgres *postgres, const char *dir);
void dev_postgres_stop(struct dev_postgres *postgres);

/** True if nothing listens on 127.0.0.1:port. */
bool port_is_free(int port);

#endif
