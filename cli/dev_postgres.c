/* The private PostgreSQL of durable dev: found, made, started, stopped. It listens on the loopback
 * only and asks for a password, which lies beside the cluster. */
#include "cli/dev.h"

#include "common/auto.h"
#include "common/db_conn.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FALLBACK_DIR "/var/lib/durable-dev"
#define START_TRIES 100 /* of 100 ms */

/* PostgreSQL's programs: beside pg_config's, where Debian puts them, or on the path. */
static dj_status find_programs(struct dev_postgres *postgres) {
    static const char *const places[] = { "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
                                          "/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin" };
    const char *named = getenv("DURABLE_POSTGRES_BIN");
    for (size_t i = 0; i < sizeof places / sizeof *places + 1; i++) {
        const char *pattern = i == 0 ? named : places[i - 1];
        glob_t found;
        if (pattern == NULL || glob(pattern, 0, NULL, &found) != 0) {
            continue;
        }
        for (size_t n = found.gl_pathc; n > 0; n--) { /* the newest version last in the alphabet */
            char program[PATH_MAX + 16];
            (void)snprintf(program, sizeof program, "%s/initdb", found.gl_pathv[n - 1]);
            if (access(program, X_OK) == 0) {
                (void)snprintf(postgres->bindir, sizeof postgres->bindir, "%s",
                               found.gl_pathv[n - 1]);
                globfree(&found);
                return DJ_OK;
            }
        }
        globfree(&found);
    }
    return dj_fail(
        DJ_UNAVAILABLE,
        "PostgreSQL's server programs are not found; install them (Debian: apt-get install "
        "postgresql-15), or name their folder in DURABLE_POSTGRES_BIN");
}

/* Root may not run the server: then user postgres does. */
static dj_status find_user(struct child *server) {
    if (geteuid() != 0) {
        return DJ_OK;
    }
    const struct passwd *user = getpwnam("postgres");
    if (user == NULL) {
        return dj_fail(DJ_UNAVAILABLE,
                       "PostgreSQL does not run as root, and there is no user postgres; install "
                       "PostgreSQL's package, or run this as an ordinary user");
    }
    server->uid = user->pw_uid;
    server->gid = user->pw_gid;
    server->user = "postgres";
    return DJ_OK;
}

/* Can the server's user go down to DIR? Every folder above has to let others pass. */
static bool reachable(const char *dir) {
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s", dir);
    for (char *slash; (slash = strrchr(path, '/')) != NULL && slash != path;) {
        *slash = '\0';
        struct stat info;
        if (stat(path, &info) != 0 || (info.st_mode & S_IXOTH) == 0) {
            return false;
        }
    }
    return true;
}

/* Where the cluster lies. DIR/pgdata, or a folder that user postgres can reach, to which DIR/pgdata
 * links. */
static dj_status choose_data(struct dev_postgres *postgres, const char *dir) {
    char link[PATH_MAX];
    (void)snprintf(link, sizeof link, "%.4000s/pgdata", dir);
    if (postgres->server.uid == 0 || reachable(link)) {
        if (postgres->server.uid != 0 &&
            chmod(dir, 0755) != 0) { /* what is secret in it has its own mode */
            return dj_fail(DJ_UNAVAILABLE, "cannot open %s for user postgres: %s", dir,
                           strerror(errno));
        }
        (void)snprintf(postgres->data, sizeof postgres->data, "%s", link);
        return DJ_OK;
    }
    uint64_t hash = 14695981039346656037u; /* a folder of its own for each DIR */
    for (const char *at = dir; *at != '\0'; at++) {
        hash = (hash ^ (uint8_t)*at) * 1099511628211u;
    }
    (void)snprintf(postgres->data, sizeof postgres->data, "%s/%016llx", FALLBACK_DIR,
                   (unsigned long long)hash);
    if ((mkdir(FALLBACK_DIR, 0755) != 0 && errno != EEXIST) ||
        (symlink(postgres->data, link) != 0 && errno != EEXIST)) {
        return dj_fail(DJ_UNAVAILABLE, "cannot link %s to %s: %s", link, postgres->data,
                       strerror(errno));
    }
    return DJ_OK;
}

