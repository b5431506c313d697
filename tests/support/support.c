#include "support.h"

#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES_MAX 64

/* Of the programs that are tested leaks count; a test that fails leaves its own behind. */
/* NOLINTNEXTLINE(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): ASan's name for it */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}

/* DURABLE_TEST=name: only that test of the program, as tests/mutations/run wants it. */
__attribute__((constructor)) static void choose_test(void) {
    const char *name = getenv("DURABLE_TEST");
    if (name != NULL) {
        cmocka_set_test_filter(name);
    }
}

static pid_t processes[PROCESSES_MAX];
static char database_url[256], database_name[64];
static const char *connected_url;

void sleep_ms(int ms) {
    struct timespec rest = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L };
    (void)nanosleep(&rest, NULL);
}

void record_calls(PGconn *conn) {
    sql(conn, "create table effect (run_id uuid, step text, attempt int, at timestamptz default "
              "clock_timestamp())");
    sql(conn, "create index on effect (run_id)");
}

void check_calls(PGconn *conn) {
    sql(conn, "analyze effect");
    assert_int_equal(sql_int(conn, "select count(*) from effect e join durable.steps s on s.run_id "
                                   "= e.run_id and s.name = e.step "
                                   "where e.at > s.committed_at"),
                     0);
    assert_int_equal(
        sql_int(conn,
                "select count(*) from effect a join effect b using (run_id) where a.at > b.at "
                "and a.step ~ '^s\\d' and b.step ~ '^s\\d' "
                "and substr(a.step, 2)::int < substr(b.step, 2)::int"),
        0);
}

static const char *env(const char *name) {
    const char *value = getenv(name);
    if (value == NULL) {
        (void)fprintf(stderr, "%s is not set; run tests by scripts/test\n", name);
        exit(99);
    }
    return value;
}

static void quiet(void *context, const PGresult *notice) {
    (void)context;
    (void)notice;
}

const char *last_url(void) {
    return connected_url;
}

PGconn *connect_to(const char *url) {
    PGconn *conn = PQconnectdb(url);
    connected_url = url;
    if (PQstatus(conn) != CONNECTION_OK) {
        fail_msg("%s", PQerrorMessage(conn));
    }
    (void)PQsetNoticeReceiver(conn, quiet, NULL);
    return conn;
}

/* A moment for what a program does at its end. */
static void end_gently(void) {
    for (int i = 0; i < PROCESSES_MAX; i++) {
        if (processes[i] != 0) {
            (void)kill(processes[i], SIGCONT);
            (void)kill(processes[i], SIGTERM);
        }
    }
    for (int i = 0, tries = 0; i < PROCESSES_MAX; i++) {
        while (processes[i] != 0 && tries++ < 500) {
            if (waitpid(processes[i], NULL, WNOHANG) == processes[i]) {
                processes[i] = 0;
            } else {
                sleep_ms(10);
            }
        }
    }
}

/* Who asks to keep databases looks afterwards at what was executed, there and in the programs,
 * which say it at their end: scripts/analyze. */
static void end_all(void) {
    bool looked_at = getenv("DURABLE_KEEP_DATABASES") != NULL;
    if (looked_at) {
        end_gently();
    }
    for (int i = 0; i < PROCESSES_MAX; i++) {
        if (processes[i] != 0) {
            (void)kill(processes[i], SIGKILL);
            (void)waitpid(processes[i], NULL, 0);
        }
    }
    if (database_name[0] != '\0' && !looked_at) {
        PGconn *conn = PQconnectdb(env("DURABLE_TEST_URL"));
        char drop[128];
        (void)snprintf(drop, sizeof drop, "drop database %s with (force)", database_name);
        PQclear(PQexec(conn, drop));
        PQfinish(conn);
    }
}

