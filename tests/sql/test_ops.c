/* Ops of handlers that are called over HTTP, and the endpoints that serve them: the protocol's
 * functions, without HTTP. */
#include "support.h"

#include <pthread.h>
#include <string.h>

static const char *url;
static PGconn *conn;
static PGconn *caller; /* whose transaction is open; NULL: nobody's */

/* The runs that our worker has just claimed are in the table c. */
static void claim(void) {
    sql(conn, "drop table if exists c");
    sql(conn, "create table c as select c.*, w.id as worker_id from durable_internal.worker w, "
              "durable_internal.claim(w.id, 10, 1000000, w.number) as c");
}

static void match(void) {
    while (sql_int(conn, "select durable_internal.match_turn(100)") > 0) {
    }
}

/* What a commit of the run of a job answers to these ops. */
static const char *commit_ops(const char *job, const char *ops) {
    return sql_text(conn,
                    "select o.answer - 'leaseUntil' from c, "
                    "durable_internal.commit_ops(array[run_id], array[fence], "
                    "array[worker_id], array['%s'::jsonb]) as o where c.job = '%s'",
                    ops, job);
}

/* … and what the end of its call comes to. */
static void answer(const char *job, const char *detail) {
    sql(conn,
        "select v.* from c, durable_internal.commit(worker_id, "
        "'{}','{}','{}','{}','{}','{}','{}','{}','{}','{}',"
        "'{}','{}', array[run_id], array[fence], array['answer'], array['%s'::jsonb], "
        "'{}','{}','{}','{}','{}') as v "
        "where c.job = '%s'",
        detail, job);
}

static const char *status(const char *job) {
    return sql_text(
        conn, "select status from durable.runs where job = '%s' order by id desc limit 1", job);
}

static int setup(void **state) {
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

static int begin(void **state) {
    (void)state;
    sql(conn, "select durable.start('http', '{\"a\": 1.10}')");
    claim();
    assert_int_equal(sql_int(conn, "select count(*) from c"), 1);
    return 0;
}

static int end(void **state) {
    (void)state;
    PQfinish(caller);
    caller = NULL;
    sql(conn, "reset lock_timeout; reset statement_timeout");
    sql(conn, "select durable.cancel(id) from durable.runs where finished_at is null");
    while (sql_int(conn, "select durable_internal.match_turn(100)") > 0) {
    }
    return 0;
}

static void a_claim_brings_what_a_call_says_of_its_run(void **state) {
    (void)state;
    assert_string_equal(
        sql_text(conn, "select payload::text || ' ' || (facts - 'createdAt') from c"),
        "{\"a\": 1.10} {\"tags\": {}, \"version\": null, \"namespace\": "
        "\"default\", \"maxAttempts\": 5}");
}

static void ops_are_remembered_in_their_order(void **state) {
    (void)state;
    assert_string_equal(
        commit_ops("http", "[{\"op\": \"step\", \"name\": \"a\", \"result\": 1.10}, "
                           "{\"op\": \"step\", \"name\": \"b\", \"error\": {\"message\": \"no\"}}, "
                           "{\"op\": \"log\", \"level\": \"info\", \"message\": \"hello\"}]"),
        "{\"results\": [{}, {}, {}], \"cancelled\": false}");
    assert_string_equal(
        sql_text(
            conn,
            "select string_agg(format('%%s %%s %%s', position, name, coalesce(result, error)), "
            "', ' order by position) from durable.steps s join c using (run_id)"),
        "1 a 1.10, 2 b {\"name\": \"Error\", \"message\": \"no\"}");
}

static void a_repeated_request_changes_nothing_and_gives_the_same_results(void **state) {
    (void)state;
    const char *ops = "[{\"op\": \"step\", \"name\": \"a\", \"result\": 1}, {\"op\": "
                      "\"send_event\", \"name\": \"send:x\", "
                      "\"event\": \"x\", \"payload\": {}}]";
    char first[512];
    (void)snprintf(first, sizeof first, "%s", commit_ops("http", ops));
    assert_string_equal(commit_ops("http", ops), first);
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps join c using (run_id)"), 2);
    assert_int_equal(sql_int(conn, "select count(*) from durable.events where name = 'x'"), 1);
}

/* Each of these comes between two good items of other runs. */
static void an_item_that_is_refused_harms_no_other(void **state) {
    static const struct {
        const char *ops, *answer;
    } table[] = {
        { "[{\"op\": \"nonsense\", \"name\": \"x\"}]", "\"code\": \"invalid_argument\"" },
        { "{}", "\"code\": \"invalid_argument\"" },
        { "[{\"op\": \"step\"}]", "name null is not a name" },
        { "[{\"op\": \"step\", \"name\": \"b\", \"result\": 1}, {\"op\": \"step\", \"name\": "
          "\"c\", "
          "\"startedAt\": \"noon\"}]",
          "\"code\": \"invalid_argument\"" },
        { "[{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\", \"options\": {\"priority\": "
          "\"x\"}}]",
          "\"code\": \"invalid_argument\"" },
        { "[{\"op\": \"wait_event\", \"name\": \"w\", \"event\": \"e\", \"timeout\": \"soon\"}]",
          "timeout 'soon'" },
        { "[{\"op\": \"sleep\", \"name\": \"s\", \"until\": null}]", "duration null" },
        { "[{\"op\": \"wait_any\", \"name\": \"w\", \"events\": []}]",
          "events is not a list of 1 to 100 objects" },
        { "[{\"op\": \"wait_event\", \"name\": \"w\", \"event\": \"e\", \"onTimeout\": \"shrug\"}]",
          "onTimeout 'shrug' is not known; fail, continue or cancel is allowed" },
    };
    (void)state;
    sql(conn, "select durable.start('http') from generate_series(1, 3)");
    claim();
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *answers = sql_text(
            conn,
            "with i as (select array_agg(run_id order by run_id) as runs, array_agg(fence order by "
            "run_id) as fences, array_agg(worker_id) as workers from c) select string_agg(a.answer "
            "->> 'results' || coalesce(a.answer ->> 'code', ''), ' ' order by a.n) || max(a.answer "
            "#>> '{}') filter (where a.n = 2) from i, durable_internal.commit_ops(i.runs, "
            "i.fences, "
            "i.workers, array['[{\"op\": \"step\", \"name\": \"s%zu\", \"result\": 1}]', '%s', "
            "'[{\"op\": \"step\", \"name\": \"s%zu\", \"result\": 1}]']::jsonb[]) as a",
            i, table[i].ops, i);
        assert_non_null(strstr(answers, "[{}] [{}]"));
        assert_non_null(strstr(answers, table[i].answer));
    }
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps join c using (run_id)"),
                     2 * sizeof table / sizeof *table);
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where status = 'running'"),
                     4);
}

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

