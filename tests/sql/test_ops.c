/* Ops of handlers that are called over HTTP, and the endpoints that serve them: the protocol's
 * functions, without HTTP. */
#include "ops.h"

#include <string.h>

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

static void a_cancelled_run_is_told_so(void **state) {
    (void)state;
    sql(conn, "select durable.cancel(run_id) from c");
    assert_string_equal(commit_ops("http", "[{\"op\": \"step\", \"name\": \"a\", \"result\": 1}]"),
                        "{\"results\": [], \"cancelled\": true}");
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps join c using (run_id)"), 0);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST(a_claim_brings_what_a_call_says_of_its_run),
        OPS_TEST(ops_are_remembered_in_their_order),
        OPS_TEST(a_repeated_request_changes_nothing_and_gives_the_same_results),
        OPS_TEST(an_item_that_is_refused_harms_no_other),
        OPS_TEST(an_op_of_state_that_is_refused_is_its_handlers_error_for_good),
        OPS_TEST(a_handler_that_does_not_fit_parks_its_run),
        OPS_TEST(a_handler_in_c_has_no_other_ops),
        OPS_TEST(a_cancelled_run_is_told_so),
        OPS_TEST(an_answer_ends_suspends_or_continues_a_run),
        OPS_TEST(an_answer_that_is_none_fails_the_attempt_with_a_reason),
        OPS_TEST(a_failure_that_is_not_to_be_retried_is_not),
        OPS_TEST(an_endpoint_that_rests_costs_its_runs_no_attempt),
        cmocka_unit_test(old_secrets_hold_for_a_day),
    };
    return cmocka_run_group_tests(tests, ops_setup, invariants_hold);
}
