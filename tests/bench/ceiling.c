/* The ceiling: what PostgreSQL itself can do with the same rows and no engine. A hand-written loop
 * over the tables of plain.sql: each connection claims 500 runs, and completes them in the
 * transaction that claims the next 500. For steps: five commits of 500 results between.
 *
 * Usage: bench_ceiling URL drain|recipe|steps CONNECTIONS RUNS     prints runs a second
 *        bench_ceiling URL start|start_bulk CONNECTIONS SECONDS    prints starts a second
 *        bench_ceiling URL latency 1 COUNT                         prints p50 and p99, in ms
 * `recipe`: the claim does not read the payloads that a worker would need. */
#include "bench.h"

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS 5
#define BULK 1000 /* runs of one bulk start */

/* One plan each, and one that cannot be a scan of a whole table: `id = any (array[x])` is an index
 * probe for each run, whatever the planner believes of the tables' sizes. */
#define SETTINGS                                                                                   \
    "set jit = off; set plan_cache_mode = force_generic_plan; set enable_seqscan = off; "          \
    "set enable_hashjoin = off; set enable_mergejoin = off"

#define CLAIM                                                                                      \
    "with next as materialized ("                                                                  \
    "  select ctid, run_id from ready order by seq limit 500 for update skip locked"               \
    "), taken as ("                                                                                \
    "  delete from ready where ctid = any (array(select ctid from next))"                          \
    "), leased as ("                                                                               \
    "  insert into lease select run_id, nextval('fence_seq'), "                                    \
    "         '01900000-0000-7000-8000-000000000001', clock_timestamp() from next"                 \
    ") "

static const char claim[] = CLAIM "select array_agg(next.run_id), array_agg(run.payload) "
                                  "from next join run on run.id = any (array[next.run_id])";
static const char claim_of_recipe[] = CLAIM "select array_agg(next.run_id) from next";

static const char complete[] =
    "with ended as (delete from lease where run_id = any ($1::uuid[]) returning run_id, fence) "
    "update run set status = 'completed', result = 'null', fence = ended.fence, "
    "       finished_at = clock_timestamp() "
    "  from ended where run.id = any (array[ended.run_id])";

static const char commit_step[] =
    "insert into step select id, $2, 'step-' || $2::int, '1', 1, clock_timestamp() "
    "  from unnest($1::uuid[]) as id";

/* Ids by time, as version 7 has them: random ones would cost the index more. */
#define NEW_ID                                                                                     \
    "encode(overlay(uuid_send(gen_random_uuid()) placing substring(int8send("                      \
    "(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 'hex')::uuid"
#define START(payloads)                                                                            \
    "with new as materialized ("                                                                   \
    "  select " NEW_ID " as id, nextval('order_seq') as seq, payload "                             \
    "    from " payloads " as payload"                                                             \
    "), started as ("                                                                              \
    "  insert into run (id, job, payload, created_at) "                                            \
    "  select id, 'noop', payload, clock_timestamp() from new"                                     \
    ") insert into ready select seq, id from new"

static const char *url;
static const char *work;
static double seconds;
static _Atomic long long started;

static void prepare(PGconn *conn, const char *name, const char *statement) {
    PQclear(must(conn, PQprepare(conn, name, statement, 0, NULL)));
}

static void execute(PGconn *conn, const char *name, int count, const char *const *values) {
    PQclear(must(conn, PQexecPrepared(conn, name, count, values, NULL, NULL, 0)));
}

/* Claims the next runs. Their ids as an array's text, yours; NULL: none is left. */
static char *claim_next(PGconn *conn) {
    PGresult *rows = must(conn, PQexecPrepared(conn, "claim", 0, NULL, NULL, NULL, 0));
    char *ids = PQgetisnull(rows, 0, 0) ? NULL : strdup(PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return ids;
}

static void *drain(void *context) {
    PGconn *conn = bench_connect(url);
    run_sql(conn, SETTINGS);
    prepare(conn, "claim", strcmp(work, "recipe") == 0 ? claim_of_recipe : claim);
    prepare(conn, "complete", complete);
    prepare(conn, "step", commit_step);
    int steps = strcmp(work, "steps") == 0 ? STEPS : 0;
    char *ids = NULL;
    do {
        const char *completed[] = { ids };
        run_sql(conn, "begin");
        if (ids != NULL) {
            execute(conn, "complete", 1, completed);
        }
        free(ids);
        ids = claim_next(conn);
        run_sql(conn, "commit");
        for (int step = 1; ids != NULL && step <= steps; step++) {
            char position[4];
            (void)snprintf(position, sizeof position, "%d", step);
            execute(conn, "step", 2, (const char *[]){ ids, position });
        }
    } while (ids != NULL);
    PQfinish(conn);
    return context;
}

static void *start(void *context) {
    bool bulk = strcmp(work, "start_bulk") == 0;
    PGconn *conn = bench_connect(url);
    prepare(conn, "start", bulk ? START("unnest($1::jsonb[])") : START("cast($1 as jsonb)"));
    const char *payload = "{}";
    char payloads[BULK * 5 + 2] = "{"; /* {"{}","{}",…} */
    if (bulk) {
        char *end = payloads + 1;
        for (int i = 0; i < BULK; i++) {
            end = stpcpy(end, "\"{}\",");
        }
        end[-1] = '}';
        payload = payloads;
    }
    int64_t end_ns = clock_ns() + (int64_t)(seconds * 1e9);
    while (clock_ns() < end_ns) {
        execute(conn, "start", 1, (const char *[]){ payload });
        started += bulk ? BULK : 1;
    }
    PQfinish(conn);
    return context;
}

/* A lone start that notifies, until a listener has claimed it with its payload: both commits reach
 * the disk. */
static void latency(int count) {
    PGconn *starter = bench_connect(url), *listener = bench_connect(url);
    int64_t *samples = calloc((size_t)count, sizeof *samples);
    run_sql(listener, SETTINGS);
    run_sql(listener, "listen started");
    prepare(listener, "claim", claim);
    prepare(starter, "start", START("cast($1 as jsonb)") " returning pg_notify('started', '')");
    for (int i = -20; i < count; i++) { /* the first ones for plans and caches */
        sleep_us(GAP_US);
        int64_t began_ns = clock_ns();
        execute(starter, "start", 1, (const char *[]){ "{}" });
        struct pollfd heard = { .fd = PQsocket(listener), .events = POLLIN };
        PGnotify *notify = NULL;
        while (notify == NULL && poll(&heard, 1, 10000) == 1 && PQconsumeInput(listener) == 1) {
            notify = PQnotifies(listener);
        }
        PQfreemem(notify);
        free(claim_next(listener));
        samples[i < 0 ? 0 : i] = clock_ns() - began_ns;
    }
    print_percentiles(samples, count);
    free(samples);
    PQfinish(starter);
    PQfinish(listener);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        (void)fprintf(stderr, "usage: bench_ceiling URL WORK CONNECTIONS AMOUNT\n");
        return 2;
    }
    url = argv[1];
    work = argv[2];
    int connections = (int)strtol(argv[3], NULL, 10);
    if (strcmp(work, "latency") == 0) {
        latency((int)strtol(argv[4], NULL, 10));
    } else if (strncmp(work, "start", 5) == 0) {
        seconds = strtod(argv[4], NULL);
        double took = run_threads(connections, start, NULL);
        (void)printf("%.0f\n", (double)started / took);
    } else {
        double took = run_threads(connections, drain, NULL);
        (void)printf("%.0f\n", strtod(argv[4], NULL) / took);
    }
    return 0;
}