static void an_op_of_state_that_is_refused_is_its_handlers_error_for_good(void **state) {
    static const struct {
        const char *action, *answer;
    } table[] = {
        { "\"action\": \"increment\", \"key\": \"text\"", "\"code\": \"conflict\"" },
        { "\"action\": \"increment\", \"key\": \"\"", "\"code\": \"invalid_argument\"" },
        { "\"action\": \"set\", \"key\": \"text\", \"value\": 1, \"ifVersion\": 77",
          "\"code\": \"conflict\"" },
    };
    char ops[256], first[512];
    (void)state;
    sql(conn, "select durable.state_set('text', '\"a\"')");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        (void)snprintf(ops, sizeof ops, "[{\"op\": \"state\", \"name\": \"n%zu\", %s}]", i,
                       table[i].action);
        (void)snprintf(first, sizeof first, "%s", commit_ops("http", ops));
        if (strstr(first, table[i].answer) == NULL || strstr(first, "\"error\"") == NULL) {
            fail_msg("%s: %s", ops, first);
        }
        sql(conn, "select durable.state_set('text', '7')"); /* it is remembered as it was */
        assert_string_equal(commit_ops("http", ops), first);
        sql(conn, "select durable.state_set('text', '\"a\"')");
    }
    assert_string_equal(status("http"), "running");
    sql(conn, "select durable.state_delete('text')");
}

static void a_handler_that_does_not_fit_parks_its_run(void **state) {
    (void)state;
    assert_non_null(strstr(commit_ops("http", "[{\"op\": \"park\", \"name\": \"b\", \"expected\": "
                                              "\"a\", \"found\": \"b\"}]"),
                           "results"));
    assert_string_equal(
        sql_text(conn, "select waiting_for - 'since' from durable.runs join c on "
                       "c.run_id = id"),
        "{\"kind\": \"version\", \"step\": \"b\", \"found\": \"b\", \"expected\": \"a\"}");
}

static void a_handler_in_c_has_no_other_ops(void **state) {
    (void)state;
    const char *call = "select durable_internal.run_op(run_id, '{%s}') from c";
    assert_string_equal(sql_error(conn, "DJ001", call, "\"op\": \"step\""),
                        "op 'step' is not known; state, send_event or child is allowed");
    assert_string_equal(sql_error(conn, "DJ001", call, ""),
                        "op null is not known; state, send_event or child is allowed");
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

/* What an error says beside its texts is one word: it is kept with the run, and shown. */
static void an_error_keeps_no_more_than_its_protocol_names(void **state) {
    (void)state;
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"a\", \"error\": {\"message\": "
                             "\"m\", \"retryable\": {\"a\": [1, 2, 3]}, \"more\": 1}}]");
    assert_string_equal(sql_text(conn, "select error from durable.steps join c using (run_id)"),
                        "{\"name\": \"Error\", \"message\": \"m\"}");
}

static void what_suspends_is_the_last_op(void **state) {
    (void)state;
    assert_non_null(
        strstr(commit_ops("http", "[{\"op\": \"sleep\", \"name\": \"s\", \"duration\": \"1h\"}, "
                                  "{\"op\": \"step\", \"name\": \"a\", \"result\": 1}]"),
               "comes after one that suspends"));
    assert_string_equal(status("http"), "running");
    (void)commit_ops("http", "[{\"op\": \"sleep\", \"name\": \"s\", \"duration\": \"1h\"}]");
    assert_string_equal(status("http"), "waiting");
    assert_string_equal(commit_ops("http", "[]"), "{\"code\": \"lease_lost\"}");
}

static void a_cancelled_run_is_told_so(void **state) {
    (void)state;
    sql(conn, "select durable.cancel(run_id) from c");
    assert_string_equal(commit_ops("http", "[{\"op\": \"step\", \"name\": \"a\", \"result\": 1}]"),
                        "{\"results\": [], \"cancelled\": true}");
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps join c using (run_id)"), 0);
}

static void a_lease_that_somebody_holds_is_busy(void **state) {
    PGconn *other = connect_to(url);
    (void)state;
    sql(other, "begin");
    sql(other, "select durable.cancel(run_id) from c");
    assert_string_equal(commit_ops("http", "[]"), "{\"code\": \"busy\"}");
    sql(other, "rollback");
    PQfinish(other);
    assert_string_equal(commit_ops("http", "[]"), "{\"results\": [], \"cancelled\": false}");
}

#define INCREMENT(name, key)                                                                       \
    "{\"op\": \"state\", \"name\": \"" name "\", \"action\": \"increment\", \"key\": \"" key "\"}"
#define COMPLETED(op) "{\"status\": \"completed\", \"result\": 1, \"ops\": [" op "]}"
#define NUMBERED "(select c.*, row_number() over (order by run_id)::int as n from c)"

