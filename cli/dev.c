/* durable dev: everything on one machine. A private PostgreSQL in --dir, migrated; a scheduler; a
 * worker with the modules that were named. Ctrl-C stops all of it, and what was there goes on at
 * the next start. */
#include "cli/dev.h"

#include "cli/commands.h"
#include "cli/migrate.h"
#include "common/auto.h"
#include "common/config.h"
#include "common/db_calls.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include "common/log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READY_TRIES 200 /* of 100 ms */

struct dev {
    char dir[PATH_MAX];
    int port;
    struct config_texts modules, endpoints;
    const char *lease_ttl, *threads;
    struct dev_postgres postgres;
    struct child scheduler, worker, server;
    char programs[3][PATH_MAX];
    char listen[32];
    char *scheduler_argv[4];
    char *server_argv[5];
    char public_url[48];
    char api_key[128];
    bool synced[CONFIG_TEXTS_MAX]; /* the server knows the jobs of that --endpoint */
    char *worker_argv[2 * CONFIG_TEXTS_MAX + 8];
};

/* A program of ours: beside this one, or where the build puts it. */
static dj_status find_program(const char *name, const char *build_folder, char out[PATH_MAX]) {
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) {
        *slash = '\0';
        (void)snprintf(out, PATH_MAX, "%.3800s/%s", self, name);
        if (access(out, X_OK) == 0) {
            return DJ_OK;
        }
        (void)snprintf(out, PATH_MAX, "%.3800s/../%s/%s", self, build_folder, name);
        if (access(out, X_OK) == 0) {
            return DJ_OK;
        }
    }
    return dj_fail(DJ_NOT_FOUND,
                   "%s is not found beside this program; install all of Durable Jobs, or build it",
                   name);
}

/* DIR, absolute, made where it is not there; and ours alone. */
static dj_status open_dir(struct dev *dev, const char *dir, int *ret_lock) {
    char lock_path[PATH_MAX + 16];
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        return dj_fail(DJ_INVALID_ARGUMENT, "--dir %s cannot be made: %s", dir, strerror(errno));
    }
    if (realpath(dir, dev->dir) == NULL || strlen(dev->dir) > 3800) {
        return dj_fail(DJ_INVALID_ARGUMENT, "--dir %s cannot be used: %s", dir, strerror(errno));
    }
    (void)snprintf(lock_path, sizeof lock_path, "%s/lock", dev->dir);
    *ret_lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*ret_lock < 0) {
        return dj_fail(DJ_INVALID_ARGUMENT, "--dir %s cannot be written: %s", dir, strerror(errno));
    }
    if (flock(*ret_lock, LOCK_EX | LOCK_NB) != 0) {
        return dj_fail(DJ_NOT_ALLOWED,
                       "another durable dev uses %s; stop it, or choose another --dir", dev->dir);
    }
    return DJ_OK;
}

/* A key with all scopes, made in the database that was just set up. */
static dj_status make_key(const struct dev *dev, char out[128]) {
    PGconn *conn;
    struct db_params params;
    AUTO(pgresult) PGresult *rows = NULL;
    const char *text;
    size_t length;
    DJ_TRY(db_session_open(dev->postgres.url, "durable dev", &conn));
    params_init(&params);
    params_add_text(&params, "default");
    params_add_text(&params, "durable-dev");
    params_add_text(&params, "read,start,operate,admin,payloads");
    dj_status status = db_exec(conn, &CALL_KEY_CREATE, &params, &rows);
    params_done(&params);
    if (status == DJ_OK) {
        status = rows_text(rows, 0, 0, &text, &length);
    }
    if (status == DJ_OK) {
        (void)snprintf(out, 128, "%s", text);
    }
    db_conn_close(conn);
    return status;
}

