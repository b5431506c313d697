/* What tests share: databases, SQL, child processes, private clusters. Everything that fails here
 * fails the test, with the server's words. All that a test program started is gone when it is. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <sys/types.h>

/** A database of this test program's own, migrated; dropped at the end. The URL is valid for the
 * program's life. */
const char *database_new(void);

PGconn *connect_to(const char *url);
const char *last_url(void); /* that it was given */

/** Runs SQL (printf-like) that has to work. */
void sql(PGconn *conn, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** … and answers its one value, as a number or as a text (valid until the fourth next call). NULL
 * is 0 or "". */
long long sql_int(PGconn *conn, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *sql_text(PGconn *conn, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Runs SQL that has to fail with this SQLSTATE; answers the message. */
const char *sql_error(PGconn *conn, const char *sqlstate, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Waits until a condition holds; fails the test after `seconds`. */
void wait_until(PGconn *conn, double seconds, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Waits until the session is blocked by a lock, or has answered (false). */
bool is_blocked(PGconn *watcher, PGconn *session);

void sleep_ms(int ms);

/** Makes the table `effect`, where the steps of the test module write each call. */
void record_calls(PGconn *conn);

/** Looks at it for the steps s1, s2 …: none was called after it was committed, and none after a
 * later one of its run had begun. */
void check_calls(PGconn *conn);

/** A group's teardown: looks at what has to be true of the database that connect_to() was last
 * given, at any instant and whatever crashed (invariants.c). */
int invariants_hold(void **state);

/** … each a promise, and a query for the ids of those that break it. */
extern const struct invariant {
    const char *promise;
    const char *offenders;
} invariants[];
extern const size_t invariants_count;

/** Starts a program of ours: "durable-worker", "durable-scheduler", with DURABLE_DATABASE_URL=url.
 * `failpoint` may be NULL; arguments end with NULL. Workers get the test module. */
pid_t spawn(const char *url, const char *failpoint, const char *program, ...)
    __attribute__((sentinel));
pid_t spawn_worker(const char *url, const char *failpoint);
pid_t spawn_scheduler(const char *url);

/** A port of 127.0.0.1 that nobody listens at just now. */
int free_port(void);

/** Serves handlers over HTTP on a free port (endpoint.py), and registers them as the endpoint
 * "test" with all its jobs. Each call that is signed well leaves a line in the file at
 * endpoint_calls(). */
pid_t spawn_endpoint(PGconn *conn, int *ret_port);
pid_t endpoint_again(int port);                     /* the same one, after it was ended */
pid_t spawn_handlers(int port, const char *secret); /* … with a secret that is there already */
const char *endpoint_calls(void);

/** Ends a process and waits for it; answers its exit status, or minus the signal that ended it. */
int end_process(pid_t pid, int signal);
#define WORKER_SESSIONS 3
/** Stops the sessions that a worker has in PostgreSQL: no answer comes to it. thaw_sessions() lets
 * them go on. */
void freeze_sessions(PGconn *conn, pid_t worker, pid_t ret_sessions[WORKER_SESSIONS]);
void thaw_sessions(const pid_t sessions[WORKER_SESSIONS]);
/** Waits for its end by itself, for up to `seconds`. */
int wait_process(pid_t pid, double seconds);

/** What a command of the shell said. */
struct said {
    int status; /**< its exit status */
    char out[65536], err[8192];
};

/** Runs a command (printf-like) in the shell, and waits for it. */
void shell_said(struct said *said, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** … and `durable` with its arguments, on a database. */
void durable(struct said *said, const char *url, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** A private PostgreSQL, for tests that crash it. Its database is migrated. */
struct cluster {
    char dir[64];
    char url[160];
    int port;
};
void cluster_start(struct cluster *cluster);
void cluster_restart(struct cluster *cluster, const char *mode); /* "fast", "immediate" */
void cluster_stop(struct cluster *cluster, const char *mode);
void cluster_go_on(struct cluster *cluster);
void cluster_drop(struct cluster *cluster);

/** Puts shim.c under every program that is started from now on, a cluster too, until shim_off().
 * It changes nothing until the struct says so (shim.h). */
struct shim *shim_on(void);
void shim_off(void);

/** The worker's protocol by hand. */
const char *worker_new(PGconn *conn, const char *job); /* its id */

#endif