/* One turn with an answer and a log line of each run in c, by age. Who is to say it again? */
static const char *answers(const char *details) {
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

/* One commit over HTTP with a list of ops of each run in c, by age. */
static const char *commits(const char *lists) {
    return sql_text(
        conn,
        "with i as %s, a as (select array_agg(run_id order by n) as runs, array_agg(fence order by "
        "n) as fences, array_agg(worker_id) as workers, array_agg('%s'::jsonb -> n - 1 order by n) "
        "as ops from i) select string_agg(coalesce(o.answer ->> 'code', 'kept'), ', ' order by "
        "o.n) from a, durable_internal.commit_ops(runs, fences, workers, ops) as o",
        NUMBERED, lists);
}

static void start_and_claim(int count) {
    sql(conn, "select durable.start('http') from generate_series(1, %d)", count);
    claim();
    assert_int_equal(sql_int(conn, "select count(*) from c"), count);
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

/* A caller begins, and his transaction stays open. We wait for nobody for longer than 2 s. */
static void call(const char *text) {
    sql(conn, "set lock_timeout = '2s'");
    caller = caller == NULL ? connect_to(url) : caller;
    sql(caller, "begin");
    sql(caller, "%s", text);
}

static void whose_op_needs_what_a_caller_holds_is_busy_alone(void **state) {
    static const struct {
        const char *held, *need;
    } table[] = {
        /* A row that is there; one that is not yet; a lock; the key of an event. */
        { "select durable.state_set('k0', '5')", INCREMENT("n", "k0") },
        { "select durable.state_increment('k1')", INCREMENT("n", "k1") },
        { "select durable.state_lock('k2', 'me', '1h')",
          "{\"op\": \"state\", \"name\": \"n\", \"action\": \"lock\", \"key\": \"k2\", \"ttl\": "
          "\"1h\"}" },
        { "select durable.send_event('e', '{}', null, 'k3')",
          "{\"op\": \"send_event\", \"name\": \"n\", \"event\": \"e\", \"idempotencyKey\": "
          "\"k3\"}" },
    };
    char text[2048];
    (void)state;
    sql(conn, "select durable.state_set('k0', '1')");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *need = table[i].need, *free = INCREMENT("f", "free");
        start_and_claim(4);
        call(table[i].held);
        (void)snprintf(text, sizeof text, "[[%s], [%s, %s], [%s], [%s]]", free, free, need, free,
                       need);
        assert_string_equal(commits(text), "kept, busy, kept, busy");
        (void)snprintf(
            text, sizeof text,
            "[" COMPLETED("") ", " COMPLETED("%s") ", " COMPLETED("%s") ", " COMPLETED("%s") "]",
            need, INCREMENT("g", "free"), need);
        assert_string_equal(answers(text), "2 busy, 4 busy");
        assert_string_equal(
            sql_text(conn, "select string_agg(r.status, ' ' order by r.id) from durable.runs r "
                           "join c on c.run_id = r.id"),
            "completed running completed running");
        sql(caller, "rollback");
        assert_string_equal(answers(text), "1 lost, 3 lost");
        assert_int_equal(sql_int(conn, "select count(*) from durable_internal.log join c using "
                                       "(run_id) where message = 'said'"),
                         4);
        assert_int_equal(sql_int(conn, "select value from durable.state_get('free')"),
                         3LL * ((long long)i + 1));
        (void)end(NULL);
    }
}

/* The first of them waits a moment, and the others know. */
static void many_whose_key_is_held_are_given_up_together(void **state) {
    (void)state;
    sql(conn, "select durable.state_set('k0', '1')");
    sql(conn, "select durable.start('http') from generate_series(1, 60)");
    sql(conn,
        "drop table c; create table c as select c.*, w.id as worker_id from "
        "durable_internal.worker w, durable_internal.claim(w.id, 60, 1000000, w.number) as c");
    call("select durable.state_set('k0', '5')");
    sql(conn, "set statement_timeout = '3s'");
    assert_int_equal(
        sql_int(conn, "with a as (select array_agg(run_id) as runs, array_agg(fence) as fences, "
                      "array_agg(worker_id) as workers, array_agg('[" INCREMENT(
                          "n", "k0") "]'::jsonb) as "
                                     "ops from c) select count(*) from a, "
                                     "durable_internal.commit_ops(runs, fences, "
                                     "workers, ops) as o where o.answer ->> 'code' = 'busy'"),
        60);
    sql(conn, "reset statement_timeout");
    sql(caller, "rollback");
}

static void a_wait_for_any_takes_the_first_of_its_events(void **state) {
    const char *wait =
        "[{\"op\": \"wait_any\", \"name\": \"any\", \"timeout\": \"1h\", \"events\": [{\"event\": "
        "\"paid\", "
        "\"correlationKey\": \"o1\"}, {\"event\": \"refused\"}, {\"event\": \"gone\", "
        "\"correlationKey\": \"o1\"}]}]";
    (void)state;
    (void)commit_ops("http", wait);
    sql(conn, "select durable.send_event('refused', '{}', 'o1')"); /* not with a key */
    sql(conn, "select durable.send_event('gone', '{\"n\": 1}', 'o1'), durable.send_event('paid', "
              "'{}', 'o1')");
    match();
    claim();
    assert_string_equal(
        sql_text(conn,
                 "select format('%%s %%s', s.kind, s.result - '{id,receivedAt}'::text[]) from "
                 "durable.steps s join c using (run_id)"),
        "wait_any {\"name\": \"gone\", \"payload\": {\"n\": 1}, \"timedOut\": false, "
        "\"correlationKey\": \"o1\"}");
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait_other"), 0);
    (void)commit_ops("http", wait);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait_other"), 2);
    sql(conn, "select durable.cancel(run_id) from c");
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait_other"), 0);
}

static void a_child_gives_its_result_to_its_parent(void **state) {
    (void)state;
    (void)commit_ops(
        "http",
        "[{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\", \"payload\": {\"k\": 1}}]");
    assert_string_equal(
        sql_text(conn,
                 "select waiting_for ->> 'kind' from durable.runs r join c on c.run_id = r.id"),
        "child");
    claim();
    answer("kid", "{\"status\": \"completed\", \"result\": {\"done\": true}}");
    assert_string_equal(status("kid"), "completed");
    match();
    claim();
    assert_string_equal(
        sql_text(conn, "select array_to_string(memory, ' ') from c where job = 'http'"),
        "1 child kid {\"done\": true}");
    assert_int_equal(sql_int(conn, "select count(*) from durable.events where name = '$child'"), 0);
}

static void a_child_that_fails_gives_its_error_to_its_parent(void **state) {
    (void)state;
    (void)commit_ops("http", "[{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\"}]");
    claim();
    answer("kid", "{\"status\": \"failed\", \"error\": {\"name\": \"Oops\", \"message\": \"no\"}}");
    match();
    claim();
    assert_string_equal(sql_text(conn, "select memory[5] from c where job = 'http'"),
                        "{\"name\": \"Oops\", \"message\": \"no\"}");
}

static void a_cancelled_parent_cancels_its_child(void **state) {
    (void)state;
    (void)commit_ops("http", "[{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\"}]");
    sql(conn, "select durable.cancel(run_id) from c");
    assert_string_equal(status("kid"), "cancelled");
}

/* What the run of job `http` that was just claimed remembers: position, kind, name, result, error.
 */
static const char *memory(void) {
    return sql_text(conn, "select array_to_string(memory, ' ', '-') from c where job = 'http'");
}

#define KID(name) "{\"op\": \"child\", \"name\": \"" name "\", \"job\": \"kid\"}"

static void several_children_run_at_once(void **state) {
    (void)state;
    sql(conn, "create table parent as select * from c");
    (void)commit_ops("http", "[" KID("a") ", " KID("b") ", " KID("c") "]");
    claim();
    assert_int_equal(sql_int(conn, "select count(*) from c where job = 'kid'"), 3);
    sql(conn, "create table kids as select c.*, b.name from c join durable_internal.branch b on "
              "b.child_id = c.run_id");
    static const char *const order[] = { "b", "c", "a" };
    for (int i = 0; i < 3; i++) {
        sql(conn,
            "delete from c; insert into c select run_id, fence, job, queue, attempt, payload, "
            "memory, bytes, facts, worker_id from kids where name = '%s'",
            order[i]);
        answer("kid", sql_text(conn,
                               "select format('{\"status\": \"completed\", \"result\": "
                               "\"of %%s\"}', '%s')",
                               order[i]));
        match();
        claim();
        assert_non_null(strstr(memory(), order[i]));
        (void)commit_ops("http", i == 0   ? "[" KID("a") ", " KID("c") "]"
                                 : i == 1 ? "[" KID("a") "]"
                                          : "[]");
    }
    assert_string_equal(memory(), "1 child b \"of b\" - 2 child c \"of c\" - 3 child a \"of a\" -");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs r join parent p on "
                                   "r.parent_run_id = p.run_id"),
                     3); /* none was started again */
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.branch join parent using (run_id)"),
        0);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait_other"), 0);
    sql(conn, "drop table parent, kids");
}

