#include "tests/common/unit.h"

#include "common/rfc3339.h"

static void times_are_read_with_their_zone(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t us;
    } cases[] = {
        { "1970-01-01T00:00:00Z", 0 },
        { "1970-01-01t00:00:00z", 0 },
        { "1970-01-01 00:00:00Z", 0 },
        { "1970-01-01T01:00:00+01:00", 0 },
        { "1969-12-31T18:30:00-05:30", 0 },
        { "1970-01-01T15:59:00+15:59", 0 },
        { "1969-12-31T23:59:59.999999Z", -1 },
        { "2026-05-06T09:00:00.5Z", 1778058000500000 },
        { "2026-05-06T09:00:00.123456789Z", 1778058000123456 },
        { "2024-02-29T00:00:00Z", 1709164800000000 },
        { "2024-02-29T12:00:00.123456789-05:30", 1709227800123456 },
        { "2026-05-06T09:00:00.000Z", 1778058000000000 },
        { "2000-02-29T23:59:60Z", 951868800000000 },
        { "0001-01-01T00:00:00Z", -62135596800000000 },
        { "9999-12-31T23:59:59.999999Z", 253402300799999999 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t us = 7;
        assert_ok(rfc3339_parse("scheduledAt", cases[i].text, &us));
        assert_int_equal(us, cases[i].us);
    }
}

static void what_the_calendar_or_the_form_has_not_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "",
        "2026",
        "2026-05-06",
        "2026-05-06T09:00Z",
        "2026-05-06T09:00:00",
        "2026-5-6T09:00:00Z",
        "2026-05-06T9:00:00Z",
        "2026-00-06T09:00:00Z",
        "2026-13-06T09:00:00Z",
        "2026-05-00T09:00:00Z",
        "2026-04-31T09:00:00Z",
        "2026-02-29T09:00:00Z",
        "1900-02-29T09:00:00Z",
        "2026-05-06T24:00:00Z",
        "2026-05-06T09:60:00Z",
        "2026-05-06T09:00:61Z",
        "2026-05-06T09:00:00.Z",
        "2026-05-06T09:00:00,5Z",
        "2026-05-06T09:00:00Z ",
        " 2026-05-06T09:00:00Z",
        "2026-05-06T09:00:00+01",
        "2026-05-06T09:00:00+0100",
        "2026-05-06T09:00:00+24:00",
        "2026-05-06T09:00:00+16:00",
        "2026-05-06T09:00:00-16:00",
        "2026-05-06T09:00:00+01:60",
        "2026-05-06T09:00:00 UTC",
        "2026-05-06T09:00:00ZZ",
        "2026-05-06T09:00:00Zx",
        "0000-01-01T00:00:00Z",
        "+2026-05-06T09:00:00Z",
        "20260506T090000Z",
        "now",
        "infinity",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T23:59:60Z",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int64_t us = 7;
        assert_fails(rfc3339_parse("scheduledAt", wrong[i], &us), DJ_INVALID_ARGUMENT,
                     "scheduledAt '");
        assert_non_null(strstr(dj_error_message(), "such as 2026-05-06T09:00:00Z"));
        assert_int_equal(us, 7);
    }
    int64_t us;
    assert_fails(rfc3339_parse("scheduledAt", NULL, &us), DJ_INVALID_ARGUMENT, "scheduledAt");
}

static void times_are_printed_in_utc(void **state) {
    (void)state;
    char text[32];
    rfc3339_print(0, text);
    assert_string_equal(text, "1970-01-01T00:00:00.000Z");
    rfc3339_print(1778058000123999, text);
    assert_string_equal(text, "2026-05-06T09:00:00.123Z");
    rfc3339_print_us(1778058000123999, text);
    assert_string_equal(text, "2026-05-06T09:00:00.123999Z");
    rfc3339_print(-500000, text);
    assert_string_equal(text, "1969-12-31T23:59:59.500Z");
    rfc3339_print_us(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999999Z");
    rfc3339_print(-62135596800000000, text);
    assert_string_equal(text, "0001-01-01T00:00:00.000Z");
}

static void even_the_farthest_times_are_closed_texts(void **state) {
    (void)state;
    char text[32];
    rfc3339_print_us(INT64_MAX, text);
    assert_string_equal(text, "294247-01-10T04:00:54.775807Z");
    rfc3339_print_us(INT64_MIN, text);
    assert_true(strlen(text) < sizeof text);
}

static void what_is_printed_is_read_back(void **state) {
    (void)state;
    for (int64_t us = -62135596800000000; us < 253402300799999999; us += 86399999997 * 31) {
        char text[32];
        int64_t again;
        rfc3339_print_us(us, text);
        assert_ok(rfc3339_parse("at", text, &again));
        assert_int_equal(again, us);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_read_with_their_zone),
        cmocka_unit_test(what_the_calendar_or_the_form_has_not_is_refused),
        cmocka_unit_test(times_are_printed_in_utc),
        cmocka_unit_test(even_the_farthest_times_are_closed_texts),
        cmocka_unit_test(what_is_printed_is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
