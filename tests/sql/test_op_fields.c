/* Fields of ops that are odd: times, numbers, errors. */
#include "ops.h"

#include <string.h>

/* What an error says beside its texts is one word: it is kept with the run, and shown. */
static void an_error_keeps_no_more_than_its_protocol_names(void **state) {
    (void)state;
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"a\", \"error\": {\"message\": "
                             "\"m\", \"retryable\": {\"a\": [1, 2, 3]}, \"more\": 1}}]");
    assert_string_equal(sql_text(conn, "select error from durable.steps join c using (run_id)"),
                        "{\"name\": \"Error\", \"message\": \"m\"}");
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
    const struct CMUnitTest tests[] = {
        OPS_TEST(an_error_keeps_no_more_than_its_protocol_names),
        OPS_TEST(what_is_no_time_or_number_is_refused_by_its_name),
        OPS_TEST(times_are_kept_to_the_microsecond),
        OPS_TEST(a_result_beside_an_error_that_is_null_is_kept),
    };
    return cmocka_run_group_tests(tests, ops_setup, invariants_hold);
}