#define EVENT(name, event, on_timeout)                                                             \
    "{\"op\": \"wait_event\", \"name\": \"" name "\", \"event\": \"" event                         \
    "\", \"timeout\": \"1h\", \"onTimeout\": \"" on_timeout "\"}"
#define SLEEP "{\"op\": \"sleep\", \"name\": \"nap\", \"duration\": \"30m\"}"

static void time_goes_by(void) {
    sql(conn, "update durable_internal.timer set due_at = clock_timestamp() where kind = "
              "'wait_timeout'");
    (void)sql_int(conn, "select promoted from durable_internal.promote_due(100, -1)");
}

static void what_is_first_of_several_goes_on(void **state) {
    (void)state;
    (void)commit_ops("http", "[" EVENT("x", "late", "fail") ", " SLEEP
                                                            ", " EVENT("y", "early", "fail") "]");
    assert_string_equal(status("http"), "waiting");
    sql(conn, "select durable.send_event('early')");
    match();
    claim();
    assert_non_null(strstr(memory(), "1 wait_event y {"));
    const char *due = "select due_at::text from durable_internal.branch where name = 'nap'";
    char since[64];
    (void)snprintf(since, sizeof since, "%s", sql_text(conn, "%s", due));
    (void)commit_ops("http", "[" EVENT("x", "late", "fail") ", " SLEEP "]");
    assert_string_equal(sql_text(conn, "%s", due), since); /* it does not begin anew */
    time_goes_by();
    claim();
    assert_non_null(strstr(memory(), "2 sleep nap - -"));
    (void)commit_ops("http", "[" EVENT("x", "late", "continue") "]");
    time_goes_by();
    claim();
    assert_non_null(strstr(memory(), "3 wait_event x {\"timedOut\": true} -"));
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.branch join c using (run_id)"), 0);
}

static void two_waits_for_one_event_take_two(void **state) {
    (void)state;
    (void)commit_ops("http",
                     "[" EVENT("x", "twice", "fail") ", " EVENT("x#2", "twice", "fail") "]");
    sql(conn, "select durable.send_event('twice', '1'), durable.send_event('twice', '2')");
    match();
    claim();
    (void)commit_ops("http", "[" EVENT("x#2", "twice", "fail") "]");
    match();
    claim();
    assert_string_equal(
        sql_text(conn, "select string_agg(name || ' ' || (result ->> 'payload'), ', ' order by "
                       "position) from durable.steps join c using (run_id)"),
        "x 1, x#2 2");
}

static void one_of_several_that_is_too_late_ends_the_run(void **state) {
    (void)state;
    (void)commit_ops("http", "[" KID("kid") ", " EVENT("x", "x", "cancel") "]");
    time_goes_by();
    assert_string_equal(status("http"), "cancelled");
    assert_string_equal(status("kid"), "cancelled");
}

