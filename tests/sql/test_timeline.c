/* Timelines in parts, as streams ask for them: together they are the whole, and one costs about
 * what it shows, however long the run is. And the view of runs, whose newest cost no more than they
 * are. */
#include "support.h"

#include <stdio.h>
#include <string.h>

static PGconn *conn;

static int setup(void **state) {
    (void)state;
    conn = connect_to(database_new());
    /* What a stream is told that asks again and again, `most` at a time. */
    sql(conn, "create function walked(run uuid, most int) returns text[] language plpgsql as $$ "
              "declare told text[] := '{}'; page text[]; after bigint := 0; "
              "begin loop select array_agg(t.entry), max(t.at_us) into page, after from "
              "durable_internal.stream_tails(array[1], array[run], array[after], most) as t; "
              "exit when page is null; told := told || page; end loop; "
              "return array(select t from unnest(told) as t order by t collate \"C\"); end $$");
    sql(conn,
        "create function whole(run uuid) returns text[] language sql as $$ select "
        "array_agg(e order by e collate \"C\") from durable.timeline(run) as t, lateral (select "
        "durable_internal.timeline_json(t.at, t.kind, t.name, t.attempt, t.duration_ms, t.detail)"
        "::text as e) as e where t.kind <> 'waiting' $$");
    return 0;
}

/* A run that is leased, with so many steps, one each `us`; each third has a line of the log. */
static const char *run_with_steps(int steps, int us) {
    const char *worker = strdup(worker_new(conn, "long"));
    const char *id = strdup(sql_text(conn, "select durable.start('long')"));
    sql(conn, "select durable_internal.claim('%s', 1, 1000000)", worker);
    sql(conn,
        "insert into durable_internal.step (run_id, position, attempt, started_at, committed_at, "
        "name, kind, result, by_name) select '%s', n, 1, t, t, 's' || n, 'step', '1', true from "
        "generate_series(1, %d) as n, lateral (select clock_timestamp() + n * %d * interval "
        "'1 microsecond' as t) as t",
        id, steps, us);
    sql(conn,
        "insert into durable_internal.log (run_id, attempt, at, level, message) select run_id, 1, "
        "committed_at + interval '1 microsecond', 'info', name from durable_internal.step where "
        "run_id = '%s' and position %% 3 = 0",
        id);
    return id;
}

static void check_walk(const char *id) {
    static const int pages[] = { 1000, 64, 16 };
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        assert_int_equal(sql_int(conn, "select cardinality(walked('%s', %d))", id, pages[i]),
                         sql_int(conn, "select cardinality(whole('%s'))", id));
        assert_int_equal(
            sql_int(conn, "select (walked('%s', %d) = whole('%s'))::int", id, pages[i], id), 1);
    }
}

static void the_parts_of_a_timeline_are_the_whole(void **state) {
    (void)state;
    check_walk(run_with_steps(1, 1000));
    check_walk(run_with_steps(3000, 1000));
    check_walk(run_with_steps(3000, 50)); /* in one burst */
}

/* Of one transaction, of two that looked at the clock in the other order, and with gaps. */
static void steps_at_one_time_and_out_of_order_are_all_told(void **state) {
    (void)state;
    const char *id = run_with_steps(2000, 1000);
    sql(conn,
        "update durable_internal.step s set committed_at = t.committed_at from "
        "durable_internal.step t where s.run_id = '%s' and t.run_id = s.run_id and s.position "
        "between 500 and 900 and t.position = 500",
        id);
    sql(conn,
        "update durable_internal.step set committed_at = committed_at - interval '1.5 ms' where "
        "run_id = '%s' and position %% 7 = 3 and position > 1000",
        id);
    sql(conn,
        "delete from durable_internal.step where run_id = '%s' and position between 1500 and "
        "1600",
        id);
    check_walk(id);
}

/* A retry does steps again in their old places, in C and over HTTP, long after those behind them.
 */
static void a_step_that_is_done_again_is_told_again(void **state) {
    (void)state;
    const char *id = run_with_steps(2000, 1);
    const char *after;
    sql(conn,
        "insert into durable_internal.attempt (run_id, attempt, started_at, ended_at, outcome) "
        "values ('%s', 1, clock_timestamp(), clock_timestamp(), 'failed')",
        id);
    check_walk(id);
    after = sql_text(conn,
                     "select (extract(epoch from max(at)) * 1000000)::bigint from "
                     "durable.timeline('%s') where kind <> 'waiting'",
                     id);
    sql(conn,
        "update durable_internal.step set committed_at = clock_timestamp() + interval '1 h' "
        "where run_id = '%s' and position = 3",
        id);
    assert_string_equal(
        sql_text(conn,
                 "select entry::jsonb ->> 'name' from durable_internal.stream_tails(array[1], "
                 "array['%s'::uuid], array[%s::bigint], 64)",
                 id, after),
        "s3");
    check_walk(id);
}

