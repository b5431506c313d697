/* What the bench's programs share: connections that have to work, a clock, threads, percentiles. */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <libpq-fe.h>
#include <stdint.h>

#define GAP_US 20000 /* between two lone starts: the system is idle again */

/** Ends the program with the server's words if the statement failed. `result` is yours. */
PGresult *must(PGconn *conn, PGresult *result);

/** Runs a statement that has to work. */
void run_sql(PGconn *conn, const char *statement);

PGconn *bench_connect(const char *url);

/** The monotonic clock, in nanoseconds: the same one in all processes of this machine. */
int64_t clock_ns(void);

void sleep_us(int64_t us);

/** Runs `work(context)` on `count` threads until all are back; answers the seconds it took. */
double run_threads(int count, void *(*work)(void *context), void *context);

/** Prints what lies at a half and at 99 of 100, in ms: "p50 p99". Sorts `samples`, in nanoseconds.
 */
void print_percentiles(int64_t *samples, int count);

#endif
