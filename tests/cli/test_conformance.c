/* durable conformance finds what is wrong with an endpoint: wrong_endpoint.py serves one job by
 * hand, each time with another flaw. That our SDKs pass is tested where they are: in sdk/go, and in
 * tests/typescript. */
#include "support.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

/* What wrong_endpoint.py can be asked for: all that plays conformance.steps. */
#define CASES                                                                                      \
    "--only get --only get-unsigned --only signature-bad --only signature-missing "                \
    "--only signature-truncated --only signature-old --only signature-ahead "                      \
    "--only signature-body --only signature-id --only signature-second "                           \
    "--only signature-unknown --only steps --only replay --only replay-all "                       \
    "--only forgotten --only park --only commit-lost --only commit-503 --only lease-lost "         \
    "--only cancelled"

static struct said said;

static int setup(void **state) {
    (void)state;
    return setenv("STACKSHIFT_SIGNING_SECRET", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", 1);
}

/* Plays against the endpoint with a flaw. */
static void play(const char *flaw, const char *arguments) {
    const char *build = getenv("DURABLE_BUILD");
    assert_non_null(build);
    shell_said(&said,
               "file=$(mktemp); python3 %s/../../tests/cli/wrong_endpoint.py '%s' >$file & "
               "endpoint=$!; while kill -0 $endpoint && ! [ -s $file ]; do sleep 0.02; done; "
               "%s/cli/durable conformance --endpoint \"$(cat $file)\" %s; status=$?; "
               "kill $endpoint; rm -f $file; exit $status",
               build, flaw, build, arguments);
}

static void what_is_as_the_protocol_says_holds(void **state) {
    (void)state;
    play("none", CASES);
    if (said.status != 0) {
        fail_msg("%d: %s%s", said.status, said.out, said.err);
    }
    assert_null(strstr(said.out, "FAIL"));
    assert_non_null(strstr(said.out, "\n25 ok, 0 failed\n")); /* five are played a second time */
}

static void each_flaw_is_named(void **state) {
    static const struct {
        const char *flaw, *line;
    } rows[] = {
        { "trusts", "\nFAIL  signature-missing       expected HTTP status 401; found 200 " },
        { "trusts", "\nFAIL  get-unsigned " },
        { "timeless", "\nFAIL  signature-old " },
        { "timeless", "\nFAIL  signature-ahead " },
        { "trims", "\nFAIL  signature-body " },
        { "prefix", "\nFAIL  signature-truncated " },
        { "first", "\nFAIL  signature-second " },
        { "first", "\nFAIL  signature-unknown " },
        { "forgets", "\nFAIL  replay  " },
        { "skips", "\nFAIL  forgotten               expected the answer.result 42; found 40\n" },
        { "raw:{\"protocol\":1,\"ops\":[{\"op\":\"sleep\"},{\"op\":\"step\"}],\"status\":"
          "\"suspended\"}",
          "\nFAIL  steps                   expected an op that suspends to be the last one; found "
          "step " },
        { "raw:{\"protocol\":1,\"ops\":[{\"op\":\"park\"},{\"op\":\"sleep\"}],\"status\":"
          "\"suspended\"}",
          "\nFAIL  steps                   expected an op that suspends to be the last one; found "
          "sleep " },
        { "disorder", "\nFAIL  steps                   expected ops[1].name \"b\"; found \"c\"\n" },
        { "hoards", "\nFAIL  steps                   expected no status continue, before maxRunMs "
                    "has passed; found " },
        { "texts", "\nFAIL  steps/answer            expected the answer.result 6; found \"6\"\n" },
        { "shrugs", "\nFAIL  commit-503 " },
        { "rewords", "\nFAIL  commit-lost             expected the same request again, byte by "
                     "byte; found " },
        { "deaf", "\nFAIL  lease-lost              expected no more ops from this handler; found "
                  "step c\n" },
        { "deaf", "\nFAIL  cancelled " },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (i == 0 || strcmp(rows[i].flaw, rows[i - 1].flaw) != 0) {
            play(rows[i].flaw, CASES);
        }
        if (said.status != 10 || strstr(said.out, rows[i].line) == NULL ||
            strstr(said.err, " cases do not hold\n") == NULL) {
            fail_msg("%s: %d, no %s in %s%s", rows[i].flaw, said.status, rows[i].line, said.out,
                     said.err);
        }
    }
}

static void whatever_is_said_is_judged(void **state) {
    static const char *const flaws[] = {
        "raw:",
        "raw:null",
        "raw:[]",
        "raw:{}",
        "raw:{\"protocol\":1}",
        "raw:{\"protocol\":1,\"jobs\":[null,{\"name\":null},7]}",
        "raw:{\"protocol\":1,\"ops\":null,\"status\":\"completed\"}",
        "raw:{\"protocol\":1,\"ops\":[null,1,[],{\"op\":{}}],\"status\":\"continue\"}",
        "raw:{\"protocol\":1,\"ops\":[],\"status\":\"continue\"}",
        "raw:{\"protocol\":1,\"ops\":[],\"status\":\"suspended\"}",
        "raw:{\"protocol\":1,\"ops\":[],\"status\":\" failed completed \"}",
        "raw:{\"protocol\":1,\"ops\":[{\"op\":\"sleep\"},{\"op\":\"state\"}],\"status\":"
        "\"suspended\"}",
        "raw:{\"protocol\":1,\"ops\":[{\"op\":\"step_retry\",\"name\":null}],\"status\":"
        "\"suspended\"}",
        "commits:",
        "commits:null",
        "commits:[]",
        "commits:{\"commits\":7}",
        "commits:{\"commits\":[null,{},{\"token\":7,\"ops\":{}}]}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof flaws / sizeof *flaws; i++) {
        bool commits = strncmp(flaws[i], "commits:", 8) == 0;
        play(flaws[i], commits ? "--only steps" : "--only get --only steps --only unknown-job");
        if (said.status != 10 || strstr(said.out, "FAIL  steps ") == NULL) {
            fail_msg("%s: %d, %s%s", flaws[i], said.status, said.out, said.err);
        }
    }
}

static void a_report_is_json_too(void **state) {
    json_object *value;
    (void)state;
    play("disorder", "--json --only get --only steps/answer");
    assert_int_equal(said.status, 10);
    json_object *report = json_tokener_parse(said.out);
    assert_non_null(report);
    assert_int_equal(json_pointer_get(report, "/ok", &value), 0);
    assert_int_equal(json_object_get_int(value), 1);
    assert_int_equal(json_pointer_get(report, "/cases/1/name", &value), 0);
    assert_string_equal(json_object_get_string(value), "steps/answer");
    assert_int_equal(json_pointer_get(report, "/cases/1/expected", &value), 0);
    assert_string_equal(json_object_get_string(value), "ops[1].name \"b\"");
    assert_int_equal(json_pointer_get(report, "/cases/1/found", &value), 0);
    assert_string_equal(json_object_get_string(value), "\"c\"");
    json_object_put(report);
}

static void what_is_wrong_is_named(void **state) {
    static const struct {
        const char *arguments;
        int status;
        const char *named;
    } rows[] = {
        { "", 2, "--endpoint" },
        { "--endpoint http://127.0.0.1:1 --only nonesuch", 2, "'nonesuch'" },
        { "--endpoint http://127.0.0.1:1 --only get/answer", 2, "'get/answer'" },
        { "--endpoint http://127.0.0.1:1 --secret hush", 2, "whsec_" },
        { "--endpoint http://127.0.0.1:1 --secret ' '", 2, "--secret" },
        { "--endpoint http://127.0.0.1:1", 8, "127.0.0.1:1 cannot be reached" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        durable(&said, "", "conformance %s", rows[i].arguments);
        if (said.status != rows[i].status || strstr(said.err, rows[i].named) == NULL) {
            fail_msg("%s: %d, %s", rows[i].arguments, said.status, said.err);
        }
        assert_string_equal(said.out, "");
    }
    durable(&said, "", "conformance --list");
    assert_int_equal(said.status, 0);
    assert_non_null(strstr(said.out, "\nreplay "));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_as_the_protocol_says_holds),
        cmocka_unit_test(each_flaw_is_named),
        cmocka_unit_test(whatever_is_said_is_judged),
        cmocka_unit_test(a_report_is_json_too),
        cmocka_unit_test(what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
