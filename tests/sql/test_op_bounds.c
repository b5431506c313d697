/* Ops that are too much: of one run, of its history, of its places. It fails by name, and no other
 * does. */
#include "ops.h"

#include <string.h>

#define STEP_A "{\"op\": \"step\", \"name\": \"a\", \"result\": 1}"

static void no_more_suspends_a_run_at_once_than_its_limit(void **state) {
    (void)state;
    const char *many = "select o.answer from c, durable_internal.commit_ops(array[run_id], "
                       "array[fence], array[worker_id], array[(select jsonb_agg("
                       "jsonb_build_object('op', 'sleep', 'name', 's' || n, 'duration', '1h')) "
                       "from generate_series(1, %d) as n)]) as o";
    assert_non_null(
        strstr(sql_text(conn, many, 501), "501 ops suspend the run at once; the limit is 500"));
    assert_string_equal(status("http"), "running");
    assert_non_null(strstr(sql_text(conn, many, 500), "results"));
    assert_string_equal(status("http"), "waiting");
}

static void too_much_fails_its_run_and_no_other(void **state) {
    (void)state;
    sql(conn, "select durable.start('http'), durable.start('http')");
    claim();
    sql(conn, "update durable_internal.lease set remembered = 10000 where run_id = (select run_id "
              "from c limit 1)");
    assert_int_equal(
        sql_int(conn,
                "with i as (select array_agg(run_id) as runs, array_agg(fence) as fences, "
                "array_agg(worker_id) as workers from c) select count(*) filter (where "
                "a.answer ->> 'code' = 'payload_too_large') * 10 + count(*) from i, "
                "durable_internal.commit_ops(i.runs, i.fences, i.workers, array_fill('[{"
                "\"op\": \"step\", \"name\": \"a\", \"result\": 1}]'::jsonb, array[2])) as a"),
        12);
    assert_string_equal(
        sql_text(conn, "select string_agg(status || coalesce(error ->> 'name', ''), "
                       "' ' order by status) from durable.runs where id in (select run_id from c)"),
        "failedResultRefused running");
}

/* What lines of the log and a progress may hold is what a result may; over HTTP, and in an answer.
 */
static void a_log_or_a_progress_over_its_limits_is_refused_to_its_run(void **state) {
    static const struct {
        const char *member, *value, *code, *message;
    } table[] = {
        { "fields", "('{\"n\": ' || repeat('1', 401) || '}')", "invalid_argument",
          "fields of a log op has a number" },
        { "fields", "('{\"n\": ' || repeat('[', 64) || repeat(']', 64) || '}')", "invalid_argument",
          "fields of a log op is nested" },
        { "fields", "('{\"n\": \"' || repeat('x', 1048576) || '\"}')", "payload_too_large",
          "fields of a log op is 1048585 bytes; the limit is 1048576" },
        { "value", "'1e999'", "invalid_argument", "value of a progress op has a number" },
        { "value", "('\"' || repeat('x', 1048576) || '\"')", "payload_too_large",
          "value of a progress op is 1048578 bytes" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *op = strcmp(table[i].member, "fields") == 0 ? "log" : "progress";
        sql(conn, "select durable.start('http')");
        claim();
        assert_int_equal(sql_int(conn, "select count(*) from c"), 1);
        const char *answers = sql_text(
            conn,
            "select string_agg(a.answer::text, ' ') from c, lateral (select c.run_id as r, "
            "c.fence as f, c.worker_id as w) as i, durable_internal.commit_ops(array[i.r], "
            "array[i.f], array[i.w], array[jsonb_build_array(jsonb_build_object('op', 'step', "
            "'name', 'before', 'result', 1), jsonb_build_object('op', '%s', 'message', 'm', '%s', "
            "%s::jsonb))]) as a",
            op, table[i].member, table[i].value);
        if (strstr(answers, table[i].code) == NULL || strstr(answers, table[i].message) == NULL) {
            fail_msg("%s %s: %s", op, table[i].value, answers);
        }
        assert_int_equal(
            sql_int(conn, "select count(*) from durable.steps join c using (run_id)") +
                sql_int(conn, "select count(*) from durable.logs join c using (run_id)"),
            0);
        sql(conn, "select durable.cancel(run_id) from c");
    }
    sql(conn, "select durable.start('http')");
    claim();
    assert_string_equal(
        commit_ops("http", "[{\"op\": \"log\", \"message\": \"m\", \"fields\": {\"a\": 1.10}}, "
                           "{\"op\": \"log\", \"fields\": null}, {\"op\": \"progress\", "
                           "\"value\": {\"done\": 7}}, {\"op\": \"progress\"}]"),
        "{\"results\": [{}, {}, {}, {}], \"cancelled\": false}");
}

/* Alone, and with another: by the quick way and the other one. */
static void what_fills_a_history_fails_its_run_whichever_way_it_comes(void **state) {
    static const char *const lists[] = { "[" STEP_A "]", "[" STEP_A ", {\"op\": \"log\"}]" };
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        start_and_claim(1);
        sql(conn, "update durable_internal.lease set bytes = 64 * 1024 * 1024 where run_id = "
                  "(select run_id from c)");
        const char *answer = commit_ops("http", lists[i]);
        assert_non_null(strstr(answer, "payload_too_large"));
        assert_non_null(strstr(answer, "step a makes the run's history larger than 67108864"));
        assert_string_equal(status("http"), "failed");
        assert_int_equal(sql_int(conn, "select count(*) from durable.steps join c using (run_id)"),
                         0);
    }
}