const char *database_new(void) {
    PGconn *conn = connect_to(env("DURABLE_TEST_URL"));
    (void)snprintf(database_name, sizeof database_name, "test_%d", (int)getpid());
    sql(conn, "select pg_advisory_lock(1)"); /* one copy of the template at a time */
    sql(conn, "create database %s template durable_template", database_name);
    PQfinish(conn);
    const char *base = env("DURABLE_TEST_URL");
    (void)snprintf(database_url, sizeof database_url, "%.*s/%s", (int)(strrchr(base, '/') - base),
                   base, database_name);
    (void)atexit(end_all);
    return database_url;
}

static PGresult *run(PGconn *conn, const char *format, va_list arguments) {
    char *text = NULL;
    assert_true(vasprintf(&text, format, arguments) >= 0);
    PGresult *result = PQexec(conn, text);
    free(text);
    return result;
}

#define RUN(result, conn, format)                                                                  \
    va_list arguments;                                                                             \
    va_start(arguments, format);                                                                   \
    PGresult *result = run(conn, format, arguments);                                               \
    va_end(arguments)

static void must_work(const PGresult *result, const char *what) {
    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK) {
        fail_msg("%s: %s", what, PQresultErrorMessage(result));
    }
}

void sql(PGconn *conn, const char *format, ...) {
    RUN(result, conn, format);
    must_work(result, format);
    PQclear(result);
}

static const char *keep(const char *text) {
    static char kept[4][8192];
    static int next;
    next = (next + 1) % 4;
    (void)snprintf(kept[next], sizeof kept[next], "%s", text);
    return kept[next];
}

long long sql_int(PGconn *conn, const char *format, ...) {
    RUN(result, conn, format);
    must_work(result, format);
    const char *text = PQntuples(result) == 0 ? "0" : PQgetvalue(result, 0, 0);
    long long value = text[0] == 't' ? 1 : text[0] == 'f' ? 0 : strtoll(text, NULL, 10);
    PQclear(result);
    return value;
}

const char *sql_text(PGconn *conn, const char *format, ...) {
    RUN(result, conn, format);
    must_work(result, format);
    const char *text = keep(PQntuples(result) == 0 ? "" : PQgetvalue(result, 0, 0));
    PQclear(result);
    return text;
}

const char *sql_error(PGconn *conn, const char *sqlstate, const char *format, ...) {
    RUN(result, conn, format);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (state == NULL || strcmp(state, sqlstate) != 0) {
        fail_msg("%s: expected %s, found %s %s", format, sqlstate,
                 state == NULL ? "success" : state, PQresultErrorMessage(result));
    }
    const char *message = keep(PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    PQclear(result);
    return message;
}

void wait_until(PGconn *conn, double seconds, const char *format, ...) {
    for (int tries = 0; tries < (int)(seconds * 50); tries++) {
        RUN(result, conn, format);
        bool met = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 &&
                   PQgetvalue(result, 0, 0)[0] == 't';
        PQclear(result);
        if (met) {
            return;
        }
        if (PQstatus(conn) != CONNECTION_OK) {
            PQreset(conn);
        }
        sleep_ms(20);
    }
    fail_msg("not within %g s: %s", seconds, format);
}

bool is_blocked(PGconn *watcher, PGconn *session) {
    for (int tries = 0; tries < 500; tries++) {
        (void)PQconsumeInput(session);
        if (PQisBusy(session) == 0) {
            return false;
        }
        if (sql_int(watcher, "select cardinality(pg_blocking_pids(%d)) > 0",
                    PQbackendPID(session)) == 1) {
            return true;
        }
        sleep_ms(2);
    }
    fail_msg("the session neither answers nor waits for a lock");
    return false;
}

/* `url` and `failpoint` may be NULL. */
static pid_t spawn_path(const char *path, const char *url, const char *failpoint,
                        char *const argv[]) {
    char log[64];
    (void)snprintf(log, sizeof log, "/tmp/durable-test-%d.log", (int)getpid());
    pid_t parent = getpid();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        (void)dup2(out, 1);
        (void)dup2(out, 2);
        if (url != NULL) {
            (void)setenv("DURABLE_DATABASE_URL", url, 1);
        }
        if (failpoint != NULL) {
            (void)setenv("DURABLE_FAILPOINT", failpoint, 1);
        }
        if (getppid() == parent) {
            (void)execv(path, argv);
        }
        _exit(127);
    }
    for (int i = 0; i < PROCESSES_MAX; i++) {
        if (processes[i] == 0) {
            processes[i] = pid;
            return pid;
        }
    }
    fail_msg("too many processes");
    return 0;
}