/* Runs a program as the server's user, and waits. */
static dj_status run_program(const struct dev_postgres *postgres, char *const argv[],
                             const char *what, const char *log) {
    struct child program = postgres->server;
    program.name = what;
    program.argv = (char **)argv;
    program.pid = 0;
    (void)snprintf(program.log, sizeof program.log, "%s", log);
    DJ_TRY(child_start(&program));
    int status = 0;
    while (waitpid(program.pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return dj_fail(DJ_UNAVAILABLE, "%s failed; %s says why", what, log);
    }
    return DJ_OK;
}

static dj_status write_file(const char *path, const char *text, mode_t mode, uid_t uid, gid_t gid) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fchmod(fd, mode) != 0 ||
        (uid != 0 && fchown(fd, uid, gid) != 0)) {
        dj_status status = dj_fail(DJ_UNAVAILABLE, "cannot write %s: %s", path, strerror(errno));
        if (fd >= 0) {
            (void)close(fd);
        }
        return status;
    }
    (void)close(fd);
    return DJ_OK;
}

static dj_status make_password(char out[48]) {
    uint8_t bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        return dj_fail(DJ_UNAVAILABLE, "no random bytes: %s", strerror(errno));
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    }
    return DJ_OK;
}

/* A new cluster. Made beside its place and moved there, so that a kill in the middle leaves nothing
 * half-made. */
static dj_status make_cluster(struct dev_postgres *postgres, const char *log) {
    char unfinished[PATH_MAX + 8], password_file[PATH_MAX + 24], program[PATH_MAX + 16],
        pwfile[PATH_MAX + 40];
    (void)snprintf(unfinished, sizeof unfinished, "%s.new", postgres->data);
    (void)snprintf(password_file, sizeof password_file, "%s/password", unfinished);
    (void)snprintf(program, sizeof program, "%s/initdb", postgres->bindir);
    char *remove[] = { "/bin/rm", "-rf", unfinished, NULL };
    struct dev_postgres as_us = *postgres;
    as_us.server.uid = 0;
    as_us.server.gid = 0;
    DJ_TRY(run_program(&as_us, remove, "rm", log));
    DJ_TRY(make_password(postgres->password));
    (void)snprintf(password_file, sizeof password_file, "%s.password", postgres->data);
    DJ_TRY(write_file(password_file, postgres->password, 0600, postgres->server.uid,
                      postgres->server.gid));
    (void)snprintf(pwfile, sizeof pwfile, "--pwfile=%s", password_file);
    if (mkdir(unfinished, 0700) != 0 ||
        (postgres->server.uid != 0 &&
         chown(unfinished, postgres->server.uid, postgres->server.gid) != 0)) {
        return dj_fail(DJ_UNAVAILABLE, "cannot make %s: %s", unfinished, strerror(errno));
    }
    char *argv[] = { program,
                     "-D",
                     unfinished,
                     "-U",
                     "durable",
                     "-E",
                     "UTF8",
                     "--locale=C.UTF-8",
                     "-A",
                     "scram-sha-256",
                     "--no-instructions",
                     pwfile,
                     NULL };
    DJ_TRY(run_program(postgres, argv, "initdb", log));
    if (rename(unfinished, postgres->data) != 0) {
        return dj_fail(DJ_UNAVAILABLE, "cannot move %s to %s: %s", unfinished, postgres->data,
                       strerror(errno));
    }
    return DJ_OK;
}

static dj_status read_password(struct dev_postgres *postgres) {
    char path[PATH_MAX + 16];
    (void)snprintf(path, sizeof path, "%s.password", postgres->data);
    AUTO(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, postgres->password, sizeof postgres->password - 1);
    if (length <= 0) {
        return dj_fail(DJ_UNAVAILABLE,
                       "cannot read %s: %s; the cluster beside it cannot be used without it", path,
                       strerror(errno));
    }
    postgres->password[length] = '\0';
    return DJ_OK;
}