/* The run in hand remembers so many steps s1, s2 …, by hand. */
static void fill(int steps) {
    sql(conn,
        "insert into durable_internal.step (run_id, position, attempt, started_at, committed_at, "
        "name, kind, result, by_name) select c.run_id, n, 1, now(), now(), 's' || n, 'step', "
        "'null', true from c, generate_series(1, %d) as n",
        steps);
    sql(conn, "update durable_internal.lease set remembered = %d", steps);
}

static const char *error_of(const char *job) {
    return sql_text(conn,
                    "select concat_ws(': ', status, error ->> 'name', error ->> 'message') from "
                    "durable.runs where job = '%s' order by id desc limit 1",
                    job);
}

#define SLEEP_OP "{\"op\": \"sleep\", \"name\": \"nap\", \"duration\": \"0s\"}"
#define WAIT_OP                                                                                    \
    "{\"op\": \"wait_event\", \"name\": \"w\", \"event\": \"brim\", \"timeout\": \"1h\"}"
#define ANY_OP                                                                                     \
    "{\"op\": \"wait_any\", \"name\": \"any\", \"events\": [{\"event\": \"brim\"}, {\"event\": "   \
    "\"b\"}]}"
#define KID_OP "{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\"}"

/* In a commit, and in an answer; one at a time, and several at once. */
static void what_no_place_is_left_for_is_refused_before_it_suspends(void **state) {
    static const char *const rows[] = {
        "[" SLEEP_OP "]",
        "[" WAIT_OP "]",
        "[" ANY_OP "]",
        "[" KID_OP "]",
        "[" WAIT_OP ", " SLEEP_OP ", " KID_OP "]",
        "[" KID_OP ", " ANY_OP "]",
    };
    (void)state;
    long long kids = sql_int(conn, "select count(*) from durable.runs where job = 'kid'");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sql(conn, "select durable.cancel(run_id) from c");
        sql(conn, "select durable.start('http')");
        claim();
        fill(10000);
        assert_non_null(
            strstr(sql_error(conn, "DJ004",
                             "select v.* from c, durable_internal.commit(worker_id, "
                             "'{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}', "
                             "array[run_id], array[fence], array['answer'], "
                             "array['{\"status\": \"suspended\", \"ops\": %s}'::jsonb], "
                             "'{}','{}','{}','{}','{}') as v",
                             rows[i]),
                   "is number 10001; the limit is 10000 steps a run: let one step do more"));
        assert_non_null(strstr(commit_ops("http", rows[i]), "\"code\": \"payload_too_large\""));
        assert_non_null(strstr(error_of("http"), "failed: ResultRefused: step "));
        assert_non_null(strstr(error_of("http"), "is number 10001; the limit is 10000 steps"));
    }
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job = 'kid'"), kids);
}

/* A place that a retry has forgotten is one, and what goes on at the side of it needs none yet. */
static void a_forgotten_place_is_taken_again_by_a_run_that_is_full(void **state) {
    (void)state;
    fill(10000);
    sql(conn, "update durable_internal.step s set name = case position when 7 then 'nap' else "
              "'kid' end, forgotten = true, result = null from c where s.run_id = c.run_id and "
              "position in (7, 8)");
    (void)commit_ops("http", "[" SLEEP_OP ", " KID_OP "]");
    assert_string_equal(status("http"), "waiting");
    sql(conn, "update durable_internal.timer set due_at = clock_timestamp() where kind = "
              "'wait_timeout'");
    (void)sql_int(conn, "select promoted from durable_internal.promote_due(100, -1)");
    claim();
    assert_int_equal(
        sql_int(conn, "select position from durable.steps join c using (run_id) where kind = "
                      "'sleep' and c.job = 'http'"),
        7);
    answer("kid", "{\"status\": \"completed\", \"result\": 4}");
    (void)commit_ops("http", "[" KID_OP "]");
    match();
    claim();
    assert_int_equal(
        sql_int(conn, "select position from durable.steps join c using (run_id) where kind = "
                      "'child'"),
        8);
}

