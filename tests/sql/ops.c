/* What the tests of ops share: runs of handlers that are called over HTTP, without HTTP. */
#include "ops.h"

const char *url;
PGconn *conn;
PGconn *caller;

#define NUMBERED "(select c.*, row_number() over (order by run_id)::int as n from c)"

void claim(void) {
    sql(conn, "drop table if exists c");
    sql(conn, "create table c as select c.*, w.id as worker_id from durable_internal.worker w, "
              "durable_internal.claim(w.id, 10, 1000000, w.number) as c");
}

void match(void) {
    while (sql_int(conn, "select durable_internal.match_turn(100)") > 0) {
    }
}

const char *commit_ops(const char *job, const char *ops) {
    return sql_text(conn,
                    "select o.answer - 'leaseUntil' from c, "
                    "durable_internal.commit_ops(array[run_id], array[fence], "
                    "array[worker_id], array['%s'::jsonb]) as o where c.job = '%s'",
                    ops, job);
}

void answer(const char *job, const char *detail) {
    sql(conn,
        "select v.* from c, durable_internal.commit(worker_id, "
        "'{}','{}','{}','{}','{}','{}','{}','{}','{}','{}',"
        "'{}','{}', array[run_id], array[fence], array['answer'], array['%s'::jsonb], "
        "'{}','{}','{}','{}','{}') as v "
        "where c.job = '%s'",
        detail, job);
}

const char *status(const char *job) {
    return sql_text(
        conn, "select status from durable.runs where job = '%s' order by id desc limit 1", job);
}

void start_and_claim(int count) {
    sql(conn, "select durable.start('http') from generate_series(1, %d)", count);
    claim();
    assert_int_equal(sql_int(conn, "select count(*) from c"), count);
}

const char *answers(const char *details) {
    return sql_text(
        conn,
        "with i as %s, a as (select (array_agg(worker_id))[1] as worker, array_agg(run_id order by "
        "n) as runs, array_agg(fence order by n) as fences, array_agg('answer'::text) as ops, "
        "array_agg('%s'::jsonb -> n - 1 order by n) as details, array_agg(1) as attempts, "
        "array_agg(0::bigint) as ages, array_agg('info'::text) as levels, array_agg('said'::text) "
        "as messages from i) select coalesce(string_agg(i.n || case when v.busy then ' busy' else "
        "' lost' end, ', ' order by i.n), 'kept') from a, durable_internal.commit(worker, "
        "'{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}', runs, fences, ops, details, "
        "runs, attempts, ages, levels, messages) as v join i using (run_id)",
        NUMBERED, details);
}

const char *commits(const char *lists) {
    return sql_text(
        conn,
        "with i as %s, a as (select array_agg(run_id order by n) as runs, array_agg(fence order by "
        "n) as fences, array_agg(worker_id) as workers, array_agg('%s'::jsonb -> n - 1 order by n) "
        "as ops from i) select string_agg(coalesce(o.answer ->> 'code', 'kept'), ', ' order by "
        "o.n) from a, durable_internal.commit_ops(runs, fences, workers, ops) as o",
        NUMBERED, lists);
}

int ops_setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    (void)worker_new(conn, "native");
    sql(conn,
        "select durable_internal.endpoint_put(1, 'e', 'http://127.0.0.1:9/', true, null, null)");
    sql(conn, "select durable_internal.endpoint_synced(1, 'e', 'v1', '[{\"name\": \"http\"}, "
              "{\"name\": \"kid\", "
              "\"maxAttempts\": 1}]')");
    sql(conn, "select durable_internal.worker_endpoints(id) from durable_internal.worker");
    return 0;
}

int ops_begin(void **state) {
    (void)state;
    sql(conn, "select durable.start('http', '{\"a\": 1.10}')");
    claim();
    assert_int_equal(sql_int(conn, "select count(*) from c"), 1);
    return 0;
}

int ops_end(void **state) {
    (void)state;
    PQfinish(caller);
    caller = NULL;
    sql(conn, "reset lock_timeout; reset statement_timeout");
    sql(conn, "select durable.cancel(id) from durable.runs where finished_at is null");
    while (sql_int(conn, "select durable_internal.match_turn(100)") > 0) {
    }
    return 0;
}