/* The error in the middle was caught, and what came behind it is remembered. */
static void a_retry_does_again_what_failed_in_its_place(void **state) {
    (void)state;
    (void)commit_ops("http",
                     "[{\"op\": \"step\", \"name\": \"a\", \"result\": 1}, {\"op\": \"step\", "
                     "\"name\": \"b\", \"error\": {\"message\": \"no\"}}, {\"op\": \"step\", "
                     "\"name\": \"c\", \"result\": 3}]");
    (void)commit_ops("http", "[" KID("kid") "]");
    claim();
    answer("kid", "{\"status\": \"failed\", \"error\": {\"message\": \"no\"}}");
    match();
    claim();
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"d\", \"result\": 5}]");
    answer("http",
           "{\"status\": \"failed\", \"error\": {\"message\": \"no\", \"retryable\": false}}");
    sql(conn, "select durable.retry(run_id) from c");
    claim();
    assert_string_equal(memory(),
                        "1 step a 1 - -2 step b - - 3 step c 3 - -4 child kid - - 5 step d 5 -");
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps join c using (run_id)"), 3);
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"b\", \"result\": 2}]");
    (void)commit_ops("http", "[" KID("kid") "]");
    claim();
    answer("kid", "{\"status\": \"completed\", \"result\": 4}");
    match();
    claim();
    assert_string_equal(memory(),
                        "1 step a 1 - 2 step b 2 - 3 step c 3 - 4 child kid 4 - 5 step d 5 -");
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"e\", \"result\": 6}]");
    assert_int_equal(sql_int(conn, "select position from durable.steps join c using (run_id) where "
                                   "name = 'e'"),
                     6);
}

/* The children of our run, oldest first: how each stands. */
static const char *children(void) {
    return sql_text(conn,
                    "select coalesce(string_agg(r.status, ' ' order by r.created_at), '') from "
                    "durable.runs r join parent p on r.parent_run_id = p.run_id");
}

/* Our run begins to wait for these children, and its time is over before they end. */
static void children_outlive_their_parent(const char *ops) {
    sql(conn, "drop table if exists parent");
    sql(conn, "create table parent as select * from c");
    (void)commit_ops("http", ops);
    sql(conn, "select durable_internal.time_out_run(run_id) from parent");
    assert_string_equal(status("http"), "failed");
}

/* … it is retried, and asks for what it does not remember. */
static void retry_asks_for(const char *ops) {
    sql(conn, "select durable.retry(run_id) from parent");
    claim();
    (void)commit_ops("http", ops);
}

static void a_retry_waits_for_a_child_that_is_alive(void **state) {
    (void)state;
    children_outlive_their_parent("[" KID("kid") "]");
    retry_asks_for("[" KID("kid") "]"); /* claims the child as well */
    assert_string_equal(children(), "running");
    answer("kid", "{\"status\": \"completed\", \"result\": 1}");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 1 -");
    assert_string_equal(children(), "completed");
}

static void a_retry_takes_the_result_of_a_child_that_has_completed(void **state) {
    (void)state;
    children_outlive_their_parent("[" KID("kid") "]");
    claim();
    answer("kid", "{\"status\": \"completed\", \"result\": 1}");
    match();
    retry_asks_for("[" KID("kid") "]");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 1 -");
    assert_string_equal(children(), "completed");
}

static void a_retry_begins_a_child_anew_that_has_failed_or_was_cancelled(void **state) {
    (void)state;
    children_outlive_their_parent("[" KID("kid") "]");
    claim();
    answer("kid", "{\"status\": \"failed\", \"error\": {\"message\": \"no\"}}");
    retry_asks_for("[" KID("kid") "]");
    assert_string_equal(children(), "failed queued");
    sql(conn, "select durable.cancel(run_id) from parent");
    retry_asks_for("[" KID("kid") "]");
    assert_string_equal(children(), "failed cancelled queued");
    match();
    claim();
    answer("kid", "{\"status\": \"completed\", \"result\": 3}");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 3 -");
}

/* Of three at once one has failed, one has completed, one is alive. */
static void a_retry_of_several_children_begins_only_what_has_failed_anew(void **state) {
    (void)state;
    const char *three = "[" KID("a") ", " KID("b") ", " KID("c") "]";
    children_outlive_their_parent(three);
    for (int i = 0; i < 2; i++) {
        sql(conn, "drop table c");
        sql(conn, "create table c as select c.*, w.id as worker_id from durable_internal.worker w, "
                  "durable_internal.claim(w.id, 1, 1000000, w.number) as c");
        answer("kid", i == 0 ? "{\"status\": \"failed\", \"error\": {\"message\": \"no\"}}"
                             : "{\"status\": \"completed\", \"result\": 2}");
    }
    assert_string_equal(children(), "failed completed queued");
    retry_asks_for(three);
    match();
    assert_string_equal(children(), "failed completed running queued");
    assert_string_equal(status("http"), "queued"); /* b was over at once */
}

/* Somebody has let the child go on before its parent. Its error was remembered. */
static void a_retry_waits_for_a_child_that_was_retried(void **state) {
    (void)state;
    sql(conn, "drop table if exists parent");
    sql(conn, "create table parent as select * from c");
    (void)commit_ops("http", "[" KID("kid") "]");
    claim();
    sql(conn, "create table kid as select * from c");
    answer("kid", "{\"status\": \"failed\", \"error\": {\"message\": \"no\"}}");
    match();
    claim();
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"b\", \"result\": 2}]");
    answer("http",
           "{\"status\": \"failed\", \"error\": {\"message\": \"no\", \"retryable\": false}}");
    sql(conn, "select durable.retry(run_id) from kid");
    retry_asks_for("[" KID("kid") "]");
    assert_string_equal(children(), "running");
    answer("kid", "{\"status\": \"completed\", \"result\": 1}");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 1 - 2 step b 2 -");
    assert_string_equal(children(), "completed");
    sql(conn, "drop table kid");
}