/* The key that programs show to the server. Kept: what was told stays true. */
static dj_status api_key(const struct dev *dev, char out[128]) {
    char path[PATH_MAX + 16];
    (void)snprintf(path, sizeof path, "%s/api_key", dev->dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ssize_t length = fd < 0 ? -1 : read(fd, out, 127);
    out[length > 0 ? length : 0] = '\0';
    dj_status status = DJ_OK;
    if (length >= 0 && strncmp(out, "dj_", 3) != 0) { /* none yet, or one of an older version */
        status = make_key(dev, out);
        length = (ssize_t)strlen(out);
        if (status == DJ_OK &&
            (ftruncate(fd, 0) != 0 || pwrite(fd, out, (size_t)length, 0) != length)) {
            length = -1;
        }
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    DJ_TRY(status);
    return length > 0
               ? DJ_OK
               : dj_fail(DJ_UNAVAILABLE, "cannot keep a key in %s: %s", path, strerror(errno));
}

/* Registers each --endpoint, and keeps what was there: its secret stays the same. `env` has the
 * secret of the first one, for handlers to check calls with. */
static dj_status register_endpoints(const struct dev *dev, FILE *env) {
    PGconn *conn;
    DJ_TRY(db_session_open(dev->postgres.url, "durable dev", &conn));
    dj_status status = DJ_OK;
    for (int i = 0; i < dev->endpoints.count && status == DJ_OK; i++) {
        char name[32];
        const char *secret;
        size_t length;
        struct db_params params;
        AUTO(pgresult) PGresult *rows = NULL;
        (void)snprintf(name, sizeof name, "dev-%d", i + 1);
        params_init(&params);
        params_add_text(&params, name);
        params_add_text(&params, dev->endpoints.texts[i]);
        status = db_exec(conn, &CALL_ENDPOINT_KEEP, &params, &rows);
        params_done(&params);
        if (status == DJ_OK) {
            status = rows_text(rows, 0, 0, &secret, &length);
        }
        if (status == DJ_OK && i == 0) {
            (void)fprintf(env, "STACKSHIFT_SIGNING_SECRET=%s\n", secret);
        }
    }
    db_conn_close(conn);
    return status;
}

static dj_status write_env(struct dev *dev) {
    char path[PATH_MAX + 8];
    DJ_TRY(api_key(dev, dev->api_key));
    (void)snprintf(path, sizeof path, "%s/env", dev->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    if (out == NULL) {
        return dj_fail(DJ_UNAVAILABLE, "cannot write %s: %s", path, strerror(errno));
    }
    (void)fprintf(
        out, "DURABLE_DATABASE_URL=%s\nSTACKSHIFT_URL=http://127.0.0.1:%d\nSTACKSHIFT_API_KEY=%s\n",
        dev->postgres.url, dev->port, dev->api_key);
    dj_status status = register_endpoints(dev, out);
    bool written = fclose(out) == 0;
    DJ_TRY(status);
    return written ? DJ_OK : dj_fail(DJ_UNAVAILABLE, "cannot write %s: %s", path, strerror(errno));
}

static dj_status migrate_database(const struct dev *dev) {
    PGconn *conn;
    int applied;
    DJ_TRY(db_session_open(dev->postgres.url, "durable dev", &conn));
    dj_status status = migrate(conn, &applied);
    db_conn_close(conn);
    return status;
}

static dj_status start_programs(struct dev *dev) {
    DJ_TRY(find_program("durable-scheduler", "server/scheduler", dev->programs[0]));
    DJ_TRY(find_program("durable-worker", "worker", dev->programs[1]));
    (void)setenv("DURABLE_DATABASE_URL", dev->postgres.url,
                 1); /* not in argv: everybody can read that */
    dev->scheduler = (struct child){ .name = "durable-scheduler",
                                     .stop_signal = SIGTERM,
                                     .death_signal = SIGTERM };
    dev->worker =
        (struct child){ .name = "durable-worker", .stop_signal = SIGTERM, .death_signal = SIGTERM };
    (void)snprintf(dev->scheduler.log, sizeof dev->scheduler.log, "%.4000s/scheduler.log",
                   dev->dir);
    (void)snprintf(dev->worker.log, sizeof dev->worker.log, "%.4000s/worker.log", dev->dir);
    DJ_TRY(find_program("durable-server", "server/api", dev->programs[2]));
    dev->server =
        (struct child){ .name = "durable-server", .stop_signal = SIGTERM, .death_signal = SIGTERM };
    (void)snprintf(dev->server.log, sizeof dev->server.log, "%.4000s/server.log", dev->dir);
    (void)snprintf(dev->listen, sizeof dev->listen, "127.0.0.1:%d", dev->port);
    dev->server_argv[0] = dev->programs[2];
    dev->server_argv[1] = "--listen";
    dev->server_argv[2] = dev->listen;
    dev->server_argv[3] = "--allow-private"; /* handlers are on this machine too */
    dev->server.argv = dev->server_argv;
    DJ_TRY(child_start(&dev->server));
    dev->scheduler_argv[0] = dev->programs[0];
    dev->scheduler.argv = dev->scheduler_argv;
    DJ_TRY(child_start(&dev->scheduler));
    (void)snprintf(dev->public_url, sizeof dev->public_url, "http://127.0.0.1:%d", dev->port);
    (void)setenv("DURABLE_PUBLIC_URL", dev->public_url, 1);
    int count = 0;
    dev->worker_argv[count++] = dev->programs[1];
    for (int i = 0; i < dev->modules.count; i++) {
        dev->worker_argv[count++] = "--module";
        dev->worker_argv[count++] = (char *)dev->modules.texts[i];
    }
    (void)unsetenv("DURABLE_MODULE"); /* said by flags now */
    dev->worker.argv = dev->worker_argv;
    return child_start(&dev->worker);
}

/* Asks the server, and puts the beginning of what it answers into `answer`. */
static bool ask_server(int port, const char *question, char *answer, size_t size) {
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval patience = { .tv_sec = 1 };
    size_t length = 0;
    AUTO(fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
        connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        send(fd, question, strlen(question), MSG_NOSIGNAL) < 0) {
        return false;
    }
    for (ssize_t got = 1; got > 0 && length<size - 1; length += got> 0 ? (size_t)got : 0) {
        got = recv(fd, answer + length, size - 1 - length, 0);
    }
    answer[length] = '\0';
    return strncmp(answer, "HTTP/1.1 200", 12) == 0;
}

/* Asks the server whether it can work. */
static bool server_is_ready(int port) {
    char answer[16];
    return ask_server(port, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                      answer, sizeof answer);
}

/* Lets the server look at the jobs of an --endpoint, which may come up later than we. */
static void sync_endpoints(struct dev *dev) {
    for (int i = 0; i < dev->endpoints.count; i++) {
        char question[512], answer[8192];
        (void)snprintf(
            question, sizeof question,
            "POST /v1/endpoints/dev-%d/sync HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            "Authorization: Bearer %s\r\nContent-Length: 0\r\n\r\n",
            i + 1, dev->api_key);
        dev->synced[i] =
            dev->synced[i] || (ask_server(dev->port, question, answer, sizeof answer) &&
                               strstr(answer, "\"syncError\"") == NULL);
    }
}

static dj_status wait_for_server(struct dev *dev) {
    for (int tries = 0; tries < READY_TRIES; tries++) {
        struct timespec rest = { .tv_nsec = 100000000 };
        if (server_is_ready(dev->port)) {
            return DJ_OK;
        }
        if (child_has_ended(&dev->server)) {
            break;
        }
        (void)nanosleep(&rest, NULL);
    }
    return dj_fail(DJ_UNAVAILABLE, "the server does not come up; %s says why", dev->server.log);
}

/* A module that does not load ends the worker at once: then its own words are the best. */
static dj_status check_modules(const struct dev *dev) {
    for (int i = 0; i < dev->modules.count; i++) {
        if (access(dev->modules.texts[i], R_OK) != 0) {
            return dj_fail(DJ_INVALID_ARGUMENT, "--module %s cannot be read: %s",
                           dev->modules.texts[i], strerror(errno));
        }
    }
    return DJ_OK;
}

/* Until ctrl-C or SIGTERM. A child that ends by itself is started again, with a rest. */
static void watch(struct dev *dev, const sigset_t *set) {
    struct child *children[] = { &dev->scheduler, &dev->worker, &dev->server };
    for (;;) {
        struct timespec second = { .tv_sec = 1 };
        if (sigtimedwait(set, NULL, &second) > 0) {
            return;
        }
        sync_endpoints(dev);
        for (int i = 0; i < 3; i++) {
            if (child_has_ended(children[i])) {
                (void)fprintf(stderr,
                              "durable dev: %s ended by itself; starting it again. %s says why\n",
                              children[i]->name, children[i]->log);
                if (child_start(children[i]) != DJ_OK) {
                    (void)fprintf(stderr, "durable dev: %s\n", dj_error_message());
                }
            }
        }
        if (child_has_ended(&dev->postgres.server)) {
            (void)fprintf(stderr, "durable dev: PostgreSQL ended; starting it again. %s says why\n",
                          dev->postgres.server.log);
            (void)!child_start(&dev->postgres.server);
        }
    }
}

static dj_status start_all(struct dev *dev) {
    DJ_TRY(dev_postgres_start(&dev->postgres, dev->dir));
    DJ_TRY(migrate_database(dev));
    DJ_TRY(write_env(dev));
    DJ_TRY(start_programs(dev));
    return wait_for_server(dev);
}

static void stop_all(struct dev *dev) {
    child_stop(&dev->server, 30000);
    child_stop(&dev->worker, 30000);
    child_stop(&dev->scheduler, 5000);
    dev_postgres_stop(&dev->postgres);
}

dj_status command_dev(int argc, char **argv) {
    static struct dev dev; /* paths make it large */
    const char *dir = "./.durable";
    dev.port = 7070;
    const struct config_option options[] = {
        { .flag = "dir",
          .environment = "DURABLE_DEV_DIR",
          .value_name = "DIR",
          .default_text = "./.durable",
          .help = "where the database, the logs and `env` lie",
          .kind = CONFIG_TEXT,
          .target = &dir },
        { .flag = "port",
          .environment = "DURABLE_DEV_PORT",
          .value_name = "PORT",
          .default_text = "7070",
          .help = "of the HTTP API",
          .kind = CONFIG_INT,
          .target = &dev.port,
          .min = 1,
          .max = 65535 },
        { .flag = "module",
          .environment = "DURABLE_MODULE",
          .value_name = "FILE.so",
          .help = "a module with handlers; may be repeated",
          .kind = CONFIG_TEXTS,
          .target = &dev.modules },
        { .flag = "endpoint",
          .value_name = "URL",
          .help = "where handlers are served over HTTP; may be repeated",
          .kind = CONFIG_TEXTS,
          .target = &dev.endpoints },
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable dev",
        .summary = "everything on this machine: PostgreSQL, scheduler, server, worker",
        .details = "Ctrl-C stops all of it; started again, it goes on with what was there.\n"
                   "DIR/env has the lines that other programs need: set -a; . DIR/env",
        .options = options,
    };
    int first, lock = -1;
    sigset_t set;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    DJ_TRY(check_modules(&dev));
    if (!port_is_free(dev.port)) {
        return dj_fail(DJ_UNAVAILABLE,
                       "port %d is in use; stop what uses it, or choose another with --port",
                       dev.port);
    }
    DJ_TRY(open_dir(&dev, dir, &lock));
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    dj_status status = start_all(&dev);
    if (status == DJ_OK) {
        (void)printf("durable dev: ready; `set -a; . %s/env` names the database, logs are in %s\n",
                     dev.dir, dev.dir);
        (void)fflush(stdout);
        watch(&dev, &set);
    }
    char reason[1024];
    (void)snprintf(reason, sizeof reason, "%s", dj_error_message());
    stop_all(&dev);
    (void)close(lock);
    return status == DJ_OK ? DJ_OK : dj_fail(status, "%s", reason);
}
