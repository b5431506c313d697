/* Durable Jobs under load, from outside: what the bench asks of a database with a scheduler and a
 * worker.
 *
 * - bench_load URL drain RUNS: lets go of the queue; prints runs a second
 * - bench_load URL rate SECONDS BACKLOG: prints runs a second of each tenth of the time, while
 *   starts keep the backlog at BACKLOG (0: no starts)
 * - bench_load URL start CONNECTIONS SECONDS: prints starts a second, one run each
 * - bench_load URL start_bulk CONNECTIONS SECONDS: … 1,000 runs each
 * - bench_load URL latency COUNT: prints p50 and p99 of start → handler, in ms
 * - bench_load URL event COUNT: … of event → handler goes on
 *
 * The handlers are those of bench_module.c. */
#include "bench.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BULK "1000"
#define GIVE_UP_S 600

static const char *url;
static bool bulk;
static double seconds;
static _Atomic long long started;

static _Atomic int64_t *map_count(void) {
    const char *path = getenv("BENCH_COUNT");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *map = mmap(NULL, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        perror("bench: BENCH_COUNT");
        exit(1);
    }
    (void)close(fd);
    return map;
}

static long long ask(PGconn *conn, const char *statement) {
    PGresult *rows = must(conn, PQexec(conn, statement));
    long long answer = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
    PQclear(rows);
    return answer;
}

static void check_time(int64_t began_ns) {
    if (clock_ns() - began_ns > (int64_t)GIVE_UP_S * 1000000000) {
        (void)fprintf(stderr, "bench: not done after %d s\n", GIVE_UP_S);
        exit(1);
    }
}

/* The clock ends when the database says that no run is left. The handlers' own count says when to
 * begin to ask: asking costs what is measured. */
static void drain(PGconn *conn, long long runs) {
    _Atomic int64_t *finished = map_count();
    int64_t target = *finished + runs;
    int64_t began_ns = clock_ns();
    run_sql(conn, "select durable.resume_queue('default')");
    while (*finished < target) {
        sleep_us(500);
        check_time(began_ns);
    }
    while (ask(conn, "select count(*) from (select from durable_internal.lease limit 1) as l") >
           0) {
        sleep_us(500);
        check_time(began_ns);
    }
    double took = (double)(clock_ns() - began_ns) / 1e9;
    if (ask(conn, "select count(*) from durable_internal.run where status = 'completed'") < runs) {
        (void)fprintf(stderr, "bench: not all runs are completed\n");
        exit(1);
    }
    (void)printf("%.0f\n", (double)runs / took);
}

/* Starts keep pace with what is finished. */
static void rate(PGconn *conn, long long backlog) {
    _Atomic int64_t *finished = map_count();
    int64_t began_ns = clock_ns(), first = *finished, before = first;
    for (int tenth = 1; tenth <= 10; tenth++) {
        int64_t until_ns = began_ns + (int64_t)(seconds * 1e8) * tenth, since_ns = clock_ns();
        while (clock_ns() < until_ns) {
            if (backlog > 0 && started < *finished - first) {
                run_sql(conn,
                        "select durable.start_many('noop', array_fill('{}'::jsonb, array[" BULK
                        "]))");
                started += strtoll(BULK, NULL, 10);
            } else {
                sleep_us(1000);
            }
        }
        int64_t now = *finished;
        (void)printf("%.0f%s", (double)(now - before) * 1e9 / (double)(clock_ns() - since_ns),
                     tenth < 10 ? " " : "\n");
        (void)fflush(stdout);
        before = now;
    }
}

static void *start(void *context) {
    PGconn *conn = bench_connect(url);
    PQclear(must(conn, PQprepare(conn, "start",
                                 bulk ? "select durable.start_many('noop', array_fill('{}'::jsonb, "
                                        "array[" BULK "]))"
                                      : "select durable.start('noop', '{}')",
                                 0, NULL)));
    int64_t end_ns = clock_ns() + (int64_t)(seconds * 1e9);
    while (clock_ns() < end_ns) {
        PQclear(must(conn, PQexecPrepared(conn, "start", 0, NULL, NULL, NULL, 0)));
        started += bulk ? strtoll(BULK, NULL, 10) : 1;
    }
    PQfinish(conn);
    return context;
}

static int listen_for_handlers(void) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", getenv("BENCH_SOCKET"));
    (void)unlink(address.sun_path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct timeval patience = { .tv_sec = 10 };
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0) {
        perror("bench: BENCH_SOCKET");
        exit(1);
    }
    return fd;
}

static int64_t hear(int fd) {
    int64_t ns;
    if (recv(fd, &ns, sizeof ns, 0) != sizeof ns) {
        (void)fprintf(stderr, "bench: no handler was reached within 10 s\n");
        exit(1);
    }
    return ns;
}

static void latency(PGconn *conn, int count, bool event) {
    int64_t *samples = calloc((size_t)count, sizeof *samples);
    int fd = listen_for_handlers();
    PQclear(must(conn, PQprepare(conn, "ping", "select durable.start('ping', '{}')", 0, NULL)));
    PQclear(
        must(conn, PQprepare(conn, "waiter",
                             "select durable.start('waiter', jsonb_build_object('key', $1::text))",
                             0, NULL)));
    PQclear(must(
        conn, PQprepare(conn, "go", "select durable.send_event('go', '{}', $1::text)", 0, NULL)));
    for (int i = 0; i < count; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "%d", i);
        const char *values[] = { key };
        if (event) {
            PQclear(must(conn, PQexecPrepared(conn, "waiter", 1, values, NULL, NULL, 0)));
            int64_t began_ns = clock_ns();
            while (ask(conn, "select count(*) from durable_internal.wait") == 0) {
                sleep_us(500);
                check_time(began_ns);
            }
        }
        sleep_us(GAP_US);
        int64_t began_ns = clock_ns();
        PQclear(must(conn, event ? PQexecPrepared(conn, "go", 1, values, NULL, NULL, 0)
                                 : PQexecPrepared(conn, "ping", 0, NULL, NULL, NULL, 0)));
        samples[i] = hear(fd) - began_ns;
    }
    print_percentiles(samples, count);
    free(samples);
}

static long long number(int argc, char **argv, int place) {
    if (place >= argc) {
        (void)fprintf(stderr, "bench_load: an argument is missing; see the head of load.c\n");
        exit(2);
    }
    return strtoll(argv[place], NULL, 10);
}

int main(int argc, char **argv) {
    long long amount = number(argc, argv, 3);
    url = argv[1];
    const char *work = argv[2];
    PGconn *conn = bench_connect(url);
    if (strcmp(work, "drain") == 0) {
        drain(conn, amount);
    } else if (strcmp(work, "rate") == 0) {
        seconds = (double)amount;
        rate(conn, number(argc, argv, 4));
    } else if (strcmp(work, "latency") == 0 || strcmp(work, "event") == 0) {
        latency(conn, (int)amount, strcmp(work, "event") == 0);
    } else {
        bulk = strcmp(work, "start_bulk") == 0;
        seconds = (double)number(argc, argv, 4);
        double took = run_threads((int)amount, start, NULL);
        (void)printf("%.0f\n", (double)started / took);
    }
    PQfinish(conn);
    return 0;
}