/* Both were cancelled, and both go on. */
static void a_retry_passes_over_the_old_end_of_a_child_that_goes_on(void **state) {
    (void)state;
    sql(conn, "drop table if exists parent");
    sql(conn, "create table parent as select * from c");
    (void)commit_ops("http", "[" KID("kid") "]");
    sql(conn, "select durable.cancel(run_id) from parent");
    match();
    sql(conn, "select durable.retry(r.id) from durable.runs r join parent p on r.parent_run_id = "
              "p.run_id");
    retry_asks_for("[" KID("kid") "]");
    match();
    assert_string_equal(status("http"), "waiting");
    answer("kid", "{\"status\": \"completed\", \"result\": 2}");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 2 -");
    assert_string_equal(children(), "completed");
}

static void an_answer_ends_suspends_or_continues_a_run(void **state) {
    (void)state;
    answer("http", "{\"ops\": [{\"op\": \"step\", \"name\": \"a\", \"result\": 1}], \"status\": "
                   "\"continue\"}");
    assert_string_equal(status("http"), "queued");
    claim();
    assert_int_equal(sql_int(conn, "select attempt from c"), 1);
    answer("http", "{\"ops\": [{\"op\": \"wait_event\", \"name\": \"go\", \"event\": \"go\", "
                   "\"timeout\": \"1h\"}], "
                   "\"status\": \"suspended\"}");
    assert_string_equal(status("http"), "waiting");
    sql(conn, "select durable.send_event('go')");
    match();
    claim();
    answer("http", "{\"status\": \"completed\", \"result\": 1.10}");
    assert_string_equal(
        sql_text(conn,
                 "select status || ' ' || result from durable.runs r join c on c.run_id = r.id"),
        "completed 1.10");
}

static void an_answer_that_is_none_fails_the_attempt_with_a_reason(void **state) {
    (void)state;
    answer("http", "{\"status\": \"suspended\"}");
    assert_string_equal(
        sql_text(conn, "select r.status || ' ' || (a.error ->> 'name') from durable.runs r join "
                       "durable.attempts a on a.run_id = r.id join c on c.run_id = r.id where "
                       "a.outcome = 'failed'"),
        "retrying ProtocolError");
}

static void a_failure_that_is_not_to_be_retried_is_not(void **state) {
    (void)state;
    answer("http",
           "{\"status\": \"failed\", \"error\": {\"message\": \"never\", \"retryable\": false}}");
    assert_string_equal(status("http"), "failed");
}

static void an_endpoint_that_rests_costs_its_runs_no_attempt(void **state) {
    (void)state;
    sql(conn, "select durable_internal.commit(worker_id, "
              "'{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}', "
              "array[run_id], array[fence], array['rest'], array['{\"endpoint\": \"e\", "
              "\"reason\": \"refused\"}'::jsonb], "
              "'{}','{}','{}','{}','{}') from c");
    assert_string_equal(
        sql_text(conn,
                 "select status || ' ' || (waiting_for ->> 'kind') from durable.runs r join c on "
                 "c.run_id = r.id"),
        "queued endpoint");
    sql(conn, "select durable_internal.worker_endpoints(id) from durable_internal.worker");
    claim();
    assert_int_equal(sql_int(conn, "select count(*) from c"), 0);
    assert_int_equal(sql_int(conn, "select failures from durable.endpoints"), 1);
    sql(conn,
        "update durable_internal.endpoint set rest_until = clock_timestamp() - interval '1 s'");
    sql(conn, "select durable_internal.worker_endpoints(id) from durable_internal.worker");
    claim();
    assert_int_equal(sql_int(conn, "select attempt from c"), 1);
    sql(conn, "select durable_internal.endpoint_well(worker_id, 'e') from c");
    assert_int_equal(sql_int(conn, "select failures from durable.endpoints"), 0);
}

/* Many runs of two sessions each count in one of two keys: the one session's runs in the one order,
 * the other's in the other. */

#define SESSIONS 2
#define COUNTED 20

struct session {
    const char *direction; /* of the order in which its runs come */
    int refused;
};

static void *count(void *context) {
    struct session *session = context;
    PGconn *mine = connect_to(url);
    sql(mine, "set lock_timeout = '1s'");
    for (int round = 0; round < 30; round++) {
        session->refused += (int)sql_int(mine,
                                         "with i as (select array_agg(run_id order by run_id) as "
                                         "runs, array_agg(fence order by run_id) as "
                                         "fences, array_agg(worker_id) as workers, "
                                         "array_agg(jsonb_build_array(jsonb_build_object('op', "
                                         "'state', 'name', 'n%d', 'action', 'increment', 'key', "
                                         "case when (place %% 2 = 0) = %s then "
                                         "'one' else 'two' end)) order by run_id) as ops from "
                                         "counted where half = %s) select count(*) "
                                         "filter (where o.answer ? 'code') from i, "
                                         "durable_internal.commit_ops(i.runs, i.fences, "
                                         "i.workers, i.ops) as o",
                                         round, session->direction, session->direction);
    }
    PQfinish(mine);
    return NULL;
}

static void counters_of_many_runs_do_not_meet_crosswise(void **state) {
    struct session sessions[SESSIONS] = { { .direction = "true" }, { .direction = "false" } };
    pthread_t threads[SESSIONS];
    (void)state;
    sql(conn, "select durable.start('http') from generate_series(1, %d)", SESSIONS * COUNTED);
    sql(conn, "create table counted as select c.run_id, c.fence, w.id as worker_id, row_number() "
              "over (order by "
              "c.run_id) as place, false as half from durable_internal.worker w, "
              "durable_internal.claim(w.id, 100, 10000000, w.number) as c");
    sql(conn, "update counted set half = place > %d", COUNTED);
    for (int i = 0; i < SESSIONS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count, &sessions[i]), 0);
    }
    for (int i = 0; i < SESSIONS; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < SESSIONS; i++) {
        assert_int_equal(sessions[i].refused, 0);
    }
    assert_int_equal(
        sql_int(conn,
                "select sum(value::int) from durable_internal.state where key in ('one', 'two')"),
        30 * SESSIONS * COUNTED);
}