static pid_t spawn_argv(const char *url, const char *failpoint, char *const argv[]) {
    char path[512];
    const char *folder = strcmp(argv[0], "durable-worker") == 0   ? "worker"
                         : strcmp(argv[0], "durable-server") == 0 ? "server/api"
                         : strcmp(argv[0], "durable") == 0        ? "cli"
                                                                  : "server/scheduler";
    (void)snprintf(path, sizeof path, "%s/%s/%s", env("DURABLE_BUILD"), folder, argv[0]);
    return spawn_path(path, url, failpoint, argv);
}

pid_t spawn(const char *url, const char *failpoint, const char *program, ...) {
    char *argv[24] = { (char *)program };
    int count = 1;
    va_list arguments;
    va_start(arguments, program);
    for (char *argument; count < 20 && (argument = va_arg(arguments, char *)) != NULL;) {
        argv[count++] = argument;
    }
    va_end(arguments);
    if (strcmp(program, "durable-worker") == 0) {
        static char module[512];
        (void)snprintf(module, sizeof module, "%s/tests/support/test_module.so",
                       env("DURABLE_BUILD"));
        argv[count++] = "--module";
        argv[count++] = module;
    }
    return spawn_argv(url, failpoint, argv);
}

/* Handlers over HTTP. */

static char endpoint_secret[128], endpoint_log[64];

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){ .sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* The port that can be had, which is this one or, of 0, any; 0: this one cannot. */
static int port_taken(int port) {
    struct sockaddr_in address = loopback(port);
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool bound = bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    (void)close(fd);
    return bound ? ntohs(address.sin_port) : 0;
}

int free_port(void) {
    int port = port_taken(0);
    assert_int_not_equal(port, 0);
    return port;
}

/* For who comes back to it after a while: connections are made from ports above these. */
static int lasting_port(void) {
    int port = 20000 + (int)getpid() % 10000;
    while (port_taken(port) == 0) {
        port++;
    }
    return port;
}

const char *endpoint_calls(void) {
    return endpoint_log;
}

pid_t endpoint_again(int port) {
    char number[16], program[512];
    (void)snprintf(number, sizeof number, "%d", port);
    (void)snprintf(program, sizeof program, "%s/../../tests/support/endpoint.py",
                   env("DURABLE_BUILD"));
    char *const argv[] = {
        (char *)"/usr/bin/python3", program, number, endpoint_secret, endpoint_log, NULL
    };
    pid_t pid = spawn_path(argv[0], NULL, NULL, argv);
    for (int tries = 0; tries < 500; tries++) {
        struct sockaddr_in address = loopback(port);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool up = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
        (void)close(fd);
        if (up) {
            return pid;
        }
        sleep_ms(10);
    }
    fail_msg("the endpoint does not come up");
    return 0;
}

pid_t spawn_handlers(int port, const char *secret) {
    (void)snprintf(endpoint_log, sizeof endpoint_log, "/tmp/durable-calls-%d", (int)getpid());
    (void)snprintf(endpoint_secret, sizeof endpoint_secret, "%s", secret);
    return endpoint_again(port);
}

pid_t spawn_endpoint(PGconn *conn, int *ret_port) {
    *ret_port = free_port();
    (void)snprintf(endpoint_log, sizeof endpoint_log, "/tmp/durable-calls-%d", (int)getpid());
    (void)unlink(endpoint_log);
    (void)snprintf(endpoint_secret, sizeof endpoint_secret, "%s",
                   sql_text(conn,
                            "select secret from durable_internal.endpoint_put(1, 'test', "
                            "'http://127.0.0.1:%d/', true, "
                            "null, null)",
                            *ret_port));
    sql(conn,
        "select durable_internal.endpoint_synced(1, 'test', 'test', (select "
        "jsonb_agg(jsonb_build_object('name', n)) "
        "from "
        "unnest('{five-steps,wait,hangs,echo,fail,error-500,not-json,too-much,bad-op,redirect,"
        "deep,odd-step,mute,drip,burst,vanish}"
        "'::text[]) as n))");
    return endpoint_again(*ret_port);
}

pid_t spawn_worker(const char *url, const char *failpoint) {
    return spawn(url, failpoint, "durable-worker", "--lease-ttl", "2s", NULL);
}

pid_t spawn_scheduler(const char *url) {
    return spawn(url, NULL, "durable-scheduler", NULL);
}

static int reap(pid_t pid, int status) {
    for (int i = 0; i < PROCESSES_MAX; i++) {
        if (processes[i] == pid) {
            processes[i] = 0;
        }
    }
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int wait_process(pid_t pid, double seconds) {
    int status = 0;
    for (int tries = 0; tries < (int)(seconds * 100); tries++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return reap(pid, status);
        }
        sleep_ms(10);
    }
    fail_msg("process %d does not end", (int)pid);
    return 0;
}

int end_process(pid_t pid, int signal) {
    (void)kill(pid, signal);
    return wait_process(pid, 30);
}

void freeze_sessions(PGconn *conn, pid_t worker, pid_t ret_sessions[WORKER_SESSIONS]) {
    for (int i = 0; i < WORKER_SESSIONS; i++) {
        ret_sessions[i] =
            (pid_t)sql_int(conn,
                           "select s.pid from durable_internal.worker_session s join "
                           "durable_internal.worker w on w.id = s.worker_id where w.pid = %d "
                           "order by 1 offset %d limit 1",
                           (int)worker, i);
        assert_int_equal(kill(ret_sessions[i], SIGSTOP), 0);
    }
}

void thaw_sessions(const pid_t sessions[WORKER_SESSIONS]) {
    for (int i = 0; i < WORKER_SESSIONS; i++) {
        (void)kill(sessions[i], SIGCONT);
    }
}

static void read_file(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(text, 1, size - 1, file);
    text[length] = '\0';
    assert_true(feof(file) != 0);
    (void)fclose(file);
    (void)unlink(path);
}

static void run_said(struct said *said, const char *command) {
    char out[64], err[64], *whole = NULL;
    (void)snprintf(out, sizeof out, "/tmp/durable-test-%d.out", (int)getpid());
    (void)snprintf(err, sizeof err, "/tmp/durable-test-%d.err", (int)getpid());
    assert_true(asprintf(&whole, "{ %s; } >%s 2>%s", command, out, err) >= 0);
    int status = system(whole);
    free(whole);
    assert_true(WIFEXITED(status));
    said->status = WEXITSTATUS(status);
    read_file(out, said->out, sizeof said->out);
    read_file(err, said->err, sizeof said->err);
}

static char *print_list(const char *format, va_list list) __attribute__((format(printf, 1, 0)));
static char *print_list(const char *format, va_list list) {
    char *text = NULL;
    assert_true(vasprintf(&text, format, list) >= 0);
    return text;
}

void shell_said(struct said *said, const char *format, ...) {
    va_list list;
    va_start(list, format);
    char *command = print_list(format, list);
    va_end(list);
    run_said(said, command);
    free(command);
}

void durable(struct said *said, const char *url, const char *format, ...) {
    va_list list;
    va_start(list, format);
    char *arguments = print_list(format, list);
    va_end(list);
    shell_said(said, "DURABLE_DATABASE_URL='%s' %s/cli/durable %s", url, env("DURABLE_BUILD"),
               arguments);
    free(arguments);
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char *command = print_list(format, arguments);
    va_end(arguments);
    int status = system(command);
    if (status != 0) {
        fail_msg("failed: %s", command);
    }
    free(command);
}

/* As the user who may run the server. */
static const char *as_postgres(void) {
    return geteuid() == 0 ? "setpriv --reuid postgres --regid postgres --init-groups " : "";
}

static void cluster_up(const struct cluster *cluster) {
    shell("cd / && %s %s/pg_ctl -D %s/data -w -t 60 -l %s/log start >/dev/null", as_postgres(),
          env("DURABLE_PG_BIN"), cluster->dir, cluster->dir);
}

static struct cluster *running_cluster;

static void cluster_at_exit(void) {
    if (running_cluster != NULL) {
        cluster_drop(running_cluster);
    }
}

void cluster_start(struct cluster *cluster) {
    (void)snprintf(cluster->dir, sizeof cluster->dir, "/tmp/durable-cluster-XXXXXX");
    assert_non_null(mkdtemp(cluster->dir));
    cluster->port = lasting_port();
    if (geteuid() == 0) {
        shell("chown postgres %s", cluster->dir);
    }
    shell(
        "cd / && %s %s/initdb -D %s/data -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null",
        as_postgres(), env("DURABLE_PG_BIN"), cluster->dir);
    shell("printf \"port=%d\\nlisten_addresses='127.0.0.1'\\nunix_socket_directories=''\\n\" >> "
          "%s/data/postgresql.conf",
          cluster->port, cluster->dir);
    running_cluster = cluster;
    (void)atexit(cluster_at_exit);
    cluster_up(cluster);
    (void)snprintf(cluster->url, sizeof cluster->url, "postgresql://postgres@127.0.0.1:%d/postgres",
                   cluster->port);
    shell("%s/cli/durable migrate --database-url %s >/dev/null", env("DURABLE_BUILD"),
          cluster->url);
}

void cluster_stop(struct cluster *cluster, const char *mode) {
    shell("cd / && %s %s/pg_ctl -D %s/data -w -m %s stop >/dev/null", as_postgres(),
          env("DURABLE_PG_BIN"), cluster->dir, mode);
}

void cluster_go_on(struct cluster *cluster) {
    cluster_up(cluster);
}

void cluster_restart(struct cluster *cluster, const char *mode) {
    cluster_stop(cluster, mode);
    cluster_go_on(cluster);
}

void cluster_drop(struct cluster *cluster) {
    running_cluster = NULL;
    shell("cd / && %s %s/pg_ctl -D %s/data -w -m immediate stop >/dev/null", as_postgres(),
          env("DURABLE_PG_BIN"), cluster->dir);
    shell("rm -rf %s", cluster->dir);
}

static char shim_file[64];

static void shim_forget(void) {
    (void)unlink(shim_file);
}

struct shim *shim_on(void) {
    char library[512], options[512];
    (void)snprintf(shim_file, sizeof shim_file, "/tmp/durable-shim-XXXXXX");
    int fd = mkstemp(shim_file);
    (void)atexit(shim_forget); /* programs may open it late */
    assert_true(fd >= 0 && fchmod(fd, 0644) == 0 && ftruncate(fd, sizeof(struct shim)) == 0);
    struct shim *shim = mmap(NULL, sizeof *shim, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(shim != MAP_FAILED);
    (void)close(fd);
    (void)snprintf(library, sizeof library, "%s/tests/support/shim.so", env("DURABLE_BUILD"));
    const char *asan = getenv("ASAN_OPTIONS");
    (void)snprintf(options, sizeof options, "%s%sverify_asan_link_order=0",
                   asan == NULL ? "" : asan, asan == NULL ? "" : ":");
    (void)setenv("ASAN_OPTIONS", options, 1);
    (void)setenv("DURABLE_SHIM", shim_file, 1);
    (void)setenv("LD_PRELOAD", library, 1);
    return shim;
}

void shim_off(void) {
    (void)unsetenv("LD_PRELOAD");
}

const char *worker_new(PGconn *conn, const char *job) {
    const char *id = sql_text(conn, "select durable_internal.uuid_v7()");
    sql(conn,
        "select durable_internal.worker_register('%s', 'default', 'test', 1, '0', 10, 10000, "
        "array['%s'], "
        "array['{}']::jsonb[], null)",
        id, job);
    return id;
}