/* Its answer was lost; alone, and with another run's. */
static void the_last_step_said_again_changes_nothing(void **state) {
    const char *last = "[{\"op\": \"step\", \"name\": \"last\", \"result\": 1}]";
    (void)state;
    fill(9999);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(commit_ops("http", last), "{\"results\": [{}], \"cancelled\": false}");
    }
    sql(conn, "select durable.start('http')");
    sql(conn, "create table first as select * from c");
    claim();
    sql(conn, "insert into c select * from first");
    assert_string_equal(
        sql_text(conn,
                 "with i as (select array_agg(run_id) as runs, array_agg(fence) as fences, "
                 "array_agg(worker_id) as workers from c) select string_agg(a.answer ->> "
                 "'results', ' ') from i, durable_internal.commit_ops(i.runs, i.fences, "
                 "i.workers, array_fill('%s'::jsonb, array[2])) as a",
                 last),
        "[{}] [{}]");
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps join first using (run_id)"),
                     10000);
    sql(conn, "drop table first");
    assert_non_null(
        strstr(commit_ops("http", "[{\"op\": \"step\", \"name\": \"last\", \"result\": 2}, {"
                                  "\"op\": \"step\", \"name\": \"x\", \"result\": 2}]"),
               "results"));
}

/* Rows that no handler of today leaves behind, in front of those of others. */
static void a_place_that_cannot_be_stops_no_other_run(void **state) {
    static const struct {
        const char *op, *fails, *other;
    } rows[] = {
        { "[" SLEEP_OP "]", "update durable_internal.timer set position = 10001", "promoted" },
        { "[" WAIT_OP "]", "update durable_internal.wait set position = 10001", "given" },
        { "[{\"op\": \"wait_event\", \"name\": \"w\", \"event\": \"never\", \"timeout\": \"0s\", "
          "\"onTimeout\": \"continue\"}]",
          "update durable_internal.wait set position = 10001", "timed out" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sql(conn, "select durable.cancel(run_id) from c");
        sql(conn, "select durable.start('http')");
        claim();
        const char *odd = sql_text(conn, "select run_id from c");
        char odd_id[64], other_id[64];
        (void)snprintf(odd_id, sizeof odd_id, "%s", odd);
        (void)commit_ops("http", rows[i].op);
        sql(conn, "%s", rows[i].fails);
        sql(conn, "select durable.start('http')");
        claim();
        (void)snprintf(other_id, sizeof other_id, "%s", sql_text(conn, "select run_id from c"));
        (void)commit_ops("http", rows[i].op);
        sql(conn, "select durable.send_event('brim')");
        if (i == 1) { /* by a worker, in the turn in which it claims */
            sql(conn, "create table claimed as select c.* from durable_internal.worker w, "
                      "durable_internal.claim(w.id, 10, 1000000, w.number, match => true) as c");
            assert_string_equal(sql_text(conn, "select run_id from claimed"), other_id);
            sql(conn, "drop table claimed");
        } else {
            match();
            (void)sql_int(conn, "select promoted from durable_internal.promote_due(1000, 60)");
        }
        assert_string_equal(
            sql_text(conn, "select status from durable.runs where id = '%s'", other_id),
            i == 1 ? "running" : "queued");
        assert_string_equal(
            sql_text(conn,
                     "select concat_ws(' ', status, error ->> 'name', error ->> 'message') from "
                     "durable.runs where id = '%s'",
                     odd_id),
            sql_text(conn,
                     "select 'failed TooManySteps step %s is number 10001; the limit is 10000 "
                     "steps a run: let one step do more, or a run of its own do the rest'",
                     i == 0 ? "nap" : "w"));
        sql(conn, "select durable.cancel('%s')", other_id);
    }
}

static void large_event(const char *name) {
    sql(conn, "select durable.send_event('%s', to_jsonb(repeat('x', 1000000)))", name);
}

/* It lies compressed in its table, and what is remembered of it is its text. */
static void an_event_counts_as_it_prints_and_fails_a_run_that_it_does_not_fit(void **state) {
    const char *wait = "[{\"op\": \"wait_event\", \"name\": \"w\", \"event\": \"large\"}]";
    (void)state;
    large_event("large");
    (void)commit_ops("http", wait);
    match();
    claim();
    assert_in_range(sql_int(conn, "select bytes from c"), 1000000, 1001000);
    sql(conn, "update durable_internal.lease set bytes = 64 * 1024 * 1024 - 1000000");
    (void)commit_ops("http", "[{\"op\": \"wait_event\", \"name\": \"w#2\", \"event\": \"large\"}]");
    char id[64];
    (void)snprintf(id, sizeof id, "%s", sql_text(conn, "select run_id from c"));
    sql(conn, "select durable.start('http')");
    claim();
    (void)commit_ops("http", wait);
    large_event("large");
    match();
    assert_string_equal(status("http"), "queued"); /* the other one has it */
    assert_string_equal(
        sql_text(conn,
                 "select concat_ws(' ', status, error ->> 'name', error ->> 'step', error ->> "
                 "'message') from durable.runs where id = '%s'",
                 id),
        "failed ResultRefused w#2 step w#2 makes the run's history larger than 67108864 bytes: "
        "keep what is large elsewhere, and remember where");
    assert_int_equal(sql_int(conn,
                             "select count(*) from durable_internal.delivery where run_id = "
                             "'%s'",
                             id),
                     1);
}

/* Each print is 30 times what it is kept as. */
static void results_count_as_they_print(void **state) {
    static const char *const step = "(select jsonb_build_array(jsonb_build_object('op', 'step', "
                                    "'name', '%s', 'result', jsonb_agg(1e300))) from "
                                    "generate_series(1, 700))";
    char ops[2][512];
    (void)state;
    for (int i = 0; i < 2; i++) {
        (void)snprintf(ops[i], sizeof ops[i], step, i == 0 ? "a" : "b");
    }
    sql(conn,
        "select o.* from c, durable_internal.commit_ops(array[run_id], array[fence], "
        "array[worker_id], array[%s]) as o",
        ops[0]);
    assert_in_range(sql_int(conn, "select bytes from durable_internal.lease"), 200000, 250000);
    sql(conn, "select durable.start('http')");
    sql(conn, "create table first as select * from c");
    claim();
    sql(conn, "insert into c select * from first");
    sql(conn,
        "with i as (select array_agg(run_id) as runs, array_agg(fence) as fences, "
        "array_agg(worker_id) as workers from c) select a.* from i, "
        "durable_internal.commit_ops(i.runs, i.fences, i.workers, array_fill(%s, array[2])) as a",
        ops[1]);
    assert_in_range(sql_int(conn, "select l.bytes from durable_internal.lease l join first using "
                                  "(run_id)"),
                    400000, 500000);
    sql(conn, "select durable.cancel(run_id) from first");
    sql(conn, "select durable.retry(run_id) from first");
    assert_in_range(sql_int(conn, "select r.bytes from durable_internal.ready r join first using "
                                  "(run_id)"),
                    400000, 500000);
    sql(conn, "select durable.cancel(run_id) from first");
    sql(conn, "drop table first");
}

/* A row by hand: what is over its limit is not let to the workers again. */
static void a_run_that_remembers_too_much_is_not_retried(void **state) {
    (void)state;
    fill(65);
    sql(conn, "update durable_internal.step s set result = to_jsonb(repeat('x', 1048574)) from c "
              "where s.run_id = c.run_id");
    sql(conn, "select durable.cancel(run_id) from c");
    assert_non_null(strstr(sql_error(conn, "DJ004", "select durable.retry(run_id) from c"),
                           "remembers 68157440 bytes; the limit is 67108864 bytes"));
    sql(conn, "delete from durable_internal.step s using c where s.run_id = c.run_id and position "
              "= 65");
    assert_int_equal(sql_int(conn, "select durable.retry(run_id) from c"), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST(no_more_suspends_a_run_at_once_than_its_limit),
        OPS_TEST(too_much_fails_its_run_and_no_other),
        OPS_TEST(what_fills_a_history_fails_its_run_whichever_way_it_comes),
        OPS_TEST(a_log_or_a_progress_over_its_limits_is_refused_to_its_run),
        OPS_TEST(what_no_place_is_left_for_is_refused_before_it_suspends),
        OPS_TEST(a_forgotten_place_is_taken_again_by_a_run_that_is_full),
        OPS_TEST(the_last_step_said_again_changes_nothing),
        OPS_TEST(a_place_that_cannot_be_stops_no_other_run),
        OPS_TEST(an_event_counts_as_it_prints_and_fails_a_run_that_it_does_not_fit),
        OPS_TEST(results_count_as_they_print),
        OPS_TEST(a_run_that_remembers_too_much_is_not_retried),
    };
    return cmocka_run_group_tests(tests, ops_setup, invariants_hold);
}