static void old_secrets_hold_for_a_day(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++) {
        sql(conn, "select durable_internal.endpoint_put(1, 'r', 'http://127.0.0.1:9/', true, null, "
                  "null)");
    }
    assert_int_equal(sql_int(conn, "select cardinality(durable_internal.endpoint_secrets(1, 'r'))"),
                     11);
    sql(conn, "update durable_internal.endpoint_secret set until = clock_timestamp() - interval '1 "
              "s' where until < 'infinity'");
    assert_int_equal(sql_int(conn, "select cardinality(durable_internal.endpoint_secrets(1, 'r'))"),
                     1);
    assert_non_null(strstr(
        sql_error(conn, "DJ001",
                  "select durable_internal.endpoint_put(1, 'r', 'ftp://x', true, null, null)"),
        "url"));
    for (int i = 0; i < 2; i++) {
        assert_non_null(strstr(
            sql_error(conn, "DJ001",
                      "select durable_internal.endpoint_synced(1, 'r', 'v1', '[{\"name\": \"r\", "
                      "\"maxAttempts\": %s}]')",
                      i == 0 ? "1.5" : "99999999999"),
            "jobs[].maxAttempts "));
    }
    sql(conn, "select durable_internal.endpoint_drop(1, 'r')");
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

/* Over any way: alone, beside another run's, and beside what is for the slow way. */
static const char *const ways[] = {
    "[%s]",
    "[%s, {\"op\": \"step\", \"name\": \"beside\", \"result\": 1}]",
    "[%s, {\"op\": \"log\", \"message\": \"beside\"}]",
};

/* What is a time to PostgreSQL is none to us: with the beginning of all time no duration can be
 * reckoned, and one run's timeline is read together with others'. */
static void what_is_no_time_or_number_is_refused_by_its_name(void **state) {
    static const struct {
        const char *op, *says;
    } rows[] = {
        { "{\"op\": \"step\", \"name\": \"a\", \"result\": 1, \"startedAt\": \"-infinity\"}",
          "startedAt '-infinity' is not a time" },
        { "{\"op\": \"step\", \"name\": \"a\", \"result\": 1, \"startedAt\": \"infinity\"}",
          "startedAt 'infinity' is not a time" },
        { "{\"op\": \"step\", \"name\": \"a\", \"result\": 1, \"startedAt\": \"noon\"}",
          "startedAt 'noon' is not a time" },
        { "{\"op\": \"step\", \"name\": \"a\", \"result\": 1, \"startedAt\": \"now\"}",
          "startedAt 'now' is not a time" },
        { "{\"op\": \"step\", \"name\": \"a\", \"result\": 1, \"startedAt\": 5}",
          "startedAt (number) is not a time" },
        { "{\"op\": \"step\", \"name\": \"a\", \"result\": 1, \"startedAt\": "
          "\"2026-06-31T00:00:00Z\"}",
          "startedAt '2026-06-31T00:00:00Z' is not a time" },
        { "{\"op\": \"step\", \"name\": \"a\", \"result\": 1, \"startedAt\": "
          "\"2026-05-06T09:00:00\"}",
          "startedAt '2026-05-06T09:00:00' is not a time" },
        { "{\"op\": \"step\", \"name\": \"a\", \"result\": 1, \"startedAt\": "
          "\"2026-05-06T09:00:00+16:00\"}",
          "is not a time" },
        { "{\"op\": \"sleep\", \"name\": \"s\", \"until\": \"tomorrow\"}",
          "until 'tomorrow' is not a time" },
        { "{\"op\": \"sleep\", \"name\": \"s\", \"until\": \"2026-05-06 09:00 Mars/Olympus\"}",
          "until '2026-05-06 09:00 Mars/Olympus' is not a time" },
        { "{\"op\": \"sleep\", \"name\": \"s\", \"until\": \"9999-05-06T09:00:00Z\"}",
          "until 9999-05-06 09:00:00+00 is too far" },
        { "{\"op\": \"sleep\", \"name\": \"s\", \"until\": null}",
          "duration null is not a duration" },
        { "{\"op\": \"step_retry\", \"name\": \"a\", \"tries\": \"many\"}",
          "tries is not an integer" },
        { "{\"op\": \"step_retry\", \"name\": \"a\", \"tries\": 99999999999}",
          "tries 99999999999 is out of range" },
        { "{\"op\": \"step_retry\", \"name\": \"a\", \"tries\": -1}", "tries -1 is out of range" },
        { "{\"op\": \"step_retry\", \"name\": \"a\", \"backoff\": {\"factor\": null}}",
          "backoff.factor is out of range" },
        { "{\"op\": \"step_retry\", \"name\": \"a\", \"backoff\": {\"factor\": \"NaN\"}}",
          "backoff.factor is out of range" },
        { "{\"op\": \"step_retry\", \"name\": \"a\", \"backoff\": {\"jitter\": 1e300}}",
          "backoff.jitter is out of range" },
        { "{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\", \"options\": "
          "{\"maxAttempts\": 1.5}}",
          "options.maxAttempts is not an integer" },
        { "{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\", \"options\": "
          "{\"maxAttempts\": 99999999999}}",
          "options.maxAttempts 99999999999 is out of range" },
        { "{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\", \"options\": "
          "{\"priority\": 99999}}",
          "options.priority 99999 is out of range" },
        { "{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\", \"options\": "
          "{\"scheduledAt\": \"yesterday\"}}",
          "scheduledAt 'yesterday' is not a time" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool suspends = strstr(rows[i].op, "\"step\"") == NULL;
        for (size_t way = 0; way < (suspends ? 1 : sizeof ways / sizeof *ways); way++) {
            char ops[512];
            (void)snprintf(ops, sizeof ops, ways[way], rows[i].op);
            const char *answers = commit_ops("http", ops);
            if (strstr(answers, "\"code\": \"invalid_argument\"") == NULL ||
                strstr(answers, rows[i].says) == NULL) {
                fail_msg("%s: %s", ops, answers);
            }
        }
    }
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps join c using (run_id)"), 0);
    assert_string_equal(status("http"), "running");
}

/* They are as good as before, in any way: with fractions, on the last of a month, elsewhere. */
static void times_are_kept_to_the_microsecond(void **state) {
    static const struct {
        const char *text, *time;
    } rows[] = {
        { "2020-05-06T09:00:00Z", "2020-05-06T09:00:00.000000" },
        { "2020-05-31t09:00:00.123456789z", "2020-05-31T09:00:00.123457" },
        { "2020-02-29T23:59:59.5+05:30", "2020-02-29T18:29:59.500000" },
        { "2020-12-31T00:00:00-11:00", "2020-12-31T11:00:00.000000" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
            char op[256], ops[512];
            (void)snprintf(op, sizeof op,
                           "{\"op\": \"step\", \"name\": \"a%zu-%zu\", \"startedAt\": \"%s\"}", i,
                           way, rows[i].text);
            (void)snprintf(ops, sizeof ops, ways[way], op);
            assert_non_null(strstr(commit_ops("http", ops), "results"));
            assert_string_equal(
                sql_text(conn,
                         "select to_char(s.started_at at time zone 'UTC', "
                         "'YYYY-MM-DD\"T\"HH24:MI:SS.US') from durable.steps s join c using "
                         "(run_id) where s.name = 'a%zu-%zu'",
                         i, way),
                rows[i].time);
        }
    }
}

/* An SDK may name both members, and say of one that it is not there. */
static void a_result_beside_an_error_that_is_null_is_kept(void **state) {
    (void)state;
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        char op[256], ops[512];
        (void)snprintf(op, sizeof op,
                       "{\"op\": \"step\", \"name\": \"a%zu\", \"result\": 5, \"error\": null}",
                       way);
        (void)snprintf(ops, sizeof ops, ways[way], op);
        assert_non_null(strstr(commit_ops("http", ops), "results"));
        assert_string_equal(
            sql_text(conn,
                     "select format('%%s %%s %%s', s.status, s.result, s.error) from durable.steps "
                     "s join c using (run_id) where s.name = 'a%zu'",
                     way),
            "completed 5 ");
    }
    assert_non_null(
        strstr(commit_ops("http", "[{\"op\": \"step_retry\", \"name\": \"b\", \"backoff\": null, "
                                  "\"error\": null, \"tries\": null}]"),
               "results"));
}

