#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define THREADS_MAX 64

PGresult *must(PGconn *conn, PGresult *result) {
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        (void)fprintf(stderr, "bench: %s", PQerrorMessage(conn));
        exit(1);
    }
    return result;
}

void run_sql(PGconn *conn, const char *statement) {
    PQclear(must(conn, PQexec(conn, statement)));
}

PGconn *bench_connect(const char *url) {
    PGconn *conn = PQconnectdb(url);
    if (PQstatus(conn) != CONNECTION_OK) {
        (void)fprintf(stderr, "bench: %s", PQerrorMessage(conn));
        exit(1);
    }
    return conn;
}

int64_t clock_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void sleep_us(int64_t us) {
    struct timespec rest = { .tv_sec = us / 1000000, .tv_nsec = (us % 1000000) * 1000 };
    (void)nanosleep(&rest, NULL);
}

double run_threads(int count, void *(*work)(void *context), void *context) {
    pthread_t threads[THREADS_MAX];
    if (count > THREADS_MAX) {
        (void)fprintf(stderr, "bench: %d threads are too many; up to %d\n", count, THREADS_MAX);
        exit(2);
    }
    int64_t began = clock_ns();
    for (int i = 0; i < count; i++) {
        if (pthread_create(&threads[i], NULL, work, context) != 0) {
            (void)fprintf(stderr, "bench: cannot make a thread\n");
            exit(1);
        }
    }
    for (int i = 0; i < count; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    return (double)(clock_ns() - began) / 1e9;
}

static int compare_samples(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

void print_percentiles(int64_t *samples, int count) {
    qsort(samples, (size_t)count, sizeof *samples, compare_samples);
    (void)printf("%.3f %.3f\n", (double)samples[count / 2] / 1e6,
                 (double)samples[count * 99 / 100] / 1e6);
}
