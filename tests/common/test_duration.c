#include "tests/common/unit.h"

#include "common/bounds.h"
#include "common/duration.h"

static void durations_of_the_contract_are_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        { "500ms", 500 },
        { "30s", 30000 },
        { "5m", 300000 },
        { "24h", 86400000 },
        { "30d", 2592000000 },
        { "1h30m", 5400000 },
        { "1d2h3m4s5ms", 93784005 },
        { "1d1h1m1s1ms", 90061001 },
        { "007s", 7000 },
        { "0h1ms", 1 },
        { "1m1m", 120000 },
        { "3650d", DURATION_MS_MAX },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t ms = -1;
        assert_ok(duration_parse("timeout", cases[i].text, &ms));
        assert_int_equal(ms, cases[i].ms);
    }
}

static void all_else_is_refused_and_leaves_the_result_alone(void **state) {
    (void)state;
    static const char *const wrong[] = { "",       "0s",   "5",         "s",   "-5s",
                                         "+5s",    "5 s",  " 5s",       "5s ", "5S",
                                         "5min",   "1.5h", "1h30",      "5us", "5x",
                                         "5m ",    "+5m",  "1w",        "ms",  "1hm",
                                         "1h-30m", "1e3s", "\xD9\xA1s", "P1D", "5sx" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int64_t ms = -1;
        assert_fails(duration_parse("timeout", wrong[i], &ms), DJ_INVALID_ARGUMENT, "timeout '");
        assert_non_null(strstr(dj_error_message(), "such as 500ms, 30s, 5m, 24h, 30d"));
        assert_int_equal(ms, -1);
    }
    int64_t ms;
    assert_fails(duration_parse("timeout", NULL, &ms), DJ_INVALID_ARGUMENT, "timeout");
}

static void more_than_ten_years_is_refused_however_it_is_said(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "3651d",           "99999999999999999999d",  "3650d1ms",
        "87601h",          "315360000001ms",         "9223372036854775807ms",
        "99999999999999d", "18446744073709551617ms", "99999999999999999999999999999999s",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int64_t ms;
        assert_fails(duration_parse("timeout", wrong[i], &ms), DJ_INVALID_ARGUMENT,
                     "up to 10 years");
    }
}

static void durations_are_printed_largest_unit_first(void **state) {
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        { 0, "0ms" },
        { 500, "500ms" },
        { 90000, "1m30s" },
        { 86400000, "1d" },
        { 129600000, "1d12h" },
        { DURATION_MS_MAX, "3650d" },
        { INT64_MAX, "106751991167d7h12m55s807ms" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        duration_print(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void what_is_printed_is_read_back(void **state) {
    (void)state;
    for (int64_t ms = 1; ms <= DURATION_MS_MAX; ms = ms * 3 + 7) {
        char text[32];
        int64_t again;
        duration_print(ms, text);
        assert_ok(duration_parse("timeout", text, &again));
        assert_int_equal(again, ms);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_of_the_contract_are_read),
        cmocka_unit_test(all_else_is_refused_and_leaves_the_result_alone),
        cmocka_unit_test(more_than_ten_years_is_refused_however_it_is_said),
        cmocka_unit_test(durations_are_printed_largest_unit_first),
        cmocka_unit_test(what_is_printed_is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