int main(void) {
#define RUN(test) cmocka_unit_test_setup_teardown(test, begin, end)
    const struct CMUnitTest tests[] = {
        RUN(a_claim_brings_what_a_call_says_of_its_run),
        RUN(ops_are_remembered_in_their_order),
        RUN(a_repeated_request_changes_nothing_and_gives_the_same_results),
        RUN(an_item_that_is_refused_harms_no_other),
        RUN(no_more_suspends_a_run_at_once_than_its_limit),
        RUN(an_op_of_state_that_is_refused_is_its_handlers_error_for_good),
        RUN(a_handler_that_does_not_fit_parks_its_run),
        RUN(a_handler_in_c_has_no_other_ops),
        RUN(too_much_fails_its_run_and_no_other),
        RUN(what_fills_a_history_fails_its_run_whichever_way_it_comes),
        RUN(what_suspends_is_the_last_op),
        RUN(a_cancelled_run_is_told_so),
        RUN(a_lease_that_somebody_holds_is_busy),
        RUN(whose_op_needs_what_a_caller_holds_is_busy_alone),
        RUN(many_whose_key_is_held_are_given_up_together),
        RUN(a_wait_for_any_takes_the_first_of_its_events),
        RUN(a_child_gives_its_result_to_its_parent),
        RUN(a_child_that_fails_gives_its_error_to_its_parent),
        RUN(a_cancelled_parent_cancels_its_child),
        RUN(several_children_run_at_once),
        RUN(what_is_first_of_several_goes_on),
        RUN(two_waits_for_one_event_take_two),
        RUN(one_of_several_that_is_too_late_ends_the_run),
        RUN(a_retry_does_again_what_failed_in_its_place),
        RUN(a_retry_waits_for_a_child_that_is_alive),
        RUN(a_retry_takes_the_result_of_a_child_that_has_completed),
        RUN(a_retry_begins_a_child_anew_that_has_failed_or_was_cancelled),
        RUN(a_retry_of_several_children_begins_only_what_has_failed_anew),
        RUN(a_retry_waits_for_a_child_that_was_retried),
        RUN(a_retry_passes_over_the_old_end_of_a_child_that_goes_on),
        RUN(an_answer_ends_suspends_or_continues_a_run),
        RUN(an_answer_that_is_none_fails_the_attempt_with_a_reason),
        RUN(a_failure_that_is_not_to_be_retried_is_not),
        RUN(an_endpoint_that_rests_costs_its_runs_no_attempt),
        RUN(a_log_or_a_progress_over_its_limits_is_refused_to_its_run),
        RUN(an_error_keeps_no_more_than_its_protocol_names),
        RUN(counters_of_many_runs_do_not_meet_crosswise),
        RUN(what_no_place_is_left_for_is_refused_before_it_suspends),
        RUN(a_forgotten_place_is_taken_again_by_a_run_that_is_full),
        RUN(the_last_step_said_again_changes_nothing),
        RUN(a_place_that_cannot_be_stops_no_other_run),
        RUN(an_event_counts_as_it_prints_and_fails_a_run_that_it_does_not_fit),
        RUN(results_count_as_they_print),
        RUN(a_run_that_remembers_too_much_is_not_retried),
        RUN(what_is_no_time_or_number_is_refused_by_its_name),
        RUN(times_are_kept_to_the_microsecond),
        RUN(a_result_beside_an_error_that_is_null_is_kept),
        cmocka_unit_test(old_secrets_hold_for_a_day),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