bool port_is_free(int port) {
    AUTO(fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
}

static int any_free_port(void) {
    AUTO(fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        return 0;
    }
    return ntohs(address.sin_port);
}

/* The same port as last time, where it is free, so that a noted address stays true. */
static dj_status choose_port(struct dev_postgres *postgres) {
    char path[PATH_MAX + 16], text[16] = "";
    (void)snprintf(path, sizeof path, "%s.port", postgres->data);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t length = read(fd, text, sizeof text - 1);
        text[length > 0 ? length : 0] = '\0';
        (void)close(fd);
    }
    long last = strtol(text, NULL, 10);
    postgres->port =
        last > 0 && last < 65536 && port_is_free((int)last) ? (int)last : any_free_port();
    if (postgres->port == 0) {
        return dj_fail(DJ_UNAVAILABLE, "no port is free on 127.0.0.1");
    }
    (void)snprintf(text, sizeof text, "%d", postgres->port);
    return write_file(path, text, 0644, 0, 0);
}

/* Waits until the server takes connections. One from before may still be on its way out: then ours
 * ends at once, and is started again. */
static dj_status wait_ready(struct dev_postgres *postgres) {
    char probe[320];
    (void)snprintf(probe, sizeof probe, "postgresql://durable:%s@127.0.0.1:%d/postgres",
                   postgres->password, postgres->port);
    dj_status status = DJ_UNAVAILABLE;
    for (int tries = 0; tries < START_TRIES; tries++) {
        PGconn *conn;
        if (child_has_ended(&postgres->server)) {
            DJ_TRY(child_start(&postgres->server));
        }
        status = db_session_open(probe, "durable dev", &conn);
        if (status == DJ_OK) {
            AUTO(pgresult) PGresult *made = PQexec(conn, "create database durable");
            const char *state = PQresultErrorField(made, PG_DIAG_SQLSTATE);
            bool there = PQresultStatus(made) == PGRES_COMMAND_OK ||
                         (state != NULL && strcmp(state, "42P04") == 0);
            status = there ? DJ_OK : dj_fail_result(made);
            db_conn_close(conn);
            return status;
        }
        struct timespec rest = { .tv_nsec = 100000000 };
        (void)nanosleep(&rest, NULL);
    }
    char reason[512];
    (void)snprintf(reason, sizeof reason, "%s", dj_error_message());
    return dj_fail(status, "PostgreSQL does not come up: %s. %.300s says why", reason,
                   postgres->server.log);
}

dj_status dev_postgres_start(struct dev_postgres *postgres, const char *dir) {
    *postgres = (struct dev_postgres){
        .server = { .name = "postgres", .stop_signal = SIGINT, .death_signal = SIGINT }
    };
    (void)snprintf(postgres->server.log, sizeof postgres->server.log, "%.4000s/postgres.log", dir);
    DJ_TRY(find_programs(postgres));
    DJ_TRY(find_user(&postgres->server));
    DJ_TRY(choose_data(postgres, dir));
    char version[PATH_MAX + 16];
    (void)snprintf(version, sizeof version, "%s/PG_VERSION", postgres->data);
    if (access(version, F_OK) == 0) {
        DJ_TRY(read_password(postgres));
    } else {
        DJ_TRY(make_cluster(postgres, postgres->server.log));
    }
    DJ_TRY(choose_port(postgres));
    char(*text)[PATH_MAX + 64] = postgres->arguments;
    (void)snprintf(text[0], sizeof text[0], "%s/postgres", postgres->bindir);
    (void)snprintf(text[1], sizeof text[1], "%s", postgres->data);
    (void)snprintf(text[2], sizeof text[2], "%d", postgres->port);
    char *argv[] = { text[0],
                     "-D",
                     text[1],
                     "-p",
                     text[2],
                     "-c",
                     "listen_addresses=127.0.0.1",
                     "-c",
                     "unix_socket_directories=",
                     "-c",
                     "max_wal_size=4GB",
                     NULL };
    memcpy(postgres->argv, argv, sizeof argv);
    postgres->server.argv = postgres->argv;
    DJ_TRY(child_start(&postgres->server));
    DJ_TRY(wait_ready(postgres));
    (void)snprintf(postgres->url, sizeof postgres->url,
                   "postgresql://durable:%s@127.0.0.1:%d/durable", postgres->password,
                   postgres->port);
    return DJ_OK;
}

void dev_postgres_stop(struct dev_postgres *postgres) {
    child_stop(&postgres->server, 30000);
}