/* A row by hand, and a run that is not there: the streams that are asked with them go on. */
static void a_timeline_that_cannot_be_told_silences_no_other(void **state) {
    (void)state;
    const char *good = run_with_steps(2, 1000), *odd = run_with_steps(2, 1000);
    sql(conn, "update durable_internal.step set started_at = '-infinity' where run_id = '%s'", odd);
    assert_string_equal(
        sql_text(
            conn,
            "select string_agg(n || (entry::jsonb ->> 'kind'), ' ' order by n, at_us) from "
            "durable_internal.stream_tails(array[1, 1, 1, 2], array['%s'::uuid, '%s', "
            "gen_random_uuid(), '%s'], array_fill(0::bigint, array[4]), 64) where entry::jsonb "
            "->> 'kind' in ('started', 'step')",
            odd, good, good),
        "2started 2step 2step");
}

/* Pages of 8 KiB that a statement has looked at. */
static long long blocks_of(const char *statement) {
    sql(conn, "%s", statement); /* what it has to look up once */
    sql(conn,
        "create or replace function looked(statement text) returns bigint language plpgsql as $$ "
        "declare plan json; begin execute 'explain (analyze, buffers, format json) ' || statement "
        "into plan; return (plan #>> '{0,Plan,Shared Hit Blocks}')::bigint + "
        "(plan #>> '{0,Plan,Shared Read Blocks}')::bigint; end $$");
    return sql_int(conn, "select looked($$%s$$)", statement);
}

static void a_part_costs_what_it_shows(void **state) {
    char tail[512], first[512], all[128];
    (void)state;
    const char *id = run_with_steps(10000, 2000);
    sql(conn, "vacuum analyze");
    (void)snprintf(tail, sizeof tail,
                   "select * from durable_internal.stream_tails(array[1], array['%s'::uuid], "
                   "array[(select extract(epoch from committed_at) * 1000000 from "
                   "durable_internal.step where run_id = '%s' and position = 9990)::bigint], 64)",
                   id, id);
    (void)snprintf(first, sizeof first,
                   "select * from durable_internal.stream_tails(array[1], array['%s'::uuid], "
                   "array[0], 64)",
                   id);
    (void)snprintf(all, sizeof all, "select * from durable.timeline('%s')", id);
    long long whole = blocks_of(all);
    print_message("blocks: the whole %lld, the first page %lld, the last %lld\n", whole,
                  blocks_of(first), blocks_of(tail));
    assert_in_range(blocks_of(first), 1, 400);
    assert_in_range(blocks_of(tail), 1, 600);
}

/* As a user writes it, with PostgreSQL's own settings. */
static void the_newest_runs_are_found_without_the_others(void **state) {
    (void)state;
    sql(conn, "select durable.start_many('many', array_fill('{\"a\": 1}'::jsonb, array[20000]))");
    sql(conn, "update durable_internal.run set status = 'completed', finished_at = now(), result = "
              "'1' where id in (select run_id from durable_internal.ready order by run_id limit "
              "15000)");
    sql(conn, "delete from durable_internal.ready where run_id in (select id from "
              "durable_internal.run where status is not null)");
    sql(conn, "vacuum analyze");
    long long newest = blocks_of("select * from durable.runs order by id desc limit 10"),
              one =
                  blocks_of("select * from durable.runs where id = (select max(run_id::text)::uuid "
                            "from durable_internal.ready)");
    print_message("blocks: the newest ten %lld, one by its id %lld\n", newest, one);
    assert_in_range(newest, 1, 600);
    assert_int_equal(
        sql_int(conn, "select count(*) from (select id from durable.runs order by id desc limit "
                      "10) as v join (select id from durable_internal.run order by id desc limit "
                      "10) as r using (id)"),
        10);
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job = 'many' and "
                                   "status = 'completed'"),
                     15000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parts_of_a_timeline_are_the_whole),
        cmocka_unit_test(steps_at_one_time_and_out_of_order_are_all_told),
        cmocka_unit_test(a_timeline_that_cannot_be_told_silences_no_other),
        cmocka_unit_test(a_step_that_is_done_again_is_told_again),
        cmocka_unit_test(a_part_costs_what_it_shows),
        cmocka_unit_test(the_newest_runs_are_found_without_the_others),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
